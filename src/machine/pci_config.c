/* A PCI function's configuration space: the standard header, base address registers, capabilities. PCI 3.0 ch. 6.
 *
 * Which bits the guest can write is data (`writable`, `write1_clear`); what a change of them means is worked out
 * afterwards from the bytes, so that a write, a reset and a restored state take the same path. */
#include "base/trace.h"
#include "machine/pci_bus.h"

#include <string.h>

static const struct state_field pci_state_fields[] = {
    STATE_ARRAY(struct pci_state, config),     STATE_ARRAY(struct pci_state, msix_table),
    STATE_ARRAY(struct pci_state, msix_pending), STATE(struct pci_state, intx_level),
    STATE_ARRAY(struct pci_state, pad),        STATE_END};
const struct state_table pci_state_table = STATE_TABLE(struct pci_state, pci_state_fields, 1);

u32 pci_config_get(const struct pci_device *d, int offset, int size)
{
    u32 val = 0;

    for (int i = 0; i < size; i++)
        val |= (u32)d->ps.config[offset + i] << (8 * i);
    return val;
}

static void config_set(struct pci_device *d, int offset, int size, u32 val)
{
    for (int i = 0; i < size; i++)
        d->ps.config[offset + i] = (u8)(val >> (8 * i));
}

void pci_config_set8(struct pci_device *d, int offset, u8 val)
{
    config_set(d, offset, 1, val);
}

void pci_config_set16(struct pci_device *d, int offset, u16 val)
{
    config_set(d, offset, 2, val);
}

void pci_config_set32(struct pci_device *d, int offset, u32 val)
{
    config_set(d, offset, 4, val);
}

void pci_identity_set(struct pci_device *d, u16 vendor, u16 device, u32 class_code, u8 revision, u16 subsystem_vendor,
                      u16 subsystem, bool intx)
{
    pci_config_set16(d, PCI_VENDOR_ID, vendor);
    pci_config_set16(d, PCI_DEVICE_ID, device);
    pci_config_set32(d, PCI_REVISION_ID, class_code << 8 | revision);
    pci_config_set16(d, PCI_SUBSYSTEM_VENDOR_ID, subsystem_vendor);
    pci_config_set16(d, PCI_SUBSYSTEM_ID, subsystem);
    pci_config_set8(d, PCI_INTERRUPT_PIN, intx ? 1 : 0);
}

bool pci_dma_allowed(const struct pci_device *d)
{
    return pci_config_get(d, PCI_COMMAND, 2) & PCI_COMMAND_MASTER;
}

static void writable_set(struct pci_device *d, int offset, u32 mask)
{
    for (int i = 0; i < 4; i++)
        d->writable[offset + i] = (u8)(mask >> (8 * i));
}

void pci_bar_memory(struct pci_device *d, int bar, u64 size, bool is64, const struct io_ops *ops)
{
    int offset = PCI_BAR0 + 4 * bar;

    assert(size >= 16 && !(size & (size - 1)) && bar + is64 < PCI_BARS && (is64 || size <= GIB(2)));
    d->bar[bar] = (struct pci_bar){.size = size, .is64 = is64, .ops = ops};
    writable_set(d, offset, (u32)~(size - 1));
    if (is64)
        writable_set(d, offset + 4, (u32)(~(size - 1) >> 32));
    pci_config_set32(d, offset, is64 ? 4 : 0);
}

void pci_bar_io(struct pci_device *d, int bar, u32 size, const struct io_ops *ops)
{
    int offset = PCI_BAR0 + 4 * bar;

    assert(size >= 4 && size <= 256 && !(size & (size - 1)));
    d->bar[bar] = (struct pci_bar){.size = size, .io = true, .ops = ops};
    writable_set(d, offset, ~(size - 1));
    pci_config_set32(d, offset, 1);
}

/* Where the guest wants a BAR, or false: not decoded, at 0 (not assigned yet), or reaching beyond its address space. */
static bool bar_wanted(const struct pci_device *d, int i, u64 *ret_at)
{
    const struct pci_bar *bar = &d->bar[i];
    u16 command = (u16)pci_config_get(d, PCI_COMMAND, 2);
    u64 at = pci_config_get(d, PCI_BAR0 + 4 * i, 4);

    if (!bar->size || !(command & (bar->io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
        return false;
    if (bar->is64)
        at |= (u64)pci_config_get(d, PCI_BAR0 + 4 * i + 4, 4) << 32;
    at &= ~(bar->size - 1);
    if (!at || at + (bar->size - 1) < at || (bar->io && at + bar->size > 0x10000))
        return false;
    *ret_at = at;
    return true;
}

static void bar_unmap(struct pci_device *d, int i)
{
    struct pci_bar *bar = &d->bar[i];
    struct machine *m = d->dev.machine;

    bar->mapped = false;
    if (d->msix_count && i == d->msix_bar)
        pci_msix_unmap(d, bar->mapped_at);
    if (!bar->ops)
        return;
    if (bar->io)
        pio_unmap(m, (u16)bar->mapped_at, (u32)bar->size, &d->dev);
    else
        mmio_unmap(m, bar->mapped_at, bar->size, &d->dev);
}

/* The MSI-X structures go on top of the BAR: the range mapped last answers. */
static void bar_map(struct pci_device *d, int i, u64 at)
{
    struct pci_bar *bar = &d->bar[i];
    struct machine *m = d->dev.machine;

    trace(PCI, "%s: BAR %d at 0x%llx, 0x%llx bytes", d->dev.id, i, (unsigned long long)at,
          (unsigned long long)bar->size);
    bar->mapped = true;
    bar->mapped_at = at;
    if (bar->ops && bar->io)
        pio_map(m, (u16)at, (u32)bar->size, &d->dev, bar->ops);
    else if (bar->ops)
        mmio_map(m, at, bar->size, &d->dev, bar->ops);
    if (d->msix_count && i == d->msix_bar)
        pci_msix_map(d, at);
}

static void bars_update(struct pci_device *d)
{
    for (int i = 0; i < PCI_BARS; i++) {
        u64 at = 0;
        bool wanted = bar_wanted(d, i, &at);

        if (d->bar[i].mapped && (!wanted || at != d->bar[i].mapped_at))
            bar_unmap(d, i);
        if (wanted && !d->bar[i].mapped)
            bar_map(d, i, at);
    }
}

/* Makes everything follow what the configuration bytes say now. */
static void config_changed(struct pci_device *d)
{
    bars_update(d);
    pci_intx_update(d->dev.machine->pci);
    pci_msix_flush(d);
}

u32 pci_config_read(struct pci_device *d, int offset, int size)
{
    u32 val;

    if (d->config_reading)
        d->config_reading(d, offset, size);
    val = pci_config_get(d, offset, size);
    trace(PCI, "%s: config 0x%02x size %d reads 0x%x", d->dev.id, offset, size, val);
    return val;
}

void pci_config_write(struct pci_device *d, int offset, int size, u32 val)
{
    trace(PCI, "%s: config 0x%02x size %d = 0x%x", d->dev.id, offset, size, val);
    for (int i = offset; i < offset + size; i++, val >>= 8) {
        u8 old = d->ps.config[i], written = (u8)val;

        d->ps.config[i] = (u8)((old & ~d->writable[i] & ~(written & d->write1_clear[i])) | (written & d->writable[i]));
    }
    config_changed(d);
    if (d->config_written)
        d->config_written(d, offset, size);
}

int pci_capability_add(struct pci_device *d, u8 id, int len)
{
    int offset = d->capability_end, link = PCI_CAPABILITY_LIST;

    assert(len >= 2 && offset + len <= PCI_CONFIG_SIZE);
    while (d->ps.config[link])
        link = d->ps.config[link] + 1;
    d->ps.config[link] = (u8)offset;
    d->ps.config[offset] = id;
    d->ps.config[PCI_STATUS] |= PCI_STATUS_CAPABILITIES;
    d->capability_end = (u16)ALIGN_UP(offset + len, 4);
    return offset;
}

void pci_device_reset(struct pci_device *d)
{
    for (int i = 0; i < PCI_CONFIG_SIZE; i++)
        d->ps.config[i] &= (u8) ~(d->writable[i] | d->write1_clear[i]);
    pci_msix_reset(d);
    pci_intx_set(d, false);
    config_changed(d);
}

void pci_device_loaded(struct pci_device *d)
{
    config_changed(d);
}
