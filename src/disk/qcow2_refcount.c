/* qcow2's host cluster management: a refcount for each cluster of the file, in blocks that a table points at.
 *
 * Entries are 1 to 64 bits wide. Allocation takes the first free cluster; a block that is missing is put on the first
 * cluster of the range it counts, so that it counts itself. */
#include "base/trace.h"
#include "disk/byte_order.h"
#include "disk/image_file.h"
#include "disk/qcow2_refcount.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { FREED_MAX = 4096 }; /* ranges; then the tables are flushed so that they can be applied */

static u64 entry_get(const struct qcow2 *q, const u8 *block, u64 i)
{
    unsigned order = q->h.refcount_order, bits = 1u << order;

    switch (order) {
    case 3:
        return block[i];
    case 4:
        return get_be16(block + i * 2);
    case 5:
        return get_be32(block + i * 4);
    case 6:
        return get_be64(block + i * 8);
    default:
        return block[i >> (3 - order)] >> (i * bits % 8) & (BIT(bits) - 1);
    }
}

static u64 refcount_max(const struct qcow2 *q)
{
    return q->h.refcount_order == 6 ? UINT64_MAX : BIT(1u << q->h.refcount_order) - 1;
}

int qcow2_refcount_put(const struct qcow2 *q, u8 *block, u64 i, u64 value)
{
    unsigned order = q->h.refcount_order, bits = 1u << order, shift = (unsigned)(i * bits % 8);
    u8 *byte = block + (i >> (3 - MIN(order, 3u)));

    if (value > refcount_max(q))
        return -ERANGE;
    switch (order) {
    case 3:
        block[i] = (u8)value;
        break;
    case 4:
        put_be16(block + i * 2, (u16)value);
        break;
    case 5:
        put_be32(block + i * 4, (u32)value);
        break;
    case 6:
        put_be64(block + i * 8, value);
        break;
    default:
        *byte = (u8)((*byte & ~((BIT(bits) - 1) << shift)) | value << shift);
    }
    return 0;
}

static u64 block_mask(const struct qcow2 *q)
{
    return BIT(q->refblock_bits) - 1;
}

/* The block of table entry `index`, which is not 0. */
static int block_get(struct qcow2 *q, u64 index, struct qcow2_cached **ret)
{
    u64 offset = q->reftable.entries[index];

    if (qcow2_in_cluster(q, offset) || offset >= q->file_end) {
        trace(DISK, "%s: refcount block outside of the file", q->image.path);
        return -EIO;
    }
    return qcow2_cache_get(q, &q->refblocks, offset, false, ret);
}

int qcow2_refcount_get(struct qcow2 *q, u64 cluster, u64 *ret)
{
    u64 index = cluster >> q->refblock_bits;
    struct qcow2_cached *block;
    int r;

    if (index >= q->reftable.count || !q->reftable.entries[index]) {
        *ret = 0;
        return 0;
    }
    r = block_get(q, index, &block);
    if (!r)
        *ret = entry_get(q, block->data, cluster & block_mask(q));
    return r;
}

int qcow2_refcount_set(struct qcow2 *q, u64 cluster, u64 value)
{
    u64 index = cluster >> q->refblock_bits;
    struct qcow2_cached *block;
    int r;

    if (index >= q->reftable.count || !q->reftable.entries[index])
        return value ? -EIO : 0;
    r = block_get(q, index, &block);
    if (!r)
        r = qcow2_refcount_put(q, block->data, cluster & block_mask(q), value);
    if (r < 0)
        return r;
    block->dirty = true;
    if (!value) {
        q->free_hint = MIN(q->free_hint, cluster);
        if (q->compress_at >> q->cluster_bits == cluster)
            q->compress_at = 0;
    }
    return 0;
}

bool qcow2_is_metadata(const struct qcow2 *q, u64 offset)
{
    u64 l1_end = ALIGN_UP(q->l1.offset + q->l1.count * 8ull, q->cluster_size);
    u64 reftable_end = ALIGN_UP(q->reftable.offset + q->reftable.count * 8ull, q->cluster_size);

    return !offset || (offset >= q->l1.offset && offset < l1_end) ||
           (offset >= q->reftable.offset && offset < reftable_end) ||
           (q->h.nb_snapshots && offset == q->h.snapshots_offset) || qcow2_cache_has(&q->l2, offset) ||
           qcow2_cache_has(&q->refblocks, offset);
}

int qcow2_extend_file(struct qcow2 *q, u64 end)
{
    if (end <= q->file_end)
        return 0;
    if (end > QCOW2_HOST_LIMIT)
        return -EFBIG;
    if (ftruncate(q->image.fd, (off_t)end) < 0)
        return errno == EINVAL ? -ENOSPC : -errno; /* EINVAL: a block device ends here */
    q->file_end = end;
    return 0;
}

static int add_block(struct qcow2 *q, u64 index)
{
    u64 offset = index << q->refblock_bits << q->cluster_bits;
    struct qcow2_cached *block;
    int r = qcow2_is_metadata(q, offset) ? -EIO : qcow2_extend_file(q, offset + q->cluster_size);

    if (!r)
        r = qcow2_cache_get(q, &q->refblocks, offset, true, &block);
    if (r < 0)
        return r;
    qcow2_refcount_put(q, block->data, 0, 1);
    qcow2_table_set(&q->reftable, (u32)index, offset);
    return 0;
}

/* The block that counts `cluster`, made if missing. */
static int block_for(struct qcow2 *q, u64 cluster, struct qcow2_cached **ret)
{
    u64 index = cluster >> q->refblock_bits;
    int r = 0;

    if (index >= q->reftable.count)
        r = qcow2_refcounts_place(q, index << q->refblock_bits, index << q->refblock_bits, NULL);
    if (!r && !q->reftable.entries[index])
        r = add_block(q, index);
    return r < 0 ? r : block_get(q, index, ret);
}

/* First free cluster at or after the hint, with its block. */
static int find_free(struct qcow2 *q, u64 *ret, struct qcow2_cached **ret_block)
{
    u64 c = q->free_hint;

    for (;;) {
        int r = block_for(q, c, ret_block);

        if (r < 0)
            return r;
        do {
            if (!entry_get(q, (*ret_block)->data, c & block_mask(q))) {
                *ret = c;
                return 0;
            }
            c++;
        } while (c & block_mask(q));
        q->free_hint = c;
    }
}

/* How many of `want` clusters from the free cluster `first` on, in the same block, are free. */
static u64 count_free(const struct qcow2 *q, const u8 *block, u64 first, u64 want)
{
    u64 n = 1;

    want = MIN(want, BIT(q->refblock_bits) - (first & block_mask(q)));
    while (n < want && !entry_get(q, block, (first + n) & block_mask(q)))
        n++;
    return n;
}

int qcow2_alloc(struct qcow2 *q, u64 want, u64 *ret_offset, u64 *ret_got, bool *ret_fresh)
{
    struct qcow2_cached *block;
    u64 first, n, old_end = q->file_end;
    int r = find_free(q, &first, &block);

    if (r < 0)
        return r;
    n = count_free(q, block->data, first, want);
    for (u64 i = 0; i < n; i++)
        if (qcow2_is_metadata(q, (first + i) << q->cluster_bits))
            return -EIO;
    r = qcow2_extend_file(q, (first + n) << q->cluster_bits);
    if (r < 0)
        return r;
    for (u64 i = 0; i < n; i++)
        qcow2_refcount_put(q, block->data, (first + i) & block_mask(q), 1);
    block->dirty = true;
    q->free_hint = first + n;
    *ret_offset = first << q->cluster_bits;
    *ret_got = n;
    *ret_fresh = *ret_offset >= old_end;
    return 0;
}

/* Lowers the count of one cluster and gives its space back if that was the last use. */
static int drop_cluster(struct qcow2 *q, u64 cluster)
{
    u64 count = 0;
    int r = qcow2_refcount_get(q, cluster, &count);

    if (r < 0)
        return r;
    if (!count) {
        trace(DISK, "%s: cluster %llu was free already", q->image.path, (unsigned long long)cluster);
        return 0;
    }
    r = qcow2_refcount_set(q, cluster, count - 1);
    if (!r && count == 1)
        file_discard(q->image.fd, cluster << q->cluster_bits, q->cluster_size);
    return r;
}

void qcow2_unalloc(struct qcow2 *q, u64 offset, u64 clusters)
{
    for (u64 i = 0; i < clusters; i++)
        drop_cluster(q, (offset >> q->cluster_bits) + i);
}

int qcow2_apply_freed(struct qcow2 *q)
{
    int r = 0;

    while (q->freed_count) {
        struct qcow2_freed f = q->freed[--q->freed_count];

        for (u64 i = 0; i < f.clusters && !r; i++)
            r = drop_cluster(q, (f.offset >> q->cluster_bits) + i);
    }
    return r;
}

int qcow2_free_later(struct qcow2 *q, u64 offset, u64 clusters)
{
    struct qcow2_freed *last = q->freed_count ? &q->freed[q->freed_count - 1] : NULL;

    assert(!qcow2_in_cluster(q, offset));
    if (last && last->offset + (last->clusters << q->cluster_bits) == offset) {
        last->clusters += clusters;
        return 0;
    }
    if (!q->freed && !(q->freed = calloc(FREED_MAX, sizeof(*q->freed))))
        return 0; /* leaked in the file, which `image check` repairs */
    q->freed[q->freed_count++] = (struct qcow2_freed){offset, clusters};
    return q->freed_count == FREED_MAX ? qcow2_meta_flush(q) : 0;
}

/* Continues in the cluster where the last one ended: `at` is not at a cluster's start. If `length` does not fit, the
 * next cluster of the file is needed as well. */
static int continue_bytes(struct qcow2 *q, u64 at, u64 length, u64 *ret_offset)
{
    u64 room = q->cluster_size - qcow2_in_cluster(q, at), count, next, got;
    bool fresh;
    int r = qcow2_refcount_get(q, at >> q->cluster_bits, &count);

    if (r < 0)
        return r;
    if (count && count < refcount_max(q) && length > room) {
        r = qcow2_alloc(q, 1, &next, &got, &fresh);
        if (r < 0)
            return r;
        if (next != ALIGN_UP(at, q->cluster_size)) {
            *ret_offset = next;
            return 0;
        }
    } else if (!count || count >= refcount_max(q)) {
        return qcow2_alloc(q, 1, ret_offset, &got, &fresh);
    }
    *ret_offset = at;
    return qcow2_refcount_set(q, at >> q->cluster_bits, count + 1);
}

int qcow2_alloc_bytes(struct qcow2 *q, u64 length, u64 *ret_offset)
{
    u64 got;
    bool fresh;
    int r;

    assert(length && length <= q->cluster_size);
    if (qcow2_in_cluster(q, q->compress_at))
        r = continue_bytes(q, q->compress_at, length, ret_offset);
    else
        r = qcow2_alloc(q, 1, ret_offset, &got, &fresh);
    if (!r)
        q->compress_at = *ret_offset + length;
    return r;
}
