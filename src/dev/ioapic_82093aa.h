/* Intel 82093AA I/O APIC, 24 pins, with the EOI register that the ICH added (version 0x20). 82093AA data sheet
 * (290566); ICH9 data sheet §13.5. */
#ifndef DEV_IOAPIC_82093AA_H
#define DEV_IOAPIC_82093AA_H
#include "machine/machine.h"

#define IOAPIC_PINS 24

/* Registers at [gpa, gpa + 0x1000). `id` is the APIC id after reset. */
struct device *ioapic_82093aa_create(struct machine *m, u64 gpa, u8 id);

/* Drives input `pin` (0–23) to its asserted (true) or idle level; the polarity bit is stored but not applied, since
 * wires here are logical levels. Usable as the `set` of a struct irq, ctx: the device. */
void ioapic_82093aa_set(void *ioapic, int pin, bool level);

/* A local APIC's EOI broadcast for a level-triggered vector. Usable as machine->ioapic_eoi. */
void ioapic_82093aa_eoi(struct device *ioapic, u8 vector);

#endif
