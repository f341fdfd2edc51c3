/* Pieces of 16-bit code that mean something in real and virtual-8086 mode alone: selectors that are addresses. See seq_writer.h. */
#include "seq_writer.h"

#include "cpu/vcpu_state.h"

#define SLOT ((u32)COUNTERS + 0x70)

/* Mostly one by which operands keep their offsets. */
static u16 selector(struct writer *w)
{
    return one_in(w->r, 12) ? (u16)rnd(w->r) : REAL_DATA;
}

static int segment(struct writer *w)
{
    static const u8 segments[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};

    return one_in(w->r, 30) ? SEG_SS : segments[below(w->r, sizeof(segments))];
}

static void bare(struct piece *p)
{
    p->lead = 0;
}

static void append16(struct piece *p, u16 val)
{
    append(p, &val, 2);
}

static void add_move(struct writer *w)
{
    int reg = any_register(w);
    struct piece *p = EMIT(w, (u8)(0xb8 + reg));

    append16(p, selector(w));
    bare(p);
    bare(EMIT(w, 0x8e, (u8)(0xc0 | segment(w) << 3 | reg)));
}

static void add_push_pop(struct writer *w)
{
    static const u8 pops[][2] = {{0x07}, {0}, {0x17}, {0x1f}, {0x0f, 0xa1}, {0x0f, 0xa9}};
    const u8 *pop = pops[segment(w)];
    struct piece *p = EMIT(w, 0x68);

    append16(p, selector(w));
    bare(p);
    p = emit(w, pop, pop[1] ? 2 : 1);
    p->lead = one_in(w->r, 20) ? LEAD_66 : 0;
}

/* A word of memory, by an absolute address. */
static void emit_store(struct writer *w, u32 address, u16 val)
{
    struct piece *p = EMIT(w, 0xc7);

    append_absolute(w, p, 0, address);
    append16(p, val);
    p->lead = LEAD_67;
}

static void add_far_pointer(struct writer *w)
{
    static const u8 loads[][2] = {{0xc4}, {0xc5}, {0x0f, 0xb4}, {0x0f, 0xb5}, {0x0f, 0xb2}};
    const u8 *load = loads[one_in(w->r, 30) ? 4 : below(w->r, 4)];
    int reg = any_register(w);
    struct piece *p;

    emit_store(w, SLOT, (u16)rnd(w->r));
    emit_store(w, SLOT + 2, selector(w));
    p = emit(w, load, load[1] ? 2 : 1);
    append_absolute(w, p, reg, SLOT);
    p->lead = one_in(w->r, 20) ? LEAD_BOTH : LEAD_67;
}

/* The same code by another selector: JMP, CALL, and what a CALL has left. */
static void add_far_jump(struct writer *w)
{
    struct piece *p;

    if (one_in(w->r, 4)) {
        bare(EMIT(w, 0xcb));
        return;
    }
    p = one_in(w->r, 3) ? EMIT(w, 0x9a, 0, 0) : EMIT(w, 0xea, 0, 0);
    append16(p, (u16)((REAL_CODE_AT + (u32)layout_base(w->q->c.s.sel[SEG_CS]) - (u32)CODE_VA) >> 4));
    bare(p);
    refer(p, FIX_ADDRESS16, 1, ahead(w));
}

static void add_flags(struct writer *w)
{
    static const u8 opcodes[] = {0xfa, 0xfb, 0x9c, 0x9d, 0xfc, 0xfd};

    bare(EMIT(w, opcodes[below(w->r, sizeof(opcodes))]));
}

void add_real(struct writer *w)
{
    switch (below(w->r, 8)) {
    case 0: case 1: add_move(w); break;
    case 2: case 3: add_push_pop(w); break;
    case 4: case 5: add_far_pointer(w); break;
    case 6: add_far_jump(w); break;
    default: add_flags(w); break;
    }
}
