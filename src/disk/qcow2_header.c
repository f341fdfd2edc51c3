/* The first cluster of a qcow2 file: header, header extensions, name of the backing file. One table of fields serves
 * reading and writing. Extensions that are not understood stay in the file untouched. */
#include "disk/byte_order.h"
#include "disk/image_file.h"
#include "disk/qcow2_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const struct header_field {
    u8 at, size;
    u16 member; /* offset in struct qcow2_header */
} header_fields[] = {
#define FIELD(at, m)                                                                \
    {                                                                               \
        at, sizeof(((struct qcow2_header *)0)->m), offsetof(struct qcow2_header, m) \
    }
    FIELD(4, version),
    FIELD(8, backing_offset),
    FIELD(16, backing_length),
    FIELD(20, cluster_bits),
    FIELD(24, size),
    FIELD(32, crypt_method),
    FIELD(36, l1_size),
    FIELD(40, l1_offset),
    FIELD(48, reftable_offset),
    FIELD(56, reftable_clusters),
    FIELD(60, nb_snapshots),
    FIELD(64, snapshots_offset),
    FIELD(72, incompatible),
    FIELD(80, compatible),
    FIELD(88, autoclear),
    FIELD(96, refcount_order),
    FIELD(100, header_length),
    FIELD(104, compression_type),
#undef FIELD
};

/* Fields that end beyond `length` bytes of header are not there: zero. */
static void header_decode(struct qcow2_header *h, const u8 *p, size_t length)
{
    memset(h, 0, sizeof(*h));
    for (size_t i = 0; i < ARRAY_SIZE(header_fields); i++) {
        const struct header_field *f = &header_fields[i];
        void *to = (u8 *)h + f->member;

        if (f->at + f->size > length)
            continue;
        if (f->size == 8)
            *(u64 *)to = get_be64(p + f->at);
        else if (f->size == 4)
            *(u32 *)to = get_be32(p + f->at);
        else
            *(u8 *)to = p[f->at];
    }
}

static void header_encode(const struct qcow2_header *h, u8 *p)
{
    put_be32(p, QCOW2_MAGIC);
    for (size_t i = 0; i < ARRAY_SIZE(header_fields); i++) {
        const struct header_field *f = &header_fields[i];
        const void *from = (const u8 *)h + f->member;

        if (f->at + f->size > h->header_length)
            continue;
        if (f->size == 8)
            put_be64(p + f->at, *(const u64 *)from);
        else if (f->size == 4)
            put_be32(p + f->at, *(const u32 *)from);
        else
            p[f->at] = *(const u8 *)from;
    }
}

static int bad(struct qcow2 *q, struct err *e, const char *what)
{
    return err_set(e, -EINVAL, "disk '%s': not a usable qcow2 image: %s", q->image.path, what);
}

static int unsupported(struct qcow2 *q, struct err *e, const char *what)
{
    return err_set(e, -ENOTSUP, "disk '%s' %s, which is not supported; convert it with qemu-img", q->image.path, what);
}

static int check_features(struct qcow2 *q, struct err *e)
{
    const struct qcow2_header *h = &q->h;
    u64 known = QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT | QCOW2_INCOMPAT_COMPRESSION;

    if (h->crypt_method)
        return unsupported(q, e, "is encrypted");
    if (h->incompatible & QCOW2_INCOMPAT_DATA_FILE)
        return unsupported(q, e, "keeps its data in a second file");
    if (h->incompatible & QCOW2_INCOMPAT_EXTENDED_L2)
        return unsupported(q, e, "has extended L2 entries");
    if (h->incompatible & ~known)
        return err_set(e, -ENOTSUP, "disk '%s' needs a qcow2 feature that is not known (bits 0x%llx)", q->image.path,
                       (unsigned long long)(h->incompatible & ~known));
    if (h->compression_type > QCOW2_COMPRESSION_ZSTD)
        return err_set(e, -ENOTSUP, "disk '%s' is compressed in a way that is not known (type %d)", q->image.path,
                       h->compression_type);
    if (!(h->incompatible & QCOW2_INCOMPAT_COMPRESSION) != !h->compression_type)
        return bad(q, e, "its compression type contradicts its feature bits");
    return 0;
}

static int check_geometry(struct qcow2 *q, struct err *e)
{
    const struct qcow2_header *h = &q->h;
    u64 l1_needed;

    if (h->cluster_bits < QCOW2_CLUSTER_BITS_MIN || h->cluster_bits > QCOW2_CLUSTER_BITS_MAX)
        return bad(q, e, "its cluster size is out of range");
    if (h->refcount_order > QCOW2_REFCOUNT_ORDER_MAX)
        return bad(q, e, "its refcounts are too wide");
    if (h->version >= 3 &&
        (h->header_length < QCOW2_HEADER_V3 || h->header_length % 8 || h->header_length > BIT(h->cluster_bits)))
        return bad(q, e, "its header length is out of range");
    q->cluster_bits = h->cluster_bits;
    q->cluster_size = BIT(h->cluster_bits);
    q->l2_bits = h->cluster_bits - 3;
    q->refblock_bits = h->cluster_bits + 3 - h->refcount_order;
    if (h->size > BIT(62))
        return bad(q, e, "its size is out of range");
    l1_needed = (qcow2_clusters(q, h->size) + BIT(q->l2_bits) - 1) >> q->l2_bits;
    if ((u64)h->l1_size * 8 > QCOW2_L1_BYTES_MAX)
        return bad(q, e, "its L1 table is too large");
    if (h->l1_size < l1_needed)
        return bad(q, e, "its L1 table is too small for its size");
    if (((u64)h->reftable_clusters << h->cluster_bits) > QCOW2_REFTABLE_BYTES_MAX)
        return bad(q, e, "its refcount table is too large");
    return 0;
}

/* A table of `length` bytes lies in the file, at a cluster's start, and not over the header. */
static bool table_in_file(const struct qcow2 *q, u64 offset, u64 length)
{
    return !qcow2_in_cluster(q, offset) && offset >= q->cluster_size && offset <= q->file_end &&
           length <= q->file_end - offset;
}

static int check_places(struct qcow2 *q, struct err *e)
{
    const struct qcow2_header *h = &q->h;

    if (h->l1_size && !table_in_file(q, h->l1_offset, (u64)h->l1_size * 8))
        return bad(q, e, "its L1 table lies outside of the file; the file may be truncated");
    if (!h->reftable_clusters || !table_in_file(q, h->reftable_offset, q->cluster_size))
        return bad(q, e, "its refcount table lies outside of the file; the file may be truncated");
    if (h->nb_snapshots && !table_in_file(q, h->snapshots_offset, 0))
        return bad(q, e, "its snapshot table lies outside of the file; the file may be truncated");
    if (h->backing_offset && (h->backing_length > QCOW2_NAME_MAX || h->backing_offset > q->cluster_size ||
                              h->backing_length > q->cluster_size - h->backing_offset))
        return bad(q, e, "the name of its backing file lies outside of its header");
    return 0;
}

static void take_bitmaps(struct qcow2 *q, const u8 *data, u32 length)
{
    if (length < 24)
        return;
    q->bitmap_count = get_be32(data);
    q->bitmap_directory_size = get_be64(data + 8);
    q->bitmap_directory = get_be64(data + 16);
}

static int read_extensions(struct qcow2 *q, const u8 *cluster, struct err *e)
{
    u64 at = q->h.header_length;
    u64 end = q->h.backing_offset ? MIN(q->h.backing_offset, q->cluster_size) : q->cluster_size;

    while (at + 8 <= end) {
        u32 type = get_be32(cluster + at), length = get_be32(cluster + at + 4);
        const u8 *data = cluster + at + 8;

        if (type == QCOW2_EXT_END)
            return 0;
        if (length > end - at - 8)
            return bad(q, e, "a header extension lies outside of its header");
        if (type == (u32)QCOW2_EXT_BACKING_FORMAT) {
            if (length > QCOW2_FORMAT_NAME_MAX)
                return bad(q, e, "the format of its backing file is too long a name");
            memcpy(q->backing_format, data, length);
        } else if (type == QCOW2_EXT_BITMAPS) {
            take_bitmaps(q, data, length);
        }
        at += 8 + ALIGN_UP((u64)length, 8);
    }
    return 0;
}

static int read_names(struct qcow2 *q, struct err *e)
{
    u8 *cluster = malloc(q->cluster_size);
    int r;

    if (!cluster)
        return err_set(e, -ENOMEM, "no memory to open disk '%s'", q->image.path);
    r = file_read(q->image.fd, cluster, q->cluster_size, 0);
    if (r < 0)
        err_set(e, r, "cannot read disk '%s': %s", q->image.path, strerror(-r));
    else
        r = read_extensions(q, cluster, e);
    if (!r && q->h.backing_offset) {
        memcpy(q->backing_name, cluster + q->h.backing_offset, q->h.backing_length);
        if (strlen(q->backing_name) != q->h.backing_length)
            r = bad(q, e, "the name of its backing file has a zero byte");
    }
    free(cluster);
    return r;
}

static int decode_checked(struct qcow2 *q, const u8 *p, struct err *e)
{
    if (get_be32(p) != QCOW2_MAGIC)
        return err_set(e, -EINVAL, "disk '%s' is not a qcow2 image; if it is a raw disk, say format=raw",
                       q->image.path);
    header_decode(&q->h, p, QCOW2_HEADER_V2);
    if (q->h.version != 2 && q->h.version != 3)
        return err_set(e, -ENOTSUP, "disk '%s' is a qcow image of version %u; versions 2 and 3 are supported",
                       q->image.path, q->h.version);
    if (q->h.version == 3)
        header_decode(&q->h, p, MAX(QCOW2_HEADER_V3, MIN(get_be32(p + 100), SECTOR_SIZE)));
    else
        q->h.refcount_order = QCOW2_REFCOUNT_ORDER_DEFAULT, q->h.header_length = QCOW2_HEADER_V2;
    return 0;
}

int qcow2_header_read(struct qcow2 *q, struct err *e)
{
    u8 head[SECTOR_SIZE];
    int r = file_read(q->image.fd, head, sizeof(head), 0);

    if (r < 0)
        return err_set(e, r, "cannot read disk '%s': %s", q->image.path, strerror(-r));
    r = decode_checked(q, head, e);
    if (!r)
        r = check_features(q, e);
    if (!r)
        r = check_geometry(q, e);
    if (!r)
        r = check_places(q, e);
    return r < 0 ? r : read_names(q, e);
}

static u8 *put_extension(u8 *p, u32 type, const char *text)
{
    size_t length = strlen(text);

    put_be32(p, type);
    put_be32(p + 4, (u32)length);
    memcpy(p + 8, text, length);
    return p + 8 + ALIGN_UP(length, 8);
}

int qcow2_header_create(struct qcow2 *q)
{
    size_t format = strlen(q->backing_format), name = strlen(q->backing_name);
    size_t need = q->h.header_length + (format ? 8 + ALIGN_UP(format, 8) : 0) + 8 + name;
    u8 *cluster, *p;
    int r;

    if (need > q->cluster_size)
        return -ENAMETOOLONG;
    cluster = calloc(1, q->cluster_size);
    if (!cluster)
        return -ENOMEM;
    p = cluster + q->h.header_length;
    if (format)
        p = put_extension(p, (u32)QCOW2_EXT_BACKING_FORMAT, q->backing_format);
    p += 8; /* QCOW2_EXT_END, length 0 */
    if (name) {
        q->h.backing_offset = (u64)(p - cluster);
        q->h.backing_length = (u32)name;
        memcpy(p, q->backing_name, name);
    }
    header_encode(&q->h, cluster);
    r = file_write(q->image.fd, cluster, q->cluster_size, 0);
    free(cluster);
    return r;
}

int qcow2_header_update(struct qcow2 *q)
{
    u8 head[SECTOR_SIZE];
    int r = file_read(q->image.fd, head, sizeof(head), 0); /* what is not in h stays */

    if (r < 0)
        return r;
    header_encode(&q->h, head);
    r = file_write(q->image.fd, head, sizeof(head), 0);
    return r < 0 ? r : qcow2_sync(q);
}
