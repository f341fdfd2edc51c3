/* x86-64 encodings: see x86_asm.h. */
#include "jit/x86_asm.h"

/* What follows writes at `p` and returns where it goes on. Bytes that depend on something are always written, and passed or not: cheaper than
 * to foresee whether. */
static inline u8 *put(u8 *p, u8 byte, bool wanted)
{
    *p = byte;
    return p + wanted;
}

/* Prefixes, REX and the opcode. `x` is the index register's number. */
static inline u8 *put_opcode(u8 *p, u32 opcode, int reg, int x, int b)
{
    u8 rex = (u8)(0x40 | (opcode & X86_W ? 8 : 0) | (reg >> 3 & 1) << 2 | (x >> 3 & 1) << 1 | (b >> 3 & 1));

    p = put(p, 0xf0, opcode & X86_LOCK);
    p = put(p, 0x66, opcode & X86_66);
    p = put(p, opcode & X86_F2 ? 0xf2 : 0xf3, opcode & (X86_F2 | X86_F3));
    p = put(p, rex, rex != 0x40 || opcode & X86_BYTE);
    p = put(p, 0x0f, opcode & X86_MAP);
    p = put(p, (opcode & X86_MAP) == X86_0F38 ? 0x38 : 0x3a, (opcode & X86_MAP) > X86_0F);
    *p++ = (u8)opcode;
    return p;
}

static inline u8 *put_u32(u8 *p, u32 val)
{
    *(u32_any *)p = val;
    return p + 4;
}

/* `mod` is for a displacement that is not zero. */
static inline u8 *put_modrm(u8 *p, int reg, struct x86_mem mem, int mod)
{
    int base = mem.base & 7;
    bool sib = mem.index != X86_NONE || base == X86_RSP;

    reg = (reg & 7) << 3;
    if (unlikely(mem.base == X86_NONE)) { /* SIB without a base: always a 32-bit displacement */
        *p++ = (u8)(reg | 4);
        *p++ = (u8)(mem.scale << 6 | (mem.index == X86_NONE ? 4 : mem.index & 7) << 3 | 5);
        return put_u32(p, (u32)mem.disp);
    }
    if (!mem.disp)
        mod = base == X86_RBP; /* RBP and R13 want a displacement */
    *p++ = (u8)(mod << 6 | reg | (sib ? X86_RSP : base));
    p = put(p, (u8)(mem.scale << 6 | (mem.index == X86_NONE ? 4 : mem.index & 7) << 3 | base), sib);
    *(u32_any *)p = (u32)mem.disp;
    return p + (mod * mod); /* 0, 1, 4 bytes of it */
}

static int mod_for(s32 disp)
{
    return disp == (s8)disp ? 1 : 2;
}

void asm_rr(struct x86_asm *a, u32 opcode, int reg, int rm)
{
    u8 *p = put_opcode(asm_begin(a), opcode, reg, 0, rm);

    *p++ = (u8)(0xc0 | (reg & 7) << 3 | (rm & 7));
    asm_end(a, p);
}

void asm_modrm_mem(struct x86_asm *a, int reg, struct x86_mem mem)
{
    asm_end(a, put_modrm(asm_begin(a), reg, mem, mod_for(mem.disp)));
}

void asm_modrm_mem_disp32(struct x86_asm *a, int reg, struct x86_mem mem)
{
    asm_end(a, put_modrm(asm_begin(a), reg, mem, 2));
}

void asm_segment(struct x86_asm *a, struct x86_mem mem)
{
    asm_end(a, put(asm_begin(a), 0x65, mem.gs));
}

void asm_rm(struct x86_asm *a, u32 opcode, int reg, struct x86_mem mem)
{
    u8 *p = put(asm_begin(a), 0x65, mem.gs);

    p = put_opcode(p, opcode, reg, mem.index == X86_NONE ? 0 : mem.index, mem.base == X86_NONE ? 0 : mem.base);
    asm_end(a, put_modrm(p, reg, mem, mod_for(mem.disp)));
}

void asm_ri(struct x86_asm *a, u32 opcode, int reg, s32 imm)
{
    bool is_short = imm == (s8)imm;
    u8 *p = put_opcode(asm_begin(a), (opcode & ~0xffu) | (is_short ? 0x83 : 0x81), 0, 0, reg);

    *p++ = (u8)(0xc0 | (opcode & 0x38) | (reg & 7));
    *(u32_any *)p = (u32)imm;
    asm_end(a, p + (is_short ? 1 : 4));
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
    *(u32_any *)(a->code + at) = (u32)rel;
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
