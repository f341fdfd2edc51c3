/* Check and repair of qcow2 images: counts what the tables refer to and compares that with the refcounts in the file.
 *
 * A count that is too low is corruption (the cluster may be given to a second user), one too high is a leak. Repair
 * lowers leaked counts, or counts everything anew in new refcount blocks and sets the "copied" flags by them.
 * References to places outside of the file are reported and stay. */
#include "disk/byte_order.h"
#include "disk/image_file.h"
#include "disk/qcow2_refcount.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { CLUSTERS_MAX = 1 << 30, BITMAP_DIRECTORY_MAX = 1 << 20 };

struct checker {
    struct qcow2 *q;
    struct qcow2_check *out;
    u32 *counts; /* uses found, a cluster each; mapped, so untouched parts take no memory */
    u64 clusters;
    bool quiet; /* counting a second time */
};

static void finding(struct checker *c, u64 *counter, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static void finding(struct checker *c, u64 *counter, const char *fmt, ...)
{
    char text[200];
    va_list ap;

    if (c->quiet)
        return;
    ++*counter;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (c->out->report)
        c->out->report(c->out->ctx, text);
}

#define ERROR(c, ...) finding(c, &(c)->out->errors, __VA_ARGS__)
#define HEX(n) ((unsigned long long)(n))

static bool in_file(const struct checker *c, u64 offset, u64 length)
{
    return offset <= c->q->file_end && length <= c->q->file_end - offset;
}

/* One more use of every cluster that the bytes touch. False if they are not in the file. */
static bool count_bytes(struct checker *c, const char *what, u64 offset, u64 length)
{
    u64 last = (offset + length - 1) >> c->q->cluster_bits;

    if (!length)
        return true;
    if (!in_file(c, offset, 0) || length > BIT(40) || last >= c->clusters) {
        ERROR(c, "%s at %#llx lies outside of the file", what, HEX(offset));
        return false;
    }
    for (u64 i = offset >> c->q->cluster_bits; i <= last; i++)
        if (c->counts[i] < UINT32_MAX)
            c->counts[i]++;
    return true;
}

static bool count_table(struct checker *c, const char *what, u64 offset, u64 length)
{
    if (qcow2_in_cluster(c->q, offset) || !offset) {
        ERROR(c, "%s at %#llx does not begin at a cluster", what, HEX(offset));
        return false;
    }
    return count_bytes(c, what, offset, length);
}

static void count_entry(struct checker *c, u64 entry, bool active)
{
    struct qcow2 *q = c->q;
    u64 offset = entry & QCOW2_OFFSET_MASK, length;

    if (entry & QCOW2_COMPRESSED) {
        if (qcow2_compressed_place(q, entry, &offset, &length) < 0)
            ERROR(c, "compressed cluster at %#llx lies outside of the file", HEX(offset));
        else
            count_bytes(c, "compressed cluster", offset, length);
    } else if (offset) {
        count_table(c, "data cluster", offset, q->cluster_size);
    }
    if (active && !c->quiet) {
        c->out->allocated += offset || entry & QCOW2_COMPRESSED;
        c->out->compressed += !!(entry & QCOW2_COMPRESSED);
    }
}

static int count_l2(struct checker *c, u64 l1_entry, u8 *buf, bool active)
{
    struct qcow2 *q = c->q;
    u64 offset = l1_entry & QCOW2_OFFSET_MASK;
    int r;

    if (!offset || !count_table(c, "L2 table", offset, q->cluster_size))
        return 0;
    r = file_read(q->image.fd, buf, q->cluster_size, offset);
    for (u64 i = 0; i < q->cluster_size && !r; i += 8)
        count_entry(c, get_be64(buf + i), active);
    return r;
}

static int count_l2_tables(struct checker *c, const struct qcow2_table *l1, u8 *buf, bool active)
{
    u64 tables = 0;
    int r = 0;

    for (u32 i = 0; i < l1->count && !r; i++) {
        tables += !!(l1->entries[i] & QCOW2_OFFSET_MASK);
        if (tables > c->clusters) { /* all the same table, say: reading on would take forever */
            ERROR(c, "the L1 table at %#llx names more L2 tables than the file can hold", HEX(l1->offset));
            return 0;
        }
        r = count_l2(c, l1->entries[i], buf, active);
    }
    return r;
}

static int count_l1(struct checker *c, const struct qcow2_table *l1, bool active)
{
    u8 *buf = malloc(c->q->cluster_size);
    int r = buf ? 0 : -ENOMEM;

    if (l1->count && !r && count_table(c, "L1 table", l1->offset, l1->count * 8ull))
        r = count_l2_tables(c, l1, buf, active);
    free(buf);
    return r;
}

static int count_snapshot(void *ctx, const struct qcow2_snapshot *s)
{
    struct checker *c = ctx;
    struct qcow2_table l1 = {0};
    int r;

    if (s->l1_size * 8ull > QCOW2_L1_BYTES_MAX || !in_file(c, s->l1_offset, s->l1_size * 8ull)) {
        ERROR(c, "L1 table of snapshot '%s' lies outside of the file", s->name);
        return 0;
    }
    r = qcow2_table_load(c->q, &l1, s->l1_offset, s->l1_size);
    if (!r)
        r = count_l1(c, &l1, false);
    free(l1.entries);
    return r;
}

static int count_snapshots(struct checker *c)
{
    u64 length;
    int r = qcow2_snapshot_each(c->q, count_snapshot, c, &length);

    if (r == -EIO) {
        ERROR(c, "the snapshot table is broken");
        return 0;
    }
    if (!r && length)
        count_table(c, "snapshot table", c->q->h.snapshots_offset, length);
    return r;
}

/* A bitmap's table: clusters of bits, bit 0 of an entry without offset says that all bits are one. */
static int count_bitmap(struct checker *c, u64 offset, u32 entries)
{
    struct qcow2_table t = {0};
    int r;

    if (!count_table(c, "bitmap table", offset, entries * 8ull))
        return 0;
    if (entries * 8ull > QCOW2_L1_BYTES_MAX) {
        ERROR(c, "a bitmap table is too large");
        return 0;
    }
    r = qcow2_table_load(c->q, &t, offset, entries);
    for (u32 i = 0; i < entries && !r; i++)
        if (t.entries[i] & QCOW2_OFFSET_MASK)
            count_table(c, "bitmap", t.entries[i] & QCOW2_OFFSET_MASK, c->q->cluster_size);
    free(t.entries);
    return r;
}

static int count_bitmap_directory(struct checker *c, const u8 *p, u64 length)
{
    u64 at = 0;
    int r = 0;

    for (u32 i = 0; i < c->q->bitmap_count && at + 24 <= length && !r; i++) {
        r = count_bitmap(c, get_be64(p + at), get_be32(p + at + 8));
        at += ALIGN_UP(24ull + get_be16(p + at + 18) + get_be32(p + at + 20), 8);
    }
    return r;
}

static int count_bitmaps(struct checker *c)
{
    struct qcow2 *q = c->q;
    u8 *p;
    int r;

    if (!q->bitmap_count || !count_table(c, "bitmap directory", q->bitmap_directory, q->bitmap_directory_size))
        return 0;
    if (q->bitmap_directory_size > BITMAP_DIRECTORY_MAX) {
        ERROR(c, "the bitmap directory is too large");
        return 0;
    }
    p = malloc(q->bitmap_directory_size + 1);
    r = p ? file_read(q->image.fd, p, q->bitmap_directory_size, q->bitmap_directory) : -ENOMEM;
    if (!r)
        r = count_bitmap_directory(c, p, q->bitmap_directory_size);
    free(p);
    return r;
}

/* All that is in use save the refcounts themselves. */
static int count_content(struct checker *c)
{
    int r;

    count_bytes(c, "header", 0, c->q->cluster_size);
    r = count_l1(c, &c->q->l1, true);
    if (!r)
        r = count_snapshots(c);
    return r < 0 ? r : count_bitmaps(c);
}

static void count_refcounts(struct checker *c)
{
    const struct qcow2_table *t = &c->q->reftable;

    count_table(c, "refcount table", t->offset, t->count * 8ull);
    for (u32 i = 0; i < t->count; i++)
        if (t->entries[i])
            count_table(c, "refcount block", t->entries[i], c->q->cluster_size);
}

static int compare_cluster(struct checker *c, u64 cluster, bool lower, u64 *ret_errors)
{
    u64 is, used = c->counts[cluster];
    int r = qcow2_refcount_get(c->q, cluster, &is);

    if (r == -EIO) /* the block is out of place, which count_refcounts reported */
        is = 0;
    else if (r < 0)
        return r;
    if (is > used) {
        finding(c, &c->out->leaks, "cluster %llu is used %llu times and counted %llu times: leaked", HEX(cluster),
                HEX(used), HEX(is));
        if (lower && !qcow2_refcount_set(c->q, cluster, used))
            c->out->fixed++;
    } else if (is < used) {
        ERROR(c, "cluster %llu is used %llu times and counted %llu times", HEX(cluster), HEX(used), HEX(is));
        ++*ret_errors;
    }
    return 0;
}

static int compare(struct checker *c, bool lower, u64 *ret_errors)
{
    int r = 0;

    for (u64 i = 0; i < c->clusters && !r; i++)
        r = compare_cluster(c, i, lower, ret_errors);
    return r;
}

/* What the "copied" flag of an entry should be: its target has one user. */
static bool flag_is_right(const struct checker *c, u64 entry)
{
    u64 cluster = (entry & QCOW2_OFFSET_MASK) >> c->q->cluster_bits;
    bool alone = !(entry & QCOW2_COMPRESSED) && cluster && cluster < c->clusters && c->counts[cluster] == 1;

    return !(entry & QCOW2_COPIED) == !alone;
}

static int check_l2_flags(struct checker *c, u64 offset, u8 *buf, bool repair)
{
    u64 wrong = 0;
    int r = file_read(c->q->image.fd, buf, c->q->cluster_size, offset);

    for (u64 i = 0; i < c->q->cluster_size && !r; i += 8) {
        u64 entry = get_be64(buf + i);

        if (flag_is_right(c, entry))
            continue;
        ERROR(c, "L2 entry %#llx has the wrong copied flag", HEX(entry));
        put_be64(buf + i, entry ^ QCOW2_COPIED);
        wrong++;
    }
    if (r < 0 || !wrong || !repair)
        return r;
    c->out->fixed += wrong;
    return file_write(c->q->image.fd, buf, c->q->cluster_size, offset);
}

static int check_flags(struct checker *c, bool repair)
{
    struct qcow2_table *l1 = &c->q->l1;
    u8 *buf = malloc(c->q->cluster_size);
    u64 tables = 0;
    int r = buf ? 0 : -ENOMEM;

    for (u32 i = 0; i < l1->count && !r; i++) {
        u64 entry = l1->entries[i], offset = entry & QCOW2_OFFSET_MASK;

        tables += !!offset;
        if (tables > c->clusters)
            break; /* as in count_l2_tables */
        if (!flag_is_right(c, entry)) {
            ERROR(c, "L1 entry %#llx has the wrong copied flag", HEX(entry));
            if (repair) {
                qcow2_table_set(l1, i, entry ^ QCOW2_COPIED);
                c->out->fixed++;
            }
        }
        if (offset && !qcow2_in_cluster(c->q, offset) && in_file(c, offset, c->q->cluster_size))
            r = check_l2_flags(c, offset, buf, repair);
    }
    free(buf);
    return r;
}

/* New refcounts behind everything else; the old ones are among what is not counted and so become free. */
static int rebuild(struct checker *c)
{
    int r;

    memset(c->counts, 0, c->clusters * sizeof(*c->counts));
    c->quiet = true;
    r = count_content(c);
    c->quiet = false;
    for (int i = 0; i < c->q->refblocks.count; i++)
        qcow2_cache_drop(&c->q->refblocks, c->q->refblocks.slots[i].offset);
    c->q->reftable.lo = c->q->reftable.hi = 0;
    c->q->free_hint = 0;
    return r < 0 ? r : qcow2_refcounts_place(c->q, 0, c->clusters, c->counts);
}

static int repair_marks(struct checker *c)
{
    u64 bits = QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT;
    int r = qcow2_meta_flush(c->q);

    if (r < 0 || !(c->q->h.incompatible & bits) || c->out->errors > c->out->fixed)
        return r;
    c->q->h.incompatible &= ~bits;
    return qcow2_header_update(c->q);
}

static int check_all(struct checker *c, enum qcow2_repair repair)
{
    bool all = repair == QCOW2_REPAIR_ALL;
    u64 low = 0;
    int r = count_content(c);

    if (!r) {
        count_refcounts(c);
        r = compare(c, repair == QCOW2_REPAIR_LEAKS, &low);
    }
    if (!r)
        r = check_flags(c, all);
    if (!r && all && low + c->out->leaks) {
        r = rebuild(c);
        c->out->fixed += low + c->out->leaks;
    }
    return r < 0 || repair == QCOW2_REPAIR_NONE ? r : repair_marks(c);
}

int qcow2_check(struct image *img, enum qcow2_repair repair, struct qcow2_check *ret, struct err *e)
{
    struct qcow2 *q = qcow2_of(img);
    struct checker c = {.q = q, .out = ret, .clusters = qcow2_clusters(q, q->file_end)};
    size_t bytes = c.clusters * sizeof(*c.counts);
    int r;

    assert(repair == QCOW2_REPAIR_NONE || !img->readonly);
    if (c.clusters > CLUSTERS_MAX)
        return err_set(e, -EFBIG, "disk '%s' is too large a file to be checked", img->path);
    c.counts = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (c.counts == MAP_FAILED)
        return err_set(e, -ENOMEM, "no memory to check disk '%s'", img->path);
    pthread_mutex_lock(&q->meta);
    r = check_all(&c, repair);
    pthread_mutex_unlock(&q->meta);
    munmap(c.counts, bytes);
    return r < 0 ? err_set(e, r, "cannot check disk '%s': %s", img->path, strerror(-r)) : 0;
}
