/* x86-64 encodings: see x86_asm.h. */
#include "jit/x86_asm.h"

void asm_byte(struct x86_asm *a, u8 byte)
{
    assert(a->len < X86_ASM_SIZE);
    a->code[a->len++] = byte;
}

void asm_bytes(struct x86_asm *a, const u8 *bytes, u32 n)
{
    for (u32 i = 0; i < n; i++)
        asm_byte(a, bytes[i]);
}

static void asm_rex(struct x86_asm *a, bool w, int reg, int base)
{
    u8 rex = (u8)(0x40 | w << 3 | (reg >> 3) << 2 | base >> 3);

    if (rex != 0x40)
        asm_byte(a, rex);
}

/* ModRM and displacement for [base + disp]. */
static void asm_modrm_disp(struct x86_asm *a, int reg, int base, s32 disp)
{
    bool is_short = disp == (s8)disp;

    assert((base & 7) != X86_RSP); /* would need a SIB byte */
    asm_byte(a, (u8)((is_short ? 0x40 : 0x80) | (reg & 7) << 3 | (base & 7)));
    for (int i = 0; i < (is_short ? 1 : 4); i++)
        asm_byte(a, (u8)((u32)disp >> 8 * i));
}

void asm_load(struct x86_asm *a, int reg, int base, s32 disp, int size)
{
    asm_rex(a, size == 8, reg, base);
    if (size == 2)
        asm_code(a, 0x0f, 0xb7);
    else
        asm_byte(a, 0x8b);
    asm_modrm_disp(a, reg, base, disp);
}

void asm_store(struct x86_asm *a, int reg, int base, s32 disp, int size)
{
    if (size == 2)
        asm_byte(a, 0x66);
    asm_rex(a, size == 8, reg, base);
    asm_byte(a, 0x89);
    asm_modrm_disp(a, reg, base, disp);
}

void asm_ret(struct x86_asm *a)
{
    asm_byte(a, 0xc3);
}
