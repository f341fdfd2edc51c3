/* A decoded instruction in the interpreter's own form: made once by cpu/decode.c from Zydis' answer, cached in blocks.
 *
 * Handlers are called with RIP already behind the instruction, c->insn pointing at it. They either complete, or raise
 * (cpu/exception.h), which does not return; until they know that nothing more can fault they change nothing. */
#ifndef CPU_INSN_H
#define CPU_INSN_H
#include "cpu/vcpu_state.h"
#include <Zydis/Zydis.h>

struct insn;
typedef void insn_fn(struct vcpu *c, const struct insn *i);

struct insn {
    insn_fn *fn;
    u64 imm;      /* immediate, sign-extended where the instruction does; second immediate in disp for ENTER and EXTRQ */
    s32 disp;     /* of the memory operand; RIP-relative forms count from the next instruction, as the manual */
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
