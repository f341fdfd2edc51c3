/* Virtio network card on a network back end. Virtio 1.2 §5.1. */
#ifndef DEV_VIRTIO_NET_H
#define DEV_VIRTIO_NET_H
#include "machine/machine.h"

struct net;

/* `net` stays the caller's and is attached; NULL: a card whose link is down. `mac` is copied. Takes the next free PCI slot. */
struct device *virtio_net_create(struct machine *m, struct net *net, const u8 mac[6]);

extern const struct device_type virtio_net_type;

#endif
