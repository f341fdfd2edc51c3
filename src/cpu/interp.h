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
/* Pieces of the run loop, for the translator's. One block, or one instruction where there can be none; may raise. What
 * interp_run does about attention bits (false: leave the engine) and about a fault that came back through fault_jump. */
void interp_block(struct vcpu *c);
bool interp_attend(struct vcpu *c);
void interp_fault_caught(struct vcpu *c);
void interp_fault_rewind(struct vcpu *c); /* of the latter, the part that puts RIP back */

/* The TLB entry to fetch from; may raise. */
struct tlb_entry *interp_fetch_entry(struct vcpu *c, u64 lin);
/* The same if it is there, and of RAM; else NULL. */
const struct tlb_entry *interp_fetch_known(const struct vcpu *c, u64 lin);

/* Marks code lines; no vCPU may keep a fast write path to a page that holds its first decoded code. Returns the page's
 * version. */
u32 interp_code_mark(struct vcpu *c, const u8 *hva, u64 len);

/* Drops all decoded blocks. */
void interp_flush(struct vcpu *c);

#endif
