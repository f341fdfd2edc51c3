/* Virtio entropy device: see virtio_rng.h. Virtio 1.2 §5.4. One queue of buffers to fill, no configuration. */
#include "dev/virtio_rng.h"

#include "base/trace.h"
#include "dev/virtio_pci.h"

#include <sys/random.h>

enum { QUEUE_SIZE = 64, BYTES_AT_ONCE = 4096 /* of one buffer; a driver asks again */ };

struct virtio_rng_state {
    struct virtio_state virtio;
};

struct virtio_rng {
    struct virtio_pci virtio;
    struct virtio_rng_state s;
};

static const struct state_field virtio_rng_fields[] = {VIRTIO_STATE_FIELDS(struct virtio_rng_state, virtio), STATE_END};

static struct virtio_state *state_of(struct virtio_pci *v)
{
    return &container_of(v, struct virtio_rng, virtio)->s.virtio;
}

/* getrandom hands out up to 256 bytes whole, and more unless a signal comes: then the buffer is filled in part. */
static u32 fill(struct virtqueue *q, const struct virtq_chain *c)
{
    u8 bytes[BYTES_AT_ONCE];
    ssize_t n = getrandom(bytes, MIN(c->writable_bytes, sizeof(bytes)), 0);

    return n > 0 ? (u32)virtq_chain_write(q, c, 0, bytes, (size_t)n) : 0;
}

static void virtio_rng_serve(struct virtio_pci *v, int n)
{
    struct virtqueue *q = &v->queue[n];
    struct virtq_chain c;

    virtq_notifications_off(q);
    for (int budget = QUEUE_SIZE; budget && virtq_pop(q, &c); budget--)
        virtq_push(q, &c, fill(q, &c));
    if (virtq_notifications_on(q))
        virtio_pci_kick(v, n);
    virtio_pci_interrupt(v, n);
}

static const struct virtio_model virtio_rng_model = {
    .id = VIRTIO_ID_ENTROPY,
    .pci_class = 0x00ff00,
    .serve = virtio_rng_serve,
};

const struct device_type virtio_rng_type = {
    .name = "virtio_rng",
    .size = sizeof(struct virtio_rng),
    .state_offset = offsetof(struct virtio_rng, s),
    .state = STATE_TABLE(struct virtio_rng_state, virtio_rng_fields, 1),
    .reset = virtio_pci_reset,
    .loaded = virtio_pci_loaded,
    .destroy = virtio_pci_destroy,
};

struct device *virtio_rng_create(struct machine *m)
{
    struct virtio_pci *v = virtio_pci_add(m, &virtio_rng_type, &virtio_rng_model, state_of);

    virtio_pci_add_queue(v, QUEUE_SIZE);
    return &v->pci.dev;
}
