/* qcow2's cluster mapping: guest offset → L1 entry → L2 entry → place in the file. Nothing that a table says is
 * believed before it is checked: tables and data lie at cluster boundaries within the file. */
#include "base/trace.h"
#include "disk/byte_order.h"
#include "disk/qcow2_refcount.h"

#include <errno.h>
#include <stdlib.h>

static int broken(const struct qcow2 *q, const char *what, u64 entry)
{
    trace(DISK, "%s: %s out of place: entry %#llx", q->image.path, what, (unsigned long long)entry);
    return -EIO;
}

static bool is_place(const struct qcow2 *q, u64 offset)
{
    return offset && !qcow2_in_cluster(q, offset) && offset < q->file_end;
}

int qcow2_compressed_place(const struct qcow2 *q, u64 entry, u64 *ret_offset, u64 *ret_length)
{
    unsigned x = 62 - (q->cluster_bits - 8);
    u64 offset = entry & (BIT(x) - 1);
    u64 sectors = (entry & (QCOW2_COMPRESSED - 1)) >> x;

    if (offset < q->cluster_size || offset >= q->file_end)
        return broken(q, "compressed cluster", entry);
    *ret_offset = offset;
    *ret_length = (sectors + 1) * SECTOR_SIZE - offset % SECTOR_SIZE;
    return 0;
}

static enum qcow2_run_kind entry_kind(const struct qcow2 *q, u64 entry)
{
    if (entry & QCOW2_COMPRESSED)
        return RUN_COMPRESSED;
    if (entry & QCOW2_ZERO && q->h.version >= 3)
        return RUN_ZERO;
    return entry & QCOW2_OFFSET_MASK ? RUN_DATA : RUN_UNALLOCATED;
}

/* Whether `next`, n clusters after `first`, continues the run that `first` begins. */
static bool continues(const struct qcow2 *q, u64 first, u64 next, u64 n)
{
    switch (entry_kind(q, first)) {
    case RUN_COMPRESSED:
        return false;
    case RUN_DATA:
        return next == first + (n << q->cluster_bits) && is_place(q, next & QCOW2_OFFSET_MASK);
    default:
        return entry_kind(q, next) == entry_kind(q, first);
    }
}

static int describe(struct qcow2 *q, const u8 *table, u64 offset, u64 length, struct qcow2_run *ret)
{
    u64 index = offset >> q->cluster_bits & (BIT(q->l2_bits) - 1);
    u64 entry = get_be64(table + index * 8), host = (entry & QCOW2_OFFSET_MASK) + qcow2_in_cluster(q, offset);
    u64 have = q->cluster_size - qcow2_in_cluster(q, offset);

    if (entry_kind(q, entry) == RUN_DATA && !is_place(q, entry & QCOW2_OFFSET_MASK))
        return broken(q, "data", entry);
    for (u64 n = 1; have < length && continues(q, entry, get_be64(table + (index + n) * 8), n); n++)
        have += q->cluster_size;
    *ret = (struct qcow2_run){entry_kind(q, entry), entry & QCOW2_COPIED, MIN(have, length), host, entry};
    return 0;
}

static int map_locked(struct qcow2 *q, u64 offset, u64 length, bool wait, struct qcow2_run *ret)
{
    unsigned table_bits = q->cluster_bits + q->l2_bits;
    u64 l1_entry = q->l1.entries[offset >> table_bits];
    u64 table = l1_entry & QCOW2_OFFSET_MASK;
    struct qcow2_cached *l2;
    int r;

    length = MIN(length, BIT(table_bits) - (offset & (BIT(table_bits) - 1)));
    if (!table) {
        *ret = (struct qcow2_run){.kind = RUN_UNALLOCATED, .length = length};
        return 0;
    }
    if (!is_place(q, table))
        return broken(q, "L2 table", l1_entry);
    if (!wait && !qcow2_cache_has(&q->l2, table))
        return -EAGAIN;
    r = qcow2_cache_get(q, &q->l2, table, false, &l2);
    return r < 0 ? r : describe(q, l2->data, offset, length, ret);
}

int qcow2_map(struct qcow2 *q, u64 offset, u64 length, bool wait, struct qcow2_run *ret)
{
    int r;

    assert(length);
    if (wait)
        pthread_mutex_lock(&q->meta);
    else if (pthread_mutex_trylock(&q->meta))
        return -EAGAIN;
    r = map_locked(q, offset, length, wait, ret);
    pthread_mutex_unlock(&q->meta);
    return r;
}

/* A shared table is copied. What it refers to is shared too, so no entry of the copy is ours alone. */
static int fill_table(struct qcow2 *q, u64 from, u64 to, struct qcow2_cached **ret)
{
    u8 *copy = calloc(1, q->cluster_size);
    struct qcow2_cached *l2;
    int r = copy ? 0 : -ENOMEM;

    if (!r && from) {
        r = qcow2_cache_get(q, &q->l2, from, false, &l2);
        if (!r)
            memcpy(copy, l2->data, q->cluster_size);
    }
    if (!r)
        r = qcow2_cache_get(q, &q->l2, to, true, &l2);
    if (!r) {
        for (u64 i = 0; i < q->cluster_size; i += 8)
            put_be64(l2->data + i, get_be64(copy + i) & ~QCOW2_COPIED);
        *ret = l2;
    }
    free(copy);
    return r;
}

static int new_table(struct qcow2 *q, u32 l1_index, u64 old, struct qcow2_cached **ret)
{
    u64 offset, got;
    bool fresh;
    int r = qcow2_alloc(q, 1, &offset, &got, &fresh);

    if (r < 0)
        return r;
    r = fill_table(q, old, offset, ret);
    if (r < 0) {
        qcow2_unalloc(q, offset, 1);
        return r;
    }
    qcow2_table_set(&q->l1, l1_index, offset | QCOW2_COPIED);
    if (!old)
        return 0;
    qcow2_cache_drop(&q->l2, old);
    return qcow2_free_later(q, old, 1);
}

/* The L2 table that covers `offset`, ours alone. */
static int table_for_write(struct qcow2 *q, u64 offset, struct qcow2_cached **ret)
{
    u32 l1_index = (u32)(offset >> (q->cluster_bits + q->l2_bits));
    u64 l1_entry = q->l1.entries[l1_index];
    u64 table = l1_entry & QCOW2_OFFSET_MASK;

    if (table && !is_place(q, table))
        return broken(q, "L2 table", l1_entry);
    if (table && l1_entry & QCOW2_COPIED)
        return qcow2_cache_get(q, &q->l2, table, false, ret);
    return new_table(q, l1_index, table, ret);
}

/* Gives up what `old` named, now that `entry` stands in its place. */
static int release(struct qcow2 *q, u64 old, u64 entry)
{
    u64 offset = old & QCOW2_OFFSET_MASK, length, first;
    int r;

    if (old & QCOW2_COMPRESSED) {
        r = qcow2_compressed_place(q, old, &offset, &length);
        if (r < 0)
            return r;
        first = ALIGN_DOWN(offset, q->cluster_size);
        qcow2_unpacked_forget(q);
        return qcow2_free_later(q, first, qcow2_clusters(q, offset + length - first));
    }
    if (!offset || offset == (entry & QCOW2_OFFSET_MASK))
        return 0;
    return is_place(q, offset) ? qcow2_free_later(q, offset, 1) : broken(q, "data", old);
}

int qcow2_remap(struct qcow2 *q, u64 offset, u64 clusters, u64 entry, u64 stride)
{
    u64 index = offset >> q->cluster_bits & (BIT(q->l2_bits) - 1);
    struct qcow2_cached *l2;
    int r = table_for_write(q, offset, &l2);

    assert(index + clusters <= BIT(q->l2_bits));
    for (u64 i = 0; i < clusters && !r; i++, entry += stride) {
        u8 *at = l2->data + (index + i) * 8;
        u64 old = get_be64(at);

        put_be64(at, entry);
        l2->dirty = true; /* again each time: releasing may have flushed */
        r = release(q, old, entry);
    }
    return r;
}
