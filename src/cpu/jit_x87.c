/* See jit_x87.h. */
#include "cpu/jit_x87.h"

#define FSW_ES 0x80

static u16 status_word(const struct vcpu *c)
{
    u16 fsw;

    if (!c->ext_live)
        return (u16)(c->s.xsave[0] >> 16);
    __asm__ volatile("fnstsw %0" : "=a"(fsw));
    return fsw;
}

void jit_x87_settle_slow(struct vcpu *c)
{
    u32 note = c->x87_note;

    c->x87_note = 0;
    if (likely(!(status_word(c) & FSW_ES)))
        return;
    c->s.fop = note & X87_NOTED_FOP;
    if (!(note & X87_NOTED_OPERAND))
        return;
    c->s.fdp = c->x87_operand;
    c->s.fds = c->s.seg_sel[note >> X87_NOTED_SEG_SHIFT & X87_NOTED_SEG];
}
