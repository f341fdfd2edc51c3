/* Coprocessor error logic of the AT, today inside the PIIX3: FERR# latches interrupt 13; a write to port F0h releases it and
 * asserts IGNNE# for as long as FERR# stays. PIIX3 data sheet 290550, "coprocessor error register"; SDM vol. 1 app. D. */
#ifndef DEV_IRQ13_H
#define DEV_IRQ13_H
#include "machine/irq.h"

struct machine;
struct device;

extern const struct device_type irq13_type;

/* Maps the port and becomes the machine's receiver of FERR#. */
struct device *irq13_create(struct machine *m, u16 port, const struct irq *irq);

#endif
