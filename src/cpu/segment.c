/* Loading segment registers, the checks of accesses that a flat segment does not need, and the TSS's I/O permission
 * map. SDM vol. 3 §3.4, §5.3 to §5.7; vol. 1 §19.5. */
#include "cpu/segment.h"

#include "cpu/descriptor.h"

void segment_load_real(struct vcpu *c, int seg, u16 sel)
{
    c->s.seg_sel[seg] = sel;
    c->s.seg_base[seg] = (u64)sel << 4;
    if (v86_mode(c)) {
        c->s.seg_limit[seg] = 0xffff;
        c->s.seg_attr[seg] = SEG_P | SEG_S | SEG_W | SEG_A | SEG_DPL;
    } else {
        /* limit and size survive from protected mode ("unreal" mode); a register left null becomes usable again */
        if (!(c->s.seg_attr[seg] & SEG_P))
            c->s.seg_limit[seg] = 0xffff;
        c->s.seg_attr[seg] = (u16)((c->s.seg_attr[seg] & (SEG_DB | SEG_G)) | SEG_P | SEG_S | SEG_W | SEG_A);
    }
    vcpu_mode_update(c);
}

static void stack_segment_check(struct vcpu *c, u16 sel, struct descriptor *d)
{
    u32 error = selector_error(sel);

    if (!descriptor_read(c, sel, d))
        raise_error(c, EXC_GP, error);
    if ((sel & 3) != c->s.cpl || attr_dpl(d->attr) != c->s.cpl || !attr_is_writable_data(d->attr))
        raise_error(c, EXC_GP, error);
    if (!(d->attr & SEG_P))
        raise_error(c, EXC_SS, error);
}

static void data_segment_check(struct vcpu *c, u16 sel, struct descriptor *d)
{
    u32 error = selector_error(sel);
    int dpl;

    if (!descriptor_read(c, sel, d))
        raise_error(c, EXC_GP, error);
    dpl = attr_dpl(d->attr);
    if (!attr_is_readable(d->attr))
        raise_error(c, EXC_GP, error);
    if (!attr_is_conforming(d->attr) && ((sel & 3) > dpl || c->s.cpl > dpl))
        raise_error(c, EXC_GP, error);
    if (!(d->attr & SEG_P))
        raise_error(c, EXC_NP, error);
}

static void load_null(struct vcpu *c, int seg, u16 sel)
{
    /* 64-bit mode runs with a null SS below CPL 3 */
    if (seg == SEG_SS && (!code64(c) || c->s.cpl == 3 || (sel & 3) != c->s.cpl))
        raise_gp0(c);
    segment_set_null(c, seg, sel);
}

void segment_load(struct vcpu *c, int seg, u16 sel)
{
    struct descriptor d;

    if (!protected_mode(c) || v86_mode(c)) {
        segment_load_real(c, seg, sel);
        return;
    }
    if (selector_null(sel)) {
        load_null(c, seg, sel);
    } else {
        if (seg == SEG_SS)
            stack_segment_check(c, sel, &d);
        else
            data_segment_check(c, sel, &d);
        descriptor_set_accessed(c, &d);
        segment_set(c, seg, sel, &d);
    }
    vcpu_mode_update(c);
}

static _Noreturn void access_fault(struct vcpu *c, int seg)
{
    raise_error(c, seg == SEG_SS ? EXC_SS : EXC_GP, 0);
}

static bool flat(const struct vcpu *c, int seg)
{
    return !c->s.seg_base[seg] && c->s.seg_limit[seg] == 0xffffffff && (c->s.seg_attr[seg] & (SEG_CODE | SEG_E)) != SEG_E;
}

void segment_check(struct vcpu *c, int seg, u64 offset, u32 size, bool write)
{
    u16 attr = c->s.seg_attr[seg];

    if (code64(c))
        return;
    if (!(attr & SEG_P))
        access_fault(c, seg);
    /* real and V86 mode look at limits only */
    if (protected_mode(c) && !v86_mode(c) && (write ? !attr_is_writable_data(attr) : !attr_is_readable(attr)))
        access_fault(c, seg);
    if (flat(c, seg)) /* processors check no limit then: an operand may wrap around */
        return;
    if (!segment_covers(attr, c->s.seg_limit[seg], offset, size))
        access_fault(c, seg);
}

static void io_map_check(struct vcpu *c, u16 port, int size)
{
    u64 tss = c->s.seg_base[SEG_TR];
    u32 limit = c->s.seg_limit[SEG_TR], at;

    if (!protected_mode(c) || (!v86_mode(c) && c->s.cpl <= iopl(c)))
        return;
    if (!(attr_type(c->s.seg_attr[SEG_TR]) & 8) || limit < 103)
        raise_gp0(c);
    at = (u32)sys_read(c, tss + 102, 2) + port / 8;
    /* two bytes are read always: the map ends with a byte of ones for that */
    if (at + 1 > limit || sys_read(c, tss + at, 2) >> (port & 7) & ((1u << size) - 1))
        raise_gp0(c);
}

/* With CR4.DE, DR7's R/W field 2 watches ports: a trap after the instruction, like a data breakpoint's. SDM vol. 3 §17.2. */
static void io_breakpoints_check(struct vcpu *c, u16 port, int size)
{
    for (int n = 0; n < 4; n++) {
        u64 kind = c->s.dr[7] >> (16 + n * 4) & 3, bytes = (c->s.dr[7] >> (18 + n * 4) & 3) + 1;
        u64 at = c->s.dr[n] & ~(bytes - 1);

        if (!(c->s.dr[7] >> n * 2 & 3) || kind != 2 || port >= at + bytes || at >= (u64)port + (u64)size)
            continue;
        c->s.pending_db |= 1ull << n;
        __atomic_or_fetch(&c->attention, ATTN_STEP, __ATOMIC_SEQ_CST);
        c->block_end = c->insn ? c->insn + 1 : c->block_end;
    }
}

void io_permission_check(struct vcpu *c, u16 port, int size)
{
    io_map_check(c, port, size);
    if (c->s.cr4 & CR4_DE && c->s.dr[7] & 0xff)
        io_breakpoints_check(c, port, size);
}
