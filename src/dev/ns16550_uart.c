/* National Semiconductor PC16550D: all registers, both FIFOs, interrupt priorities, loopback, modem status changes.
 *
 * Bytes reach the console at once; what is paced is the transmitter's answer. It stays busy for a microsecond a
 * byte, so that a driver's interrupt handler comes to an end between two FIFO loads, as it does on hardware, yet a
 * boot log is not held up at 115200 baud. The character timeout of the receiver is that of 115200 baud. The far end
 * of the line always has CTS, DSR and DCD up. Left out: parity, framing errors, stop bits, and the break that the
 * guest sends. */
#include "dev/ns16550_uart.h"
#include "base/trace.h"
#include "ui/console.h"

#define FIFO_SIZE 16
#define TX_BYTE_NS 1000
#define RX_TIMEOUT_NS 350000 /* four characters */

enum { RBR_THR, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR };
enum { IER_RX = 0x01, IER_THRE = 0x02, IER_LINE = 0x04, IER_MODEM = 0x08 };
enum {
    IIR_NONE = 0x01, IIR_MODEM = 0x00, IIR_THRE = 0x02, IIR_RX = 0x04, IIR_LINE = 0x06, IIR_TIMEOUT = 0x0c,
    IIR_FIFOS = 0xc0,
};
enum { FCR_ENABLE = 0x01, FCR_RX_CLEAR = 0x02, FCR_TX_CLEAR = 0x04, FCR_DMA = 0x08, FCR_TRIGGER = 0xc0 };
enum { LCR_WORD = 0x03, LCR_DLAB = 0x80 };
enum { MCR_DTR = 0x01, MCR_RTS = 0x02, MCR_OUT1 = 0x04, MCR_OUT2 = 0x08, MCR_LOOP = 0x10, MCR_BITS = 0x1f };
enum { LSR_DR = 0x01, LSR_OE = 0x02, LSR_BI = 0x10, LSR_THRE = 0x20, LSR_TEMT = 0x40, LSR_FIFO_ERROR = 0x80 };
enum {
    MSR_DCTS = 0x01, MSR_DDSR = 0x02, MSR_TERI = 0x04, MSR_DDCD = 0x08, MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40,
    MSR_DCD = 0x80,
};

struct ns16550_uart_state {
    u64 tx_done;    /* clock ns at which the transmitter has sent everything */
    u64 rx_timeout; /* clock ns at which unread characters below the trigger level interrupt; or TIMER_NEVER */
    u16 divisor;
    u8 rx[FIFO_SIZE];       /* oldest first */
    u8 rx_error[FIFO_SIZE]; /* LSR bits that came with each */
    u8 rx_count;
    u8 ier, fcr, lcr, mcr, msr, scr;
    u8 line_error;   /* LSR bits 1 to 4, until read */
    bool tx_busy;    /* tx_done has not been noticed yet */
    bool thre;       /* transmitter-empty interrupt waits */
    bool rx_timed_out;
    u8 pad[3];
};

struct ns16550_uart {
    struct device dev;
    struct ns16550_uart_state s;
    struct irq irq;
    struct console *console;
    struct timer timer;
};

#define UART_STATE(f) STATE(struct ns16550_uart_state, f)
#define UART_ARRAY(f) STATE_ARRAY(struct ns16550_uart_state, f)

static const struct state_field ns16550_uart_fields[] = {
    UART_STATE(tx_done), UART_STATE(rx_timeout), UART_STATE(divisor), UART_ARRAY(rx), UART_ARRAY(rx_error),
    UART_STATE(rx_count), UART_STATE(ier), UART_STATE(fcr), UART_STATE(lcr), UART_STATE(mcr), UART_STATE(msr),
    UART_STATE(scr), UART_STATE(line_error), UART_STATE(tx_busy), UART_STATE(thre), UART_STATE(rx_timed_out),
    UART_ARRAY(pad), STATE_END};

static int fifo_size(const struct ns16550_uart *u)
{
    return u->s.fcr & FCR_ENABLE ? FIFO_SIZE : 1;
}

static int trigger_level(const struct ns16550_uart *u)
{
    static const u8 level[] = {1, 4, 8, 14};

    return u->s.fcr & FCR_ENABLE ? level[u->s.fcr >> 6] : 1;
}

/* The highest of the interrupts that wait and are enabled, as IIR shows it. PC16550D table III. */
static u8 interrupt_id(const struct ns16550_uart *u)
{
    if (u->s.ier & IER_LINE && u->s.line_error)
        return IIR_LINE;
    if (u->s.ier & IER_RX && u->s.rx_count >= trigger_level(u))
        return IIR_RX;
    if (u->s.ier & IER_RX && u->s.rx_timed_out)
        return IIR_TIMEOUT;
    if (u->s.ier & IER_THRE && u->s.thre)
        return IIR_THRE;
    if (u->s.ier & IER_MODEM && u->s.msr & (MSR_DCTS | MSR_DDSR | MSR_TERI | MSR_DDCD))
        return IIR_MODEM;
    return IIR_NONE;
}

/* On the PC the interrupt passes a gate that OUT2 opens; in loopback mode the OUT2 pin is inactive. */
static void irq_update(struct ns16550_uart *u)
{
    bool open = (u->s.mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;

    irq_set(&u->irq, open && interrupt_id(u) != IIR_NONE);
}

/* What the clock has brought since the last look: the transmitter ran empty, the receiver timed out. */
static void catch_up(struct ns16550_uart *u)
{
    u64 now = machine_now(u->dev.machine);

    if (u->s.tx_busy && now >= u->s.tx_done) {
        u->s.tx_busy = false;
        u->s.thre = true;
    }
    if (now >= u->s.rx_timeout) {
        u->s.rx_timeout = TIMER_NEVER;
        u->s.rx_timed_out = u->s.rx_count > 0;
    }
}

/* Nobody needs to be woken for the end of a transmission that no interrupt would report. */
static void timer_arm(struct ns16550_uart *u)
{
    u64 tx = u->s.tx_busy && u->s.ier & IER_THRE ? u->s.tx_done : TIMER_NEVER;
    u64 rx = u->s.ier & IER_RX ? u->s.rx_timeout : TIMER_NEVER;

    timer_set(&u->timer, MIN(tx, rx));
}

static void update(struct ns16550_uart *u)
{
    catch_up(u);
    timer_arm(u);
    irq_update(u);
}

static void timer_due(void *uart)
{
    update(uart);
}

/* Receiver. */

/* The character now at the top brings its errors into LSR. */
static void rx_top_changed(struct ns16550_uart *u)
{
    if (u->s.rx_count)
        u->s.line_error |= u->s.rx_error[0];
}

static void rx_timeout_restart(struct ns16550_uart *u)
{
    bool wanted = u->s.rx_count && u->s.fcr & FCR_ENABLE;

    u->s.rx_timed_out = false;
    u->s.rx_timeout = wanted ? machine_now(u->dev.machine) + RX_TIMEOUT_NS : TIMER_NEVER;
}

static void rx_put(struct ns16550_uart *u, u8 val, u8 error)
{
    if (u->s.rx_count == fifo_size(u)) {
        u->s.line_error |= LSR_OE;
        if (!(u->s.fcr & FCR_ENABLE)) /* without FIFOs the new character overwrites */
            u->s.rx[0] = val;
        return;
    }
    u->s.rx[u->s.rx_count] = val;
    u->s.rx_error[u->s.rx_count++] = error;
    if (u->s.rx_count == 1)
        rx_top_changed(u);
    rx_timeout_restart(u);
}

static u8 rx_get(struct ns16550_uart *u)
{
    u8 val = u->s.rx[0];

    if (!u->s.rx_count)
        return 0;
    u->s.rx_count--;
    for (int i = 0; i < u->s.rx_count; i++) {
        u->s.rx[i] = u->s.rx[i + 1];
        u->s.rx_error[i] = u->s.rx_error[i + 1];
    }
    rx_top_changed(u);
    rx_timeout_restart(u);
    return val;
}

static void rx_clear(struct ns16550_uart *u)
{
    u->s.rx_count = 0;
    rx_timeout_restart(u);
}

/* Bits above the word length do not go over the line. */
static u8 word(const struct ns16550_uart *u, u8 val)
{
    return val & (u8)(0xff >> (3 - (u->s.lcr & LCR_WORD)));
}

static int console_wants_room(void *uart)
{
    struct ns16550_uart *u = uart;

    return u->s.mcr & MCR_LOOP ? 0 : fifo_size(u) - u->s.rx_count;
}

static void console_receives(void *uart, const u8 *data, int len)
{
    struct ns16550_uart *u = uart;

    for (int i = 0; i < len; i++)
        rx_put(u, word(u, data[i]), 0);
    update(u);
}

static void console_breaks(void *uart)
{
    struct ns16550_uart *u = uart;

    if (u->s.mcr & MCR_LOOP)
        return;
    rx_put(u, 0, LSR_BI);
    update(u);
}

/* Transmitter. */

static void tx_put(struct ns16550_uart *u, u8 val)
{
    u64 now = machine_now(u->dev.machine);

    val = word(u, val);
    if (u->s.mcr & MCR_LOOP)
        rx_put(u, val, 0);
    else if (u->console)
        console_write(u->console, &val, 1);
    u->s.tx_done = (u->s.tx_busy ? MAX(u->s.tx_done, now) : now) + TX_BYTE_NS;
    u->s.tx_busy = true;
    u->s.thre = false;
}

/* Modem control and status. */

static u8 modem_lines(const struct ns16550_uart *u)
{
    u8 mcr = u->s.mcr;

    if (!(mcr & MCR_LOOP))
        return u->console ? MSR_CTS | MSR_DSR | MSR_DCD : 0;
    return (u8)((mcr & MCR_RTS ? MSR_CTS : 0) | (mcr & MCR_DTR ? MSR_DSR : 0) | (mcr & MCR_OUT1 ? MSR_RI : 0) |
                (mcr & MCR_OUT2 ? MSR_DCD : 0));
}

static void modem_status_update(struct ns16550_uart *u)
{
    u8 now = modem_lines(u), before = u->s.msr & 0xf0, changed = now ^ before;

    u->s.msr = (u8)(now | (u->s.msr & 0x0f) | (changed & MSR_CTS ? MSR_DCTS : 0) | (changed & MSR_DSR ? MSR_DDSR : 0) |
                    (before & ~now & MSR_RI ? MSR_TERI : 0) | (changed & MSR_DCD ? MSR_DDCD : 0));
}

static void mcr_write(struct ns16550_uart *u, u8 val)
{
    bool was_loop = u->s.mcr & MCR_LOOP;

    u->s.mcr = val & MCR_BITS;
    modem_status_update(u);
    if (was_loop && !(val & MCR_LOOP) && u->console)
        console_room(u->console);
}

static void fcr_write(struct ns16550_uart *u, u8 val)
{
    if ((val ^ u->s.fcr) & FCR_ENABLE)
        val |= FCR_RX_CLEAR | FCR_TX_CLEAR; /* switching the FIFOs on or off empties them */
    if (val & FCR_TX_CLEAR && u->s.tx_busy)
        u->s.tx_done = machine_now(u->dev.machine);
    u->s.fcr = val & FCR_ENABLE ? val & (FCR_ENABLE | FCR_DMA | FCR_TRIGGER) : 0;
    if (val & FCR_RX_CLEAR)
        rx_clear(u);
}

/* Enabling the transmitter's interrupt while it is empty reports that at once. */
static void ier_write(struct ns16550_uart *u, u8 val)
{
    if (val & ~u->s.ier & IER_THRE && !u->s.tx_busy)
        u->s.thre = true;
    u->s.ier = val & (IER_RX | IER_THRE | IER_LINE | IER_MODEM);
}

static u8 iir_read(struct ns16550_uart *u)
{
    u8 id = interrupt_id(u);

    if (id == IIR_THRE)
        u->s.thre = false;
    return id | (u->s.fcr & FCR_ENABLE ? IIR_FIFOS : 0);
}

static bool rx_holds_error(const struct ns16550_uart *u)
{
    for (int i = 0; i < u->s.rx_count; i++)
        if (u->s.rx_error[i])
            return true;
    return false;
}

static u8 lsr_read(struct ns16550_uart *u)
{
    u8 val = u->s.line_error | (u->s.rx_count ? LSR_DR : 0) | (u->s.tx_busy ? 0 : LSR_THRE | LSR_TEMT);

    if (u->s.fcr & FCR_ENABLE && rx_holds_error(u))
        val |= LSR_FIFO_ERROR;
    u->s.line_error = 0;
    u->s.rx_error[0] = 0; /* it has been seen */
    return val;
}

static u8 msr_read(struct ns16550_uart *u)
{
    u8 val = u->s.msr;

    u->s.msr &= 0xf0;
    return val;
}

static u8 register_read(struct ns16550_uart *u, u64 reg)
{
    switch (reg) {
    case RBR_THR: return u->s.lcr & LCR_DLAB ? (u8)u->s.divisor : rx_get(u);
    case IER: return u->s.lcr & LCR_DLAB ? (u8)(u->s.divisor >> 8) : u->s.ier;
    case IIR_FCR: return iir_read(u);
    case LCR: return u->s.lcr;
    case MCR: return u->s.mcr;
    case LSR: return lsr_read(u);
    case MSR: return msr_read(u);
    default: return u->s.scr;
    }
}

static void divisor_write(struct ns16550_uart *u, int shift, u8 val)
{
    u->s.divisor = (u16)((u->s.divisor & ~(0xff << shift)) | val << shift);
    trace(UART, "divisor %u", u->s.divisor);
}

static void register_write(struct ns16550_uart *u, u64 reg, u8 val)
{
    bool dlab = u->s.lcr & LCR_DLAB;

    switch (reg) {
    case RBR_THR:
        if (dlab)
            divisor_write(u, 0, val);
        else
            tx_put(u, val);
        break;
    case IER:
        if (dlab)
            divisor_write(u, 8, val);
        else
            ier_write(u, val);
        break;
    case IIR_FCR: fcr_write(u, val); break;
    case LCR: u->s.lcr = val; break;
    case MCR: mcr_write(u, val); break;
    case SCR: u->s.scr = val; break;
    }
}

static u64 ns16550_uart_read(struct device *dev, u64 offset, int size)
{
    struct ns16550_uart *u = container_of(dev, struct ns16550_uart, dev);
    bool received = offset == RBR_THR && !(u->s.lcr & LCR_DLAB) && u->s.rx_count;
    u8 val;

    catch_up(u);
    val = register_read(u, offset);
    update(u);
    if (received && u->console)
        console_room(u->console);
    return val;
}

static void ns16550_uart_write(struct device *dev, u64 offset, int size, u64 val)
{
    struct ns16550_uart *u = container_of(dev, struct ns16550_uart, dev);

    trace(UART, "register %d <- 0x%02x", (int)offset, (u8)val);
    catch_up(u);
    register_write(u, offset, (u8)val);
    update(u);
    if (offset == IIR_FCR && u->console)
        console_room(u->console);
}

static const struct io_ops ns16550_uart_ops = {ns16550_uart_read, ns16550_uart_write, 1, 1};

static void ns16550_uart_reset(struct device *dev)
{
    struct ns16550_uart *u = container_of(dev, struct ns16550_uart, dev);

    u->s = (struct ns16550_uart_state){.divisor = 1, .rx_timeout = TIMER_NEVER};
    u->s.msr = modem_lines(u);
    update(u);
}

static void ns16550_uart_loaded(struct device *dev)
{
    struct ns16550_uart *u = container_of(dev, struct ns16550_uart, dev);

    u->s.rx_count = (u8)MIN(u->s.rx_count, fifo_size(u)); /* the stream is not to be trusted */
    timer_arm(u);
    irq_update(u);
    if (u->console)
        console_room(u->console);
}

static void ns16550_uart_destroy(struct device *dev)
{
    struct ns16550_uart *u = container_of(dev, struct ns16550_uart, dev);

    timer_cancel(&u->timer);
}

static const struct device_type ns16550_uart_type = {
    .name = "ns16550_uart",
    .size = sizeof(struct ns16550_uart),
    .state_offset = offsetof(struct ns16550_uart, s),
    .state = STATE_TABLE(struct ns16550_uart_state, ns16550_uart_fields, 1),
    .reset = ns16550_uart_reset,
    .loaded = ns16550_uart_loaded,
    .destroy = ns16550_uart_destroy,
};

struct device *ns16550_uart_create(struct machine *m, u16 port, const struct irq *irq, struct console *console)
{
    struct device *dev = device_add(m, &ns16550_uart_type);
    struct ns16550_uart *u = container_of(dev, struct ns16550_uart, dev);

    if (irq)
        u->irq = *irq;
    u->console = console;
    timer_init(&u->timer, &m->timers, timer_due, u);
    pio_map(m, port, 8, dev, &ns16550_uart_ops);
    ns16550_uart_reset(dev);
    if (console)
        console_attach(console, console_wants_room, console_receives, console_breaks, u);
    return dev;
}
