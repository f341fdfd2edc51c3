/* x87 errors with CR0.NE clear: FERR# and interrupt 13, port F0h and IGNNE#, as MS-DOS programs have them. SDM vol. 1 app. D. */
#include "guest32.h"

enum { NE = 0x20, VECTOR0 = 0x20, IRQ13 = 0x2d, FCW_ZERO_DIVIDE = 0x37b /* all masked but this */ };

static u32 interrupts, timer_ticks, at_eip, status;
static enum { CLEAR = 1, RELEASE = 2 } how; /* what the handler does: bits */

extern u8 divide_waits[];
CODE(32, divide_error, "fninit; fldcw (%ebx); fldz; fld1; fdivp %st, %st(1); fnstsw %ax; nop;"
                       "divide_waits: fwait; mov $1, %ecx; int3");
CODE(32, clears, "fnstsw %ax; fnclex; fldcw (%ebx); fwait; mov $1, %ecx; int3");
CODE(32, goes_on, "fwait; fld1; fldcw (%ebx); fnop; mov $2, %ecx; int3");

static void eoi(void)
{
    outb(0xa0, 0x20);
    outb(0x20, 0x20);
}

static u16 status_word(void)
{
    u16 v;

    asm volatile("fnstsw %0" : "=a"(v));
    return v;
}

static void on_irq13(struct frame *f)
{
    interrupts++;
    at_eip = f->eip;
    status = status_word();
    if (how & RELEASE)
        outb(0xf0, 0);
    if (how & CLEAR)
        asm volatile("fnclex");
    eoi();
}

static void on_timer(struct frame *f)
{
    timer_ticks++;
    at_eip = f->eip;
    asm volatile("fnclex");
    outb(0x20, 0x20);
}

static void pic_setup(u16 mask)
{
    outb(0x20, 0x11);
    outb(0x21, VECTOR0);
    outb(0x21, 4);
    outb(0x21, 1);
    outb(0xa0, 0x11);
    outb(0xa1, VECTOR0 + 8);
    outb(0xa1, 2);
    outb(0xa1, 1);
    outb(0x21, (u8)mask);
    outb(0xa1, (u8)(mask >> 8));
}

static int run(const u8 *code, u16 *fcw)
{
    struct frame f = frame_at(code, 0);

    f.eflags |= 0x200;
    f.ebx = (u32)fcw;
    interrupts = 0;
    return enter(&f);
}

static void by_interrupt(void)
{
    u16 fcw = FCW_ZERO_DIVIDE;

    how = RELEASE | CLEAR;
    check(run(divide_error, &fcw) == 3 && interrupts == 1, "a division by zero: %u interrupts", interrupts);
    check(at_eip == (u32)divide_waits || at_eip == (u32)divide_waits - 1, "before the instruction that waits: %x", at_eip);
    check((status & 0x8084) == 0x8084, "ES, B and ZE in the status word: %x", status);
    check(caught.ecx == 1, "which then goes on");
    check(run(divide_error, &fcw) == 3 && interrupts == 1, "and again");
}

/* IGNNE#: after the write, with the error still there, instructions no longer wait. */
static void ignored(void)
{
    u16 fcw = FCW_ZERO_DIVIDE;

    how = RELEASE;
    check(run(divide_error, &fcw) == 3 && interrupts == 1 && caught.ecx == 1, "FWAIT goes on with the error pending");
    check(status_word() & 0x80, "which stays: %x", status_word());
    check(run(goes_on, &fcw) == 3 && interrupts == 0 && caught.ecx == 2, "so do other instructions: %u interrupts",
          interrupts);
    check(run(clears, &fcw) == 3 && interrupts == 0 && !(status_word() & 0x80), "until FNCLEX");
    how = RELEASE | CLEAR;
    check(run(divide_error, &fcw) == 3 && interrupts == 1, "the next error interrupts again: %u", interrupts);
}

/* Until port F0h is written the request stays, so that a second error makes no new edge: the instruction waits for any other
 * interrupt. */
static void frozen(void)
{
    u16 fcw = FCW_ZERO_DIVIDE;

    how = CLEAR;
    check(run(divide_error, &fcw) == 3 && interrupts == 1, "an error whose interrupt is not released");
    pic_setup(0xdffa);
    outb(0x43, 0x34); /* again and again: the first may come before the instruction waits */
    outb(0x40, 0x00);
    outb(0x40, 0x40);
    check(run(divide_error, &fcw) == 3 && timer_ticks >= 1 && caught.ecx == 1,
          "the timer's interrupt ends the wait: %u", timer_ticks);
    check(at_eip == (u32)divide_waits || timer_ticks > 1, "at the instruction itself: %x", at_eip);
    pic_setup(0xdffb);
    outb(0xf0, 0);
}

static void native(void)
{
    u16 fcw = FCW_ZERO_DIVIDE;

    write_cr0(read_cr0() | NE);
    check(run(divide_error, &fcw) == 16 && interrupts == 0 && caught.eip == (u32)divide_waits, "CR0.NE: #MF at %x",
          caught.eip);
    asm volatile("fnclex");
}

void guest_main(void)
{
    write_cr0((read_cr0() & ~(NE | 0xcu)) | 2);
    on_interrupt(IRQ13, on_irq13);
    on_interrupt(VECTOR0, on_timer);
    pic_setup(0xdffb);
    by_interrupt();
    ignored();
    frozen();
    native();
    pic_setup(0xffff);
}
