/* Events at instruction boundaries: INIT, SIPI, NMI, interrupts, and waking from HLT. SDM vol. 3 §6.9. */
#ifndef CPU_EVENT_H
#define CPU_EVENT_H
#include "cpu/vcpu_state.h"

/* Whether a vCPU that is not active has reason to become so; makes it active then (or starts it, for SIPI). Own thread. */
bool vcpu_wakes(struct vcpu *c);

/* Forgets translations and decoded code if ATTN_FLUSH asks for it. Own thread, at an instruction boundary. */
void vcpu_flush_if_asked(struct vcpu *c);

/* Delivers the most urgent event that may be delivered now, if any. May raise (faults during delivery). Own thread, at an
 * instruction boundary. */
void vcpu_events_deliver(struct vcpu *c);

/* The INIT signal's effect, and a start-up IPI's; own thread. */
void vcpu_init_signal(struct vcpu *c);
void vcpu_startup(struct vcpu *c, u8 vector);

#endif
