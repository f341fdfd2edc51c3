/* The pair of 8259As beyond what interrupts.c asks: cascade, special fully nested mode, special mask mode, rotations,
 * automatic EOI that rotates, polls, reads, initialization, and spurious requests. Sources: the PIT (0), COM1 (4) and
 * the keyboard controller, whose commands D2 and D3 fill its output buffer as if the keyboard (1) or mouse (12) had.
 * Data sheet of the 8259A. */
#include "chips.h"

static volatile int count;
static volatile u8 order[16];
static void (*volatile in_handler)(int vector);

static void on_any(struct frame *f)
{
    if (count < 16)
        order[count] = (u8)f->vector;
    count++;
    if (in_handler)
        in_handler((int)f->vector);
}

static void init(u8 icw4, u8 master_mask, u8 slave_mask)
{
    outb(0x20, 0x11);
    outb(0x21, 0x20);
    outb(0x21, 4);
    outb(0x21, icw4);
    outb(0xa0, 0x11);
    outb(0xa1, 0x2f); /* the low bits do not count */
    outb(0xa1, 2);
    outb(0xa1, 1);
    outb(0x21, master_mask);
    outb(0xa1, slave_mask);
    count = 0;
    in_handler = 0;
}

static u8 read_register(u16 port, bool isr) { outb(port, isr ? 0x0b : 0x0a); return inb(port); }
static u8 irr(u16 port) { return read_register(port, false); }
static u8 isr(u16 port) { return read_register(port, true); }

/* What was printed must be out, or the level comes when it is. */
static void com1(bool on)
{
    while (!(inb(0x3fd) & 0x20))
        ;
    outb(0x3f9, on ? 2 : 0);
    outb(0x3fc, on ? 8 : 0);
}

static void kbc_command(u8 v)
{
    while (inb(0x64) & 2)
        ;
    outb(0x64, v);
}

static void kbc_data(u8 v)
{
    while (inb(0x64) & 2)
        ;
    outb(0x60, v);
}

static void kbc_drain(void)
{
    while (inb(0x64) & 1)
        inb(0x60);
}

/* IRQ 12, an edge at the slave; reading the byte lets the next one come. */
static void mouse(void)
{
    kbc_drain();
    kbc_command(0xd3);
    kbc_data(0x55);
}

static void keyboard(void)
{
    kbc_drain();
    kbc_command(0xd2);
    kbc_data(0x55);
}

static void pit(void)
{
    outb(0x43, 0x30);
    outb(0x40, 20);
    outb(0x40, 0);
    while (!(irr(0x20) & 1))
        ;
}

static void quiet(void)
{
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    com1(false);
    kbc_drain();
}

static void cascade(void)
{
    init(1, 0xeb, 0xef);
    mouse();
    com1(true);
    check(irr(0xa0) & 0x10 && irr(0x20) & 4, "IRQ 12 shows at the slave and as the master's pin 2: %x %x", irr(0xa0),
          irr(0x20));
    window();
    com1(false);
    check(count == 1 && order[0] == 0x2c, "IRQ 12 is before IRQ 4: %d, %x", count, order[0]);
    check(isr(0xa0) == 0x10 && isr(0x20) == 4, "both chips have it in service: %x %x", isr(0xa0), isr(0x20));
    outb(0xa0, 0x20);
    check(isr(0xa0) == 0 && isr(0x20) == 4, "each wants its own EOI");
    outb(0x20, 0x20);
    check(isr(0x20) == 0, "then nothing is in service");
    quiet();
}

/* A second request of the slave, of higher priority, while its first is in service. */
static void slave_again(int vector)
{
    if (vector != 0x2c)
        return;
    outb(0x70, 0x0c);
    inb(0x71);
    outb(0x70, 0x0b);
    u8 b = inb(0x71);
    outb(0x71, b | 0x40);
    for (u32 start = pm_timer(); pm_since(start) < PM_MS(100) && !(irr(0xa0) & 1);)
        ;
    outb(0x70, 0x0b);
    outb(0x71, b);
    window();
}

static void nested(u8 icw4, int wanted, const char *name)
{
    init(icw4, 0xfb, 0xee);
    in_handler = slave_again;
    mouse();
    window();
    in_handler = 0;
    check(count == wanted && order[0] == 0x2c && (wanted < 2 || order[1] == 0x28), "%s: %d requests taken", name,
          count);
    outb(0xa0, 0x20);
    outb(0xa0, 0x20);
    outb(0x20, 0x20);
    outb(0x20, 0x20);
    quiet();
    outb(0x70, 0x0c);
    inb(0x71);
}

static void special_mask(void)
{
    init(1, 0xee, 0xff);
    pit();
    window();
    com1(true);
    window();
    check(count == 1, "IRQ 0 in service holds IRQ 4 back");
    outb(0x21, 0xef); /* mask IRQ 0 */
    window();
    check(count == 1, "masked, it still does");
    outb(0x20, 0x68); /* special mask mode */
    window();
    check(count == 2 && order[1] == 0x24, "in special mask mode it does not: %d", count);
    outb(0x20, 0x20);
    check(isr(0x20) == 1, "a plain EOI spares what is masked: %x", isr(0x20));
    outb(0x20, 0x60);
    check(isr(0x20) == 0, "a specific one does not");
    outb(0x20, 0x48); /* and out of it */
    quiet();
}

static void two_waiting(const char *name, int first, int second)
{
    count = 0;
    outb(0x21, 0xed);
    keyboard();
    com1(true);
    in_handler = 0;
    window();
    outb(0x20, 0x20);
    window();
    outb(0x20, 0x20);
    com1(false);
    check(count == 2 && order[0] == first && order[1] == second, "%s: %x then %x", name, order[0], order[1]);
}

static void rotations(void)
{
    init(1, 0xed, 0xff);
    two_waiting("fixed priorities", 0x21, 0x24);
    outb(0x20, 0xc3); /* IRQ 3 is lowest: 4 is highest */
    two_waiting("set priority", 0x24, 0x21);
    outb(0x20, 0xc7);
    keyboard();
    window();
    outb(0x20, 0xa0); /* rotate on EOI: IRQ 1 becomes the lowest */
    two_waiting("rotated by an EOI", 0x24, 0x21);
    outb(0x20, 0xc7);
    keyboard();
    window();
    outb(0x20, 0xe2); /* rotate on a specific EOI: of IRQ 2, which is not in service */
    check(isr(0x20) == 2, "a specific EOI of another pin leaves it in service: %x", isr(0x20));
    outb(0x20, 0x61);
    two_waiting("but rotates", 0x24, 0x21);
    init(3, 0xed, 0xff);
    outb(0x20, 0x80); /* rotate in automatic EOI */
    keyboard();
    window();
    keyboard();
    com1(true);
    count = 0;
    asm volatile("sti; nop; nop; nop; nop; nop; nop; cli");
    com1(false);
    check(count == 2 && order[0] == 0x24 && order[1] == 0x21, "automatic EOI that rotates: %d %x %x", count, order[0],
          order[1]);
    outb(0x20, 0);
    quiet();
}

static void polls(void)
{
    u8 got;

    init(1, 0xff, 0xff);
    outb(0x20, 0x0c);
    check(inb(0x20) == 0, "poll: nothing waits");
    init(1, 0xfb, 0xef);
    mouse();
    outb(0xa0, 0x0c);
    got = inb(0xa1);
    check(got == 0x84, "poll of the slave, read at its other port: %x", got);
    check(isr(0xa0) == 0x10 && !(irr(0x20) & 4), "in service there, and the master's pin falls: %x %x", isr(0xa0),
          irr(0x20));
    outb(0xa0, 0x20);
    kbc_drain();
    mouse();
    outb(0x20, 0x0c);
    got = inb(0x20);
    check(got == 0x82 && isr(0x20) == 4, "poll of the master finds pin 2: %x", got);
    outb(0xa0, 0x0c);
    got = inb(0xa0);
    check(got == 0x84, "then the slave's: %x", got);
    outb(0xa0, 0x20);
    outb(0x20, 0x20);
    window();
    check(count == 0, "no interrupt came of it");
    quiet();
}

static void initialization(void)
{
    init(1, 0xee, 0xff);
    outb(0x20, 0x0b);
    pit();
    outb(0x20, 0x0b);
    outb(0x20, 0x11);
    check(inb(0x20) == 0, "ICW1 forgets edges, and makes reads show the IRR: %x", inb(0x20));
    outb(0x21, 0x20);
    outb(0x21, 4);
    outb(0x21, 1);
    check(inb(0x21) == 0, "and clears the mask: %x", inb(0x21));
    outb(0x21, 0xff);
    outb(0x20, 0x13); /* single: no ICW3; ICW4 wanted */
    outb(0x21, 0x40);
    outb(0x21, 1);
    outb(0x21, 0xfa);
    check(inb(0x21) == 0xfa, "a single chip takes no ICW3: %x", inb(0x21));
    outb(0x20, 0x10); /* no ICW4 */
    outb(0x21, 0x40);
    outb(0x21, 4);
    outb(0x21, 0xf5);
    check(inb(0x21) == 0xf5, "nor ICW4 when ICW1 says so: %x", inb(0x21));
    quiet();
}

/* An ExtINT message by the I/O APIC makes the processor ask the PIC, which has nothing: IRQ 7, not in service. */
static void spurious(void)
{
    init(1, 0xff, 0xff);
    lapic_write(0x350, 0x10000); /* LINT0 */
    route(4, 0x700, 0);
    com1(true);
    window();
    com1(false);
    route(4, 0x10000, 0);
    check(count == 1 && order[0] == 0x27, "acknowledged with nothing to ask for: %d, %x", count, order[0]);
    check(isr(0x20) == 0, "and not in service: %x", isr(0x20));
    lapic_write(0x350, 0x700);
    quiet();
}

void guest_main(void)
{
    for (int v = 0x20; v < 0xff; v++)
        on_interrupt(v, on_any);
    lapic_write(0xf0, 0x1ff);
    lapic_write(0x350, 0x700);
    kbc_drain();
    kbc_command(0x60); /* command byte: both interrupts, translation */
    kbc_data(0x43);
    kbc_command(0xa8);
    cascade();
    nested(1, 1, "fully nested: the slave's higher request waits");
    nested(0x11, 2, "special fully nested: it comes in");
    special_mask();
    rotations();
    polls();
    initialization();
    spurious();
}
