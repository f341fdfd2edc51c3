/* High precision event timer: 64-bit counter at 100 MHz, three timers. IA-PC HPET specification 1.0a. */
#ifndef DEV_HPET_H
#define DEV_HPET_H
#include "machine/machine.h"

#define HPET_PERIOD_FS 10000000u /* 10 ns, in the unit of the capability register and of the ACPI table */
#define HPET_TIMERS 3
#define HPET_FIRST_ROUTE 20 /* timers can be routed to I/O APIC inputs 20–23 */
#define HPET_ROUTES 4

struct hpet_wires {
    struct irq irq0;                /* ISA IRQ 0 (I/O APIC input 2): the PIT's, or timer 0's in legacy replacement */
    struct irq irq8;                /* ISA IRQ 8: the RTC's, or timer 1's */
    struct irq ioapic[HPET_ROUTES]; /* I/O APIC inputs from HPET_FIRST_ROUTE on */
};

/* Registers at [gpa, gpa + 0x400). The wires are copied. */
struct device *hpet_create(struct machine *m, u64 gpa, const struct hpet_wires *wires);

/* The PIT's OUT0 and the RTC's IRQ# pass through the HPET, which cuts them off in legacy replacement mode: connect
 * them here, pins HPET_PIT_IN and HPET_RTC_IN, ctx: the device. */
enum { HPET_PIT_IN, HPET_RTC_IN };
void hpet_legacy_set(void *hpet, int pin, bool level);

/* The value of the capability register's low half: the ACPI table's event timer block id. */
u32 hpet_block_id(void);

#endif
