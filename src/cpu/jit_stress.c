/* Stress for the translator: see jit_stress.h. Each kind has a period of its own, prime to the others', so that they meet in all orders. */
#include "cpu/jit_stress.h"

#include "cpu/access.h"
#include "cpu/interp.h"
#include "cpu/jit.h"
#include "cpu/jit_cache.h"

#define FLUSH_PERIOD 13
#define SMC_PERIOD 7

/* As if a device had written the line that RIP is in. Not where the segment's limit would have to be looked at first. */
static bool code_overwritten(struct vcpu *c)
{
    u64 lin = (c->lin_base[SEG_CS] + c->s.gpr[RIP]) & c->lin_mask;
    const struct tlb_entry *t;

    if (c->seg_check >> SEG_CS & 1)
        return false;
    t = interp_fetch_entry(c, lin);
    return !(t->fetch & TLB_MMIO) && guest_memory_written(vcpu_memory(c), tlb_hva(t, lin), 1);
}

bool jit_stress(struct vcpu *c)
{
    u32 stress = c->group->config.stress;
    u64 now = ++c->jit->stressed;

    if (stress & STRESS_FLUSH && !(now % FLUSH_PERIOD))
        jit_flush(c);
    return stress & STRESS_SMC && !(now % SMC_PERIOD) && code_overwritten(c);
}
