/* Descriptors and transfer stacks: see descriptor.h. */
#include "cpu/descriptor.h"

void descriptor_parse(struct descriptor *d, u64 raw)
{
    u32 lo = (u32)raw, hi = (u32)(raw >> 32);

    d->raw = raw;
    d->base = lo >> 16 | (hi & 0xff) << 16 | (hi & 0xff000000);
    d->limit = (lo & 0xffff) | (hi & 0xf0000);
    d->attr = (u16)(hi >> 8 & 0xf0ff);
    if (d->attr & SEG_G)
        d->limit = d->limit << 12 | 0xfff;
}

/* Where the bytes [sel & ~7, +size) are; false outside the table. */
static bool descriptor_locate(const struct vcpu *c, u16 sel, u32 size, u64 *gva)
{
    u64 base = c->s.gdtr_base;
    u32 limit = c->s.gdtr_limit, offset = sel & 0xfff8u;

    if (sel & 4) {
        if (!(c->s.seg_attr[SEG_LDTR] & SEG_P))
            return false;
        base = c->s.seg_base[SEG_LDTR];
        limit = c->s.seg_limit[SEG_LDTR];
    }
    if ((u64)offset + size - 1 > limit)
        return false;
    *gva = long_mode(c) ? base + offset : (u32)(base + offset);
    return true;
}

bool descriptor_read(struct vcpu *c, u16 sel, struct descriptor *d)
{
    if (!descriptor_locate(c, sel, 8, &d->gva))
        return false;
    d->sel = sel;
    descriptor_parse(d, sys_read(c, d->gva, 8));
    return true;
}

bool descriptor_read_upper(struct vcpu *c, struct descriptor *d)
{
    u64 gva, upper;

    if (!long_mode(c))
        return true;
    if (!descriptor_locate(c, d->sel, 16, &gva))
        return false;
    upper = sys_read(c, gva + 8, 8);
    if (upper >> 40 & 0x1f)
        return false;
    d->base |= upper << 32;
    return true;
}

/* A locked OR or AND-NOT of the type byte. It is a byte, so it crosses no page. */
static void type_byte_change(struct vcpu *c, u64 gva, u8 bits, bool set)
{
    u8 mmu = c->mmu_index;
    struct mem_rmw m;

    mem_probe_write(c, gva + 5, 1, mmu_system(c));
    /* made with supervisor privilege whatever the CPL; after the probe it cannot raise and leave mmu_index changed */
    c->mmu_index = (u8)mmu_system(c);
    mem_rmw_begin(c, gva + 5, 1, &m);
    if (set)
        __atomic_fetch_or(m.p, bits, __ATOMIC_SEQ_CST);
    else
        __atomic_fetch_and(m.p, (u8)~bits, __ATOMIC_SEQ_CST);
    mem_rmw_end(c, &m);
    c->mmu_index = mmu;
}

void descriptor_set_accessed(struct vcpu *c, struct descriptor *d)
{
    if (d->attr & SEG_A)
        return;
    type_byte_change(c, d->gva, SEG_A, true);
    d->attr |= SEG_A;
}

void descriptor_set_busy(struct vcpu *c, u64 gva, bool busy)
{
    type_byte_change(c, gva, SYS_TSS_BUSY_BIT, busy);
}

void gate_parse(const struct descriptor *d, struct gate *g)
{
    g->sel = (u16)(d->raw >> 16);
    g->offset = (d->raw & 0xffff) | (d->raw >> 32 & 0xffff0000);
    g->params = (int)(d->raw >> 32 & 0x1f);
    g->size = attr_type(d->attr) & 8 ? 4 : 2;
    if (g->size == 2)
        g->offset &= 0xffff;
}

bool segment_covers(u16 attr, u32 limit, u64 offset, u32 size)
{
    u64 last = offset + size - 1;

    if ((attr & (SEG_S | SEG_CODE | SEG_E)) == (SEG_S | SEG_E))
        return offset > limit && last <= (attr & SEG_DB ? 0xffffffff : 0xffff);
    return last <= limit;
}

bool code_size_valid(const struct vcpu *c, u16 attr)
{
    return !long_mode(c) || (attr & (SEG_L | SEG_DB)) != (SEG_L | SEG_DB);
}

bool code_offset_valid(const struct vcpu *c, const struct descriptor *d, u64 offset)
{
    return long_mode(c) && d->attr & SEG_L ? canonical(offset) : offset <= d->limit;
}

void segment_set(struct vcpu *c, int seg, u16 sel, const struct descriptor *d)
{
    c->s.seg_sel[seg] = sel;
    c->s.seg_base[seg] = d->base;
    c->s.seg_limit[seg] = d->limit;
    c->s.seg_attr[seg] = d->attr;
}

void segment_set_null(struct vcpu *c, int seg, u16 sel)
{
    c->s.seg_sel[seg] = sel;
    c->s.seg_base[seg] = 0;
    c->s.seg_limit[seg] = 0;
    /* the stack's privilege stays readable in its attributes, as processors keep it */
    c->s.seg_attr[seg] = seg == SEG_SS ? (u16)((sel & 3) << SEG_DPL_SHIFT) : 0;
}

void code_enter(struct vcpu *c, const struct descriptor *d, int cpl, u64 offset)
{
    segment_set(c, SEG_CS, (u16)((d->sel & ~3) | cpl), d);
    c->s.cpl = (u8)cpl;
    c->s.gpr[RIP] = offset;
}

void stack_current(const struct vcpu *c, struct stack *t, u32 error)
{
    t->base = c->lin_base[SEG_SS];
    t->mask = c->stack_mask;
    t->sp = c->s.gpr[RSP];
    t->limit = c->s.seg_limit[SEG_SS];
    t->attr = c->s.seg_attr[SEG_SS];
    t->sel = c->s.seg_sel[SEG_SS];
    t->flat = code64(c);
    t->mmu = c->mmu_index;
    t->error = error;
}

static u64 stack_gva(const struct stack *t, u64 sp)
{
    u64 gva = t->base + (sp & t->mask);

    return t->flat ? gva : gva & 0xffffffff;
}

static void stack_check_flat(struct vcpu *c, const struct stack *t, u32 bytes)
{
    if (!canonical(t->sp - bytes) || !canonical(t->sp - 1))
        raise_error(c, EXC_SS, t->error);
}

static void stack_check_limit(struct vcpu *c, const struct stack *t, int count, int size)
{
    for (int n = 1; n <= count; n++)
        if (!segment_covers(t->attr, t->limit, (t->sp - (u64)(n * size)) & t->mask, (u32)size))
            raise_error(c, EXC_SS, t->error);
}

void stack_reserve(struct vcpu *c, const struct stack *t, int count, int size)
{
    if (t->flat) /* all of it first: a #SS outranks a #PF */
        stack_check_flat(c, t, (u32)(count * size));
    else
        stack_check_limit(c, t, count, size);
    for (int n = 1; n <= count; n++) {
        u64 gva = stack_gva(t, t->sp - (u64)(n * size));

        mem_check_alignment_as(c, gva, (u32)size, t->mmu);
        mem_probe_write(c, gva, (u32)size, t->mmu);
    }
}

void stack_put(struct vcpu *c, struct stack *t, int size, u64 val)
{
    u64 sp = t->sp - (u64)size;

    mem_write_as(c, stack_gva(t, sp), size, val, t->mmu);
    t->sp = (t->sp & ~t->mask) | (sp & t->mask);
}

/* Where a field of the current TSS is; #TS blames the task register's selector when it lies outside. */
static u64 tss_field(struct vcpu *c, u32 offset, u32 size, u32 ext)
{
    if (offset + size - 1 > c->s.seg_limit[SEG_TR])
        raise_error(c, EXC_TS, selector_error(c->s.seg_sel[SEG_TR]) | ext);
    return c->s.seg_base[SEG_TR] + offset;
}

static void tss_stack_read(struct vcpu *c, int cpl, u32 ext, u16 *sel, u64 *sp)
{
    u64 gva;

    if (attr_type(c->s.seg_attr[SEG_TR]) & 8) {
        gva = tss_field(c, 4 + (u32)cpl * 8, 6, ext);
        *sp = sys_read(c, gva, 4);
        *sel = (u16)sys_read(c, gva + 4, 2);
    } else {
        gva = tss_field(c, 2 + (u32)cpl * 4, 4, ext);
        *sp = sys_read(c, gva, 2);
        *sel = (u16)sys_read(c, gva + 2, 2);
    }
}

void stack_from_tss(struct vcpu *c, int cpl, u32 ext, struct stack *t, struct descriptor *d)
{
    tss_stack_read(c, cpl, ext, &t->sel, &t->sp);
    t->error = selector_error(t->sel) | ext;
    if (selector_null(t->sel) || !descriptor_read(c, t->sel, d))
        raise_error(c, EXC_TS, t->error);
    if ((t->sel & 3) != cpl || attr_dpl(d->attr) != cpl || !attr_is_writable_data(d->attr))
        raise_error(c, EXC_TS, t->error);
    if (!(d->attr & SEG_P))
        raise_error(c, EXC_SS, t->error);
    descriptor_set_accessed(c, d);
    t->base = d->base;
    t->limit = d->limit;
    t->attr = d->attr;
    t->mask = d->attr & SEG_DB ? 0xffffffff : 0xffff;
    t->flat = false;
    t->mmu = mmu_set_for(c, cpl);
}

u64 stack_pointer_from_tss64(struct vcpu *c, int slot, u32 ext)
{
    u64 sp = sys_read(c, tss_field(c, 4 + (u32)slot * 8, 8, ext), 8);

    if (!canonical(sp))
        raise_error(c, EXC_SS, ext);
    return sp;
}
