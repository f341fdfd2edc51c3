/* Interrupts of the board and what times them: 8259 (priorities, EOIs, rotation, automatic EOI, polling, levels,
 * spurious), 8254, I/O APIC (edges, levels, remote IRR, NMI), RTC, HPET, the ACPI timer. Ends by powering off
 * through S5. The second serial source of interrupts is COM1: its transmitter interrupt is a level that IER bit 1
 * switches; nothing may be printed meanwhile, as that moves the level too. Data sheets of the 8259A, 8254, 82093AA,
 * MC146818, 16550, PIIX4; the HPET specification 1.0a. */
#include "guest.h"

#define HPET 0xfed00000ul
#define IOAPIC 0xfec00000ul
enum { IRQ_PIT = 0, IRQ_COM1 = 4, IRQ_RTC = 8 };
enum { LVT_LINT0 = 0x350, EOI = 0xb0, ICR = 0x300 };

static u16 pm_base;
static volatile int count;
static volatile u8 order[64];
static volatile enum { EOI_NONE, EOI_PIC, EOI_LAPIC } how;
static void (*volatile in_handler)(int vector);

static void pic_eoi(int irq)
{
    if (irq >= 8)
        outb(0xa0, 0x20);
    outb(0x20, 0x20);
}

static void on_any(struct frame *f)
{
    if (count < 64)
        order[count] = (u8)f->vector;
    count++;
    if (in_handler)
        in_handler((int)f->vector);
    if (how == EOI_PIC)
        pic_eoi((int)f->vector - 0x20);
    else if (how == EOI_LAPIC)
        lapic_write(EOI, 0);
}

static void window(void)
{
    asm volatile("sti; nop; nop; nop; cli" : : : "memory");
}

static void pic_setup(u8 icw4, u8 mask, u8 slave_mask)
{
    outb(0x43, 0x30); /* no tick of the board's, or late one of the test before, comes after ICW1 has cleared the requests */
    outb(0x20, 0x11);
    outb(0x21, 0x20);
    outb(0x21, 4);
    outb(0x21, icw4);
    outb(0xa0, 0x11);
    outb(0xa1, 0x28);
    outb(0xa1, 2);
    outb(0xa1, 1);
    outb(0x21, mask);
    outb(0xa1, slave_mask);
    count = 0;
    in_handler = 0;
    how = EOI_PIC;
}

static u8 pic_irr(void) { outb(0x20, 0x0a); return inb(0x20); }
static u8 pic_isr(void) { outb(0x20, 0x0b); return inb(0x20); }

/* What was printed must be out, or the level comes when it is. */
static void com1_irq(bool on)
{
    while (!(inb(0x3fd) & 0x20))
        ;
    outb(0x3f9, on ? 2 : 0);
    outb(0x3fc, on ? 8 : 0);
}

static u32 pm_timer(void)
{
    return inl((u16)(pm_base + 8)) & 0xffffff;
}

/* Busy for at least this many ticks of 3.579545 MHz. */
static void pm_wait(u32 ticks)
{
    u32 start = pm_timer();

    while (((pm_timer() - start) & 0xffffff) < ticks)
        ;
}

/* Counter 0, mode 0: one edge after this many ticks of 1.193182 MHz. */
static void pit_once(u16 ticks)
{
    outb(0x43, 0x30);
    outb(0x40, (u8)ticks);
    outb(0x40, (u8)(ticks >> 8));
}

static void pit_wait_irr(void)
{
    pit_once(20);
    while (!(pic_irr() & 1))
        ;
}

static void nest_higher(int vector)
{
    if (vector == 0x24) { /* IRQ 0 comes in, IRQ 4's own level does not */
        com1_irq(false);
        pit_wait_irr();
        window();
    }
}

static void pic_priorities(void)
{
    int waited;
    u8 irr, isr;

    pic_setup(1, 0xee, 0xff);
    com1_irq(true);
    pit_wait_irr();
    irr = pic_irr();
    asm volatile("sti; nop; nop; nop; nop; nop; cli");
    com1_irq(false);
    check((irr & 0x11) == 0x11, "IRR shows both: %x", irr);
    check(count == 2 && order[0] == 0x20 && order[1] == 0x24, "IRQ 0 before IRQ 4: %d %x %x", count, order[0],
          order[1]);
    check(pic_isr() == 0, "ISR is clear after the EOIs");
    count = 0;
    in_handler = nest_higher;
    com1_irq(true);
    window();
    com1_irq(false);
    in_handler = 0;
    check(count == 2 && order[0] == 0x24 && order[1] == 0x20, "IRQ 0 interrupts IRQ 4's handler: %d %x %x", count, order[0],
          order[1]);
    how = EOI_NONE;
    count = 0;
    pit_wait_irr();
    window();
    com1_irq(true);
    window();
    isr = pic_isr();
    outb(0x20, 0x64); /* specific EOI of another */
    window();
    waited = count;
    outb(0x20, 0x60);
    how = EOI_PIC;
    window();
    com1_irq(false);
    check(isr == 1 && waited == 1, "without its EOI the lower one waits: ISR %x, %d %x %x", isr, waited, order[0],
          order[1]);
    check(count == 2 && order[1] == 0x24, "a specific EOI lets it in: %d %x %x", count, order[0], order[1]);
    window();
}

static void pic_modes(void)
{
    u8 polled, isr;

    pic_setup(1, 0xee, 0xff);
    outb(0x20, 0xc0); /* set priority: IRQ 0 is the lowest, IRQ 1 the highest */
    com1_irq(true);
    pit_wait_irr();
    asm volatile("sti; nop; nop; nop; nop; nop; cli");
    com1_irq(false);
    check(count == 2 && order[0] == 0x24 && order[1] == 0x20, "rotated: IRQ 4 before IRQ 0: %x %x", order[0], order[1]);
    pic_setup(3, 0xfe, 0xff);
    how = EOI_NONE;
    pit_wait_irr();
    window();
    check(count == 1 && pic_isr() == 0, "automatic EOI leaves the ISR clear");
    pic_setup(1, 0xef, 0xff);
    com1_irq(true);
    outb(0x20, 0x0c); /* poll */
    polled = inb(0x20);
    isr = pic_isr();
    outb(0x20, 0x20);
    com1_irq(false);
    window();
    check((polled & 0x87) == 0x84 && isr == 0x10, "poll command: acknowledges IRQ 4: %x %x", polled, isr);
    check(count == 0, "and the processor is not interrupted");
    check(inb(0x21) == 0xef, "the mask reads back");
    pic_setup(1, 0xff, 0xff);
    com1_irq(true);
    window();
    isr = (u8)count;
    outb(0x21, 0xef);
    window();
    com1_irq(false);
    check(isr == 0 && count == 1, "masked, the edge is kept until it is unmasked: %d %d", isr, count);
    outb(0x21, 0xff);
}

static void drop_level(int vector)
{
    if (count >= 3)
        com1_irq(false);
}

static void pic_levels(void)
{
    pic_setup(1, 0xef, 0xff);
    outb(0x4d0, 0x10);
    check(inb(0x4d0) == 0x10, "ELCR reads back: %x", inb(0x4d0));
    in_handler = drop_level;
    com1_irq(true);
    asm volatile("sti; .rept 40; nop; .endr; cli");
    check(count == 3, "a level interrupts until it falls: %d", count);
    com1_irq(true);
    com1_irq(false);
    window();
    check(count == 3, "a level that fell before it was taken is forgotten");
    outb(0x4d0, 0xff);
    check(!(inb(0x4d0) & 7), "IRQ 0 to 2 are edges for ever: %x", inb(0x4d0));
    outb(0x4d0, 0);
    outb(0x21, 0xff);
}

static void rtc_write(u8 reg, u8 val) { outb(0x70, reg); outb(0x71, val); }
static u8 rtc_read(u8 reg) { outb(0x70, reg); return inb(0x71); }

static void rtc(void)
{
    u8 a;

    pic_setup(1, 0xfb, 0xfe);
    a = rtc_read(0x0a);
    check((a & 0x7f) == 0x26, "RTC register A: %x", a);
    check(rtc_read(0x0d) & 0x80, "RTC is valid");
    rtc_read(0x0c);
    rtc_write(0x0b, rtc_read(0x0b) | 0x40);
    for (int n = 0; n < 2000 && count < 1; n++) { /* a busy host is late */
        window();
        pm_wait(3500);
    }
    check(count == 1 && order[0] == 0x28, "RTC periodic interrupt through the slave PIC: %d", count);
    pm_wait(20000);
    window();
    check(count == 1, "none until register C is read");
    check((rtc_read(0x0c) & 0xc0) == 0xc0, "register C says why");
    check(!(rtc_read(0x0c) & 0x80) || count, "and reading clears it");
    for (int n = 0; n < 2000 && count < 6; n++) {
        rtc_read(0x0c);
        pm_wait(3500);
        window();
    }
    check(count == 6, "then they go on: %d", count);
    rtc_write(0x0b, rtc_read(0x0b) & 0x8f);
    rtc_read(0x0c);
    outb(0xa1, 0xff);
    outb(0x21, 0xff);
    check((rtc_read(0x08) & 0x0f) <= 9 && rtc_read(0x08) <= 0x12 && rtc_read(0x08) >= 1, "month %x in BCD",
          rtc_read(0x08));
    rtc_write(0x3f, 0x5a);
    check(rtc_read(0x3f) == 0x5a, "CMOS byte 3F keeps");
}

static u64 tsc_hz; /* measured by the ACPI timer */

static bool near(u64 got, u64 wanted, u64 percent)
{
    return got * 100 > wanted * (100 - percent) && got * 100 < wanted * (100 + percent);
}

/* Both clocks at one time, within 0.1 ms: again where a busy host stopped this program between the two. */
static void both_clocks(u64 *tsc, u32 *pm)
{
    u32 before;

    for (int n = 0; n < 1000; n++) {
        before = pm_timer();
        *tsc = rdtsc();
        *pm = pm_timer();
        if (((*pm - before) & 0xffffff) < 358)
            return;
    }
}

static void tsc_calibrate(void)
{
    u64 from = 0, to = 0;
    u32 start = 0, end = 0;

    both_clocks(&from, &start);
    pm_wait(71591); /* 20 ms */
    both_clocks(&to, &end);
    tsc_hz = (to - from) * 3579545 / ((end - start) & 0xffffff);
    print("     TSC %lu Hz by the ACPI timer\n", tsc_hz);
}

static u16 pit_latch(int counter)
{
    u8 low;

    outb(0x43, (u8)(counter << 6));
    low = inb((u16)(0x40 + counter));
    return (u16)(low | inb((u16)(0x40 + counter)) << 8);
}

/* TSC ticks until counter 2's output rises in mode 0. */
static u64 pit2_wait(u16 ticks)
{
    u64 t0;

    outb(0x61, (inb(0x61) & ~2) | 1);
    outb(0x43, 0xb0);
    outb(0x42, (u8)ticks);
    outb(0x42, (u8)(ticks >> 8));
    t0 = rdtsc();
    while (!(inb(0x61) & 0x20))
        ;
    return rdtsc() - t0;
}

static void pit(void)
{
    u64 took = 0;
    u16 a = 0, b = 0;
    bool ok = false;

    for (int n = 0; n < 200 && !ok; n++) { /* a busy host seldom runs this at the end of the 20 ms */
        took = pit2_wait(23864);
        ok = near(took, tsc_hz / 50, 5);
    }
    check(ok, "8254 counter 2: 20 ms take %lu µs", took * 1000000 / tsc_hz);
    outb(0x43, 0xb0);
    outb(0x42, 0xff);
    outb(0x42, 0xff);
    for (int n = 0; n < 20; n++) { /* a busy host stops this program for longer than the counter takes to go round */
        a = pit_latch(2);
        pm_wait(36);
        b = pit_latch(2);
        if (b < a)
            break;
    }
    check(b < a && a - b >= 10, "it counts down: %x %x", a, b);
    outb(0x61, inb(0x61) & ~1);
    a = pit_latch(2);
    pm_wait(360);
    check(pit_latch(2) == a, "its gate stops it");
    outb(0x43, 0xe8); /* read back counter 2: status */
    check((inb(0x42) & 0x3f) == 0x30, "status: mode 0, both bytes, binary");
    outb(0x61, inb(0x61) | 1);
    outb(0x43, 0xb6);
    outb(0x42, 100);
    outb(0x42, 0);
    ok = false;
    for (int n = 0; n < 10000 && !ok; n++)
        ok = inb(0x61) & 0x20;
    check(ok, "mode 3: the output is high at times");
    for (int n = 0; n < 10000 && ok; n++)
        ok = inb(0x61) & 0x20;
    check(!ok, "and low at times");
    outb(0x43, 0xb1); /* BCD */
    outb(0x42, 0x00);
    outb(0x42, 0x10);
    a = pit_latch(2);
    check((a & 15) <= 9 && (a >> 4 & 15) <= 9 && a <= 0x1000, "BCD counting: %x", a);
}

/* Lets interrupts in until so many came; a busy host makes them late. */
static bool wait_count(int wanted, u64 ms)
{
    u64 t0 = rdtsc();

    while (count < wanted && rdtsc() - t0 < tsc_hz / 1000 * ms)
        window();
    return count >= wanted;
}

static void pit_rate(void)
{
    u64 t0, took;
    bool ok;

    pic_setup(1, 0xfe, 0xff);
    outb(0x43, 0x34); /* counter 0, mode 2 */
    outb(0x40, 0xa9);
    outb(0x40, 0x04); /* 1193: 1 ms */
    window();
    count = 0;
    t0 = rdtsc();
    ok = wait_count(25, 10000); /* a busy host loses some: they may take longer, never shorter */
    took = (rdtsc() - t0) * 1000 / tsc_hz;
    check(ok && took >= 23, "mode 2 at 1 kHz: %d interrupts in %lu ms", count, took);
    outb(0x43, 0x30); /* mode 0 without a count: no tick of mode 2 can come any more */
    window();
    count = 0;
    pit_once(1000);
    ok = wait_count(1, 500);
    pm_wait(40000);
    window();
    check(ok && count == 1, "mode 0 fires once: %d", count);
    outb(0x21, 0xff);
}

static u32 ioapic_read(u32 reg) { *(volatile u32 *)IOAPIC = reg; return *(volatile u32 *)(IOAPIC + 16); }
static void ioapic_write(u32 reg, u32 v) { *(volatile u32 *)IOAPIC = reg; *(volatile u32 *)(IOAPIC + 16) = v; }
static void route(int pin, u32 low)
{
    ioapic_write((u32)(0x11 + pin * 2), 0);
    ioapic_write((u32)(0x10 + pin * 2), low);
}

static bool remote_irr(void) { return ioapic_read(0x18) & 0x4000; }
static bool irr_always;
static void drop_level_ioapic(int vector)
{
    irr_always &= remote_irr();
    if (count >= 4)
        com1_irq(false);
}

static volatile int nmis;
static void on_nmi(struct frame *f) { nmis++; }

static void ioapic(void)
{
    bool irr, after;

    count = 0;
    irr_always = true;
    in_handler = 0;
    how = EOI_LAPIC;
    lapic_write(LVT_LINT0, 0x10000);
    check((ioapic_read(1) >> 16 & 0xff) == 23, "24 pins: version %x", ioapic_read(1));
    check(ioapic_read(0x10) & 0x10000 && ioapic_read(0x3e) & 0x10000, "all masked at first");
    route(2, 0x62);
    pit_once(50);
    check(wait_count(1, 500) && count == 1 && order[0] == 0x62, "the PIT's edge at pin 2: %d", count);
    route(4, 0x64 | 0x8000);
    in_handler = drop_level_ioapic;
    com1_irq(true);
    asm volatile("sti; .rept 40; nop; .endr; cli");
    in_handler = 0;
    check(count == 4, "a level comes again after each EOI until it falls: %d", count);
    check(irr_always && !remote_irr(), "remote IRR is set while it is in service, and clear after its EOI");
    how = EOI_NONE;
    com1_irq(true);
    window();
    com1_irq(false);
    com1_irq(true);
    window();
    irr = remote_irr();
    com1_irq(false);
    check(count == 5 && irr, "no second request while remote IRR is set: %d", count);
    how = EOI_LAPIC;
    lapic_write(EOI, 0);
    window();
    check(count == 5 && !remote_irr(), "EOI with the level gone: nothing more: %d", count);
    route(4, 0x64 | 0x18000);
    com1_irq(true);
    window();
    after = count != 5;
    in_handler = drop_level_ioapic;
    route(4, 0x64 | 0x8000);
    window();
    in_handler = 0;
    com1_irq(false);
    check(!after && count == 6, "a masked level waits until it is unmasked: %d", count);
    route(4, 0x10000);
    on_interrupt(2, on_nmi);
    route(4, 0x400);
    com1_irq(true);
    for (int n = 0; n < 100; n++)
        asm volatile("nop");
    com1_irq(false);
    check(nmis == 1, "delivery mode NMI: %d", nmis);
    route(4, 0x10000);
    ioapic_write(0, 0x0f000000);
    check(ioapic_read(0) == 0x0f000000, "the id register keeps four bits: %x", ioapic_read(0));
    ioapic_write(0, 0);
    ioapic_write(0x20, 0xffffffff);
    check((ioapic_read(0x20) & 0x5000) == 0, "status bits are read-only");
    ioapic_write(0x20, 0x10000);
    route(2, 0x10000);
}

static u64 hpet_read(u32 reg) { return *(volatile u64 *)(HPET + reg); }
static void hpet_write(u32 reg, u64 v) { *(volatile u64 *)(HPET + reg) = v; }

static void hpet(void)
{
    u64 period = hpet_read(0) >> 32, hz = 1000000000000000ul / period, a, t0, ticks = 0, took = 1;
    bool ok = false;

    check(period && period <= 100000000 && (hpet_read(0) >> 8 & 31) >= 2, "HPET period %lu fs, %lu timers", period,
          (hpet_read(0) >> 8 & 31) + 1);
    hpet_write(0x10, 0);
    hpet_write(0xf0, 0x123456);
    check(hpet_read(0xf0) == 0x123456, "stopped, the counter can be set: %lx", hpet_read(0xf0));
    pm_wait(100);
    check(hpet_read(0xf0) == 0x123456, "and stays");
    hpet_write(0xf0, 0);
    hpet_write(0x10, 1);
    for (int n = 0; n < 200 && !ok; n++) {
        t0 = rdtsc();
        a = hpet_read(0xf0);
        pm_wait(71591);
        ticks = hpet_read(0xf0) - a;
        took = rdtsc() - t0;
        ok = near(ticks * 1000000 / hz, took * 1000000 / tsc_hz, 3);
    }
    check(ok, "its rate: %lu µs in %lu µs of the TSC", ticks * 1000000 / hz, took * 1000000 / tsc_hz);
    how = EOI_LAPIC;
    count = 0;
    route(2, 0x62);
    hpet_write(0x10, 3); /* legacy replacement: timer 0 drives pin 2 */
    hpet_write(0x100, 4);
    hpet_write(0x108, hpet_read(0xf0) + hz / 1000);
    check(wait_count(1, 200), "timer 0, one-shot, as the PIT's replacement");
    pm_wait(40000);
    window();
    check(count == 1, "once: %d", count);
    hpet_write(0x100, 4 | 8 | 0x40);
    hpet_write(0x108, hpet_read(0xf0) + hz / 500);
    hpet_write(0x108, hz / 500);
    check(wait_count(5, 500), "periodic: %d", count);
    hpet_write(0x100, 0);
    hpet_write(0x10, 1);
    window();
    if (hpet_read(0x120) >> 48 & 1) { /* timer 1 may drive pin 16 */
        count = 0;
        route(16, 0x70 | 0x8000);
        hpet_write(0x120, 4 | 2 | 16 << 9);
        hpet_write(0x128, hpet_read(0xf0) + hz / 1000);
        while (!(hpet_read(0x20) & 2))
            ;
        hpet_write(0x120, 2 | 16 << 9);
        hpet_write(0x20, 2);
        check(!(hpet_read(0x20) & 2), "a level timer's status bit is cleared by writing it");
        window();
        route(16, 0x10000);
    }
    route(2, 0x10000);
}

static u32 pci_read(int dev, int fn, int reg)
{
    outl(0xcf8, 0x80000000u | (u32)dev << 11 | (u32)fn << 8 | (u32)reg);
    return inl(0xcfc);
}

void guest_main(void)
{
    for (int v = 0x20; v < 0xff; v++)
        on_interrupt(v, on_any);
    pm_base = (u16)(pci_read(1, 3, 0x40) & 0xffc0);
    check(pci_read(1, 3, 0) == 0x71138086 && pm_base, "PIIX4 power management at %x", pm_base);
    lapic_write(0xf0, 0x1ff);
    lapic_write(LVT_LINT0, 0x700);
    tsc_calibrate();
    pic_priorities();
    pic_modes();
    pic_levels();
    rtc();
    pit();
    pit_rate();
    ioapic();
    hpet();
    if (!all_held())
        finish();
    outw((u16)(pm_base + 4), 0x2000); /* S5 */
    for (;;)
        asm volatile("hlt");
}
