/* CPU models: what CPUID answers, and which control bits and MSRs exist because of it. SDM vol. 2 CPUID; vol. 4. */
#ifndef CPU_CPUID_H
#define CPU_CPUID_H
#include "cpu/vcpu_state.h"

/* Features that engine code asks about by name, one bit each (the model's, always a subset of the host's for those that
 * need host units). */
enum cpu_feature {
#define FEATURE(name, leaf, sub, reg, bit) FEAT_##name,
#include "cpu/features.def"
#undef FEATURE
    FEAT_COUNT
};
#define FEATURE_WORDS ((FEAT_COUNT + 63) / 64)

/* Where CPUID shows a feature: registers count EAX, EBX, ECX, EDX. */
struct cpu_feature_place {
    u32 leaf;
    u8 sub, reg, bit;
    const char *name;
};
extern const struct cpu_feature_place cpu_feature_places[FEAT_COUNT];

struct cpu_model {
    char name[32];
    char brand[48];     /* CPUID.80000002H–80000004H, not terminated */
    char vendor[12];
    bool amd;           /* the vendor is AMD (or Hygon): its quirks apply */
    u64 features[FEATURE_WORDS];
    u64 xcr0_mask;      /* XCR0 bits the guest may set */
    u64 cr4_mask;       /* CR4 bits that exist */
    u64 efer_mask;
    int phys_bits;
    u32 signature;      /* CPUID.1:EAX */
    u32 max_basic, max_extended; /* leaves; max_extended 0: none */
};

/* What an engine can show at most, one bit a feature. */
struct cpu_model_limit {
    u64 features[FEATURE_WORDS];
    int phys_bits;
};

/* After ext_setup. Finds the model, or the best one the host can back for an empty name; within `limit`, unless
 * that is NULL. -EINVAL with a sentence that lists the models for an unknown one, -ENOTSUP naming the missing feature for
 * one that cannot be backed. */
int cpu_model_create(const struct cpu_model_name *name, const struct cpu_model_limit *limit, struct cpu_model **ret,
                     struct err *e);
void cpu_model_free(struct cpu_model *m);

static inline bool model_has(const struct cpu_model *m, enum cpu_feature f)
{
    return m->features[f / 64] >> (f % 64) & 1;
}
static inline bool has(const struct vcpu *c, enum cpu_feature f)
{
    return model_has(c->group->model, f);
}

/* Bits of IA32_MISC_ENABLE that change what CPUID shows. */
#define MISC_ENABLE_LIMIT_CPUID (1ull << 22) /* leaf 0 names 2 as the last */
#define MISC_ENABLE_XD_DISABLE (1ull << 34)  /* NX is hidden, and EFER.NXE cannot be set */

/* CPUID with EAX = leaf, ECX = sub, for this vCPU (topology, APIC id, OSXSAVE and XSAVE sizes follow its state). */
void cpuid(struct vcpu *c, u32 leaf, u32 sub, u32 out[4]);

#endif
