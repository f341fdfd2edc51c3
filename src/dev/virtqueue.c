/* Split virtqueues: see virtqueue.h. Virtio 1.2 §2.7; section numbers below are of that document.
 *
 * Ring fields are naturally aligned (virtq_enable insists), so that each is read or written with one access. Addresses are
 * looked up at each use: there are few regions of RAM, and they may move under firmware.
 *
 * Left out: packed rings (§2.8), which are not offered. */
#include "dev/virtqueue.h"

#include "base/trace.h"

#include <string.h>

enum { DESC_F_NEXT = 1, DESC_F_WRITE = 2, DESC_F_INDIRECT = 4 }; /* §2.7.5 */
enum { AVAIL_F_NO_INTERRUPT = 1, USED_F_NO_NOTIFY = 1 };

struct desc {
    u64 addr;
    u32 len;
    u16 flags, next;
};

enum { DESC_SIZE = sizeof(struct desc), USED_ELEM_SIZE = 8, RING_HEADER = 4 /* flags, idx */ };

void virtq_break(struct virtqueue *q, const char *why)
{
    trace(GUEST, "virtqueue %d: %s", q->n, why);
    if (q->broken)
        return;
    q->broken = true;
    if (q->on_broken)
        q->on_broken(q);
}

/* ---- ring fields ---- */

static u16 *ring_field(struct virtqueue *q, u64 gpa, bool write)
{
    u16 *p = (u16 *)guest_memory_ptr(q->mem, gpa, sizeof(u16), write);

    if (!p)
        virtq_break(q, "ring outside RAM");
    return p;
}

/* 0 when the ring is outside RAM; then the queue is broken. */
static u16 ring_read(struct virtqueue *q, u64 gpa)
{
    u16 *p = ring_field(q, gpa, false);

    return p ? __atomic_load_n(p, __ATOMIC_ACQUIRE) : 0;
}

static void ring_write(struct virtqueue *q, u64 gpa, u16 val)
{
    u16 *p = ring_field(q, gpa, true);

    if (!p)
        return;
    __atomic_store_n(p, val, __ATOMIC_RELEASE);
    guest_memory_written(q->mem, (u8 *)p, sizeof(*p));
}

static u16 size_of(const struct virtqueue *q)
{
    return q->s->size[q->n];
}

/* used_event lies behind the available ring, avail_event behind the used ring (§2.7.7, §2.7.10) */
static u64 used_event_gpa(const struct virtqueue *q)
{
    return q->s->driver[q->n] + RING_HEADER + 2ull * size_of(q);
}

static u64 avail_event_gpa(const struct virtqueue *q)
{
    return q->s->device[q->n] + RING_HEADER + (u64)USED_ELEM_SIZE * size_of(q);
}

static bool usable(const struct virtqueue *q)
{
    return q->s->enabled[q->n] && !q->broken;
}

/* ---- set-up ---- */

void virtq_reset(struct virtqueue *q)
{
    struct virtq_state *s = q->s;
    int n = q->n;

    s->desc[n] = s->driver[n] = s->device[n] = 0;
    s->size[n] = q->size_max;
    s->vector[n] = 0xffff;
    s->avail_next[n] = s->used_next[n] = s->signalled[n] = 0;
    s->enabled[n] = false;
    q->broken = false;
}

void virtq_enable(struct virtqueue *q)
{
    const struct virtq_state *s = q->s;
    int n = q->n;

    if (!s->size[n] || s->size[n] > q->size_max || (s->size[n] & (s->size[n] - 1)))
        virtq_break(q, "size is no power of two in range");
    else if (s->desc[n] % 16 || s->driver[n] % 2 || s->device[n] % 4) /* §2.7 */
        virtq_break(q, "ring address not aligned");
    else
        q->s->enabled[n] = true;
}

/* ---- taking chains ---- */

static bool append(struct virtqueue *q, struct virtq_chain *c, const struct desc *d)
{
    bool write = d->flags & DESC_F_WRITE;
    u32 *bytes = write ? &c->writable_bytes : &c->readable_bytes;
    u64 gpa = d->addr, left = d->len;

    if (!write && c->writable) {
        virtq_break(q, "readable descriptor behind a writable one");
        return false;
    }
    if (__builtin_add_overflow(*bytes, d->len, bytes)) {
        virtq_break(q, "chain longer than 4 GiB");
        return false;
    }
    while (left) {
        const struct ram_region *r = guest_memory_find(q->mem, gpa);
        u64 n;

        if (!r || (write && r->readonly)) {
            virtq_break(q, "buffer outside RAM");
            return false;
        }
        if (c->readable + c->writable == VIRTQ_IOV_MAX) {
            virtq_break(q, "chain in too many pieces");
            return false;
        }
        n = MIN(left, r->size - (gpa - r->gpa));
        c->iov[c->readable + c->writable] = (struct iovec){r->hva + (gpa - r->gpa), n};
        *(write ? &c->writable : &c->readable) += 1;
        gpa += n;
        left -= n;
    }
    return true;
}

/* One descriptor of a table, copied so that the guest cannot change it under us. */
static bool desc_load(struct virtqueue *q, u64 table, u32 index, struct desc *d)
{
    const u8 *p = guest_memory_ptr(q->mem, table + (u64)index * DESC_SIZE, DESC_SIZE, false);

    if (!p) {
        virtq_break(q, "descriptor table outside RAM");
        return false;
    }
    memcpy(d, p, sizeof(*d));
    __asm__ volatile("" ::: "memory"); /* or the compiler could read the table again */
    return true;
}

/* What the walk of one chain has come to. */
struct walk {
    u64 table;
    u32 count, index;
    bool inside; /* an indirect table */
};

/* An indirect table may stand at the end of a chain and holds no further one (§2.7.5.3). Switches the walk over to it. */
static bool enter_indirect(struct virtqueue *q, const struct desc *d, struct walk *w)
{
    if (!q->indirect || w->inside)
        virtq_break(q, "indirect descriptor not allowed here");
    else if (d->flags & DESC_F_NEXT)
        virtq_break(q, "indirect descriptor with a successor");
    else if (!d->len || d->len % DESC_SIZE)
        virtq_break(q, "indirect table of a bad size");
    else {
        *w = (struct walk){.table = d->addr, .count = d->len / DESC_SIZE, .inside = true};
        return true;
    }
    return false;
}

/* Walks the chain from `head`. It has at most as many descriptors as the queue (§2.7.5.3.1), which also ends loops. */
static bool chain_walk(struct virtqueue *q, struct virtq_chain *c, u16 head)
{
    struct walk w = {.table = q->s->desc[q->n], .count = size_of(q), .index = head};

    c->head = head;
    c->readable = c->writable = 0;
    c->readable_bytes = c->writable_bytes = 0;
    for (u32 steps = 0; steps <= size_of(q); steps++) { /* one more for the descriptor of an indirect table */
        struct desc d;

        if (!desc_load(q, w.table, w.index, &d))
            return false;
        if (d.flags & DESC_F_INDIRECT) {
            if (!enter_indirect(q, &d, &w))
                return false;
            continue;
        }
        if (!append(q, c, &d))
            return false;
        if (!(d.flags & DESC_F_NEXT))
            return true;
        w.index = d.next;
        if (w.index >= w.count) {
            virtq_break(q, "next descriptor out of range");
            return false;
        }
    }
    virtq_break(q, "chain loops or is longer than the queue");
    return false;
}

/* Chains offered beyond avail_next; breaks the queue when the driver's index cannot be right. */
static u16 avail_count(struct virtqueue *q)
{
    u16 count;

    if (!usable(q))
        return 0;
    count = (u16)(ring_read(q, q->s->driver[q->n] + 2) - q->s->avail_next[q->n]);
    if (count > size_of(q))
        virtq_break(q, "available index ran past the ring");
    return q->broken ? 0 : count;
}

int virtq_pending(struct virtqueue *q)
{
    return avail_count(q);
}

bool virtq_pop(struct virtqueue *q, struct virtq_chain *c)
{
    u16 slot, head;

    if (!avail_count(q))
        return false;
    slot = q->s->avail_next[q->n] & (size_of(q) - 1);
    head = ring_read(q, q->s->driver[q->n] + RING_HEADER + 2ull * slot);
    if (q->broken)
        return false;
    if (head >= size_of(q)) {
        virtq_break(q, "head out of range");
        return false;
    }
    if (!chain_walk(q, c, head))
        return false;
    q->s->avail_next[q->n]++;
    return true;
}

void virtq_unpop(struct virtqueue *q, int count)
{
    q->s->avail_next[q->n] -= (u16)count;
}

/* ---- giving chains back ---- */

void virtq_fill(struct virtqueue *q, const struct virtq_chain *c, u32 written, int index)
{
    u16 slot = (u16)(q->s->used_next[q->n] + index) & (size_of(q) - 1);
    u32 elem[2] = {c->head, written};

    if (!usable(q))
        return;
    if (guest_memory_write(q->mem, q->s->device[q->n] + RING_HEADER + (u64)USED_ELEM_SIZE * slot, elem, sizeof(elem)))
        virtq_break(q, "used ring outside RAM");
}

void virtq_publish(struct virtqueue *q, int count)
{
    if (!usable(q))
        return;
    q->s->used_next[q->n] += (u16)count;
    ring_write(q, q->s->device[q->n] + 2, q->s->used_next[q->n]);
}

void virtq_push(struct virtqueue *q, const struct virtq_chain *c, u32 written)
{
    virtq_fill(q, c, written, 0);
    virtq_publish(q, 1);
}

/* ---- notifications, both ways ---- */

bool virtq_interrupt_wanted(struct virtqueue *q)
{
    u16 old = q->s->signalled[q->n], now = q->s->used_next[q->n];

    if (!usable(q) || old == now)
        return false;
    q->s->signalled[q->n] = now;
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the used index is visible before we look at the driver's wish */
    if (!q->event_idx)
        return !(ring_read(q, q->s->driver[q->n]) & AVAIL_F_NO_INTERRUPT);
    /* §2.7.7.2: whether used_event is among the elements old … now-1 */
    return (u16)(now - ring_read(q, used_event_gpa(q)) - 1) < (u16)(now - old);
}

bool virtq_notifications_on(struct virtqueue *q)
{
    if (!usable(q))
        return false;
    if (q->event_idx)
        ring_write(q, avail_event_gpa(q), q->s->avail_next[q->n]);
    else
        ring_write(q, q->s->device[q->n], 0);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the wish is visible before we look for chains again */
    return avail_count(q);
}

void virtq_notifications_off(struct virtqueue *q)
{
    /* with EVENT_IDX an avail_event that stays behind does it */
    if (usable(q) && !q->event_idx)
        ring_write(q, q->s->device[q->n], USED_F_NO_NOTIFY);
}

/* ---- what is in a chain ---- */

size_t virtq_chain_read(const struct virtq_chain *c, size_t offset, void *buf, size_t len)
{
    size_t done = 0;

    for (int i = 0; i < c->readable && done < len; i++) {
        const struct iovec *v = &c->iov[i];
        size_t n;

        if (offset >= v->iov_len) {
            offset -= v->iov_len;
            continue;
        }
        n = MIN(v->iov_len - offset, len - done);
        memcpy((u8 *)buf + done, (const u8 *)v->iov_base + offset, n);
        done += n;
        offset = 0;
    }
    return done;
}

size_t virtq_chain_write(struct virtqueue *q, const struct virtq_chain *c, size_t offset, const void *buf, size_t len)
{
    size_t done = 0;

    for (int i = c->readable; i < c->readable + c->writable && done < len; i++) {
        const struct iovec *v = &c->iov[i];
        size_t n;

        if (offset >= v->iov_len) {
            offset -= v->iov_len;
            continue;
        }
        n = MIN(v->iov_len - offset, len - done);
        memcpy((u8 *)v->iov_base + offset, (const u8 *)buf + done, n);
        guest_memory_written(q->mem, (u8 *)v->iov_base + offset, n);
        done += n;
        offset = 0;
    }
    return done;
}

int virtq_iov_slice(const struct iovec *iov, int count, size_t offset, size_t len, struct iovec *out)
{
    int used = 0;

    for (int i = 0; i < count && len; i++) {
        size_t n;

        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        n = MIN(iov[i].iov_len - offset, len);
        out[used++] = (struct iovec){(u8 *)iov[i].iov_base + offset, n};
        len -= n;
        offset = 0;
    }
    assert(!len);
    return used;
}

void virtq_chain_written(struct virtqueue *q, const struct virtq_chain *c, size_t offset, size_t len)
{
    struct iovec part[VIRTQ_IOV_MAX];
    int n = virtq_iov_slice(c->iov + c->readable, c->writable, offset, len, part);

    for (int i = 0; i < n; i++)
        guest_memory_written(q->mem, part[i].iov_base, part[i].iov_len);
}
