/* Making test cases: see generate.h. SDM vol. 2 ch. 2 for the prefixes. */
#include "generate.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "operands.h"
#include "random_state.h"

#define ILLEGAL_ONE_IN 20    /* instructions whose random fields are kept although they make another one, or none */
#define RANDOM_BYTES_ONE_IN 5
#define CODE_START 0x800

/* ---- bytes ---- */

struct maker {
    struct insn_case *c;
    struct rng *r;
    int n; /* bytes so far */
};

static void put(struct maker *m, u8 byte)
{
    if (m->n < INSN_MAX)
        m->c->bytes[m->n++] = byte;
}

/* Prefixes that are legal but pointless, or not legal. */
static void put_decoration(struct maker *m)
{
    static const u8 prefixes[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65, 0x66, 0x67, 0x64, 0x65, 0xf0};

    if (!one_in(m->r, 4))
        return;
    do {
        if (m->c->code_size == 8 && one_in(m->r, 24))
            put(m, (u8)(0x40 | (rnd(m->r) & 15))); /* a REX prefix that does not count */
        put(m, prefixes[below(m->r, ARRAY_SIZE(prefixes))]);
    } while (one_in(m->r, 4));
}

static void put_rex(struct maker *m, const struct insn_template *t)
{
    if (m->c->code_size != 8)
        return;
    if (t->rex)
        put(m, (u8)(0x48 | (rnd(m->r) & 7)));
    else if (one_in(m->r, 2))
        put(m, (u8)(0x40 | (rnd(m->r) & (one_in(m->r, 6) ? 15 : 7))));
}

static void put_vex(struct maker *m, const u8 *from, bool free_vvvv)
{
    u8 rxb = (u8)(rnd(m->r) & 0xe0), last = from[2];

    if (m->c->code_size != 8)
        rxb |= 0xc0; /* or it would be LES or LDS */
    if (free_vvvv)
        last = (u8)((last & 0x87) | (rnd(m->r) & 0x78));
    if (m->c->code_size != 8 && !one_in(m->r, 8))
        last |= 0x40;
    if (one_in(m->r, 32))
        last ^= (u8)(one_in(m->r, 2) ? 4 : 0x80);
    if ((from[1] & 31) == 1 && !(last & 0x80) && one_in(m->r, 2)) { /* the two-byte form */
        put(m, 0xc5);
        put(m, (u8)((rxb & 0x80) | (last & 0x7f) | (m->c->code_size != 8 ? 0xc0 : 0)));
        return;
    }
    put(m, 0xc4);
    put(m, (u8)((from[1] & 31) | rxb));
    put(m, last);
}

static void put_evex(struct maker *m, const u8 *from, bool free_vvvv)
{
    u64 random = rnd(m->r);
    u8 p0 = (u8)((from[1] & 0x0f) | (random & 0xf0)), p1 = from[2], p2 = from[3];

    if (m->c->code_size != 8)
        p0 |= 0xc0; /* or it would be BOUND */
    if (free_vvvv) {
        p1 = (u8)((p1 & 0x87) | (random >> 8 & 0x78));
        p2 = (u8)((p2 & 0x60) | (random >> 16 & 0x9f)); /* z, b, V', aaa */
        if (!one_in(m->r, 3))
            p2 &= 0xef;
        if (!one_in(m->r, 3))
            p2 &= 0x7f;
        if (one_in(m->r, 4))
            p2 ^= (u8)(random >> 24 & 0x60); /* vector length */
        if (m->c->code_size != 8 && !one_in(m->r, 8))
            p1 |= 0x40, p2 |= 8;
    } else if (one_in(m->r, 2)) {
        p2 = (u8)((p2 & 0xf8) | (random >> 32 & 7));
    }
    put(m, 0x62);
    put(m, p0);
    put(m, p1);
    put(m, p2);
}

/* reg may be part of the opcode, and so may rm of register forms. */
static u8 random_modrm(struct maker *m, const struct insn_template *t, bool free)
{
    u8 modrm = t->bytes[t->modrm];

    if (free)
        modrm = (u8)((modrm & 0xc0) | (rnd(m->r) & 0x3f));
    if (!t->memory)
        return modrm;
    if (free && t->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY && (modrm & 7) != 4 && one_in(m->r, 2))
        modrm = (u8)((modrm & ~7) | 4);
    return (u8)((modrm & 0x3f) | below(m->r, 3) << 6);
}

/* How much of the template is left as it is, from nothing that can be free to all that can be fixed. */
enum { FREE, FIXED_MODRM, FIXED_ALL, LEVELS };

static void put_template(struct maker *m, const struct insn_template *t, int level)
{
    int at = t->prefixes, end = t->modrm ? t->modrm : t->len;

    m->n = 0;
    if (level < FIXED_ALL)
        put_decoration(m);
    for (int n = 0; n < t->prefixes; n++)
        put(m, t->bytes[n]);
    if (t->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY) {
        put_rex(m, t);
        at += t->rex;
    } else if (t->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
        put_vex(m, t->bytes + at, level < FIXED_ALL);
        at += 3;
    } else if (t->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX) {
        put_evex(m, t->bytes + at, level < FIXED_ALL);
        at += 4;
    }
    while (at < end)
        put(m, t->bytes[at++]);
    if (t->modrm)
        put(m, random_modrm(m, t, level < FIXED_MODRM));
    while (m->n < INSN_MAX)
        put(m, (u8)rnd(m->r));
}

static void from_catalogue(const struct generator *g, struct maker *m, u32 mnemonic, struct decoded *d)
{
    u32 first = g->catalogue->first[mnemonic], count = g->catalogue->first[mnemonic + 1] - first;
    const struct insn_template *t = &g->catalogue->of[first + below(m->r, count)];

    for (int level = FREE; level < LEVELS; level++) {
        put_template(m, t, level);
        case_decode(m->c, d);
        if (d->valid && d->zi.mnemonic == mnemonic)
            return;
        if (level == FREE && !g->only && one_in(m->r, ILLEGAL_ONE_IN))
            return;
    }
}

/* Anything with a plausible start. */
static void random_bytes(struct maker *m)
{
    int kind = (int)below(m->r, 10);

    m->n = 0;
    put_decoration(m);
    if (kind < 6) {
        if (m->c->code_size == 8 && one_in(m->r, 2))
            put(m, (u8)(0x40 | (rnd(m->r) & 15)));
        if (kind >= 2)
            put(m, 0x0f);
        if (kind >= 5)
            put(m, one_in(m->r, 2) ? 0x38 : 0x3a);
    } else if (kind < 8) {
        put(m, one_in(m->r, 3) ? 0xc5 : 0xc4);
    } else {
        put(m, 0x62);
        put(m, (u8)((rnd(m->r) & 0xf0) | (m->c->code_size == 8 ? 0 : 0xc0) | below(m->r, 8)));
        put(m, (u8)(rnd(m->r) | (one_in(m->r, 8) ? 0 : 4)));
    }
    while (m->n < INSN_MAX)
        put(m, (u8)rnd(m->r));
}

/* ---- state ---- */

static const u16 data_segments[] = {LDT_DATA16, LDT_STACK32, LDT_DATA_READONLY, LDT_EXPAND_DOWN, LDT_EXPAND_DOWN32,
                                    LDT_DATA_SHORT, LDT_DATA_BASE, LDT_DATA_TOP, LDT_CODE32};
static const u16 stack_segments[] = {LDT_DATA16, LDT_STACK32, LDT_EXPAND_DOWN, LDT_EXPAND_DOWN32, LDT_DATA_SHORT,
                                     LDT_DATA_BASE, LDT_DATA_TOP};

static void plain_segments(struct insn_case *c)
{
    u16 data = c->code_size == 8 ? 0 : c->code_size == 4 ? SEL_DATA : LDT_SELECTOR(LDT_DATA16);

    for (int n = 0; n < 6; n++)
        c->s.sel[n] = data;
    c->s.sel[SEG_SS] = c->code_size == 2 ? LDT_SELECTOR(LDT_DATA16) : SEL_DATA;
    c->s.sel[SEG_CS] = c->code_size == 8 ? SEL_CODE64 : c->code_size == 4 ? SEL_CODE32 : LDT_SELECTOR(LDT_CODE16);
    c->s.fs_base = c->s.gs_base = 0;
}

static void random_segments(struct insn_case *c, struct rng *r)
{
    plain_segments(c);
    if (c->code_size == 8) {
        c->s.fs_base = one_in(r, 4) ? rnd(r) >> (17 + below(r, 30)) : DATA_VA - below(r, 0x10000);
        c->s.gs_base = one_in(r, 4) ? (u64)(s64)(s32)rnd(r) : DATA_VA + below(r, 0x10000);
        return;
    }
    if (c->code_size == 4 && one_in(r, 8))
        c->s.sel[SEG_CS] = LDT_SELECTOR(LDT_CODE32);
    if (one_in(r, 6))
        c->s.sel[SEG_SS] = LDT_SELECTOR(stack_segments[below(r, ARRAY_SIZE(stack_segments))]);
    for (int n = 0; n < 6; n++) {
        if (n == SEG_CS || n == SEG_SS || !one_in(r, n < SEG_FS ? 5 : 2))
            continue;
        c->s.sel[n] = one_in(r, 12) ? 0 : LDT_SELECTOR(data_segments[below(r, ARRAY_SIZE(data_segments))]);
    }
}

static u64 random_flags(struct rng *r)
{
    u64 flags = 0x202 | (rnd(r) & FLAGS_ARITH);

    if (one_in(r, 4))
        flags |= FLAG_DF;
    if (one_in(r, 12))
        flags |= FLAG_AC;
    if (one_in(r, 24))
        flags |= rnd(r) & (FLAG_NT | FLAG_ID);
    return flags;
}

/* Mostly in the middle; sometimes over the edge of a page, or of the last one. */
static u64 random_start(const struct insn_case *c, struct rng *r)
{
    u64 va = CODE_VA + CODE_START;

    switch (below(r, 12)) {
    case 0: va = CODE_VA + 0x1000 - below(r, 15); break;
    case 1: va = CODE_VA + CODE_SIZE - 1 - below(r, 15); break;
    default: break;
    }
    return va - (c->code_size == 8 ? 0 : layout_base(c->s.sel[SEG_CS]));
}

/* The same in all cases, so that making it costs nothing; what operands hit is random. */
static const u8 *data_pattern(void)
{
    static u64 data[DATA_SIZE / 8];
    struct rng r = rng_for(0, 0);

    if (!data[0])
        for (size_t n = 0; n < DATA_WRITABLE / 8; n++)
            data[n] = random_lanes(&r) | !n;
    return (const u8 *)data;
}

void generate_state(const struct generator *g, struct rng *r, struct insn_case *c)
{
    c->code_size = (u8)g->code_size;
    random_segments(c, r);
    for (int n = 0; n < 16; n++) {
        c->s.gpr[n] = random_integer(r);
        if (g->code_size != 8)
            c->s.gpr[n] = n < 8 ? c->s.gpr[n] & 0xffffffff : 0;
    }
    c->s.flags = random_flags(r);
    c->s.rip = random_start(c, r);
    random_xsave(r, g->components, c->s.xsave);
    memcpy(c->data, data_pattern(), DATA_SIZE);
}

void generate_insn(const struct generator *g, struct rng *r, struct insn_case *c, struct decoded *d)
{
    struct maker m = {.c = c, .r = r};

    if (!g->only && one_in(r, RANDOM_BYTES_ONE_IN)) {
        random_bytes(&m);
        case_decode(c, d);
    } else {
        from_catalogue(g, &m, g->wanted[below(r, g->wanted_count)], d);
    }
    c->len = d->valid ? d->zi.length : INSN_MAX;
    if (d->valid)
        operands_fit(c, d, r, g->components);
}

void generate_mnemonic(const struct generator *g, u32 mnemonic, struct rng *r, struct insn_case *c, struct decoded *d)
{
    struct maker m = {.c = c, .r = r};

    from_catalogue(g, &m, mnemonic, d);
    c->len = d->valid ? d->zi.length : INSN_MAX;
}

void generate(const struct generator *g, u64 index, struct insn_case *c, struct decoded *d)
{
    struct rng r = rng_for(g->seed, index);

    generate_state(g, &r, c);
    generate_insn(g, &r, c, d);
    for (int n = c->len; n < INSN_MAX; n++)
        c->bytes[n] = 0xcc;
}

void plain_case(int code_size, u64 components, struct insn_case *c)
{
    memset(c, 0, sizeof(*c));
    c->code_size = (u8)code_size;
    plain_segments(c);
    plain_xsave(components, c->s.xsave);
    c->s.flags = 0x202;
    c->s.gpr[RSP] = DATA_VA + 0x1800 - (code_size == 8 ? 0 : layout_base(c->s.sel[SEG_SS]));
    c->s.rip = CODE_VA + CODE_START - (code_size == 8 ? 0 : layout_base(c->s.sel[SEG_CS]));
    memset(c->bytes, 0xcc, INSN_MAX);
}

/* ---- setup ---- */

static bool named(const char *list, const char *name)
{
    size_t len = strlen(name);

    for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == len && !strncasecmp(p, name, len))
            return true;
    return false;
}

int generator_setup(struct generator *g, int code_size, u64 seed, u64 components, const char *only, struct err *e)
{
    struct catalogue *k = catalogue_create(code_size);

    *g = (struct generator){.code_size = code_size, .seed = seed, .components = components, .only = only, .catalogue = k};
    for (u32 n = 0; n < k->mnemonic_count; n++)
        if (!only || named(only, ZydisMnemonicGetString(k->mnemonics[n])))
            g->wanted[g->wanted_count++] = k->mnemonics[n];
    if (!g->wanted_count)
        return err_set(e, -EINVAL, "no instruction is called '%s' here", only);
    return 0;
}

void generator_free(struct generator *g)
{
    catalogue_free(g->catalogue);
    g->catalogue = NULL;
}
