/* The real-time clock: date and time in every format, setting it, update cycle, alarm, periodic interrupt, CMOS RAM.
 * The host's real time is the test's. */
#include "device_state.h"
#include "dev/mc146818_rtc.h"
#include "machine_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>

enum { RTC = 0x70, A = 0x0a, B = 0x0b, C = 0x0c, D = 0x0d, CENTURY = 0x32 };
enum { SET = 0x80, PIE = 0x40, AIE = 0x20, UIE = 0x10, BINARY = 4, H24 = 2 };
#define SECOND 1000000000ull
#define EPOCH 1700000000ull /* 2023-11-14 22:13:20 UTC, a Tuesday */

static u64 real_time; /* ns */
static struct machine *m;
static struct device *rtc;
static struct irq_probe irq;

/* Takes the place of libc's. Everything but the real-time clock stands still, as the machine's clock is the
 * fixture's. */
int clock_gettime(clockid_t id, struct timespec *ts)
{
    u64 now = id == CLOCK_REALTIME ? real_time : 0;

    *ts = (struct timespec){.tv_sec = (time_t)(now / SECOND), .tv_nsec = (long)(now % SECOND)};
    return 0;
}

/* Both clocks, in steps that let timers run at about their moment. */
static void pass(u64 ns)
{
    for (u64 step; ns; ns -= step) {
        step = MIN(ns, 10000000);
        real_time += step;
        fixture_time(m, machine_now(m) + step);
    }
}

static u8 reg(int index)
{
    pio_write(m, RTC, 1, (u64)index);
    return (u8)pio_read(m, RTC + 1, 1);
}

static void reg_set(int index, unsigned val)
{
    pio_write(m, RTC, 1, (u64)index);
    pio_write(m, RTC + 1, 1, val);
}

static int setup(void **unused)
{
    struct irq wire = irq_probe(&irq);

    irq = (struct irq_probe){0};
    real_time = EPOCH * SECOND;
    m = fixture_machine(1);
    rtc = mc146818_rtc_create(m, RTC, &wire);
    return 0;
}

static int teardown(void **unused)
{
    fixture_free(m);
    return 0;
}

static void shows_the_hosts_time(void **unused)
{
    assert_int_equal(reg(0), 0x20);
    assert_int_equal(reg(2), 0x13);
    assert_int_equal(reg(4), 0x22);
    assert_int_equal(reg(6), 3);
    assert_int_equal(reg(7), 0x14);
    assert_int_equal(reg(8), 0x11);
    assert_int_equal(reg(9), 0x23);
    assert_int_equal(reg(CENTURY), 0x20);
    assert_int_equal(reg(D), 0x80);
    pass(100 * SECOND);
    assert_int_equal(reg(0), 0x00);
    assert_int_equal(reg(2), 0x15);
}

static void formats(void **unused)
{
    reg_set(B, BINARY | H24);
    assert_int_equal(reg(4), 22);
    assert_int_equal(reg(9), 23);
    reg_set(B, BINARY);
    assert_int_equal(reg(4), 0x80 | 10);
    reg_set(B, 0);
    assert_int_equal(reg(4), 0x80 | 0x10);
    pass(2 * 3600 * SECOND); /* past midnight: 12 AM */
    assert_int_equal(reg(4), 0x12);
    pass(12 * 3600 * SECOND);
    assert_int_equal(reg(4), 0x92);
}

static void twelve_hours_can_be_set(void **unused)
{
    reg_set(B, SET);
    reg_set(4, 0x92); /* 12 PM */
    reg_set(B, 0);
    reg_set(B, H24);
    assert_int_equal(reg(4), 0x12);
    reg_set(B, SET);
    reg_set(4, 0x12); /* 12 AM */
    reg_set(B, 0);
    reg_set(B, H24);
    assert_int_equal(reg(4), 0x00);
}

/* As Linux does it: SET and divider reset, write, let go. The second turns 500 ms after the divider starts. */
static void setting_the_time(void **unused)
{
    pass(300000000);
    reg_set(B, SET | H24);
    reg_set(A, 0x76);
    reg_set(0, 0x58);
    reg_set(2, 0x59);
    reg_set(4, 0x23);
    reg_set(7, 0x29);
    reg_set(8, 0x02);
    reg_set(9, 0x28);
    reg_set(CENTURY, 0x20);
    pass(5 * SECOND);
    assert_int_equal(reg(0), 0x58); /* it stands */
    reg_set(B, H24);
    reg_set(A, 0x26);
    pass(490000000);
    assert_int_equal(reg(0), 0x58);
    pass(20000000);
    assert_int_equal(reg(0), 0x59);
    pass(SECOND);
    assert_int_equal(reg(0), 0x00);
    assert_int_equal(reg(4), 0x00);
    assert_int_equal(reg(7), 0x01);
    assert_int_equal(reg(8), 0x03);
    pass(3600 * SECOND);
    assert_int_equal(reg(4), 0x01);
}

static void writes_without_set_take_effect_too(void **unused)
{
    reg_set(2, 0x45);
    assert_int_equal(reg(2), 0x45);
    pass(60 * SECOND);
    assert_int_equal(reg(2), 0x46);
    assert_int_equal(reg(0), 0x20);
}

static void nonsense_is_survived(void **unused)
{
    for (unsigned val = 0; val < 256; val += 5) {
        for (int i = 0; i < 10; i++)
            reg_set(i, val ^ (unsigned)i);
        reg_set(CENTURY, val);
        reg_set(B, val & 0x7f);
        reg_set(A, val);
        pass(SECOND);
        for (int i = 0; i < 14; i++)
            reg(i);
    }
}

static void update_in_progress(void **unused)
{
    assert_int_equal(reg(A) & 0x80, 0);
    pass(997000000);
    assert_int_equal(reg(A) & 0x80, 0);
    pass(1000000);
    assert_int_equal(reg(A) & 0x80, 0x80);
    assert_int_equal(reg(0), 0x20);
    pass(2000000);
    assert_int_equal(reg(A) & 0x80, 0);
    assert_int_equal(reg(0), 0x21);
    reg_set(B, SET | H24);
    pass(998000000);
    assert_int_equal(reg(A) & 0x80, 0);
}

static void update_interrupt(void **unused)
{
    pass(SECOND);
    assert_int_equal(reg(C), 0x50); /* PF and UF, no interrupt enabled */
    assert_int_equal(reg(C), 0);
    reg_set(B, UIE | H24);
    for (int n = 1; n <= 5; n++) {
        pass(SECOND);
        assert_int_equal(irq.rises, n);
        assert_true(irq.level);
        assert_int_equal(reg(C) & 0xb0, 0x90);
        assert_false(irq.level);
    }
    reg_set(B, UIE | SET | H24); /* SET clears UIE */
    assert_int_equal(reg(B), SET | H24);
}

static void alarm(void **unused)
{
    reg_set(1, 0x25);
    reg_set(3, 0x13);
    reg_set(5, 0x22);
    reg_set(B, AIE | H24);
    pass(4 * SECOND);
    assert_int_equal(irq.rises, 0);
    pass(SECOND);
    assert_int_equal(irq.rises, 1);
    assert_int_equal(reg(C) & 0xa0, 0xa0);
    pass(3600 * SECOND);
    assert_int_equal(irq.rises, 1);
    reg_set(1, 0xc0); /* every second */
    reg_set(3, 0xff);
    reg_set(5, 0xc0);
    pass(SECOND);
    assert_int_equal(irq.rises, 2);
}

/* The machine stood still over the alarm's moment. */
static void a_missed_alarm_counts(void **unused)
{
    reg_set(1, 0x00);
    reg_set(3, 0x30);
    reg_set(5, 0x22);
    reg_set(B, AIE | H24);
    real_time += 3600 * SECOND;
    pass(SECOND);
    assert_int_equal(irq.rises, 1);
}

static void periodic_rate(void **unused)
{
    reg_set(A, 0x26); /* 1024 Hz */
    reg_set(B, PIE | H24);
    for (u64 n = 0; n < 3 * 1024; n++) {
        fixture_time(m, ((n + 1) * SECOND + 1023) / 1024 - 1);
        assert_int_equal(irq.rises, n);
        fixture_time(m, ((n + 1) * SECOND + 1023) / 1024);
        assert_int_equal(irq.rises, n + 1);
        assert_int_equal(reg(C) & 0xc0, 0xc0);
    }
}

static void slow_rates_alias_fast_ones(void **unused)
{
    reg_set(A, 0x21); /* 256 Hz */
    reg_set(B, PIE | H24);
    fixture_time(m, SECOND / 256 - 1);
    assert_int_equal(irq.rises, 0);
    fixture_time(m, SECOND / 256 + 1);
    assert_int_equal(irq.rises, 1);
}

static void periodic_flag_without_interrupt(void **unused)
{
    reg(C);
    assert_int_equal(reg(C), 0);
    fixture_time(m, machine_now(m) + SECOND / 512);
    assert_int_equal(reg(C), 0x40);
    assert_int_equal(irq.rises, 0);
}

static void cmos_ram(void **unused)
{
    mc146818_rtc_cmos_set(rtc, 0x34, 0x12);
    assert_int_equal(reg(0x34), 0x12);
    reg_set(0x7f, 0x55);
    assert_int_equal(mc146818_rtc_cmos_get(rtc, 0x7f), 0x55);
    pio_write(m, RTC + 2, 1, 0x10);
    pio_write(m, RTC + 3, 1, 0x77);
    assert_int_equal(mc146818_rtc_cmos_get(rtc, 0x90), 0x77);
    assert_int_equal(reg(0x10), 0);
    rtc->type->reset(rtc);
    assert_int_equal(reg(0x34), 0x12);
}

static void nmi_mask(void **unused)
{
    pio_write(m, RTC, 1, 0x80 | 4);
    assert_true(mc146818_rtc_nmi_masked(rtc));
    assert_int_equal(pio_read(m, RTC + 1, 1), 0x22);
    pio_write(m, RTC, 1, 4);
    assert_false(mc146818_rtc_nmi_masked(rtc));
}

static void state_moves(void **unused)
{
    struct irq_probe other_irq = {0};
    struct irq wire = irq_probe(&other_irq);
    struct device *other = mc146818_rtc_create(m, 0x170, &wire);

    reg_set(2, 0x45);
    reg_set(B, UIE | H24);
    pass(SECOND);
    device_state_move(rtc, other);
    assert_true(other_irq.level);
    pio_write(m, 0x170, 1, 2);
    assert_int_equal(pio_read(m, 0x171, 1), 0x45);
    pio_write(m, 0x170, 1, C);
    pio_read(m, 0x171, 1);
    pass(SECOND);
    assert_int_equal(other_irq.rises, 2);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(shows_the_hosts_time), TEST(formats), TEST(twelve_hours_can_be_set), TEST(setting_the_time),
        TEST(writes_without_set_take_effect_too), TEST(nonsense_is_survived), TEST(update_in_progress),
        TEST(update_interrupt), TEST(alarm), TEST(a_missed_alarm_counts), TEST(periodic_rate),
        TEST(slow_rates_alias_fast_ones), TEST(periodic_flag_without_interrupt), TEST(cmos_ram), TEST(nmi_mask),
        TEST(state_moves)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
