/* A new, empty qcow2 image: header, L1 table of zeros, refcount table and blocks that count these. */
#include "disk/image_file.h"
#include "disk/qcow2_refcount.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int set_geometry(struct qcow2 *q, const struct qcow2_create *c, struct err *e)
{
    u64 tables;

    if (c->cluster_bits < QCOW2_CLUSTER_BITS_MIN || c->cluster_bits > QCOW2_CLUSTER_BITS_MAX)
        return err_set(e, -EINVAL, "the cluster size must be a power of two from 512 to 2M");
    if (c->version == 2 &&
        (c->lazy_refcounts || c->compression_type || c->refcount_order != QCOW2_REFCOUNT_ORDER_DEFAULT))
        return err_set(e, -EINVAL, "lazy refcounts, zstd and other refcount widths than 16 need version 3");
    q->cluster_bits = c->cluster_bits;
    q->cluster_size = BIT(c->cluster_bits);
    q->l2_bits = c->cluster_bits - 3;
    q->refblock_bits = c->cluster_bits + 3 - c->refcount_order;
    tables = c->size <= BIT(62) ? (qcow2_clusters(q, c->size) + BIT(q->l2_bits) - 1) >> q->l2_bits : UINT32_MAX;
    if (tables * 8 > QCOW2_L1_BYTES_MAX)
        return err_set(e, -EFBIG, "a disk of this size needs larger clusters, or is too large");
    q->h.l1_size = (u32)tables;
    return 0;
}

static void set_header(struct qcow2 *q, const struct qcow2_create *c)
{
    q->h.version = c->version;
    q->h.cluster_bits = c->cluster_bits;
    q->h.size = c->size;
    q->h.l1_offset = q->cluster_size;
    q->h.refcount_order = c->refcount_order;
    q->h.compression_type = c->compression_type;
    q->h.incompatible = c->compression_type ? QCOW2_INCOMPAT_COMPRESSION : 0;
    q->h.compatible = c->lazy_refcounts ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0;
    q->h.header_length = c->version == 2 ? QCOW2_HEADER_V2 : QCOW2_HEADER_V3 + 8; /* 8: compression type, padding */
}

static int set_backing(struct qcow2 *q, const struct qcow2_create *c, struct err *e)
{
    if (c->backing && strlen(c->backing) > QCOW2_NAME_MAX)
        return err_set(e, -ENAMETOOLONG, "the name of the backing file is too long (1023 bytes fit)");
    if (c->backing_format && strlen(c->backing_format) > QCOW2_FORMAT_NAME_MAX)
        return err_set(e, -EINVAL, "unknown disk format '%s'; known are raw and qcow2", c->backing_format);
    snprintf(q->backing_name, sizeof(q->backing_name), "%s", c->backing ? c->backing : "");
    snprintf(q->backing_format, sizeof(q->backing_format), "%s", c->backing_format ? c->backing_format : "");
    return 0;
}

static int write_image(struct qcow2 *q, const char *path, struct err *e)
{
    u64 l1_end = 1 + qcow2_clusters(q, q->h.l1_size * 8ull);
    int r = qcow2_header_create(q);

    if (r == -ENAMETOOLONG)
        return err_set(e, r, "the name of the backing file does not fit into clusters of %llu bytes",
                       (unsigned long long)q->cluster_size);
    if (!r)
        r = qcow2_extend_file(q, l1_end << q->cluster_bits);
    if (!r)
        r = qcow2_refcounts_place(q, 0, l1_end, NULL);
    return r < 0 ? err_set(e, r, "cannot write disk '%s': %s", path, strerror(-r)) : 0;
}

int qcow2_create(int fd, const char *path, const struct qcow2_create *c, struct err *e)
{
    struct qcow2 *q = qcow2_new(fd, path);
    int r;

    if (!q)
        return err_set(e, -ENOMEM, "no memory to create disk '%s'", path);
    assert(c->size % SECTOR_SIZE == 0 && (c->version == 2 || c->version == 3));
    r = set_geometry(q, c, e);
    if (!r)
        r = set_backing(q, c, e);
    if (!r) {
        set_header(q, c);
        r = write_image(q, path, e);
    }
    qcow2_free(q);
    return r;
}
