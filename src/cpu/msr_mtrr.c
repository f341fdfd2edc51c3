/* Memory types: MTRRs and the page attribute table. They are kept and checked, and shape nothing: all guest memory is
 * coherent. SDM vol. 3 §11.11.2, §11.12.2. */
#include "cpu/cpuid.h"
#include "cpu/msr.h"

enum {
    MSR_MTRRCAP = 0xfe,
    MSR_MTRR_PHYSBASE0 = 0x200,
    MSR_MTRR_FIX64K = 0x250,
    MSR_MTRR_FIX16K = 0x258,
    MSR_MTRR_FIX4K = 0x268,
    MSR_PAT = 0x277,
    MSR_MTRR_DEF_TYPE = 0x2ff,
};

#define VARIABLE_RANGES 8
#define MTRRCAP_FIXED (1u << 8)
#define MTRRCAP_WC (1u << 10)

/* Bit n: type n exists. UC 0, WC 1, WT 4, WP 5, WB 6; the PAT also has UC- 7. */
#define TYPES_MTRR 0x73u
#define TYPES_PAT 0xf3u

static bool type_valid(u8 type, u32 types)
{
    return type < 8 && types >> type & 1;
}

static bool types_valid(u64 val, u32 types)
{
    for (int n = 0; n < 8; n++)
        if (!type_valid((u8)(val >> n * 8), types))
            return false;
    return true;
}

/* Index into msr_mtrr_fixed: one register for 512 KiB, two, then eight; -1 for other MSRs. */
static int fixed_index(u32 msr)
{
    if (msr == MSR_MTRR_FIX64K)
        return 0;
    if (msr == MSR_MTRR_FIX16K || msr == MSR_MTRR_FIX16K + 1)
        return 1 + (int)(msr - MSR_MTRR_FIX16K);
    if (msr >= MSR_MTRR_FIX4K && msr < MSR_MTRR_FIX4K + 8)
        return 3 + (int)(msr - MSR_MTRR_FIX4K);
    return -1;
}

static u64 *mtrr_register(struct vcpu *c, u32 msr)
{
    u32 n = msr - MSR_MTRR_PHYSBASE0;

    if (msr == MSR_PAT)
        return has(c, FEAT_PAT) ? &c->s.msr_pat : NULL;
    if (!has(c, FEAT_MTRR))
        return NULL;
    if (msr == MSR_MTRR_DEF_TYPE)
        return &c->s.msr_mtrr_def_type;
    if (n < 2 * VARIABLE_RANGES)
        return n & 1 ? &c->s.msr_mtrr_mask[n / 2] : &c->s.msr_mtrr_base[n / 2];
    return fixed_index(msr) >= 0 ? &c->s.msr_mtrr_fixed[fixed_index(msr)] : NULL;
}

static bool value_valid(const struct vcpu *c, u32 msr, u64 val)
{
    u64 too_high = ~((1ull << c->group->model->phys_bits) - 1);

    if (msr == MSR_PAT)
        return types_valid(val, TYPES_PAT);
    if (msr == MSR_MTRR_DEF_TYPE)
        return !(val & ~0xcffull) && type_valid((u8)val, TYPES_MTRR);
    if (fixed_index(msr) >= 0)
        return types_valid(val, TYPES_MTRR);
    if (msr & 1) /* mask: bit 11 says valid */
        return !(val & (too_high | 0x7ff));
    return !(val & (too_high | 0xf00)) && type_valid((u8)val, TYPES_MTRR);
}

bool mtrr_msr_read(struct vcpu *c, u32 msr, u64 *ret)
{
    const u64 *reg = mtrr_register(c, msr);

    if (msr == MSR_MTRRCAP && has(c, FEAT_MTRR)) {
        *ret = VARIABLE_RANGES | MTRRCAP_FIXED | MTRRCAP_WC;
        return true;
    }
    if (!reg)
        return false;
    *ret = *reg;
    return true;
}

bool mtrr_msr_write(struct vcpu *c, u32 msr, u64 val)
{
    u64 *reg = mtrr_register(c, msr);

    if (!reg || !value_valid(c, msr, val))
        return false;
    *reg = val;
    return true;
}

#define MTRR_ENABLED 0xc00u /* fixed and variable ranges */
#define ALL_WRITE_BACK 0x0606060606060606ull
#define ALL_WRITE_PROTECTED 0x0505050505050505ull

void mtrr_firmware_setup(struct vcpu *c)
{
    if (!has(c, FEAT_MTRR))
        return;
    c->s.msr_mtrr_def_type = MTRR_ENABLED | 6;
    c->s.msr_mtrr_fixed[0] = c->s.msr_mtrr_fixed[1] = ALL_WRITE_BACK;
    c->s.msr_mtrr_fixed[2] = 0; /* 0xA0000: video memory, uncached */
    for (int n = 3; n < 11; n++)
        c->s.msr_mtrr_fixed[n] = ALL_WRITE_PROTECTED;
}
