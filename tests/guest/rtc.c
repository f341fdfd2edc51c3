/* The MC146818 and the CMOS RAM around it: number formats, carries over minute, day, leap day and year, alarms with
 * and without wildcards, update-ended and periodic interrupts, SET, the divider's reset, UIP. The first update comes
 * half a second after the divider is let go, which is what makes this quick. Data sheet of the MC146818. */
#include "chips.h"

enum {
    SECONDS,
    SECONDS_ALARM,
    MINUTES,
    MINUTES_ALARM,
    HOURS,
    HOURS_ALARM,
    WEEKDAY,
    DAY,
    MONTH,
    YEAR,
    A,
    B,
    C,
    D,
    CENTURY = 0x32
};
enum {
    SET = 0x80,
    PIE = 0x40,
    AIE = 0x20,
    UIE = 0x10,
    BINARY = 4,
    HOURS_24 = 2,
    UIP = 0x80,
    IRQF = 0x80,
    PF = 0x40,
    AF = 0x20,
    UF = 0x10
};

bool attempt_failed, attempt_last;

static u8 get(u8 reg) { outb(0x70, reg); return inb(0x71); }
static void set(u8 reg, u8 v) { outb(0x70, reg); outb(0x71, v); }

static volatile int count;
static void on_irq8(struct frame *f)
{
    count++;
    outb(0xa0, 0x20);
    outb(0x20, 0x20);
}

/* Year, month, day, hour, minute, second, in the registers' present format. */
static void time_set(const u8 t[6])
{
    set(YEAR, t[0]);
    set(MONTH, t[1]);
    set(DAY, t[2]);
    set(HOURS, t[3]);
    set(MINUTES, t[4]);
    set(SECONDS, t[5]);
}

static bool time_is(const u8 t[6])
{
    return get(YEAR) == t[0] && get(MONTH) == t[1] && get(DAY) == t[2] && get(HOURS) == t[3] && get(MINUTES) == t[4] &&
           get(SECONDS) == t[5];
}

/* Sets the time with the divider held, lets it go, and waits for the update: true if one came, with register C in
 * *flags. */
static bool one_update(u8 b, const u8 t[6], u8 *flags)
{
    set(A, 0x60);
    set(B, b);
    set(CENTURY, b & BINARY ? 20 : 0x20);
    time_set(t);
    get(C);
    set(A, 0x20); /* no periodic interrupt */
    for (u32 start = pm_timer(); pm_since(start) < PM_MS(3000);) {
        *flags = get(C);
        window();
        if (*flags & UF || count)
            return true;
    }
    return false;
}

static void carry(const char *name, u8 b, const u8 from[6], const u8 to[6])
{
    u8 flags;
    bool came;

    count = 0;
    came = one_update(b, from, &flags);
    check(came && time_is(to), "%s: %x-%x-%x %x:%x:%x", name, get(YEAR), get(MONTH), get(DAY), get(HOURS), get(MINUTES),
          get(SECONDS));
}
#define T(...) ((const u8[6]){__VA_ARGS__})

static void formats(void)
{
    carry("leap day, midnight, BCD, 24 hours", HOURS_24, T(0x24, 0x02, 0x28, 0x23, 0x59, 0x59),
          T(0x24, 0x02, 0x29, 0, 0, 0));
    check(get(WEEKDAY) == 5, "a Thursday: %d", get(WEEKDAY));
    carry("end of a year, binary, 24 hours", BINARY | HOURS_24, T(99, 12, 31, 23, 59, 59), T(0, 1, 1, 0, 0, 0));
    check(get(CENTURY) == 21, "and of a century: %d", get(CENTURY));
    carry("noon, BCD, 12 hours", 0, T(0x23, 0x06, 0x15, 0x11, 0x59, 0x59), T(0x23, 0x06, 0x15, 0x92, 0, 0));
    set(B, HOURS_24 | SET);
    set(B, HOURS_24);
    check(get(B) == HOURS_24, "register B: %x", get(B));
}

static void holding(void)
{
    set(B, SET | HOURS_24 | UIE);
    check(get(B) == (SET | HOURS_24), "SET clears UIE: %x", get(B));
    time_set(T(0x23, 0x06, 0x15, 0x10, 0x20, 0x30));
    set(SECONDS, 0x59);
    pm_wait(PM_MS(5));
    check(get(SECONDS) == 0x59 && !(get(A) & UIP), "SET holds the time, and UIP down");
    set(A, get(A) | UIP);
    check(!(get(A) & UIP), "UIP is read-only");
    set(C, 0xff);
    set(D, 0);
    check(get(D) == 0x80, "register D shows valid RAM and time alone: %x", get(D));
    set(B, HOURS_24);
    set(SECONDS_ALARM, 0x12);
    check(get(SECONDS_ALARM) == 0x12, "alarms are kept");
    set(0x7f, 0xa5);
    outb(0x70, 0xff); /* bit 7 masks NMIs */
    check(inb(0x71) == 0xa5, "bit 7 of the index is no part of it");
    outb(0x70, 0);
}

static void irq_on(void)
{
    outb(0x20, 0x11);
    outb(0x21, 0x20);
    outb(0x21, 4);
    outb(0x21, 1);
    outb(0xa0, 0x11);
    outb(0xa1, 0x28);
    outb(0xa1, 2);
    outb(0xa1, 1);
    outb(0x21, 0xfb);
    outb(0xa1, 0xfe);
}

static void alarm(const char *name, u8 hour, u8 minute, u8 second, bool rings)
{
    u8 flags = 0, now;

    set(HOURS_ALARM, hour);
    set(MINUTES_ALARM, minute);
    set(SECONDS_ALARM, second);
    count = 0;
    one_update(HOURS_24, T(0x23, 0x06, 0x15, 0x10, 0x20, 0x30), &flags);
    now = flags;
    check(!!(now & AF) == rings && !(now & IRQF), "%s: flags %x, no interrupt", name, now);
}

static void interrupts(void)
{
    u8 flags;

    alarm("alarm at that second", 0x10, 0x20, 0x31, true);
    alarm("at another", 0x10, 0x20, 0x32, false);
    alarm("every hour at that second", 0xff, 0xc0, 0x31, true);
    irq_on();
    count = 0;
    one_update(HOURS_24 | AIE, T(0x23, 0x06, 0x15, 0x10, 0x20, 0x30), &flags);
    pm_wait(PM_MS(2));
    window();
    flags |= get(C);
    check(count == 1 && flags & AF, "the alarm interrupts: %d, flags %x", count, flags);
    count = 0;
    one_update(HOURS_24 | UIE, T(0x23, 0x06, 0x15, 0x10, 0x20, 0x30), &flags);
    pm_wait(PM_MS(2));
    window();
    flags |= get(C);
    check(count == 1 && flags & UF, "update ended: %d, flags %x", count, flags);
    check(get(C) == 0, "register C is clear once read");
    set(B, HOURS_24);
    get(C);
}

/* How long this program ran since watch_start(), in ticks of the ACPI timer: a busy host stops it for milliseconds, in which nobody
 * looks and several periods make one flag. Looks that are less than half of 1/1024 s apart count. */
static u32 watch, looked, ran;

static void watch_start(void)
{
    watch = pm_timer();
    looked = ran = 0;
}

static bool watch_for(u32 ms)
{
    u32 now = pm_since(watch);

    if (now - looked < PM_MS(1000) / 2048)
        ran += now - looked;
    looked = now;
    return now < PM_MS(ms);
}

/* Periods of 1/1024 s in which it ran. */
static int watched(void) { return (int)(ran / (PM_MS(1000) / 1024)); }

/* Rates from 1 (as 8: 256 Hz) to 15 (2 Hz). */
static int periods(u8 rate, u32 ms)
{
    int n = 0;

    set(A, 0x20 | rate);
    get(C);
    for (watch_start(); watch_for(ms);)
        n += !!(get(C) & PF);
    return n;
}

static void periodic(void)
{
    int fast = periods(6, 60), fast_watched = watched(), slow = periods(10, 60);

    hold(fast_watched >= 4 && fast > fast_watched / 2 && fast <= 63, "1024 Hz, polled for 60 ms: %d, %d watched", fast, fast_watched);
    hold(slow >= 1 && slow <= 5, "64 Hz: %d", slow);
    hold(periods(0, 20) == 0, "rate 0: none");
    set(A, 0x26);
    set(B, HOURS_24 | PIE);
    count = 0;
    get(C);
    for (watch_start(); watch_for(50);) {
        window();
        get(C);
    }
    hold(watched() >= 4 && count > watched() / 2 && count <= 55, "1024 Hz interrupts for 50 ms: %d, %d watched", count, watched());
    set(B, HOURS_24);
    get(C);
}

void guest_main(void)
{
    on_interrupt(0x28, on_irq8);
    lapic_write(0xf0, 0x1ff);
    lapic_write(0x350, 0x700);
    formats();
    holding();
    interrupts();
    ATTEMPT(periodic);
}
