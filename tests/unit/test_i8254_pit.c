/* The 8254: all modes against the data sheet's waveforms, both latches, BCD, gate, port 0x61, and time without
 * drift. */
#include "device_state.h"
#include "dev/i8254_pit.h"
#include "machine_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

enum { PIT = 0x40, CONTROL = 0x43, PORT61 = 0x61 };
enum { OUT2 = 0x20, GATE2 = 1 };

static struct machine *m;
static struct device *pit;
static struct irq_probe irq0;

static void out(u16 port, unsigned val)
{
    pio_write(m, port, 1, (u8)val);
}

static unsigned in(u16 port)
{
    return (unsigned)pio_read(m, port, 1);
}

/* The clock to the middle of a tick of the PIT, counted from 0. */
static void tick(u64 n)
{
    fixture_time(m, (u64)((u128)(2 * n + 1) * 1000000000 / (2 * I8254_PIT_HZ)));
}

static void program(int channel, int mode, unsigned count)
{
    out(CONTROL, (unsigned)channel << 6 | 0x30 | (unsigned)mode << 1);
    out((u16)(PIT + channel), count & 0xff);
    out((u16)(PIT + channel), count >> 8);
}

static unsigned count(int channel)
{
    unsigned low;

    out(CONTROL, (unsigned)channel << 6);
    low = in((u16)(PIT + channel));
    return low | in((u16)(PIT + channel)) << 8;
}

static unsigned status(int channel)
{
    out(CONTROL, 0xe0u | 2u << channel);
    return in((u16)(PIT + channel));
}

static bool out2(void)
{
    return in(PORT61) & OUT2;
}

static int setup(void **unused)
{
    struct irq wire = irq_probe(&irq0);

    irq0 = (struct irq_probe){0};
    m = fixture_machine(1);
    pit = i8254_pit_create(m, PIT, PORT61, &wire);
    tick(100);
    return 0;
}

static int teardown(void **unused)
{
    fixture_free(m);
    return 0;
}

/* A count written at tick 100 is loaded with the clock after it: at 101 the counter holds it. */
static void mode0_interrupts_once(void **unused)
{
    program(0, 0, 5);
    assert_false(irq0.level);
    tick(101);
    assert_int_equal(count(0), 5);
    tick(105);
    assert_int_equal(count(0), 1);
    assert_false(irq0.level);
    tick(106);
    assert_true(irq0.level);
    assert_int_equal(count(0), 0);
    tick(107);
    assert_int_equal(count(0), 0xffff);
    tick(200000);
    assert_int_equal(irq0.rises, 1);
    program(0, 0, 9);
    assert_false(irq0.level);
}

static void mode0_first_byte_stops_the_count(void **unused)
{
    program(0, 0, 0x1000);
    tick(200);
    out(PIT, 0x10);
    tick(0x2000);
    assert_false(irq0.level);
    out(PIT, 0);
    tick(0x2000 + 0x11);
    assert_true(irq0.level);
}

static void mode0_gate_pauses(void **unused)
{
    out(PORT61, GATE2);
    program(2, 0, 10);
    tick(104); /* counted 3 */
    out(PORT61, 0);
    assert_int_equal(count(2), 7);
    tick(1000);
    assert_int_equal(count(2), 7);
    assert_false(out2());
    out(PORT61, GATE2);
    tick(1006);
    assert_false(out2());
    tick(1007);
    assert_true(out2());
}

static void mode1_is_started_by_its_gate(void **unused)
{
    program(2, 1, 4);
    assert_true(out2());
    tick(500);
    assert_true(out2());
    out(PORT61, GATE2);
    tick(501);
    assert_false(out2());
    tick(504);
    assert_false(out2());
    tick(505);
    assert_true(out2());
    out(PORT61, 0); /* the gate's fall does nothing */
    out(PORT61, GATE2);
    tick(507);
    out(PORT61, 0);
    out(PORT61, GATE2); /* triggers again */
    tick(511);
    assert_false(out2());
    tick(512);
    assert_true(out2());
}

static void mode1_new_count_waits_for_the_trigger(void **unused)
{
    program(2, 1, 4);
    out(PORT61, GATE2);
    tick(102);
    out(PIT + 2, 50);
    out(PIT + 2, 0);
    tick(105);
    assert_true(out2());
    out(PORT61, 0);
    out(PORT61, GATE2);
    tick(106 + 49);
    assert_false(out2());
    tick(106 + 50);
    assert_true(out2());
}

static void mode2_divides(void **unused)
{
    out(PORT61, GATE2);
    program(2, 2, 3);
    for (u64 t = 101; t < 120; t++) {
        tick(t);
        assert_int_equal(count(2), 3 - (t - 101) % 3);
        assert_int_equal(out2(), (t - 101) % 3 != 2);
    }
}

static void mode2_new_count_waits_for_the_period(void **unused)
{
    out(PORT61, GATE2);
    program(2, 2, 100);
    tick(150);
    out(PIT + 2, 10);
    out(PIT + 2, 0);
    assert_int_equal(status(2) & 0x40, 0x40); /* null count: not loaded yet */
    tick(200);
    assert_int_equal(count(2), 1);
    tick(201);
    assert_int_equal(count(2), 10);
    assert_int_equal(status(2) & 0x40, 0);
}

static void mode2_gate_restarts(void **unused)
{
    out(PORT61, GATE2);
    program(2, 2, 100);
    tick(150);
    out(PORT61, 0);
    assert_true(out2());
    tick(900);
    out(PORT61, GATE2);
    tick(901);
    assert_int_equal(count(2), 100);
}

static void mode3_even_and_odd(void **unused)
{
    out(PORT61, GATE2);
    program(2, 3, 6);
    for (u64 t = 101; t < 130; t++) {
        u64 phase = (t - 101) % 6;

        tick(t);
        assert_int_equal(out2(), phase < 3);
        assert_int_equal(count(2), 6 - 2 * (phase % 3));
    }
    tick(200);
    program(2, 3, 5);
    for (u64 t = 201; t < 230; t++) {
        u64 phase = (t - 201) % 5;

        tick(t);
        assert_int_equal(out2(), phase < 3);
        assert_int_equal(count(2), phase < 3 ? 4 - 2 * phase : 4 - 2 * (phase - 3));
    }
}

static void mode3_new_count_waits_for_the_half(void **unused)
{
    out(PORT61, GATE2);
    program(2, 3, 100);
    tick(120); /* in the high half, which ends at 151 */
    out(PIT + 2, 20);
    out(PIT + 2, 0);
    tick(150);
    assert_true(out2());
    tick(151);
    assert_false(out2());
    tick(160);
    assert_false(out2());
    tick(161); /* a low half of the new count */
    assert_true(out2());
    tick(171);
    assert_false(out2());
}

static void mode4_strobes(void **unused)
{
    program(0, 4, 8);
    assert_true(irq0.level);
    irq0.rises = 0;
    tick(109);
    out(PIT + 1, 0); /* any access lets OUT0 show */
    tick(110);
    assert_int_equal(irq0.rises, 1);
    tick(300000);
    assert_int_equal(irq0.rises, 1);
}

static void mode5_strobes_after_its_trigger(void **unused)
{
    program(2, 5, 8);
    tick(300);
    out(PORT61, GATE2);
    tick(308);
    assert_true(out2());
    tick(309);
    assert_false(out2());
    tick(310);
    assert_true(out2());
}

static void aliases_of_modes_2_and_3(void **unused)
{
    program(1, 6, 7);
    assert_int_equal(status(1) & 0x3f, 0x3c);
    program(1, 7, 7);
    assert_int_equal(status(1) & 0x3f, 0x3e);
}

static void channel0_ticks_without_drift(void **unused)
{
    program(0, 2, 11932);
    irq0.rises = 0;
    for (u64 n = 1; n <= 500; n++) {
        tick(101 + n * 11932 - 1);
        assert_int_equal(irq0.rises, n - 1);
        tick(101 + n * 11932);
        assert_int_equal(irq0.rises, n);
    }
}

/* The queue runs late: one edge for all that were missed, and the next one where it belongs. */
static void missed_ticks_are_one(void **unused)
{
    program(0, 2, 1000);
    irq0.rises = 0;
    clock_set(&m->clock, (u64)((u128)(101 + 25 * 1000 + 500) * 1000000000 / I8254_PIT_HZ));
    timer_queue_run(&m->timers);
    assert_int_equal(irq0.rises, 1);
    tick(101 + 26 * 1000 - 1);
    assert_int_equal(irq0.rises, 1);
    tick(101 + 26 * 1000);
    assert_int_equal(irq0.rises, 2);
}

/* A write that comes between an edge and its callback does not lose the edge. */
static void writes_do_not_lose_an_edge(void **unused)
{
    program(0, 2, 1000);
    irq0.rises = 0;
    clock_set(&m->clock, (u64)((u128)(101 + 1000 + 1) * 1000000000 / I8254_PIT_HZ));
    out(CONTROL, 0x00);
    assert_int_equal(irq0.rises, 1);
    timer_queue_run(&m->timers);
    assert_int_equal(irq0.rises, 1);
}

static void tiny_counts_do_not_flood(void **unused)
{
    program(0, 2, 1);
    irq0.rises = 0;
    tick(1000000);
    assert_int_equal(irq0.rises, 0);
    program(0, 3, 2);
    tick(2000000);
    assert_in_range(irq0.rises, 1, 1000000 / 16 + 1);
}

static void latches_hold(void **unused)
{
    program(0, 2, 0x1234);
    tick(101);
    out(CONTROL, 0x00);
    tick(301);
    out(CONTROL, 0x00); /* a second latch is ignored */
    assert_int_equal(in(PIT), 0x34);
    assert_int_equal(in(PIT), 0x12);
    assert_int_equal(in(PIT), (0x1234 - 200) & 0xff);
    assert_int_equal(in(PIT), (0x1234 - 200) >> 8);
}

static void read_back_latches_several(void **unused)
{
    program(0, 2, 0x1234);
    program(1, 2, 0x4321);
    tick(101);
    out(CONTROL, 0xc0 | 0x06); /* count and status of 0 and 1 */
    tick(2000);
    assert_int_equal(in(PIT), 0x80 | 0x34);
    assert_int_equal(in(PIT), 0x34);
    assert_int_equal(in(PIT), 0x12);
    assert_int_equal(in(PIT + 1), 0x80 | 0x34);
    assert_int_equal(in(PIT + 1), 0x21);
    assert_int_equal(in(PIT + 1), 0x43);
}

static void single_byte_access(void **unused)
{
    out(CONTROL, 0x10 | 2 << 1); /* low byte only */
    out(PIT, 200);
    tick(101);
    assert_int_equal(in(PIT), 200);
    assert_int_equal(in(PIT), 200);
    out(CONTROL, 0x20 | 2 << 1); /* high byte only */
    out(PIT, 2);
    tick(102);
    assert_int_equal(in(PIT), 2);
    tick(103);
    assert_int_equal(in(PIT), 1);
}

static void bcd(void **unused)
{
    out(CONTROL, 0x31 | 2 << 1);
    out(PIT, 0x00);
    out(PIT, 0x10); /* 1000 */
    tick(102);
    assert_int_equal(count(0), 0x0999);
    out(CONTROL, 0x31);
    out(PIT, 0);
    out(PIT, 0); /* 10000 */
    tick(103);
    assert_int_equal(count(0), 0x0000);
    tick(104);
    assert_int_equal(count(0), 0x9999);
}

static void zero_is_65536(void **unused)
{
    program(0, 2, 0);
    irq0.rises = 0;
    tick(101);
    assert_int_equal(count(0), 0);
    tick(102);
    assert_int_equal(count(0), 0xffff);
    tick(101 + 65535);
    assert_int_equal(irq0.rises, 0);
    tick(101 + 65536);
    assert_int_equal(irq0.rises, 1);
}

static void port61_bits(void **unused)
{
    unsigned first, flips = 0;

    out(PORT61, 0xff);
    assert_int_equal(in(PORT61) & 0xcf, 0x0f);
    first = in(PORT61) & 0x10;
    for (u64 t = 0; t < 1000000; t += 1000) {
        fixture_time(m, machine_now(m) + 1000);
        flips += (in(PORT61) & 0x10) != first;
        first = in(PORT61) & 0x10;
    }
    assert_in_range(flips, 65, 67); /* one a 15.085 us in 1 ms */
}

static void state_moves(void **unused)
{
    struct irq_probe other_irq0 = {0};
    struct irq wire = irq_probe(&other_irq0);
    struct device *other = i8254_pit_create(m, 0x140, 0x161, &wire);

    program(0, 2, 1000);
    out(PORT61, GATE2);
    program(2, 3, 77);
    tick(500);
    out(CONTROL, 0x00);
    in(PIT);
    device_state_move(pit, other);
    assert_int_equal(pio_read(m, 0x140, 1), in(PIT)); /* the latched high half */
    irq0.rises = other_irq0.rises = 0;
    tick(101 + 3000);
    assert_int_equal(irq0.rises, 3);
    assert_int_equal(other_irq0.rises, 3);
    assert_int_equal(pio_read(m, 0x161, 1), in(PORT61));
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(mode0_interrupts_once), TEST(mode0_first_byte_stops_the_count), TEST(mode0_gate_pauses),
        TEST(mode1_is_started_by_its_gate), TEST(mode1_new_count_waits_for_the_trigger), TEST(mode2_divides),
        TEST(mode2_new_count_waits_for_the_period), TEST(mode2_gate_restarts), TEST(mode3_even_and_odd),
        TEST(mode3_new_count_waits_for_the_half), TEST(mode4_strobes), TEST(mode5_strobes_after_its_trigger),
        TEST(aliases_of_modes_2_and_3), TEST(channel0_ticks_without_drift), TEST(missed_ticks_are_one),
        TEST(writes_do_not_lose_an_edge), TEST(tiny_counts_do_not_flood), TEST(latches_hold),
        TEST(read_back_latches_several), TEST(single_byte_access), TEST(bcd), TEST(zero_is_65536), TEST(port61_bits),
        TEST(state_moves)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
