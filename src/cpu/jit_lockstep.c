/* The engine `lockstep`: the translator, checked against the interpreter block by block. See lockstep.h.
 *
 * A block that asks a device, overwrites decoded code, or has instructions which the interpreter would run anyway is not
 * tried, only run. Whatever differs is printed, and the translator's result stands. */
#include "cpu/lockstep.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/engine.h"
#include "cpu/exception.h"
#include "cpu/interp.h"
#include "cpu/jit.h"
#include "cpu/jit_crossing.h"
#include "cpu/jit_emit.h"
#include "cpu/jit_segment.h"
#include "cpu/jit_jumps.h"
#include "cpu/dump.h"
#include "cpu/world.h"
#include "cpu/xstate.h"

void trial_note(struct vcpu *c, u8 *hva, u32 size)
{
    struct trial *t = c->trial;
    struct trial_write *w = &t->write[t->writes];

    if (t->writes == TRIAL_WRITES || size > sizeof(w->before))
        raise_fault(c, FAULT_TRIAL);
    w->hva = hva;
    w->size = size;
    for (u32 n = 0; n < size; n++)
        w->before[n] = hva[n];
    t->writes++;
}

static void take_back(struct trial *t)
{
    for (u32 n = 0; n < t->writes; n++)
        memcpy(t->write[n].after, t->write[n].hva, t->write[n].size);
    for (u32 n = t->writes; n-- > 0;)
        memcpy(t->write[n].hva, t->write[n].before, t->write[n].size);
}

static void outcome_take(struct vcpu *c, struct outcome *o, int fault)
{
    vcpu_state_sync(c);
    o->s = c->s;
    o->fault = fault;
    o->error = c->fault_error;
}

/* Whether control is where the block's instruction n is, in the page that it began in: no jump in its middle was taken. */
static bool in_block(const struct vcpu *c, const struct jit_block *b, int n, u64 page_base)
{
    return !n || (jit_page_base(c) == page_base && (jit_linear(c) & ~PAGE_MASK) == b->offset[n]);
}

/* The interpreter's run of the block. False: it cannot be tried. */
static bool run_trial(struct vcpu *c, const struct jit_block *b, struct outcome *o)
{
    struct tlb *own = c->tlb;
    u64 page_base = jit_page_base(c);
    u32 attention = c->attention;
    int fault = -1;

    c->tlb = &c->trial->tlb;
    c->trial->running = true;
    c->trial->writes = 0;
    tlb_flush(c);
    for (int n = 0; n < b->insns && in_block(c, b, n, page_base) && fault < 0 && c->attention == attention; n++)
        fault = interp_try(c);
    c->trial->running = false;
    c->tlb = own;
    outcome_take(c, o, fault);
    take_back(c->trial);
    return fault != FAULT_TRIAL && c->attention == attention;
}

static void state_restore(struct vcpu *c, const struct vcpu_state *s)
{
    ext_save(c);
    c->s = *s;
    cc_set(c, s->rflags);
    vcpu_mode_update(c);
}

static const char *const names[] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12",
                                    "R13", "R14", "R15", "RIP"};

static bool xsave_differs(const struct outcome *a, const struct outcome *b)
{
    return memcmp(a->s.xsave, b->s.xsave, 512) || (memcmp((const u8 *)a->s.xsave + 576, (const u8 *)b->s.xsave + 576, 256) &&
                                                  a->s.xsave[XSAVE_HEADER / 8] & b->s.xsave[XSAVE_HEADER / 8] & 4);
}

static void report(struct vcpu *c, const struct jit_block *b, const struct outcome *want, const struct outcome *got)
{
    fprintf(stderr, "lockstep: vcpu %d: block at %#llx, %d instructions: %s\n", c->index, (unsigned long long)c->trial->start.gpr[RIP],
            b->insns, want->fault == got->fault ? "different results" : "different faults");
    fprintf(stderr, "  fault: interp %d, jit %d\n", want->fault, got->fault);
    for (int n = 0; n <= RIP; n++)
        if (want->s.gpr[n] != got->s.gpr[n])
            fprintf(stderr, "  %s: interp %#llx, jit %#llx\n", names[n], (unsigned long long)want->s.gpr[n],
                    (unsigned long long)got->s.gpr[n]);
    if (want->s.rflags != got->s.rflags)
        fprintf(stderr, "  RFLAGS: interp %#llx, jit %#llx\n", (unsigned long long)want->s.rflags,
                (unsigned long long)got->s.rflags);
    if (want->s.fip != got->s.fip || want->s.fop != got->s.fop || want->s.fdp != got->s.fdp)
        fprintf(stderr, "  FIP, FOP, FDP: interp %#llx %#x %#llx, jit %#llx %#x %#llx\n", (unsigned long long)want->s.fip, want->s.fop,
                (unsigned long long)want->s.fdp, (unsigned long long)got->s.fip, got->s.fop, (unsigned long long)got->s.fdp);
    if (xsave_differs(want, got)) {
        fprintf(stderr, "  extended registers differ:");
        for (u32 n = 0; n < 832; n++)
            if ((n < 512 || n >= 576) && ((const u8 *)want->s.xsave)[n] != ((const u8 *)got->s.xsave)[n])
                fprintf(stderr, " %u:%02x/%02x", n, ((const u8 *)want->s.xsave)[n], ((const u8 *)got->s.xsave)[n]);
        fprintf(stderr, "\n");
    }
    dump_guest_code(c, c->trial->start.gpr[RIP], jit_block_bytes(b), b->bytes);
}

static bool memory_differs(struct trial *t)
{
    bool differs = false;

    for (u32 n = 0; n < t->writes; n++) { /* of overlapping writes the last counts, which `after` has for all */
        if (!memcmp(t->write[n].after, t->write[n].hva, t->write[n].size))
            continue;
        fprintf(stderr, "lockstep: %u bytes at %p differ: interp %#llx, jit %#llx\n", t->write[n].size, (void *)t->write[n].hva,
                *(unsigned long long *)t->write[n].after, *(unsigned long long *)t->write[n].hva);
        differs = true;
    }
    return differs;
}

static bool same(const struct outcome *a, const struct outcome *b)
{
    return !memcmp(a->s.gpr, b->s.gpr, sizeof(a->s.gpr[0]) * (RIP + 1)) && a->s.rflags == b->s.rflags && a->fault == b->fault &&
           a->s.fip == b->s.fip && a->s.fop == b->s.fop && a->s.fdp == b->s.fdp && !xsave_differs(a, b);
}

/* Runs the block's code; the fault that it raised, or -1. */
static __attribute__((noinline)) int run_block(struct vcpu *c, const struct jit_block *b)
{
    u32 link;

    if (__builtin_setjmp(c->fault_jump)) {
        interp_fault_rewind(c);
        return c->fault_vector;
    }
    c->page_base = jit_page_base(c);
    link = jit_enter(c, jit_block_code(b));
    if (link)
        jit_leave_by(c, link);
    return -1;
}

/* The translation's turn, and the comparison. The fault to deliver, or -1. */
static int run_compared(struct vcpu *c, const struct jit_block *b, const struct outcome *want)
{
    u32 epoch = c->jit->epoch;
    struct jit_block copy = *b;
    int fault = run_block(c, b);

    outcome_take(c, &c->trial->got, fault);
    if (c->attention || c->jit->epoch != epoch || c->budget < JIT_INSNS_MAX)
        return fault;
    if (memory_differs(c->trial) | !same(want, &c->trial->got))
        report(c, &copy, want, &c->trial->got);
    return fault;
}

/* One block, tried if it can be. As run_block. */
static int block_run(struct vcpu *c, const struct jit_block *b)
{
    bool tried;

    if (b->alone)
        return run_block(c, b);
    if (c->group->count > 1)
        world_stop(c->group, c);
    vcpu_state_sync(c);
    c->trial->start = c->s;
    tried = run_trial(c, b, &c->trial->want);
    state_restore(c, &c->trial->start);
    if (c->group->count > 1)
        world_go(c->group, c);
    return tried ? run_compared(c, b, &c->trial->want) : run_block(c, b);
}

static void lockstep_step(struct vcpu *c)
{
    const struct jit_block *b;
    int fault = c->trial->fault;

    c->trial->fault = -1;
    jit_budget_refill(c); /* before the block is chosen: it may be when windows come or go */
    if (fault >= 0)
        exception_handle_fault(c);
    else if ((b = jit_block_at_rip(c)))
        c->trial->fault = block_run(c, b);
    else
        interp_block(c);
}

static void lockstep_run(struct vcpu *c)
{
    c->trial->fault = -1;
    for (;;) {
        if (__builtin_setjmp(c->fault_jump)) /* anew each time: blocks have their own */
            interp_fault_caught(c);
        else if (__atomic_load_n(&c->attention, __ATOMIC_RELAXED) && c->trial->fault < 0) {
            if (!interp_attend(c))
                return;
        } else if (c->s.activity != VCPU_ACTIVE) {
            return;
        } else {
            lockstep_step(c);
        }
    }
}

static int lockstep_create(struct vcpu *c, struct err *e)
{
    struct tlb *own = c->tlb;
    void *p = mmap(NULL, sizeof(struct trial), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        return err_set(e, -ENOMEM, "vCPU %d: out of memory", c->index);
    c->trial = p;
    c->tlb = &c->trial->tlb;
    tlb_init(c);
    c->tlb->fetch_generation = 0x80000000; /* the interpreter must not take one TLB's for the other's */
    c->tlb = own;
    return jit_create(c, e);
}

static void lockstep_free(struct vcpu *c)
{
    jit_free(c);
    if (c->trial)
        munmap(c->trial, sizeof(*c->trial));
    c->trial = NULL;
}

const struct engine lockstep_engine = {
    .name = "lockstep",
    .group_create = jit_group_create,
    .group_free = jit_group_free,
    .vcpu_create = lockstep_create,
    .vcpu_free = lockstep_free,
    .run = lockstep_run,
    .kick = jit_kick,
    .flush = jit_engine_flush,
    .code_changed = jit_jumps_code_written,
};
