/* Intel 8042 keyboard controller with an AT keyboard, an absent auxiliary device, and the PC's system control port
 * A. IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller", "Keyboard
 * (101/102-key)". */
#ifndef DEV_I8042_KBC_H
#define DEV_I8042_KBC_H
#include "machine/machine.h"

/* Data at `data_port`, command and status at `command_port`, system control port A (fast A20 and reset) at
 * `control_port`. The interrupt outputs are copied. */
struct device *i8042_kbc_create(struct machine *m, u16 data_port, u16 command_port, u16 control_port,
                                const struct irq *irq1, const struct irq *irq12);

/* A key went down or up: `code` is its make code of scan code set 2, `extended` if an E0 goes before it. The
 * keyboard sends it in the set that the guest chose, if scanning is on and its queue has room. */
void i8042_kbc_key(struct device *kbc, u8 code, bool extended, bool down);

/* Pause, which has only a make sequence of its own. */
void i8042_kbc_pause_key(struct device *kbc);

#endif
