/* A decoded instruction in the interpreter's own form: made once by cpu/decode.c from Zydis' answer, cached in blocks.
 *
 * Handlers are called with c->insn pointing at the instruction. They either complete, or raise (cpu/exception.h), which does
 * not return; until they know that nothing more can fault they change nothing.
 *
 * RIP is not kept up to date inside a block. Instructions that end a block (ends_block: all that read or write RIP) find it
 * behind themselves; the others find that of the block's first instruction, `offset` bytes before their own, and their
 * RIP-relative displacements are made to count from there. insn_rip() is right for both. */
#ifndef CPU_INSN_H
#define CPU_INSN_H
#include "cpu/vcpu_state.h"
#include <Zydis/Zydis.h>

struct insn;
typedef void insn_fn(struct vcpu *c, const struct insn *i);

struct insn {
    insn_fn *fn;
    u64 imm;      /* immediate, sign-extended where the instruction does; second immediate in disp for ENTER and EXTRQ */
    s32 disp;     /* of the memory operand; of RIP-relative forms see insn_place */
    u8 len;
    u8 opsize;    /* operand size in bytes: 1, 2, 4, 8 (16 and more for vector memory operands: see aux) */
    u8 addrsize;  /* 2, 4, 8 */
    u8 seg;       /* of the memory operand, SEG_*, override applied */
    u8 base, index; /* byte offsets in gpr[]; RZERO*8 where there is none */
    u8 scale;     /* shift: 0 to 3 */
    u8 reg;       /* ModRM.reg operand, or the register in the opcode: byte offset in gpr[]; segment, CR, DR: its number */
    u8 rm;        /* ModRM.rm when it is a register: byte offset in gpr[] */
    u8 vvvv;      /* VEX.vvvv general register: byte offset in gpr[] */
    bool mem;     /* the ModRM operand is memory */
    u8 rep;       /* 0, 0xF2, 0xF3 */
    bool lock;
    bool ends_block; /* nothing may be decoded behind it before it ran */
    u8 cond;      /* condition code 0–15 of Jcc, SETcc, CMOVcc */
    u16 mnemonic; /* ZydisMnemonic */
    u16 offset;   /* bytes from the block's first instruction to this one */
    void *aux;    /* vector instructions: their stub, see cpu/vector.h */
};

/* What Zydis found, for choosers that need more than struct insn holds. */
struct insn_source {
    const ZydisDecodedInstruction *zi;
    const ZydisDecodedOperand *op; /* zi->operand_count of them */
    const u8 *bytes;
    int code_size;
};

/* Chooses the handler and fills in what it needs; fn NULL: #UD. One for each group of mnemonics; decode.c has the table. */
typedef void insn_choose_fn(struct vcpu *c, struct insn *i, const struct insn_source *src);

/* Where the instruction under way starts. */
static inline u64 insn_rip(const struct vcpu *c, const struct insn *i)
{
    return i->ends_block ? c->s.gpr[RIP] - i->len : c->s.gpr[RIP] + i->offset;
}

/* Says where in its block an instruction is. */
static inline void insn_place(struct insn *i, u16 offset)
{
    s32 disp;

    i->offset = offset;
    if (i->base != RIP * 8 || i->ends_block)
        return;
    if (__builtin_add_overflow(i->disp, offset + i->len, &disp))
        i->ends_block = true; /* its displacement counts from behind it */
    else
        i->disp = disp;
}

/* Effective address within the segment. */
static inline u64 insn_ea(const struct vcpu *c, const struct insn *i)
{
    const char *gpr = (const char *)c->s.gpr;
    u64 ea = (u64)(s64)i->disp + *(const u64 *)(gpr + i->base) + (*(const u64 *)(gpr + i->index) << i->scale);

    if (likely(i->addrsize == 8))
        return ea;
    return i->addrsize == 4 ? (u32)ea : (u16)ea;
}

#define REG8(c, off) (*(u8 *)((char *)(c)->s.gpr + (off)))
#define REG16(c, off) (*(u16 *)((char *)(c)->s.gpr + (off)))
#define REG32(c, off) (*(u32 *)((char *)(c)->s.gpr + (off)))
#define REG64(c, off) (*(u64 *)((char *)(c)->s.gpr + (off)))

/* Register write of `size` bytes: 32-bit writes clear the upper half. */
static inline void reg_write(struct vcpu *c, int off, int size, u64 val)
{
    switch (size) {
    case 1: REG8(c, off) = (u8)val; break;
    case 2: REG16(c, off) = (u16)val; break;
    case 4: REG64(c, off) = (u32)val; break;
    default: REG64(c, off) = val; break;
    }
}
static inline u64 reg_read(const struct vcpu *c, int off, int size)
{
    switch (size) {
    case 1: return REG8(c, off);
    case 2: return REG16(c, off);
    case 4: return REG32(c, off);
    default: return REG64(c, off);
    }
}

#endif
