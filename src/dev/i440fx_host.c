/* Intel 440FX host bridge (82441FX PMC), function 0: see i440fx_host.h. Data sheet 290549.
 *
 * Operating systems look for it to know the board; firmware programs it. All DRAM is where the board mapped it, so
 * the programmable attribute map and the SMM registers are kept but move nothing, and after reset the map says what
 * is the case: RAM, readable and writable. */
#include "dev/i440fx_host.h"
#include "machine/machine.h"

#include <string.h>

enum { /* configuration registers */
    I440FX_PMCCFG = 0x50, I440FX_PAM0 = 0x59, I440FX_PAM6 = 0x5f, I440FX_DRB0 = 0x60, I440FX_DRB7 = 0x67,
    I440FX_SMRAM = 0x72,
};
enum { PAM_READ_WRITE = 0x33, SMRAM_RESET = 0x02 };

static void i440fx_host_reset(struct device *dev)
{
    struct pci_device *pci = container_of(dev, struct pci_device, dev);

    pci_device_reset(pci);
    for (int reg = I440FX_PAM0; reg <= I440FX_PAM6; reg++)
        pci_config_set8(pci, reg, PAM_READ_WRITE);
    pci_config_set8(pci, I440FX_SMRAM, SMRAM_RESET);
}

const struct device_type i440fx_host_type = {
    .name = "i440fx_host",
    .size = sizeof(struct pci_device),
    .reset = i440fx_host_reset,
};

struct device *i440fx_host_create(struct machine *m)
{
    struct pci_device *pci = pci_device_add(m, &i440fx_host_type, 0, 0);

    pci_identity_set(pci, 0x8086, 0x1237, 0x060000, 2, 0, 0, false);
    pci->writable[I440FX_PMCCFG] = pci->writable[I440FX_PMCCFG + 1] = 0xff;
    memset(&pci->writable[I440FX_PAM0], PAM_READ_WRITE, I440FX_PAM6 - I440FX_PAM0 + 1);
    memset(&pci->writable[I440FX_DRB0], 0xff, I440FX_DRB7 - I440FX_DRB0 + 1);
    pci->writable[I440FX_SMRAM] = 0x7f;
    return &pci->dev;
}

int i440fx_host_route(int slot, int pin)
{
    return (slot + pin) & 3;
}
