/* Between the files of the PCI bus (pci_*.c); devices and boards use pci.h. */
#ifndef MACHINE_PCI_BUS_H
#define MACHINE_PCI_BUS_H
#include "machine/machine.h"
#include "machine/pci.h"

struct pci_bus_state {
    u32 address;   /* CONFIG_ADDRESS, port 0xCF8 */
    bool level[4]; /* of the INTx wires */
};

struct pci_bus {
    struct device dev;
    struct pci_bus_state s;
    struct pci_device *first;
    int (*route)(int slot, int pin);
    struct irq wire[4];
};

/* One access to a function's configuration space by the guest: 1, 2 or 4 bytes, naturally aligned. */
u32 pci_config_read(struct pci_device *d, int offset, int size);
void pci_config_write(struct pci_device *d, int offset, int size, u32 val);

u32 pci_config_get(const struct pci_device *d, int offset, int size);

/* Drives the INTx wires from what the devices assert. */
void pci_intx_update(struct pci_bus *bus);

/* The places of the MSI-X table and pending bits over a BAR mapped at gpa. */
void pci_msix_map(struct pci_device *d, u64 gpa);
void pci_msix_unmap(struct pci_device *d, u64 gpa);
void pci_msix_reset(struct pci_device *d);

/* Sends what is pending and no longer held back. */
void pci_msix_flush(struct pci_device *d);

#endif
