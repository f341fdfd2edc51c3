/* The I/O APIC: registers, edge and level delivery, remote IRR, EOI. Messages are what the fake vCPUs wrote down. */
#include "device_state.h"
#include "dev/ioapic_82093aa.h"
#include "machine_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#define IOAPIC 0xfec00000ull
enum { LEVEL = 0x8000, MASKED = 0x10000, LOGICAL = 0x800, REMOTE_IRR = 0x4000 };

static struct machine *m;
static struct device *ioapic;
static struct fake_vcpu_log *seen;

static void reg_write(u8 reg, u32 val)
{
    mmio_write(m, IOAPIC, 4, reg);
    mmio_write(m, IOAPIC + 0x10, 4, val);
}

static u32 reg_read(u8 reg)
{
    mmio_write(m, IOAPIC, 4, reg);
    return (u32)mmio_read(m, IOAPIC + 0x10, 4);
}

static void route(int pin, u32 low, u8 dest)
{
    reg_write((u8)(0x11 + 2 * pin), (u32)dest << 24);
    reg_write((u8)(0x10 + 2 * pin), low);
}

static void set(int pin, bool level)
{
    ioapic_82093aa_set(ioapic, pin, level);
}

static int setup(void **unused)
{
    m = fixture_machine(2);
    ioapic = ioapic_82093aa_create(m, IOAPIC, 2);
    m->ioapic = ioapic;
    m->ioapic_eoi = ioapic_82093aa_eoi;
    seen = fake_vcpu_log(m->cpus);
    return 0;
}

static int teardown(void **unused)
{
    fixture_free(m);
    return 0;
}

static void registers(void **unused)
{
    assert_int_equal(reg_read(0), 0x02000000);
    assert_int_equal(reg_read(1), 0x00170020);
    assert_int_equal(reg_read(0x10 + 2 * 23), MASKED);
    reg_write(0, 0xffffffff);
    assert_int_equal(reg_read(0), 0x0f000000);
    reg_write(1, 0);
    assert_int_equal(reg_read(1), 0x00170020);
    reg_write(0x3e, UINT32_MAX);
    assert_int_equal(reg_read(0x3e), 0x1ffff & ~0x5000); /* read-only bits stay */
    reg_write(0x3f, UINT32_MAX);
    assert_int_equal(reg_read(0x3f), 0xff000000);
    assert_int_equal(reg_read(0x40), 0); /* behind the last entry */
    reg_write(0xff, 1);
}

static void edges_are_sent_once(void **unused)
{
    route(4, 0x34 | LOGICAL | 1 << 8, 3);
    set(4, true);
    set(4, true);
    assert_int_equal(seen->message_count, 1);
    assert_int_equal(seen->message[0].vector, 0x34);
    assert_int_equal(seen->message[0].dest, 3);
    assert_int_equal(seen->message[0].delivery, APIC_LOWEST);
    assert_true(seen->message[0].logical);
    assert_false(seen->message[0].level_triggered);
    set(4, false);
    set(4, true);
    assert_int_equal(seen->message_count, 2);
}

static void masked_edges_are_lost(void **unused)
{
    route(4, 0x34 | MASKED, 0);
    set(4, true);
    route(4, 0x34, 0);
    assert_int_equal(seen->message_count, 0);
}

static void levels_wait_for_eoi(void **unused)
{
    route(10, 0x50 | LEVEL, 1);
    set(10, true);
    assert_int_equal(seen->message_count, 1);
    assert_true(seen->message[0].level_triggered);
    assert_int_equal(reg_read(0x24) & REMOTE_IRR, REMOTE_IRR);
    set(10, false);
    set(10, true);
    assert_int_equal(seen->message_count, 1);
    ioapic_82093aa_eoi(ioapic, 0x51);
    assert_int_equal(seen->message_count, 1);
    ioapic_82093aa_eoi(ioapic, 0x50); /* still asserted: again */
    assert_int_equal(seen->message_count, 2);
    set(10, false);
    ioapic_82093aa_eoi(ioapic, 0x50);
    assert_int_equal(seen->message_count, 2);
    assert_int_equal(reg_read(0x24) & REMOTE_IRR, 0);
}

static void masked_levels_wait(void **unused)
{
    route(10, 0x50 | LEVEL | MASKED, 1);
    set(10, true);
    assert_int_equal(seen->message_count, 0);
    route(10, 0x50 | LEVEL, 1);
    assert_int_equal(seen->message_count, 1);
}

static void eoi_register(void **unused)
{
    route(10, 0x50 | LEVEL, 1);
    set(10, true);
    mmio_write(m, IOAPIC + 0x40, 4, 0x50);
    assert_int_equal(seen->message_count, 2);
}

static void two_pins_share_a_vector(void **unused)
{
    route(10, 0x50 | LEVEL, 1);
    route(11, 0x50 | LEVEL, 1);
    set(10, true);
    set(11, true);
    assert_int_equal(seen->message_count, 2);
    set(10, false);
    ioapic_82093aa_eoi(ioapic, 0x50);
    assert_int_equal(seen->message_count, 3);
}

static void switching_to_edge_clears_remote_irr(void **unused)
{
    route(10, 0x50 | LEVEL, 1);
    set(10, true);
    route(10, 0x50 | MASKED, 1);
    assert_int_equal(reg_read(0x24) & REMOTE_IRR, 0);
    route(10, 0x50 | LEVEL, 1);
    assert_int_equal(seen->message_count, 2);
}

static void nmi_is_an_edge(void **unused)
{
    route(2, 4 << 8 | LEVEL, 1);
    set(2, true);
    assert_int_equal(seen->message[0].delivery, APIC_NMI);
    assert_false(seen->message[0].level_triggered);
    set(2, false);
    set(2, true);
    assert_int_equal(seen->message_count, 2);
}

static void narrow_accesses(void **unused)
{
    mmio_write(m, IOAPIC, 1, 1);
    assert_int_equal(mmio_read(m, IOAPIC + 0x10, 1), 0x20);
    mmio_write(m, IOAPIC, 1, 0x10);
    mmio_write(m, IOAPIC + 0x10, 1, 0x55); /* the window takes doublewords */
    assert_int_equal(reg_read(0x10), MASKED);
}

static void state_moves(void **unused)
{
    struct device *other = ioapic_82093aa_create(m, IOAPIC + 0x1000, 5);

    route(10, 0x50 | LEVEL, 1);
    set(10, true);
    device_state_move(ioapic, other);
    assert_int_equal(seen->message_count, 1);
    ioapic_82093aa_eoi(other, 0x50);
    assert_int_equal(seen->message_count, 2);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(registers), TEST(edges_are_sent_once), TEST(masked_edges_are_lost), TEST(levels_wait_for_eoi),
        TEST(masked_levels_wait), TEST(eoi_register), TEST(two_pins_share_a_vector),
        TEST(switching_to_edge_clears_remote_irr), TEST(nmi_is_an_edge), TEST(narrow_accesses), TEST(state_moves)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
