/* Devices of a machine: see device.h. */
#include "machine/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "i8254_pit", and from the second device of a type on "virtio_blk.1". */
static void device_name(struct device *dev)
{
    int same = 0;

    for (struct device *d = dev->machine->devices; d; d = d->next)
        same += d->type == dev->type;
    if (same)
        snprintf(dev->id, sizeof(dev->id), "%s.%d", dev->type->name, same);
    else
        snprintf(dev->id, sizeof(dev->id), "%s", dev->type->name);
}

struct device *device_add(struct machine *m, const struct device_type *type)
{
    struct device *dev = calloc(1, type->size);

    if (!dev) {
        fprintf(stderr, "skerry: out of memory for device %s\n", type->name);
        exit(1);
    }
    dev->type = type;
    dev->machine = m;
    device_name(dev);
    *m->devices_end = dev;
    m->devices_end = &dev->next;
    return dev;
}

struct device *device_find(struct machine *m, const struct device_type *type)
{
    struct device *dev = m->devices;

    while (dev && dev->type != type)
        dev = dev->next;
    return dev;
}

void devices_reset(struct machine *m)
{
    for (struct device *dev = m->devices; dev; dev = dev->next)
        if (dev->type->reset)
            dev->type->reset(dev);
}

void devices_free(struct machine *m)
{
    for (struct device *dev = m->devices; dev; dev = dev->next)
        if (dev->type->destroy)
            dev->type->destroy(dev);
    while (m->devices) {
        struct device *dev = m->devices;

        m->devices = dev->next;
        free(dev);
    }
    m->devices_end = &m->devices;
}
