/* Exceptions and interrupts: raising, delivery through the real-mode vector table and the IDT, double faults, shutdown.
 * SDM vol. 3 ch. 6, §20.1.4 (real mode), §20.3 (V86); vol. 2 INT n.
 *
 * Delivery reads and checks everything (gate, target, stack, every page of the frame) before the first push, so that a
 * fault on the way leaves the interrupted state as it was. */
#include "cpu/exception.h"

#include "cpu/descriptor.h"
#include "cpu/insn_trace.h"
#include "cpu/ferr.h"
#include "cpu/vcpu_trace.h"
#include "cpu/vme.h"

/* vcpu.delivering for interrupts, external and by INT n: faults on their way never make a double fault. */
#define DELIVERING_INTERRUPT 0x100

#define DR6_FIXED 0xffff0ff0ull
#define DR7_GD 0x2000ull

struct delivery {
    enum event_kind kind;
    int vector;
    bool has_error;
    u32 error;
    u32 ext;   /* 1: not by an instruction of the program; goes into error codes of faults on the way */
    u64 flags; /* as pushed */
};

static _Noreturn void raise_now(struct vcpu *c, int vector, bool has_error, u32 error)
{
    c->fault_vector = (u8)vector;
    c->fault_has_error = has_error;
    c->fault_error = error;
    __builtin_longjmp(c->fault_jump, 1);
}

_Noreturn void raise_fault(struct vcpu *c, int vector)
{
    raise_now(c, vector, false, 0);
}

_Noreturn void raise_error(struct vcpu *c, int vector, u32 error)
{
    raise_now(c, vector, true, error);
}

_Noreturn void raise_page_fault(struct vcpu *c, u64 gva, u32 error)
{
    c->s.cr2 = gva;
    raise_now(c, EXC_PF, true, error);
}

/* What newly loaded flags demand of the run loop: a look at interrupts, or steps. */
static void flags_attend(struct vcpu *c, u64 old, u64 now)
{
    u32 bits = 0;

    if (now & ~old & FLAG_IF && c->event_held)
        bits |= ATTN_EVENT;
    if (now & (FLAG_TF | FLAG_RF))
        bits |= ATTN_STEP;
    if (bits)
        __atomic_or_fetch(&c->attention, bits, __ATOMIC_RELAXED);
}

void flags_load(struct vcpu *c, u64 flags)
{
    u64 old = c->s.rflags;

    flags_set(c, flags);
    flags_attend(c, old, flags);
    if ((old ^ flags) & (FLAG_AC | FLAG_VM))
        vcpu_mode_update(c);
}

static void deliver_real(struct vcpu *c, const struct delivery *v)
{
    struct stack st;
    u32 entry;

    if ((u32)v->vector * 4 + 3 > c->s.idtr_limit)
        raise_gp0(c);
    entry = (u32)sys_read(c, (u32)(c->s.idtr_base + (u32)v->vector * 4), 4);
    stack_current(c, &st, 0);
    stack_reserve(c, &st, 3, 2);
    if ((entry & 0xffff) > c->s.seg_limit[SEG_CS])
        raise_gp0(c);
    stack_put(c, &st, 2, v->flags);
    stack_put(c, &st, 2, c->s.seg_sel[SEG_CS]);
    stack_put(c, &st, 2, c->s.gpr[RIP]);
    stack_set(c, st.sp);
    c->s.rflags &= ~(u64)(FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF);
    c->s.gpr[RIP] = entry & 0xffff;
    segment_load_real(c, SEG_CS, (u16)(entry >> 16));
}

static bool idt_type_valid(const struct vcpu *c, u16 attr)
{
    int type = attr_type(attr);

    if (attr & SEG_S)
        return false;
    if (type == SYS_INTR32 || type == SYS_TRAP32)
        return true;
    return !long_mode(c) && (type == SYS_INTR16 || type == SYS_TRAP16 || type == SYS_TASK_GATE);
}

/* Reads and checks the vector's gate. */
static void idt_read(struct vcpu *c, const struct delivery *v, struct descriptor *d, struct gate *g)
{
    u32 size = long_mode(c) ? 16 : 8, offset = (u32)v->vector * size;
    u32 error = (u32)v->vector * 8 + 2 + v->ext;

    if (offset + size - 1 > c->s.idtr_limit)
        raise_error(c, EXC_GP, error);
    d->gva = c->s.idtr_base + offset;
    descriptor_parse(d, sys_read(c, d->gva, 8));
    if (!idt_type_valid(c, d->attr) || (v->kind == EVENT_SOFTWARE && attr_dpl(d->attr) < c->s.cpl))
        raise_error(c, EXC_GP, error);
    if (!(d->attr & SEG_P))
        raise_error(c, EXC_NP, error);
    gate_parse(d, g);
    if (long_mode(c)) {
        g->offset |= sys_read(c, d->gva + 8, 4) << 32;
        g->size = 8;
    }
}

/* Reads and checks the code segment that a gate names. */
static void target_read(struct vcpu *c, const struct delivery *v, const struct gate *g, struct descriptor *d)
{
    u32 error = selector_error(g->sel) | v->ext;

    if (selector_null(g->sel))
        raise_error(c, EXC_GP, v->ext);
    if (!descriptor_read(c, g->sel, d) || !attr_is_code(d->attr) || attr_dpl(d->attr) > c->s.cpl)
        raise_error(c, EXC_GP, error);
    if (long_mode(c) && (d->attr & (SEG_L | SEG_DB)) != SEG_L)
        raise_error(c, EXC_GP, error);
    if (!(d->attr & SEG_P))
        raise_error(c, EXC_NP, error);
    if (v86_mode(c) && (attr_is_conforming(d->attr) || attr_dpl(d->attr)))
        raise_error(c, EXC_GP, error);
    descriptor_set_accessed(c, d);
}

static void frame_put(struct vcpu *c, const struct delivery *v, struct stack *st, int size)
{
    stack_put(c, st, size, v->flags);
    stack_put(c, st, size, c->s.seg_sel[SEG_CS]);
    stack_put(c, st, size, c->s.gpr[RIP]);
    if (v->has_error)
        stack_put(c, st, size, v->error);
}

/* Same privilege: the frame goes on the current stack. */
static void enter_same(struct vcpu *c, const struct delivery *v, const struct gate *g, const struct descriptor *d)
{
    struct stack st;

    stack_current(c, &st, v->ext);
    stack_reserve(c, &st, 3 + v->has_error, g->size);
    if (g->offset > d->limit)
        raise_error(c, EXC_GP, v->ext);
    frame_put(c, v, &st, g->size);
    stack_set(c, st.sp);
    code_enter(c, d, c->s.cpl, g->offset);
}

/* Leaving V86 mode, the data segments are pushed and become null. */
static void v86_segments_put(struct vcpu *c, struct stack *st, int size)
{
    static const u8 order[] = {SEG_GS, SEG_FS, SEG_DS, SEG_ES};

    for (int n = 0; n < 4; n++) {
        stack_put(c, st, size, c->s.seg_sel[order[n]]);
        segment_set_null(c, order[n], 0);
    }
}

/* Inner privilege: the frame goes on the stack that the TSS names. */
static void enter_inner(struct vcpu *c, const struct delivery *v, const struct gate *g, const struct descriptor *d)
{
    int cpl = attr_dpl(d->attr);
    struct descriptor ss;
    struct stack st;

    stack_from_tss(c, cpl, v->ext, &st, &ss);
    stack_reserve(c, &st, 5 + v->has_error + (v86_mode(c) ? 4 : 0), g->size);
    if (g->offset > d->limit)
        raise_error(c, EXC_GP, v->ext);
    if (v86_mode(c))
        v86_segments_put(c, &st, g->size);
    stack_put(c, &st, g->size, c->s.seg_sel[SEG_SS]);
    stack_put(c, &st, g->size, c->s.gpr[RSP]);
    frame_put(c, v, &st, g->size);
    segment_set(c, SEG_SS, st.sel, &ss);
    c->s.gpr[RSP] = st.sp;
    code_enter(c, d, cpl, g->offset);
}

static void stack_select64(struct vcpu *c, const struct delivery *v, const struct gate *g, int cpl, struct stack *st)
{
    int ist = g->params & 7;

    if (ist)
        st->sp = stack_pointer_from_tss64(c, 3 + ist, v->ext);
    else if (cpl < c->s.cpl)
        st->sp = stack_pointer_from_tss64(c, cpl, v->ext);
    else
        st->sp = c->s.gpr[RSP];
    st->sp &= ~15ull;
    st->base = 0;
    st->mask = ~0ull;
    st->flat = true;
    st->mmu = mmu_set_for(c, cpl);
    st->error = v->ext;
}

static void enter_64(struct vcpu *c, const struct delivery *v, const struct gate *g, const struct descriptor *d)
{
    int cpl = attr_is_conforming(d->attr) ? c->s.cpl : attr_dpl(d->attr);
    struct stack st;

    stack_select64(c, v, g, cpl, &st);
    stack_reserve(c, &st, 5 + v->has_error, 8);
    if (!canonical(g->offset))
        raise_error(c, EXC_GP, v->ext);
    stack_put(c, &st, 8, c->s.seg_sel[SEG_SS]);
    stack_put(c, &st, 8, c->s.gpr[RSP]);
    frame_put(c, v, &st, 8);
    if (cpl != c->s.cpl)
        segment_set_null(c, SEG_SS, (u16)cpl);
    c->s.gpr[RSP] = st.sp;
    code_enter(c, d, cpl, g->offset);
}

static void deliver_protected(struct vcpu *c, const struct delivery *v)
{
    struct descriptor gate, d;
    struct gate g;

    idt_read(c, v, &gate, &g);
    if (attr_type(gate.attr) == SYS_TASK_GATE) {
        task_switch(c, g.sel, TASK_GATE, v->ext, v->has_error, v->error);
        return;
    }
    target_read(c, v, &g, &d);
    if (long_mode(c))
        enter_64(c, v, &g, &d);
    else if (attr_is_conforming(d.attr) || attr_dpl(d.attr) == c->s.cpl)
        enter_same(c, v, &g, &d);
    else
        enter_inner(c, v, &g, &d);
    c->s.rflags &= ~(u64)(FLAG_TF | FLAG_NT | FLAG_VM | FLAG_RF);
    if (!(attr_type(gate.attr) & 1)) /* interrupt gate, not trap gate */
        c->s.rflags &= ~(u64)FLAG_IF;
    vcpu_mode_update(c);
}

static u64 flags_pushed(const struct vcpu *c, enum event_kind kind, int vector)
{
    u64 flags = flags_get(c);

    if (kind == EVENT_FAULT && vector != EXC_DB) /* the handler's IRET must not stop at a breakpoint there again */
        return flags | FLAG_RF;
    /* a trap or interrupt between two iterations of a string instruction finds RF set: SDM vol. 3 §17.3.1.1 */
    return kind == EVENT_SOFTWARE || kind == EVENT_ICEBP ? flags & ~(u64)FLAG_RF : flags;
}

void exception_deliver(struct vcpu *c, enum event_kind kind, int vector, bool has_error, u32 error)
{
    static const char *const kinds[] = {[EVENT_FAULT] = "fault",
                                        [EVENT_TRAP] = "trap",
                                        [EVENT_SOFTWARE] = "software",
                                        [EVENT_ICEBP] = "icebp",
                                        [EVENT_EXTERNAL] = "external"};
    const struct delivery v = {.kind = kind,
                               .vector = vector,
                               .has_error = has_error,
                               .error = error,
                               .ext = kind != EVENT_SOFTWARE,
                               .flags = flags_pushed(c, kind, vector)};

    vcpu_trace(c, EXC, "vcpu %d: vector %#x error %#x at %04x:%llx cpl %d cr2 %llx rsp %llx", c->index, vector, error,
               c->s.seg_sel[SEG_CS], (unsigned long long)c->s.gpr[RIP], c->s.cpl, (unsigned long long)c->s.cr2,
               (unsigned long long)c->s.gpr[RSP]);
    if (unlikely(c->group->insn_trace))
        insn_trace_event(c, kinds[kind], vector, has_error, error);
    c->delivering = kind == EVENT_FAULT || kind == EVENT_TRAP ? vector : DELIVERING_INTERRUPT;
    if (protected_mode(c))
        deliver_protected(c, &v);
    else
        deliver_real(c, &v);
    c->delivering = -1;
    c->s.activity = VCPU_ACTIVE; /* a trap ends HLT too */
    if (vector == EXC_DB && kind != EVENT_SOFTWARE)
        c->s.dr[7] &= ~DR7_GD;
    if (kind == EVENT_SOFTWARE || kind == EVENT_ICEBP)
        c->s.pending_db &= ~(u64)DR6_BS; /* INT n clears TF: no single-step trap follows it */
}

/* SDM vol. 3 table 6-4. */
enum fault_class { FAULT_BENIGN, FAULT_CONTRIBUTORY, FAULT_PAGE };

static enum fault_class fault_class(int vector)
{
    switch (vector) {
    case EXC_DE:
    case EXC_TS:
    case EXC_NP:
    case EXC_SS:
    case EXC_GP:
        return FAULT_CONTRIBUTORY;
    case EXC_PF:
        return FAULT_PAGE;
    default:
        return FAULT_BENIGN;
    }
}

/* SDM vol. 3 table 6-5. */
static bool makes_double_fault(int first, int second)
{
    if (fault_class(first) == FAULT_CONTRIBUTORY)
        return fault_class(second) == FAULT_CONTRIBUTORY;
    return fault_class(first) == FAULT_PAGE && fault_class(second) != FAULT_BENIGN;
}

void vcpu_shutdown(struct vcpu *c)
{
    vcpu_trace(c, CPU, "vcpu %d: triple fault at %04x:%llx", c->index, c->s.seg_sel[SEG_CS],
               (unsigned long long)c->s.gpr[RIP]);
    c->delivering = -1;
    c->s.activity = VCPU_SHUTDOWN;
    ext_save(c);
    c->group->config.bus.shutdown(c->group->config.bus.ctx);
}

void exception_handle_fault(struct vcpu *c)
{
    int first = c->delivering, second = c->fault_vector;

    c->insn = NULL; /* RIP is where it belongs: a fault during delivery must not move it again */
    c->s.pending_db = 0;
    if (second == EXC_MF && !(c->s.cr0 & CR0_NE))
        ferr_error(c);
    else if (first == EXC_DF && fault_class(second) != FAULT_BENIGN)
        vcpu_shutdown(c);
    else if (first >= 0 && makes_double_fault(first, second))
        exception_deliver(c, EVENT_FAULT, EXC_DF, true, 0);
    else
        exception_deliver(c, EVENT_FAULT, second, c->fault_has_error, c->fault_error);
}

void debug_trap_deliver(struct vcpu *c)
{
    u64 bits = c->s.pending_db;

    if (!bits)
        return;
    c->s.pending_db = 0;
    c->s.dr[6] = (c->s.dr[6] & ~DR6_BREAKPOINTS) | DR6_FIXED | bits;
    exception_deliver(c, EVENT_TRAP, EXC_DB, false, 0);
}

/* INT n in V86 mode needs IOPL 3, or is redirected. */
void software_interrupt(struct vcpu *c, int vector)
{
    if (v86_mode(c) && c->s.cr4 & CR4_VME && vme_redirect(c, vector))
        return;
    if (v86_mode(c) && iopl(c) < 3)
        raise_gp0(c);
    exception_deliver(c, EVENT_SOFTWARE, vector, false, 0);
}
