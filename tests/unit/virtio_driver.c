/* See virtio_driver.h. Virtio 1.2 §2.7 and §4.1. */
#include "virtio_driver.h"

#include <string.h>

enum { ADDRESS_PORT = 0xcf8, DATA_PORT = 0xcfc };

static int route_all_to_a(int slot, int pin)
{
    return 0;
}

struct machine *driver_machine(int cpus, struct irq_probe *intx)
{
    struct machine *m = fixture_machine(cpus);
    struct irq wire[4] = {irq_probe(intx)};

    *intx = (struct irq_probe){0};
    pci_bus_create(m);
    pci_bus_route_intx(m, route_all_to_a, wire);
    return m;
}

static u32 pci_get(struct driver *d, int reg, int size)
{
    pio_write(d->m, ADDRESS_PORT, 4, 0x80000000u | (u32)d->slot << 11 | ((u32)reg & 0xfc));
    return (u32)pio_read(d->m, (u16)(DATA_PORT + (reg & 3)), size);
}

static void pci_set(struct driver *d, int reg, int size, u32 val)
{
    pio_write(d->m, ADDRESS_PORT, 4, 0x80000000u | (u32)d->slot << 11 | ((u32)reg & 0xfc));
    pio_write(d->m, (u16)(DATA_PORT + (reg & 3)), size, val);
}

static u8 line(int slot, int pin)
{
    return 11;
}

static void capability(struct driver *d, int at)
{
    u64 bar = pci_get(d, PCI_BAR0 + 4 * (int)pci_get(d, at + 4, 1), 4) & ~15u;
    u64 gpa = bar + pci_get(d, at + 8, 4);

    switch (pci_get(d, at + 3, 1)) {
    case 1:
        d->common = gpa;
        break;
    case 2:
        d->notify = gpa;
        d->notify_multiplier = pci_get(d, at + 16, 4);
        break;
    case 3:
        d->isr = gpa;
        break;
    case 4:
        d->config = gpa;
        break;
    case 5:
        d->access_cap = at;
    }
}

void driver_find(struct driver *d, struct machine *m, struct device *dev)
{
    *d = (struct driver){.m = m, .slot = container_of(dev, struct pci_device, dev)->slot, .next_gpa = 0x10000};
    pci_assign_resources(m, 0xc0000000, 0xd0000000, 0xc000, 0xd000, line);
    pci_set(d, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    for (int at = (int)pci_get(d, PCI_CAPABILITY_LIST, 1); at; at = (int)pci_get(d, at + 1, 1))
        if (pci_get(d, at, 1) == 9)
            capability(d, at);
}

u32 common_get(struct driver *d, int offset, int size)
{
    return (u32)mmio_read(d->m, d->common + (u64)offset, size);
}

void common_set(struct driver *d, int offset, int size, u32 val)
{
    mmio_write(d->m, d->common + (u64)offset, size, val);
}

u64 config_get(struct driver *d, int offset, int size)
{
    return mmio_read(d->m, d->config + (u64)offset, size);
}

static void stop(void *loop)
{
    event_loop_stop(loop);
}

/* Tasks may post tasks: a few turns of the loop let all of them run. */
void driver_settle(struct machine *m)
{
    for (int turn = 0; turn < 4; turn++) {
        struct loop_task t = {.fn = stop, .ctx = m->loop};

        event_loop_post(m->loop, &t);
        event_loop_run(m->loop);
    }
}

u8 driver_get_status(struct driver *d)
{
    return (u8)common_get(d, 0x14, 1);
}

void driver_status(struct driver *d, u8 status)
{
    common_set(d, 0x14, 1, status);
    driver_settle(d->m);
}

u64 driver_offered(struct driver *d)
{
    u64 f;

    common_set(d, 0x00, 4, 0);
    f = common_get(d, 0x04, 4);
    common_set(d, 0x00, 4, 1);
    return f | (u64)common_get(d, 0x04, 4) << 32;
}

void driver_accept(struct driver *d, u64 features)
{
    d->features = features;
    common_set(d, 0x08, 4, 0);
    common_set(d, 0x0c, 4, (u32)features);
    common_set(d, 0x08, 4, 1);
    common_set(d, 0x0c, 4, (u32)(features >> 32));
}

u64 driver_alloc(struct driver *d, u32 len)
{
    u64 gpa = d->next_gpa;

    d->next_gpa += ALIGN_UP(len, 16);
    assert(d->next_gpa <= FIXTURE_RAM);
    memset(driver_ptr(d, gpa), 0, len);
    return gpa;
}

void *driver_ptr(struct driver *d, u64 gpa)
{
    return d->m->mem->backing + gpa;
}

void driver_queue(struct driver *d, int n, u16 size)
{
    struct ring *r = &d->ring[n];

    *r = (struct ring){.size = size};
    r->desc = driver_alloc(d, 16u * size);
    r->avail = driver_alloc(d, 6u + 2u * size);
    r->used = driver_alloc(d, 6u + 8u * size);
    common_set(d, 0x16, 2, (u32)n);
    common_set(d, 0x18, 2, size);
    common_set(d, 0x20, 4, (u32)r->desc);
    common_set(d, 0x24, 4, 0);
    common_set(d, 0x28, 4, (u32)r->avail);
    common_set(d, 0x30, 4, (u32)r->used);
    common_set(d, 0x1c, 2, 1);
}

static void msix_start(struct driver *d, int queues)
{
    u64 table = pci_get(d, PCI_BAR0 + 4, 4) & ~15u;

    for (int i = 0; i <= 8; i++) {
        mmio_write(d->m, table + 16 * (u64)i, 4, 0xfee00000);
        mmio_write(d->m, table + 16 * (u64)i + 4, 4, 0);
        mmio_write(d->m, table + 16 * (u64)i + 8, 4, DRIVER_MSI_VECTOR + (u32)i);
        mmio_write(d->m, table + 16 * (u64)i + 12, 4, 0);
    }
    for (int at = (int)pci_get(d, PCI_CAPABILITY_LIST, 1); at; at = (int)pci_get(d, at + 1, 1))
        if (pci_get(d, at, 1) == 0x11)
            pci_set(d, at + 2, 2, 0x8000);
    common_set(d, 0x10, 2, 8);
    for (int n = 0; n < queues; n++) {
        common_set(d, 0x16, 2, (u32)n);
        common_set(d, 0x1a, 2, (u32)n);
    }
}

void driver_start(struct driver *d, u64 features, int queues, u16 size, bool msix)
{
    driver_status(d, 0);
    driver_status(d, 1);
    driver_status(d, 3);
    driver_accept(d, features & driver_offered(d));
    driver_status(d, 11);
    assert(driver_get_status(d) == 11);
    if (msix)
        msix_start(d, queues);
    for (int n = 0; n < queues; n++)
        driver_queue(d, n, size);
    driver_status(d, 15);
}

void desc_set(struct driver *d, u64 table, int index, u64 gpa, u32 len, u16 flags, u16 next)
{
    u8 *p = driver_ptr(d, table + 16 * (u64)index);

    memcpy(p, &gpa, 8);
    memcpy(p + 8, &len, 4);
    memcpy(p + 12, &flags, 2);
    memcpy(p + 14, &next, 2);
}

static void chain_set(struct driver *d, u64 table, int first, int mask, const struct buffer *b, int count)
{
    for (int i = 0; i < count; i++) {
        u16 flags = (u16)((b[i].write ? 2 : 0) | (i + 1 < count ? 1 : 0));

        desc_set(d, table, (first + i) & mask, b[i].gpa, b[i].len, flags, (u16)((first + i + 1) & mask));
    }
}

void driver_offer(struct driver *d, int n, u16 head)
{
    struct ring *r = &d->ring[n];

    memcpy(driver_ptr(d, r->avail + 4 + 2ull * (r->avail_idx & (r->size - 1))), &head, 2);
    r->avail_idx++;
    memcpy(driver_ptr(d, r->avail + 2), &r->avail_idx, 2);
}

u16 driver_add(struct driver *d, int n, const struct buffer *b, int count)
{
    struct ring *r = &d->ring[n];
    u16 head = r->next_desc;

    chain_set(d, r->desc, head, r->size - 1, b, count);
    r->next_desc = (u16)((head + count) & (r->size - 1));
    driver_offer(d, n, head);
    return head;
}

u16 driver_add_indirect(struct driver *d, int n, const struct buffer *b, int count)
{
    struct ring *r = &d->ring[n];
    u64 table = driver_alloc(d, 16u * (u32)count);
    u16 head = r->next_desc;

    chain_set(d, table, 0, 0xffff, b, count);
    desc_set(d, r->desc, head, table, 16u * (u32)count, 4, 0);
    r->next_desc = (u16)((head + 1) & (r->size - 1));
    driver_offer(d, n, head);
    return head;
}

void driver_kick(struct driver *d, int n)
{
    mmio_write(d->m, d->notify + (u64)n * d->notify_multiplier, 2, (u64)n);
    driver_settle(d->m);
}

int driver_used(struct driver *d, int n, u32 *len)
{
    struct ring *r = &d->ring[n];
    u16 idx;
    u32 elem[2];

    memcpy(&idx, driver_ptr(d, r->used + 2), 2);
    if (idx == r->used_seen)
        return -1;
    memcpy(elem, driver_ptr(d, r->used + 4 + 8ull * (r->used_seen & (r->size - 1))), 8);
    r->used_seen++;
    if (len)
        *len = elem[1];
    return (int)elem[0];
}
