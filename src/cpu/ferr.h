/* x87 errors with CR0.NE clear: the FERR# pin towards the board, and IGNNE# from there. SDM vol. 1 app. D. */
#ifndef CPU_FERR_H
#define CPU_FERR_H
#include "cpu/vcpu_state.h"

/* An instruction that waits found an unmasked x87 exception pending, with CR0.NE clear; RIP is its own. Asserts FERR#. The
 * instruction stays where it is until an interrupt comes, or, with IGNNE# asserted, is done as if nothing were pending. */
void ferr_error(struct vcpu *c);

void ferr_settle_slow(struct vcpu *c);

/* After an instruction that may have cleared the exceptions: FERR# follows. */
static inline void ferr_settle(struct vcpu *c)
{
    if (unlikely(c->s.ferr))
        ferr_settle_slow(c);
}

#endif
