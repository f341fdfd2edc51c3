/* Virtio console with one port: see virtio_console.h. Virtio 1.2 §5.3.
 *
 * Left out: further ports with their control queues, and the terminal's size, which the console interface does not tell. */
#include "dev/virtio_console.h"

#include "base/trace.h"
#include "dev/virtio_pci.h"
#include "ui/console.h"

enum { F_EMERG_WRITE = 2 };
enum { RECEIVEQ = 0, TRANSMITQ = 1, QUEUE_SIZE = 64 };
enum { CHAIN_MAX = 1 << 20, TRANSMIT_AT_ONCE = 1 << 18 }; /* bytes: of one chain, and before others get their turn */

struct console_config { /* §5.3.4 */
    u16 cols, rows;
    u32 max_nr_ports, emerg_wr;
};

struct virtio_console_state {
    struct virtio_state virtio;
};

struct virtio_console {
    struct virtio_pci virtio;
    struct virtio_console_state s;
    struct console *console;
};

static const struct state_field virtio_console_fields[] = {VIRTIO_STATE_FIELDS(struct virtio_console_state, virtio),
                                                           STATE_END};

static struct virtio_console *console_of(struct virtio_pci *v)
{
    return container_of(v, struct virtio_console, virtio);
}

static struct virtio_state *state_of(struct virtio_pci *v)
{
    return &console_of(v)->s.virtio;
}

/* ---- input ---- */

/* The next buffer's size; buffers of no size are of no use and go back. 0: there is none. */
static int next_buffer(struct virtio_console *d)
{
    struct virtqueue *q = &d->virtio.queue[RECEIVEQ];
    struct virtq_chain c;

    for (int budget = QUEUE_SIZE; budget && virtq_pop(q, &c); budget--) {
        if (c.writable_bytes) {
            virtq_unpop(q, 1);
            return (int)MIN(c.writable_bytes, 4096u);
        }
        virtq_push(q, &c, 0);
    }
    virtio_pci_interrupt(&d->virtio, RECEIVEQ);
    return 0;
}

static int input_room(void *ctx)
{
    struct virtio_console *d = ctx;
    int room;

    if (!virtio_pci_live(&d->virtio))
        return 0;
    room = next_buffer(d);
    if (!room && virtq_notifications_on(&d->virtio.queue[RECEIVEQ]))
        room = next_buffer(d); /* it came while we asked to be told */
    return room;
}

static void input_receive(void *ctx, const u8 *data, int len)
{
    struct virtio_console *d = ctx;
    struct virtqueue *q = &d->virtio.queue[RECEIVEQ];
    struct virtq_chain c;

    while (len > 0 && virtio_pci_live(&d->virtio) && virtq_pop(q, &c)) {
        int n = (int)virtq_chain_write(q, &c, 0, data, (size_t)len);

        virtq_push(q, &c, (u32)n);
        data += n;
        len -= n;
    }
    virtio_pci_interrupt(&d->virtio, RECEIVEQ);
}

static void input_break(void *ctx)
{
    /* a virtio port has no line that could be broken */
}

/* ---- output ---- */

static void output_chain(struct virtio_console *d, const struct virtq_chain *c)
{
    for (int i = 0; i < c->readable; i++)
        for (size_t at = 0; at < c->iov[i].iov_len; at += KIB(64))
            console_write(d->console, (const u8 *)c->iov[i].iov_base + at, (int)MIN(c->iov[i].iov_len - at, KIB(64)));
}

static void transmit(struct virtio_console *d)
{
    struct virtqueue *q = &d->virtio.queue[TRANSMITQ];
    struct virtq_chain c;

    virtq_notifications_off(q);
    for (s64 budget = TRANSMIT_AT_ONCE; budget > 0 && virtq_pop(q, &c); budget -= 64 + (s64)c.readable_bytes) {
        if (c.readable_bytes > CHAIN_MAX) {
            virtq_break(q, "console output of absurd length");
            return;
        }
        output_chain(d, &c);
        virtq_push(q, &c, 0);
    }
    if (virtq_notifications_on(q))
        virtio_pci_kick(&d->virtio, TRANSMITQ);
    virtio_pci_interrupt(&d->virtio, TRANSMITQ);
}

static void virtio_console_serve(struct virtio_pci *v, int n)
{
    if (n == TRANSMITQ)
        transmit(console_of(v));
    else
        console_room(console_of(v)->console);
}

/* ---- configuration ---- */

static void virtio_console_config_read(struct virtio_pci *v, void *config)
{
    ((struct console_config *)config)->max_nr_ports = 1;
}

/* Legal in any status: for drivers in early boot and in a panic. */
static void virtio_console_config_write(struct virtio_pci *v, int offset, int size, u32 val)
{
    u8 c = (u8)val;

    if (offset == offsetof(struct console_config, emerg_wr))
        console_write(console_of(v)->console, &c, 1);
    else
        trace(GUEST, "%s: write of configuration at %d", v->pci.dev.id, offset);
}

/* ---- lifecycle ---- */

static const struct virtio_model virtio_console_model = {
    .id = VIRTIO_ID_CONSOLE,
    .pci_class = 0x078000,
    .config_size = sizeof(struct console_config),
    .config_read = virtio_console_config_read,
    .config_write = virtio_console_config_write,
    .serve = virtio_console_serve,
};

const struct device_type virtio_console_type = {
    .name = "virtio_console",
    .size = sizeof(struct virtio_console),
    .state_offset = offsetof(struct virtio_console, s),
    .state = STATE_TABLE(struct virtio_console_state, virtio_console_fields, 1),
    .reset = virtio_pci_reset,
    .loaded = virtio_pci_loaded,
    .destroy = virtio_pci_destroy,
};

struct device *virtio_console_create(struct machine *m, struct console *console)
{
    struct virtio_pci *v = virtio_pci_add(m, &virtio_console_type, &virtio_console_model, state_of);

    v->features |= BIT(F_EMERG_WRITE);
    virtio_pci_add_queue(v, QUEUE_SIZE);
    virtio_pci_add_queue(v, QUEUE_SIZE);
    console_of(v)->console = console;
    console_attach(console, input_room, input_receive, input_break, console_of(v));
    return &v->pci.dev;
}
