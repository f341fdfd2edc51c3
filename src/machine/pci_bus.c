/* PCI bus 0: which device is where, configuration mechanism #1, and the four INTx wires. PCI Local Bus 3.0 §3.2.2.3.
 *
 * There are no bridges to further buses: every other bus reads as absent. */
#include "machine/pci_bus.h"
#include "base/trace.h"

#include <string.h>

enum { CONFIG_ADDRESS_PORT = 0xcf8, CONFIG_DATA_PORT = 0xcfc };
enum { PCI_SLOTS = 32 };
#define CONFIG_ENABLE 0x80000000u
#define CONFIG_ADDRESS_BITS 0x80fffffcu

static const struct state_field pci_bus_fields[] = {
    STATE(struct pci_bus_state, address), STATE_ARRAY(struct pci_bus_state, level), STATE_END};

struct pci_device *pci_device_at(struct machine *m, int slot, int function)
{
    struct pci_device *d = m->pci->first;

    while (d && (d->slot != slot || d->function != function))
        d = d->next;
    return d;
}

/* The function that CONFIG_ADDRESS selects, or NULL. */
static struct pci_device *addressed(struct pci_bus *bus)
{
    u32 address = bus->s.address;

    if (!(address & CONFIG_ENABLE) || (address >> 16 & 0xff))
        return NULL;
    return pci_device_at(bus->dev.machine, address >> 11 & 0x1f, address >> 8 & 7);
}

static u64 config_address_read(struct device *dev, u64 offset, int size)
{
    struct pci_bus *bus = container_of(dev, struct pci_bus, dev);

    return size == 4 ? bus->s.address : UINT32_MAX;
}

/* Only dwords reach the register; narrower writes are for devices behind it. */
static void config_address_write(struct device *dev, u64 offset, int size, u64 val)
{
    struct pci_bus *bus = container_of(dev, struct pci_bus, dev);

    if (size == 4)
        bus->s.address = (u32)val & CONFIG_ADDRESS_BITS;
}

static u64 config_data_read(struct device *dev, u64 offset, int size)
{
    struct pci_bus *bus = container_of(dev, struct pci_bus, dev);
    struct pci_device *d = addressed(bus);

    return d ? pci_config_read(d, (int)((bus->s.address & 0xfc) + offset), size) : UINT32_MAX;
}

static void config_data_write(struct device *dev, u64 offset, int size, u64 val)
{
    struct pci_bus *bus = container_of(dev, struct pci_bus, dev);
    struct pci_device *d = addressed(bus);

    if (d)
        pci_config_write(d, (int)((bus->s.address & 0xfc) + offset), size, (u32)val);
}

static const struct io_ops config_address_ops = {config_address_read, config_address_write, 1, 4};
static const struct io_ops config_data_ops = {config_data_read, config_data_write, 1, 4};

static void pci_bus_reset(struct device *dev)
{
    container_of(dev, struct pci_bus, dev)->s.address = 0;
}

static const struct device_type pci_bus_type = {
    .name = "pci_bus",
    .size = sizeof(struct pci_bus),
    .state_offset = offsetof(struct pci_bus, s),
    .state = STATE_TABLE(struct pci_bus_state, pci_bus_fields, 1),
    .reset = pci_bus_reset,
};

struct pci_bus *pci_bus_create(struct machine *m)
{
    struct device *dev = device_add(m, &pci_bus_type);

    m->pci = container_of(dev, struct pci_bus, dev);
    pio_map(m, CONFIG_ADDRESS_PORT, 4, dev, &config_address_ops);
    pio_map(m, CONFIG_DATA_PORT, 4, dev, &config_data_ops);
    return m->pci;
}

void pci_bus_route_intx(struct machine *m, int (*route)(int slot, int pin), const struct irq wire[4])
{
    m->pci->route = route;
    memcpy(m->pci->wire, wire, sizeof(m->pci->wire));
}

static bool slot_taken(struct machine *m, int slot)
{
    for (int function = 0; function < 8; function++)
        if (pci_device_at(m, slot, function))
            return true;
    return false;
}

static int slot_free(struct machine *m)
{
    int slot = 0;

    while (slot < PCI_SLOTS && slot_taken(m, slot))
        slot++;
    return slot;
}

/* Bits of the standard header that every function lets the guest write: PCI 3.0 §6.2. */
static void header_writable(struct pci_device *d)
{
    u16 command = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | 0x140 /* parity, SERR# */ |
                  PCI_COMMAND_INTX_DISABLE;

    d->writable[PCI_COMMAND] = (u8)command;
    d->writable[PCI_COMMAND + 1] = (u8)(command >> 8);
    d->write1_clear[PCI_STATUS + 1] = 0xf9; /* the error bits */
    d->writable[0x0c] = d->writable[0x0d] = 0xff; /* cache line size, latency timer */
    d->writable[PCI_INTERRUPT_LINE] = 0xff;
}

struct pci_device *pci_device_add(struct machine *m, const struct device_type *type, int slot, int function)
{
    struct pci_device *d = container_of(device_add(m, type), struct pci_device, dev);
    struct pci_device **end = &m->pci->first;

    if (slot < 0)
        slot = slot_free(m);
    assert(slot < PCI_SLOTS && !pci_device_at(m, slot, function));
    d->slot = (u8)slot;
    d->function = (u8)function;
    d->capability_end = 0x40;
    header_writable(d);
    while (*end)
        end = &(*end)->next;
    *end = d;
    return d;
}

static bool intx_asserted(const struct pci_device *d)
{
    u16 command = (u16)pci_config_get(d, PCI_COMMAND, 2);

    return d->ps.intx_level && !(command & PCI_COMMAND_INTX_DISABLE) && !pci_msix_enabled(d);
}

void pci_intx_update(struct pci_bus *bus)
{
    bool level[4] = {false};

    if (!bus->route)
        return;
    for (const struct pci_device *d = bus->first; d; d = d->next)
        if (d->ps.config[PCI_INTERRUPT_PIN])
            level[bus->route(d->slot, d->ps.config[PCI_INTERRUPT_PIN] - 1)] |= intx_asserted(d);
    for (int i = 0; i < 4; i++) {
        if (level[i] == bus->s.level[i])
            continue;
        bus->s.level[i] = level[i];
        irq_set(&bus->wire[i], level[i]);
    }
}

void pci_intx_set(struct pci_device *d, bool level)
{
    if (d->ps.intx_level == level)
        return;
    d->ps.intx_level = level;
    if (level)
        d->ps.config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
    else
        d->ps.config[PCI_STATUS] &= (u8)~PCI_STATUS_INTERRUPT;
    pci_intx_update(d->dev.machine->pci);
}
