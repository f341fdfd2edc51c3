/* Virtio block device: see virtio_blk.h. Virtio 1.2 §5.2.
 *
 * Data goes between the disk and guest memory without a copy. Requests in flight hold up a reset by the driver until they
 * end, and are drained at a reset of the machine, so that the disk never writes into memory that has another use by then.
 *
 * Left out: zoned devices, secure erase, lifetime data, more than one segment in a discard. */
#include "dev/virtio_blk.h"

#include "base/trace.h"
#include "dev/virtio_pci.h"
#include "disk/disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { /* feature bits, §5.2.3 */
       F_SIZE_MAX = 1,
       F_SEG_MAX = 2,
       F_RO = 5,
       F_BLK_SIZE = 6,
       F_FLUSH = 9,
       F_TOPOLOGY = 10,
       F_CONFIG_WCE = 11,
       F_MQ = 12,
       F_DISCARD = 13,
       F_WRITE_ZEROES = 14,
};
enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 }; /* §5.2.6 */
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };
enum { SECTOR = 512, ID_BYTES = 20, QUEUE_SIZE = 128, QUEUES_MAX = 4, REQUESTS_MAX = 64 };
enum { SEGMENT_UNMAP = 1 }; /* flag of a discard or write-zeroes segment */

#define SEGMENT_SECTORS_MAX (1u << 22) /* of one discard or write-zeroes: 2 GiB */

struct blk_header {
    u32 type, reserved;
    u64 sector;
};

struct blk_segment { /* of a discard or write-zeroes */
    u64 sector;
    u32 sectors, flags;
};

struct blk_config { /* §5.2.4 */
    u64 capacity;
    u32 size_max, seg_max;
    u16 cylinders;
    u8 heads, sectors;
    u32 blk_size;
    u8 physical_block_exp, alignment_offset;
    u16 min_io_size;
    u32 opt_io_size;
    u8 writeback, unused0;
    u16 num_queues;
    u32 max_discard_sectors, max_discard_seg, discard_sector_alignment;
    u32 max_write_zeroes_sectors, max_write_zeroes_seg;
    u8 write_zeroes_may_unmap, unused1[3];
};

struct virtio_blk_state {
    struct virtio_state virtio;
    u8 writeback; /* 0: each write is on stable storage before it completes */
    u8 pad[7];
};

struct virtio_blk;

struct blk_request {
    struct virtio_blk *blk;
    int queue;
    struct virtq_chain chain;
    struct iovec data[VIRTQ_IOV_MAX];
    struct disk_request disk;
    u32 read; /* bytes that the disk puts into the writable part */
    struct blk_request *next;
};

struct virtio_blk {
    struct virtio_pci virtio;
    struct virtio_blk_state s;
    struct disk *disk;
    u8 serial[ID_BYTES];
    struct blk_request *requests, *free; /* the pool; last returned, first used, so that few pages of it are touched */
    u32 starved;                         /* bit n: queue n has chains but found the pool empty */
};

static const struct state_field virtio_blk_fields[] = {VIRTIO_STATE_FIELDS(struct virtio_blk_state, virtio),
                                                       STATE(struct virtio_blk_state, writeback),
                                                       STATE_ARRAY(struct virtio_blk_state, pad), STATE_END};

static struct virtio_blk *blk_of(struct virtio_pci *v)
{
    return container_of(v, struct virtio_blk, virtio);
}

static struct virtio_state *state_of(struct virtio_pci *v)
{
    return &blk_of(v)->s.virtio;
}

/* ---- the pool ---- */

static struct blk_request *request_take(struct virtio_blk *b)
{
    struct blk_request *r = b->free;

    b->free = r->next;
    return r;
}

static void request_return(struct virtio_blk *b, struct blk_request *r)
{
    u32 starved = b->starved;

    r->next = b->free;
    b->free = r;
    b->starved = 0;
    for (int n = 0; n < b->virtio.queue_count; n++)
        if (starved & 1u << n)
            virtio_pci_kick(&b->virtio, n);
}

/* ---- completion ---- */

/* The status byte is the last of the writable part (§5.2.6). */
static void request_complete(struct blk_request *r, u8 status)
{
    struct virtio_blk *b = r->blk;
    struct virtqueue *q = &b->virtio.queue[r->queue];

    if (virtio_pci_may_push(&b->virtio, r->queue)) {
        virtq_chain_write(q, &r->chain, r->chain.writable_bytes - 1, &status, 1);
        /* the used length counts from the front: nothing when the data did not arrive */
        virtq_push(q, &r->chain, status == S_OK || !r->read ? r->read + 1 : 0);
        virtio_pci_interrupt(&b->virtio, r->queue);
    }
    request_return(b, r);
}

static void disk_done(struct disk_request *d, int result)
{
    struct blk_request *r = d->ctx;
    struct virtio_blk *b = r->blk;
    int queue = r->queue;
    bool changed_media = d->op == DISK_WRITE || d->op == DISK_WRITE_ZEROES;

    if (d->op == DISK_READ)
        virtq_chain_written(&b->virtio.queue[queue], &r->chain, 0, r->read);
    if (!result && changed_media && !b->s.writeback) {
        d->op = DISK_FLUSH;
        d->offset = d->length = 0;
        d->iov_count = 0;
        disk_submit(b->disk, d);
        return;
    }
    if (result)
        trace(BLK, "%s: request failed: %s", b->virtio.pci.dev.id, strerror(-result));
    request_complete(r, result ? S_IOERR : S_OK);
    virtio_pci_request_end(&b->virtio, queue);
}

/* ---- requests ---- */

static void submit(struct blk_request *r, enum disk_op op, u64 sector, u64 bytes, int iov_count)
{
    r->disk = (struct disk_request){.op = op,
                                    .offset = sector * SECTOR,
                                    .length = bytes,
                                    .iov = r->data,
                                    .iov_count = iov_count,
                                    .done = disk_done,
                                    .ctx = r};
    virtio_pci_request_begin(&r->blk->virtio, r->queue);
    disk_submit(r->blk->disk, &r->disk);
}

static bool in_range(const struct virtio_blk *b, u64 sector, u64 bytes)
{
    u64 capacity = disk_size(b->disk) / SECTOR;

    return !(bytes % SECTOR) && sector <= capacity && bytes / SECTOR <= capacity - sector;
}

static void transfer(struct blk_request *r, bool write, u64 sector)
{
    struct virtio_blk *b = r->blk;
    struct virtq_chain *c = &r->chain;
    u32 bytes = write ? c->readable_bytes - (u32)sizeof(struct blk_header) : c->writable_bytes - 1;
    int n;

    if (!in_range(b, sector, bytes) || (write && disk_readonly(b->disk))) {
        request_complete(r, S_IOERR);
        return;
    }
    if (!bytes) {
        request_complete(r, S_OK);
        return;
    }
    if (write)
        n = virtq_iov_slice(c->iov, c->readable, sizeof(struct blk_header), bytes, r->data);
    else
        n = virtq_iov_slice(c->iov + c->readable, c->writable, 0, bytes, r->data);
    r->read = write ? 0 : bytes;
    submit(r, write ? DISK_WRITE : DISK_READ, sector, bytes, n);
}

static void discard_or_zero(struct blk_request *r, enum disk_op op)
{
    struct virtio_blk *b = r->blk;
    u32 flags_known = op == DISK_WRITE_ZEROES ? SEGMENT_UNMAP : 0;
    struct blk_segment seg;

    if (virtq_chain_read(&r->chain, sizeof(struct blk_header), &seg, sizeof(seg)) < sizeof(seg) ||
        r->chain.readable_bytes != sizeof(struct blk_header) + sizeof(seg) || disk_readonly(b->disk))
        request_complete(r, S_IOERR);
    else if (seg.flags & ~flags_known)
        request_complete(r, S_UNSUPP);
    else if (seg.sectors > SEGMENT_SECTORS_MAX || !in_range(b, seg.sector, (u64)seg.sectors * SECTOR))
        request_complete(r, S_IOERR);
    else
        submit(r, op, seg.sector, (u64)seg.sectors * SECTOR, 0);
}

static void get_id(struct blk_request *r)
{
    struct virtio_blk *b = r->blk;
    u32 room = r->chain.writable_bytes - 1;

    r->read = (u32)virtq_chain_write(&b->virtio.queue[r->queue], &r->chain, 0, b->serial, MIN(room, sizeof(b->serial)));
    request_complete(r, S_OK);
}

static void request_start(struct blk_request *r)
{
    struct blk_header h;

    r->read = 0;
    virtq_chain_read(&r->chain, 0, &h, sizeof(h));
    trace(BLK, "%s: type %u sector %llu, %u bytes out, %u in", r->blk->virtio.pci.dev.id, h.type,
          (unsigned long long)h.sector, r->chain.readable_bytes, r->chain.writable_bytes);
    switch (h.type) {
    case T_IN:
    case T_OUT:
        transfer(r, h.type == T_OUT, h.sector);
        break;
    case T_FLUSH:
        submit(r, DISK_FLUSH, 0, 0, 0);
        break;
    case T_GET_ID:
        get_id(r);
        break;
    case T_DISCARD:
        discard_or_zero(r, DISK_DISCARD);
        break;
    case T_WRITE_ZEROES:
        discard_or_zero(r, DISK_WRITE_ZEROES);
        break;
    default:
        request_complete(r, S_UNSUPP);
    }
}

/* Takes and starts one request. False when there is none (or the pool is empty). */
static bool serve_one(struct virtio_blk *b, int n)
{
    struct virtqueue *q = &b->virtio.queue[n];
    struct blk_request *r;

    if (!b->free) {
        b->starved |= 1u << n;
        return false;
    }
    r = request_take(b);
    if (!virtq_pop(q, &r->chain)) {
        r->next = b->free;
        b->free = r;
        return false;
    }
    r->queue = n;
    if (r->chain.readable_bytes < sizeof(struct blk_header) || !r->chain.writable_bytes) {
        r->next = b->free;
        b->free = r;
        virtq_break(q, "block request without header or status");
        return false;
    }
    request_start(r);
    return true;
}

static void virtio_blk_serve(struct virtio_pci *v, int n)
{
    struct virtio_blk *b = blk_of(v);
    int budget = QUEUE_SIZE;

    virtq_notifications_off(&v->queue[n]);
    while (budget && serve_one(b, n))
        budget--;
    if (!(b->starved & 1u << n) && virtq_notifications_on(&v->queue[n]))
        virtio_pci_kick(v, n);
}

/* ---- configuration ---- */

static void virtio_blk_config_read(struct virtio_pci *v, void *config)
{
    struct virtio_blk *b = blk_of(v);

    *(struct blk_config *)config = (struct blk_config){.capacity = disk_size(b->disk) / SECTOR,
                                                       .size_max = 1 << 20,
                                                       .seg_max = QUEUE_SIZE - 2,
                                                       .blk_size = SECTOR,
                                                       .physical_block_exp = 3,
                                                       .min_io_size = 8,
                                                       .opt_io_size = 128,
                                                       .writeback = b->s.writeback,
                                                       .num_queues = (u16)v->queue_count,
                                                       .max_discard_sectors = SEGMENT_SECTORS_MAX,
                                                       .max_discard_seg = 1,
                                                       .discard_sector_alignment = 8,
                                                       .max_write_zeroes_sectors = SEGMENT_SECTORS_MAX,
                                                       .max_write_zeroes_seg = 1,
                                                       .write_zeroes_may_unmap = 1};
}

static void virtio_blk_config_write(struct virtio_pci *v, int offset, int size, u32 val)
{
    if (offset == offsetof(struct blk_config, writeback) && size == 1 && virtio_pci_has(v, F_CONFIG_WCE))
        blk_of(v)->s.writeback = val & 1;
    else
        trace(GUEST, "%s: write of configuration at %d", v->pci.dev.id, offset);
}

/* A driver that does not flush must find its writes safe (§5.2.5.2). */
static void virtio_blk_features_ok(struct virtio_pci *v)
{
    blk_of(v)->s.writeback = virtio_pci_has(v, F_FLUSH);
}

/* ---- lifecycle ---- */

static void virtio_blk_reset(struct virtio_pci *v)
{
    blk_of(v)->s.writeback = 1;
    blk_of(v)->starved = 0;
}

static void virtio_blk_drain(struct virtio_pci *v)
{
    disk_drain(blk_of(v)->disk);
}

static void virtio_blk_destroy(struct device *dev)
{
    struct virtio_blk *b = blk_of(virtio_pci_of(dev));

    virtio_pci_destroy(dev);
    free(b->requests);
}

static const struct virtio_model virtio_blk_model = {
    .id = VIRTIO_ID_BLOCK,
    .pci_class = 0x010000,
    .config_size = sizeof(struct blk_config),
    .config_read = virtio_blk_config_read,
    .config_write = virtio_blk_config_write,
    .serve = virtio_blk_serve,
    .reset = virtio_blk_reset,
    .features_ok = virtio_blk_features_ok,
    .drain = virtio_blk_drain,
};

const struct device_type virtio_blk_type = {
    .name = "virtio_blk",
    .size = sizeof(struct virtio_blk),
    .state_offset = offsetof(struct virtio_blk, s),
    .state = STATE_TABLE(struct virtio_blk_state, virtio_blk_fields, 1),
    .reset = virtio_pci_reset,
    .loaded = virtio_pci_loaded,
    .destroy = virtio_blk_destroy,
};

static void pool_create(struct virtio_blk *b)
{
    b->requests = calloc(REQUESTS_MAX, sizeof(*b->requests));
    if (!b->requests) {
        fprintf(stderr, "skerry: out of memory for %s\n", b->virtio.pci.dev.id);
        exit(1);
    }
    for (int i = REQUESTS_MAX - 1; i >= 0; i--) {
        b->requests[i].blk = b;
        b->requests[i].next = b->free;
        b->free = &b->requests[i];
    }
}

struct device *virtio_blk_create(struct machine *m, struct disk *disk, const char *serial)
{
    struct virtio_pci *v = virtio_pci_add(m, &virtio_blk_type, &virtio_blk_model, state_of);
    struct virtio_blk *b = blk_of(v);

    b->disk = disk;
    b->s.writeback = 1;
    if (serial)
        memcpy(b->serial, serial, strnlen(serial, sizeof(b->serial)));
    pool_create(b);
    v->features |= BIT(F_SIZE_MAX) | BIT(F_SEG_MAX) | BIT(F_BLK_SIZE) | BIT(F_FLUSH) | BIT(F_TOPOLOGY) |
                   BIT(F_CONFIG_WCE) | BIT(F_MQ);
    v->features |= disk_readonly(disk) ? BIT(F_RO) : BIT(F_DISCARD) | BIT(F_WRITE_ZEROES);
    for (int n = 0; n < MAX(1, MIN(m->config.cpu_count, QUEUES_MAX)); n++)
        virtio_pci_add_queue(v, QUEUE_SIZE);
    return &v->pci.dev;
}
