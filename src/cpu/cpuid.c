/* The CPUID instruction: leaf by leaf, from the model's features and the vCPU's state. SDM vol. 2 CPUID; AMD64 APM
 * vol. 3 appendix E for the extended leaves.
 *
 * Leaves 15H, 16H and 40000010H say how fast the TSC and the APIC timer run (1 GHz, but for engines that cannot make the TSC
 * so), so that nobody needs to calibrate. The caches are invented: they shape nothing in an interpreter. */
#include "cpu/cpuid.h"

#include "cpu/xstate.h"

enum { EAX, EBX, ECX, EDX };

#define FREQUENCY_HZ 1000000000u
#define FREQUENCY_KHZ (FREQUENCY_HZ / 1000)
#define MSR_APIC_BASE_ENABLE 0x800
#define HYPERVISOR_BASE 0x40000000u
#define HYPERVISOR_MAX 0x40000010u

typedef void leaf_fn(struct vcpu *c, u32 sub, u32 out[4]);

static u32 text4(const char *s)
{
    return (u8)s[0] | (u32)(u8)s[1] << 8 | (u32)(u8)s[2] << 16 | (u32)(u8)s[3] << 24;
}

/* How many bits number `count` things. */
static u32 bits_for(u32 count)
{
    return count > 1 ? 32 - (u32)__builtin_clz(count - 1) : 0;
}

static u32 cpu_count(const struct vcpu *c)
{
    return (u32)c->group->count;
}

/* Sets the feature bits that belong into this leaf. */
static void features_show(const struct vcpu *c, u32 leaf, u32 sub, u32 out[4])
{
    for (int f = 0; f < FEAT_COUNT; f++) {
        const struct cpu_feature_place *p = &cpu_feature_places[f];

        if (p->leaf == leaf && p->sub == sub && has(c, (enum cpu_feature)f))
            out[p->reg] |= 1u << p->bit;
    }
}

static void bit_set(u32 *word, int bit, bool on)
{
    *word = on ? *word | 1u << bit : *word & ~(1u << bit);
}

static u32 max_basic(const struct vcpu *c)
{
    return c->s.msr_misc_enable & MISC_ENABLE_LIMIT_CPUID ? MIN(c->group->model->max_basic, 2) : c->group->model->max_basic;
}

static void leaf_vendor(struct vcpu *c, u32 sub, u32 out[4])
{
    out[EAX] = max_basic(c);
    out[EBX] = text4(c->group->model->vendor);
    out[EDX] = text4(c->group->model->vendor + 4);
    out[ECX] = text4(c->group->model->vendor + 8);
}

/* What IA32_BIOS_SIGN_ID shows after CPUID: Intel has the revision in the upper half. */
static u64 microcode_revision(const struct vcpu *c)
{
    return c->group->model->amd ? 0x01000065 : 1ull << 32;
}

static void leaf_version(struct vcpu *c, u32 sub, u32 out[4])
{
    u32 count = 1u << bits_for(cpu_count(c));

    out[EAX] = c->group->model->signature;
    out[EBX] = c->apic_id << 24 | (count > 1 ? count : 0) << 16 | (has(c, FEAT_CLFSH) ? 8u << 8 : 0);
    bit_set(&out[ECX], cpu_feature_places[FEAT_OSXSAVE].bit, c->s.cr4 & CR4_OSXSAVE);
    bit_set(&out[EDX], cpu_feature_places[FEAT_HTT].bit, has(c, FEAT_SSE2) && count > 1);
    if (!(c->s.msr_apic_base & MSR_APIC_BASE_ENABLE))
        bit_set(&out[EDX], cpu_feature_places[FEAT_APIC].bit, false);
    c->s.msr_bios_sign_id = microcode_revision(c); /* reading it is: write 0, CPUID, read */
}

/* Descriptor FF: ask leaf 4. */
static void leaf_descriptors(struct vcpu *c, u32 sub, u32 out[4])
{
    out[EAX] = c->group->model->max_basic >= 4 ? 0x0000ff01 : 0x0c040843;
}

static void leaf_caches(struct vcpu *c, u32 sub, u32 out[4])
{
    static const struct {
        u8 type, level, ways; /* type: 1 data, 2 instruction, 3 unified */
        u32 sets;
        bool shared;
    } caches[] = {{1, 1, 8, 64, false}, {2, 1, 8, 64, false}, {3, 2, 16, 1024, false}, {3, 3, 16, 16384, true}};
    u32 last = (1u << bits_for(cpu_count(c))) - 1;

    if (sub >= ARRAY_SIZE(caches))
        return;
    out[EAX] =
        caches[sub].type | (u32)caches[sub].level << 5 | 1 << 8 | (caches[sub].shared ? last : 0) << 14 | last << 26;
    out[EBX] = 63 | (u32)(caches[sub].ways - 1) << 22;
    out[ECX] = caches[sub].sets - 1;
}

static void leaf_extended_features(struct vcpu *c, u32 sub, u32 out[4])
{
    if (sub != 0)
        return;
    out[EAX] = 2; /* the last subleaf */
    bit_set(&out[ECX], cpu_feature_places[FEAT_OSPKE].bit, c->s.cr4 & CR4_PKE);
}

/* Threads, then cores: every vCPU is a core of one package. */
static void leaf_topology(struct vcpu *c, u32 sub, u32 out[4])
{
    out[ECX] = sub & 0xff;
    out[EDX] = c->apic_id;
    if (sub == 0) {
        out[EBX] = 1;
        out[ECX] |= 1 << 8;
    } else if (sub == 1) {
        out[EAX] = bits_for(cpu_count(c));
        out[EBX] = cpu_count(c);
        out[ECX] |= 2 << 8;
    }
}

static u32 xsave_standard_size(u64 mask)
{
    u32 size = XSAVE_EXTENDED;

    for (int n = XCOMP_AVX; n < XCOMP_COUNT; n++)
        if (mask & BIT(n))
            size = MAX(size, ext_components[n].offset + ext_components[n].size);
    return size;
}

static u32 xsave_compacted_size(u64 mask)
{
    u32 size = XSAVE_EXTENDED;

    for (int n = XCOMP_AVX; n < XCOMP_COUNT; n++)
        if (mask & BIT(n))
            size += ext_components[n].size;
    return size;
}

static void leaf_xsave(struct vcpu *c, u32 sub, u32 out[4])
{
    const struct cpu_model *m = c->group->model;

    if (!has(c, FEAT_XSAVE))
        return;
    if (sub == 0) {
        out[EAX] = (u32)m->xcr0_mask;
        out[EDX] = (u32)(m->xcr0_mask >> 32);
        out[EBX] = xsave_standard_size(c->s.xcr0);
        out[ECX] = xsave_standard_size(m->xcr0_mask);
    } else if (sub == 1) {
        if (has(c, FEAT_XSAVEC))
            out[EBX] = xsave_compacted_size(c->s.xcr0);
    } else if (sub >= XCOMP_AVX && sub < XCOMP_COUNT && m->xcr0_mask & BIT(sub)) {
        out[EAX] = ext_components[sub].size;
        out[EBX] = ext_components[sub].offset;
    }
}

/* TSC = crystal * EBX / EAX; the crystal is what the APIC timer counts. */
static void leaf_tsc(struct vcpu *c, u32 sub, u32 out[4])
{
    out[EAX] = out[EBX] = 1;
    if (c->group->tsc_khz != FREQUENCY_KHZ) {
        out[EAX] = FREQUENCY_KHZ;
        out[EBX] = c->group->tsc_khz;
    }
    out[ECX] = FREQUENCY_HZ;
}

static void leaf_frequency(struct vcpu *c, u32 sub, u32 out[4])
{
    out[EAX] = out[EBX] = c->group->tsc_khz / 1000;
    out[ECX] = 100; /* bus, MHz */
}

static void leaf_hypervisor(struct vcpu *c, u32 sub, u32 out[4])
{
    static const char vendor[] = "SkerrySkerry";

    out[EAX] = HYPERVISOR_MAX;
    out[EBX] = text4(vendor);
    out[ECX] = text4(vendor + 4);
    out[EDX] = text4(vendor + 8);
}

/* TSC and APIC bus frequency in kHz, as VMware defined it. */
static void leaf_hypervisor_timing(struct vcpu *c, u32 sub, u32 out[4])
{
    out[EAX] = c->group->tsc_khz;
    out[EBX] = FREQUENCY_KHZ;
}

static void leaf_extended_max(struct vcpu *c, u32 sub, u32 out[4])
{
    out[EAX] = c->group->model->max_extended;
    if (c->group->model->amd)
        leaf_vendor(c, sub, out);
    out[EAX] = c->group->model->max_extended;
}

/* AMD repeats leaf 1's features here. */
#define AMD_REPEATED 0x0183f3ffu
#define AMD_CMP_LEGACY (1u << 1)

static void leaf_extended_version(struct vcpu *c, u32 sub, u32 out[4])
{
    u32 leaf1[4] = {0};

    if (!code64(c) && !c->group->model->amd) /* Intel shows SYSCALL in 64-bit mode only */
        bit_set(&out[EDX], cpu_feature_places[FEAT_SYSCALL].bit, false);
    if (c->s.msr_misc_enable & MISC_ENABLE_XD_DISABLE)
        bit_set(&out[EDX], cpu_feature_places[FEAT_NX].bit, false);
    if (!c->group->model->amd)
        return;
    features_show(c, 1, 0, leaf1);
    leaf_version(c, 0, leaf1);
    out[EAX] = c->group->model->signature;
    out[EDX] |= leaf1[EDX] & AMD_REPEATED;
    if (cpu_count(c) > 1)
        out[ECX] |= AMD_CMP_LEGACY;
}

static void brand_part(const struct vcpu *c, int part, u32 out[4])
{
    for (int n = 0; n < 4; n++)
        out[n] = text4(c->group->model->brand + part * 16 + n * 4);
}

static void leaf_brand1(struct vcpu *c, u32 sub, u32 out[4])
{
    brand_part(c, 0, out);
}

static void leaf_brand2(struct vcpu *c, u32 sub, u32 out[4])
{
    brand_part(c, 1, out);
}

static void leaf_brand3(struct vcpu *c, u32 sub, u32 out[4])
{
    brand_part(c, 2, out);
}

/* AMD: L1 data and instruction cache, 32 KiB, 8 ways, 64-byte lines. */
static void leaf_l1_caches(struct vcpu *c, u32 sub, u32 out[4])
{
    if (c->group->model->amd)
        out[ECX] = out[EDX] = 32u << 24 | 8 << 16 | 1 << 8 | 64;
}

/* L2: 1 MiB, 16 ways; AMD also L3: 16 MiB. */
static void leaf_l2_caches(struct vcpu *c, u32 sub, u32 out[4])
{
    out[ECX] = 1024u << 16 | 8 << 12 | 64;
    if (c->group->model->amd) {
        out[ECX] |= 1 << 8;
        out[EDX] = 32u << 18 | 8 << 12 | 1 << 8 | 64;
    }
}

static void leaf_address_sizes(struct vcpu *c, u32 sub, u32 out[4])
{
    out[EAX] = (u32)c->group->model->phys_bits | 48u << 8;
    if (c->group->model->amd)
        out[ECX] = bits_for(cpu_count(c)) << 12 | (cpu_count(c) - 1);
}

static const struct {
    u32 leaf;
    leaf_fn *fn;
} leaves[] = {{0, leaf_vendor},
              {1, leaf_version},
              {2, leaf_descriptors},
              {4, leaf_caches},
              {7, leaf_extended_features},
              {0xb, leaf_topology},
              {0xd, leaf_xsave},
              {0x15, leaf_tsc},
              {0x16, leaf_frequency},
              {HYPERVISOR_BASE, leaf_hypervisor},
              {HYPERVISOR_MAX, leaf_hypervisor_timing},
              {0x80000000, leaf_extended_max},
              {0x80000001, leaf_extended_version},
              {0x80000002, leaf_brand1},
              {0x80000003, leaf_brand2},
              {0x80000004, leaf_brand3},
              {0x80000005, leaf_l1_caches},
              {0x80000006, leaf_l2_caches},
              {0x80000008, leaf_address_sizes}};

static bool leaf_exists(const struct vcpu *c, u32 leaf)
{
    const struct cpu_model *m = c->group->model;

    if (leaf >= 0x80000000)
        return leaf <= m->max_extended;
    if (leaf >= HYPERVISOR_BASE && leaf <= HYPERVISOR_MAX)
        return has(c, FEAT_HYPERVISOR);
    return leaf <= max_basic(c);
}

/* In all other leaves ECX means nothing. */
static bool leaf_has_subleaves(u32 leaf)
{
    return leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd;
}

void cpuid(struct vcpu *c, u32 leaf, u32 sub, u32 out[4])
{
    for (int n = 0; n < 4; n++)
        out[n] = 0;
    if (!leaf_exists(c, leaf)) {
        if (c->group->model->amd)
            return;
        leaf = max_basic(c); /* Intel answers with the last basic leaf then */
    }
    if (!leaf_has_subleaves(leaf))
        sub = 0;
    features_show(c, leaf, sub, out);
    for (size_t n = 0; n < ARRAY_SIZE(leaves); n++)
        if (leaves[n].leaf == leaf)
            leaves[n].fn(c, sub, out);
}
