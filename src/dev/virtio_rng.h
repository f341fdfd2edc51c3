/* Virtio entropy device, fed by the host's getrandom(2). Virtio 1.2 §5.4. */
#ifndef DEV_VIRTIO_RNG_H
#define DEV_VIRTIO_RNG_H
#include "machine/machine.h"

/* Takes the next free PCI slot. */
struct device *virtio_rng_create(struct machine *m);

extern const struct device_type virtio_rng_type;

#endif
