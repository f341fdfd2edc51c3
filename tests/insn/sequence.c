/* Laying out sequences: see sequence.h. */
#include "sequence.h"

#include <string.h>

#define FILL 0xcc /* INT3 */
#define JUMP_SIZE 5
#define JUMP16_SIZE 3

/* Where pieces are put one behind the other. */
struct cursor {
    struct sequence *q;
    u64 at, start;
    struct span { u64 from, to; } span[16]; /* done before */
    u32 spans;
};

static bool span_end(struct cursor *k)
{
    for (u32 n = 0; n < k->spans; n++)
        if (k->start < k->span[n].to && k->span[n].from < k->at)
            return false;
    if (k->spans == ARRAY_SIZE(k->span) || k->at > CODE_SIZE)
        return false;
    k->span[k->spans++] = (struct span){k->start, k->at};
    return true;
}

static void put16(u8 *p, u64 val)
{
    u16 low = (u16)val;

    memcpy(p, &low, 2);
}

static void put32(u8 *p, u64 val)
{
    u32 low = (u32)val;

    memcpy(p, &low, 4);
}

/* A jump from the cursor to `place`, where it goes on. */
static bool move_to(struct cursor *k, u64 place)
{
    bool narrow = k->q->c.code_size == 2;
    u64 size = narrow ? JUMP16_SIZE : JUMP_SIZE;

    if (k->at + JUMP_SIZE > CODE_SIZE)
        return false;
    k->q->code[k->at] = 0xe9;
    if (narrow)
        put16(k->q->code + k->at + 1, place - (k->at + size));
    else
        put32(k->q->code + k->at + 1, place - (k->at + size));
    k->at += size;
    if (!span_end(k))
        return false;
    k->at = k->start = place;
    return true;
}

static bool place_pieces(struct sequence *q, u64 start)
{
    struct cursor k = {.q = q, .at = start, .start = start};

    for (int n = 0; n < q->count; n++) {
        if (n && q->piece[n].place && !move_to(&k, q->piece[n].place))
            return false;
        q->at[n] = (u16)k.at;
        k.at += q->piece[n].len;
        if (k.at > CODE_SIZE)
            return false;
    }
    q->at[q->count] = (u16)k.at;
    return span_end(&k);
}

static bool fill_in(struct sequence *q, int n, u64 base)
{
    struct piece *p = &q->piece[n];
    u64 to = q->at[MIN(MAX(p->target, 0), q->count)], behind = q->at[n] + (u64)p->len;
    u8 *field = p->bytes + p->fix_at;
    s64 distance = (s64)(to - behind);

    switch (p->fix) {
    case FIX_REL8:
        *field = (u8)distance;
        return distance == (s8)distance;
    case FIX_REL16: put16(field, (u64)distance); return true;
    case FIX_REL32: put32(field, (u64)distance); return true;
    case FIX_ADDRESS16: put16(field, CODE_VA - base + to + p->plus); return true;
    case FIX_ADDRESS: put32(field, CODE_VA - base + to + p->plus); return true;
    case FIX_DATA: put32(field, p->plus - (CODE_VA + behind)); return true;
    default: return true;
    }
}

bool sequence_layout(struct sequence *q)
{
    u64 start = case_code_at(&q->c), base = q->c.code_size == 8 ? 0 : layout_base(q->c.s.sel[SEG_CS]);

    memset(q->code, FILL, CODE_SIZE);
    if (start >= CODE_SIZE || !place_pieces(q, start))
        return false;
    for (int n = 0; n < q->count; n++) {
        if (!fill_in(q, n, base))
            return false;
        memcpy(q->code + q->at[n], q->piece[n].bytes, q->piece[n].len);
    }
    return true;
}

void sequence_lead(struct sequence *q)
{
    static const struct { u8 len, bytes[2]; } leads[] = {{0, {0}}, {1, {0x66}}, {1, {0x67}}, {2, {0x67, 0x66}}};

    for (int n = 0; n < q->count; n++) {
        struct piece *p = &q->piece[n];
        u8 len = leads[p->lead].len;

        memmove(p->bytes + len, p->bytes, p->len);
        memcpy(p->bytes, leads[p->lead].bytes, len);
        p->len = (u8)(p->len + len);
        p->fix_at = (u8)(p->fix_at + len);
        p->operand_at = p->operand_at ? (u8)(p->operand_at + len) : 0;
        p->lead = 0;
    }
}

void sequence_aim(struct sequence *q, int n, u32 address)
{
    struct piece *p = &q->piece[n];
    u32 disp = 0;

    memcpy(&disp, p->bytes + p->operand_at, p->operand_narrow ? 2 : 4);
    disp += address - p->operand;
    memcpy(p->bytes + p->operand_at, &disp, p->operand_narrow ? 2 : 4);
    p->plus += p->fix == FIX_DATA ? address - p->operand : 0;
    p->operand = address;
}

void sequence_drop(struct sequence *q, int n)
{
    u16 place = q->piece[n].place;

    memmove(q->piece + n, q->piece + n + 1, sizeof(q->piece[0]) * (size_t)(q->count - n - 1));
    q->count--;
    if (place && n < q->count && !q->piece[n].place)
        q->piece[n].place = place;
    for (int m = 0; m < q->count; m++)
        if (q->piece[m].target > n)
            q->piece[m].target--;
}
