/* Hardware task switches, with 16-bit and 32-bit TSSs. SDM vol. 3 ch. 7, the steps of §7.3 in their order.
 *
 * First everything is read and checked that can be without the new task's address space: its descriptor, its TSS,
 * the old TSS's page for writing. Then the old task is saved, busy bits and back link are set, and registers are
 * loaded; from there on faults (bad segments, mostly) happen in the new task. IA-32e mode has no task switches. */
#include "cpu/descriptor.h"
#include "cpu/vcpu_trace.h"

/* TSS layout: where the fields are. SDM vol. 3 figures 7-2 and 7-10. */
struct tss_layout {
    int size;  /* of a register */
    u32 limit; /* the least that the descriptor's limit may be */
    u32 ip, flags, gpr, segs, ldt;
    int seg_count, seg_stride;
};
static const struct tss_layout tss16 = {2, 0x2b, 0x0e, 0x10, 0x12, 0x22, 0x2a, 4, 2};
static const struct tss_layout tss32 = {4, 0x67, 0x20, 0x24, 0x28, 0x48, 0x60, 6, 4};
#define TSS32_CR3 0x1c
#define TSS32_TRAP 0x64
#define EXCEPTION_VECTORS 32 /* vcpu.delivering below this is a fault; above, an interrupt */

/* What the new TSS holds, read before anything changes. */
struct task {
    u64 ip, flags, gpr[8], cr3;
    u16 seg[6], ldt;
    bool trap;
};

static const struct tss_layout *layout_of(u16 attr)
{
    return attr_type(attr) & 8 ? &tss32 : &tss16;
}

static void tss_find(struct vcpu *c, u16 sel, enum task_switch_kind kind, u32 ext, struct descriptor *d)
{
    u32 error = selector_error(sel) | ext;
    int bad = kind == TASK_IRET ? EXC_TS : EXC_GP, available = kind == TASK_IRET ? SYS_TSS_BUSY_BIT : 0;

    if (selector_null(sel) || sel & 4 || !descriptor_read(c, sel, d) || d->attr & SEG_S ||
        (attr_type(d->attr) & ~8) != (SYS_TSS16 | available))
        raise_error(c, bad, error);
    if (!(d->attr & SEG_P))
        raise_error(c, EXC_NP, error);
    if (d->limit < layout_of(d->attr)->limit)
        raise_error(c, EXC_TS, error);
}

static void task_read(struct vcpu *c, const struct descriptor *d, struct task *t)
{
    const struct tss_layout *l = layout_of(d->attr);
    u64 tss = d->base;

    t->ip = sys_read(c, tss + l->ip, l->size);
    t->flags = sys_read(c, tss + l->flags, l->size);
    for (int n = 0; n < 8; n++)
        t->gpr[n] = sys_read(c, tss + l->gpr + (u32)(n * l->size), l->size);
    for (int n = 0; n < 6; n++)
        t->seg[n] = n < l->seg_count ? (u16)sys_read(c, tss + l->segs + (u32)(n * l->seg_stride), 2) : 0;
    t->ldt = (u16)sys_read(c, tss + l->ldt, 2);
    t->cr3 = l == &tss32 ? sys_read(c, tss + TSS32_CR3, 4) : c->s.cr3;
    t->trap = l == &tss32 && sys_read(c, tss + TSS32_TRAP, 2) & 1;
}

/* Into the current TSS: what belongs to the dynamic part. */
static void task_save(struct vcpu *c, u64 flags)
{
    const struct tss_layout *l = layout_of(c->s.seg_attr[SEG_TR]);
    u64 tss = c->s.seg_base[SEG_TR];

    sys_write(c, tss + l->ip, l->size, c->s.gpr[RIP]);
    sys_write(c, tss + l->flags, l->size, flags);
    for (int n = 0; n < 8; n++)
        sys_write(c, tss + l->gpr + (u32)(n * l->size), l->size, c->s.gpr[n]);
    for (int n = 0; n < l->seg_count; n++)
        sys_write(c, tss + l->segs + (u32)(n * l->seg_stride), 2, c->s.seg_sel[n]);
}

/* The current TSS's descriptor, whose busy bit is cleared on leaving. */
static u64 old_descriptor(struct vcpu *c, u32 ext)
{
    struct descriptor d;

    if (!descriptor_read(c, c->s.seg_sel[SEG_TR], &d) ||
        c->s.seg_limit[SEG_TR] < layout_of(c->s.seg_attr[SEG_TR])->limit)
        raise_error(c, EXC_TS, selector_error(c->s.seg_sel[SEG_TR]) | ext);
    mem_probe_write(c, d.gva, 8, mmu_system(c));
    return d.gva;
}

/* Raises what the writes to come would raise. */
static void writes_probe(struct vcpu *c, const struct descriptor *d, enum task_switch_kind kind)
{
    const struct tss_layout *old = layout_of(c->s.seg_attr[SEG_TR]);

    mem_probe_write(c, c->s.seg_base[SEG_TR] + old->ip, old->ldt - old->ip, mmu_system(c));
    mem_probe_write(c, d->gva, 8, mmu_system(c));
    if (kind == TASK_CALL || kind == TASK_GATE)
        mem_probe_write(c, d->base, 2, mmu_system(c));
}

/* All selectors are shown at once; the hidden parts follow as their descriptors are found good. */
static void selectors_load(struct vcpu *c, const struct task *t)
{
    for (int n = 0; n < 6; n++)
        segment_set_null(c, n, t->seg[n]);
    segment_set_null(c, SEG_LDTR, t->ldt);
}

static void registers_load(struct vcpu *c, const struct tss_layout *l, const struct task *t, u64 flags)
{
    for (int n = 0; n < 8; n++)
        c->s.gpr[n] = t->gpr[n] | (l == &tss16 ? 0xffff0000 : 0); /* 80286 tasks: so processors fill the upper halves */
    c->s.gpr[RIP] = t->ip;
    c->insn = NULL; /* from here on RIP is the new task's */
    flags_load(c, flags & 0x3f7fd5);
    selectors_load(c, t);
    c->s.cpl = v86_mode(c) ? 3 : t->seg[SEG_CS] & 3;
    vcpu_mode_update(c);
}

static void ldt_load(struct vcpu *c, u16 sel, u32 ext)
{
    u32 error = selector_error(sel) | ext;
    struct descriptor d;

    if (selector_null(sel))
        return;
    if (sel & 4 || !descriptor_read(c, sel, &d) || d.attr & SEG_S || attr_type(d.attr) != SYS_LDT || !(d.attr & SEG_P))
        raise_error(c, EXC_TS, error);
    segment_set(c, SEG_LDTR, sel, &d);
}

static void code_load(struct vcpu *c, u16 sel, u32 ext)
{
    u32 error = selector_error(sel) | ext;
    struct descriptor d;

    if (selector_null(sel) || !descriptor_read(c, sel, &d) || !attr_is_code(d.attr))
        raise_error(c, EXC_TS, error);
    if (attr_is_conforming(d.attr) ? attr_dpl(d.attr) > (sel & 3) : attr_dpl(d.attr) != (sel & 3))
        raise_error(c, EXC_TS, error);
    if (!(d.attr & SEG_P))
        raise_error(c, EXC_NP, error);
    descriptor_set_accessed(c, &d);
    segment_set(c, SEG_CS, sel, &d);
}

static void stack_load(struct vcpu *c, u16 sel, u32 ext)
{
    u32 error = selector_error(sel) | ext;
    struct descriptor d;

    if (selector_null(sel) || !descriptor_read(c, sel, &d) || (sel & 3) != c->s.cpl || attr_dpl(d.attr) != c->s.cpl ||
        !attr_is_writable_data(d.attr))
        raise_error(c, EXC_TS, error);
    if (!(d.attr & SEG_P))
        raise_error(c, EXC_SS, error);
    descriptor_set_accessed(c, &d);
    segment_set(c, SEG_SS, sel, &d);
}

static void data_load(struct vcpu *c, int seg, u16 sel, u32 ext)
{
    u32 error = selector_error(sel) | ext;
    struct descriptor d;
    int dpl;

    if (selector_null(sel))
        return;
    if (!descriptor_read(c, sel, &d) || !attr_is_readable(d.attr))
        raise_error(c, EXC_TS, error);
    dpl = attr_dpl(d.attr);
    if (!attr_is_conforming(d.attr) && (dpl < c->s.cpl || dpl < (sel & 3)))
        raise_error(c, EXC_TS, error);
    if (!(d.attr & SEG_P))
        raise_error(c, EXC_NP, error);
    descriptor_set_accessed(c, &d);
    segment_set(c, seg, sel, &d);
}

static void segments_load(struct vcpu *c, const struct task *t, u32 ext)
{
    static const u8 data[] = {SEG_DS, SEG_ES, SEG_FS, SEG_GS};

    ldt_load(c, t->ldt, ext);
    if (v86_mode(c)) {
        for (int n = 0; n < 6; n++)
            segment_load_real(c, n, t->seg[n]);
        return;
    }
    code_load(c, t->seg[SEG_CS], ext);
    vcpu_mode_update(c); /* each on its own: a fault in the next one is handled with what is loaded so far */
    stack_load(c, t->seg[SEG_SS], ext);
    vcpu_mode_update(c);
    for (int n = 0; n < 4; n++)
        data_load(c, data[n], t->seg[data[n]], ext);
    vcpu_mode_update(c);
}

/* A gate hands the exception's error code over, as wide as the new TSS. */
static void error_push(struct vcpu *c, int size, u32 error, u32 ext)
{
    struct stack st;

    stack_current(c, &st, ext);
    stack_reserve(c, &st, 1, size);
    stack_put(c, &st, size, error);
    stack_set(c, st.sp);
}

/* The old task into its TSS, the links between the two, the new TSS into TR. */
static void tasks_exchange(struct vcpu *c, struct descriptor *d, enum task_switch_kind kind, u64 old_gva)
{
    u64 flags = flags_get(c);

    if (kind == TASK_GATE && c->delivering < EXCEPTION_VECTORS && c->delivering != EXC_DB)
        flags |= FLAG_RF;
    task_save(c, kind == TASK_IRET ? flags & ~(u64)FLAG_NT : flags);
    if (kind == TASK_JUMP || kind == TASK_IRET)
        descriptor_set_busy(c, old_gva, false);
    if (kind != TASK_IRET)
        descriptor_set_busy(c, d->gva, true);
    if (kind == TASK_CALL || kind == TASK_GATE)
        sys_write(c, d->base, 2, c->s.seg_sel[SEG_TR]);
    d->attr |= SYS_TSS_BUSY_BIT;
    segment_set(c, SEG_TR, d->sel, d);
}

void task_switch(struct vcpu *c, u16 sel, enum task_switch_kind kind, u32 ext, bool has_error, u32 error)
{
    const struct tss_layout *l;
    struct descriptor d;
    struct task t;
    u64 old_gva;

    tss_find(c, sel, kind, ext, &d);
    l = layout_of(d.attr);
    task_read(c, &d, &t);
    old_gva = old_descriptor(c, ext);
    writes_probe(c, &d, kind);
    vcpu_trace(c, CPU, "vcpu %d: task switch from %04x to %04x", c->index, c->s.seg_sel[SEG_TR], sel);

    tasks_exchange(c, &d, kind, old_gva);
    c->s.cr0 |= CR0_TS;
    c->s.dr[7] &= ~0x155ull; /* breakpoints that were local to the old task */
    if (l == &tss32 && c->s.cr0 & CR0_PG)
        mmu_load_cr3(c, t.cr3);
    registers_load(c, l, &t, kind == TASK_CALL || kind == TASK_GATE ? t.flags | FLAG_NT : t.flags);
    segments_load(c, &t, ext);
    if (t.trap) {
        c->s.pending_db |= DR6_BT;
        __atomic_or_fetch(&c->attention, ATTN_STEP, __ATOMIC_RELAXED);
    }
    if (has_error)
        error_push(c, l->size, error, ext);
    if (t.ip > c->s.seg_limit[SEG_CS])
        raise_error(c, EXC_GP, ext);
}
