/* qcow2 images: opening, closing, and the table of operations. The parts: qcow2_header.c, qcow2_cache.c,
 * qcow2_refcount.c, qcow2_reftable.c, qcow2_map.c, qcow2_io.c, qcow2_compress.c, qcow2_create.c, qcow2_check.c,
 * qcow2_snapshot.c; what binds them together stands in qcow2_internal.h.
 *
 * Left out: encryption, external data files, extended L2 entries (refused with a sentence); bitmaps (dropped by their
 * auto-clear bit when the image is written to); making snapshots. Lazy refcounts are accepted and not made use of:
 * refcounts are always exact. */
#include "base/trace.h"
#include "disk/image_file.h"
#include "disk/qcow2_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Memory for tables: enough L2 tables to map 8 GiB at the usual cluster size of 64 KiB. */
enum { L2_CACHE_BYTES = 1 << 20, REFBLOCK_CACHE_BYTES = 256 << 10, CACHE_SLOTS_MIN = 2, CACHE_SLOTS_MAX = 256 };

static int cache_slots(const struct qcow2 *q, u64 bytes)
{
    return (int)MIN(MAX(bytes >> q->cluster_bits, (u64)CACHE_SLOTS_MIN), (u64)CACHE_SLOTS_MAX);
}

struct qcow2 *qcow2_new(int fd, const char *path)
{
    struct qcow2 *q = calloc(1, sizeof(*q));

    if (!q || !(q->image.path = strdup(path))) {
        free(q);
        return NULL;
    }
    q->image.ops = &qcow2_ops;
    q->image.fd = fd;
    gate_init(&q->gate);
    pthread_mutex_init(&q->meta, NULL);
    pthread_mutex_init(&q->unpacked_mutex, NULL);
    return q;
}

static void free_parts(struct qcow2 *q)
{
    qcow2_cache_free(&q->l2);
    qcow2_cache_free(&q->refblocks);
    free(q->l1.entries);
    free(q->reftable.entries);
    free(q->freed);
    free(q->unpacked);
    pthread_mutex_destroy(&q->unpacked_mutex);
    pthread_mutex_destroy(&q->meta);
    gate_destroy(&q->gate);
    free(q);
}

void qcow2_free(struct qcow2 *q)
{
    if (!q)
        return;
    image_close(q->image.backing);
    free(q->image.path);
    free_parts(q);
}

static int load_tables(struct qcow2 *q, struct err *e)
{
    int r = qcow2_table_load(q, &q->l1, q->h.l1_offset, q->h.l1_size);

    if (!r)
        r = qcow2_table_load(q, &q->reftable, q->h.reftable_offset, q->h.reftable_clusters << q->l2_bits);
    if (!r)
        r = qcow2_cache_init(&q->l2, cache_slots(q, L2_CACHE_BYTES));
    if (!r)
        r = qcow2_cache_init(&q->refblocks, cache_slots(q, REFBLOCK_CACHE_BYTES));
    return r < 0 ? err_set(e, r, "cannot load the tables of disk '%s': %s", q->image.path, strerror(-r)) : 0;
}

/* A dirty image was not closed after refcounts were left for later: they are counted anew before anything is
 * allocated. */
static int repair_dirty(struct qcow2 *q, struct err *e)
{
    struct qcow2_check check = {0};
    int r = qcow2_check(&q->image, QCOW2_REPAIR_ALL, &check, e);

    if (r < 0)
        return r;
    if (check.errors > check.fixed)
        return err_set(e, -EIO, "disk '%s' was not closed properly and cannot be repaired; see 'skerry image check'",
                       q->image.path);
    return 0;
}

static int prepare_writing(struct qcow2 *q, struct err *e)
{
    int r = 0;

    if (q->h.incompatible & QCOW2_INCOMPAT_CORRUPT)
        return err_set(e, -EIO, "disk '%s' is marked as corrupt; see 'skerry image check', or use it read-only",
                       q->image.path);
    if (q->h.incompatible & QCOW2_INCOMPAT_DIRTY)
        r = repair_dirty(q, e);
    if (r < 0 || !q->h.autoclear)
        return r;
    q->h.autoclear = 0;
    r = qcow2_header_update(q);
    return r < 0 ? err_set(e, r, "cannot write to disk '%s': %s", q->image.path, strerror(-r)) : 0;
}

static int open_parts(struct qcow2 *q, unsigned flags, const struct image_chain *chain, struct err *e)
{
    int r = image_file_size(q->image.fd, &q->file_end);

    if (r < 0)
        return err_set(e, r, "cannot find the size of disk '%s': %s", q->image.path, strerror(-r));
    r = qcow2_header_read(q, e);
    if (r < 0)
        return r;
    q->image.size = ALIGN_UP(q->h.size, SECTOR_SIZE);
    q->image.cluster_size = q->cluster_size;
    q->image.readonly = !(flags & IMAGE_WRITE);
    r = load_tables(q, e);
    if (!r && *q->backing_name && !(flags & IMAGE_NO_BACKING))
        r = image_open_backing(q->image.path, q->backing_name, q->backing_format, flags, chain, &q->image.backing, e);
    if (!r && flags & IMAGE_WRITE && !(flags & IMAGE_REPAIR))
        r = prepare_writing(q, e);
    return r;
}

int qcow2_open(int fd, const char *path, unsigned flags, const struct image_chain *chain, struct image **ret,
               struct err *e)
{
    struct qcow2 *q = qcow2_new(fd, path);
    int r;

    if (!q)
        return err_set(e, -ENOMEM, "no memory to open disk '%s'", path);
    r = open_parts(q, flags, chain, e);
    if (r < 0) {
        qcow2_free(q);
        return r;
    }
    trace(DISK, "%s: qcow2 version %u, %llu bytes, clusters of %llu", path, q->h.version,
          (unsigned long long)q->image.size, (unsigned long long)q->cluster_size);
    *ret = &q->image;
    return 0;
}

static int qcow2_flush(struct image *img)
{
    struct qcow2 *q = qcow2_of(img);
    bool dirty;
    int r = 0;

    gate_shared(&q->gate);
    pthread_mutex_lock(&q->meta);
    dirty = qcow2_meta_dirty(q);
    if (dirty)
        r = qcow2_meta_flush(q);
    pthread_mutex_unlock(&q->meta);
    if (!dirty)
        r = qcow2_sync(q); /* nobody waits for `meta` meanwhile */
    gate_release(&q->gate);
    return r;
}

static int qcow2_map_extent(struct image *img, u64 offset, u64 length, struct image_extent *ret)
{
    struct qcow2 *q = qcow2_of(img);
    struct qcow2_run run;
    int r;

    gate_shared(&q->gate);
    r = qcow2_map(q, offset, length, true, &run);
    gate_release(&q->gate);
    if (r < 0)
        return r;
    ret->kind = run.kind == RUN_ZERO ? EXTENT_ZERO : run.kind == RUN_UNALLOCATED ? EXTENT_BACKING : EXTENT_DATA;
    ret->length = run.length;
    return 0;
}

static void qcow2_close(struct image *img)
{
    struct qcow2 *q = qcow2_of(img);

    /* twice: what the first flush frees is written by the second */
    for (int i = 0; i < 2 && !img->readonly && !q->scratch; i++)
        if (qcow2_meta_dirty(q) && qcow2_meta_flush(q) < 0)
            break;
    free_parts(q);
}

const struct image_ops qcow2_ops = {
    .name = "qcow2",
    .read = qcow2_read,
    .write = qcow2_write,
    .write_zeroes = qcow2_write_zeroes,
    .discard = qcow2_discard,
    .flush = qcow2_flush,
    .map = qcow2_map_extent,
    .direct_begin = qcow2_direct_begin,
    .direct_end = qcow2_direct_end,
    .write_compressed = qcow2_write_compressed,
    .close = qcow2_close,
};

static int open_temporary(struct err *e)
{
    const char *dir = getenv("TMPDIR");
    char path[4096];
    int fd;

    if (!dir || !*dir)
        dir = "/var/tmp";
    fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0)
        return fd;
    snprintf(path, sizeof(path), "%s/skerry-XXXXXX", dir);
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return err_set(e, -errno, "cannot make a temporary file in '%s' for a snapshot disk: %s; set TMPDIR", dir,
                       strerror(errno));
    unlink(path);
    return fd;
}

int qcow2_open_overlay(struct image *backing, struct image **ret, struct err *e)
{
    struct qcow2_create c = QCOW2_CREATE_DEFAULT;
    int fd = open_temporary(e);
    int r;

    if (fd < 0)
        return fd;
    c.size = backing->size;
    r = qcow2_create(fd, "temporary overlay", &c, e);
    if (!r)
        r = qcow2_open(fd, "temporary overlay", IMAGE_WRITE, NULL, ret, e);
    if (r < 0) {
        close(fd);
        return r;
    }
    (*ret)->backing = backing;
    qcow2_of(*ret)->scratch = true;
    return 0;
}

void qcow2_info(struct image *img, struct qcow2_info *ret)
{
    const struct qcow2 *q = qcow2_of(img);

    *ret = (struct qcow2_info){
        .version = q->h.version,
        .refcount_bits = 1u << q->h.refcount_order,
        .cluster_size = q->cluster_size,
        .compression = q->h.compression_type == QCOW2_COMPRESSION_ZSTD ? "zstd" : "zlib",
        .backing_name = q->backing_name,
        .backing_format = q->backing_format,
        .lazy_refcounts = q->h.compatible & QCOW2_COMPAT_LAZY_REFCOUNTS,
        .dirty = q->h.incompatible & QCOW2_INCOMPAT_DIRTY,
        .corrupt = q->h.incompatible & QCOW2_INCOMPAT_CORRUPT,
    };
}
