/* MSI-X: a table of messages in a BAR, one a vector, and the pending bits of those held back. PCI 3.0 §6.8.2. */
#include "base/trace.h"
#include "machine/pci_bus.h"

#include <string.h>

enum { CAP_MSIX = 0x11, CAP_MSIX_LEN = 12, MSIX_CONTROL = 2, MSIX_TABLE = 4, MSIX_PBA = 8 };
enum { MSIX_ENABLE = 0x8000, MSIX_FUNCTION_MASK = 0x4000 };
enum { ENTRY_ADDRESS, ENTRY_ADDRESS_HIGH, ENTRY_DATA, ENTRY_CONTROL, ENTRY_DWORDS };
enum { ENTRY_MASKED = 1 };

static u16 msix_control(const struct pci_device *d)
{
    return d->msix_count ? (u16)pci_config_get(d, d->msix_cap + MSIX_CONTROL, 2) : 0;
}

bool pci_msix_enabled(const struct pci_device *d)
{
    return msix_control(d) & MSIX_ENABLE;
}

/* A message is a memory write by the device, so it also needs bus mastership. */
static bool vector_ready(const struct pci_device *d, int vector)
{
    return !(msix_control(d) & MSIX_FUNCTION_MASK) && pci_dma_allowed(d) &&
           !(d->ps.msix_table[vector * ENTRY_DWORDS + ENTRY_CONTROL] & ENTRY_MASKED);
}

static void vector_send(struct pci_device *d, int vector)
{
    const u32 *entry = &d->ps.msix_table[vector * ENTRY_DWORDS];

    machine_msi(d->dev.machine, (u64)entry[ENTRY_ADDRESS_HIGH] << 32 | entry[ENTRY_ADDRESS], entry[ENTRY_DATA]);
}

void pci_msix_raise(struct pci_device *d, int vector)
{
    if (!pci_msix_enabled(d) || vector < 0 || vector >= d->msix_count)
        return;
    if (vector_ready(d, vector))
        vector_send(d, vector);
    else
        d->ps.msix_pending[vector / 32] |= 1u << (vector % 32);
}

void pci_msix_flush(struct pci_device *d)
{
    if (!pci_msix_enabled(d)) {
        memset(d->ps.msix_pending, 0, sizeof(d->ps.msix_pending));
        return;
    }
    for (int v = 0; v < d->msix_count; v++) {
        u32 bit = 1u << (v % 32);

        if (!(d->ps.msix_pending[v / 32] & bit) || !vector_ready(d, v))
            continue;
        d->ps.msix_pending[v / 32] &= ~bit;
        vector_send(d, v);
    }
}

static u64 table_read(struct device *dev, u64 offset, int size)
{
    return container_of(dev, struct pci_device, dev)->ps.msix_table[offset / 4];
}

static void table_write(struct device *dev, u64 offset, int size, u64 val)
{
    static const u32 writable[ENTRY_DWORDS] = {~3u, ~0u, ~0u, ENTRY_MASKED};
    struct pci_device *d = container_of(dev, struct pci_device, dev);

    d->ps.msix_table[offset / 4] = (u32)val & writable[offset / 4 % ENTRY_DWORDS];
    pci_msix_flush(d);
}

static u64 pba_read(struct device *dev, u64 offset, int size)
{
    return container_of(dev, struct pci_device, dev)->ps.msix_pending[offset / 4];
}

static const struct io_ops table_ops = {table_read, table_write, 4, 4};
static const struct io_ops pba_ops = {pba_read, NULL, 4, 4};

static u64 table_size(const struct pci_device *d)
{
    return (u64)d->msix_count * 4 * ENTRY_DWORDS;
}

static u64 pba_size(const struct pci_device *d)
{
    return ALIGN_UP((u64)d->msix_count, 64) / 8;
}

void pci_msix_map(struct pci_device *d, u64 gpa)
{
    mmio_map(d->dev.machine, gpa + d->msix_table_offset, table_size(d), &d->dev, &table_ops);
    mmio_map(d->dev.machine, gpa + d->msix_pba_offset, pba_size(d), &d->dev, &pba_ops);
}

void pci_msix_unmap(struct pci_device *d, u64 gpa)
{
    mmio_unmap(d->dev.machine, gpa + d->msix_table_offset, table_size(d), &d->dev);
    mmio_unmap(d->dev.machine, gpa + d->msix_pba_offset, pba_size(d), &d->dev);
}

void pci_msix_reset(struct pci_device *d)
{
    memset(d->ps.msix_table, 0, sizeof(d->ps.msix_table));
    memset(d->ps.msix_pending, 0, sizeof(d->ps.msix_pending));
    for (int v = 0; v < d->msix_count; v++)
        d->ps.msix_table[v * ENTRY_DWORDS + ENTRY_CONTROL] = ENTRY_MASKED;
}

void pci_msix_add(struct pci_device *d, int bar, int count, u32 table_offset, u32 pba_offset)
{
    int cap = pci_capability_add(d, CAP_MSIX, CAP_MSIX_LEN);

    assert(count > 0 && count <= PCI_MSIX_MAX && d->bar[bar].size && !d->bar[bar].io);
    assert(!((table_offset | pba_offset) & 7));
    d->msix_bar = bar;
    d->msix_count = count;
    d->msix_cap = cap;
    d->msix_table_offset = table_offset;
    d->msix_pba_offset = pba_offset;
    assert(table_offset + table_size(d) <= d->bar[bar].size && pba_offset + pba_size(d) <= d->bar[bar].size);
    pci_config_set16(d, cap + MSIX_CONTROL, (u16)(count - 1));
    pci_config_set32(d, cap + MSIX_TABLE, table_offset | (u32)bar);
    pci_config_set32(d, cap + MSIX_PBA, pba_offset | (u32)bar);
    d->writable[cap + MSIX_CONTROL + 1] = (MSIX_ENABLE | MSIX_FUNCTION_MASK) >> 8;
    pci_msix_reset(d);
}
