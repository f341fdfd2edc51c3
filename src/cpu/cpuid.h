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

struct cpu_model {
    char name[32];
    u64 features[(FEAT_COUNT + 63) / 64];
    u64 xcr0_mask;      /* XCR0 bits the guest may set */
    u64 cr4_mask;       /* CR4 bits that exist */
    u64 efer_mask;
    int phys_bits;
    u32 signature;      /* CPUID.1:EAX */
};

/* Finds the model, or the best one the host can back for an empty name. -EINVAL with a sentence that lists the models for
 * an unknown one, -ENOTSUP naming the missing feature for one the host cannot back. */
int cpu_model_create(const struct cpu_model_name *name, struct cpu_model **ret, struct err *e);
void cpu_model_free(struct cpu_model *m);

static inline bool has(const struct vcpu *c, enum cpu_feature f)
{
    return c->group->model->features[f / 64] >> (f % 64) & 1;
}

/* CPUID with EAX = leaf, ECX = sub, for this vCPU (topology, APIC id, OSXSAVE and XSAVE sizes follow its state). */
void cpuid(struct vcpu *c, u32 leaf, u32 sub, u32 out[4]);

#endif
