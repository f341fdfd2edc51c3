/* QEMU's pci-testdev: counts writes to its BARs, for test guests that time them. */
#ifndef DEV_PCI_TESTDEV_H
#define DEV_PCI_TESTDEV_H
#include "machine/pci.h"

/* On the first free PCI slot. */
struct device *pci_testdev_create(struct machine *m);

#endif
