/* Shrinking: see shrink.h. Each step puts a part of the case back to what a plain case has there, and takes it back when the case does not
 * fail any more. Large parts first; round and round until nothing helps. */
#include "shrink.h"

#include <stdlib.h>
#include <string.h>

#include "generate.h"
#include "random_state.h"

struct shrinker {
    struct insn_case *now, plain, trial;
    bool (*fails)(void *ctx, const struct insn_case *c);
    void *ctx;
    u16 mnemonic; /* ZYDIS_MNEMONIC_INVALID: not decodable */
    bool progress;
};

static u16 mnemonic_of(const struct insn_case *c, u8 *len)
{
    struct decoded d;

    case_decode(c, &d);
    *len = d.valid ? d.zi.length : INSN_MAX;
    return d.valid ? (u16)d.zi.mnemonic : ZYDIS_MNEMONIC_INVALID;
}

/* Keeps s->trial if it still fails, being the same instruction. */
static void keep_if_fails(struct shrinker *s)
{
    u8 len;

    if (mnemonic_of(&s->trial, &len) != s->mnemonic || len > s->trial.len || case_code_at(&s->trial) >= CODE_SIZE)
        return;
    s->trial.len = len;
    memset(s->trial.bytes + len, 0xcc, INSN_MAX - len);
    initial_components(s->trial.s.xsave);
    if (!memcmp(&s->trial, s->now, sizeof(s->trial)) || !s->fails(s->ctx, &s->trial))
        return;
    *s->now = s->trial;
    s->progress = true;
}

/* Tries [offset, offset+size) of struct insn_case as it is in the plain case. */
static void plain_part(struct shrinker *s, size_t offset, size_t size)
{
    if (!memcmp((u8 *)s->now + offset, (u8 *)&s->plain + offset, size))
        return;
    s->trial = *s->now;
    memcpy((u8 *)&s->trial + offset, (u8 *)&s->plain + offset, size);
    keep_if_fails(s);
}

/* The same for an area in ever smaller pieces, down to `least`. */
static void plain_area(struct shrinker *s, size_t offset, size_t size, size_t least)
{
    for (size_t piece = size; piece >= least; piece = piece > 512 ? 512 : piece > 64 ? 64 : piece / 8)
        for (size_t at = 0; at < size; at += piece)
            plain_part(s, offset + at, MIN(piece, size - at));
}

static void drop_bytes(struct shrinker *s)
{
    for (int n = 0; n < s->now->len; n++) {
        s->trial = *s->now;
        memmove(s->trial.bytes + n, s->trial.bytes + n + 1, (size_t)(INSN_MAX - 1 - n));
        s->trial.bytes[INSN_MAX - 1] = 0xcc;
        if (s->mnemonic != ZYDIS_MNEMONIC_INVALID)
            s->trial.len--;
        keep_if_fails(s);
    }
}

/* Displacements and immediates to zero, registers to the first ones. */
static void zero_bytes(struct shrinker *s)
{
    for (int n = 0; n < s->now->len; n++) {
        if (!s->now->bytes[n] || (s->mnemonic == ZYDIS_MNEMONIC_INVALID && s->now->bytes[n] == 0xcc))
            continue;
        s->trial = *s->now;
        s->trial.bytes[n] = 0;
        keep_if_fails(s);
    }
}

/* Zero or one, where that is not what a plain case has. */
static void simple_registers(struct shrinker *s)
{
    for (int n = 0; n < 16; n++)
        for (u64 val = 0; val < 2; val++) {
            if (s->now->s.gpr[n] <= val || s->plain.s.gpr[n])
                continue;
            s->trial = *s->now;
            s->trial.s.gpr[n] = val;
            keep_if_fails(s);
        }
}

static void round_once(struct shrinker *s)
{
    drop_bytes(s);
    plain_area(s, offsetof(struct insn_case, data), DATA_WRITABLE, 1);
    plain_area(s, offsetof(struct insn_case, s.xsave), XSAVE_AREA_SIZE, 1);
    for (int n = 0; n < 16; n++)
        plain_part(s, offsetof(struct insn_case, s.gpr) + (size_t)n * 8, 8);
    simple_registers(s);
    plain_part(s, offsetof(struct insn_case, s.rip), 8);
    plain_part(s, offsetof(struct insn_case, s.flags), 8);
    plain_area(s, offsetof(struct insn_case, s.flags), 8, 1);
    for (int n = 0; n < 6; n++)
        plain_part(s, offsetof(struct insn_case, s.sel) + (size_t)n * 2, 2);
    plain_part(s, offsetof(struct insn_case, s.fs_base), 8);
    plain_part(s, offsetof(struct insn_case, s.gs_base), 8);
    zero_bytes(s);
}

void shrink(struct insn_case *c, u64 components, bool (*fails)(void *ctx, const struct insn_case *c), void *ctx)
{
    struct shrinker *s = aligned_alloc(64, ALIGN_UP(sizeof(*s), 64));
    u8 len;

    assert(s);
    s->now = c;
    s->fails = fails;
    s->ctx = ctx;
    plain_case(c->code_size, components, &s->plain);
    s->mnemonic = mnemonic_of(c, &len);
    do {
        s->progress = false;
        round_once(s);
    } while (s->progress);
    free(s);
}
