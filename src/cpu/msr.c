/* Model-specific registers: see msr.h. Most are plain storage with a rule for what may be written, and sit in a
 * table; the rest has effects and is in the switches below. The local APIC's and the MTRRs have files of their own.
 *
 * IA32_ARCH_CAPABILITIES claims immunity from every speculation attack it knows: guest code is interpreted, and
 * never runs ahead of itself. Kernels then leave their costly defences off. */
#include "cpu/msr.h"

#include "cpu/cpuid.h"
#include "cpu/descriptor.h"
#include "cpu/engine.h"
#include "cpu/exec_system.h"
#include "cpu/lapic.h"
#include "cpu/vcpu_trace.h"

enum {
    MSR_P5_MC_ADDR = 0,
    MSR_P5_MC_TYPE = 1,
    MSR_TSC = 0x10,
    MSR_PLATFORM_ID = 0x17,
    MSR_APIC_BASE = 0x1b,
    MSR_EBL_CR_POWERON = 0x2a,
    MSR_SMI_COUNT = 0x34,
    MSR_FEATURE_CONTROL = 0x3a,
    MSR_TSC_ADJUST = 0x3b,
    MSR_SPEC_CTRL = 0x48,
    MSR_PRED_CMD = 0x49,
    MSR_BIOS_UPDT_TRIG = 0x79,
    MSR_BIOS_SIGN_ID = 0x8b,
    MSR_PLATFORM_INFO = 0xce,
    MSR_ARCH_CAPABILITIES = 0x10a,
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP = 0x175,
    MSR_SYSENTER_EIP = 0x176,
    MSR_MCG_CAP = 0x179,
    MSR_MCG_STATUS = 0x17a,
    MSR_PERF_STATUS = 0x198,
    MSR_MISC_ENABLE = 0x1a0,
    MSR_DEBUGCTL = 0x1d9,
    MSR_LASTBRANCHFROM = 0x1db,
    MSR_LASTBRANCHTO = 0x1dc,
    MSR_LASTINTFROM = 0x1dd,
    MSR_LASTINTTO = 0x1de,
    MSR_TSC_DEADLINE = 0x6e0,
    MSR_PKRS = 0x6e1,
    MSR_X2APIC = 0x800,
    MSR_X2APIC_LAST = 0x8ff,
};
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_SFMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX 0xc0000103u

#define UPPER_HALF 0xffffffff00000000ull
#define FEATURE_CONTROL_LOCK 1u

/* Bits of IA32_ARCH_CAPABILITIES, all of the kind "not affected": SDM vol. 4 table 2-2. */
#define ARCH_CAPABILITIES                                                                                      \
    (BIT(0) /* RDCL_NO */ | BIT(1) /* IBRS_ALL */ | BIT(3) /* SKIP_L1DFL_VMENTRY */ | BIT(4) /* SSB_NO */ |    \
     BIT(5) /* MDS_NO */ | BIT(6) /* IF_PSCHANGE_MC_NO */ | BIT(8) /* TAA_NO */ | BIT(13) /* SBDR_SSDP_NO */ | \
     BIT(14) /* FBSDP_NO */ | BIT(15) /* PSDP_NO */ | BIT(20) /* BHI_NO */ | BIT(24) /* PBRSB_NO */ |          \
     BIT(26) /* GDS_NO */ | BIT(27) /* RFDS_NO */ | BIT(62) /* ITS_NO */)

/* IBRS, STIBP, SSBD, BHI_DIS_S: switches without effect. The last spares kernels a branch history clearing loop on every
 * system call. */
#define SPEC_CTRL_BITS (BIT(0) | BIT(1) | BIT(2) | BIT(10))

/* MISC_ENABLE's read-only bits: branch trace and precise event records are unavailable, and so is performance monitoring.
 * Of the others the limit on CPUID and the disabled NX have effects (cpuid.c and below). */
#define MISC_ENABLE_SET (BIT(11) | BIT(12))
#define MISC_ENABLE_CLEAR BIT(7)

/* Registers that hold what was written. */
struct stored_msr {
    u32 msr;
    u8 feature;
    bool canonical; /* what is written must be an address */
    u64 reserved;   /* bits that may not be written as ones */
    u32 offset;     /* of the u64 in struct vcpu_state */
};
#define AT(field) offsetof(struct vcpu_state, field)
static const struct stored_msr stored[] = {
    {MSR_SPEC_CTRL, FEAT_SPEC_CTRL, false, ~SPEC_CTRL_BITS, AT(msr_spec_ctrl)},
    {MSR_BIOS_SIGN_ID, FEAT_MSR, false, 0, AT(msr_bios_sign_id)},
    {MSR_SYSENTER_CS, FEAT_SEP, false, 0, AT(msr_sysenter_cs)},
    {MSR_SYSENTER_ESP, FEAT_SEP, true, 0, AT(msr_sysenter_esp)},
    {MSR_SYSENTER_EIP, FEAT_SEP, true, 0, AT(msr_sysenter_eip)},
    {MSR_MCG_STATUS, FEAT_MCA, false, ~7ull, AT(msr_mcg_status)},
    {MSR_DEBUGCTL, FEAT_CMOV, false, ~1ull, AT(msr_debugctl)}, /* LBR: branches are not recorded, though */
    {MSR_STAR, FEAT_SYSCALL, false, 0, AT(msr_star)},
    {MSR_LSTAR, FEAT_LM, true, 0, AT(msr_lstar)},
    {MSR_CSTAR, FEAT_LM, true, 0, AT(msr_cstar)},
    {MSR_SFMASK, FEAT_SYSCALL, false, UPPER_HALF, AT(msr_sfmask)},
    {MSR_KERNEL_GS_BASE, FEAT_LM, true, 0, AT(msr_kernel_gs_base)},
    {MSR_TSC_AUX, FEAT_RDTSCP, false, UPPER_HALF, AT(msr_tsc_aux)},
};

/* Registers with one value for ever. Writes raise #GP, or are ignored where guests make them. */
struct constant_msr {
    u32 msr;
    u8 feature;
    bool write_ignored;
    u64 val;
};
static const struct constant_msr constants[] = {
    {MSR_P5_MC_ADDR, FEAT_MCE, true, 0},
    {MSR_P5_MC_TYPE, FEAT_MCE, true, 0},
    {MSR_PLATFORM_ID, FEAT_CMOV, false, 0},
    {MSR_EBL_CR_POWERON, FEAT_CMOV, true, 0},
    {MSR_SMI_COUNT, FEAT_X2APIC, false, 0},
    {MSR_BIOS_UPDT_TRIG, FEAT_CMOV, true, 0},
    {MSR_ARCH_CAPABILITIES, FEAT_ARCH_CAPABILITIES, false, ARCH_CAPABILITIES},
    {MSR_MCG_CAP, FEAT_MCA, false, 0}, /* no banks */
    {MSR_LASTBRANCHFROM, FEAT_CMOV, false, 0},
    {MSR_LASTBRANCHTO, FEAT_CMOV, false, 0},
    {MSR_LASTINTFROM, FEAT_CMOV, false, 0},
    {MSR_LASTINTTO, FEAT_CMOV, false, 0},
};

/* The same for AMD's processors: chip configuration that kernels read, and write to work around errata. */
static const struct constant_msr amd_constants[] = {
    {0xc0010000, FEAT_LM, true, 0},       /* performance event selects, which nothing counts … */
    {0xc0010001, FEAT_LM, true, 0},
    {0xc0010002, FEAT_LM, true, 0},
    {0xc0010003, FEAT_LM, true, 0},
    {0xc0010004, FEAT_LM, true, 0},       /* … and counters: no CPUID bit tells of these eight */
    {0xc0010005, FEAT_LM, true, 0},
    {0xc0010006, FEAT_LM, true, 0},
    {0xc0010007, FEAT_LM, true, 0},
    {0xc0010010, FEAT_LM, true, 0},       /* SYSCFG */
    {0xc0010015, FEAT_LM, true, BIT(24)}, /* HWCR: the TSC runs at a constant rate */
    {0xc001001f, FEAT_LM, true, 0},       /* NB_CFG */
    {0xc0010055, FEAT_LM, true, 0},       /* interrupt pending and CMP-halt */
    {0xc0010058, FEAT_LM, true, 0},       /* MMIO configuration base */
    {0xc0010112, FEAT_LM, true, 0},       /* TSEG address */
    {0xc0011020, FEAT_LM, true, 0},       /* load-store configuration */
    {0xc0011021, FEAT_LM, true, 0},       /* instruction cache configuration */
    {0xc0011022, FEAT_LM, true, 0},       /* data cache configuration */
    {0xc0011023, FEAT_LM, true, 0},       /* bus unit configuration */
    {0xc0011029, FEAT_LM, true, BIT(1)},  /* decode configuration: LFENCE serializes */
    {0xc001102a, FEAT_LM, true, 0},       /* bus unit configuration 2 */
    {0xc001102c, FEAT_LM, true, 0},       /* execution unit configuration */
    {0xc001102e, FEAT_LM, true, 0},       /* branch prediction configuration */
};

static const struct stored_msr *stored_find(const struct vcpu *c, u32 msr)
{
    for (size_t n = 0; n < ARRAY_SIZE(stored); n++)
        if (stored[n].msr == msr && has(c, (enum cpu_feature)stored[n].feature))
            return &stored[n];
    return NULL;
}

static const struct constant_msr *constant_find(const struct vcpu *c, u32 msr)
{
    for (size_t n = 0; n < ARRAY_SIZE(constants); n++)
        if (constants[n].msr == msr && has(c, (enum cpu_feature)constants[n].feature))
            return &constants[n];
    for (size_t n = 0; c->group->model->amd && n < ARRAY_SIZE(amd_constants); n++)
        if (amd_constants[n].msr == msr)
            return &amd_constants[n];
    return NULL;
}

static bool lapic_owns(u32 msr)
{
    return msr == MSR_APIC_BASE || msr == MSR_TSC_DEADLINE || (msr >= MSR_X2APIC && msr <= MSR_X2APIC_LAST);
}

u64 tsc_read(struct vcpu *c)
{
    if (c->group->engine->tsc_read)
        return c->group->engine->tsc_read(c);
    return tsc_ticks(c->group, tsc_clock_read(c)) + (u64)c->s.tsc_offset;
}

/* A write of the TSC shows in IA32_TSC_ADJUST and the other way round: SDM vol. 3 §17.17.3. */
static void tsc_move(struct vcpu *c, u64 by)
{
    c->s.tsc_offset += (s64)by;
    c->s.msr_tsc_adjust += by;
    ext_save(c);
    lapic_tsc_changed(c);
}

static bool efer_write(struct vcpu *c, u64 val)
{
    u64 changed;

    if (!c->group->model->efer_mask || val & ~c->group->model->efer_mask)
        return false;
    if (val & ~c->s.efer & EFER_NXE && c->s.msr_misc_enable & MISC_ENABLE_XD_DISABLE)
        return false;
    val = (val & ~(u64)EFER_LMA) | (c->s.efer & EFER_LMA);
    changed = val ^ c->s.efer;
    if (changed & EFER_LME && c->s.cr0 & CR0_PG)
        return false;
    c->s.efer = val;
    if (changed & EFER_NXE)
        tlb_flush(c);
    vcpu_mode_update(c);
    return true;
}

/* The rights are part of what the TLB holds. */
static bool pkrs_write(struct vcpu *c, u64 val)
{
    if (!has(c, FEAT_PKS) || val >> 32)
        return false;
    c->s.pkrs = (u32)val;
    if (c->s.cr4 & CR4_PKS)
        tlb_flush(c);
    return true;
}

static bool segment_base_write(struct vcpu *c, int seg, u64 val)
{
    if (!has(c, FEAT_LM) || !canonical(val))
        return false;
    segment_base_set(c, seg, val);
    return true;
}

/* False: none of these, or not in this model. */
static bool special_read(struct vcpu *c, u32 msr, u64 *ret)
{
    switch (msr) {
    case MSR_TSC:
        *ret = tsc_read(c);
        return has(c, FEAT_TSC);
    case MSR_TSC_ADJUST:
        *ret = c->s.msr_tsc_adjust;
        return has(c, FEAT_TSC_ADJUST);
    case MSR_PLATFORM_INFO:
    case MSR_PERF_STATUS: /* the TSC's rate in multiples of a bus clock of 100 MHz */
        *ret = (c->group->tsc_khz / 100000 & 0xff) << 8;
        return has(c, FEAT_X2APIC);
    case MSR_FEATURE_CONTROL:
        *ret = c->s.msr_feature_control;
        return has(c, FEAT_X2APIC) && !c->group->model->amd;
    case MSR_MISC_ENABLE:
        *ret = c->s.msr_misc_enable | MISC_ENABLE_SET;
        return has(c, FEAT_CMOV) && !c->group->model->amd;
    case MSR_PKRS:
        *ret = c->s.pkrs;
        return has(c, FEAT_PKS);
    case MSR_EFER:
        *ret = c->s.efer;
        return c->group->model->efer_mask;
    case MSR_FS_BASE:
        *ret = c->s.seg_base[SEG_FS];
        return has(c, FEAT_LM);
    case MSR_GS_BASE:
        *ret = c->s.seg_base[SEG_GS];
        return has(c, FEAT_LM);
    default:
        return false;
    }
}

static bool special_write(struct vcpu *c, u32 msr, u64 val)
{
    switch (msr) {
    case MSR_TSC:
        if (!has(c, FEAT_TSC))
            return false;
        tsc_move(c, val - tsc_read(c));
        return true;
    case MSR_TSC_ADJUST:
        if (!has(c, FEAT_TSC_ADJUST))
            return false;
        tsc_move(c, val - c->s.msr_tsc_adjust);
        return true;
    case MSR_FEATURE_CONTROL:
        if (!has(c, FEAT_X2APIC) || c->group->model->amd || c->s.msr_feature_control & FEATURE_CONTROL_LOCK)
            return false;
        c->s.msr_feature_control = val;
        return true;
    case MSR_MISC_ENABLE:
        if (!has(c, FEAT_CMOV) || c->group->model->amd)
            return false;
        c->s.msr_misc_enable = val & ~(MISC_ENABLE_SET | MISC_ENABLE_CLEAR);
        return true;
    case MSR_PRED_CMD:
        return has(c, FEAT_SPEC_CTRL) && !(val & ~1ull); /* nothing was predicted */
    case MSR_PKRS:
        return pkrs_write(c, val);
    case MSR_EFER:
        return efer_write(c, val);
    case MSR_FS_BASE:
        return segment_base_write(c, SEG_FS, val);
    case MSR_GS_BASE:
        return segment_base_write(c, SEG_GS, val);
    default:
        return false;
    }
}

static u64 *stored_place(struct vcpu *c, const struct stored_msr *s)
{
    return (u64 *)((char *)&c->s + s->offset);
}

static bool read_any(struct vcpu *c, u32 msr, u64 *ret)
{
    const struct constant_msr *k;
    const struct stored_msr *s;

    if (lapic_owns(msr)) /* first: the timer's deadline is written often */
        return lapic_msr_read(c, msr, ret);
    k = constant_find(c, msr);
    s = stored_find(c, msr);
    if (s)
        *ret = *stored_place(c, s);
    else if (k)
        *ret = k->val;
    else
        return mtrr_msr_read(c, msr, ret) || special_read(c, msr, ret);
    return true;
}

static bool write_any(struct vcpu *c, u32 msr, u64 val)
{
    const struct constant_msr *k;
    const struct stored_msr *s;

    if (lapic_owns(msr))
        return lapic_msr_write(c, msr, val);
    k = constant_find(c, msr);
    s = stored_find(c, msr);
    if (s) {
        if (val & s->reserved || (s->canonical && !canonical(val)))
            return false;
        *stored_place(c, s) = val;
        return true;
    }
    if (k)
        return k->write_ignored;
    return mtrr_msr_write(c, msr, val) || special_write(c, msr, val);
}

bool msr_read(struct vcpu *c, u32 msr, u64 *ret)
{
    u64 val = 0;
    bool ok = read_any(c, msr, &val);

    vcpu_trace(c, MSR, "vcpu %d: rdmsr %#x = %#llx%s", c->index, msr, (unsigned long long)val, ok ? "" : ": #GP");
    if (ok)
        *ret = val;
    return ok;
}

bool msr_write(struct vcpu *c, u32 msr, u64 val)
{
    bool ok = write_any(c, msr, val);

    vcpu_trace(c, MSR, "vcpu %d: wrmsr %#x, %#llx%s", c->index, msr, (unsigned long long)val, ok ? "" : ": #GP");
    return ok;
}
