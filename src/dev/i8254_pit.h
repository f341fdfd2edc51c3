/* Intel 8254 programmable interval timer, and the PC's NMI status and control port 0x61 that gates its channel 2.
 * Intel 8254 data sheet (231164); 82371AB (PIIX4) data sheet §4.2.2, §4.2.5. */
#ifndef DEV_I8254_PIT_H
#define DEV_I8254_PIT_H
#include "machine/machine.h"

#define I8254_PIT_HZ 1193182ull

/* Four ports at `port`, one at `control_port`. `out0` is the OUT pin of channel 0 (copied). */
struct device *i8254_pit_create(struct machine *m, u16 port, u16 control_port, const struct irq *out0);

#endif
