/* Making sequences: see seq_generate.h.
 *
 * Three registers, the stack pointer and an index keep addresses and are mostly left alone by the rest, so that most sequences run to their
 * end, and operands of several instructions share a base. Loops count in memory. Operands crowd in a few cache lines, so that what one
 * instruction writes others read; some are over the edges of pages. */
#include "seq_generate.h"

#include <string.h>

#include "cpu/decode.h"
#include "cpu/exec.h"
#include "random_state.h"

#define M(name) ZYDIS_MNEMONIC_##name
#define POINTERS 3
#define TRIES 40
#define HOT_AREA (DATA_VA + 0x1400)   /* where most operands are */
#define COUNTERS (DATA_VA + 0x2f00)   /* of loops; no operand of others is there */
#define SLOTS (DATA_VA + 0x2f80)      /* targets of indirect jumps */
#define OPERANDS_END (DATA_VA + 0x2e00)
#define STACK_WORDS 12                /* that hold the address of the end, for returns without a call */

struct writer {
    const struct seq_generator *s;
    struct rng *r;
    struct sequence *q;
    int pointer[POINTERS], index; /* general registers */
    u32 kept;                     /* bit n: register n keeps its address */
    bool scattered;               /* pieces are in several places: short jumps may not reach */
    int counters;
};

/* ---- pieces by hand ---- */

static struct piece *emit(struct writer *w, const u8 *bytes, size_t len)
{
    struct piece *p = &w->q->piece[w->q->count];

    assert(w->q->count < PIECES_MAX);
    *p = (struct piece){.len = (u8)len};
    memcpy(p->bytes, bytes, len);
    w->q->count++;
    return p;
}
#define EMIT(w, ...) emit((w), (const u8[]){__VA_ARGS__}, sizeof((const u8[]){__VA_ARGS__}))

static void append(struct piece *p, const void *bytes, size_t len)
{
    memcpy(p->bytes + p->len, bytes, len);
    p->len = (u8)(p->len + len);
}

static void append32(struct piece *p, u32 val)
{
    append(p, &val, 4);
}

static bool wide(const struct writer *w)
{
    return w->s->g.code_size == 8;
}

/* ModRM and the rest for [disp32]. */
static void append_absolute(struct writer *w, struct piece *p, int reg, u32 address)
{
    if (wide(w))
        append(p, (const u8[]){(u8)(reg << 3 | 4), 0x25}, 2);
    else
        append(p, (const u8[]){(u8)(reg << 3 | 5)}, 1);
    append32(p, address);
}

static void refer(struct piece *p, enum piece_fix fix, int at, int target)
{
    p->fix = (u8)fix;
    p->fix_at = (u8)at;
    p->target = (s16)target;
}

/* mov r32, imm32 */
static struct piece *emit_mov(struct writer *w, int reg, u32 val)
{
    struct piece *p = reg < 8 ? EMIT(w, (u8)(0xb8 + reg)) : EMIT(w, 0x41, (u8)(0xb8 + (reg & 7)));

    append32(p, val);
    return p;
}

/* An instruction with the opcode FF /op on a register. */
static struct piece *emit_ff(struct writer *w, int op, int reg)
{
    return reg < 8 ? EMIT(w, 0xff, (u8)(0xc0 | op << 3 | reg)) : EMIT(w, 0x41, 0xff, (u8)(0xc0 | op << 3 | (reg & 7)));
}

static int any_register(struct writer *w)
{
    int reg;

    do
        reg = (int)below(w->r, wide(w) ? 16 : 8);
    while (w->kept >> reg & 1);
    return reg;
}

static int ahead(struct writer *w)
{
    return w->q->count + 1 + (int)below(w->r, 6);
}

/* ---- operands ---- */

/* Where an operand of `size` bytes may be. */
static u64 operand_address(struct writer *w, u64 size, bool aligned)
{
    u64 offset = aligned && !one_in(w->r, 16) ? 0 : below(w->r, 64);

    switch (below(w->r, 64)) {
    case 0: return DATA_VA + DATA_WRITABLE + below(w->r, 0xf00 / 64) * 64; /* read-only */
    case 1: return one_in(w->r, 4) ? DATA_VA + (one_in(w->r, 2) ? DATA_SIZE : 0) - below(w->r, size + 1) : HOT_AREA;
    case 2: case 3: case 4:
        if (!aligned)
            return DATA_VA + 0x1000 * (1 + below(w->r, 2)) - below(w->r, size + 1);
        return HOT_AREA;
    case 5 ... 20: return MIN(DATA_VA + 0x200 + below(w->r, 0x2c00 / 64) * 64 + offset, OPERANDS_END);
    default: return HOT_AREA + below(w->r, 4) * 64 + offset;
    }
}

static u64 segment_base(const struct insn_case *c, ZydisRegister seg)
{
    int n = seg >= ZYDIS_REGISTER_ES && seg <= ZYDIS_REGISTER_GS ? seg - ZYDIS_REGISTER_ES : SEG_DS;

    if (c->code_size != 8)
        return layout_base(c->s.sel[n]);
    return n == SEG_FS ? c->s.fs_base : n == SEG_GS ? c->s.gs_base : 0;
}

/* How the prefixes can extend the register fields of an instruction. */
static bool extends(const struct decoded *d)
{
    return d->zi.raw.rex.offset || d->zi.attributes & ZYDIS_ATTRIB_HAS_REX || d->zi.raw.vex.size == 3 ||
           d->zi.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
}

static void extend(u8 *bytes, const struct decoded *d, bool base, bool index)
{
    u8 *p;

    if (d->zi.attributes & ZYDIS_ATTRIB_HAS_REX) {
        p = bytes + d->zi.raw.rex.offset;
        *p = (u8)((*p & ~3) | base | index << 1);
    } else if (extends(d)) {
        p = bytes + (d->zi.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ? d->zi.raw.evex.offset : d->zi.raw.vex.offset) + 1;
        *p = (u8)((*p & ~0x60) | !base << 5 | !index << 6);
    }
}

/* Makes the ModRM operand of c's instruction one with a register that holds an address and a displacement. False: that cannot be. */
static bool operand_choose(struct writer *w, struct piece *p, const ZydisDecodedOperand *mem, const struct decoded *d)
{
    const struct insn_case *c = &w->q->c;
    int modrm = d->zi.raw.modrm.offset, reg = c->bytes[modrm] & 0x38, scale = (int)below(w->r, 4);
    int base = one_in(w->r, 4) ? RSP : w->pointer[below(w->r, POINTERS)], index = one_in(w->r, 3) ? w->index : -1;
    int tail = d->zi.raw.disp.size ? d->zi.raw.disp.offset + d->zi.raw.disp.size / 8
                                   : d->zi.raw.sib.offset ? d->zi.raw.sib.offset + 1 : modrm + 1;
    bool aligned = mem->size >= 128 || one_in(w->r, 2), none = one_in(w->r, 8);
    u64 target = operand_address(w, mem->size / 8, aligned), disp;

    if (d->zi.address_width == 16 || mem->mem.type == ZYDIS_MEMOP_TYPE_VSIB || mem->mem.type == ZYDIS_MEMOP_TYPE_MIB)
        return false;
    if ((base >= 8 || index >= 8) && !extends(d))
        base = RSP, index = -1;
    disp = target - segment_base(c, mem->mem.segment);
    if (!none)
        disp -= c->s.gpr[base] + (index >= 0 ? c->s.gpr[index] << scale : 0);
    if (d->zi.address_width == 64 && disp != (u64)(s64)(s32)disp)
        return false;
    p->len = (u8)modrm;
    memcpy(p->bytes, c->bytes, (size_t)modrm);
    extend(p->bytes, d, !none && base >= 8, !none && index >= 8);
    if (none && wide(w) && one_in(w->r, 2) && mem->mem.segment != ZYDIS_REGISTER_FS && mem->mem.segment != ZYDIS_REGISTER_GS && d->zi.address_width == 64) {
        append(p, (const u8[]){(u8)(reg | 5)}, 1);
        refer(p, FIX_DATA, p->len, 0);
        p->plus = (u32)target;
    } else if (none && wide(w)) {
        append(p, (const u8[]){(u8)(reg | 4), 0x25}, 2);
    } else if (none) {
        append(p, (const u8[]){(u8)(reg | 5)}, 1);
    } else if (index >= 0 || (base & 7) == RSP) {
        append(p, (const u8[]){(u8)(0x80 | reg | 4), (u8)(scale << 6 | (index >= 0 ? index & 7 : 4) << 3 | (base & 7))}, 2);
    } else {
        append(p, (const u8[]){(u8)(0x80 | reg | (base & 7))}, 1);
    }
    p->operand_at = p->len;
    p->operand_size = (u8)MIN(mem->size / 8u, 255u);
    p->operand = (u32)target;
    append32(p, (u32)disp);
    if (p->len + d->zi.length - tail > INSN_MAX)
        return false;
    append(p, c->bytes + tail, (size_t)(d->zi.length - tail));
    return true;
}

/* ---- instructions by mnemonic ---- */

static bool own_register_kind(const ZydisDecodedOperand *op)
{
    switch (ZydisRegisterGetClass(op->reg.value)) {
    case ZYDIS_REGCLASS_SEGMENT: case ZYDIS_REGCLASS_CONTROL: case ZYDIS_REGCLASS_DEBUG: case ZYDIS_REGCLASS_TEST: return true;
    default: return false;
    }
}

/* Registers that it writes; of the stack pointer's changes only those by name. */
static u32 registers_written(const struct decoded *d)
{
    u32 bits = 0;

    for (int n = 0; n < d->zi.operand_count; n++) {
        u8 offset;

        if (d->op[n].type != ZYDIS_OPERAND_TYPE_REGISTER || !(d->op[n].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        offset = register_offset(d->op[n].reg.value);
        if (offset < 16 * 8 && (offset / 8 != RSP || d->op[n].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT || d->zi.mnemonic == M(LEAVE) ||
                                d->zi.mnemonic == M(ENTER)))
            bits |= 1u << offset / 8;
    }
    return bits;
}

static const ZydisDecodedOperand *modrm_memory(const struct decoded *d)
{
    for (int n = 0; n < d->zi.operand_count; n++)
        if (d->op[n].type == ZYDIS_OPERAND_TYPE_MEMORY && d->op[n].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
            return &d->op[n];
    return NULL;
}

/* A bit of memory may be anywhere; most others that are elsewhere than their operand says are left out too. */
static bool strays(const struct decoded *d, const ZydisDecodedOperand *mem)
{
    switch (d->zi.mnemonic) {
    case M(BT): case M(BTS): case M(BTR): case M(BTC): return mem && d->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
    case M(XLAT): return true;
    default: return false;
    }
}

static bool left_out(const ZydisDecodedInstruction *zi)
{
    switch (zi->meta.category) {
    case ZYDIS_CATEGORY_SYSTEM: case ZYDIS_CATEGORY_INTERRUPT: case ZYDIS_CATEGORY_SYSCALL: case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_IO: case ZYDIS_CATEGORY_IOSTRINGOP: case ZYDIS_CATEGORY_SEGOP: case ZYDIS_CATEGORY_XSAVE:
    case ZYDIS_CATEGORY_XSAVEOPT: case ZYDIS_CATEGORY_RDWRFSGS: return true;
    default: break;
    }
    if (!strncmp(ZydisMnemonicGetString(zi->mnemonic), "xsave", 5) || !strncmp(ZydisMnemonicGetString(zi->mnemonic), "xrstor", 6))
        return true; /* which components are in use is the host's affair */
    switch (zi->mnemonic) { /* what always faults; what moves the stack elsewhere */
    case M(MASKMOVQ): case M(MASKMOVDQU): case M(VMASKMOVDQU): /* processors may fault for what the mask leaves out */
    case M(UD0): case M(UD1): case M(UD2): case M(CLI): case M(STI): case M(ENTER): case M(LEAVE): case M(BOUND): case M(ARPL): return true;
    default: return zi->meta.branch_type != ZYDIS_BRANCH_TYPE_NONE;
    }
}

/* Whether the instruction in c is one for sequences; then it becomes the next piece. */
static bool insn_take(struct writer *w, const struct decoded *d)
{
    struct insn_case *c = &w->q->c;
    const ZydisDecodedOperand *mem = modrm_memory(d);
    struct piece *p = &w->q->piece[w->q->count];

    if (!d->valid || left_out(&d->zi) || insn_classify(c, d) != INSN_COMPARE || insn_own_values(d) || !guest_shows(w->s->guest, c, d))
        return false;
    for (int n = 0; n < d->zi.operand_count; n++)
        if (d->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER && own_register_kind(&d->op[n]) && d->op[n].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
            return false;
    if ((registers_written(d) & w->kept && !one_in(w->r, 200)) || (strays(d, mem) && !one_in(w->r, 50)))
        return false;
    *p = (struct piece){.len = d->zi.length};
    memcpy(p->bytes, c->bytes, d->zi.length);
    if (mem && !operand_choose(w, p, mem, d))
        return false;
    w->q->count++;
    return true;
}

static void add_mnemonic(struct writer *w, u16 mnemonic)
{
    struct decoded d;

    for (int n = 0; n < TRIES; n++) {
        generate_mnemonic(&w->s->g, mnemonic, w->r, &w->q->c, &d);
        if (insn_take(w, &d))
            return;
    }
}

static void add_insn(struct writer *w, enum pool pool)
{
    add_mnemonic(w, w->s->pool[pool][below(w->r, w->s->pool_count[pool])]);
}

static void add_any(struct writer *w)
{
    static const u8 pools[] = {POOL_ALU, POOL_ALU, POOL_ALU, POOL_FLAGS, POOL_FLAGS, POOL_GENERAL, POOL_VECTOR};

    add_insn(w, pools[below(w->r, sizeof(pools))]);
}

/* ---- control ---- */

static void add_jump(struct writer *w)
{
    int target = ahead(w);
    u8 cond = (u8)below(w->r, 16);

    if (w->scattered || one_in(w->r, 3)) {
        if (one_in(w->r, 5))
            refer(EMIT(w, 0xe9, 0, 0, 0, 0), FIX_REL32, 1, target);
        else
            refer(EMIT(w, 0x0f, (u8)(0x80 | cond), 0, 0, 0, 0), FIX_REL32, 2, target);
        return;
    }
    switch (below(w->r, 8)) {
    case 0: refer(EMIT(w, 0xeb, 0), FIX_REL8, 1, target); break;
    case 1: refer(EMIT(w, (u8)(0xe0 + below(w->r, 4)), 0), FIX_REL8, 1, target); break; /* LOOPNE, LOOPE, LOOP, JRCXZ */
    default: refer(EMIT(w, (u8)(0x70 | cond), 0), FIX_REL8, 1, target); break;
    }
}

/* ECX small, and LOOP back over a few instructions that may change it: now and then without an end, which is found out. */
static void add_loop_by_register(struct writer *w)
{
    int start;

    emit_mov(w, RCX, 1 + (u32)below(w->r, 4));
    start = w->q->count;
    for (u64 n = below(w->r, 3); n; n--)
        add_insn(w, POOL_ALU);
    refer(EMIT(w, 0xe2, 0), FIX_REL8, 1, start);
}

static void add_part(struct writer *w, bool nested);

/* A counter in memory, a body, and a way back. */
static void add_loop(struct writer *w)
{
    u32 counter = (u32)COUNTERS + 16 * (u32)w->counters++;
    struct piece *p = EMIT(w, 0xc7);
    int start;

    append_absolute(w, p, 0, counter);
    append32(p, 1 + (u32)below(w->r, 4));
    start = w->q->count;
    for (u64 n = 1 + below(w->r, 5); n; n--)
        add_part(w, true);
    if (one_in(w->r, 4))
        p = EMIT(w, 0xf0, 0xff), append_absolute(w, p, 1, counter); /* lock dec */
    else
        p = EMIT(w, 0x83), append_absolute(w, p, 5, counter), append(p, (const u8[]){1}, 1); /* sub 1 */
    refer(EMIT(w, 0x0f, one_in(w->r, 2) ? 0x85 : 0x8f, 0, 0, 0, 0), FIX_REL32, 2, start); /* JNZ, JG */
}

static void add_call(struct writer *w)
{
    if (one_in(w->r, 3)) {
        if (one_in(w->r, 4))
            EMIT(w, 0xc2, (u8)(below(w->r, 3) * 8), 0);
        else
            EMIT(w, 0xc3);
        return;
    }
    refer(EMIT(w, 0xe8, 0, 0, 0, 0), FIX_REL32, 1, ahead(w));
}

/* The address of a later piece in a register, on the stack or in memory, and a jump or call there. */
static void add_indirect(struct writer *w)
{
    int reg = any_register(w), target = ahead(w) + 2, op = one_in(w->r, 2) ? 4 : 2;
    u32 slot = (u32)SLOTS + 8 * (u32)below(w->r, 8);
    struct piece *p;

    switch (below(w->r, 3)) {
    case 0:
        refer(emit_mov(w, reg, 0), FIX_ADDRESS, reg < 8 ? 1 : 2, target);
        for (u64 n = below(w->r, 2); n; n--)
            add_insn(w, POOL_VECTOR);
        emit_ff(w, op, reg);
        break;
    case 1:
        refer(EMIT(w, 0x68, 0, 0, 0, 0), FIX_ADDRESS, 1, target);
        EMIT(w, 0xc3);
        break;
    default:
        p = wide(w) ? EMIT(w, 0x48, 0xc7) : EMIT(w, 0xc7);
        append_absolute(w, p, 0, slot);
        append32(p, 0);
        refer(p, FIX_ADDRESS, p->len - 4, target);
        append_absolute(w, EMIT(w, 0xff), op, slot);
        break;
    }
}

/* ---- other compounds ---- */

static void add_string(struct writer *w)
{
    u32 count = (u32)below(w->r, one_in(w->r, 8) ? 80 : 12);

    if (!(w->kept >> RDI & 1) && !one_in(w->r, 16))
        emit_mov(w, RDI, (u32)operand_address(w, 16, false));
    if (!(w->kept >> RSI & 1) && !one_in(w->r, 16))
        emit_mov(w, RSI, (u32)operand_address(w, 16, false));
    emit_mov(w, RCX, count);
    add_insn(w, POOL_STRING);
}

/* Quotients that fit, mostly. */
static void add_divide(struct writer *w)
{
    if (!(w->kept >> RDX & 1) && !one_in(w->r, 6))
        emit_mov(w, RDX, (u32)below(w->r, 2));
    if (!(w->kept >> RAX & 1) && !one_in(w->r, 6))
        emit_mov(w, RAX, (u32)below(w->r, 256));
    add_insn(w, POOL_DIVIDE);
}

/* A register that holds an address moves on a little. */
static void add_step(struct writer *w)
{
    int reg = w->pointer[below(w->r, POINTERS)];
    u8 rex = (u8)(0x48 | reg >> 3), by = (u8)(8 * (s64)(below(w->r, 9) - 4));
    struct piece *p;

    if (one_in(w->r, 2)) { /* add, sub, … imm8 */
        p = wide(w) ? EMIT(w, rex, 0x83) : EMIT(w, 0x83);
        append(p, (const u8[]){(u8)(0xc0 | (one_in(w->r, 2) ? 0x28 : 0) | (reg & 7)), by}, 2);
    } else if ((reg & 7) != RSP) { /* lea */
        if (wide(w))
            rex |= (u8)(reg >> 3 << 2);
        p = wide(w) ? EMIT(w, rex, 0x8d) : EMIT(w, 0x8d);
        append(p, (const u8[]){(u8)(0x40 | (reg & 7) << 3 | (reg & 7)), by}, 2);
    }
}

/* ---- code that changes itself ---- */

/* An instruction worth changing; returns where a write to it has to go, and through *ret_bytes how many bytes at least. */
static int add_victim(struct writer *w, u32 *ret_bytes)
{
    int reg = any_register(w);
    struct piece *p;

    switch (below(w->r, 4)) {
    case 0:
        emit_mov(w, reg, (u32)rnd(w->r));
        *ret_bytes = 4;
        return reg < 8 ? 1 : 2;
    case 1: /* add, or, … r32, imm32 */
        p = reg < 8 ? EMIT(w, 0x81) : EMIT(w, 0x41, 0x81);
        append(p, (const u8[]){(u8)(0xc0 | below(w->r, 8) << 3 | (reg & 7))}, 1);
        append32(p, (u32)rnd(w->r));
        *ret_bytes = 4;
        return p->len - 4;
    case 2:
        refer(EMIT(w, (u8)(0x70 | below(w->r, 16)), 0), FIX_REL8, 1, w->q->count + 1 + (int)below(w->r, 3));
        *ret_bytes = 1;
        return 0;
    default:
        EMIT(w, 0xf8);
        *ret_bytes = 1;
        return 0;
    }
}

/* What may stand where one byte of a victim is. */
static u8 other_opcode(struct writer *w, const struct piece *victim)
{
    static const u8 simple[] = {0xf5, 0xf8, 0xf9, 0x90, 0x98, 0x99, 0x9f, 0xfc, 0xcc};

    if (victim->len == 2)
        return (u8)(0x70 | below(w->r, 16));
    return simple[below(w->r, sizeof(simple))];
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
    p->plus = offset + (u32)(w->s->g.code_size == 8 ? 0 : layout_base(w->q->c.s.sel[SEG_CS]));
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

static void add_change(struct writer *w)
{
    if (one_in(w->r, 2))
        add_change_ahead(w);
    else
        add_change_behind(w);
}

/* ---- the whole ---- */

static void add_part(struct writer *w, bool nested)
{
    if (w->s->smc && one_in(w->r, 4)) {
        add_change(w);
        return;
    }
    switch (below(w->r, 100)) {
    case 0 ... 29: add_insn(w, POOL_ALU); break;
    case 30 ... 47: add_insn(w, POOL_FLAGS); break;
    case 48 ... 61: add_insn(w, POOL_GENERAL); break;
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
        w->pointer[n] = any_register(w);
        w->kept |= 1u << w->pointer[n];
        c->s.gpr[w->pointer[n]] = DATA_VA + 0x400 + below(w->r, 0x2400 / 64) * 64;
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
}

static void choose_segments(struct insn_case *c, struct rng *r)
{
    if (c->code_size == 8)
        return;
    c->s.sel[SEG_SS] = SEL_DATA;
    c->s.sel[SEG_CS] = SEL_CODE32;
    c->s.sel[SEG_ES] = c->s.sel[SEG_DS] = SEL_DATA;
    if (one_in(r, 16)) /* code that is only interpreted */
        c->s.sel[SEG_CS] = LDT_SELECTOR(LDT_CODE32);
    if (one_in(r, 2))
        c->s.sel[SEG_FS] = SEL_DATA;
    if (one_in(r, 2))
        c->s.sel[SEG_GS] = SEL_DATA;
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

static void plant_stack(struct sequence *q)
{
    u32 word = q->c.code_size == 8 ? 8 : 4;
    u64 end = CODE_VA + q->at[q->count] - (q->c.code_size == 8 ? 0 : layout_base(q->c.s.sel[SEG_CS]));
    u64 at = q->c.s.gpr[RSP] - DATA_VA;

    for (u32 n = 0; n < STACK_WORDS && at + word <= DATA_WRITABLE; n++, at += word)
        memcpy(q->c.data + at, &end, word);
}

/* The first piece's address; `size` bytes of code follow there. */
static u64 choose_start(struct rng *r, u64 size)
{
    switch (below(r, 8)) {
    case 0: case 1: return 0x1000 - below(r, MIN(size, 0xf00u) + 1);
    case 2: return CODE_SIZE - MIN(size, CODE_SIZE - 1);
    default: return 0x100 + below(r, 0xe00);
    }
}

static void scatter(struct writer *w)
{
    for (int n = 0; n < 3; n++) {
        struct piece *p = &w->q->piece[below(w->r, (u64)w->q->count)];

        p->place = (u16)(one_in(w->r, 2) ? 0x1000 - below(w->r, 40) : 0x80 + below(w->r, CODE_SIZE - 0x400));
    }
}

static void start_set(struct sequence *q, u64 at)
{
    q->c.s.rip = CODE_VA + at - (q->c.code_size == 8 ? 0 : layout_base(q->c.s.sel[SEG_CS]));
}

static bool try_sequence(const struct seq_generator *s, struct rng *r, struct sequence *q)
{
    struct writer w = {.s = s, .r = r, .q = q, .scattered = one_in(r, 5)};
    int count = 3 + (int)below(r, one_in(r, 3) ? 37 : 12);

    generate_state(&s->g, r, &q->c);
    q->count = 0;
    choose_segments(&q->c, r);
    choose_control(&q->c, r);
    choose_registers(&w);
    while (q->count < count)
        add_part(&w, false);
    start_set(q, 0x100);
    if (w.scattered)
        scatter(&w);
    else if (sequence_layout(q))
        start_set(q, choose_start(r, q->at[q->count] - q->at[0]));
    if (!sequence_layout(q))
        return false;
    plant_stack(q);
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
    return q->c.s.gpr[n] - DATA_VA < DATA_SIZE || q->c.s.gpr[n] < 16;
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
    case 0: c->s.flags |= FLAG_AC; break;
    case 1:
        c->s.xsave[0] &= 0xc0;
        c->s.xsave[2] = 0;
        c->s.xsave[3] &= 0x7f;
        c->s.xsave[24] &= 0x40;
        c->s.xsave[25] &= 0xe0;
        c->s.xsave[512] |= 3;
        break;
    case 2: c->s.gpr[RSP] = DATA_VA + (one_in(r, 2) ? 0 : DATA_WRITABLE) + 4 * below(r, 8); break;
    case 3: case 4:
        if (holds_address(q, n) && c->s.gpr[n] >= 16)
            c->s.gpr[n] += 0x1000 * (below(r, 9) - 4) + (one_in(r, 2) ? below(r, 64) : 0);
        break;
    default: break;
    }
}

/* ---- setup ---- */

static enum pool general_pool(ZydisMnemonic m)
{
    switch (m) {
    case M(ADD): case M(SUB): case M(CMP): case M(AND): case M(OR): case M(XOR): case M(TEST): case M(INC): case M(DEC): case M(NEG):
    case M(NOT): case M(MOV): case M(MOVZX): case M(MOVSX): case M(LEA): case M(SHL): case M(SHR): case M(SAR): case M(PUSH): case M(POP):
    case M(IMUL): case M(XCHG): return POOL_ALU;
    case M(ADC): case M(SBB): case M(RCL): case M(RCR): case M(ROL): case M(ROR): case M(CMOVB) ... M(CMOVZ): case M(SETB) ... M(SETZ):
    case M(LAHF): case M(SAHF): case M(CMC): case M(CLC): case M(STC): case M(ADCX): case M(ADOX): case M(PUSHF): case M(PUSHFD):
    case M(PUSHFQ): return POOL_FLAGS;
    case M(DIV): case M(IDIV): return POOL_DIVIDE;
    default: return POOL_GENERAL;
    }
}

static bool uses_mmx(const struct decoded *d)
{
    for (int n = 0; n < d->zi.operand_count; n++)
        if (d->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(d->op[n].reg.value) == ZYDIS_REGCLASS_MMX)
            return true;
    return false;
}

static enum pool pool_of(const struct insn_case *c, const struct decoded *d)
{
    if (left_out(&d->zi) || insn_classify(c, d) != INSN_COMPARE || insn_own_values(d))
        return POOL_COUNT;
    if (d->zi.meta.category == ZYDIS_CATEGORY_STRINGOP)
        return POOL_STRING;
    if (choose_general(d->zi.mnemonic))
        return general_pool(d->zi.mnemonic);
    return d->zi.meta.isa_ext == ZYDIS_ISA_EXT_X87 ? POOL_X87 : uses_mmx(d) ? POOL_MMX : POOL_VECTOR;
}

static void pools_fill(struct seq_generator *s)
{
    static struct insn_case c;

    c.code_size = (u8)s->g.code_size;
    for (u32 n = 0; n < s->g.wanted_count; n++) {
        const struct insn_template *t = &s->g.catalogue->of[s->g.catalogue->first[s->g.wanted[n]]];
        struct decoded d;
        enum pool pool;

        memset(c.bytes, 0, INSN_MAX);
        memcpy(c.bytes, t->bytes, t->len);
        case_decode(&c, &d);
        pool = d.valid ? pool_of(&c, &d) : POOL_COUNT;
        if (pool < POOL_COUNT)
            s->pool[pool][s->pool_count[pool]++] = s->g.wanted[n];
    }
}

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
