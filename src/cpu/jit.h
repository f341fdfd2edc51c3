/* The translator: guest code to host code of the same instruction set. docs/CPU.md explains it.
 *
 * Each vCPU translates for itself, into a code cache of its own, and runs what it translated in its own thread. What the
 * translator leaves out, and every access that its inline TLB check refuses, goes to the interpreter's handler of that one
 * instruction (jit_slow). */
#ifndef CPU_JIT_H
#define CPU_JIT_H
#include "cpu/vcpu_state.h"

int jit_create(struct vcpu *c, struct err *e);
void jit_free(struct vcpu *c); /* NULL jit is fine */

/* Runs guest code until attention says stop or the vCPU is no longer active. */
void jit_run(struct vcpu *c);

/* Forgets all translations. The vCPU's own thread, or the vCPU is not running. */
void jit_flush(struct vcpu *c);

/* For the engines jit and lockstep: functions of struct engine. */
int jit_group_create(struct vcpu_group *g, struct err *e);
void jit_group_free(struct vcpu_group *g);
void jit_kick(struct vcpu *c);
void jit_engine_flush(struct vcpu *c);

/* A fault of the host in translated code. */
struct jit_fault {
    const u8 *pc;
    u64 frame; /* RSP, which translated code keeps inside its vCPU: see VCPU_POINT */
    u64 trap, error; /* the exception's vector and error code */
    u64 address; /* of a page fault */
};
/* Where the thread goes on: in the slow path of that instruction. NULL: not ours. From a signal handler. */
const u8 *jit_fault(const struct jit_fault *f);

#endif
