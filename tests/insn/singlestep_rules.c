/* Rules of singlestep_rules.h. 8086 Family User's Manual; 80286 Programmer's Reference Manual app. C ("8086/8088
 * compatibility"); SDM vol. 3 ch. 22. */
#include "singlestep_rules.h"

const char *const old_rule_text[OLD_RULES] = {
    [OLD_SAME] = "the same",
    [OLD_REDEFINED] = "opcode redefined since",
    [OLD_X87] = "coprocessor instruction without a coprocessor",
    [OLD_WRAP] = "operand wraps at the segment's end",
    [OLD_LENGTH] = "longer than ten bytes",
    [OLD_LOCK] = "a fault under LOCK",
    [OLD_DIVIDE] = "a quotient at the divider's limit",
    [OLD_DECIMAL] = "decimal adjustment with AF beyond the digits",
    [OLD_RESTART] = "registers advanced before a fault",
    [OLD_OVERLAP] = "shift of its own code",
    [OLD_RECORDING] = "vectors in doubt",
};

static bool is_prefix(u8 b)
{
    return b == 0x26 || b == 0x2e || b == 0x36 || b == 0x3e || b == 0xf0 || b == 0xf2 || b == 0xf3;
}

void old_insn_decode(const struct moo_test *t, struct old_insn *i)
{
    int n = 0;

    *i = (struct old_insn){0};
    for (; n < t->len - 1 && is_prefix(t->bytes[n]); n++) {
        i->rep |= t->bytes[n] >= 0xf2;
        i->lock |= t->bytes[n] == 0xf0;
    }
    i->prefixes = n;
    i->opcode = t->bytes[n];
    if (n + 1 < t->len) {
        i->mod = t->bytes[n + 1] >> 6;
        i->reg = t->bytes[n + 1] >> 3 & 7;
    }
}

static bool is_shift(const struct old_insn *i)
{
    return (i->opcode & 0xfe) == 0xc0 || (i->opcode & 0xfc) == 0xd0;
}

static bool is_group3(const struct old_insn *i)
{
    return (i->opcode & 0xfe) == 0xf6;
}

static bool is_divide(const struct old_insn *i)
{
    return (is_group3(i) && i->reg >= 6) || i->opcode == 0xd4;
}

static u16 shift_flags_undefined(const struct old_insn *i)
{
    u16 flags = i->count == 1 ? 0 : FLAG_OF;

    if (!i->count)
        return 0;
    if (i->reg >= 4)
        flags |= FLAG_AF;
    if ((i->reg & 6) == 4 && i->count > (i->opcode & 1 ? 16 : 8))
        flags |= FLAG_CF;
    return flags;
}

static bool is_logical(const struct old_insn *i)
{
    u8 op = i->opcode;

    if (op < 0x40)
        return (op & 7) < 6 && (op >> 3 == 1 || op >> 3 == 4 || op >> 3 == 6);
    if ((op & 0xfc) == 0x80)
        return i->reg == 1 || i->reg == 4 || i->reg == 6;
    return (op & 0xfe) == 0x84 || (op & 0xfe) == 0xa8 || (is_group3(i) && i->reg < 2);
}

u16 old_flags_undefined(const struct old_insn *i, const struct moo_test *t)
{
    if (is_shift(i))
        return shift_flags_undefined(i);
    if (is_logical(i))
        return FLAG_AF;
    if (is_divide(i) && i->opcode != 0xd4)
        return FLAGS_ARITH;
    if ((is_group3(i) && i->reg >= 4) || i->opcode == 0x69 || i->opcode == 0x6b)
        return FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF;
    switch (i->opcode) {
    case 0x27:
    case 0x2f: return FLAG_OF;
    case 0x37:
    case 0x3f: return FLAG_OF | FLAG_SF | FLAG_ZF | FLAG_PF;
    case 0xd4: return t->bytes[t->len - 1] ? FLAG_OF | FLAG_AF | FLAG_CF : FLAGS_ARITH;
    case 0xd5: return FLAG_OF | FLAG_AF | FLAG_CF;
    default: return 0;
    }
}

u32 old_address(u16 seg, u32 at, bool i8086)
{
    return (seg * 16u + (u16)at) & (i8086 ? 0xfffff : 0xffffff);
}

static struct moo_byte *ram_find(struct moo_state *s, u32 addr)
{
    for (int n = 0; n < s->ram_count; n++)
        if (s->ram[n].addr == addr)
            return &s->ram[n];
    return NULL;
}

static void ram_change(struct moo_state *s, u32 addr, u8 val)
{
    struct moo_byte *b = ram_find(s, addr);

    if (!b && s->ram_count < MOO_RAM_MAX)
        b = &s->ram[s->ram_count++];
    if (b)
        *b = (struct moo_byte){addr, val};
}

static void code_change(struct moo_test *t, int at, u8 val, bool i8086)
{
    u32 addr = old_address(t->before.reg[MOO_CS], t->before.reg[MOO_IP] + (u32)at, i8086);

    t->bytes[at] = val;
    ram_change(&t->before, addr, val);
    ram_change(&t->after, addr, val);
}

/* The 8086 decodes opcodes in part: many have a second number. */
static u8 opcode_8086(u8 opcode)
{
    if ((opcode & 0xf0) == 0x60)
        return opcode | 0x10;
    return (opcode & 0xf6) == 0xc0 ? opcode | 2 : opcode;
}

/* The same of ModRM's middle field. */
static u8 reg_8086(const struct old_insn *i)
{
    switch (i->opcode) {
    case 0x8c:
    case 0x8e: return i->reg & 3;
    case 0x8f:
    case 0xc6:
    case 0xc7: return 0;
    case 0xff: return i->reg == 7 ? 6 : i->reg;
    default: return i->reg;
    }
}

/* A count below 32 with the same effect. The rotates through carry go round in 9 or 17 steps. */
static u8 shift_count(const struct old_insn *i)
{
    u8 bits = i->opcode & 1 ? 16 : 8;

    if (i->reg == 2 || i->reg == 3)
        return i->count % (bits + 1);
    if (i->reg < 2)
        return (u8)(i->count % bits + bits); /* not 0, which would leave the flags alone */
    return 31;
}

/* Whether the instruction's own bytes, or the one behind them, are what it changes. */
static bool code_changes(struct moo_test *t)
{
    for (int n = 0; n <= t->len; n++) {
        u32 addr = old_address(t->before.reg[MOO_CS], t->before.reg[MOO_IP] + (u32)n, true);
        const struct moo_byte *before = ram_find(&t->before, addr), *after = ram_find(&t->after, addr);

        if (before && after && before->val != after->val)
            return true;
    }
    return false;
}

/* A shift by CL becomes one by an immediate count, which stands where the next instruction was. */
static void long_shift_translate(struct old_insn *i, struct moo_test *t)
{
    i->overlap = code_changes(t);
    code_change(t, i->prefixes, (u8)(0xc0 | (i->opcode & 1)), true);
    code_change(t, t->len++, shift_count(i), true);
    t->after.reg[MOO_IP]++;
}

void old_test_translate(struct old_insn *i, struct moo_test *t, bool i8086)
{
    u8 reg = reg_8086(i), opcode = opcode_8086(i->opcode);

    if (!i8086)
        t->len--; /* the HLT behind */
    if (i8086 && opcode != i->opcode)
        code_change(t, i->prefixes, i->opcode = opcode, true);
    if (i8086 && reg != i->reg)
        code_change(t, i->prefixes + 1, (u8)((t->bytes[i->prefixes + 1] & 0xc7) | (i->reg = reg) << 3), true);
    if (!is_shift(i))
        return;
    i->count = i->opcode < 0xd0 ? t->bytes[t->len - 1] : i->opcode < 0xd2 ? 1 : (u8)t->before.reg[MOO_CX];
    if (i8086 && i->count > 31)
        long_shift_translate(i, t);
}

bool old_lock_drop(const struct old_insn *i, struct moo_test *t)
{
    u8 others[sizeof(t->bytes)];
    int locks = 0, count = 0;

    if (!i->lock)
        return false;
    for (int n = 0; n < i->prefixes; n++)
        if (t->bytes[n] != 0xf0)
            others[count++] = t->bytes[n];
    locks = i->prefixes - count;
    for (int n = 0; n < i->prefixes; n++)
        code_change(t, n, n < locks ? 0xf0 : others[n - locks], false);
    t->before.reg[MOO_IP] += (u16)locks;
    return true;
}

/* The word at the top of the old processor's stack. */
static void stack_top_change(struct moo_test *t, u16 val, bool i8086)
{
    ram_change(&t->after, old_address(t->after.reg[MOO_SS], t->after.reg[MOO_SP], i8086), (u8)val);
    ram_change(&t->after, old_address(t->after.reg[MOO_SS], t->after.reg[MOO_SP] + 1u, i8086), (u8)(val >> 8));
}

static bool pushes_sp(const struct old_insn *i, const struct moo_test *t)
{
    return i->opcode == 0x54 || (i->opcode == 0xff && i->mod == 3 && (t->bytes[i->prefixes + 1] & 0x37) == 0x34);
}

/* AL + 6 may carry into AH on the 80286 and later; on the 8086 AH counts by itself. */
static void ascii_adjust(const struct old_insn *i, struct moo_test *t)
{
    u16 ax = t->before.reg[MOO_AX];

    if ((ax & 15) <= 9 && !(t->before.reg[MOO_FLAGS] & FLAG_AF))
        return;
    ax = (u16)(i->opcode == 0x37 ? ax + 0x106 : ax - 0x106);
    t->after.reg[MOO_AX] = ax & 0xff0f;
}

static bool is_idiv(const struct old_insn *i)
{
    return is_group3(i) && i->reg == 7;
}

/* REP before IDIV negates the quotient. */
static void quotient_negate(const struct old_insn *i, struct moo_test *t)
{
    u16 *ax = &t->after.reg[MOO_AX];

    *ax = i->opcode & 1 ? (u16)-*ax : (u16)((*ax & 0xff00) | (u8)-*ax);
}

void old_result_translate(const struct old_insn *i, struct moo_test *t, bool i8086, int vector)
{
    if (!i8086)
        return;
    if (pushes_sp(i, t))
        stack_top_change(t, t->before.reg[MOO_SP], true);
    if (vector == EXC_DE)
        stack_top_change(t, t->before.reg[MOO_IP], true);
    if (i->opcode == 0x37 || i->opcode == 0x3f)
        ascii_adjust(i, t);
    if (is_idiv(i) && i->rep && vector < 0)
        quotient_negate(i, t);
}

/* Both ends of a segment were touched. */
static bool wraps(const struct moo_test *t, bool i8086)
{
    struct moo_test both = *t;

    for (int n = MOO_CS; n <= MOO_ES; n++) {
        u32 first = old_address(t->before.reg[n], 0, i8086), last = old_address(t->before.reg[n], 0xffff, i8086);

        if ((ram_find(&both.before, first) || ram_find(&both.after, first)) &&
            (ram_find(&both.before, last) || ram_find(&both.after, last)))
            return true;
    }
    return false;
}

static bool quotient_limit(const struct old_insn *i, const struct moo_test *t, const struct new_result *r)
{
    u16 ax = r->vector < 0 ? r->reg[MOO_AX] : t->after.reg[MOO_AX];

    return is_idiv(i) && (i->opcode & 1 ? ax == 0x8000 : (ax & 0xff) == 0x80);
}

/* The word above the return offset is CS in all frames but these. */
static bool frame_doubtful(const struct moo_test *t)
{
    struct moo_state after = t->after;
    u16 ss = after.reg[MOO_SS], at = after.reg[MOO_SP] + 2;
    const struct moo_byte *low = ram_find(&after, old_address(ss, at, false)),
                          *high = ram_find(&after, old_address(ss, at + 1u, false));

    return low && high && (low->val | high->val << 8) == ss && ss != t->before.reg[MOO_CS];
}

static bool decimal_between(const struct old_insn *i, const struct moo_test *t)
{
    u8 al = (u8)t->before.reg[MOO_AX];

    return (i->opcode == 0x27 || i->opcode == 0x2f) && t->before.reg[MOO_FLAGS] & FLAG_AF &&
           ((al >= 0x9a && al <= 0x9f) || (i->opcode == 0x2f && al < 6));
}

static bool restarts(const struct old_insn *i)
{
    u8 op = i->opcode;

    return op == 0x8f || (op & 0xfc) == 0x6c || (op & 0xfc) == 0xa4 || (op >= 0xaa && op <= 0xaf);
}

static bool redefined_8086(const struct old_insn *i)
{
    switch (i->opcode) {
    case 0x8e: return i->reg == 1; /* MOV CS */
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3: return i->reg == 6; /* all ones; a second SHL since */
    default: return false;
    }
}

enum old_rule old_rule_find(const struct old_insn *i, const struct moo_test *t, bool i8086, const struct new_result *r)
{
    int vector = r->vector;

    if (i8086 ? redefined_8086(i) : (i->opcode == 0x8c || i->opcode == 0x8e) && (i->reg == 4 || i->reg == 5))
        return OLD_REDEFINED;
    if (i->overlap)
        return OLD_OVERLAP;
    if (quotient_limit(i, t, r))
        return OLD_DIVIDE;
    if (i8086 && decimal_between(i, t))
        return OLD_DECIMAL;
    if ((i->opcode & 0xf8) == 0xd8)
        return OLD_X87;
    if ((vector == EXC_GP || vector == EXC_SS) && wraps(t, i8086))
        return OLD_WRAP;
    if (vector >= 0 && i->lock)
        return OLD_LOCK;
    if (!i8086 && (t->len > 10 || (vector == EXC_UD && i->prefixes > 4))) /* undefined ones are not recorded to their end */
        return OLD_LENGTH;
    if (!i8086 && vector >= 0 && restarts(i))
        return OLD_RESTART;
    if (!i8086 && t->has_exception && frame_doubtful(t))
        return OLD_RECORDING;
    return OLD_SAME;
}
