/* The local APIC's timer beyond what lapic.c asks: every divisor, changes of mode, mask, vector and divisor while it
 * runs, the reload of the periodic count, TSC deadlines when the TSC is written, illegal vectors, the timer of an APIC
 * disabled by software. SDM vol. 3 §11.5.4. */
#include "chips.h"

enum {
    EOI = 0xb0,
    SVR = 0xf0,
    ESR = 0x280,
    IRR = 0x200,
    LVT_TIMER = 0x320,
    INITIAL = 0x380,
    CURRENT = 0x390,
    DIVIDE = 0x3e0
};
enum { PERIODIC = 0x20000, DEADLINE = 0x40000, MASKED = 0x10000 };
#define MSR_TSC 0x10
#define MSR_DEADLINE 0x6e0

bool attempt_failed, attempt_last;
static volatile int counts[256];

static void on_any(struct frame *f)
{
    counts[f->vector]++;
    lapic_write(EOI, 0);
}

static bool came(int vector, int wanted)
{
    for (u32 start = pm_timer(); pm_since(start) < PM_MS(2000) && counts[vector] < wanted;)
        window();
    return counts[vector] >= wanted;
}

static void quiet(u32 ms)
{
    for (u32 start = pm_timer(); pm_since(start) < PM_MS(ms);)
        window();
}

static void clear(void)
{
    for (int n = 0; n < 256; n++)
        counts[n] = 0;
}

/* Ticks in some time of the ACPI timer, per its tick, times 1000. */
static u64 rate(u32 divide)
{
    u32 start, ticks, count;

    lapic_write(DIVIDE, divide);
    lapic_write(INITIAL, 0xffffffff);
    start = pm_timer();
    pm_wait(PM_MS(2));
    count = 0xffffffff - lapic_read(CURRENT);
    ticks = pm_since(start);
    return (u64)count * 1000 / ticks;
}

static void divisors(void)
{
    static const u8 codes[] = {0xb, 0, 1, 2, 3, 8, 9, 0xa};
    u64 full;

    lapic_write(LVT_TIMER, MASKED | 0x80);
    full = rate(0xb);
    for (u32 n = 1; n < 8; n++) {
        u64 got = rate(codes[n]) << n;

        hold(got > full - full / 8 && got < full + full / 8, "divide by %u: %lu, by one: %lu", 1u << n, got, full);
    }
    hold(lapic_read(DIVIDE) == 0xa, "the divide register reads back");
    lapic_write(DIVIDE, 0xfffffff4);
    hold(lapic_read(DIVIDE) == 0, "its reserved bits do not: %x", lapic_read(DIVIDE));
    lapic_write(DIVIDE, 0xb);
    lapic_write(INITIAL, 0);
}

static void running_changes(void)
{
    u32 a, b;

    lapic_write(DIVIDE, 0xb);
    clear();
    lapic_write(LVT_TIMER, 0x81);
    lapic_write(INITIAL, 1000000);
    lapic_write(LVT_TIMER, PERIODIC | 0x81);
    check(came(0x81, 3), "one-shot to periodic while it runs: it goes on: %d", counts[0x81]);
    lapic_write(LVT_TIMER, 0x81);
    clear();
    check(came(0x81, 1), "periodic to one-shot: once more");
    quiet(3);
    check(counts[0x81] <= 2 && lapic_read(CURRENT) == 0, "then it stands: %d", counts[0x81]); /* one may have waited */
    lapic_write(LVT_TIMER, PERIODIC | 0x81);
    lapic_write(INITIAL, 300000);
    check(came(0x81, 2), "periodic");
    lapic_write(LVT_TIMER, PERIODIC | MASKED | 0x81);
    window();
    clear();
    quiet(3);
    a = lapic_read(CURRENT);
    check(counts[0x81] == 0 && a <= 300000, "masked it counts on, silently: %x", a);
    lapic_write(LVT_TIMER, PERIODIC | 0x82);
    check(came(0x82, 2) && counts[0x81] == 0, "unmasked with another vector");
    lapic_write(INITIAL, 0);
    window();
    clear();
    quiet(3);
    check(counts[0x82] == 0, "an initial count of 0 ends it");
    lapic_write(LVT_TIMER, 0x83);
    lapic_write(INITIAL, 0x40000000);
    a = lapic_read(CURRENT);
    lapic_write(INITIAL, 0xf0000000); /* seconds: a busy host may stop this program in between */
    b = lapic_read(CURRENT);
    check(a <= 0x40000000 && b > 0x40000000 && lapic_read(INITIAL) == 0xf0000000,
          "a new initial count starts over: %x %x", a, b);
    lapic_write(CURRENT, 5);
    check(lapic_read(CURRENT) > 0x40000000, "the current count is read-only");
    lapic_write(INITIAL, 0);
}

static void disabled(void)
{
    clear();
    lapic_write(LVT_TIMER, PERIODIC | 0x84);
    lapic_write(INITIAL, 100000);
    lapic_write(SVR, 0xff);
    check(lapic_read(LVT_TIMER) & MASKED, "disabling by software masks its entry: %x", lapic_read(LVT_TIMER));
    lapic_write(LVT_TIMER, 0x84);
    check(lapic_read(LVT_TIMER) & MASKED, "which cannot be unmasked then");
    lapic_write(SVR, 0x1ff);
    check(lapic_read(LVT_TIMER) & MASKED, "nor is by enabling");
    lapic_write(LVT_TIMER, 0x84);
    lapic_write(INITIAL, 1000);
    check(came(0x84, 1), "afterwards it works");
    lapic_write(ESR, 0);
    lapic_write(LVT_TIMER, 7);
    lapic_write(INITIAL, 100);
    for (int n = 0; n < 50 && !(lapic_read(ESR) & 0x40); n++) { /* a busy host may be late with the timer */
        quiet(3);
        lapic_write(ESR, 0);
    }
    check(lapic_read(ESR) & 0x40, "an illegal vector: ESR %x", lapic_read(ESR));
    lapic_write(LVT_TIMER, MASKED);
}

static void deadlines(void)
{
    u64 now;

    if (!feature(1, 0, 2, 24))
        return;
    clear();
    lapic_write(LVT_TIMER, DEADLINE | 0x85);
    wrmsr(MSR_DEADLINE, rdtsc() + 1000000000000);
    quiet(2);
    check(counts[0x85] == 0 && rdmsr(MSR_DEADLINE), "far away");
    now = rdtsc();
    wrmsr(MSR_TSC, now + 2000000000000);
    check(came(0x85, 1) && rdmsr(MSR_DEADLINE) == 0, "the TSC is written beyond it: it fires");
    wrmsr(MSR_DEADLINE, rdtsc() + 1000000000000);
    wrmsr(MSR_TSC, 1000);
    clear();
    quiet(3);
    check(counts[0x85] == 0 && rdmsr(MSR_DEADLINE), "the TSC is written back: it waits");
    wrmsr(MSR_DEADLINE, 0);
    lapic_write(LVT_TIMER, DEADLINE | MASKED | 0x85);
    wrmsr(MSR_DEADLINE, rdtsc() + 1000);
    quiet(2);
    check(rdmsr(MSR_DEADLINE) == 0, "masked, it expires without an interrupt");
    lapic_write(LVT_TIMER, DEADLINE | 0x85);
    quiet(1);
    check(counts[0x85] == 0, "which unmasking does not bring");
    wrmsr(MSR_DEADLINE, rdtsc() + 1000000000000);
    lapic_write(LVT_TIMER, 0x85);
    check(rdmsr(MSR_DEADLINE) == 0 || !counts[0x85], "another mode disarms it");
    lapic_write(INITIAL, 1000);
    check(came(0x85, 1), "and counts again");
    lapic_write(LVT_TIMER, PERIODIC | 0x86);
    lapic_write(INITIAL, 1000000);
    lapic_write(LVT_TIMER, DEADLINE | 0x86);
    clear();
    quiet(5);
    check(counts[0x86] == 0 && lapic_read(CURRENT) == 0, "a running count is disarmed by the deadline mode: %d",
          counts[0x86]);
    lapic_write(LVT_TIMER, MASKED);
    if (feature(7, 0, 1, 1))
        wrmsr(0x3b, 0);
}

void guest_main(void)
{
    for (int v = 0x20; v < 0xff; v++)
        on_interrupt(v, on_any);
    lapic_write(SVR, 0x1ff);
    lapic_write(0x350, MASKED);
    ATTEMPT(divisors);
    running_changes();
    disabled();
    deadlines();
}
