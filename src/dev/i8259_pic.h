/* Intel 8259A programmable interrupt controllers: the PC's cascaded pair with the PIIX's edge/level control registers.
 * Intel 8259A data sheet (231468); 82371AB (PIIX4) data sheet §4.2.3, §4.2.4. */
#ifndef DEV_I8259_PIC_H
#define DEV_I8259_PIC_H
#include "machine/machine.h"

/* Two ports each at `master_port`, `slave_port` and `elcr_port`. `intr` is the master's INTR output (copied). */
struct device *i8259_pic_create(struct machine *m, u16 master_port, u16 slave_port, u16 elcr_port,
                                const struct irq *intr);

/* Drives input IRQ `pin` (0–15; 2 is the cascade and ignored). Usable as the `set` of a struct irq, ctx: the device. */
void i8259_pic_set(void *pic, int pin, bool level);

/* The two INTA# cycles: puts the interrupt in service and returns its vector; with no request left, the spurious vector
 * (IRQ 7 of the chip that lost its request). Usable as machine->pic_ack. */
int i8259_pic_ack(struct device *pic);

#endif
