/* Stress for the translator: see jit_stress.h. Each kind has a period of its own, prime to the others', so that they meet in all orders. */
#include "cpu/jit_stress.h"

#include "cpu/access.h"
#include "cpu/interp.h"
#include "cpu/jit.h"
#include "cpu/jit_cache.h"

#define FLUSH_PERIOD 13
#define SMC_PERIOD 7

/* As if a device had written the line that RIP is in. */
static bool code_overwritten(struct vcpu *c)
{
    const struct tlb_entry *t = interp_fetch_entry(c, c->s.gpr[RIP]);

    return !(t->fetch & TLB_MMIO) && guest_memory_written(vcpu_memory(c), tlb_hva(t, c->s.gpr[RIP]), 1);
}

bool jit_stress(struct vcpu *c)
{
    u32 stress = c->group->config.stress;
    u64 now = ++c->jit->stressed;

    if (stress & STRESS_FLUSH && !(now % FLUSH_PERIOD))
        jit_flush(c);
    return stress & STRESS_SMC && !(now % SMC_PERIOD) && code_overwritten(c);
}
