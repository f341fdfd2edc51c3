/* The HPET: main counter, comparators of 32 and 64 bits, one-shot and periodic, edge and level, legacy replacement of
 * both sources, routing to the I/O APIC's pins, what is read-only, accesses of half a register. IA-PC HPET
 * specification 1.0a. */
#include "chips.h"

enum { ID = 0, CONFIG = 0x10, STATUS = 0x20, COUNTER = 0xf0 };
enum { LEVEL = 2, ENABLE = 4, PERIODIC = 8, PERIODIC_CAP = 0x10, SIZE_CAP = 0x20, SET_VALUE = 0x40, MODE_32 = 0x100,
       MESSAGES = 0x4000, MESSAGES_CAP = 0x8000 };
enum { EOI = 0xb0 };

static u64 get(u32 reg) { return *(volatile u64 *)(HPET + reg); }
static void set(u32 reg, u64 v) { *(volatile u64 *)(HPET + reg) = v; }
static u32 get32(u32 reg) { return *(volatile u32 *)(HPET + reg); }
static void set32(u32 reg, u32 v) { *(volatile u32 *)(HPET + reg) = v; }
static u32 timer(int n, bool comparator) { return (u32)(0x100 + 0x20 * n + 8 * comparator); }
#define CFG(n) timer(n, false)
#define CMP(n) timer(n, true)

static u64 hz;
static volatile int counts[256];
static void on_any(struct frame *f)
{
    counts[f->vector]++;
    lapic_write(EOI, 0);
}

static bool came(int vector, int wanted)
{
    for (u32 start = pm_timer(); pm_since(start) < PM_MS(1000) && counts[vector] < wanted;)
        window();
    return counts[vector] >= wanted;
}

static u32 ms(u32 n) { return (u32)(hz / 1000 * n); }

/* A match soon. A host that stops this program between the counter's read and the comparator's write would make it too
 * late, for the whole of the counter's round. */
static void arm(int n, u64 ticks)
{
    u64 at;

    do {
        at = get(COUNTER) + ticks;
        set(CMP(n), at);
        ticks *= 2;
    } while (get(COUNTER) >= at);
}

static void registers(void)
{
    u64 id = get(ID), was;

    hz = 1000000000000000ul / (id >> 32);
    check((id >> 16 & 0xffff) && (id & 0xff) == 1 && id >> 13 & 1, "id %lx: revision 1, 64 bits", id);
    set(ID, 0);
    check(get(ID) == id, "is read-only");
    set(CONFIG, ~0ul);
    check(get(CONFIG) == 3, "the configuration has two bits: %lx", get(CONFIG));
    set(CONFIG, 0);
    set(COUNTER, 0x123456789abcdef0);
    check(get(COUNTER) == 0x123456789abcdef0 && get32(COUNTER + 4) == 0x12345678, "halted, the counter keeps: %lx",
          get(COUNTER));
    set32(COUNTER + 4, 0x11111111);
    set32(COUNTER, 0x22222222);
    check(get(COUNTER) == 0x1111111122222222, "its halves: %lx", get(COUNTER));
    was = get(CFG(0));
    check(was & PERIODIC_CAP && was & SIZE_CAP && was >> 32, "timer 0: %lx", was);
    check(!(was & MESSAGES_CAP), "sends no messages");
    set(CFG(0), MESSAGES);
    check(!(get(CFG(0)) & MESSAGES), "and cannot be told to");
    set(CFG(0), 1 | 0xffff0000ul);
    check(!(get(CFG(0)) & 1) && get(CFG(0)) >> 32 == was >> 32, "reserved and capability bits stay: %lx", get(CFG(0)));
    set(CFG(2), 0x3e00);
    check(get(CFG(2)) >> 9 & 31 ? get(CFG(2)) >> 32 >> (get(CFG(2)) >> 9 & 31) & 1 : true,
          "no route that does not exist: %lx", get(CFG(2)));
    set(CFG(1), MODE_32);
    set(CMP(1), 0x1234567887654321);
    check(get(CMP(1)) == 0x87654321, "32-bit mode cuts the comparator: %lx", get(CMP(1)));
    set(CFG(1), 0);
    set(STATUS, ~0ul);
    check(get(STATUS) == 0, "status: %lx", get(STATUS));
}

static void counting(void)
{
    u64 a, b;

    set(COUNTER, 0xffffffff - 10);
    set(CONFIG, 1);
    pm_wait(20);
    a = get(COUNTER);
    check(a > 0xffffffff && a < 0x110000000, "it carries into its upper half: %lx", a);
    for (int n = 0; n < 100; n++) {
        b = get(COUNTER);
        if (b < a)
            break;
        a = b;
    }
    check(b >= a, "it never goes back");
    set(CONFIG, 0);
    a = get(COUNTER);
    pm_wait(20);
    check(get(COUNTER) == a, "halted, it stays");
}

static u32 free_pin(int n)
{
    u64 routes = get(CFG(n)) >> 32;

    for (u32 pin = 23; pin > 0; pin--)
        if (routes >> pin & 1)
            return pin;
    return 0;
}

static void one_shot(void)
{
    u32 pin = free_pin(1);

    check(pin, "timer 1 may drive pin %u", pin);
    set(CONFIG, 0);
    set(COUNTER, 0);
    set(CFG(1), (u64)pin << 9 | ENABLE);
    set(CMP(1), ms(1));
    route(pin, 0x51, 0);
    set(CONFIG, 1);
    check(came(0x51, 1), "one-shot, edge");
    pm_wait(PM_MS(5));
    window();
    check(counts[0x51] == 1 && !(get(STATUS) & 2), "once, without a status bit: %d", counts[0x51]);
    arm(1, ms(1));
    check(came(0x51, 2), "armed again");
    set(CFG(1), (u64)pin << 9);
    window();
    counts[0x51] = 0;
    arm(1, ms(1));
    pm_wait(PM_MS(5));
    window();
    check(counts[0x51] == 0, "disabled, it does not interrupt");
    /* a comparator that has just passed in 32 bits does not match again for a whole round */
    set(CFG(1), (u64)pin << 9 | ENABLE | MODE_32);
    arm(1, ms(1)); /* the upper half is cut off */
    check(came(0x51, 1), "32-bit mode matches by the lower half");
    set(CFG(1), 0);
    route(pin, 0x10000, 0);
}

static volatile int level_seen;
static void on_level(struct frame *f)
{
    level_seen++;
    if (level_seen >= 3 || !(get(STATUS) & 4))
        set(STATUS, 4);
    lapic_write(EOI, 0);
}

static void level(void)
{
    u32 pin = free_pin(2);

    on_interrupt(0x52, on_level);
    route(pin, 0x52 | 0x8000, 0);
    set(CFG(2), (u64)pin << 9 | ENABLE | LEVEL);
    arm(2, ms(1));
    for (u32 start = pm_timer(); pm_since(start) < PM_MS(500) && level_seen < 3;)
        window();
    pm_wait(PM_MS(3));
    window();
    check(level_seen == 3, "level: it interrupts until its status bit is written: %d", level_seen);
    check(!(get(STATUS) & 4), "then it is clear");
    set(CFG(2), LEVEL);
    arm(2, ms(1));
    pm_wait(PM_MS(5));
    check(get(STATUS) & 4, "disabled, the status bit is set all the same: %lx", get(STATUS));
    set(STATUS, 0xfb);
    check(get(STATUS) & 4, "other bits do not clear it");
    set(STATUS, 4);
    set(CFG(2), 0);
    route(pin, 0x10000, 0);
}

static void periodic(void)
{
    u32 pin = free_pin(0);
    u64 first;

    route(pin, 0x53, 0);
    set(CONFIG, 0);
    set(COUNTER, 0);
    set(CFG(0), (u64)pin << 9 | ENABLE | PERIODIC | SET_VALUE);
    set(CMP(0), ms(3));
    set(CMP(0), ms(1));
    check(get(CMP(0)) == ms(3), "accumulator %lx after both writes", get(CMP(0)));
    set(CONFIG, 1);
    check(came(0x53, 1) && get(COUNTER) >= ms(3), "the first at the accumulator: %lu ticks", get(COUNTER));
    first = get(CMP(0));
    check(first % ms(1) == 0 && first > ms(3), "then whole periods on: %lx", first);
    check(came(0x53, 4), "more: %d", counts[0x53]);
    check(get(CMP(0)) % ms(1) == 0, "without drift: %lx", get(CMP(0)));
    set(CONFIG, 0);
    window(); /* one may have waited */
    first = get(CMP(0));
    counts[0x53] = 0;
    pm_wait(PM_MS(5));
    window();
    check(counts[0x53] == 0 && get(CMP(0)) == first, "halted: none");
    set(CFG(0), 0);
    route(pin, 0x10000, 0);
}

/* Timer 0 instead of the PIT at pin 2, timer 1 instead of the RTC at pin 8. */
static void legacy(void)
{
    route(2, 0x54, 0);
    route(8, 0x55, 0);
    set(CONFIG, 0);
    set(COUNTER, 0);
    set(CFG(0), ENABLE);
    set(CFG(1), ENABLE);
    set(CMP(0), ms(1));
    set(CMP(1), ms(2));
    set(CONFIG, 3);
    check(came(0x54, 1), "timer 0 drives pin 2");
    check(came(0x55, 1), "timer 1 drives pin 8");
    counts[0x54] = 0;
    outb(0x43, 0x30);
    outb(0x40, 100);
    outb(0x40, 0);
    pm_wait(PM_MS(3));
    window();
    check(counts[0x54] == 0, "the PIT is disconnected");
    set(CONFIG, 1);
    outb(0x43, 0x30);
    outb(0x40, 100);
    outb(0x40, 0);
    check(came(0x54, 1), "until the replacement ends");
    set(CONFIG, 0);
    set(CFG(0), 0);
    set(CFG(1), 0);
    route(2, 0x10000, 0);
    route(8, 0x10000, 0);
}

void guest_main(void)
{
    for (int v = 0x20; v < 0xff; v++)
        on_interrupt(v, on_any);
    lapic_write(0xf0, 0x1ff);
    registers();
    counting();
    one_shot();
    level();
    periodic();
    legacy();
}
