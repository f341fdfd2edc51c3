/* Motorola MC146818 clock, calendar, alarm and periodic interrupt, with the CMOS RAM around it.
 *
 * The time is the host's real time plus an offset that the guest's writes move. While the guest holds the clock
 * (SET, or the divider in reset) the time registers are plain bytes; when it lets go, the offset is what makes the
 * clock go on from them. Interrupts come at the instants that the registers show: at full seconds, and at multiples
 * of the periodic rate. Left out: square wave output (the PC connects nothing), daylight saving bit (kept, without
 * effect). */
#include "dev/mc146818_rtc.h"
#include "base/trace.h"

#include <time.h>

#define NS_PER_S 1000000000ll
#define UPDATE_NS 2228000   /* UIP is up 244 µs before the update and through its 1984 µs */
#define DIVIDER_RELEASE_NS 500000000 /* the first update comes half a second after the divider starts */
#define OSCILLATOR_HZ 32768
#define SECONDS_A_DAY 86400

enum {
    SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM, WEEKDAY, DAY, MONTH, YEAR,
    REG_A, REG_B, REG_C, REG_D,
};
enum { A_UIP = 0x80, A_DIVIDER_RESET = 0x60, A_RATE = 0x0f };
enum { B_SET = 0x80, B_PIE = 0x40, B_AIE = 0x20, B_UIE = 0x10, B_SQWE = 0x08, B_BINARY = 0x04, B_24H = 0x02 };
enum { C_IRQF = 0x80, C_PF = 0x40, C_AF = 0x20, C_UF = 0x10 };
enum { D_VALID = 0x80, HOUR_PM = 0x80, ALARM_ANY = 0xc0, INDEX_NMI = 0x80 };

struct mc146818_rtc_state {
    u8 cmos[256];    /* registers and RAM; the time's hold what the last refresh or the guest put there */
    s64 offset;      /* clock - host's real time, ns */
    s64 last_second; /* of the clock, as of the last update */
    u64 last_period; /* periodic interrupts since the machine's start, as of the last one flagged */
    u8 index, upper_index;
    u8 pad[6];
};

struct mc146818_rtc {
    struct device dev;
    struct mc146818_rtc_state s;
    struct irq irq;
    struct timer update, periodic;
};

static const struct state_field mc146818_rtc_fields[] = {
    STATE_ARRAY(struct mc146818_rtc_state, cmos), STATE(struct mc146818_rtc_state, offset),
    STATE(struct mc146818_rtc_state, last_second), STATE(struct mc146818_rtc_state, last_period),
    STATE(struct mc146818_rtc_state, index), STATE(struct mc146818_rtc_state, upper_index),
    STATE_ARRAY(struct mc146818_rtc_state, pad), STATE_END};

static s64 host_time(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

/* A hostile offset may wrap; it only ever shows the guest a strange date. */
static s64 clock_time(const struct mc146818_rtc *r)
{
    return (s64)((u64)host_time() + (u64)r->s.offset);
}

static s64 floor_div(s64 a, s64 b)
{
    return a / b - (a % b < 0);
}

static s64 clock_second(const struct mc146818_rtc *r)
{
    return floor_div(clock_time(r), NS_PER_S);
}

/* Nanoseconds into the present second. */
static s64 clock_fraction(const struct mc146818_rtc *r)
{
    return clock_time(r) - clock_second(r) * NS_PER_S;
}

static bool ticking(const struct mc146818_rtc *r)
{
    return !(r->s.cmos[REG_B] & B_SET) && (r->s.cmos[REG_A] & A_DIVIDER_RESET) != A_DIVIDER_RESET;
}

/* Values in registers: binary or BCD, hours in two forms. */

static u8 encode(const struct mc146818_rtc *r, int val)
{
    return (u8)(r->s.cmos[REG_B] & B_BINARY ? val : val / 10 << 4 | val % 10);
}

static int decode(const struct mc146818_rtc *r, u8 val)
{
    return r->s.cmos[REG_B] & B_BINARY ? val : (val >> 4) * 10 + (val & 15);
}

static u8 encode_hour(const struct mc146818_rtc *r, int hour)
{
    if (r->s.cmos[REG_B] & B_24H)
        return encode(r, hour);
    return encode(r, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

static int decode_hour(const struct mc146818_rtc *r, u8 val)
{
    if (r->s.cmos[REG_B] & B_24H)
        return decode(r, val);
    return decode(r, val & (u8)~HOUR_PM) % 12 + (val & HOUR_PM ? 12 : 0);
}

static void registers_from_second(struct mc146818_rtc *r, s64 second)
{
    u8 *reg = r->s.cmos;
    struct tm tm = {0};
    time_t t = second;
    int year;

    gmtime_r(&t, &tm); /* 64 bits of nanoseconds stay between 1677 and 2262 */
    year = tm.tm_year + 1900;
    reg[SECONDS] = encode(r, tm.tm_sec);
    reg[MINUTES] = encode(r, tm.tm_min);
    reg[HOURS] = encode_hour(r, tm.tm_hour);
    reg[WEEKDAY] = encode(r, tm.tm_wday + 1);
    reg[DAY] = encode(r, tm.tm_mday);
    reg[MONTH] = encode(r, tm.tm_mon + 1);
    reg[YEAR] = encode(r, year % 100);
    reg[MC146818_CENTURY] = encode(r, year / 100);
}

/* Nonsense in the registers (month 77) becomes some date, as timegm carries it over. */
static s64 second_from_registers(const struct mc146818_rtc *r)
{
    const u8 *reg = r->s.cmos;
    struct tm tm = {
        .tm_sec = decode(r, reg[SECONDS]), .tm_min = decode(r, reg[MINUTES]), .tm_hour = decode_hour(r, reg[HOURS]),
        .tm_mday = decode(r, reg[DAY]), .tm_mon = decode(r, reg[MONTH]) - 1,
        .tm_year = decode(r, reg[MC146818_CENTURY]) * 100 + decode(r, reg[YEAR]) - 1900};

    return timegm(&tm);
}

static void refresh(struct mc146818_rtc *r)
{
    if (ticking(r))
        registers_from_second(r, clock_second(r));
}

/* Moves the clock to the registers' date, `fraction` ns into the second. */
static void clock_set_from_registers(struct mc146818_rtc *r, s64 fraction)
{
    s64 second = second_from_registers(r);

    r->s.offset = (s64)((u64)second * (u64)NS_PER_S + (u64)fraction - (u64)host_time());
    r->s.last_second = second;
    trace(RTC, "set to %lld seconds since 1970", (long long)second);
}

static void irq_update(struct mc146818_rtc *r)
{
    u8 *reg = r->s.cmos;
    bool irq = reg[REG_C] & reg[REG_B] & (C_PF | C_AF | C_UF);

    reg[REG_C] = (reg[REG_C] & (u8)~C_IRQF) | (irq ? C_IRQF : 0);
    irq_set(&r->irq, irq);
}

static bool alarm_field_matches(u8 alarm, u8 now)
{
    return (alarm & ALARM_ANY) == ALARM_ANY || alarm == now;
}

static bool alarm_matches(const struct mc146818_rtc *r)
{
    const u8 *reg = r->s.cmos;

    return alarm_field_matches(reg[SECONDS_ALARM], reg[SECONDS]) &&
           alarm_field_matches(reg[MINUTES_ALARM], reg[MINUTES]) &&
           alarm_field_matches(reg[HOURS_ALARM], reg[HOURS]);
}

/* Goes through the seconds since the last update, at most a day of them: the machine may have been stopped
 * meanwhile, and an alarm that fell due counts. */
static void catch_up(struct mc146818_rtc *r, s64 now)
{
    s64 second = r->s.last_second;
    bool alarm = false;

    if (second > now || second < now - SECONDS_A_DAY)
        second = now - 1;
    while (!alarm && ++second <= now) {
        registers_from_second(r, second);
        alarm = alarm_matches(r);
    }
    registers_from_second(r, now);
    r->s.last_second = now;
    r->s.cmos[REG_C] |= C_UF | (alarm ? C_AF : 0);
    irq_update(r);
}

/* The update cycle at the end of each second. The timer runs on the machine's clock, which may be a hair ahead of the
 * host's real time: then the second has not turned yet, and it tries again. */
static void update_cycle(void *rtc)
{
    struct mc146818_rtc *r = rtc;

    if (ticking(r) && clock_second(r) != r->s.last_second)
        catch_up(r, clock_second(r));
    timer_set(&r->update, machine_now(r->dev.machine) + (u64)(NS_PER_S - clock_fraction(r)));
}

/* Ticks of 32.768 kHz in one period of the rate in register A; 0: no periodic interrupt. */
static u64 period_ticks(const struct mc146818_rtc *r)
{
    int rate = r->s.cmos[REG_A] & A_RATE;

    return rate ? 1ull << (rate < 3 ? rate + 6 : rate - 1) : 0;
}

static u64 period_now(const struct mc146818_rtc *r)
{
    u64 ticks = period_ticks(r);

    return ticks ? (u64)((u128)machine_now(r->dev.machine) * OSCILLATOR_HZ / (u64)NS_PER_S) / ticks : 0;
}

static u64 period_start_ns(const struct mc146818_rtc *r, u64 period)
{
    return (u64)(((u128)period * period_ticks(r) * (u64)NS_PER_S + OSCILLATOR_HZ - 1) / OSCILLATOR_HZ);
}

/* Flags a period that has begun since the last look; several missed ones become one. */
static void periodic_sync(struct mc146818_rtc *r)
{
    u64 period = period_now(r);

    if (period == r->s.last_period)
        return;
    r->s.last_period = period;
    r->s.cmos[REG_C] |= C_PF;
    irq_update(r);
}

/* Without PIE the flag is found out when the guest reads register C: an idle machine need not wake 1024 times a
 * second. */
static void periodic_arm(struct mc146818_rtc *r)
{
    bool wanted = r->s.cmos[REG_B] & B_PIE && period_ticks(r);

    timer_set(&r->periodic, wanted ? period_start_ns(r, period_now(r) + 1) : TIMER_NEVER);
}

static void periodic_due(void *rtc)
{
    periodic_sync(rtc);
    periodic_arm(rtc);
}

static bool time_register(u8 index)
{
    return index == SECONDS || index == MINUTES || index == HOURS || (index >= WEEKDAY && index <= YEAR) ||
           index == MC146818_CENTURY;
}

static u8 register_c_read(struct mc146818_rtc *r)
{
    u8 val;

    periodic_sync(r);
    val = r->s.cmos[REG_C];
    r->s.cmos[REG_C] = 0;
    irq_update(r);
    return val;
}

static u8 register_a_read(const struct mc146818_rtc *r)
{
    bool updating = ticking(r) && clock_fraction(r) >= NS_PER_S - UPDATE_NS;

    return r->s.cmos[REG_A] | (updating ? A_UIP : 0);
}

static u8 cmos_read(struct mc146818_rtc *r, u8 index)
{
    switch (index) {
    case REG_A: return register_a_read(r);
    case REG_C: return register_c_read(r);
    case REG_D: return D_VALID;
    default:
        if (time_register(index))
            refresh(r);
        return r->s.cmos[index];
    }
}

/* A change of register A or B: when the clock starts to tick again, it goes on from what the registers hold. */
static void control_write(struct mc146818_rtc *r, u8 index, u8 val)
{
    bool was_ticking = ticking(r);
    bool was_reset = (r->s.cmos[REG_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;

    refresh(r);
    r->s.cmos[index] = val;
    if (was_reset && (r->s.cmos[REG_A] & A_DIVIDER_RESET) != A_DIVIDER_RESET)
        r->s.offset = (s64)((u64)r->s.offset + (u64)(DIVIDER_RELEASE_NS - clock_fraction(r)));
    if (!was_ticking && ticking(r))
        clock_set_from_registers(r, clock_fraction(r));
    r->s.last_period = period_now(r);
    irq_update(r);
    periodic_arm(r);
    update_cycle(r);
}

static void cmos_write(struct mc146818_rtc *r, u8 index, u8 val)
{
    trace(RTC, "register 0x%02x <- 0x%02x", index, val);
    switch (index) {
    case REG_A: control_write(r, index, val & (u8)~A_UIP); break;
    case REG_B: control_write(r, index, val & B_SET ? val & (u8)~B_UIE : val); break;
    case REG_C: case REG_D: break;
    default:
        if (time_register(index))
            refresh(r);
        r->s.cmos[index] = val;
        if (time_register(index) && ticking(r))
            clock_set_from_registers(r, clock_fraction(r));
    }
}

static u64 mc146818_rtc_read(struct device *dev, u64 offset, int size)
{
    struct mc146818_rtc *r = container_of(dev, struct mc146818_rtc, dev);

    switch (offset) {
    case 1: return cmos_read(r, r->s.index & (u8)~INDEX_NMI);
    case 3: return r->s.cmos[r->s.upper_index | 0x80];
    default: return 0xff; /* the index ports are write-only */
    }
}

static void mc146818_rtc_write(struct device *dev, u64 offset, int size, u64 val)
{
    struct mc146818_rtc *r = container_of(dev, struct mc146818_rtc, dev);

    switch (offset) {
    case 0: r->s.index = (u8)val; break;
    case 1: cmos_write(r, r->s.index & (u8)~INDEX_NMI, (u8)val); break;
    case 2: r->s.upper_index = (u8)val; break;
    case 3: r->s.cmos[r->s.upper_index | 0x80] = (u8)val; break;
    }
}

static const struct io_ops mc146818_rtc_ops = {mc146818_rtc_read, mc146818_rtc_write, 1, 1};

void mc146818_rtc_cmos_set(struct device *dev, u8 index, u8 val)
{
    assert(index > REG_D && index != MC146818_CENTURY);
    container_of(dev, struct mc146818_rtc, dev)->s.cmos[index] = val;
}

u8 mc146818_rtc_cmos_get(const struct device *dev, u8 index)
{
    return container_of((struct device *)dev, struct mc146818_rtc, dev)->s.cmos[index];
}

bool mc146818_rtc_nmi_masked(const struct device *dev)
{
    return container_of((struct device *)dev, struct mc146818_rtc, dev)->s.index & INDEX_NMI;
}

/* RESET# clears the interrupt enables and flags; time, alarm and RAM live on the battery. */
static void mc146818_rtc_reset(struct device *dev)
{
    struct mc146818_rtc *r = container_of(dev, struct mc146818_rtc, dev);

    r->s.index = INDEX_NMI;
    r->s.upper_index = 0;
    r->s.cmos[REG_B] &= (u8) ~(B_PIE | B_AIE | B_UIE | B_SQWE);
    r->s.cmos[REG_C] = 0;
    irq_update(r);
    periodic_arm(r);
}

static void mc146818_rtc_loaded(struct device *dev)
{
    struct mc146818_rtc *r = container_of(dev, struct mc146818_rtc, dev);

    irq_update(r);
    periodic_arm(r);
    timer_set(&r->update, machine_now(dev->machine)); /* seconds may have passed in between */
}

static void mc146818_rtc_destroy(struct device *dev)
{
    struct mc146818_rtc *r = container_of(dev, struct mc146818_rtc, dev);

    timer_cancel(&r->update);
    timer_cancel(&r->periodic);
}

static const struct device_type mc146818_rtc_type = {
    .name = "mc146818_rtc",
    .size = sizeof(struct mc146818_rtc),
    .state_offset = offsetof(struct mc146818_rtc, s),
    .state = STATE_TABLE(struct mc146818_rtc_state, mc146818_rtc_fields, 1),
    .reset = mc146818_rtc_reset,
    .loaded = mc146818_rtc_loaded,
    .destroy = mc146818_rtc_destroy,
};

struct device *mc146818_rtc_create(struct machine *m, u16 port, const struct irq *irq)
{
    struct device *dev = device_add(m, &mc146818_rtc_type);
    struct mc146818_rtc *r = container_of(dev, struct mc146818_rtc, dev);

    if (irq)
        r->irq = *irq;
    timer_init(&r->update, &m->timers, update_cycle, r);
    timer_init(&r->periodic, &m->timers, periodic_due, r);
    r->s.cmos[REG_A] = 0x26; /* 32.768 kHz, 1024 Hz: what firmware leaves */
    r->s.cmos[REG_B] = B_24H;
    r->s.last_second = clock_second(r);
    pio_map(m, port, 4, dev, &mc146818_rtc_ops);
    mc146818_rtc_reset(dev);
    update_cycle(r);
    return dev;
}
