/* A few bytes of x86-64 at a time: the encodings that generated code needs, appended to a buffer. SDM vol. 2 ch. 2.
 *
 * Knows no guest. Registers are hardware numbers (0 RAX … 15 R15). A buffer that runs over asserts: callers know how
 * much they emit. */
#ifndef JIT_X86_ASM_H
#define JIT_X86_ASM_H
#include "base/types.h"

#define X86_ASM_SIZE 192

enum { X86_RAX, X86_RCX, X86_RDX, X86_RBX, X86_RSP, X86_RBP, X86_RSI, X86_RDI };

struct x86_asm {
    u8 code[X86_ASM_SIZE];
    u32 len;
};

void asm_byte(struct x86_asm *a, u8 byte);
void asm_bytes(struct x86_asm *a, const u8 *bytes, u32 n);

/* Emits the bytes given: asm_code(a, 0x0f, 0x05). */
#define asm_code(a, ...) asm_bytes((a), (const u8[]){__VA_ARGS__}, sizeof((const u8[]){__VA_ARGS__}))

/* mov between a register and [base + disp], 2, 4 or 8 bytes; the 2-byte load zero-extends to 64 bits (movzx). `base`
 * is not RSP or R12. */
void asm_load(struct x86_asm *a, int reg, int base, s32 disp, int size);
void asm_store(struct x86_asm *a, int reg, int base, s32 disp, int size);

void asm_ret(struct x86_asm *a);

#endif
