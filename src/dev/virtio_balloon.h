/* Virtio memory balloon: the guest hands pages back to the host. Virtio 1.2 §5.5. */
#ifndef DEV_VIRTIO_BALLOON_H
#define DEV_VIRTIO_BALLOON_H
#include "machine/machine.h"

/* Takes the next free PCI slot. The balloon starts empty. */
struct device *virtio_balloon_create(struct machine *m);

/* Asks the guest to hold `bytes` (rounded down to 4 KiB) in the balloon. Machine lock held. The guest follows in its own time. */
void virtio_balloon_set_target(struct device *dev, u64 bytes);

/* Bytes that the guest says it holds in the balloon now. */
u64 virtio_balloon_actual(const struct device *dev);

extern const struct device_type virtio_balloon_type;

#endif
