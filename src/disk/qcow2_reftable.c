/* A new refcount table: at creation, when the old one is full, and when refcounts are made anew from the mapping.
 *
 * The table and the new blocks lie in a row and must count themselves, so their number is found by trying until it
 * fits. */
#include "disk/byte_order.h"
#include "disk/image_file.h"
#include "disk/qcow2_refcount.h"

#include <errno.h>
#include <stdlib.h>

struct placement {
    u64 base, at, end; /* clusters: first one counted by new blocks; the table; behind the last new block */
    u64 first, blocks; /* table index of the first new block, their number */
    u64 table;         /* clusters of the table */
    const u32 *counts;
};

static int place(const struct qcow2 *q, struct placement *p)
{
    u64 per_block = BIT(q->refblock_bits);
    u64 roomy = MIN(q->reftable.count * 3ull / 2, (u64)QCOW2_REFTABLE_BYTES_MAX / 8); /* so that growth is rare */

    p->first = p->base >> q->refblock_bits;
    do {
        p->end = p->at + p->table + p->blocks;
        p->blocks = (p->end - p->base + per_block - 1) >> q->refblock_bits;
        p->table = qcow2_clusters(q, MAX(p->first + p->blocks, roomy) * 8);
    } while (p->end != p->at + p->table + p->blocks);
    if (p->table << q->cluster_bits > QCOW2_REFTABLE_BYTES_MAX)
        return -EFBIG;
    for (u64 c = p->at; c < p->end; c++)
        if (qcow2_is_metadata(q, c << q->cluster_bits))
            return -EIO;
    return 0;
}

static u64 count_of(const struct placement *p, u64 cluster)
{
    if (cluster >= p->end)
        return 0;
    return cluster < p->at && p->counts ? p->counts[cluster - p->base] : 1;
}

static int write_blocks(struct qcow2 *q, const struct placement *p)
{
    u64 per_block = BIT(q->refblock_bits);
    u8 *block = malloc(q->cluster_size);
    int r = block ? 0 : -ENOMEM;

    for (u64 b = 0; b < p->blocks && !r; b++) {
        memset(block, 0, q->cluster_size);
        for (u64 i = 0; i < per_block && !r; i++)
            r = qcow2_refcount_put(q, block, i, count_of(p, p->base + b * per_block + i));
        if (!r)
            r = file_write(q->image.fd, block, q->cluster_size, (p->at + p->table + b) << q->cluster_bits);
    }
    free(block);
    return r;
}

static int write_table(struct qcow2 *q, const struct placement *p)
{
    u64 bytes = p->table << q->cluster_bits;
    u64 *table = calloc(1, bytes);
    int r;

    if (!table)
        return -ENOMEM;
    for (u64 i = 0; i < MIN(p->first, q->reftable.count); i++)
        table[i] = htobe64(q->reftable.entries[i]);
    for (u64 b = 0; b < p->blocks; b++)
        table[p->first + b] = htobe64((p->at + p->table + b) << q->cluster_bits);
    r = file_write(q->image.fd, table, bytes, p->at << q->cluster_bits);
    free(table);
    return r;
}

static int switch_tables(struct qcow2 *q, const struct placement *p)
{
    u64 old = q->reftable.offset, old_clusters = qcow2_clusters(q, q->reftable.count * 8ull);
    struct qcow2_header before = q->h;
    int r;

    q->h.reftable_offset = p->at << q->cluster_bits;
    q->h.reftable_clusters = (u32)p->table;
    r = qcow2_header_update(q);
    if (r < 0)
        q->h = before;
    if (!r)
        r = qcow2_table_load(q, &q->reftable, q->h.reftable_offset, (u32)(p->table << q->l2_bits));
    if (!r && p->base && old)
        r = qcow2_free_later(q, old, old_clusters);
    return r;
}

int qcow2_refcounts_place(struct qcow2 *q, u64 base, u64 at, const u32 *counts)
{
    struct placement p = {.base = base, .at = at, .counts = counts};
    int r = qcow2_flush_refcounts(q); /* the new table names blocks that so far only memory may hold */

    if (!r)
        r = place(q, &p);
    if (!r)
        r = qcow2_extend_file(q, p.end << q->cluster_bits);
    if (!r)
        r = write_blocks(q, &p);
    if (!r)
        r = write_table(q, &p);
    if (!r)
        r = qcow2_sync(q);
    return r < 0 ? r : switch_tables(q, &p);
}
