/* Virtio block device on a disk. Virtio 1.2 §5.2. */
#ifndef DEV_VIRTIO_BLK_H
#define DEV_VIRTIO_BLK_H
#include "machine/machine.h"

struct disk;

/* `disk` stays the caller's and must outlive the machine. `serial` is what GET_ID answers, of which the first 20 bytes count
 * (copied; NULL: empty). Takes the next free PCI slot. */
struct device *virtio_blk_create(struct machine *m, struct disk *disk, const char *serial);

extern const struct device_type virtio_blk_type;

#endif
