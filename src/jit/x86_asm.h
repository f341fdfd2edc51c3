/* x86-64 instructions, one at a time, appended to a buffer. SDM vol. 2 ch. 2.
 *
 * Knows no guest. Registers are hardware numbers (0 RAX … 15 R15). Opcodes are numbers as the manual's tables have them, with
 * the map, the prefix and REX.W in upper bits: X86_0F | 0xb6 is MOVZX from a byte. A buffer that runs over asserts, one in which
 * less than ASM_ROOM is left too: callers know how much they emit. */
#ifndef JIT_X86_ASM_H
#define JIT_X86_ASM_H
#include "base/types.h"

#define ASM_ROOM 24 /* bytes: one check for all that an instruction may have */

enum { X86_RAX, X86_RCX, X86_RDX, X86_RBX, X86_RSP, X86_RBP, X86_RSI, X86_RDI, X86_R8, X86_R9, X86_R10, X86_R11, X86_R12,
       X86_R13, X86_R14, X86_R15 };

enum { /* upper bits of an opcode */
    X86_0F = 0x100, X86_0F38 = 0x200, X86_0F3A = 0x300, X86_MAP = 0x300,
    X86_66 = 0x1000, X86_F2 = 0x2000, X86_F3 = 0x4000,
    X86_W = 0x10000,    /* 64-bit operands */
    X86_BYTE = 0x20000, /* byte registers: SPL, BPL, SIL, DIL rather than AH, CH, DH, BH */
    X86_LOCK = 0x40000,
};

enum { /* the usual ones, in their "register, r/m" or "r/m, register" forms */
    X86_ADD = 0x03, X86_OR = 0x0b, X86_AND = 0x23, X86_SUB = 0x2b, X86_XOR = 0x33, X86_CMP = 0x3b,
    X86_STORE = 0x89, X86_LOAD = 0x8b, X86_LEA = 0x8d, X86_STORE8 = 0x88 | X86_BYTE, X86_MOVZX8 = X86_0F | 0xb6 | X86_BYTE,
    X86_MOVZX16 = X86_0F | 0xb7,
};

enum { X86_O, X86_NO, X86_B, X86_AE, X86_E, X86_NE, X86_BE, X86_A, X86_S, X86_NS, X86_G = 15 }; /* condition codes */

struct x86_asm {
    u8 *code;      /* where the bytes go */
    u32 len, size;
    const u8 *exec; /* where code[0] will execute; only jumps and calls need it */
};

/* A memory operand: [base + index << scale + disp]; base or index X86_NONE: without. */
#define X86_NONE (-1)
struct x86_mem { /* eight bytes, so that it is passed in a register */
    s8 base, index;
    u8 scale;
    bool gs; /* relative to the base of GS */
    s32 disp;
};
#define X86_AT(base_, disp_) ((struct x86_mem){.base = (s8)(base_), .index = X86_NONE, .disp = (disp_)})

/* Where the next bytes go, ASM_ROOM of them at most; … */
static inline u8 *asm_begin(const struct x86_asm *a)
{
    assert(a->len + ASM_ROOM <= a->size);
    return a->code + a->len;
}

/* … and that those before `end` were written. */
static inline void asm_end(struct x86_asm *a, const u8 *end)
{
    a->len = (u32)(end - a->code);
}

static inline void asm_byte(struct x86_asm *a, u8 byte)
{
    *asm_begin(a) = byte;
    a->len++;
}

static inline void asm_bytes(struct x86_asm *a, const u8 *bytes, u32 n)
{
    u8 *p = asm_begin(a);

    assert(n <= ASM_ROOM);
    for (u32 i = 0; i < n; i++)
        p[i] = bytes[i];
    a->len += n;
}

static inline void asm_u32(struct x86_asm *a, u32 val)
{
    *(u32_any *)asm_begin(a) = val;
    a->len += 4;
}

static inline void asm_u64(struct x86_asm *a, u64 val)
{
    *(u64_any *)asm_begin(a) = val;
    a->len += 8;
}

/* Emits the bytes given: asm_code(a, 0x0f, 0x05). */
#define asm_code(a, ...) asm_bytes((a), (const u8[]){__VA_ARGS__}, sizeof((const u8[]){__VA_ARGS__}))

/* An instruction with a ModRM byte: ModRM.reg, and a register or memory as ModRM.rm. */
void asm_rr(struct x86_asm *a, u32 opcode, int reg, int rm);
void asm_rm(struct x86_asm *a, u32 opcode, int reg, struct x86_mem mem);

/* ADD, OR, AND, SUB, XOR, CMP of a register (opcode as above) and an immediate; 64 bits with X86_W. */
void asm_ri(struct x86_asm *a, u32 opcode, int reg, s32 imm);

/* The prefix for the operand's segment, if it needs one: first of an instruction whose opcode is the caller's. */
void asm_segment(struct x86_asm *a, struct x86_mem mem);
/* ModRM, SIB and displacement alone, after opcode bytes of the caller's. Only the low three bits of registers count. */
void asm_modrm_mem(struct x86_asm *a, int reg, struct x86_mem mem);

void asm_modrm_mem_disp32(struct x86_asm *a, int reg, struct x86_mem mem); /* EVEX scales 8-bit displacements */

void asm_mov_imm64(struct x86_asm *a, int reg, u64 val);
void asm_rorx(struct x86_asm *a, int to, int from, int count, bool wide); /* BMI2; leaves flags alone */

/* mov between a register and [base + disp], 2, 4 or 8 bytes; the 2-byte load zero-extends to 64 bits (movzx). */
void asm_load(struct x86_asm *a, int reg, int base, s32 disp, int size);
void asm_store(struct x86_asm *a, int reg, int base, s32 disp, int size);

/* Jumps and calls within 2 GiB. Each returns where its displacement is in the buffer, for asm_link later; `to` may be NULL
 * until then. */
u32 asm_jmp(struct x86_asm *a, const u8 *to);
u32 asm_jcc(struct x86_asm *a, int cond, const u8 *to);
u32 asm_call(struct x86_asm *a, const u8 *to);
void asm_link(struct x86_asm *a, u32 at, const u8 *to);

static inline const u8 *asm_here(const struct x86_asm *a)
{
    return a->exec + a->len;
}

void asm_push(struct x86_asm *a, int reg);
void asm_pop(struct x86_asm *a, int reg);
void asm_ret(struct x86_asm *a);

#endif
