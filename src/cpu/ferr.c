/* FERR# and IGNNE#: see ferr.h. The board's part is dev/irq13.c. */
#include "cpu/ferr.h"

#include "cpu/exception.h"
#include "cpu/interp.h"
#include "cpu/vcpu_trace.h"
#include "cpu/xstate.h"

#define FCW_MASKS 0x3f
#define FSW_ES 0x80
#define FSW_B 0x8000

static void ferr_set(struct vcpu *c, bool level)
{
    c->s.ferr = level;
    vcpu_trace(c, EXC, "vcpu %d: FERR# %d at %04x:%llx", c->index, level, c->s.seg_sel[SEG_CS],
               (unsigned long long)c->s.gpr[RIP]);
    ext_save(c);
    if (c->group->config.bus.ferr)
        c->group->config.bus.ferr(c->group->config.bus.ctx, level);
}

/* Control and status words of the saved image; FSW.ES and B follow from the two. */
static u16 *image_word(struct vcpu *c, int n)
{
    return (u16 *)ext_area(c) + n;
}

static void image_set(struct vcpu *c, u16 fcw)
{
    u16 *fsw = image_word(c, 1);

    *image_word(c, 0) = fcw;
    *fsw = *fsw & ~fcw & FCW_MASKS ? *fsw | FSW_ES | FSW_B : *fsw & (u16) ~(FSW_ES | FSW_B);
    *ext_xstate_bv(c) |= BIT(XCOMP_X87);
}

/* One instruction with all exceptions masked. An FLDCW among them keeps what it loads. */
static void run_ignoring(struct vcpu *c)
{
    void *jump[ARRAY_SIZE(c->fault_jump)];
    int vector;
    u16 fcw;

    ext_save(c);
    fcw = *image_word(c, 0);
    image_set(c, fcw | FCW_MASKS);
    for (size_t n = 0; n < ARRAY_SIZE(jump); n++)
        jump[n] = c->fault_jump[n];
    vector = interp_try(c);
    for (size_t n = 0; n < ARRAY_SIZE(jump); n++)
        c->fault_jump[n] = jump[n];
    ext_save(c);
    if (*image_word(c, 0) == (fcw | FCW_MASKS))
        image_set(c, fcw);
    if (vector >= 0)
        __builtin_longjmp(c->fault_jump, 1);
}

void ferr_error(struct vcpu *c)
{
    if (!c->s.ferr)
        ferr_set(c, true);
    if (__atomic_load_n(&c->group->ignne, __ATOMIC_SEQ_CST))
        run_ignoring(c);
    else
        c->s.activity = VCPU_HALTED;
}

void ferr_settle_slow(struct vcpu *c)
{
    ext_save(c);
    if (!(*image_word(c, 1) & FSW_ES))
        ferr_set(c, false);
}

void vcpu_group_ignne(struct vcpu_group *g, bool level)
{
    __atomic_store_n(&g->ignne, level, __ATOMIC_SEQ_CST);
}
