/* Far JMP, CALL and RET, and IRET: transfers between code segments, through call gates, between privilege levels, to
 * and from V86 mode. SDM vol. 2 (the pseudo-code of each instruction), vol. 3 §5.8, §6.4, §20.2.
 *
 * Each transfer reads and checks all it needs, then changes registers without being able to fault. */
#include "cpu/descriptor.h"
#include "cpu/segment.h"
#include "cpu/vme.h"

static u64 offset_cut(u64 offset, int size)
{
    return size == 2 ? (u16)offset : size == 4 ? (u32)offset : offset;
}

static void attend(struct vcpu *c, u32 bits)
{
    __atomic_or_fetch(&c->attention, bits, __ATOMIC_RELAXED);
}

/* Real and V86 mode: a selector is an address. */
static void far_enter_real(struct vcpu *c, u16 sel, u64 offset)
{
    if (offset > c->s.seg_limit[SEG_CS])
        raise_gp0(c);
    c->s.gpr[RIP] = offset;
    segment_load_real(c, SEG_CS, sel);
}

static bool selectors_are_addresses(const struct vcpu *c)
{
    return !protected_mode(c) || v86_mode(c);
}

static void target_read(struct vcpu *c, u16 sel, struct descriptor *d)
{
    if (selector_null(sel))
        raise_gp0(c);
    if (!descriptor_read(c, sel, d))
        raise_error(c, EXC_GP, selector_error(sel));
}

/* A code segment named by the instruction itself: no change of privilege. */
static void direct_target_check(struct vcpu *c, struct descriptor *d)
{
    u32 error = selector_error(d->sel);
    int dpl = attr_dpl(d->attr), rpl = d->sel & 3;

    if (!code_size_valid(c, d->attr))
        raise_error(c, EXC_GP, error);
    if (attr_is_conforming(d->attr) ? dpl > c->s.cpl : rpl > c->s.cpl || dpl != c->s.cpl)
        raise_error(c, EXC_GP, error);
    if (!(d->attr & SEG_P))
        raise_error(c, EXC_NP, error);
}

/* Gates and TSSs demand that the caller and the selector are privileged enough. */
static void system_privilege_check(struct vcpu *c, const struct descriptor *d)
{
    int dpl = attr_dpl(d->attr);

    if (dpl < c->s.cpl || dpl < (d->sel & 3))
        raise_error(c, EXC_GP, selector_error(d->sel));
}

/* Reads a call gate and the code segment that it names into `target`. `jump`: privilege may not change. */
static void call_gate_read(struct vcpu *c, struct descriptor *gate, bool jump, struct gate *g,
                           struct descriptor *target)
{
    u32 error;
    int dpl;

    system_privilege_check(c, gate);
    if (!(gate->attr & SEG_P))
        raise_error(c, EXC_NP, selector_error(gate->sel));
    gate_parse(gate, g);
    if (long_mode(c)) {
        if (!descriptor_read_upper(c, gate))
            raise_error(c, EXC_GP, selector_error(gate->sel));
        g->offset |= gate->base & ~0xffffffffull;
        g->size = 8;
        g->params = 0;
    }
    error = selector_error(g->sel);
    target_read(c, g->sel, target);
    dpl = attr_dpl(target->attr);
    if (!attr_is_code(target->attr) || dpl > c->s.cpl || (jump && !attr_is_conforming(target->attr) && dpl != c->s.cpl))
        raise_error(c, EXC_GP, error);
    if (long_mode(c) && (target->attr & (SEG_L | SEG_DB)) != SEG_L)
        raise_error(c, EXC_GP, error);
    if (!(target->attr & SEG_P))
        raise_error(c, EXC_NP, error);
    if (!code_offset_valid(c, target, g->offset))
        raise_gp0(c);
    descriptor_set_accessed(c, target);
}

static void task_gate_follow(struct vcpu *c, const struct descriptor *d, enum task_switch_kind kind)
{
    system_privilege_check(c, d);
    if (!(d->attr & SEG_P))
        raise_error(c, EXC_NP, selector_error(d->sel));
    task_switch(c, (u16)(d->raw >> 16), kind, 0, false, 0);
}

/* What a far JMP or CALL found that is not a code segment. True: a call gate, which the caller follows. */
static bool system_target(struct vcpu *c, const struct descriptor *d, enum task_switch_kind kind)
{
    int type = attr_type(d->attr);

    if (d->attr & SEG_S)
        raise_error(c, EXC_GP, selector_error(d->sel));
    if (type == SYS_CALL32 || (type == SYS_CALL16 && !long_mode(c)))
        return true;
    if (long_mode(c))
        raise_error(c, EXC_GP, selector_error(d->sel));
    switch (type) {
    case SYS_TASK_GATE:
        task_gate_follow(c, d, kind);
        return false;
    case SYS_TSS16:
    case SYS_TSS32:
        system_privilege_check(c, d);
        task_switch(c, d->sel, kind, 0, false, 0);
        return false;
    default:
        raise_error(c, EXC_GP, selector_error(d->sel));
    }
}

void far_jump(struct vcpu *c, u16 sel, u64 offset, int size)
{
    struct descriptor d, target;
    struct gate g;

    offset = offset_cut(offset, size);
    if (selectors_are_addresses(c)) {
        far_enter_real(c, sel, offset);
        return;
    }
    target_read(c, sel, &d);
    if (attr_is_code(d.attr)) {
        direct_target_check(c, &d);
        if (!code_offset_valid(c, &d, offset))
            raise_gp0(c);
        descriptor_set_accessed(c, &d);
        code_enter(c, &d, c->s.cpl, offset);
    } else if (system_target(c, &d, TASK_JUMP)) {
        call_gate_read(c, &d, true, &g, &target);
        code_enter(c, &target, c->s.cpl, g.offset);
    }
    vcpu_mode_update(c);
}

static void return_address_put(struct vcpu *c, struct stack *st, int size)
{
    stack_put(c, st, size, c->s.seg_sel[SEG_CS]);
    stack_put(c, st, size, c->s.gpr[RIP]);
}

static void return_address_push(struct vcpu *c, int size)
{
    struct stack st;

    stack_current(c, &st, 0);
    stack_reserve(c, &st, 2, size);
    return_address_put(c, &st, size);
    stack_set(c, st.sp);
}

/* The current stack as code of segment d will see it: between compatibility mode and 64-bit code the base of SS and the width change. */
static void stack_for_code(const struct vcpu *c, const struct descriptor *d, struct stack *st)
{
    stack_current(c, st, 0);
    if (!long_mode(c))
        return;
    st->flat = d->attr & SEG_L;
    st->base = st->flat ? 0 : c->s.seg_base[SEG_SS];
    st->mask = st->flat ? ~0ull : c->s.seg_attr[SEG_SS] & SEG_DB ? 0xffffffff : 0xffff;
}

/* Calls code segment d. The return address is stored before the offset is checked, and on the stack as the target will see it: as processors do
 * it. */
static void direct_call(struct vcpu *c, const struct descriptor *d, u64 offset, int size)
{
    struct stack st;

    stack_for_code(c, d, &st);
    stack_reserve(c, &st, 2, size);
    return_address_put(c, &st, size);
    if (!code_offset_valid(c, d, offset))
        raise_gp0(c);
    code_enter(c, d, c->s.cpl, offset);
    vcpu_mode_update(c); /* the width of the stack */
    stack_set(c, st.sp);
}

#define GATE_PARAMS_MAX 31

/* Reads the operands that a call gate copies, the last pushed one first. */
static void params_read(struct vcpu *c, const struct gate *g, u32 param[GATE_PARAMS_MAX])
{
    for (int n = 0; n < g->params; n++)
        param[n] = (u32)mem_read(c, stack_linear(c, c->s.gpr[RSP] + (u64)(n * g->size), (u32)g->size, false), g->size);
}

static void call_inner(struct vcpu *c, const struct gate *g, const struct descriptor *target)
{
    int cpl = attr_dpl(target->attr);
    u32 param[GATE_PARAMS_MAX];
    struct descriptor ss;
    struct stack st;

    stack_from_tss(c, cpl, 0, &st, &ss);
    params_read(c, g, param);
    stack_reserve(c, &st, 4 + g->params, g->size);
    stack_put(c, &st, g->size, c->s.seg_sel[SEG_SS]);
    stack_put(c, &st, g->size, c->s.gpr[RSP]);
    for (int n = g->params - 1; n >= 0; n--)
        stack_put(c, &st, g->size, param[n]);
    return_address_put(c, &st, g->size);
    segment_set(c, SEG_SS, st.sel, &ss);
    c->s.gpr[RSP] = st.sp;
    code_enter(c, target, cpl, g->offset);
}

static void call_inner_64(struct vcpu *c, const struct gate *g, const struct descriptor *target)
{
    int cpl = attr_dpl(target->attr);
    struct stack st = {
        .sp = stack_pointer_from_tss64(c, cpl, 0), .mask = ~0ull, .flat = true, .mmu = mmu_set_for(c, cpl)};

    stack_reserve(c, &st, 4, 8);
    stack_put(c, &st, 8, c->s.seg_sel[SEG_SS]);
    stack_put(c, &st, 8, c->s.gpr[RSP]);
    return_address_put(c, &st, 8);
    segment_set_null(c, SEG_SS, (u16)cpl);
    c->s.gpr[RSP] = st.sp;
    code_enter(c, target, cpl, g->offset);
}

static void call_gate_follow(struct vcpu *c, struct descriptor *gate)
{
    struct descriptor target;
    struct gate g;

    call_gate_read(c, gate, false, &g, &target);
    if (attr_is_conforming(target.attr) || attr_dpl(target.attr) == c->s.cpl) {
        return_address_push(c, g.size);
        code_enter(c, &target, c->s.cpl, g.offset);
    } else if (long_mode(c)) {
        call_inner_64(c, &g, &target);
    } else {
        call_inner(c, &g, &target);
    }
}

void far_call(struct vcpu *c, u16 sel, u64 offset, int size)
{
    struct descriptor d;

    offset = offset_cut(offset, size);
    if (selectors_are_addresses(c)) {
        if (offset > c->s.seg_limit[SEG_CS])
            raise_gp0(c);
        return_address_push(c, size);
        far_enter_real(c, sel, offset);
        return;
    }
    target_read(c, sel, &d);
    if (attr_is_code(d.attr)) {
        direct_target_check(c, &d);
        descriptor_set_accessed(c, &d);
        direct_call(c, &d, offset, size);
    } else if (system_target(c, &d, TASK_CALL)) {
        call_gate_follow(c, &d);
    }
    vcpu_mode_update(c);
}

/* What returns take from the stack, at byte `at` above SP. */
static u64 stack_peek(struct vcpu *c, u32 at, int size)
{
    return mem_read(c, stack_linear(c, c->s.gpr[RSP] + at, (u32)size, false), size);
}

/* A selector there: two bytes, whatever the operand size. */
static u16 selector_peek(struct vcpu *c, u32 at)
{
    return (u16)stack_peek(c, at, 2);
}

/* The code segment that a RET or IRET returns to. */
static void return_target_check(struct vcpu *c, u16 sel, struct descriptor *d)
{
    u32 error = selector_error(sel);
    int rpl = sel & 3;

    target_read(c, sel, d);
    if (!attr_is_code(d->attr) || rpl < c->s.cpl || !code_size_valid(c, d->attr))
        raise_error(c, EXC_GP, error);
    if (attr_is_conforming(d->attr) ? attr_dpl(d->attr) > rpl : attr_dpl(d->attr) != rpl)
        raise_error(c, EXC_GP, error);
    if (!(d->attr & SEG_P))
        raise_error(c, EXC_NP, error);
}

/* The last check of a return: the new stack's come before it. Returns the offset as it counts: 32 bits outside 64-bit code. */
static u64 return_offset_check(struct vcpu *c, struct descriptor *d, u64 offset)
{
    if (long_mode(c) && !(d->attr & SEG_L))
        offset = (u32)offset;
    if (!code_offset_valid(c, d, offset))
        raise_gp0(c);
    descriptor_set_accessed(c, d);
    return offset;
}

/* The stack that comes with it; `code` is the code segment returned to. False: a null selector, which 64-bit code
 * below CPL 3 may have. */
static bool return_stack_check(struct vcpu *c, u16 sel, const struct descriptor *code, struct descriptor *d)
{
    u32 error = selector_error(sel);
    int rpl = code->sel & 3;

    if (selector_null(sel)) {
        if (!long_mode(c) || !(code->attr & SEG_L) || rpl == 3 || (sel & 3) != rpl)
            raise_gp0(c);
        return false;
    }
    if (!descriptor_read(c, sel, d) || (sel & 3) != rpl || !attr_is_writable_data(d->attr) || attr_dpl(d->attr) != rpl)
        raise_error(c, EXC_GP, error);
    if (!(d->attr & SEG_P))
        raise_error(c, EXC_SS, error);
    descriptor_set_accessed(c, d);
    return true;
}

static void stack_enter(struct vcpu *c, u16 sel, const struct descriptor *d, bool present, u64 sp, u16 release)
{
    if (present)
        segment_set(c, SEG_SS, sel, d);
    else
        segment_set_null(c, SEG_SS, sel);
    vcpu_mode_update(c); /* the new stack's width */
    stack_set(c, sp + release);
}

/* After the new code segment: 64-bit code has a stack of 64 bits. */
static void stack_release(struct vcpu *c, u32 bytes)
{
    vcpu_mode_update(c);
    stack_set(c, c->s.gpr[RSP] + bytes);
}

/* Returning outwards, data segments that the outer level may not use become null. Their bases stay: a 64-bit kernel that
 * keeps a selector of its own in GS finds its base again after a trip through user mode. Null selectors lose their RPL: so Intel's processors do it. */
static void data_segments_drop(struct vcpu *c)
{
    static const u8 data[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};

    for (int n = 0; n < 4; n++) {
        u16 attr = c->s.seg_attr[data[n]];
        u64 base = c->s.seg_base[data[n]];

        if (!(attr & SEG_P))
            c->s.seg_sel[data[n]] = 0;
        if (!(attr & SEG_P) || attr_is_conforming(attr) || attr_dpl(attr) >= c->s.cpl)
            continue;
        segment_set_null(c, data[n], 0);
        c->s.seg_base[data[n]] = base;
    }
}

static void return_outer(struct vcpu *c, struct descriptor *code, u64 offset, int size, u16 release)
{
    u32 at = 2 * (u32)size + release;
    u64 sp = stack_peek(c, at, size);
    u16 sel = (u16)stack_peek(c, at + (u32)size, size);
    struct descriptor ss;
    bool present = return_stack_check(c, sel, code, &ss);

    offset = return_offset_check(c, code, offset);
    code_enter(c, code, code->sel & 3, offset);
    stack_enter(c, sel, &ss, present, sp, release);
    data_segments_drop(c);
}

void far_return(struct vcpu *c, int size, u16 release)
{
    u16 sel = selector_peek(c, (u32)size); /* first: it is the one that faults, if both do */
    u64 offset = stack_peek(c, 0, size);
    struct descriptor d;

    if (selectors_are_addresses(c)) {
        if (offset > c->s.seg_limit[SEG_CS])
            raise_gp0(c);
        stack_set(c, c->s.gpr[RSP] + 2 * (u32)size + release);
        far_enter_real(c, sel, offset);
        return;
    }
    return_target_check(c, sel, &d);
    if ((sel & 3) > c->s.cpl) {
        return_outer(c, &d, offset, size, release);
    } else {
        offset = return_offset_check(c, &d, offset);
        code_enter(c, &d, c->s.cpl, offset);
        stack_release(c, 2 * (u32)size + release);
    }
    vcpu_mode_update(c);
}

/* IRET. */

/* Which flags IRET at `cpl` may change, by operand size. */
static u64 iret_flags_mask(const struct vcpu *c, int size)
{
    u64 mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT;

    if (size > 2)
        mask |= FLAG_RF | FLAG_AC | FLAG_ID;
    if (c->s.cpl <= iopl(c))
        mask |= FLAG_IF;
    if (c->s.cpl == 0)
        mask |= FLAG_IOPL | (size > 2 ? FLAG_VIF | FLAG_VIP : 0);
    return mask;
}

static u64 flags_merged(const struct vcpu *c, u64 popped, u64 mask)
{
    return (flags_get(c) & ~mask) | (popped & mask);
}

static void nmi_unblock(struct vcpu *c)
{
    if (!c->s.nmi_blocked)
        return;
    c->s.nmi_blocked = false;
    attend(c, ATTN_EVENT); /* another may have come meanwhile */
}

static void iret_real(struct vcpu *c, int size)
{
    u64 offset = stack_peek(c, 0, size), flags = stack_peek(c, 2 * (u32)size, size), mask;
    u16 sel = (u16)stack_peek(c, (u32)size, size);

    if (v86_mode(c)) /* IOPL 3 here: all but IOPL itself, VM, VIF and VIP */
        mask = iret_flags_mask(c, size) & ~(u64)FLAG_IOPL;
    else
        mask = iret_flags_mask(c, size) & ~(u64)(FLAG_VIF | FLAG_VIP);
    if (vme_virtual_if(c))
        vme_flags_check(c, (u16)flags);
    if (offset > c->s.seg_limit[SEG_CS])
        raise_gp0(c);
    stack_set(c, c->s.gpr[RSP] + 3 * (u32)size);
    if (vme_virtual_if(c))
        vme_flags_load(c, (u16)flags);
    else
        flags_load(c, flags_merged(c, flags, mask));
    far_enter_real(c, sel, offset);
}

static void iret_task(struct vcpu *c)
{
    u16 link;

    if (long_mode(c))
        raise_gp0(c);
    link = (u16)sys_read(c, c->s.seg_base[SEG_TR], 2);
    task_switch(c, link, TASK_IRET, 0, false, 0);
}

/* From CPL 0 of protected mode into V86 mode: nine doublewords. */
static void iret_to_v86(struct vcpu *c, u64 offset, u16 cs, u64 flags)
{
    static const u8 order[] = {SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS}; /* above ESP in the frame */
    u64 sp = stack_peek(c, 12, 4);
    u16 sel[5];

    for (u32 n = 0; n < 5; n++)
        sel[n] = (u16)stack_peek(c, 16 + n * 4, 4);
    if (offset > 0xffff)
        raise_gp0(c);
    c->s.cpl = 3;
    c->s.gpr[RSP] = sp;
    c->s.gpr[RIP] = offset;
    flags_load(c, flags & 0x3f7fd5);
    segment_load_real(c, SEG_CS, cs);
    for (int n = 0; n < 5; n++)
        segment_load_real(c, order[n], sel[n]);
}

static void iret_same(struct vcpu *c, struct descriptor *code, u64 offset, u64 flags, int size)
{
    offset = return_offset_check(c, code, offset);
    code_enter(c, code, c->s.cpl, offset);
    stack_release(c, 3 * (u32)size);
    flags_load(c, flags);
}

/* To an outer level; from 64-bit mode always, as the frame has a stack pointer there whatever the privilege. */
static void iret_stack(struct vcpu *c, struct descriptor *code, u64 offset, u64 flags, int size)
{
    u64 sp = stack_peek(c, 3 * (u32)size, size);
    u16 sel = (u16)stack_peek(c, 4 * (u32)size, size);
    struct descriptor ss;
    bool present = return_stack_check(c, sel, code, &ss), outer = (code->sel & 3) > c->s.cpl;

    offset = return_offset_check(c, code, offset);
    code_enter(c, code, code->sel & 3, offset);
    flags_load(c, flags);
    stack_enter(c, sel, &ss, present, sp, 0);
    if (outer)
        data_segments_drop(c);
}

static void iret_protected(struct vcpu *c, int size)
{
    u64 flags = stack_peek(c, 2 * (u32)size, size); /* from the top: it is the first that faults, if several do */
    u16 sel = selector_peek(c, (u32)size);
    u64 offset = stack_peek(c, 0, size);
    struct descriptor d;

    if (flags & FLAG_VM && size == 4 && c->s.cpl == 0 && !long_mode(c)) {
        iret_to_v86(c, offset, sel, flags);
        return;
    }
    return_target_check(c, sel, &d);
    flags = flags_merged(c, flags, iret_flags_mask(c, size));
    if (code64(c) || (sel & 3) > c->s.cpl)
        iret_stack(c, &d, offset, flags, size);
    else
        iret_same(c, &d, offset, flags, size);
    vcpu_mode_update(c);
}

void interrupt_return(struct vcpu *c, int size)
{
    nmi_unblock(c); /* even if the IRET faults */
    if (v86_mode(c) && iopl(c) < 3 && !(size == 2 && vme_virtual_if(c)))
        raise_gp0(c);
    if (selectors_are_addresses(c))
        iret_real(c, size);
    else if (c->s.rflags & FLAG_NT)
        iret_task(c);
    else
        iret_protected(c, size);
}
