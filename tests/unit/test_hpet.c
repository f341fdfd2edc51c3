/* The HPET: counter, one-shot and periodic timers (the VAL_SET dance), level and edge, legacy replacement. */
#include "device_state.h"
#include "dev/hpet.h"
#include "machine_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#define HPET 0xfed00000ull
enum { CFG = 0x10, STATUS = 0x20, COUNTER = 0xf0 };
enum { LEVEL = 2, ENABLE = 4, PERIODIC = 8, VAL_SET = 0x40, BITS32 = 0x100 };
#define ROUTE(n) ((n) << 9)

static struct machine *m;
static struct device *hpet;
static int pin0_rises;
static struct irq_probe irq0, irq8, pin[HPET_ROUTES];

static void write4(u64 reg, u32 val)
{
    mmio_write(m, HPET + reg, 4, val);
}

static void write8(u64 reg, u64 val)
{
    mmio_write(m, HPET + reg, 8, val);
}

static u64 read8(u64 reg)
{
    return mmio_read(m, HPET + reg, 8);
}

static u64 timer_config(int n)
{
    return 0x100 + 0x20 * (u64)n;
}

static u64 comparator(int n)
{
    return timer_config(n) + 8;
}

/* Counter ticks since the machine's start. */
static void tick(u64 n)
{
    fixture_time(m, n * 10);
}

static struct hpet_wires wires(struct irq_probe *p0, struct irq_probe *p8, struct irq_probe *p)
{
    struct hpet_wires w = {.irq0 = irq_probe(p0), .irq8 = irq_probe(p8)};

    for (int i = 0; i < HPET_ROUTES; i++)
        w.ioapic[i] = irq_probe(&p[i]);
    return w;
}

static int setup(void **unused)
{
    struct hpet_wires w = wires(&irq0, &irq8, pin);

    irq0 = irq8 = (struct irq_probe){0};
    for (int i = 0; i < HPET_ROUTES; i++)
        pin[i] = (struct irq_probe){0};
    m = fixture_machine(1);
    hpet = hpet_create(m, HPET, &w);
    return 0;
}

static int teardown(void **unused)
{
    fixture_free(m);
    return 0;
}

static void capabilities(void **unused)
{
    assert_int_equal(read8(0) >> 32, 10000000);
    assert_int_equal(read8(0) & UINT32_MAX, 0x8086a201);
    assert_int_equal(mmio_read(m, HPET + 4, 4), 10000000);
    assert_int_equal(read8(timer_config(0)), 0x00f00000ull << 32 | 0x30);
    assert_int_equal(read8(timer_config(3)), 0);
    write8(0, 0);
    assert_int_equal(read8(0) >> 32, 10000000);
}

static void counter_runs_while_enabled(void **unused)
{
    tick(500);
    assert_int_equal(read8(COUNTER), 0);
    write4(CFG, 1);
    tick(600);
    assert_int_equal(read8(COUNTER), 100);
    write4(CFG, 0);
    tick(700);
    assert_int_equal(read8(COUNTER), 100);
    write8(COUNTER, 0x1fffffff0);
    write4(CFG, 1);
    tick(732);
    assert_int_equal(read8(COUNTER), 0x200000010);
    assert_int_equal(mmio_read(m, HPET + COUNTER + 4, 4), 2);
}

static void one_shot_edge(void **unused)
{
    write4(CFG, 1);
    write8(timer_config(2), ENABLE | ROUTE(22));
    write8(comparator(2), 1000);
    tick(999);
    assert_int_equal(pin[2].rises, 0);
    tick(1000);
    assert_int_equal(pin[2].rises, 1);
    assert_false(pin[2].level);
    assert_int_equal(read8(STATUS), 0);
    tick(100000000);
    assert_int_equal(pin[2].rises, 1);
}

static void a_comparator_in_the_past_waits_for_the_wrap(void **unused)
{
    write4(CFG, 1);
    tick(5000);
    write8(timer_config(2), ENABLE | ROUTE(22) | BITS32);
    write8(comparator(2), 4000);
    tick(5000000);
    assert_int_equal(pin[2].rises, 0);
    tick(0x100000000 + 4000);
    assert_int_equal(pin[2].rises, 1);
    tick(0x200000000 + 4000);
    assert_int_equal(pin[2].rises, 2);
}

static void level_until_status_is_cleared(void **unused)
{
    write4(CFG, 1);
    write8(timer_config(1), ENABLE | LEVEL | ROUTE(20));
    write8(comparator(1), 1000);
    tick(1500);
    assert_true(pin[0].level);
    assert_int_equal(read8(STATUS), 2);
    write4(STATUS, 1);
    assert_true(pin[0].level);
    write4(STATUS, 2);
    assert_false(pin[0].level);
}

static void disabling_lowers_the_wire(void **unused)
{
    write4(CFG, 1);
    write8(timer_config(1), ENABLE | LEVEL | ROUTE(20));
    write8(comparator(1), 1000);
    tick(1500);
    write8(timer_config(1), LEVEL | ROUTE(20));
    assert_false(pin[0].level);
}

static void routes_that_do_not_exist_do_not_stick(void **unused)
{
    write8(timer_config(1), ENABLE | ROUTE(21));
    write8(timer_config(1), ENABLE | ROUTE(3));
    assert_int_equal(read8(timer_config(1)) >> 9 & 31, 21);
}

/* As Linux does it: accumulator, then period, both by 32-bit writes. */
static void periodic_by_two_writes(void **unused)
{
    write4(CFG, 1);
    tick(300);
    write4(timer_config(0), ENABLE | PERIODIC | VAL_SET | BITS32 | ROUTE(20));
    write4(comparator(0), 300 + 10000);
    assert_int_equal(read8(timer_config(0)) & VAL_SET, 0);
    write4(comparator(0), 10000);
    for (int n = 1; n <= 300; n++) {
        tick(300 + 10000 * (u64)n - 1);
        assert_int_equal(pin[0].rises, n - 1);
        tick(300 + 10000 * (u64)n);
        assert_int_equal(pin[0].rises, n);
    }
}

static void periodic_by_one_write(void **unused)
{
    write8(timer_config(0), ENABLE | PERIODIC | VAL_SET | ROUTE(20));
    write8(comparator(0), 5000);
    write4(CFG, 1);
    tick(15000);
    assert_int_equal(pin[0].rises, 3);
    assert_int_equal(read8(comparator(0)), 20000);
}

static void missed_periods_are_one(void **unused)
{
    write8(timer_config(0), ENABLE | PERIODIC | VAL_SET | ROUTE(20));
    write8(comparator(0), 5000);
    write4(CFG, 1);
    clock_set(&m->clock, 10 * 52000);
    timer_queue_run(&m->timers);
    assert_int_equal(pin[0].rises, 1);
    tick(54999);
    assert_int_equal(pin[0].rises, 1);
    tick(55000);
    assert_int_equal(pin[0].rises, 2);
}

/* A wire that takes three periods to drive: the host stopped us there. */
static void slow_wire(void *ctx, int pin, bool level)
{
    if (level)
        clock_set(&m->clock, clock_now(&m->clock) + 10 * 15000);
    pin0_rises += level;
}

static void a_host_that_stops_us_in_a_match_does_not_end_it(void **unused)
{
    struct hpet_wires w = wires(&irq0, &irq8, pin);

    fixture_free(m);
    w.ioapic[0].set = slow_wire;
    pin0_rises = 0;
    m = fixture_machine(1);
    hpet = hpet_create(m, HPET, &w);
    write8(timer_config(0), ENABLE | PERIODIC | VAL_SET | ROUTE(20));
    write8(comparator(0), 5000);
    write4(CFG, 1);
    clock_set(&m->clock, 10 * 5000);
    timer_queue_run(&m->timers);
    assert_true(pin0_rises >= 1);
    assert_true(timer_queue_next(&m->timers) <= clock_now(&m->clock)); /* that of 10000 is overdue */
}

/* A register access between a match and its callback does not lose the match. */
static void accesses_do_not_lose_a_match(void **unused)
{
    write8(timer_config(0), ENABLE | PERIODIC | VAL_SET | ROUTE(20));
    write8(comparator(0), 5000);
    write4(CFG, 1);
    clock_set(&m->clock, 10 * 5001);
    write8(timer_config(0), ENABLE | PERIODIC | ROUTE(20));
    timer_queue_run(&m->timers);
    assert_int_equal(pin[0].rises, 1);
    tick(10000);
    assert_int_equal(pin[0].rises, 2);
}

static void tiny_periods_do_not_flood(void **unused)
{
    write4(CFG, 1);
    write8(timer_config(0), ENABLE | PERIODIC | VAL_SET | ROUTE(20));
    write8(comparator(0), 1);
    tick(1000000);
    assert_in_range(pin[0].rises, 1, 1000000 / 2000 + 1);
}

static void legacy_replacement(void **unused)
{
    hpet_legacy_set(hpet, HPET_PIT_IN, true);
    hpet_legacy_set(hpet, HPET_RTC_IN, true);
    assert_true(irq0.level);
    assert_true(irq8.level);
    write4(CFG, 3);
    assert_false(irq0.level);
    assert_false(irq8.level);
    hpet_legacy_set(hpet, HPET_PIT_IN, false);
    hpet_legacy_set(hpet, HPET_PIT_IN, true);
    assert_int_equal(irq0.rises, 1);
    write8(timer_config(0), ENABLE | ROUTE(20));
    write8(comparator(0), 1000);
    write8(timer_config(1), ENABLE | LEVEL | ROUTE(20));
    write8(comparator(1), 1000);
    tick(1000);
    assert_int_equal(irq0.rises, 2);
    assert_true(irq8.level);
    assert_int_equal(pin[0].rises, 0);
    write4(STATUS, 2);
    assert_false(irq8.level);
    write4(CFG, 1);
    assert_true(irq0.level);
}

static void state_moves(void **unused)
{
    struct irq_probe p0 = {0}, p8 = {0}, p[HPET_ROUTES] = {0};
    struct hpet_wires w = wires(&p0, &p8, p);
    struct device *other = hpet_create(m, HPET + 0x1000, &w);

    write4(CFG, 1);
    write8(timer_config(0), ENABLE | PERIODIC | VAL_SET | ROUTE(20));
    write8(comparator(0), 5000);
    write8(timer_config(1), ENABLE | LEVEL | ROUTE(21));
    write8(comparator(1), 100);
    tick(7000);
    clock_set(&m->clock, 10 * 10001); /* a match is due, not yet delivered */
    device_state_move(hpet, other);
    assert_true(p[1].level);
    tick(10001);
    assert_int_equal(p[0].rises, 1);
    assert_int_equal(pin[0].rises, 2);
    tick(15000);
    assert_int_equal(p[0].rises, 2);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(capabilities), TEST(counter_runs_while_enabled), TEST(one_shot_edge),
        TEST(a_comparator_in_the_past_waits_for_the_wrap), TEST(level_until_status_is_cleared),
        TEST(disabling_lowers_the_wire), TEST(routes_that_do_not_exist_do_not_stick), TEST(periodic_by_two_writes),
        TEST(periodic_by_one_write), TEST(missed_periods_are_one),
        TEST(a_host_that_stops_us_in_a_match_does_not_end_it), TEST(accesses_do_not_lose_a_match),
        TEST(tiny_periods_do_not_flood), TEST(legacy_replacement), TEST(state_moves)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
