/* What --stress asks of the translator; see enum vcpu_stress. */
#ifndef CPU_JIT_STRESS_H
#define CPU_JIT_STRESS_H
#include "cpu/vcpu_state.h"

#define JIT_STRESS_BUDGET 800 /* instructions: the run loop, where stress is, is met often */
#define JIT_STRESS_BLOCKS 12  /* that there is room for */

/* Stress before a block, between two instructions. True: attention must be looked at first. May raise what fetching at RIP raises. */
bool jit_stress(struct vcpu *c);

static inline bool jit_stressed(const struct vcpu *c, u32 bits)
{
    return unlikely(c->group->config.stress & bits);
}

#endif
