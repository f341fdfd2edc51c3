/* Trials: the interpreter runs a block first, with every write noted and taken back; then the translator runs it, and both
 * must have come to the same. For the engine `lockstep` (jit_lockstep.c). */
#ifndef CPU_LOCKSTEP_H
#define CPU_LOCKSTEP_H
#include "cpu/tlb.h"

#define TRIAL_WRITES 1024
#define FAULT_TRIAL 0xfe /* raised inside a trial: the instruction cannot be tried */

/* What a run left behind. */
struct outcome {
    struct vcpu_state s;
    int fault; /* -1: none */
    u32 error;
};

struct trial {
    struct tlb tlb;  /* stands in for the vCPU's: every write in it is slow */
    bool running;
    int fault;       /* of the last block, still to be delivered; -1: none */
    struct vcpu_state start; /* of the block under way */
    struct outcome want, got; /* the interpreter's, the translator's */
    u32 writes;
    struct trial_write {
        u8 *hva;
        u32 size;
        u8 before[64], after[64];
    } write[TRIAL_WRITES];
};

/* Before bytes of RAM are written; raises FAULT_TRIAL when there is no room. */
void trial_note(struct vcpu *c, u8 *hva, u32 size);

/* Whether a trial is under way: devices must not be asked, decoded code not be overwritten. */
static inline bool trial_running(const struct vcpu *c)
{
    return c->trial && c->trial->running;
}

#endif
