/* The interpreter's block cache and run loop. The interpreter is complete and precise: the reference for every other engine. */
#ifndef CPU_INTERP_H
#define CPU_INTERP_H
#include "cpu/exception.h"
#include "cpu/insn.h"

int interp_create(struct vcpu *c, struct err *e);
void interp_free(struct vcpu *c);

/* Runs guest code until attention says stop or the vCPU is no longer active. */
void interp_run(struct vcpu *c);

/* Executes exactly one instruction (or delivers one event), for single-stepping and for other engines. */
void interp_step(struct vcpu *c);

/* The same for a debugger: repeated string instructions do one iteration, breakpoints of the debugger do not count, and with
 * `events` the delivery of an interrupt is a step of its own; without it interrupts wait. */
void interp_step_debug(struct vcpu *c, bool events);

/* Executes exactly one instruction, without looking at events; a fault is not delivered but returned: its vector, with
 * c->fault_error, RIP at the instruction; -1: it completed. For tests and for comparing engines. */
int interp_try(struct vcpu *c);

/* As interp_step, with or without events, of bytes fetched and decoded anew: for engines under which nobody notices writes to
 * code. */
void interp_step_uncached(struct vcpu *c, bool events);

/* Delivers an exception or interrupt, with what its own faults lead to. */
void interp_deliver(struct vcpu *c, enum event_kind kind, int vector, bool has_error, u32 error);

/* Drops all decoded blocks. */
void interp_flush(struct vcpu *c);

#endif
