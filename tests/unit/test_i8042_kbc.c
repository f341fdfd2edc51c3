/* The keyboard controller and its keyboard: what systems do to find, configure and read them; reset; port 0x92. */
#include "device_state.h"
#include "dev/i8042_kbc.h"
#include "machine_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { DATA = 0x60, COMMAND = 0x64, CONTROL = 0x92 };
enum { OBF = 1, SYS = 4, AUX = 0x20, TIMEOUT = 0x40 };
enum { IRQ1 = 1, IRQ12 = 2, KBD_OFF = 0x10, AUX_OFF = 0x20, TRANSLATE = 0x40 };

static struct machine *m;
static struct device *kbc;
static struct irq_probe irq1, irq12;

static void command(unsigned val)
{
    pio_write(m, COMMAND, 1, val);
}

static void data(unsigned val)
{
    pio_write(m, DATA, 1, val);
}

static unsigned status(void)
{
    return (unsigned)pio_read(m, COMMAND, 1);
}

static unsigned get(void)
{
    assert_true(status() & OBF);
    return (unsigned)pio_read(m, DATA, 1);
}

static void expect(const char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        assert_int_equal(get(), (u8)bytes[i]);
    assert_false(status() & OBF);
}
#define EXPECT(bytes) expect(bytes, sizeof(bytes) - 1)

static void config(unsigned val)
{
    command(0x60);
    data(val);
}

static int setup(void **unused)
{
    struct irq wire1 = irq_probe(&irq1), wire12 = irq_probe(&irq12);

    irq1 = irq12 = (struct irq_probe){0};
    m = fixture_machine(1);
    kbc = i8042_kbc_create(m, DATA, COMMAND, CONTROL, &wire1, &wire12);
    return 0;
}

static int teardown(void **unused)
{
    fixture_free(m);
    return 0;
}

static void controller_commands(void **unused)
{
    command(0xaa);
    EXPECT("\x55");
    assert_true(status() & SYS);
    command(0xab);
    EXPECT("\x00");
    config(0x47);
    command(0x20);
    EXPECT("\x47");
    command(0xad);
    command(0x20);
    EXPECT("\x57");
    command(0xae);
    command(0xa7);
    command(0x20);
    EXPECT("\x67");
    command(0xa8);
    command(0x20);
    EXPECT("\x47");
    command(0x65);
    data(0x99);
    command(0x25);
    EXPECT("\x99");
    command(0xd0);
    assert_int_equal(get() & 3, 3);
}

static void keyboard_commands(void **unused)
{
    config(0); /* no translation */
    data(0xff);
    EXPECT("\xfa\xaa");
    data(0xf2);
    EXPECT("\xfa\xab\x83");
    data(0xed);
    EXPECT("\xfa");
    data(0x07);
    EXPECT("\xfa");
    data(0xee);
    EXPECT("\xee");
    data(0xf3);
    EXPECT("\xfa");
    data(0x20);
    EXPECT("\xfa");
    data(0xf0);
    EXPECT("\xfa");
    data(0);
    EXPECT("\xfa\x02");
    data(0xfe);
    EXPECT("\x02");
    data(0xf5);
    EXPECT("\xfa");
    i8042_kbc_key(kbc, 0x1c, false, true);
    assert_false(status() & OBF);
    data(0xf4);
    EXPECT("\xfa");
    data(0x42);
    EXPECT("\xfe");
}

static void identity_is_translated(void **unused)
{
    config(TRANSLATE);
    data(0xf2);
    EXPECT("\xfa\xab\x41");
}

static void keys(void **unused)
{
    config(TRANSLATE);
    i8042_kbc_key(kbc, 0x1c, false, true); /* A */
    i8042_kbc_key(kbc, 0x1c, false, false);
    i8042_kbc_key(kbc, 0x75, true, true); /* up arrow */
    i8042_kbc_key(kbc, 0x75, true, false);
    EXPECT("\x1e\x9e\xe0\x48\xe0\xc8");
    config(0);
    i8042_kbc_key(kbc, 0x75, true, false);
    i8042_kbc_pause_key(kbc);
    EXPECT("\xe0\xf0\x75\xe1\x14\x77\xe1\xf0\x14\xf0\x77");
    data(0xf0);
    data(1);
    EXPECT("\xfa\xfa");
    i8042_kbc_key(kbc, 0x1c, false, false);
    EXPECT("\x9e");
}

static void interrupts_byte_by_byte(void **unused)
{
    config(TRANSLATE | IRQ1);
    i8042_kbc_key(kbc, 0x75, true, true);
    assert_int_equal(irq1.rises, 1);
    get();
    assert_int_equal(irq1.rises, 2); /* it fell and rose */
    assert_true(irq1.level);
    get();
    assert_false(irq1.level);
    config(TRANSLATE);
    i8042_kbc_key(kbc, 0x1c, false, true);
    assert_false(irq1.level);
    config(TRANSLATE | IRQ1);
    assert_true(irq1.level);
}

static void disabled_keyboard_holds_back(void **unused)
{
    config(KBD_OFF);
    i8042_kbc_key(kbc, 0x1c, false, true);
    assert_false(status() & OBF);
    command(0xae);
    EXPECT("\x1c");
}

static void queue_is_bounded(void **unused)
{
    config(KBD_OFF);
    for (int i = 0; i < 1000; i++)
        i8042_kbc_key(kbc, 0x75, true, i & 1);
    command(0xae);
    for (int i = 0; i < 15; i++)
        get();
    assert_false(status() & OBF); /* whole sequences only: 3 + 2 + 3 + 2 + 3 + 2 */
}

static void nothing_on_the_second_port(void **unused)
{
    config(IRQ12);
    command(0xa9);
    EXPECT("\x00");
    command(0xd3);
    data(0x5a);
    assert_int_equal(status() & (OBF | AUX | TIMEOUT), OBF | AUX);
    assert_true(irq12.level);
    EXPECT("\x5a");
    assert_false(irq12.level);
    command(0xd4);
    data(0xf2);
    assert_int_equal(status() & (OBF | AUX | TIMEOUT), OBF | AUX | TIMEOUT);
    EXPECT("\xfe");
    assert_int_equal(status() & TIMEOUT, 0);
}

static void a20(void **unused)
{
    assert_int_equal(pio_read(m, CONTROL, 1), 2);
    command(0xd1);
    data(0xdd);
    assert_int_equal(pio_read(m, CONTROL, 1), 0);
    assert_true(fake_vcpu_log(m->cpus)->a20_closed);
    pio_write(m, CONTROL, 1, 2);
    assert_false(fake_vcpu_log(m->cpus)->a20_closed);
    command(0xd0);
    assert_int_equal(get() & 2, 2);
    assert_false(m->reset_wanted);
}

static void reset_pulse(void **unused)
{
    command(0xff);
    assert_false(m->reset_wanted);
    command(0xfe);
    assert_true(m->reset_wanted);
}

static void reset_by_output_port(void **unused)
{
    command(0xd1);
    data(0xde);
    assert_true(m->reset_wanted);
}

static void reset_by_port_92(void **unused)
{
    pio_write(m, CONTROL, 1, 3);
    assert_true(m->reset_wanted);
}

static void any_bytes_do_no_harm(void **unused)
{
    srandom(1);
    for (int i = 0; i < 100000; i++) {
        switch (random() % 5) {
        case 0: command((unsigned)random() & 0xff); break;
        case 1: data((unsigned)random() & 0xff); break;
        case 2: i8042_kbc_key(kbc, (u8)random(), random() & 1, random() & 1); break;
        case 3: i8042_kbc_pause_key(kbc); break;
        default: pio_read(m, DATA, 1);
        }
    }
}

static void state_moves(void **unused)
{
    struct irq_probe other_irq1 = {0};
    struct irq wire = irq_probe(&other_irq1);
    struct device *other = i8042_kbc_create(m, 0x160, 0x164, 0x192, &wire, NULL);

    i8042_kbc_key(kbc, 0x75, true, false);
    get();
    command(0x60);
    device_state_move(kbc, other);
    assert_true(other_irq1.level);
    assert_int_equal(pio_read(m, 0x160, 1), 0xc8);
    pio_write(m, 0x160, 1, 0);
    pio_write(m, 0x164, 1, 0x20);
    assert_int_equal(pio_read(m, 0x160, 1), 0);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(controller_commands), TEST(keyboard_commands), TEST(identity_is_translated), TEST(keys),
        TEST(interrupts_byte_by_byte), TEST(disabled_keyboard_holds_back), TEST(queue_is_bounded),
        TEST(nothing_on_the_second_port), TEST(a20), TEST(reset_pulse), TEST(reset_by_output_port),
        TEST(reset_by_port_92), TEST(any_bytes_do_no_harm), TEST(state_moves)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
