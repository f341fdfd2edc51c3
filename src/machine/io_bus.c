/* Dispatch of port and memory accesses to devices: see io_bus.h.
 *
 * Each address space is a list of ranges, newest first. A PC has about thirty, and a walk over them costs less than the
 * machine lock that every access takes; the list needs no rebuilding when the guest moves a BAR. */
#include "machine/io_bus.h"
#include "base/trace.h"
#include "machine/machine.h"

#include <stdio.h>
#include <stdlib.h>

struct io_range {
    u64 base, size;
    struct device *dev;
    const struct io_ops *ops;
    struct io_range *next;
};

static struct io_range *range_find(struct io_range *first, u64 addr)
{
    while (first && addr - first->base >= first->size)
        first = first->next;
    return first;
}

static void range_map(struct io_range **first, u64 base, u64 size, struct device *dev, const struct io_ops *ops)
{
    struct io_range *r = malloc(sizeof(*r));

    assert(size && base + (size - 1) >= base);
    assert(!ops->min_size || !((base | size) & (u64)(ops->min_size - 1)));
    if (!r) {
        fprintf(stderr, "skerry: out of memory for an I/O range of %s\n", dev->id);
        exit(1);
    }
    *r = (struct io_range){.base = base, .size = size, .dev = dev, .ops = ops, .next = *first};
    *first = r;
}

static void range_unmap(struct io_range **first, u64 base, u64 size, const struct device *dev)
{
    struct io_range *r;

    for (; (r = *first); first = &r->next) {
        if (r->base != base || r->size != size || r->dev != dev)
            continue;
        *first = r->next;
        free(r);
        return;
    }
    assert(!"unmapped a range that is not mapped");
}

void io_ranges_free(struct io_range *first)
{
    while (first) {
        struct io_range *next = first->next;

        free(first);
        first = next;
    }
}

void pio_map(struct machine *m, u16 port, u32 count, struct device *dev, const struct io_ops *ops)
{
    assert(port + count <= 0x10000);
    range_map(&m->pio, port, count, dev, ops);
}

void pio_unmap(struct machine *m, u16 port, u32 count, struct device *dev)
{
    range_unmap(&m->pio, port, count, dev);
}

void mmio_map(struct machine *m, u64 gpa, u64 size, struct device *dev, const struct io_ops *ops)
{
    range_map(&m->mmio, gpa, size, dev, ops);
}

void mmio_unmap(struct machine *m, u64 gpa, u64 size, struct device *dev)
{
    range_unmap(&m->mmio, gpa, size, dev);
}

static u64 ones(int size)
{
    return UINT64_MAX >> (64 - 8 * size);
}

/* The size of the first piece of an access: naturally aligned, inside the range, and no wider than `max`. */
static int piece_size(const struct io_range *r, u64 addr, int size, int max)
{
    u64 left = r->size - (addr - r->base);
    int n = 1;

    while (2 * n <= size && 2 * n <= max && !(addr & (u64)(2 * n - 1)) && 2u * (unsigned)n <= left)
        n *= 2;
    return n;
}

static int range_max(const struct io_range *r)
{
    return r->ops->max_size ? r->ops->max_size : 8;
}

static u64 piece_read(const struct io_range *r, u64 addr, int size)
{
    u64 offset = addr - r->base, below;

    if (!r->ops->read)
        return ones(size);
    if (size >= r->ops->min_size)
        return r->ops->read(r->dev, offset, size);
    below = offset & (u64)(r->ops->min_size - 1);
    return r->ops->read(r->dev, offset - below, r->ops->min_size) >> (8 * below);
}

static void piece_write(const struct io_range *r, u64 addr, int size, u64 val)
{
    if (!r->ops->write)
        return;
    if (size >= r->ops->min_size)
        r->ops->write(r->dev, addr - r->base, size, val & ones(size));
    else
        trace(GUEST, "%s: %d-byte write at offset 0x%llx is too narrow", r->dev->id, size,
              (unsigned long long)(addr - r->base));
}

/* The head of the list is read anew for each piece, because a handler may remap ranges, its own included. `addr` may
 * wrap at the top of the address space: nothing is mapped across it. */
static u64 space_read(struct io_range *const *space, u64 addr, int size)
{
    u64 val = 0;

    for (int done = 0, n; done < size; done += n) {
        const struct io_range *r = range_find(*space, addr + (u64)done);

        n = r ? piece_size(r, addr + (u64)done, size - done, range_max(r)) : 1;
        val |= (r ? piece_read(r, addr + (u64)done, n) & ones(n) : 0xff) << (8 * done);
    }
    return val;
}

static void space_write(struct io_range *const *space, u64 addr, int size, u64 val)
{
    for (int done = 0, n; done < size; done += n) {
        const struct io_range *r = range_find(*space, addr + (u64)done);

        n = r ? piece_size(r, addr + (u64)done, size - done, range_max(r)) : 1;
        if (r)
            piece_write(r, addr + (u64)done, n, val >> (8 * done));
    }
}

static const char *owner(struct io_range *first, u64 addr)
{
    const struct io_range *r = range_find(first, addr);

    return r ? r->dev->id : "nobody";
}

u64 pio_read(struct machine *m, u16 port, int size)
{
    u64 val;

    pthread_mutex_lock(m->lock);
    val = space_read(&m->pio, port, size);
    trace(IO, "in  port 0x%04x size %d = 0x%llx (%s)", port, size, (unsigned long long)val, owner(m->pio, port));
    pthread_mutex_unlock(m->lock);
    return val;
}

void pio_write(struct machine *m, u16 port, int size, u64 val)
{
    pthread_mutex_lock(m->lock);
    trace(IO, "out port 0x%04x size %d = 0x%llx (%s)", port, size, (unsigned long long)val, owner(m->pio, port));
    space_write(&m->pio, port, size, val);
    pthread_mutex_unlock(m->lock);
}

u64 mmio_read(struct machine *m, u64 gpa, int size)
{
    u64 val;

    pthread_mutex_lock(m->lock);
    val = space_read(&m->mmio, gpa, size);
    trace(IO, "read  0x%llx size %d = 0x%llx (%s)", (unsigned long long)gpa, size, (unsigned long long)val,
          owner(m->mmio, gpa));
    pthread_mutex_unlock(m->lock);
    return val;
}

void mmio_write(struct machine *m, u64 gpa, int size, u64 val)
{
    pthread_mutex_lock(m->lock);
    trace(IO, "write 0x%llx size %d = 0x%llx (%s)", (unsigned long long)gpa, size, (unsigned long long)val,
          owner(m->mmio, gpa));
    space_write(&m->mmio, gpa, size, val);
    pthread_mutex_unlock(m->lock);
}
