/* The I/O APIC beyond what interrupts.c asks, with two processors: destinations, lowest priority, EOI by its own
 * register, remote IRR and changes of the trigger mode, edges while masked, the TMR, accesses of its registers.
 * Sources: the PIT at pin 2 (edges), COM1 at pin 4 (a level that IER bit 1 switches; nothing is printed meanwhile).
 * Data sheet of the 82093AA, SDM vol. 3 §11.8.4. */
#include "chips.h"

enum {
    EOI = 0xb0,
    TPR = 0x80,
    LDR = 0xd0,
    TMR = 0x180,
    LEVEL = 0x8000,
    MASKED = 0x10000,
    REMOTE_IRR = 0x4000,
    LOGICAL = 0x800,
    LOWEST = 0x100,
    POLARITY_LOW = 0x2000
};

bool attempt_failed, attempt_last;

static volatile int hits[2], ready, jobs;
static volatile u32 tpr_wanted;
static volatile bool no_eoi, drop_level, tmr_seen;

/* What was printed must be out, or the level comes when it is. */
static void com1(bool on)
{
    while (!(inb(0x3fd) & 0x20))
        ;
    outb(0x3f9, on ? 2 : 0);
    outb(0x3fc, on ? 8 : 0);
}

static void on_any(struct frame *f)
{
    hits[lapic_read(0x20) >> 24 & 1]++;
    tmr_seen = lapic_read(TMR + (u32)f->vector / 32 * 16) >> (f->vector & 31) & 1;
    if (drop_level)
        com1(false);
    if (!no_eoi)
        lapic_write(EOI, 0);
}

static void ap(int cpu)
{
    u32 tpr = 0;

    lapic_write(0xf0, 0x1ff);
    lapic_write(LDR, 2 << 24);
    asm volatile("sti");
    ready = 1;
    for (;;) {
        if (tpr_wanted != tpr)
            lapic_write(TPR, tpr = tpr_wanted);
        jobs++;
        asm volatile("pause");
    }
}

/* The other processor has gone round: what was on its way to it is there. */
static void settle(void)
{
    int was = jobs;

    while (jobs - was < 3)
        window();
}

static void clear(void) { hits[0] = hits[1] = 0; }

/* One edge at pin 2. */
static void edge(void)
{
    outb(0x43, 0x30);
    outb(0x40, 20);
    outb(0x40, 0);
    pm_wait(PM_MS(1));
    settle();
}

/* A busy host may be late with the timer: an attempt without an interrupt is made again. So is one with an interrupt
 * elsewhere, twice: a late edge and the next one make two, and by lowest priority the second goes to the processor that
 * has not the first still in its IRR. */
static void expect_edge(const char *name, u32 low, u32 dest, int first, int second)
{
    int strays = 0;

    route(2, low, dest);
    for (int n = 0; n < 50 && strays < 3; n++) {
        clear();
        edge();
        if (!!hits[0] == first && !!hits[1] == second)
            break;
        strays += (hits[0] && !first) || (hits[1] && !second);
    }
    check(!!hits[0] == first && !!hits[1] == second, "%s: %d %d", name, hits[0], hits[1]);
    route(2, MASKED, 0);
    settle(); /* what was still on its way is not the next one's */
}

static void destinations(void)
{
    expect_edge("physical, the first", 0x61, 0, 1, 0);
    expect_edge("physical, the second", 0x61, 1, 0, 1);
    expect_edge("physical, nobody", 0x61, 9, 0, 0);
    expect_edge("physical broadcast", 0x61, 0xff, 1, 1);
    expect_edge("logical, the second", 0x61 | LOGICAL, 2, 0, 1);
    expect_edge("logical, both", 0x61 | LOGICAL, 3, 1, 1);
    expect_edge("logical, nobody", 0x61 | LOGICAL, 0xfc, 0, 0);
    lapic_write(TPR, 0x20);
    expect_edge("lowest priority, the second's is lower", 0x61 | LOGICAL | LOWEST, 3, 0, 1);
    lapic_write(TPR, 0);
    tpr_wanted = 0x20;
    settle();
    expect_edge("lowest priority, the first's is lower", 0x61 | LOGICAL | LOWEST, 3, 1, 0);
    tpr_wanted = 0;
    settle();
    expect_edge("the level bit with an active low pin and NMI means nothing: masked", 0x61 | MASKED, 0, 0, 0);
}

static void masked_edge(void)
{
    route(2, 0x61 | MASKED, 0);
    clear();
    edge();
    route(2, 0x61, 0);
    settle();
    hold(!hits[0], "an edge while masked is lost: %d", hits[0]);
    route(2, MASKED, 0);
}

static void edges(void)
{
    ATTEMPT(masked_edge);
    route(4, 0x62, 0);
    clear();
    com1(true);
    settle();
    com1(false);
    check(hits[0] == 1 && !tmr_seen, "an edge entry takes the pin's rise once: %d", hits[0]);
    check(!(ioapic_read(0x18) & REMOTE_IRR), "without remote IRR");
    route(4, MASKED, 0);
}

static void levels(void)
{
    u32 during, after;

    route(4, 0x63 | LEVEL, 0);
    clear();
    drop_level = true;
    com1(true);
    settle();
    check(hits[0] == 1 && tmr_seen, "a level sets the TMR bit: %d", hits[0]);
    no_eoi = true;
    drop_level = false;
    clear();
    com1(true);
    settle();
    during = ioapic_read(0x18);
    *(volatile u32 *)(IOAPIC + 0x40) = 0x63; /* its own EOI register */
    com1(false);
    after = ioapic_read(0x18);
    lapic_write(EOI, 0);
    settle();
    lapic_write(EOI, 0);
    check(during & REMOTE_IRR, "in service: %x", during);
    check(after & REMOTE_IRR, "EOI by the register while the level stands: the next request is out: %x", after);
    no_eoi = false;
    settle();
    route(4, MASKED, 0);
    route(4, 0x63 | LEVEL, 0);
    no_eoi = true;
    clear();
    com1(true);
    settle();
    com1(false);
    *(volatile u32 *)(IOAPIC + 0x40) = 0x64;
    during = ioapic_read(0x18);
    *(volatile u32 *)(IOAPIC + 0x40) = 0x63;
    after = ioapic_read(0x18);
    lapic_write(EOI, 0);
    check(during & REMOTE_IRR && !(after & REMOTE_IRR), "EOI of another vector does nothing, of this clears it: %x %x",
          during, after);
    com1(true);
    settle();
    com1(false);
    during = ioapic_read(0x18);
    ioapic_write(0x18, 0x63 | MASKED);
    ioapic_write(0x18, 0x63 | MASKED | LEVEL);
    after = ioapic_read(0x18);
    lapic_write(EOI, 0);
    check(during & REMOTE_IRR && !(after & REMOTE_IRR), "a change to edge and back clears it too: %x %x", during,
          after);
    no_eoi = false;
    drop_level = true;
    route(4, 0x63 | LEVEL | POLARITY_LOW, 0);
    check((ioapic_read(0x18) & 0xffff) == (0x63 | LEVEL | POLARITY_LOW), "the polarity is kept: %x", ioapic_read(0x18));
    route(4, MASKED, 0);
    route(4, 0x65 | LEVEL, 1);
    clear();
    com1(true);
    for (int n = 0; n < 1000 && !hits[1]; n++) /* the other processor may have to be woken first */
        settle();
    settle();
    check(hits[1] == 1 && !hits[0] && !(ioapic_read(0x18) & REMOTE_IRR), "the other processor's EOI counts as well: %d",
          hits[1]);
    route(4, MASKED, 0);
    drop_level = false;
}

static void registers(void)
{
    check((ioapic_read(1) & 0xff00) == 0 && (ioapic_read(1) >> 16 & 0xff) == 23, "version %x", ioapic_read(1));
    ioapic_write(1, 0);
    check((ioapic_read(1) >> 16 & 0xff) == 23, "is read-only");
    ioapic_write(0x10 + 2 * 5, 0xffffffff);
    check(ioapic_read(0x10 + 2 * 5) == 0x1afff, "a redirection entry's lower half: %x", ioapic_read(0x10 + 2 * 5));
    ioapic_write(0x11 + 2 * 5, 0xffffffff);
    check(ioapic_read(0x11 + 2 * 5) == 0xff000000, "its upper: %x", ioapic_read(0x11 + 2 * 5));
    route(5, MASKED, 0);
    check(ioapic_read(0x40) == 0 || ioapic_read(0x40) == ~0u, "beyond the last: %x", ioapic_read(0x40));
    *(volatile u8 *)IOAPIC = 1;
    check((*(volatile u32 *)(IOAPIC + 16) >> 16 & 0xff) == 23, "the index can be written as a byte");
    check(*(volatile u32 *)IOAPIC == 1, "and reads back");
    ioapic_write(0, 0xff000000);
    check(ioapic_read(0) == 0x0f000000 && (ioapic_read(2) & 0x0f000000) == 0x0f000000, "id and arbitration id: %x %x",
          ioapic_read(0), ioapic_read(2));
    ioapic_write(0, 0);
}

void guest_main(void)
{
    for (int v = 0x20; v < 0xff; v++)
        on_interrupt(v, on_any);
    lapic_write(0xf0, 0x1ff);
    lapic_write(LDR, 1 << 24);
    lapic_write(0x350, 0x10000);
    check(cpus_start(2, ap) == 2, "two processors");
    while (!ready)
        ;
    destinations();
    edges();
    levels();
    registers();
}
