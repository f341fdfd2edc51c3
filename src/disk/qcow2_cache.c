/* qcow2's tables in memory, and the order in which they go to the file: see the head of qcow2_internal.h. */
#include "base/trace.h"
#include "disk/byte_order.h"
#include "disk/image_file.h"
#include "disk/qcow2_refcount.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

int qcow2_sync(struct qcow2 *q)
{
    if (!q->scratch && !q->sync_error && fdatasync(q->image.fd) < 0)
        q->sync_error = -errno;
    return q->sync_error;
}

int qcow2_table_load(struct qcow2 *q, struct qcow2_table *t, u64 offset, u32 count)
{
    u64 *entries = calloc(MAX(count, 1u), sizeof(*entries));
    int r = entries ? file_read(q->image.fd, entries, count * sizeof(*entries), offset) : -ENOMEM;

    if (r < 0) {
        free(entries);
        return r;
    }
    for (u32 i = 0; i < count; i++)
        entries[i] = be64toh(entries[i]);
    free(t->entries);
    *t = (struct qcow2_table){.entries = entries, .count = count, .offset = offset};
    return 0;
}

static bool table_dirty(const struct qcow2_table *t)
{
    return t->lo < t->hi;
}

void qcow2_table_set(struct qcow2_table *t, u32 index, u64 entry)
{
    assert(index < t->count);
    t->lo = table_dirty(t) ? MIN(t->lo, index) : index;
    t->hi = MAX(t->hi, index + 1);
    t->entries[index] = entry;
}

static int table_write(struct qcow2 *q, struct qcow2_table *t)
{
    u64 piece[512];
    int r = 0;

    while (table_dirty(t) && !r) {
        u32 n = MIN(t->hi - t->lo, (u32)ARRAY_SIZE(piece));

        for (u32 i = 0; i < n; i++)
            piece[i] = htobe64(t->entries[t->lo + i]);
        r = file_write(q->image.fd, piece, n * sizeof(piece[0]), t->offset + t->lo * sizeof(piece[0]));
        if (!r)
            t->lo += n;
    }
    if (!r)
        t->lo = t->hi = 0;
    return r;
}

int qcow2_cache_init(struct qcow2_cache *c, int count)
{
    c->slots = calloc((size_t)count, sizeof(*c->slots));
    c->count = c->slots ? count : 0;
    return c->slots ? 0 : -ENOMEM;
}

void qcow2_cache_free(struct qcow2_cache *c)
{
    for (int i = 0; i < c->count; i++)
        free(c->slots[i].data);
    free(c->slots);
}

static struct qcow2_cached *find(const struct qcow2_cache *c, u64 offset)
{
    for (int i = 0; i < c->count; i++)
        if (c->slots[i].offset == offset)
            return &c->slots[i];
    return NULL;
}

bool qcow2_cache_has(const struct qcow2_cache *c, u64 offset)
{
    return find(c, offset);
}

void qcow2_cache_drop(struct qcow2_cache *c, u64 offset)
{
    struct qcow2_cached *s = find(c, offset);

    if (s) {
        s->offset = 0;
        s->used = 0;
        s->dirty = false;
    }
}

static struct qcow2_cached *oldest(struct qcow2_cache *c)
{
    struct qcow2_cached *old = &c->slots[0];

    for (int i = 1; i < c->count; i++)
        if (c->slots[i].used < old->used)
            old = &c->slots[i];
    return old;
}

static int slot_write(struct qcow2 *q, struct qcow2_cached *s)
{
    int r = s->dirty ? file_write(q->image.fd, s->data, q->cluster_size, s->offset) : 0;

    if (!r)
        s->dirty = false;
    return r;
}

static int cache_write(struct qcow2 *q, struct qcow2_cache *c)
{
    int r = 0;

    for (int i = 0; i < c->count && !r; i++)
        r = slot_write(q, &c->slots[i]);
    return r;
}

/* A refcount block may be written at any time: higher counts leak at worst, lower ones are only made once nothing on
 * disk refers to the clusters. An L2 table must wait for what it refers to. */
static int make_clean(struct qcow2 *q, struct qcow2_cache *c, struct qcow2_cached *s)
{
    if (!s->dirty)
        return 0;
    return c == &q->refblocks ? slot_write(q, s) : qcow2_meta_flush(q);
}

static int fill_slot(struct qcow2 *q, struct qcow2_cached *s, u64 offset, bool fresh)
{
    int r = 0;

    if (!s->data && !(s->data = malloc(q->cluster_size)))
        return -ENOMEM;
    s->offset = 0; /* until the content is right */
    if (fresh)
        memset(s->data, 0, q->cluster_size);
    else
        r = file_read(q->image.fd, s->data, q->cluster_size, offset);
    if (!r) {
        s->offset = offset;
        s->dirty = fresh;
    }
    return r;
}

int qcow2_cache_get(struct qcow2 *q, struct qcow2_cache *c, u64 offset, bool fresh, struct qcow2_cached **ret)
{
    struct qcow2_cached *s = find(c, offset);
    int r = 0;

    assert(offset);
    if (!s || fresh) {
        if (!s) {
            s = oldest(c);
            r = make_clean(q, c, s);
        }
        if (!r)
            r = fill_slot(q, s, offset, fresh);
        if (r < 0)
            return r;
    }
    s->used = ++c->clock;
    *ret = s;
    return 0;
}

static bool cache_dirty(const struct qcow2_cache *c)
{
    for (int i = 0; i < c->count; i++)
        if (c->slots[i].dirty)
            return true;
    return false;
}

bool qcow2_meta_dirty(const struct qcow2 *q)
{
    return q->freed_count || table_dirty(&q->l1) || table_dirty(&q->reftable) || cache_dirty(&q->l2) ||
           cache_dirty(&q->refblocks);
}

int qcow2_flush_refcounts(struct qcow2 *q)
{
    int r = cache_write(q, &q->refblocks);

    if (r < 0 || !table_dirty(&q->reftable))
        return r;
    r = qcow2_sync(q); /* no entry before its block */
    return r < 0 ? r : table_write(q, &q->reftable);
}

static int flush_mapping(struct qcow2 *q)
{
    int r = 0;

    if (cache_dirty(&q->l2) || table_dirty(&q->l1))
        r = qcow2_sync(q); /* no table before data and refcounts */
    if (!r)
        r = cache_write(q, &q->l2);
    if (!r && table_dirty(&q->l1)) {
        r = qcow2_sync(q); /* no entry before its table */
        if (!r)
            r = table_write(q, &q->l1);
    }
    return r;
}

int qcow2_meta_flush(struct qcow2 *q)
{
    int r = qcow2_flush_refcounts(q);

    if (!r)
        r = flush_mapping(q);
    if (!r)
        r = qcow2_sync(q);
    if (!r)
        r = qcow2_apply_freed(q);
    trace(DISK, "%s: tables flushed: %d", q->image.path, r);
    return r;
}
