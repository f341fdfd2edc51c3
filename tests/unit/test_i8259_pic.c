/* The 8259A pair: priorities, EOI forms, rotation, special modes, poll, cascade, edge and level. */
#include "device_state.h"
#include "dev/i8259_pic.h"
#include "machine_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

enum { MASTER = 0x20, SLAVE = 0xa0, ELCR = 0x4d0 };
enum { BASE = 0x30, SLAVE_BASE = 0x38, EOI = 0x20, READ_IRR = 0x0a, READ_ISR = 0x0b, POLL = 0x0c };

static struct machine *m;
static struct device *pic;
static struct irq_probe intr;

static void out(u16 port, u8 val)
{
    pio_write(m, port, 1, val);
}

static u8 in(u16 port)
{
    return (u8)pio_read(m, port, 1);
}

static u8 isr(u16 port)
{
    out(port, READ_ISR);
    return in(port);
}

static u8 irr(u16 port)
{
    out(port, READ_IRR);
    return in(port);
}

static void set(int irq, bool level)
{
    i8259_pic_set(pic, irq, level);
}

static int ack(void)
{
    return i8259_pic_ack(pic);
}

static void init_chips(u8 icw4)
{
    out(MASTER, 0x11);
    out(MASTER + 1, BASE);
    out(MASTER + 1, 0x04);
    out(MASTER + 1, icw4);
    out(SLAVE, 0x11);
    out(SLAVE + 1, SLAVE_BASE);
    out(SLAVE + 1, 0x02);
    out(SLAVE + 1, icw4);
}

static int setup(void **unused)
{
    struct irq wire = irq_probe(&intr);

    intr = (struct irq_probe){0};
    m = fixture_machine(1);
    pic = i8259_pic_create(m, MASTER, SLAVE, ELCR, &wire);
    init_chips(0x01);
    return 0;
}

static int teardown(void **unused)
{
    fixture_free(m);
    return 0;
}

static void silent_until_initialized(void **unused)
{
    out(MASTER, 0x11);
    set(1, true);
    assert_false(intr.level);
    out(MASTER + 1, 0x77);
    assert_false(intr.level);
    out(MASTER + 1, 0x04);
    out(MASTER + 1, 0x01);
    assert_true(intr.level); /* ICW1 forgets edges, but this one came after it */
    assert_int_equal(ack(), 0x71);
}

static void icw1_forgets_edges(void **unused)
{
    set(1, true);
    init_chips(0x01);
    assert_int_equal(irr(MASTER), 0);
    assert_false(intr.level);
    set(1, false);
    set(1, true);
    assert_true(intr.level);
}

static void single_mode_without_icw4(void **unused)
{
    out(MASTER, 0x12);
    out(MASTER + 1, 0x40);
    out(MASTER + 1, 0xfe); /* already OCW1 */
    assert_int_equal(in(MASTER + 1), 0xfe);
    set(0, true);
    assert_int_equal(ack(), 0x40);
}

static void an_edge_is_taken_once(void **unused)
{
    set(4, true);
    assert_true(intr.level);
    assert_int_equal(irr(MASTER), 0x10);
    assert_int_equal(ack(), BASE + 4);
    assert_false(intr.level);
    assert_int_equal(irr(MASTER), 0);
    assert_int_equal(isr(MASTER), 0x10);
    out(MASTER, EOI);
    assert_int_equal(isr(MASTER), 0);
    assert_false(intr.level);
    set(4, false);
    assert_false(intr.level);
    set(4, true);
    assert_true(intr.level);
}

static void an_edge_during_service_waits(void **unused)
{
    set(4, true);
    ack();
    set(4, false);
    set(4, true);
    assert_false(intr.level);
    out(MASTER, EOI);
    assert_true(intr.level);
    assert_int_equal(ack(), BASE + 4);
}

static void priorities_nest(void **unused)
{
    set(6, true);
    assert_int_equal(ack(), BASE + 6);
    set(7, true);
    assert_false(intr.level);
    set(3, true);
    assert_true(intr.level);
    assert_int_equal(ack(), BASE + 3);
    assert_int_equal(isr(MASTER), 0x48);
    out(MASTER, EOI); /* the highest in service */
    assert_int_equal(isr(MASTER), 0x40);
    assert_false(intr.level);
    out(MASTER, EOI);
    assert_int_equal(ack(), BASE + 7);
}

static void specific_eoi(void **unused)
{
    set(6, true);
    ack();
    set(3, true);
    ack();
    out(MASTER, 0x60 | 6);
    assert_int_equal(isr(MASTER), 0x08);
}

static void masks_hold_back(void **unused)
{
    out(MASTER + 1, 0x10);
    set(4, true);
    assert_false(intr.level);
    assert_int_equal(irr(MASTER), 0x10);
    out(MASTER + 1, 0);
    assert_true(intr.level);
}

static void level_triggered_follows_the_pin(void **unused)
{
    out(ELCR, 0xff);
    out(ELCR + 1, 0xff);
    assert_int_equal(in(ELCR), 0xf8); /* IRQ 0–2, 8, 13 stay edges */
    assert_int_equal(in(ELCR + 1), 0xde);
    set(5, true);
    assert_int_equal(ack(), BASE + 5);
    out(MASTER, EOI);
    assert_true(intr.level); /* still asserted */
    assert_int_equal(ack(), BASE + 5);
    set(5, false);
    out(MASTER, EOI);
    assert_false(intr.level);
}

static void a_vanished_request_is_spurious(void **unused)
{
    out(ELCR, 0x20);
    set(5, true);
    assert_true(intr.level);
    set(5, false);
    assert_false(intr.level);
    assert_int_equal(ack(), BASE + 7);
    assert_int_equal(isr(MASTER), 0);
}

static void the_cascade(void **unused)
{
    set(12, true);
    assert_true(intr.level);
    assert_int_equal(irr(MASTER), 0x04);
    assert_int_equal(ack(), SLAVE_BASE + 4);
    assert_int_equal(isr(MASTER), 0x04);
    assert_int_equal(isr(SLAVE), 0x10);
    set(4, true); /* below the cascade */
    assert_false(intr.level);
    out(SLAVE, EOI);
    out(MASTER, EOI);
    assert_int_equal(ack(), BASE + 4);
}

static void a_masked_slave_withdraws_its_request(void **unused)
{
    set(9, true);
    assert_true(intr.level);
    out(SLAVE + 1, 0x02);
    assert_false(intr.level);
    assert_int_equal(ack(), BASE + 7);
    out(SLAVE + 1, 0);
    assert_int_equal(ack(), SLAVE_BASE + 1);
}

/* Without special fully nested mode the master holds back the slave's higher request while IR2 is in service. */
static void special_fully_nested(void **unused)
{
    set(12, true);
    ack();
    set(9, true);
    assert_false(intr.level);
    init_chips(0x01);
    out(MASTER, 0x11);
    out(MASTER + 1, BASE);
    out(MASTER + 1, 0x04);
    out(MASTER + 1, 0x11);
    set(9, false);
    set(12, false);
    set(12, true);
    assert_int_equal(ack(), SLAVE_BASE + 4);
    set(9, true);
    assert_true(intr.level);
    assert_int_equal(ack(), SLAVE_BASE + 1);
    set(5, true); /* but the master's own lower ones still wait */
    assert_false(intr.level);
}

static void rotation(void **unused)
{
    set(3, true);
    ack();
    out(MASTER, 0xa0); /* rotate on non-specific EOI: 3 becomes the lowest */
    set(3, false);
    set(3, true);
    set(4, true);
    assert_int_equal(ack(), BASE + 4);
    out(MASTER, 0xe0 | 4); /* rotate on specific EOI */
    set(0, true);
    set(5, true);
    assert_int_equal(ack(), BASE + 5);
    out(MASTER, EOI);
    out(MASTER, 0xc0 | 7); /* set priority: back to 7 lowest */
    assert_int_equal(ack(), BASE + 0);
}

static void automatic_eoi(void **unused)
{
    init_chips(0x03);
    set(6, true);
    assert_int_equal(ack(), BASE + 6);
    assert_int_equal(isr(MASTER), 0);
    out(MASTER, 0x80); /* rotate in AEOI mode */
    set(1, true);
    set(2 + 1, true);
    assert_int_equal(ack(), BASE + 1);
    set(1, false);
    set(1, true);
    assert_int_equal(ack(), BASE + 3); /* 1 went to the end */
    assert_int_equal(ack(), BASE + 1);
}

/* In automatic EOI mode a slave whose second request waits must raise INTR anew. */
static void automatic_eoi_through_the_cascade(void **unused)
{
    init_chips(0x03);
    set(9, true);
    set(10, true);
    assert_int_equal(ack(), SLAVE_BASE + 1);
    assert_true(intr.level);
    assert_int_equal(ack(), SLAVE_BASE + 2);
    assert_false(intr.level);
}

static void special_mask(void **unused)
{
    set(2 + 1, true);
    ack();
    set(6, true);
    assert_false(intr.level);
    out(MASTER, 0x68); /* special mask mode */
    out(MASTER + 1, 0x08);
    assert_true(intr.level);
    assert_int_equal(ack(), BASE + 6);
    out(MASTER, EOI); /* spares the masked one */
    assert_int_equal(isr(MASTER), 0x08);
    out(MASTER, 0x48);
    out(MASTER, EOI);
    assert_int_equal(isr(MASTER), 0);
}

static void poll(void **unused)
{
    out(MASTER, POLL);
    assert_int_equal(in(MASTER), 0);
    set(6, true);
    out(MASTER, POLL);
    assert_int_equal(in(MASTER), 0x86);
    assert_int_equal(isr(MASTER), 0x40);
    assert_false(intr.level);
    assert_int_equal(in(MASTER + 1), 0); /* the poll is over: this is IMR */
}

static void intr_drops_between_two_acknowledges(void **unused)
{
    set(1, true);
    set(0, true);
    intr.rises = 0;
    ack();
    out(MASTER, EOI);
    assert_int_equal(intr.rises, 1);
    assert_true(intr.level);
}

static void state_moves(void **unused)
{
    struct irq_probe other_intr = {0};
    struct irq wire = irq_probe(&other_intr);
    struct device *other = i8259_pic_create(m, 0x120, 0x1a0, 0x5d0, &wire);

    out(ELCR, 0x20);
    out(MASTER, 0xc0 | 4);
    set(12, true);
    ack();
    set(5, true);
    device_state_move(pic, other);
    assert_int_equal(other_intr.level, intr.level);
    assert_int_equal(i8259_pic_ack(other), i8259_pic_ack(pic));
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(silent_until_initialized), TEST(icw1_forgets_edges), TEST(single_mode_without_icw4),
        TEST(an_edge_is_taken_once), TEST(an_edge_during_service_waits), TEST(priorities_nest), TEST(specific_eoi),
        TEST(masks_hold_back), TEST(level_triggered_follows_the_pin), TEST(a_vanished_request_is_spurious),
        TEST(the_cascade), TEST(a_masked_slave_withdraws_its_request), TEST(special_fully_nested), TEST(rotation),
        TEST(automatic_eoi), TEST(automatic_eoi_through_the_cascade), TEST(special_mask), TEST(poll),
        TEST(intr_drops_between_two_acknowledges), TEST(state_moves)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
