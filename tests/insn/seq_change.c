/* Code that changes itself: see seq_writer.h. */
#include "seq_writer.h"

/* An instruction worth changing; returns where a write to it has to go, and through *ret_bytes how many bytes at least. */
static int add_victim(struct writer *w, u32 *ret_bytes)
{
    int reg = any_register(w);
    struct piece *p;

    switch (below(w->r, 4)) {
    case 0:
        emit_mov(w, reg, (u32)rnd(w->r));
        *ret_bytes = 4;
        return (reg < 8 ? 1 : 2) + 2 * narrow(w);
    case 1: /* add, or, … r32, imm32 */
        p = reg < 8 ? EMIT(w, 0x81) : EMIT(w, 0x41, 0x81);
        append(p, (const u8[]){(u8)(0xc0 | below(w->r, 8) << 3 | (reg & 7))}, 1);
        append32(p, (u32)rnd(w->r));
        *ret_bytes = 4;
        return p->len - 4 + 2 * narrow(w);
    case 2:
        p = EMIT(w, (u8)(0x70 | below(w->r, 16)), 0);
        refer(p, FIX_REL8, 1, w->q->count + (int)below(w->r, 3));
        p->lead = 0;
        *ret_bytes = 1;
        return 0;
    default:
        EMIT(w, 0xf8)->lead = 0;
        *ret_bytes = 1;
        return 0;
    }
}

static u8 simple_opcode(struct writer *w)
{
    static const u8 simple[] = {0xf5, 0xf8, 0xf9, 0x90, 0x98, 0x99, 0x9f, 0xfc};

    return one_in(w->r, 40) ? 0xcc : simple[below(w->r, sizeof(simple))];
}

/* What may stand where one byte of a victim is. */
static u8 other_opcode(struct writer *w, const struct piece *victim)
{
    return victim->len == 2 ? (u8)(0x70 | below(w->r, 16)) : simple_opcode(w);
}

/* What turns an offset of code into one of data. */
static u32 code_base(struct writer *w)
{
    return (u32)(wide(w) ? 0 : layout_base(w->q->c.s.sel[SEG_CS])) - data_base(w);
}

/* A write to [address of the piece + offset]. Returns its number. */
static int add_writer(struct writer *w, int victim, u32 offset, u32 bytes, u8 opcode)
{
    struct piece *p;

    if (bytes == 1) {
        p = EMIT(w, 0xc6), append_absolute(w, p, 0, 0), append(p, &opcode, 1);
    } else {
        switch (below(w->r, 3)) {
        case 0: p = EMIT(w, 0xc7), append_absolute(w, p, 0, 0), append32(p, (u32)rnd(w->r)); break;
        case 1: p = EMIT(w, 0x83), append_absolute(w, p, (int)below(w->r, 7), 0), append(p, (const u8[]){(u8)rnd(w->r)}, 1); break;
        default: p = EMIT(w, 0xf0, 0x0f, 0xc1), append_absolute(w, p, any_register(w) & 7, 0); break; /* lock xadd */
        }
    }
    refer(p, FIX_ADDRESS, p->bytes[0] == 0xf0 ? 4 + wide(w) : 2 + wide(w), victim);
    p->plus = offset + code_base(w);
    return w->q->count - 1;
}

/* A write to an instruction ahead: the next, or a few further on. */
static void add_change_ahead(struct writer *w)
{
    struct piece copy = {.len = one_in(w->r, 3) ? 2 : 1};
    u32 bytes = copy.len == 2 ? 1 : 4, at;
    int writer = add_writer(w, 0, 0, bytes, 0xf9), first;

    for (u64 n = below(w->r, 4); n; n--)
        add_any(w);
    first = w->q->count;
    do { /* one that has as many bytes to change */
        w->q->count = first;
        at = (u32)add_victim(w, &bytes);
    } while (bytes != (w->q->piece[writer].bytes[0] == 0xc6 ? 1 : 4));
    w->q->piece[writer].target = (s16)first;
    w->q->piece[writer].plus += at;
    if (w->q->piece[writer].bytes[0] == 0xc6)
        w->q->piece[writer].bytes[w->q->piece[writer].len - 1] = other_opcode(w, &w->q->piece[first]);
}

/* A write to an instruction behind, in a loop. */
static void add_change_behind(struct writer *w)
{
    int victim = w->q->count;
    u32 bytes, at = (u32)add_victim(w, &bytes);

    for (u64 n = below(w->r, 3); n; n--)
        add_any(w);
    add_writer(w, victim, at, bytes, other_opcode(w, &w->q->piece[victim]));
}

#define RUN 18 /* one-byte instructions that are overwritten together */

static void add_run(struct writer *w)
{
    for (int n = 0; n < RUN; n++) {
        struct piece *p = EMIT(w, simple_opcode(w));

        p->joined = n;
        p->lead = 0;
    }
}

/* Puts the address of piece `victim`, and `plus` bytes, into the field at the end of p. */
static void aim_at(struct writer *w, struct piece *p, u32 plus, int victim)
{
    refer(p, FIX_ADDRESS, p->len - 4, victim);
    p->plus = plus + code_base(w);
}

/* Writes to a run: moves it down by a byte, or fills a part of it. */
static void add_run_writer(struct writer *w, int victim)
{
    u32 opcode = simple_opcode(w), from = (u32)below(w->r, RUN / 2);
    bool strings = !(w->kept & (1u << RDI | 1u << RSI | 1u << RCX | 1u << RAX));
    struct piece *p;

    switch (below(w->r, strings ? 5 : 3)) {
    case 0: /* movups xmm1, [run + 1]; movups [run], xmm1 */
        p = EMIT(w, 0x0f, 0x10), append_absolute(w, p, 1, 0), aim_at(w, p, 1, victim);
        p = EMIT(w, 0x0f, 0x11), append_absolute(w, p, 1, 0), aim_at(w, p, 0, victim);
        break;
    case 1: /* mov edx, [run]; mov [run + 5], edx */
        p = EMIT(w, 0x8b), append_absolute(w, p, RDX, 0), aim_at(w, p, 0, victim);
        p = EMIT(w, 0x89), append_absolute(w, p, RDX, 0), aim_at(w, p, 5, victim);
        break;
    case 2:
        p = EMIT(w, 0xc6), append_absolute(w, p, 0, 0), aim_at(w, p, from, victim), append(p, &opcode, 1);
        break;
    case 3: /* rep movsb from the second byte to the first */
        aim_at(w, emit_mov(w, RSI, 0), 1, victim);
        aim_at(w, emit_mov(w, RDI, 0), 0, victim);
        emit_mov(w, RCX, RUN - 1);
        EMIT(w, 0xf3, 0xa4);
        break;
    default:
        emit_mov(w, RAX, opcode * 0x01010101);
        aim_at(w, emit_mov(w, RDI, 0), from, victim);
        emit_mov(w, RCX, 1 + (u32)below(w->r, 2));
        EMIT(w, 0xf3, 0xab);
        break;
    }
}

/* The run behind its writer, in which case the writer's target is known only afterwards, or before it. */
static void add_change_of_run(struct writer *w)
{
    int first = w->q->count, behind;

    if (one_in(w->r, 2)) {
        add_run(w);
        add_run_writer(w, first);
        return;
    }
    add_run_writer(w, -1);
    behind = w->q->count;
    if (one_in(w->r, 2))
        add_any(w);
    for (int n = first; n < behind; n++)
        if (w->q->piece[n].target < 0)
            w->q->piece[n].target = (s16)w->q->count;
    add_run(w);
}

void add_change(struct writer *w)
{
    switch (below(w->r, 5)) {
    case 0: case 1: add_change_ahead(w); break;
    case 2: case 3: add_change_behind(w); break;
    default: add_change_of_run(w); break;
    }
}
