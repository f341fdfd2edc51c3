/* The x87 opcode and data pointer in translated code.
 *
 * Processors set them where an instruction raises an unmasked exception; the next one that waits for it faults. Translated code notes at the
 * ends of blocks, and on the way to slow paths, which x87 instruction was the last, and behind each with a memory operand where that was.
 * If an exception turns out to be pending when control is back in C, it is of the instruction noted last: any other would have faulted. */
#ifndef CPU_JIT_X87_H
#define CPU_JIT_X87_H
#include "cpu/vcpu_state.h"

/* vcpu.x87_note: the opcode as in FOP, and with X87_NOTED_OPERAND the segment of the memory operand. */
enum { X87_NOTED_FOP = 0x7ff, X87_NOTED_SEG_SHIFT = 12, X87_NOTED_SEG = 7, X87_NOTED_OPERAND = 0x8000, X87_NOTED = 0x10000 };

void jit_x87_settle_slow(struct vcpu *c);

/* Whenever translated code was left. */
static inline void jit_x87_settle(struct vcpu *c)
{
    if (unlikely(c->x87_note))
        jit_x87_settle_slow(c);
}

#endif
