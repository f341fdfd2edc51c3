/* Virtio network card: see virtio_net.h. Virtio 1.2 §5.1.
 *
 * One pair of queues. A received frame may be spread over several buffers (MRG_RXBUF), which the driver sees all at once.
 *
 * Left out: checksum and segmentation offloads, the control queue (filters, several pairs), all of which a driver can do
 * without. */
#include "dev/virtio_net.h"

#include "base/trace.h"
#include "dev/virtio_pci.h"
#include "net/net.h"

#include <string.h>

enum { F_MAC = 5, F_MRG_RXBUF = 15, F_STATUS = 16 }; /* §5.1.3 */
enum { RECEIVEQ = 0, TRANSMITQ = 1, QUEUE_SIZE = 256 };
enum { S_LINK_UP = 1 };

struct net_header { /* §5.1.6 */
    u8 flags, gso_type;
    u16 hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};

struct net_config { /* §5.1.4 */
    u8 mac[6];
    u16 status;
};

struct virtio_net_state {
    struct virtio_state virtio;
};

struct virtio_net {
    struct virtio_pci virtio;
    struct virtio_net_state s;
    struct net *net;
    u8 mac[6];
};

static const struct state_field virtio_net_fields[] = {VIRTIO_STATE_FIELDS(struct virtio_net_state, virtio), STATE_END};

static struct virtio_net *net_of(struct virtio_pci *v)
{
    return container_of(v, struct virtio_net, virtio);
}

static struct virtio_state *state_of(struct virtio_pci *v)
{
    return &net_of(v)->s.virtio;
}

/* ---- host to guest ---- */

/* Without a driver the card takes everything, and it goes nowhere, as with a real card that is down. */
static bool receive_ready(void *ctx)
{
    struct virtio_net *d = ctx;
    struct virtqueue *q = &d->virtio.queue[RECEIVEQ];

    if (!virtio_pci_live(&d->virtio) || q->broken || !d->s.virtio.queue.enabled[RECEIVEQ])
        return true;
    if (virtq_pending(q)) {
        virtq_notifications_off(q);
        return true;
    }
    virtio_pci_interrupt(&d->virtio, RECEIVEQ); /* the driver must know of the full ones to give new ones */
    return virtq_notifications_on(q);
}

/* Puts header and frame into as many buffers as they take, and returns how many; 0 if they do not fit, and none is used. */
static int frame_store(struct virtio_net *d, const u8 *frame, size_t len)
{
    struct virtqueue *q = &d->virtio.queue[RECEIVEQ];
    int count = 0, count_max = virtio_pci_has(&d->virtio, F_MRG_RXBUF) ? d->s.virtio.queue.size[RECEIVEQ] : 1;
    struct net_header h = {0};
    struct virtq_chain first, more;
    size_t done = 0;

    do {
        struct virtq_chain *c = count ? &more : &first;
        size_t header = count ? 0 : sizeof(h), n;

        if (count == count_max || !virtq_pop(q, c)) {
            virtq_unpop(q, count);
            return 0;
        }
        if (c->writable_bytes < header) {
            virtq_break(q, "receive buffer without room for the header");
            return 0;
        }
        n = virtq_chain_write(q, c, header, frame + done, len - done);
        virtq_fill(q, c, (u32)(header + n), count++);
        done += n;
    } while (done < len);
    h.num_buffers = (u16)count;
    virtq_chain_write(q, &first, 0, &h, sizeof(h));
    return count;
}

static void receive(void *ctx, const u8 *frame, size_t len)
{
    struct virtio_net *d = ctx;
    int count = 0;

    if (virtio_pci_may_push(&d->virtio, RECEIVEQ))
        count = frame_store(d, frame, len);
    trace(NET, "%s: in, %zu bytes, %d buffers", d->virtio.pci.dev.id, len, count);
    if (!count)
        return; /* lost, as on a wire */
    virtq_publish(&d->virtio.queue[RECEIVEQ], count);
    virtio_pci_kick(&d->virtio, RECEIVEQ); /* one interrupt for all that arrives in this turn of the loop */
}

/* ---- guest to host ---- */

static void send_frame(struct virtio_net *d, const struct virtq_chain *c)
{
    struct iovec iov[VIRTQ_IOV_MAX];
    struct net_header h;
    size_t len;
    int n;

    if (virtq_chain_read(c, 0, &h, sizeof(h)) < sizeof(h)) {
        trace(GUEST, "%s: frame without header", d->virtio.pci.dev.id);
        return;
    }
    len = c->readable_bytes - sizeof(h);
    trace(NET, "%s: out, %zu bytes", d->virtio.pci.dev.id, len);
    if (h.flags || h.gso_type || len > NET_FRAME_MAX) {
        trace(GUEST, "%s: frame wants offloads that were not offered", d->virtio.pci.dev.id);
        return;
    }
    n = virtq_iov_slice(c->iov, c->readable, sizeof(h), len, iov);
    if (d->net && len)
        net_send(d->net, iov, n);
}

static void transmit(struct virtio_net *d)
{
    struct virtqueue *q = &d->virtio.queue[TRANSMITQ];
    struct virtq_chain c;

    virtq_notifications_off(q);
    for (int budget = QUEUE_SIZE; budget && virtq_pop(q, &c); budget--) {
        send_frame(d, &c);
        virtq_push(q, &c, 0);
    }
    if (virtq_notifications_on(q))
        virtio_pci_kick(&d->virtio, TRANSMITQ);
    virtio_pci_interrupt(&d->virtio, TRANSMITQ);
}

static void virtio_net_serve(struct virtio_pci *v, int n)
{
    struct virtio_net *d = net_of(v);

    if (n == TRANSMITQ) {
        transmit(d);
        return;
    }
    virtio_pci_interrupt(v, RECEIVEQ);
    if (d->net)
        net_receive_ready(d->net);
}

/* ---- configuration and lifecycle ---- */

static void virtio_net_config_read(struct virtio_pci *v, void *config)
{
    struct virtio_net *d = net_of(v);
    struct net_config *c = config;

    memcpy(c->mac, d->mac, sizeof(c->mac));
    c->status = d->net ? S_LINK_UP : 0;
}

static const struct virtio_model virtio_net_model = {
    .id = VIRTIO_ID_NET,
    .pci_class = 0x020000,
    .config_size = sizeof(struct net_config),
    .config_read = virtio_net_config_read,
    .serve = virtio_net_serve,
};

const struct device_type virtio_net_type = {
    .name = "virtio_net",
    .size = sizeof(struct virtio_net),
    .state_offset = offsetof(struct virtio_net, s),
    .state = STATE_TABLE(struct virtio_net_state, virtio_net_fields, 1),
    .reset = virtio_pci_reset,
    .loaded = virtio_pci_loaded,
    .destroy = virtio_pci_destroy,
};

struct device *virtio_net_create(struct machine *m, struct net *net, const u8 mac[6])
{
    struct virtio_pci *v = virtio_pci_add(m, &virtio_net_type, &virtio_net_model, state_of);
    struct virtio_net *d = net_of(v);

    d->net = net;
    memcpy(d->mac, mac, sizeof(d->mac));
    v->features |= BIT(F_MAC) | BIT(F_MRG_RXBUF) | BIT(F_STATUS);
    virtio_pci_add_queue(v, QUEUE_SIZE);
    virtio_pci_add_queue(v, QUEUE_SIZE);
    if (net)
        net_attach(net, receive_ready, receive, d);
    return &v->pci.dev;
}
