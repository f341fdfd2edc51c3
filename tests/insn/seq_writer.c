/* Pieces of sequences, made by hand: see seq_writer.h. Encodings: SDM vol. 2 ch. 2. */
#include "seq_writer.h"

#include <string.h>

struct piece *emit(struct writer *w, const u8 *bytes, size_t len)
{
    struct piece *p = &w->q->piece[w->q->count];

    assert(w->q->count < PIECES_MAX);
    *p = (struct piece){.len = (u8)len, .lead = narrow(w) ? LEAD_BOTH : 0};
    memcpy(p->bytes, bytes, len);
    w->q->count++;
    return p;
}

void append(struct piece *p, const void *bytes, size_t len)
{
    memcpy(p->bytes + p->len, bytes, len);
    p->len = (u8)(p->len + len);
}

void append32(struct piece *p, u32 val)
{
    append(p, &val, 4);
}

bool wide(const struct writer *w)
{
    return w->s->g.code_size == 8;
}

bool narrow(const struct writer *w)
{
    return w->s->g.code_size == 2;
}

u32 data_base(const struct writer *w)
{
    return wide(w) ? 0 : (u32)layout_base(w->q->c.s.sel[SEG_DS]);
}

void lead_operand(struct writer *w, struct piece *p)
{
    if (narrow(w))
        p->lead = w->words == !one_in(w->r, 12) ? 0 : LEAD_66;
}

void lead_any(struct writer *w, struct piece *p)
{
    if (narrow(w))
        p->lead = one_in(w->r, 8) ? (u8)below(w->r, 4) : 0;
}

void emit_near(struct writer *w, const u8 *bytes, size_t len, int target)
{
    struct piece *p = emit(w, bytes, len);

    lead_operand(w, p);
    if (narrow(w) && !p->lead) {
        append(p, (const u8[2]){0}, 2);
        refer(p, FIX_REL16, (int)len, target);
    } else {
        append32(p, 0);
        refer(p, FIX_REL32, (int)len, target);
    }
}

/* ModRM and the rest for [disp32]. */
void append_absolute(struct writer *w, struct piece *p, int reg, u32 address)
{
    if (wide(w))
        append(p, (const u8[]){(u8)(reg << 3 | 4), 0x25}, 2);
    else
        append(p, (const u8[]){(u8)(reg << 3 | 5)}, 1);
    append32(p, address - data_base(w));
}

void refer(struct piece *p, enum piece_fix fix, int at, int target)
{
    p->fix = (u8)fix;
    p->fix_at = (u8)at;
    p->target = (s16)target;
}

/* mov r32, imm32 */
struct piece *emit_mov(struct writer *w, int reg, u32 val)
{
    struct piece *p = reg < 8 ? EMIT(w, (u8)(0xb8 + reg)) : EMIT(w, 0x41, (u8)(0xb8 + (reg & 7)));

    append32(p, val);
    return p;
}

/* An instruction with the opcode FF /op on a register. */
struct piece *emit_ff(struct writer *w, int op, int reg)
{
    return reg < 8 ? EMIT(w, 0xff, (u8)(0xc0 | op << 3 | reg)) : EMIT(w, 0x41, 0xff, (u8)(0xc0 | op << 3 | (reg & 7)));
}

int any_register(struct writer *w)
{
    int reg;

    do
        reg = (int)below(w->r, wide(w) ? 16 : 8);
    while (w->kept >> reg & 1);
    return reg;
}

int ahead(struct writer *w)
{
    return w->q->count + 1 + (int)below(w->r, 6);
}
