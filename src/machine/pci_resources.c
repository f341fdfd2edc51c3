/* What a firmware does before it starts an operating system: addresses for BARs, interrupt lines, decoding on. For
 * kernels that are loaded directly. */
#include "base/trace.h"
#include "machine/pci_bus.h"

struct window {
    u64 next, end;
};

/* Memory BARs get pages of their own, so that a guest can hand them to separate drivers. */
static bool bar_assign(struct pci_device *d, int i, struct window *w)
{
    const struct pci_bar *bar = &d->bar[i];
    u64 at = ALIGN_UP(w->next, bar->io ? bar->size : MAX(bar->size, PAGE_SIZE));

    if (at >= w->end || bar->size > w->end - at) {
        trace(PCI, "%s: no room for BAR %d, 0x%llx bytes", d->dev.id, i, (unsigned long long)bar->size);
        return false;
    }
    w->next = at + bar->size;
    pci_config_write(d, PCI_BAR0 + 4 * i, 4, (u32)at);
    if (bar->is64)
        pci_config_write(d, PCI_BAR0 + 4 * i + 4, 4, (u32)(at >> 32));
    return true;
}

static void device_assign(struct pci_device *d, struct window *memory, struct window *io, u8 (*line)(int slot, int pin))
{
    u16 command = (u16)pci_config_get(d, PCI_COMMAND, 2);
    u8 pin = d->ps.config[PCI_INTERRUPT_PIN];

    for (int i = 0; i < PCI_BARS; i++)
        if (d->bar[i].size && bar_assign(d, i, d->bar[i].io ? io : memory))
            command |= d->bar[i].io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
    pci_config_write(d, PCI_COMMAND, 2, command);
    if (pin)
        pci_config_write(d, PCI_INTERRUPT_LINE, 1, line(d->slot, pin - 1));
}

void pci_assign_resources(struct machine *m, u64 mmio_base, u64 mmio_end, u32 io_base, u32 io_end,
                          u8 (*line)(int slot, int pin))
{
    struct window memory = {mmio_base, mmio_end}, io = {io_base, io_end};

    for (struct pci_device *d = m->pci->first; d; d = d->next)
        device_assign(d, &memory, &io, line);
}
