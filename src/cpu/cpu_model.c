/* CPU models: which processor the guest finds, made of what the engine implements and what the host's units can
 * back.
 *
 * A model is a chain of feature lists, each adding to the one before: what it must have, and what it takes along if
 * the host has it. The x86-64-v2, v3 and v4 levels are those of the System V ABI for AMD64; everything privileged
 * comes with v2, because our engines implement it whatever the host (KVM may not). The vendor is the host's, since the host's
 * units show their vendor's habits (the approximations of RCPPS, for one).
 *
 * No model shows VMX, SVM, SGX, TSX, CET, AMX, MPX, XSAVES, LA57, performance counters or MONITOR. Supervisor protection keys
 * come with +pks only: no kernel uses them. */
#include "cpu/cpu_model_switches.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/xstate.h"

#define XCOMPS_AVX512 (BIT(XCOMP_OPMASK) | BIT(XCOMP_ZMM_HI256) | BIT(XCOMP_HI16_ZMM))

const struct cpu_feature_place cpu_feature_places[FEAT_COUNT] = {
#define FEATURE(name, leaf, sub, reg, bit) {leaf, sub, reg, bit, #name},
#include "cpu/features.def"
#undef FEATURE
};

#define F(name) FEAT_##name
#define END FEAT_COUNT

/* clang-format off */
static const u8 features_486[] = {F(FPU), END};
static const u8 features_pentium[] = {F(VME), F(DE), F(PSE), F(TSC), F(MSR), F(MCE), F(CX8), F(APIC), END};
static const u8 features_pentium3[] = {
    F(PAE), F(SEP), F(MTRR), F(PGE), F(MCA), F(CMOV), F(PAT), F(PSE36), F(MMX), F(FXSR), F(SSE), END};
static const u8 features_core2duo[] = {
    F(SSE2), F(CLFSH), F(SSE3), F(SSSE3), F(CX16), F(SYSCALL), F(NX), F(LM), F(LAHF64), END};
static const u8 extras_core2duo[] = {F(SS), END};
/* Beyond the levels of the ABI, which name user instructions only: our own engines have all of it, KVM what the host has. */
#define SYSTEM_FEATURES \
    F(HYPERVISOR), F(X2APIC), F(TSC_DEADLINE), F(TSC_ADJUST), F(ARAT), F(INVARIANT_TSC), F(RDTSCP), F(RDPID), F(PDPE1GB), \
    F(PCID), F(INVPCID), F(FSGSBASE), F(SMEP), F(SMAP), F(UMIP), F(ERMS), F(FSRM), F(PREFETCHW), F(SPEC_CTRL), \
    F(STIBP), F(SSBD), F(ARCH_CAPABILITIES), F(BHI_CTRL), F(SSB_NO), F(BTC_NO), F(LFENCE_SERIALIZING), \
    F(NULL_SELECTOR_CLEARS_BASE), F(SRSO_NO), F(TSA_SQ_NO), F(TSA_L1_NO)
static const u8 features_v1[] = {F(SSE2), F(CLFSH), F(SYSCALL), F(NX), F(LM), END};
static const u8 extras_v1[] = {
    F(SS), F(SSE3), F(SSSE3), F(CX16), F(LAHF64), F(SSE41), F(SSE42), F(POPCNT), SYSTEM_FEATURES, END};
static const u8 features_v2[] = {F(SSE41), F(SSE42), F(POPCNT), END};
static const u8 extras_v2[] = {
    F(PCLMULQDQ), F(AES), F(RDRAND), F(RDSEED), F(CLFLUSHOPT), F(CLWB), F(FDP_EXCPTN_ONLY), F(ZERO_FCS_FDS),
    SYSTEM_FEATURES, END};
static const u8 features_v3[] = {F(XSAVE), F(AVX), F(AVX2), F(BMI1), F(BMI2), F(F16C), F(FMA), F(ABM), F(MOVBE), END};
static const u8 extras_v3[] = {F(ADX), F(SHA), F(XSAVEOPT), F(XSAVEC), F(XGETBV1), END};
static const u8 features_v4[] = {F(AVX512F), F(AVX512BW), F(AVX512CD), F(AVX512DQ), F(AVX512VL), END};
static const u8 extras_v4[] = {F(PKU), END};
static const u8 extras_host[] = {
    F(XSAVE), F(AVX), F(AVX2), F(BMI1), F(BMI2), F(F16C), F(FMA), F(ABM), F(MOVBE), F(ADX), F(SHA), F(XSAVEOPT),
    F(XSAVEC), F(XGETBV1), F(SERIALIZE), F(AVX512F), F(AVX512BW), F(AVX512CD), F(AVX512DQ), F(AVX512VL),
    F(AVX512_IFMA), F(AVX512_VBMI), F(AVX512_VBMI2), F(AVX512_VNNI), F(AVX512_BITALG), F(AVX512_VPOPCNTDQ),
    F(AVX512_FP16), F(AVX512_BF16), F(AVX_VNNI), F(GFNI), F(VAES), F(VPCLMULQDQ), F(PKU), END};

/* What the engine does by itself: the host need not have it. */
static const u8 own_features[] = {
    F(DE), F(PSE), F(TSC), F(MSR), F(PAE), F(MCE), F(CX8), F(APIC), F(SEP), F(MTRR), F(PGE), F(MCA), F(CMOV), F(PAT),
    F(PSE36), F(CLFSH), F(SS), F(CX16), F(PCID), F(X2APIC), F(MOVBE), F(TSC_DEADLINE), F(HYPERVISOR), F(ARAT),
    F(FSGSBASE), F(TSC_ADJUST), F(SMEP), F(SMAP), F(UMIP), F(ERMS), F(FSRM), F(INVPCID), F(RDPID), F(LAHF64),
    F(PREFETCHW), F(SYSCALL), F(NX), F(PDPE1GB), F(RDTSCP), F(LM), F(INVARIANT_TSC), F(CLFLUSHOPT), F(CLWB),
    F(SERIALIZE), F(SPEC_CTRL), F(STIBP), F(SSBD), F(ARCH_CAPABILITIES), F(BHI_CTRL), F(SSB_NO), F(BTC_NO),
    F(LFENCE_SERIALIZING), F(NULL_SELECTOR_CLEARS_BASE), F(SRSO_NO), F(TSA_SQ_NO), F(TSA_L1_NO), F(VME),
    F(PKU), F(PKS), END};
/* clang-format on */

struct cpu_model_def {
    const char *name, *what;
    const struct cpu_model_def *base; /* whose features it has too */
    const u8 *features, *extras;
    u32 signature, signature_amd; /* by vendor; 0: the host's */
    u32 max_basic, max_extended;
    u8 phys_bits;
};

static const struct cpu_model_def model_486 = {
    .name = "486",
    .what = "80486DX: FPU, no MSRs",
    .features = features_486,
    .signature = 0x480,
    .max_basic = 1,
    .phys_bits = 32,
};
static const struct cpu_model_def model_pentium = {
    .name = "pentium",
    .what = "Pentium: TSC, CMPXCHG8B, APIC",
    .base = &model_486,
    .features = features_pentium,
    .signature = 0x52c,
    .max_basic = 1,
    .phys_bits = 32,
};
static const struct cpu_model_def model_pentium3 = {
    .name = "pentium3",
    .what = "Pentium III: PAE, CMOV, SYSENTER, MMX, SSE",
    .base = &model_pentium,
    .features = features_pentium3,
    .signature = 0x68a,
    .max_basic = 2,
    .phys_bits = 36,
};
static const struct cpu_model_def model_core2duo = {
    .name = "core2duo",
    .what = "Core 2: 64-bit, up to SSSE3",
    .base = &model_pentium3,
    .features = features_core2duo,
    .extras = extras_core2duo,
    .signature = 0x6fb,
    .max_basic = 4,
    .max_extended = 0x80000008,
    .phys_bits = 36,
};
/* The baseline of the ABI, with all that x86-64-v2 has beyond it where that can be had: for engines that can show less than the
 * host has. */
static const struct cpu_model_def model_v1 = {
    .name = "x86-64",
    .what = "64-bit with SSE2; of x86-64-v2 what can be had",
    .base = &model_pentium3,
    .features = features_v1,
    .extras = extras_v1,
    .signature = 0x106a5,
    .signature_amd = 0xa00f11,
    .max_basic = 0x16,
    .max_extended = 0x80000008,
    .phys_bits = 46,
};
static const struct cpu_model_def model_v2 = {
    .name = "x86-64-v2",
    .what = "64-bit with SSE4.2 and POPCNT",
    .base = &model_core2duo,
    .features = features_v2,
    .extras = extras_v2,
    .signature = 0x106a5,
    .signature_amd = 0xa00f11,
    .max_basic = 0x16,
    .max_extended = 0x80000008,
    .phys_bits = 46,
};
static const struct cpu_model_def model_v3 = {
    .name = "x86-64-v3",
    .what = "v2 with AVX2, FMA, BMI1, BMI2",
    .base = &model_v2,
    .features = features_v3,
    .extras = extras_v3,
    .signature = 0x306f2,
    .signature_amd = 0xa00f11,
    .max_basic = 0x16,
    .max_extended = 0x80000008,
    .phys_bits = 46,
};
static const struct cpu_model_def model_v4 = {
    .name = "x86-64-v4",
    .what = "v3 with AVX-512",
    .base = &model_v3,
    .features = features_v4,
    .extras = extras_v4,
    .signature = 0x50654,
    .signature_amd = 0xa10f11,
    .max_basic = 0x16,
    .max_extended = 0x80000008,
    .phys_bits = 46,
};
static const struct cpu_model_def model_host = {
    .name = "host",
    .what = "all of this host that skerry can show",
    .base = &model_v2,
    .extras = extras_host,
    .max_basic = 0x16,
    .max_extended = 0x80000008,
    .phys_bits = 46,
};

static const struct cpu_model_def *const model_defs[] = {&model_486, &model_pentium, &model_pentium3,
                                                         &model_core2duo, &model_v1, &model_v2,
                                                         &model_v3, &model_v4, &model_host};

/* Best first. */
static const struct cpu_model_def *const default_models[] = {&model_v4, &model_v3, &model_v2, &model_v1};

struct feature_set {
    u64 bits[FEATURE_WORDS];
};

static bool set_has(const struct feature_set *s, int f)
{
    return s->bits[f / 64] >> (f % 64) & 1;
}

static void set_add(struct feature_set *s, const u8 *list)
{
    for (; list && *list != END; list++)
        s->bits[*list / 64] |= 1ull << (*list % 64);
}

static void cpuid_instruction(u32 leaf, u32 sub, u32 out[4])
{
    __asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(sub));
}

/* All zeros for a leaf that the host has not. */
static void host_cpuid(u32 leaf, u32 sub, u32 out[4])
{
    cpuid_instruction(leaf & 0x80000000, 0, out);
    if (out[0] < leaf)
        memset(out, 0, 4 * sizeof(u32));
    else
        cpuid_instruction(leaf, sub, out);
}

static void set_remove(struct feature_set *s, const u8 *list)
{
    for (; *list != END; list++)
        s->bits[*list / 64] &= ~(1ull << (*list % 64));
}

/* The host's CPU may have units whose registers its kernel does not switch. */
static void remove_unswitched(struct feature_set *s)
{
    static const u8 avx[] = {F(AVX), F(AVX2), F(FMA), F(F16C), F(VAES), F(VPCLMULQDQ), F(AVX_VNNI), END};
    static const u8 avx512[] = {F(AVX512F),          F(AVX512BW),
                                F(AVX512CD),         F(AVX512DQ),
                                F(AVX512VL),         F(AVX512_IFMA),
                                F(AVX512_VBMI),      F(AVX512_VBMI2),
                                F(AVX512_VNNI),      F(AVX512_BITALG),
                                F(AVX512_VPOPCNTDQ), F(AVX512_FP16),
                                F(AVX512_BF16),      END};

    if (!(ext_host_components() & BIT(XCOMP_AVX)))
        set_remove(s, avx);
    if ((ext_host_components() & XCOMPS_AVX512) != XCOMPS_AVX512)
        set_remove(s, avx512);
}

/* What can be shown on this host: the engine's own, and what the host's CPUID shows. */
static struct feature_set backed_features(void)
{
    struct feature_set s = {{0}};
    u32 out[4];

    for (int f = 0; f < FEAT_COUNT; f++) {
        const struct cpu_feature_place *p = &cpu_feature_places[f];

        /* neighbours share their leaf, and in a virtual machine CPUID is slow */
        if (!f || p->leaf != p[-1].leaf || p->sub != p[-1].sub)
            host_cpuid(p->leaf, p->sub, out);
        if (out[p->reg] >> p->bit & 1)
            s.bits[f / 64] |= 1ull << (f % 64);
    }
    remove_unswitched(&s);
    set_add(&s, own_features);
    return s;
}

static void features_needed(const struct cpu_model_def *def, struct feature_set *need, struct feature_set *extra)
{
    for (; def; def = def->base) {
        set_add(need, def->features);
        set_add(extra, def->extras);
    }
}

static void features_switch(const struct cpu_model_switches *switches, struct feature_set *need,
                            struct feature_set *extra)
{
    for (int n = 0; n < FEATURE_WORDS; n++) {
        need->bits[n] = (need->bits[n] | switches->add[n]) & ~switches->drop[n];
        extra->bits[n] &= ~switches->drop[n];
    }
}

/* The first needed feature that is not backed, or -1. */
static int feature_missing(const struct feature_set *need, const struct feature_set *backed)
{
    for (int f = 0; f < FEAT_COUNT; f++)
        if (set_has(need, f) && !set_has(backed, f))
            return f;
    return -1;
}

static void vendor_set(struct cpu_model *m, const struct cpu_model_def *def, const char *vendor)
{
    u32 out[4];

    host_cpuid(0, 0, out);
    memcpy(m->vendor, &out[1], 4);
    memcpy(m->vendor + 4, &out[3], 4);
    memcpy(m->vendor + 8, &out[2], 4);
    if (def->max_basic < 0x16) /* the older models are Intel's, and carry its signatures */
        memcpy(m->vendor, "GenuineIntel", 12);
    if (*vendor)
        memcpy(m->vendor, vendor, 12);
    m->amd = !memcmp(m->vendor, "AuthenticAMD", 12) || !memcmp(m->vendor, "HygonGenuine", 12);
}

static void signature_set(struct cpu_model *m, const struct cpu_model_def *def)
{
    u32 out[4];

    host_cpuid(1, 0, out);
    m->signature = m->amd ? def->signature_amd : def->signature;
    if (!m->signature)
        m->signature = out[0] & 0x0fff3fff;
}

static void features_keep_only(struct cpu_model *m, const struct feature_set *need, const struct feature_set *extra,
                               const struct feature_set *backed)
{
    static const u8 amd_only[] = {
        F(LFENCE_SERIALIZING), F(NULL_SELECTOR_CLEARS_BASE), F(SRSO_NO), F(TSA_SQ_NO), F(TSA_L1_NO), END};
    struct feature_set drop = {{0}};

    if (!m->amd)
        set_add(&drop, amd_only);
    for (int n = 0; n < FEATURE_WORDS; n++)
        m->features[n] = (need->bits[n] | (extra->bits[n] & backed->bits[n])) & ~drop.bits[n];
}

/* CR4 and EFER bits exist when their feature does. */
static void control_masks_set(struct cpu_model *m)
{
    static const struct {
        u8 feature;
        u32 cr4;
    } cr4_bits[] = {
        {F(VME), CR4_VME | CR4_PVI}, {F(TSC), CR4_TSD},        {F(DE), CR4_DE},     {F(PSE), CR4_PSE},
        {F(PAE), CR4_PAE},           {F(MCE), CR4_MCE},        {F(PGE), CR4_PGE},   {F(CMOV), CR4_PCE},
        {F(FXSR), CR4_OSFXSR},       {F(SSE), CR4_OSXMMEXCPT}, {F(UMIP), CR4_UMIP}, {F(FSGSBASE), CR4_FSGSBASE},
        {F(PCID), CR4_PCIDE},        {F(XSAVE), CR4_OSXSAVE},  {F(SMEP), CR4_SMEP}, {F(SMAP), CR4_SMAP},
        {F(PKU), CR4_PKE},           {F(PKS), CR4_PKS}};

    for (size_t n = 0; n < ARRAY_SIZE(cr4_bits); n++)
        if (model_has(m, cr4_bits[n].feature))
            m->cr4_mask |= cr4_bits[n].cr4;
    if (model_has(m, F(SYSCALL)))
        m->efer_mask |= EFER_SCE;
    if (model_has(m, F(LM)))
        m->efer_mask |= EFER_LME | EFER_LMA;
    if (model_has(m, F(NX)))
        m->efer_mask |= EFER_NXE;
}

static void xcr0_mask_set(struct cpu_model *m)
{
    if (!model_has(m, F(XSAVE)))
        return;
    m->xcr0_mask = BIT(XCOMP_X87) | BIT(XCOMP_SSE);
    if (model_has(m, F(AVX)))
        m->xcr0_mask |= BIT(XCOMP_AVX);
    if (model_has(m, F(AVX512F)))
        m->xcr0_mask |= XCOMPS_AVX512;
    if (model_has(m, F(PKU)))
        m->xcr0_mask |= BIT(XCOMP_PKRU);
}

static void brand_set(struct cpu_model *m)
{
    char text[sizeof(m->brand) + 1];

    memset(text, 0, sizeof(text));
    snprintf(text, sizeof(text), "skerry CPU %s", m->name);
    memcpy(m->brand, text, sizeof(m->brand));
}

static struct cpu_model *model_make(const struct cpu_model_def *def, const struct cpu_model_switches *switches,
                                    const struct feature_set *need, const struct feature_set *extra,
                                    const struct feature_set *backed)
{
    struct cpu_model *m = calloc(1, sizeof(*m));

    if (!m)
        return NULL;
    snprintf(m->name, sizeof(m->name), "%s", def->name);
    m->phys_bits = switches->phys_bits ? switches->phys_bits : def->phys_bits;
    m->max_basic = def->max_basic;
    m->max_extended = def->max_extended;
    vendor_set(m, def, switches->vendor);
    if (m->amd && m->max_extended)
        m->max_extended = 0x80000021;
    signature_set(m, def);
    features_keep_only(m, need, extra, backed);
    control_masks_set(m);
    xcr0_mask_set(m);
    brand_set(m);
    return m;
}

/* -ENOTSUP with the missing feature's number in *ret_missing. */
static int model_try(const struct cpu_model_def *def, const struct cpu_model_switches *switches,
                     const struct cpu_model_limit *limit, struct cpu_model **ret, int *ret_missing)
{
    struct feature_set need = {{0}}, extra = {{0}}, backed = backed_features();
    struct cpu_model *m;
    int missing;

    for (int n = 0; limit && n < FEATURE_WORDS; n++)
        backed.bits[n] &= limit->features[n];
    features_needed(def, &need, &extra);
    features_switch(switches, &need, &extra);
    missing = feature_missing(&need, &backed);
    if (missing >= 0) {
        *ret_missing = missing;
        return -ENOTSUP;
    }
    m = model_make(def, switches, &need, &extra, &backed);
    if (!m)
        return -ENOMEM;
    if (limit)
        m->phys_bits = MIN(m->phys_bits, limit->phys_bits);
    *ret = m;
    return 0;
}

static const struct cpu_model_def *model_find(const char *name)
{
    for (size_t n = 0; n < ARRAY_SIZE(model_defs); n++)
        if (!strcmp(model_defs[n]->name, name))
            return model_defs[n];
    return NULL;
}

static int unknown_model(const char *name, struct err *e)
{
    char list[256] = "";
    size_t used = 0;

    for (size_t n = 0; n < ARRAY_SIZE(model_defs); n++)
        used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", n ? ", " : "", model_defs[n]->name);
    return err_set(e, -EINVAL, "--cpu-model '%s': no such model; there are %s", name, list);
}

static int model_create_error(const char *name, const struct cpu_model_limit *limit, int r, int missing, struct err *e)
{
    if (r == -ENOMEM)
        return err_set(e, r, "CPU model: out of memory");
    return err_set(e, r,
                   "--cpu-model '%s': %s lacks %s; leave the flag out for the best model that it can back", name,
                   limit ? "this host's /dev/kvm" : "this host's CPU", cpu_feature_places[missing].name);
}

int cpu_model_create(const struct cpu_model_name *name, const struct cpu_model_limit *limit, struct cpu_model **ret,
                     struct err *e)
{
    struct cpu_model_switches switches;
    const struct cpu_model_def *def;
    int missing = 0, r = cpu_model_switches_parse(name->text, &switches, e);

    if (r)
        return r;
    if (switches.name[0]) {
        def = model_find(switches.name);
        if (!def)
            return unknown_model(switches.name, e);
        r = model_try(def, &switches, limit, ret, &missing);
        return r ? model_create_error(name->text, limit, r, missing, e) : 0;
    }
    r = -ENOTSUP;
    for (size_t n = 0; r == -ENOTSUP && n < ARRAY_SIZE(default_models); n++)
        r = model_try(default_models[n], &switches, limit, ret, &missing);
    return r ? model_create_error(name->text[0] ? name->text : "x86-64", limit, r, missing, e) : 0;
}

void cpu_model_free(struct cpu_model *m)
{
    free(m);
}

void cpu_models_list(void (*fn)(void *ctx, const char *name, const char *what), void *ctx)
{
    for (size_t n = 0; n < ARRAY_SIZE(model_defs); n++)
        fn(ctx, model_defs[n]->name, model_defs[n]->what);
}
