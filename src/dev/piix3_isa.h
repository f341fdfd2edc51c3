/* Intel PIIX3 (82371SB) function 0: PCI-to-ISA bridge, with the PIRQ router and the reset control register (port
 * 0xCF9). The edge/level registers 0x4D0/0x4D1 are part of the interrupt controllers' file. */
#ifndef DEV_PIIX3_ISA_H
#define DEV_PIIX3_ISA_H
#include "machine/pci.h"

extern const struct device_type piix3_isa_type;

enum { /* configuration registers */
    PIIX3_PIRQRCA = 0x60, /* and B, C, D behind it: bit 7 routes nowhere, bits 3:0 name the ISA interrupt */
};

/* Adds the bridge at 00:`slot`.0 and maps `reset_port`. isa_irq[n] is ISA interrupt n's wire (copied; all zero where
 * the PC has none to give); several PIRQs on one are OR-ed. Takes the bus's four INTx wires. */
struct device *piix3_isa_create(struct machine *m, int slot, u16 reset_port, const struct irq isa_irq[16]);

#endif
