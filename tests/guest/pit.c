/* The 8254: all six modes by counter 2, whose gate is port 61's bit 0 and whose output its bit 5; latches, read-back,
 * status, the halves of counts, BCD, counts of 0. Output and count are latched together where they are compared, so
 * that a busy host does not matter. Data sheet of the 8254. */
#include "chips.h"

enum { LOW = 1, HIGH = 2, BOTH = 3 };
bool attempt_failed, attempt_last;
enum { STATUS_OUT = 0x80, STATUS_NULL = 0x40 };

static void gate(bool on) { outb(0x61, (u8)((inb(0x61) & ~3) | on)); }
static bool output(void) { return inb(0x61) >> 5 & 1; }
static void mode(int mode, int access, int bcd) { outb(0x43, (u8)(0x80 | access << 4 | mode << 1 | bcd)); }

static void load(u16 count)
{
    outb(0x42, (u8)count);
    outb(0x42, (u8)(count >> 8));
}

static u16 count_read(void)
{
    u8 low = inb(0x42);

    return (u16)(low | inb(0x42) << 8);
}

static u16 latch(void)
{
    outb(0x43, 0x80);
    return count_read();
}

/* Status and count of the same moment. */
static u8 read_back(u16 *count)
{
    u8 status;

    outb(0x43, 0xc8);
    status = inb(0x42);
    *count = count_read();
    return status;
}

static u8 status(void)
{
    outb(0x43, 0xe8);
    return inb(0x42);
}

static bool rises(void)
{
    u32 start = pm_timer();

    while (pm_since(start) < PM_MS(500))
        if (output())
            return true;
    return false;
}

static void start(int m, bool open)
{
    gate(false);
    mode(m, BOTH, 0);
    gate(open);
}

static void mode0(void)
{
    u16 a, b;

    start(0, true);
    hold(!output() && status() == (STATUS_NULL | BOTH << 4), "mode 0: low from the control word on, status %x",
         status());
    load(0xffff);
    pm_wait(10);
    hold(!(status() & STATUS_NULL), "the count is loaded");
    hold(!output(), "low while it counts");
    a = latch();
    pm_wait(100);
    b = latch();
    hold(b < a && (u16)(a - b) >= 30, "it counts down: %x %x", a, b);
    gate(false);
    a = latch();
    pm_wait(100);
    hold(latch() == a, "its gate stops it at %x", a);
    gate(true);
    pm_wait(100);
    hold(latch() < a, "and lets it go on: %x", latch());
    load(200);
    hold(rises(), "high at its end");
    pm_wait(100);
    hold(output(), "and stays");
    hold(latch() > 0x8000, "the count goes round: %x", latch());
    outb(0x42, 100);
    hold(!output(), "the first byte of a new count makes it low");
    a = latch();
    (void)a;
    outb(0x42, 0);
    hold(rises(), "the second starts it");
    mode(0, BOTH, 0);
    hold(!output(), "a control word makes it low again");
}

static void mode1(void)
{
    start(1, false);
    hold(output(), "mode 1: high before its trigger");
    load(60000);
    pm_wait(50);
    hold(output(), "and after the count");
    gate(true);
    pm_wait(10);
    hold(!output(), "low from the trigger on");
    gate(false);
    hold(!output(), "its gate falling changes nothing");
    pm_wait(1000);
    gate(true);
    pm_wait(10);
    hold(latch() > 59000, "a second trigger starts over: %u", latch());
    load(100);
    hold(!output() && latch() > 1000, "a new count waits for the next trigger");
    gate(false);
    gate(true);
    hold(rises(), "which takes it");
}

static void mode2(void)
{
    u16 a = 0, most = 0, least = 0xffff;
    bool high = true;

    start(2, true);
    hold(output(), "mode 2: high at first");
    load(500);
    pm_wait(20);
    for (u32 t0 = pm_timer(); pm_since(t0) < PM_MS(3);) {
        u8 s = read_back(&a);

        most = a > most ? a : most;
        least = a < least ? a : least;
        high &= s >> 7 || a == 1;
    }
    hold(most <= 500 && least >= 1 && most > 400 && least < 100, "counts from 500 to 1: %u to %u", most, least);
    hold(high, "low only at 1");
    gate(false);
    pm_wait(20);
    a = latch();
    pm_wait(100);
    hold(output() && latch() == a, "its gate makes it high, and stops it");
    start(2, true);
    load(60000);
    pm_wait(10000);
    gate(false);
    gate(true);
    pm_wait(10);
    hold(latch() > 59000, "the gate's rise loads anew: %u", latch());
    load(30000);
    hold(latch() > 30000 && status() & STATUS_NULL, "a new count waits for the period's end: %u", latch());
}

static void mode3(void)
{
    u16 a;
    bool even = true, seen[2] = {false, false};

    start(3, true);
    hold(output(), "mode 3: high at first");
    load(1000);
    pm_wait(20);
    for (u32 t0 = pm_timer(); pm_since(t0) < PM_MS(5);) {
        seen[read_back(&a) >> 7] = true;
        even &= !(a & 1) && a <= 1000;
    }
    hold(even, "counts by two");
    hold(seen[0] && seen[1], "both levels");
    gate(false);
    pm_wait(10);
    hold(output(), "its gate makes it high");
    hold((status() & 0x3f) == (BOTH << 4 | 3 << 1), "status %x", status());
    mode(7, BOTH, 0);
    hold((status() & 0x3f) == (BOTH << 4 | 7 << 1), "mode 7 is mode 3, but the status shows it as written: %x",
         status());
    mode(6, BOTH, 0);
    hold((status() & 0x3f) == (BOTH << 4 | 6 << 1), "mode 6 likewise: %x", status());
}

static void mode4(void)
{
    start(4, true);
    hold(output(), "mode 4: high");
    load(50000);
    pm_wait(100);
    hold(output() && latch() < 50000, "while it counts: %u", latch());
    gate(false);
    u16 a = latch();
    pm_wait(100);
    hold(latch() == a && output(), "its gate stops it");
    gate(true);
    load(100);
    pm_wait(1000);
    hold(output() && latch() > 0x8000, "after its strobe it is high and the count goes round: %x", latch());
}

static void mode5(void)
{
    start(5, false);
    load(50000);
    pm_wait(100);
    hold(output() && (status() & STATUS_OUT), "mode 5: high, waiting for its trigger");
    gate(true);
    pm_wait(100);
    hold(output() && latch() < 50000 && latch() > 40000, "it counts from the trigger on: %u", latch());
    gate(false);
    gate(true);
    pm_wait(10);
    hold(latch() > 49900, "each trigger starts over: %u", latch());
}

static void reading(void)
{
    u16 a, b;
    u8 s;

    start(0, true);
    load(0);
    pm_wait(10);
    hold(latch() > 0xf000, "a count of 0 is 65536: %x", latch());
    outb(0x43, 0x80);
    pm_wait(300);
    outb(0x43, 0x80); /* ignored: the first has not been read */
    b = count_read();
    a = latch();
    hold((u16)(b - a) >= 80, "a second latch command does not replace the first: %x %x", b, a);
    outb(0x43, 0xd8); /* count of counter 2 */
    pm_wait(300);
    outb(0x43, 0xe8); /* status of counter 2 */
    s = inb(0x42);
    b = count_read();
    a = latch();
    hold((s & 0x3f) == 0x30 && (u16)(b - a) >= 80, "the status comes first, then the count latched before: %x %x", b,
         a);
    mode(0, LOW, 0);
    outb(0x42, 0x55);
    gate(false);
    pm_wait(10);
    mode(0, LOW, 0);
    outb(0x42, 0x55);
    pm_wait(10);
    hold(inb(0x42) == inb(0x42), "low bytes alone, one read each");
    mode(0, HIGH, 0);
    outb(0x42, 0x12);
    pm_wait(10);
    a = inb(0x42);
    hold(a == 0x12 || a == 0x11, "high bytes alone: %x", a);
    gate(true);
    mode(0, BOTH, 1);
    load(0);
    pm_wait(10);
    a = latch();
    hold(a > 0x9000 && (a & 15) <= 9, "BCD: 0 is 10000: %x", a);
    mode(2, BOTH, 1);
    load(0x100);
    bool right = true;
    for (int n = 0; n < 200; n++) {
        a = latch();
        right &= (a & 15) <= 9 && (a >> 4 & 15) <= 9 && a <= 0x100 && a;
    }
    hold(right, "BCD: 100 to 1");
    hold((status() & 0x3f) == (BOTH << 4 | 2 << 1 | 1), "status %x", status());
}

void guest_main(void)
{
    check(pm_base(), "the ACPI timer is there");
    ATTEMPT(mode0);
    ATTEMPT(mode1);
    ATTEMPT(mode2);
    ATTEMPT(mode3);
    ATTEMPT(mode4);
    ATTEMPT(mode5);
    ATTEMPT(reading);
}
