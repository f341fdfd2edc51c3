/* The 16550: registers, FIFOs and their trigger levels, interrupt priorities, loopback, modem status, and what
 * drivers probe. */
#include "device_state.h"
#include "dev/ns16550_uart.h"
#include "fake_console.h"
#include "machine_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { COM1 = 0x3f8 };
enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR, FCR = IIR };
enum { RX = 1, THRE = 2, LINE = 4, MODEM = 8 };                    /* IER */
enum { NONE = 1, I_THRE = 2, I_RX = 4, I_LINE = 6, I_TIMEOUT = 12 }; /* IIR */
enum { DR = 1, OE = 2, BI = 0x10, L_THRE = 0x20, TEMT = 0x40, FIFO_ERROR = 0x80 };
enum { DTR = 1, RTS = 2, OUT1 = 4, OUT2 = 8, LOOP = 0x10 };

static struct machine *m;
static struct device *uart;
static struct console console;
static struct irq_probe irq;

static void out(int reg, unsigned val)
{
    pio_write(m, (u16)(COM1 + reg), 1, val);
}

static unsigned in(int reg)
{
    return (unsigned)pio_read(m, (u16)(COM1 + reg), 1);
}

static void pass(u64 ns)
{
    fixture_time(m, machine_now(m) + ns);
}

static int setup(void **unused)
{
    struct irq wire = irq_probe(&irq);

    irq = (struct irq_probe){0};
    console = (struct console){0};
    m = fixture_machine(1);
    uart = ns16550_uart_create(m, COM1, &wire, &console);
    out(MCR, OUT2);
    out(LCR, 3);
    in(MSR);
    return 0;
}

static int teardown(void **unused)
{
    fixture_free(m);
    return 0;
}

static void probed_as_16550a(void **unused)
{
    assert_int_equal(in(IIR), NONE);
    out(FCR, 0x01);
    assert_int_equal(in(IIR), 0xc0 | NONE);
    out(FCR, 0x00);
    assert_int_equal(in(IIR), NONE);
    out(SCR, 0xa5);
    assert_int_equal(in(SCR), 0xa5);
    out(IER, 0xff);
    assert_int_equal(in(IER), 0x0f);
    assert_int_equal(in(LSR), L_THRE | TEMT);
    assert_int_equal(in(MSR), 0xb0);
}

static void divisor_latch(void **unused)
{
    out(LCR, 0x83);
    out(DATA, 0x34);
    out(IER, 0x12);
    assert_int_equal(in(DATA), 0x34);
    assert_int_equal(in(IER), 0x12);
    out(LCR, 0x03);
    assert_int_equal(in(IER), 0);
    assert_int_equal(console.written_count, 0);
}

static void transmits(void **unused)
{
    out(DATA, 'h');
    assert_int_equal(in(LSR), 0);
    out(DATA, 'i');
    assert_memory_equal(console.written, "hi", 2);
    pass(1000);
    assert_int_equal(in(LSR), 0);
    pass(1000);
    assert_int_equal(in(LSR), L_THRE | TEMT);
}

static void short_words(void **unused)
{
    out(LCR, 2); /* seven bits */
    out(DATA, 0xc1);
    assert_int_equal(console.written[0], 0x41);
}

static void transmitter_interrupt(void **unused)
{
    out(IER, THRE); /* empty: at once */
    assert_true(irq.level);
    assert_int_equal(in(IIR), I_THRE);
    assert_false(irq.level); /* reading IIR took it back */
    assert_int_equal(in(IIR), NONE);
    out(DATA, 'x');
    assert_false(irq.level);
    pass(1000);
    assert_true(irq.level);
    out(DATA, 'y'); /* writing takes it back, too */
    assert_false(irq.level);
    pass(1000);
    assert_true(irq.level);
    out(IER, 0);
    assert_false(irq.level);
    in(IIR);
    out(IER, THRE); /* drivers test for this: enabling it again reports again */
    assert_int_equal(in(IIR), I_THRE);
}

static void receives(void **unused)
{
    out(IER, RX);
    assert_int_equal(fake_console_type(&console, "ab"), 1); /* no FIFO: one byte */
    assert_true(irq.level);
    assert_int_equal(in(IIR), I_RX);
    assert_int_equal(in(LSR), L_THRE | TEMT | DR);
    console.room_calls = 0;
    assert_int_equal(in(DATA), 'a');
    assert_int_equal(console.room_calls, 1);
    assert_false(irq.level);
    assert_int_equal(in(LSR), L_THRE | TEMT);
    assert_int_equal(in(DATA), 0);
    assert_int_equal(console.room_calls, 1);
}

static void trigger_levels_and_timeout(void **unused)
{
    out(FCR, 0x81); /* 8 bytes */
    out(IER, RX);
    assert_int_equal(fake_console_type(&console, "1234567"), 7);
    assert_false(irq.level);
    fake_console_type(&console, "8");
    assert_int_equal(in(IIR), 0xc0 | I_RX);
    assert_int_equal(in(DATA), '1');
    assert_int_equal(in(IIR), 0xc0 | NONE);
    pass(340000);
    assert_false(irq.level);
    pass(20000);
    assert_true(irq.level);
    assert_int_equal(in(IIR), 0xc0 | I_TIMEOUT);
    assert_int_equal(in(DATA), '2');
    assert_false(irq.level);
    pass(360000);
    assert_true(irq.level);
    for (int i = '3'; i <= '8'; i++)
        assert_int_equal(in(DATA), i);
    pass(1000000);
    assert_false(irq.level);
}

static void fifo_holds_sixteen(void **unused)
{
    out(FCR, 0xc1);
    assert_int_equal(fake_console_type(&console, "0123456789abcdefXY"), 16);
    assert_int_equal(fake_console_type(&console, "X"), 0);
    out(FCR, 0xc3); /* receiver reset */
    assert_int_equal(in(LSR) & DR, 0);
    assert_int_equal(fake_console_type(&console, "Z"), 1);
    assert_int_equal(in(DATA), 'Z');
    fake_console_type(&console, "Q");
    out(FCR, 0); /* switching FIFOs off empties them */
    assert_int_equal(in(LSR) & DR, 0);
}

static void breaks(void **unused)
{
    out(FCR, 0x01);
    out(IER, RX | LINE);
    fake_console_type(&console, "a");
    console.line_break(console.ctx);
    assert_int_equal(in(LSR) & (DR | BI | FIFO_ERROR), DR | FIFO_ERROR); /* not at the top yet */
    assert_int_equal(in(DATA), 'a');
    assert_int_equal(in(IIR), 0xc0 | I_LINE);
    assert_int_equal(in(LSR) & (DR | BI | FIFO_ERROR), DR | BI | FIFO_ERROR);
    assert_int_equal(in(LSR) & (BI | FIFO_ERROR), 0);
    assert_int_equal(in(IIR), 0xc0 | I_RX);
    assert_int_equal(in(DATA), 0);
}

static void priorities(void **unused)
{
    out(MCR, OUT2 | LOOP);
    in(MSR);
    out(DATA, 'x');
    out(DATA, 'y'); /* overrun */
    pass(5000);
    out(MCR, OUT2); /* modem status changes */
    out(IER, 0x0f);
    assert_int_equal(in(IIR), I_LINE);
    assert_int_equal(in(LSR) & (OE | DR), OE | DR);
    assert_int_equal(in(IIR), I_RX);
    assert_int_equal(in(DATA), 'y');
    assert_int_equal(in(IIR), I_THRE);
    assert_int_equal(in(IIR), 0);
    assert_int_equal(in(MSR) & 0x0f, 0x03); /* CTS and DSR changed; DCD is up in both */
    assert_int_equal(in(IIR), NONE);
    assert_int_equal(in(MSR) & 0x0f, 0);
}

static void loopback(void **unused)
{
    out(MCR, LOOP | RTS | OUT2);
    assert_int_equal(in(MSR) & 0xf0, 0x90);
    out(MCR, LOOP | DTR | OUT1);
    assert_int_equal(in(MSR) & 0xf0, 0x60);
    out(MCR, LOOP);
    assert_int_equal(in(MSR), 0x04 | 0x02); /* TERI: RI fell; DSR changed */
    out(DATA, 'L');
    assert_int_equal(in(DATA), 'L');
    assert_int_equal(console.written_count, 0);
    assert_int_equal(fake_console_type(&console, "x"), 0);
}

static void out2_gates_the_interrupt(void **unused)
{
    out(IER, THRE);
    assert_true(irq.level);
    out(MCR, 0);
    assert_false(irq.level);
    out(MCR, OUT2 | LOOP);
    assert_false(irq.level);
    out(MCR, OUT2);
    assert_true(irq.level);
}

static void state_moves(void **unused)
{
    struct irq_probe other_irq = {0};
    struct irq wire = irq_probe(&other_irq);
    struct console other_console = {0};
    struct device *other = ns16550_uart_create(m, 0x2f8, &wire, &other_console);

    out(FCR, 0x41);
    out(IER, RX | THRE);
    in(IIR);
    out(DATA, 'x');
    fake_console_type(&console, "ab");
    device_state_move(uart, other);
    assert_false(other_irq.level);
    pass(1000);
    assert_int_equal(pio_read(m, 0x2f8 + IIR, 1), 0xc0 | I_THRE);
    pass(360000);
    assert_int_equal(pio_read(m, 0x2f8 + IIR, 1), 0xc0 | I_TIMEOUT);
    assert_int_equal(pio_read(m, 0x2f8, 1), 'a');
    assert_int_equal(other_console.written_count, 0);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(probed_as_16550a), TEST(divisor_latch), TEST(transmits), TEST(short_words), TEST(transmitter_interrupt),
        TEST(receives), TEST(trigger_levels_and_timeout), TEST(fifo_holds_sixteen), TEST(breaks), TEST(priorities),
        TEST(loopback), TEST(out2_gates_the_interrupt), TEST(state_moves)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
