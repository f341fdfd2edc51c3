/* Intel 440FX host bridge (82441FX PMC), PCI device 0, function 0. */
#ifndef DEV_I440FX_HOST_H
#define DEV_I440FX_HOST_H
#include "machine/pci.h"

extern const struct device_type i440fx_host_type;

/* Adds the bridge at 00:00.0. The bus must exist. */
struct device *i440fx_host_create(struct machine *m);

/* Where the bridge and the ISA bridge send INTx: pin p of slot s reaches wire (s + p) % 4, which the ACPI tables
 * repeat. */
int i440fx_host_route(int slot, int pin);

#endif
