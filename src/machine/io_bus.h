/* Address spaces of a machine: ports (PIO) and memory-mapped I/O, dispatched to devices.
 *
 * Handlers receive the offset from the start of the mapped range and a size of 1, 2, 4 (or, memory only, 8) bytes.
 * The bus splits an access that is unaligned, wider than the handler takes, or crosses the end of its range, so that
 * handlers only see naturally aligned pieces (of ranges that start aligned) within their range. A piece belongs to
 * the range that holds its first byte: a dword write to 0xCF8 is PCI's although a byte at 0xCF9 is not. What nothing
 * answers reads as all ones. */
#ifndef MACHINE_IO_BUS_H
#define MACHINE_IO_BUS_H
#include "base/types.h"

struct device;
struct io_range;
struct machine;

struct io_ops {
    u64 (*read)(struct device *dev, u64 offset, int size);
    void (*write)(struct device *dev, u64 offset, int size, u64 val);
    /* What the chip decodes; 0, 0: 1 to 8 bytes. Wider accesses are split. Of narrower ones, a read gets its bytes of
     * the aligned min_size word, and a write is dropped: chips that demand a width leave it undefined. */
    u8 min_size, max_size;
};

/* Ranges may be mapped and unmapped while the machine runs (PCI BARs), machine lock held. Overlaps: the range mapped
 * last wins, and unmapping it uncovers the other. */
void pio_map(struct machine *m, u16 port, u32 count, struct device *dev, const struct io_ops *ops);
void pio_unmap(struct machine *m, u16 port, u32 count, struct device *dev);
void mmio_map(struct machine *m, u64 gpa, u64 size, struct device *dev, const struct io_ops *ops);
void mmio_unmap(struct machine *m, u64 gpa, u64 size, struct device *dev);

void io_ranges_free(struct io_range *first); /* at the machine's end */

/* One access by a vCPU, of 1, 2, 4 (memory: or 8) bytes; takes the machine lock itself. */
u64 pio_read(struct machine *m, u16 port, int size);
void pio_write(struct machine *m, u16 port, int size, u64 val);
u64 mmio_read(struct machine *m, u64 gpa, int size);
void mmio_write(struct machine *m, u64 gpa, int size, u64 val);

#endif
