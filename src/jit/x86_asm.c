/* x86-64 encodings: see x86_asm.h. */
#include "jit/x86_asm.h"

void asm_byte(struct x86_asm *a, u8 byte)
{
    assert(a->len < a->size);
    a->code[a->len++] = byte;
}

void asm_bytes(struct x86_asm *a, const u8 *bytes, u32 n)
{
    for (u32 i = 0; i < n; i++)
        asm_byte(a, bytes[i]);
}

void asm_u32(struct x86_asm *a, u32 val)
{
    for (int i = 0; i < 4; i++)
        asm_byte(a, (u8)(val >> 8 * i));
}

void asm_u64(struct x86_asm *a, u64 val)
{
    asm_u32(a, (u32)val);
    asm_u32(a, (u32)(val >> 32));
}

/* Prefixes, REX and the opcode. `x` is the index register's number. */
static void asm_opcode(struct x86_asm *a, u32 opcode, int reg, int x, int b)
{
    u8 rex = (u8)(0x40 | (opcode & X86_W ? 8 : 0) | (reg >> 3 & 1) << 2 | (x >> 3 & 1) << 1 | (b >> 3 & 1));

    if (opcode & X86_LOCK)
        asm_byte(a, 0xf0);
    if (opcode & X86_66)
        asm_byte(a, 0x66);
    if (opcode & (X86_F2 | X86_F3))
        asm_byte(a, opcode & X86_F2 ? 0xf2 : 0xf3);
    if (rex != 0x40 || opcode & X86_BYTE)
        asm_byte(a, rex);
    if (opcode & X86_MAP)
        asm_byte(a, 0x0f);
    if ((opcode & X86_MAP) > X86_0F)
        asm_byte(a, (opcode & X86_MAP) == X86_0F38 ? 0x38 : 0x3a);
    asm_byte(a, (u8)opcode);
}

void asm_rr(struct x86_asm *a, u32 opcode, int reg, int rm)
{
    asm_opcode(a, opcode, reg, 0, rm);
    asm_byte(a, (u8)(0xc0 | (reg & 7) << 3 | (rm & 7)));
}

static void asm_disp(struct x86_asm *a, s32 disp, int mod)
{
    if (mod == 1)
        asm_byte(a, (u8)disp);
    else if (mod == 2)
        asm_u32(a, (u32)disp);
}

/* `mod` is for a displacement that is not zero. */
static void modrm_mem(struct x86_asm *a, int reg, struct x86_mem mem, int mod)
{
    int base = mem.base & 7;

    reg = (reg & 7) << 3;
    if (mem.base == X86_NONE) { /* SIB without a base: always a 32-bit displacement */
        asm_byte(a, (u8)(reg | 4));
        asm_byte(a, (u8)(mem.scale << 6 | (mem.index == X86_NONE ? 4 : mem.index & 7) << 3 | 5));
        asm_u32(a, (u32)mem.disp);
        return;
    }
    if (!mem.disp)
        mod = base == X86_RBP; /* RBP and R13 want a displacement */
    if (mem.index == X86_NONE && base != X86_RSP) {
        asm_byte(a, (u8)(mod << 6 | reg | base));
    } else {
        asm_byte(a, (u8)(mod << 6 | reg | 4));
        asm_byte(a, (u8)(mem.scale << 6 | (mem.index == X86_NONE ? 4 : mem.index & 7) << 3 | base));
    }
    asm_disp(a, mem.disp, mod);
}

void asm_modrm_mem(struct x86_asm *a, int reg, struct x86_mem mem)
{
    modrm_mem(a, reg, mem, mem.disp == (s8)mem.disp ? 1 : 2);
}

void asm_modrm_mem_disp32(struct x86_asm *a, int reg, struct x86_mem mem)
{
    modrm_mem(a, reg, mem, 2);
}

void asm_segment(struct x86_asm *a, struct x86_mem mem)
{
    if (mem.gs)
        asm_byte(a, 0x65);
}

void asm_rm(struct x86_asm *a, u32 opcode, int reg, struct x86_mem mem)
{
    asm_segment(a, mem);
    asm_opcode(a, opcode, reg, mem.index == X86_NONE ? 0 : mem.index, mem.base == X86_NONE ? 0 : mem.base);
    asm_modrm_mem(a, reg, mem);
}

void asm_ri(struct x86_asm *a, u32 opcode, int reg, s32 imm)
{
    bool is_short = imm == (s8)imm;

    asm_rr(a, (opcode & ~0xffu) | (is_short ? 0x83 : 0x81), (int)(opcode >> 3 & 7), reg);
    if (is_short)
        asm_byte(a, (u8)imm);
    else
        asm_u32(a, (u32)imm);
}

void asm_mov_imm64(struct x86_asm *a, int reg, u64 val)
{
    asm_byte(a, (u8)(0x48 | reg >> 3));
    asm_byte(a, (u8)(0xb8 | (reg & 7)));
    asm_u64(a, val);
}

void asm_rorx(struct x86_asm *a, int to, int from, int count, bool wide)
{
    asm_code(a, 0xc4, (u8)(0x43 | (to < 8) << 7 | (from < 8) << 5), (u8)(0x7b | wide << 7), 0xf0,
             (u8)(0xc0 | (to & 7) << 3 | (from & 7)), (u8)count);
}

void asm_load(struct x86_asm *a, int reg, int base, s32 disp, int size)
{
    asm_rm(a, size == 2 ? X86_MOVZX16 : size == 4 ? X86_LOAD : X86_LOAD | X86_W, reg, X86_AT(base, disp));
}

void asm_store(struct x86_asm *a, int reg, int base, s32 disp, int size)
{
    asm_rm(a, X86_STORE | (size == 2 ? X86_66 : size == 8 ? X86_W : 0), reg, X86_AT(base, disp));
}

void asm_link(struct x86_asm *a, u32 at, const u8 *to)
{
    s64 distance = to - (a->exec + at + 4);
    s32 rel = (s32)distance;

    assert(rel == distance);
    for (int i = 0; i < 4; i++)
        a->code[at + (u32)i] = (u8)((u32)rel >> 8 * i);
}

static u32 asm_rel32(struct x86_asm *a, const u8 *to)
{
    u32 at = a->len;

    asm_u32(a, 0);
    if (to)
        asm_link(a, at, to);
    return at;
}

u32 asm_jmp(struct x86_asm *a, const u8 *to)
{
    asm_byte(a, 0xe9);
    return asm_rel32(a, to);
}

u32 asm_jcc(struct x86_asm *a, int cond, const u8 *to)
{
    asm_code(a, 0x0f, (u8)(0x80 | cond));
    return asm_rel32(a, to);
}

u32 asm_call(struct x86_asm *a, const u8 *to)
{
    asm_byte(a, 0xe8);
    return asm_rel32(a, to);
}

void asm_push(struct x86_asm *a, int reg)
{
    if (reg >= 8)
        asm_byte(a, 0x41);
    asm_byte(a, (u8)(0x50 | (reg & 7)));
}

void asm_pop(struct x86_asm *a, int reg)
{
    if (reg >= 8)
        asm_byte(a, 0x41);
    asm_byte(a, (u8)(0x58 | (reg & 7)));
}

void asm_ret(struct x86_asm *a)
{
    asm_byte(a, 0xc3);
}
