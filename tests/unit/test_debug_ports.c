/* The debug console (0xE9) and the debug exit (0xF4). */
#include "dev/debugcon.h"
#include "dev/isa_debug_exit.h"
#include "fake_console.h"
#include "machine_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static struct machine *m;

static int setup(void **unused)
{
    m = fixture_machine(1);
    return 0;
}

static int teardown(void **unused)
{
    fixture_free(m);
    return 0;
}

static void debugcon(void **unused)
{
    struct console console = {0};

    debugcon_create(m, 0xe9, &console);
    assert_int_equal(pio_read(m, 0xe9, 1), 0xe9);
    pio_write(m, 0xe9, 1, 'o');
    pio_write(m, 0xe9, 1, 'k');
    assert_int_equal(console.written_count, 2);
    assert_memory_equal(console.written, "ok", 2);
}

static void debug_exit(void **unused)
{
    isa_debug_exit_create(m, 0xf4);
    assert_int_equal(pio_read(m, 0xf4, 1), 0xff);
    assert_int_equal(m->end, MACHINE_RUNNING);
    pio_write(m, 0xf4, 1, 0x10);
    assert_int_equal(m->end, MACHINE_DEBUG_EXIT);
    assert_int_equal(m->end_value, 0x21);
    pio_write(m, 0xf4, 4, 0); /* the first one counts */
    assert_int_equal(m->end_value, 0x21);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(debugcon, setup, teardown),
                                       cmocka_unit_test_setup_teardown(debug_exit, setup, teardown)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
