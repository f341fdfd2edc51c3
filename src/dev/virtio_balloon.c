/* Virtio memory balloon with free page reporting: see virtio_balloon.h. Virtio 1.2 §5.5.
 *
 * A page that the guest gives up becomes a hole in the memfd behind RAM: its host memory is free, and it reads as zeros when
 * the guest takes it back, which needs nothing from us. So deflating is only acknowledged.
 *
 * Left out: statistics, free page hinting (it serves migration), page poison. A guest that poisons its free pages turns
 * reporting off by itself (§5.5.6.5). */
#include "dev/virtio_balloon.h"

#include "base/trace.h"
#include "dev/virtio_pci.h"

#include <fcntl.h>

enum { F_DEFLATE_ON_OOM = 2, F_PAGE_REPORTING = 5 };
enum { INFLATEQ = 0, DEFLATEQ = 1, QUEUES = 5, QUEUE_SIZE = 128 };
enum { PFNS_MAX = 1024 }; /* of one chain; Linux sends 256 */

#define PUNCH_AT_ONCE GIB(1) /* bytes given back before other devices get their turn */

struct balloon_config { /* §5.5.4 */
    u32 num_pages, actual, free_page_hint_cmd_id, poison_val;
};

struct virtio_balloon_state {
    struct virtio_state virtio;
    u32 num_pages; /* what the host asks for, in 4 KiB pages */
    u32 actual;    /* what the driver says it holds */
};

struct virtio_balloon {
    struct virtio_pci virtio;
    struct virtio_balloon_state s;
};

static const struct state_field virtio_balloon_fields[] = {VIRTIO_STATE_FIELDS(struct virtio_balloon_state, virtio),
                                                           STATE(struct virtio_balloon_state, num_pages),
                                                           STATE(struct virtio_balloon_state, actual), STATE_END};

static struct virtio_balloon *balloon_of(struct virtio_pci *v)
{
    return container_of(v, struct virtio_balloon, virtio);
}

static struct virtio_state *state_of(struct virtio_pci *v)
{
    return &balloon_of(v)->s.virtio;
}

/* Gives the whole pages within hva[0, len) back to the host. The guest loses their content, as it agreed to. */
static void punch(struct guest_memory *mem, u8 *hva, u64 len)
{
    u64 first = ALIGN_UP((u64)(hva - mem->backing), PAGE_SIZE),
        end = ALIGN_DOWN((u64)(hva - mem->backing) + len, PAGE_SIZE);

    if (first >= end)
        return;
    if (fallocate(mem->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)first, (off_t)(end - first)))
        trace(VIRTIO, "balloon: cannot free %llu bytes of RAM", (unsigned long long)(end - first));
    guest_memory_written(mem, mem->backing + first, end - first);
}

static void inflate_pages(struct guest_memory *mem, const u32 *pfn, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        u8 *hva = guest_memory_ptr(mem, (u64)pfn[i] << PAGE_SHIFT, PAGE_SIZE, true);

        if (hva)
            punch(mem, hva, PAGE_SIZE);
        else
            trace(GUEST, "balloon: page %#x is not RAM", pfn[i]);
    }
}

/* The buffer is an array of page frame numbers of 32 bits. */
static void inflate(struct virtio_balloon *b, const struct virtq_chain *c)
{
    u32 pfn[PFNS_MAX];
    size_t n = virtq_chain_read(c, 0, pfn, sizeof(pfn));

    if (c->readable_bytes > sizeof(pfn))
        trace(GUEST, "balloon: %u bytes of page numbers, the rest is left", c->readable_bytes);
    inflate_pages(b->virtio.pci.dev.machine->mem, pfn, n / sizeof(u32));
}

/* The buffers themselves are the free pages. */
static void report(struct virtio_balloon *b, const struct virtq_chain *c)
{
    for (int i = c->readable; i < c->readable + c->writable; i++)
        punch(b->virtio.pci.dev.machine->mem, c->iov[i].iov_base, c->iov[i].iov_len);
}

/* Handles one chain and returns about how many bytes of RAM that took looking at. */
static s64 serve_chain(struct virtio_pci *v, int n, const struct virtq_chain *c)
{
    if (n == INFLATEQ) {
        inflate(balloon_of(v), c);
        return MIB(16); /* up to PFNS_MAX system calls */
    }
    if (n == DEFLATEQ)
        return MIB(1);
    report(balloon_of(v), c);
    return MIB(1) + (s64)c->writable_bytes;
}

static void virtio_balloon_serve(struct virtio_pci *v, int n)
{
    struct virtqueue *q = &v->queue[n];
    s64 budget = PUNCH_AT_ONCE;
    struct virtq_chain c;

    virtq_notifications_off(q);
    while (budget > 0 && virtq_pop(q, &c)) {
        budget -= serve_chain(v, n, &c);
        virtq_push(q, &c, 0);
    }
    if (virtq_notifications_on(q))
        virtio_pci_kick(v, n);
    virtio_pci_interrupt(v, n);
}

static void virtio_balloon_config_read(struct virtio_pci *v, void *config)
{
    const struct virtio_balloon_state *s = &balloon_of(v)->s;

    *(struct balloon_config *)config = (struct balloon_config){.num_pages = s->num_pages, .actual = s->actual};
}

static void virtio_balloon_config_write(struct virtio_pci *v, int offset, int size, u32 val)
{
    if (offset == offsetof(struct balloon_config, actual) && size == 4)
        balloon_of(v)->s.actual = val;
    else
        trace(GUEST, "%s: write of configuration at %d", v->pci.dev.id, offset);
}

void virtio_balloon_set_target(struct device *dev, u64 bytes)
{
    struct virtio_pci *v = virtio_pci_of(dev);

    balloon_of(v)->s.num_pages = (u32)MIN(bytes >> PAGE_SHIFT, UINT32_MAX);
    virtio_pci_config_changed(v);
}

u64 virtio_balloon_actual(const struct device *dev)
{
    return (u64)container_of(dev, struct virtio_balloon, virtio.pci.dev)->s.actual << PAGE_SHIFT;
}

/* The host's wish outlives the guest's driver; what the driver held does not. */
static void virtio_balloon_reset(struct virtio_pci *v)
{
    balloon_of(v)->s.actual = 0;
}

static const struct virtio_model virtio_balloon_model = {
    .id = VIRTIO_ID_BALLOON,
    .pci_class = 0x00ff00,
    .config_size = sizeof(struct balloon_config),
    .config_read = virtio_balloon_config_read,
    .config_write = virtio_balloon_config_write,
    .serve = virtio_balloon_serve,
    .reset = virtio_balloon_reset,
};

const struct device_type virtio_balloon_type = {
    .name = "virtio_balloon",
    .size = sizeof(struct virtio_balloon),
    .state_offset = offsetof(struct virtio_balloon, s),
    .state = STATE_TABLE(struct virtio_balloon_state, virtio_balloon_fields, 1),
    .reset = virtio_pci_reset,
    .loaded = virtio_pci_loaded,
    .destroy = virtio_pci_destroy,
};

/* By the specification reporting has queue 4; Linux numbers the queues that it uses without gaps and takes 2. With statistics
 * and hinting not offered, every queue behind deflateq is the reporting queue. */
struct device *virtio_balloon_create(struct machine *m)
{
    struct virtio_pci *v = virtio_pci_add(m, &virtio_balloon_type, &virtio_balloon_model, state_of);

    v->features |= BIT(F_DEFLATE_ON_OOM) | BIT(F_PAGE_REPORTING);
    for (int n = 0; n < QUEUES; n++)
        virtio_pci_add_queue(v, QUEUE_SIZE);
    return &v->pci.dev;
}
