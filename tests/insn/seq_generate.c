/* Making sequences: see seq_generate.h.
 *
 * Three registers, the stack pointer and an index keep addresses and are mostly left alone by the rest, so that most sequences run to their
 * end, and operands of several instructions share a base. Loops count in memory. Operands crowd in a few cache lines, so that what one
 * instruction writes others read; some are over the edges of pages. */
#include "seq_writer.h"

#include <string.h>

#include "random_state.h"

#define LONG 60 /* one sequence in so many is long */
#define REST 224 /* pieces that the other parts of a sequence have at most */
#define STACK_WORDS 12 /* that hold the address of the end, for returns without a call */
#define NARROW_BASES (1u << RBX | 1u << RBP | 1u << RSI | 1u << RDI) /* of 16-bit addresses */

void add_part(struct writer *w, bool nested)
{
    if (w->s->smc && one_in(w->r, 4)) {
        add_change(w);
        return;
    }
    if (w->s->real && one_in(w->r, 8)) {
        add_real(w);
        return;
    }
    switch (below(w->r, 100)) {
    case 0 ... 29: add_insn(w, POOL_ALU); break;
    case 30 ... 47: add_insn(w, POOL_FLAGS); break;
    case 48 ... 57: add_insn(w, POOL_GENERAL); break;
    case 58 ... 61: add_near(w); break;
    case 62 ... 75: add_insn(w, POOL_VECTOR); break;
    case 76 ... 79: add_insn(w, POOL_X87); break;
    case 80 ... 81: add_insn(w, POOL_MMX); break;
    case 82 ... 83: add_string(w); break;
    case 84: add_divide(w); break;
    case 85 ... 92: add_jump(w); break;
    case 93: add_call(w); break;
    case 94: add_indirect(w); break;
    case 95 ... 96: add_step(w); break;
    case 97:
        if (!w->scattered && !(w->kept >> RCX & 1))
            add_loop_by_register(w);
        break;
    default:
        if (!nested && w->counters < 4)
            add_loop(w);
        break;
    }
}

static void choose_registers(struct writer *w)
{
    struct insn_case *c = &w->q->c;
    u64 count = c->code_size == 8 ? 16 : 8;

    w->kept = 1u << RSP | 1u << RCX; /* for the choice */
    for (int n = 0; n < POINTERS; n++) {
        do
            w->pointer[n] = any_register(w);
        while (narrow(w) && !(NARROW_BASES >> w->pointer[n] & 1));
        w->kept |= 1u << w->pointer[n];
        c->s.gpr[w->pointer[n]] = DATA_VA + 0x400 + below(w->r, 0x2400 / 64) * 64 - data_base(w);
    }
    do
        w->index = (int)below(w->r, count);
    while (w->kept >> w->index & 1);
    w->kept |= 1u << w->index;
    w->kept &= ~(1u << RCX);
    c->s.gpr[w->index] = below(w->r, 16);
    c->s.gpr[RSP] = DATA_VA + 0x800 + below(w->r, 0x1800 / 16) * 16;
    if (one_in(w->r, 6))
        c->s.gpr[RSP] = DATA_VA + 0x1000 * (1 + below(w->r, 2)) + 8 * (below(w->r, 9) - 4);
    c->s.gpr[RSP] -= seq_stack_base(c);
    if (!wide(w))
        for (int n = 0; n < 8; n++)
            c->s.gpr[n] &= 0xffffffff;
}

u64 seq_stack_base(const struct insn_case *c)
{
    return c->code_size == 8 ? 0 : layout_base(c->s.sel[SEG_SS]);
}

static u16 one_of(struct rng *r, const u8 *segments, size_t count)
{
    return LDT_SELECTOR(segments[below(r, count)]);
}
#define ONE_OF(r, ...) one_of((r), (const u8[]){__VA_ARGS__}, sizeof((const u8[]){__VA_ARGS__}))

static u16 odd_data(struct rng *r)
{
    return ONE_OF(r, LDT_DATA16, LDT_STACK32, LDT_DATA_READONLY, LDT_DATA_SHORT, LDT_DATA_BASE, LDT_DATA_TOP, LDT_EXPAND_DOWN, LDT_EXPAND_DOWN32);
}

static void choose_segments32(struct insn_case *c, struct rng *r)
{
    c->s.sel[SEG_SS] = one_in(r, 16) ? ONE_OF(r, LDT_DATA16, LDT_STACK32) : SEL_DATA;
    c->s.sel[SEG_CS] = one_in(r, 10) ? ONE_OF(r, LDT_CODE32, LDT_CODE32_INSIDE) : SEL_CODE32;
    c->s.sel[SEG_ES] = c->s.sel[SEG_DS] = SEL_DATA;
    if (one_in(r, 2))
        c->s.sel[SEG_FS] = SEL_DATA;
    if (one_in(r, 2))
        c->s.sel[SEG_GS] = SEL_DATA;
}

static void choose_segments16(struct insn_case *c, struct rng *r)
{
    c->s.sel[SEG_CS] = LDT_SELECTOR(one_in(r, 3) ? LDT_CODE16_INSIDE : LDT_CODE16);
    c->s.sel[SEG_SS] = LDT_SELECTOR(one_in(r, 4) ? LDT_STACK32 : LDT_DATA16);
    c->s.sel[SEG_ES] = c->s.sel[SEG_DS] = LDT_SELECTOR(LDT_DATA16);
    if (one_in(r, 20))
        c->s.sel[SEG_SS] = SEL_DATA;
    if (one_in(r, 2))
        c->s.sel[SEG_FS] = odd_data(r);
    if (one_in(r, 2))
        c->s.sel[SEG_GS] = odd_data(r);
}

/* Sequences that change themselves write to code in DS. */
static void choose_segments(struct insn_case *c, struct rng *r, bool smc)
{
    if (c->code_size == 8)
        return;
    if (c->code_size == 4)
        choose_segments32(c, r);
    else
        choose_segments16(c, r);
    if (smc)
        c->s.sel[SEG_DS] = c->s.sel[SEG_ES] = SEL_DATA;
    else if (one_in(r, 10))
        c->s.sel[one_in(r, 2) ? SEG_DS : SEG_ES] = odd_data(r);
}

/* x87 and SIMD exceptions masked and none pending, or as random as they were. */
static void choose_control(struct insn_case *c, struct rng *r)
{
    if (!one_in(r, 3))
        c->s.flags &= ~(u64)(FLAG_AC | FLAG_NT);
    if (one_in(r, 8))
        return;
    c->s.xsave[0] |= 0x3f;
    c->s.xsave[2] = 0;
    c->s.xsave[3] &= 0x7f;
    c->s.xsave[24] |= 0x80;
    c->s.xsave[25] |= 0x1f;
    c->s.xsave[512] |= 3; /* x87 and SSE are in the image */
}

static void plant_stack(struct sequence *q, u32 word)
{
    u64 end = CODE_VA + q->at[q->count] - (q->c.code_size == 8 ? 0 : layout_base(q->c.s.sel[SEG_CS]));
    u64 at = q->c.s.gpr[RSP] + seq_stack_base(&q->c) - DATA_VA;

    for (u32 n = 0; n < STACK_WORDS && at + word <= DATA_WRITABLE; n++, at += word)
        memcpy(q->c.data + at, &end, word);
}

/* The first piece's address; `size` bytes of code follow there. Not before the code segment. */
static u64 choose_start(const struct insn_case *c, struct rng *r, u64 size)
{
    u64 first = c->code_size == 8 || c->s.sel[SEG_CS] == SEL_CODE32 ? 0 : layout_base(c->s.sel[SEG_CS]) - CODE_VA;

    u64 at;

    switch (below(r, 8)) {
    case 0: case 1: at = 0x1000 - below(r, MIN(size, 0xf00u) + 1); break;
    case 2: at = CODE_SIZE - MIN(size, CODE_SIZE - 1); break;
    default: at = 0x100 + below(r, 0xe00); break;
    }
    return MAX(first, at);
}

static void scatter(struct writer *w)
{
    for (int n = 0; n < 3; n++) {
        struct piece *p = &w->q->piece[below(w->r, (u64)w->q->count)];

        if (p->joined)
            continue;
        p->place = (u16)(one_in(w->r, 2) ? 0x1000 - below(w->r, 40) : 0x80 + below(w->r, CODE_SIZE - 0x400));
    }
}

static void start_set(struct sequence *q, u64 at)
{
    q->c.s.rip = CODE_VA + at - (q->c.code_size == 8 ? 0 : layout_base(q->c.s.sel[SEG_CS]));
}

/* Many instructions without a jump: longer than the blocks of any translator. */
static void add_long(struct writer *w)
{
    for (int n = 50 + (int)below(w->r, 260); n && w->q->count < PIECES_MAX - REST; n--)
        switch (below(w->r, 8)) {
        case 0: case 1: case 2: add_insn(w, POOL_ALU); break;
        case 3: add_insn(w, POOL_VECTOR); break;
        case 4: add_near(w); break;
        default: add_insn(w, POOL_FLAGS); break;
        }
}

static bool try_sequence(const struct seq_generator *s, struct rng *r, struct sequence *q)
{
    struct writer w = {.s = s, .r = r, .q = q, .scattered = one_in(r, 5), .words = !one_in(r, 3)};
    int count = 3 + (int)below(r, one_in(r, 3) ? 37 : 12);

    generate_state(&s->g, r, &q->c);
    q->count = 0;
    q->smc = s->smc;
    choose_segments(&q->c, r, s->smc);
    choose_control(&q->c, r);
    choose_registers(&w);
    if (one_in(r, LONG))
        add_long(&w);
    for (count += q->count; q->count < count;)
        add_part(&w, false);
    sequence_lead(q);
    start_set(q, 0x800);
    if (w.scattered)
        scatter(&w);
    else if (sequence_layout(q))
        start_set(q, choose_start(&q->c, r, q->at[q->count] - q->at[0]));
    if (!sequence_layout(q))
        return false;
    plant_stack(q, (u32)q->c.code_size == 2 && !w.words ? 4 : q->c.code_size);
    return true;
}

void seq_generate(const struct seq_generator *s, u64 index, struct sequence *q, struct rng *ret_r)
{
    struct rng r = rng_for(s->g.seed, index);

    while (!try_sequence(s, &r, q))
        ;
    *ret_r = r;
}

static bool holds_address(const struct sequence *q, int n)
{
    u64 base = n == RSP ? seq_stack_base(&q->c) : q->c.code_size == 8 ? 0 : layout_base(q->c.s.sel[SEG_DS]);
    u64 address = q->c.s.gpr[n] + base;

    return (q->c.code_size == 8 ? address : (u32)address) - DATA_VA < DATA_SIZE || q->c.s.gpr[n] < 16;
}

void seq_vary_state(struct sequence *q, struct rng *r)
{
    struct insn_case *c = &q->c;
    int count = c->code_size == 8 ? 16 : 8, n = (int)below(r, (u64)count);

    for (int reg = 0; reg < count; reg++)
        if (!holds_address(q, reg))
            c->s.gpr[reg] = random_integer(r) & (count == 16 ? ~0ull : 0xffffffff);
    c->s.flags ^= rnd(r) & (FLAGS_ARITH | FLAG_DF) & (one_in(r, 4) ? ~0ull : ~(u64)FLAG_DF);
    switch (below(r, 8)) {
    case 0: c->s.flags |= one_in(r, 8) ? FLAG_TF : FLAG_AC; break;
    case 1:
        c->s.xsave[0] &= 0xc0;
        c->s.xsave[2] = 0;
        c->s.xsave[3] &= 0x7f;
        c->s.xsave[24] &= 0x40;
        c->s.xsave[25] &= 0xe0;
        c->s.xsave[512] |= 3;
        break;
    case 2: c->s.gpr[RSP] = DATA_VA + (one_in(r, 2) ? 0 : DATA_WRITABLE) + 4 * below(r, 8) - seq_stack_base(c); break;
    case 3: case 4:
        if (holds_address(q, n) && c->s.gpr[n] >= 16)
            c->s.gpr[n] += 0x1000 * (below(r, 9) - 4) + (one_in(r, 2) ? below(r, 64) : 0);
        break;
    default: break;
    }
    for (int reg = 0; count == 8 && reg < count; reg++)
        c->s.gpr[reg] &= 0xffffffff;
}

/* ---- setup ---- */

int seq_generator_setup(struct seq_generator *s, int code_size, u64 seed, u64 components, struct insn_guest *guest, struct err *e)
{
    int r;

    memset(s, 0, sizeof(*s));
    r = generator_setup(&s->g, code_size, seed, components, NULL, e);
    if (r)
        return r;
    s->guest = guest;
    pools_fill(s);
    return 0;
}

void seq_generator_free(struct seq_generator *s)
{
    generator_free(&s->g);
}
