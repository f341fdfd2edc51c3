/* Shrinking sequences: see seq_shrink.h. As in shrink.c each step simplifies a part, and is taken back when the fault does not show any more. */
#include "seq_shrink.h"

#include <stdlib.h>
#include <string.h>

#include "generate.h"
#include "random_state.h"

struct seq_shrinker {
    struct sequence *now;
    struct sequence trial;
    struct insn_case plain;
    bool (*fails)(void *ctx, const struct sequence *q);
    void *ctx;
    bool progress;
};

static bool keep_if_fails(struct seq_shrinker *s)
{
    initial_components(s->trial.c.s.xsave);
    if ((s->trial.count && !sequence_layout(&s->trial)) || !s->fails(s->ctx, &s->trial))
        return false;
    *s->now = s->trial;
    s->progress = true;
    return true;
}

static void drop_pieces(struct seq_shrinker *s, int at_once)
{
    for (int n = s->now->count - at_once; n >= 0; n -= 1) {
        if (n + at_once > s->now->count || at_once >= s->now->count)
            continue;
        s->trial = *s->now;
        for (int m = 0; m < at_once; m++)
            sequence_drop(&s->trial, n);
        keep_if_fails(s);
    }
}

static void drop_places(struct seq_shrinker *s)
{
    for (int n = 0; n < s->now->count; n++) {
        if (!s->now->piece[n].place)
            continue;
        s->trial = *s->now;
        s->trial.piece[n].place = 0;
        keep_if_fails(s);
    }
}

/* [offset, offset + size) of the case as it is in a plain one. */
static void plain_part(struct seq_shrinker *s, size_t offset, size_t size)
{
    if (!memcmp((u8 *)&s->now->c + offset, (u8 *)&s->plain + offset, size))
        return;
    s->trial = *s->now;
    memcpy((u8 *)&s->trial.c + offset, (u8 *)&s->plain + offset, size);
    keep_if_fails(s);
}

static void plain_area(struct seq_shrinker *s, size_t offset, size_t size, size_t least)
{
    for (size_t piece = size; piece >= least; piece = piece > 512 ? 512 : piece > 64 ? 64 : piece / 8)
        for (size_t at = 0; at < size; at += piece)
            plain_part(s, offset + at, MIN(piece, size - at));
}

static void simple_registers(struct seq_shrinker *s)
{
    for (int n = 0; n < 16; n++)
        for (u64 val = 0; val < 2; val++) {
            if (s->now->c.s.gpr[n] <= val)
                continue;
            s->trial = *s->now;
            s->trial.c.s.gpr[n] = val;
            if (keep_if_fails(s))
                break;
        }
}

static void plain_state(struct seq_shrinker *s)
{
    plain_area(s, offsetof(struct insn_case, data), DATA_WRITABLE, 1);
    plain_area(s, offsetof(struct insn_case, s.xsave), XSAVE_AREA_SIZE, 1);
    simple_registers(s);
    plain_part(s, offsetof(struct insn_case, s.rip), 8);
    plain_part(s, offsetof(struct insn_case, s.flags), 8);
    plain_area(s, offsetof(struct insn_case, s.flags), 8, 1);
    for (int n = 0; n < 6; n++)
        plain_part(s, offsetof(struct insn_case, s.sel) + (size_t)n * 2, 2);
    plain_part(s, offsetof(struct insn_case, s.fs_base), 8);
    plain_part(s, offsetof(struct insn_case, s.gs_base), 8);
}

void sequence_shrink(struct sequence *q, u64 components, bool (*fails)(void *ctx, const struct sequence *q), void *ctx)
{
    struct seq_shrinker *s = aligned_alloc(64, ALIGN_UP(sizeof(*s), 64));

    assert(s);
    s->now = q;
    s->fails = fails;
    s->ctx = ctx;
    plain_case(q->c.code_size, components, &s->plain);
    do {
        s->progress = false;
        for (int at_once = 8; at_once; at_once /= 2)
            drop_pieces(s, at_once);
        drop_places(s);
        if (!s->progress)
            plain_state(s);
    } while (s->progress);
    free(s);
}
