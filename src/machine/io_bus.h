/* Address spaces of a machine: ports (PIO) and memory-mapped I/O, dispatched to devices.
 *
 * Handlers receive the offset from the start of the mapped range and a size of 1, 2, 4 (or, memory only, 8) bytes; an
 * access never crosses the end of its range: the bus splits it at range ends into bytes. What nothing answers reads as all ones. */
#ifndef MACHINE_IO_BUS_H
#define MACHINE_IO_BUS_H
#include "base/types.h"

struct device;
struct machine;

struct io_ops {
    u64 (*read)(struct device *dev, u64 offset, int size);
    void (*write)(struct device *dev, u64 offset, int size, u64 val);
    u8 min_size, max_size; /* what the chip decodes; the bus splits wider accesses and refuses nothing. 0, 0: 1 to 8 */
};

/* Ranges may be mapped and unmapped while the machine runs (PCI BARs), machine lock held. Overlaps: the range mapped last
 * wins, and unmapping it uncovers the other. */
void pio_map(struct machine *m, u16 port, u32 count, struct device *dev, const struct io_ops *ops);
void pio_unmap(struct machine *m, u16 port, u32 count, struct device *dev);
void mmio_map(struct machine *m, u64 gpa, u64 size, struct device *dev, const struct io_ops *ops);
void mmio_unmap(struct machine *m, u64 gpa, u64 size, struct device *dev);

/* One access by a vCPU; takes the machine lock itself. */
u64 pio_read(struct machine *m, u16 port, int size);
void pio_write(struct machine *m, u16 port, int size, u64 val);
u64 mmio_read(struct machine *m, u64 gpa, int size);
void mmio_write(struct machine *m, u64 gpa, int size, u64 val);

#endif
