/* Jumps, loops, calls and other groups of instructions: see seq_writer.h. */
#include "seq_writer.h"

void add_jump(struct writer *w)
{
    int target = ahead(w);
    u8 cond = (u8)below(w->r, 16);
    struct piece *p;

    if (w->scattered || one_in(w->r, 3)) {
        if (one_in(w->r, 5))
            EMIT_NEAR(w, target, 0xe9);
        else
            EMIT_NEAR(w, target, 0x0f, (u8)(0x80 | cond));
        return;
    }
    switch (below(w->r, 8)) {
    case 0: p = EMIT(w, 0xeb, 0); break;
    case 1: p = EMIT(w, (u8)(0xe0 + below(w->r, 4)), 0); break; /* LOOPNE, LOOPE, LOOP, JRCXZ */
    default: p = EMIT(w, (u8)(0x70 | cond), 0); break;
    }
    refer(p, FIX_REL8, 1, target);
    lead_any(w, p);
}

/* ECX small, and LOOP back over a few instructions that may change it: now and then without an end, which is found out. */
void add_loop_by_register(struct writer *w)
{
    struct piece *p;
    int start;

    emit_mov(w, RCX, 1 + (u32)below(w->r, 4));
    start = w->q->count;
    for (u64 n = below(w->r, 3); n; n--)
        add_insn(w, POOL_ALU);
    p = EMIT(w, 0xe2, 0);
    refer(p, FIX_REL8, 1, start);
    lead_any(w, p);
}

/* A counter in memory, a body, and a way back. */
void add_loop(struct writer *w)
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
    EMIT_NEAR(w, start, 0x0f, one_in(w->r, 2) ? 0x85 : 0x8f); /* JNZ, JG */
}

void add_call(struct writer *w)
{
    if (one_in(w->r, 3)) {
        if (one_in(w->r, 4))
            lead_operand(w, EMIT(w, 0xc2, (u8)(below(w->r, 3) * 8), 0));
        else
            lead_operand(w, EMIT(w, 0xc3));
        return;
    }
    EMIT_NEAR(w, ahead(w), 0xe8);
}

/* push imm; ret */
static void add_push_return(struct writer *w, int target)
{
    if (narrow(w) && w->words) {
        struct piece *p = EMIT(w, 0x68, 0, 0);

        p->lead = 0;
        refer(p, FIX_ADDRESS16, 1, target);
    } else {
        refer(EMIT(w, 0x68, 0, 0, 0, 0), FIX_ADDRESS, 1, target);
    }
    lead_operand(w, EMIT(w, 0xc3));
}

/* The address of a later piece in a register, on the stack or in memory, and a jump or call there. */
void add_indirect(struct writer *w)
{
    int reg = any_register(w), target = ahead(w) + 2, op = one_in(w->r, 2) ? 4 : 2;
    u32 slot = (u32)SLOTS + 8 * (u32)below(w->r, 8);
    struct piece *p;

    switch (below(w->r, 3)) {
    case 0:
        refer(emit_mov(w, reg, 0), FIX_ADDRESS, reg < 8 ? 1 : 2, target);
        for (u64 n = below(w->r, 2); n; n--)
            add_insn(w, POOL_VECTOR);
        lead_operand(w, emit_ff(w, op, reg));
        break;
    case 1:
        add_push_return(w, target);
        break;
    default:
        p = wide(w) ? EMIT(w, 0x48, 0xc7) : EMIT(w, 0xc7);
        append_absolute(w, p, 0, slot);
        append32(p, 0);
        refer(p, FIX_ADDRESS, p->len - 4, target);
        p = EMIT(w, 0xff);
        append_absolute(w, p, op, slot);
        if (narrow(w) && w->words)
            p->lead = LEAD_67;
        break;
    }
}

/* ---- other compounds ---- */

/* The address of a string to a register; it can be aimed as an operand can. */
static void emit_string_address(struct writer *w, int reg)
{
    u32 address = (u32)operand_address(w, 16, false);
    u32 base = wide(w) ? 0 : (u32)layout_base(w->q->c.s.sel[reg == RDI ? SEG_ES : SEG_DS]);
    struct piece *p = emit_mov(w, reg, address - base);

    p->operand_at = (u8)(p->len - 4);
    p->operand_size = 16;
    p->operand = address;
}

void add_string(struct writer *w)
{
    u32 count = (u32)below(w->r, one_in(w->r, 8) ? 80 : 12);

    if (!(w->kept >> RDI & 1) && !one_in(w->r, 16))
        emit_string_address(w, RDI);
    if (!(w->kept >> RSI & 1) && !one_in(w->r, 16))
        emit_string_address(w, RSI);
    emit_mov(w, RCX, count);
    add_insn(w, POOL_STRING);
}

/* Quotients that fit, mostly. */
void add_divide(struct writer *w)
{
    if (!(w->kept >> RDX & 1) && !one_in(w->r, 6))
        emit_mov(w, RDX, (u32)below(w->r, 2));
    if (!(w->kept >> RAX & 1) && !one_in(w->r, 6))
        emit_mov(w, RAX, (u32)below(w->r, 256));
    add_insn(w, POOL_DIVIDE);
}

/* A register that holds an address moves on a little. */
void add_step(struct writer *w)
{
    int reg = w->pointer[below(w->r, POINTERS)];
    u8 rex = (u8)(0x48 | reg >> 3), by = (u8)(8 * (s64)(below(w->r, 9) - 4));
    struct piece *p;

    if (one_in(w->r, 2)) { /* add, sub, … imm8 */
        p = wide(w) ? EMIT(w, rex, 0x83) : EMIT(w, 0x83);
        append(p, (const u8[]){(u8)(0xc0 | (one_in(w->r, 2) ? 0x28 : 0) | (reg & 7)), by}, 2);
        lead_operand(w, p);
    } else if ((reg & 7) != RSP) { /* lea */
        if (wide(w))
            rex |= (u8)(reg >> 3 << 2);
        p = wide(w) ? EMIT(w, rex, 0x8d) : EMIT(w, 0x8d);
        append(p, (const u8[]){(u8)(0x40 | (reg & 7) << 3 | (reg & 7)), by}, 2);
    }
}
