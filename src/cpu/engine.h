/* What runs a vCPU's instructions: one table of functions an engine. vcpu.c is the loop around them, and knows no
 * engine.
 *
 * An engine may keep parts of a vCPU's state elsewhere than in `s` (host registers, the kernel) from run() until
 * state_fetch(); whoever looks at `s` or changes it from outside the engine fetches first. The interpreter's part of a
 * vCPU (TLB, decoded blocks) exists under every engine: it is their fallback and their single-stepper. */
#ifndef CPU_ENGINE_H
#define CPU_ENGINE_H
#include "cpu/vcpu_state.h"

struct cpu_model_limit;

struct engine {
    const char *name; /* as --cpu-engine takes it */

    /* What CPU models can show under it; -E… and a sentence if it cannot be used at all. NULL: what the host can back.
     */
    int (*model_limit)(struct cpu_model_limit *limit, struct err *e);

    /* What the vCPUs of a machine share: after memory and CPU model exist, before the vCPUs; and after they are gone.
     * NULL: nothing. The free functions are also called after a creation that failed half-way. */
    int (*group_create)(struct vcpu_group *g, struct err *e);
    void (*group_free)(struct vcpu_group *g);

    /* What one vCPU needs beside the interpreter's part. NULL: nothing. */
    int (*vcpu_create)(struct vcpu *c, struct err *e);
    void (*vcpu_free)(struct vcpu *c);

    /* Runs guest code, in the vCPU's thread, counted as inside the guest (world.h), until ATTN_STOP or ATTN_EXCLUSIVE
     * is set or the vCPU is no longer active; deals with the other attention bits itself (event.h). Between two
     * instructions when it returns; what outsiders wait for of `s` is then there: activity, and what vcpu_wakes() looks
     * at. */
    void (*run)(struct vcpu *c);

    /* Makes run() look at `attention` soon; any thread, after bits were set there. NULL: it looks often enough. */
    void (*kick)(struct vcpu *c);

    /* Brings all state into `s`, which from then on is the only truth: the next run() takes everything anew from there.
     * Own thread, or the vCPU does not run. NULL: nothing is elsewhere but what vcpu_state_sync() sees to. */
    void (*state_fetch)(struct vcpu *c);

    /* The TSC as the guest reads it. Own thread. NULL: it follows the machine's clock (msr.h). */
    u64 (*tsc_read)(struct vcpu *c);

    /* Forgets what was derived from guest memory and its map: decoded or translated code. Own thread, or the world is
     * stopped. */
    void (*flush)(struct vcpu *c);

    /* Forgets what leads to code that was overwritten, without asking which: after ATTN_CODE, own thread. NULL: the
     * engine asks for each block whether it is still right. */
    void (*code_changed)(struct vcpu *c);
};

extern const struct engine interp_engine;   /* interp.c */
extern const struct engine kvm_engine;      /* kvm_vm.c */
extern const struct engine jit_engine;      /* jit.c */
extern const struct engine lockstep_engine; /* jit_lockstep.c */

/* The engine that the group's configuration names, for CPU_ENGINE_AUTO the fastest that this host can run it on, with
 * the reason in g->engine_reason. -ENOTSUP and a sentence when there is no such engine. */
int engine_choose(struct vcpu_group *g, struct err *e);

#endif
