/* National Semiconductor PC16550D UART on a console. PC16550D data sheet, TL/C/8652. */
#ifndef DEV_NS16550_UART_H
#define DEV_NS16550_UART_H
#include "machine/machine.h"

struct console;

/* Eight ports at `port`. `irq` is the INTR pin gated by OUT2, as on the PC (copied). `console` stays the caller's
 * and is attached; NULL: nothing is connected, output vanishes. */
struct device *ns16550_uart_create(struct machine *m, u16 port, const struct irq *irq, struct console *console);

#endif
