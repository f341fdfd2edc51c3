/* Accesses close to one another: by a register near some operand, by copies of it and by what it has moved to, by PUSH and POP; with
 * instructions in between that change registers or flags. What a translator may do once for all of them. See seq_writer.h. */
#include "seq_writer.h"

#define NEAR 40 /* bytes on both sides, for most */

/* REX, opcode, ModRM and an 8-bit displacement. */
static struct piece *emit_based(struct writer *w, u8 opcode, int reg, int base, int disp)
{
    struct piece *p = wide(w) ? EMIT(w, (u8)(0x48 | reg >> 3 << 2 | base >> 3), opcode) : EMIT(w, opcode);

    append(p, (const u8[]){(u8)(0x40 | (reg & 7) << 3 | (base & 7))}, 1);
    if ((base & 7) == RSP)
        append(p, (const u8[]){0x24}, 1);
    append(p, (const u8[]){(u8)disp}, 1);
    return p;
}

static int some_disp(struct writer *w)
{
    return one_in(w->r, 8) ? (int)below(w->r, 256) - 128 : (int)below(w->r, 2 * NEAR) - NEAR;
}

/* An address in a register: that of an operand, often close to the edge of a page. */
static void emit_base(struct writer *w, int reg)
{
    static const u32 edges[] = {0, 0x1000, 0x2000, DATA_WRITABLE, DATA_SIZE};
    u64 address = operand_address(w, 8, one_in(w->r, 2));

    if (one_in(w->r, 4))
        address = DATA_VA + edges[below(w->r, 5)] - NEAR + below(w->r, 2 * NEAR);
    emit_mov(w, reg, (u32)address);
}

static void emit_access(struct writer *w, int base)
{
    static const u8 opcodes[] = {0x8b, 0x8b, 0x89, 0x89, 0x03, 0x01, 0x3b, 0x39, 0x11, 0x13, 0x85, 0x87, 0x88, 0x8a};
    u8 opcode = opcodes[below(w->r, sizeof(opcodes))];

    if (one_in(w->r, 6))
        emit_based(w, 0xff, one_in(w->r, 2), base, some_disp(w)); /* inc, dec */
    else
        emit_based(w, opcode, one_in(w->r, 8) ? base : any_register(w), base, some_disp(w));
}

static void emit_stack(struct writer *w, int base)
{
    int reg = one_in(w->r, 3) ? base : any_register(w);
    u8 opcode = (u8)((one_in(w->r, 2) ? 0x50 : 0x58) | (reg & 7));

    if (reg < 8)
        EMIT(w, opcode);
    else
        EMIT(w, 0x41, opcode);
}

/* ADD or SUB imm8, INC or DEC, LEA. */
static void emit_move(struct writer *w, int base)
{
    u8 rex = (u8)(0x48 | base >> 3);
    struct piece *p;

    switch (below(w->r, 4)) {
    case 0:
        emit_based(w, 0x8d, base, base, some_disp(w));
        break;
    case 1:
        p = wide(w) ? EMIT(w, rex, 0xff) : EMIT(w, 0xff);
        append(p, (const u8[]){(u8)(0xc0 | (one_in(w->r, 2) ? 8 : 0) | (base & 7))}, 1);
        break;
    default:
        p = wide(w) ? EMIT(w, rex, 0x83) : EMIT(w, 0x83);
        append(p, (const u8[]){(u8)(0xc0 | (one_in(w->r, 2) ? 0x28 : 0) | (base & 7)), (u8)some_disp(w)}, 2);
        break;
    }
}

/* MOV or LEA from one to another. */
static void emit_copy(struct writer *w, int to, int from)
{
    struct piece *p;

    if (one_in(w->r, 2)) {
        emit_based(w, 0x8d, to, from, some_disp(w));
        return;
    }
    p = wide(w) ? EMIT(w, (u8)(0x48 | from >> 3 << 2 | to >> 3), 0x89) : EMIT(w, 0x89);
    append(p, (const u8[]){(u8)(0xc0 | (from & 7) << 3 | (to & 7))}, 1);
}

void add_near(struct writer *w)
{
    int base = any_register(w), copy = any_register(w);

    if (one_in(w->r, 4))
        emit_copy(w, base, RSP);
    else
        emit_base(w, base);
    emit_copy(w, copy, base);
    for (u64 n = 3 + below(w->r, 6); n; n--)
        switch (below(w->r, 16)) {
        case 0 ... 6: emit_access(w, base); break;
        case 7: emit_access(w, copy); break;
        case 8: emit_access(w, RSP); break;
        case 9: case 10: emit_stack(w, base); break;
        case 11: emit_move(w, base); break;
        case 12: emit_copy(w, copy, base); break;
        case 13: add_insn(w, POOL_FLAGS); break;
        default: add_insn(w, one_in(w->r, 4) ? POOL_GENERAL : POOL_ALU); break;
        }
}
