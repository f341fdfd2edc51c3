/* Compressed clusters: a raw deflate stream (window of 4 KiB when we write) or a zstd frame, packed at byte
 * granularity. They are read through a buffer of one cluster, because guests read them in small pieces; they are
 * written by `image convert -c` only. */
#include "base/trace.h"
#include "disk/image_file.h"
#include "disk/qcow2_refcount.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

enum { DEFLATE_WINDOW = -12, INFLATE_WINDOW = -15, ZSTD_LEVEL = 3 }; /* negative: no zlib header */

static int inflate_cluster(const u8 *in, size_t in_length, u8 *out, size_t out_length)
{
    z_stream z = {.next_in = (u8 *)in, .avail_in = (uInt)in_length, .next_out = out, .avail_out = (uInt)out_length};
    int r;

    if (inflateInit2(&z, INFLATE_WINDOW) != Z_OK)
        return -ENOMEM;
    r = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    return (r == Z_STREAM_END || r == Z_BUF_ERROR || r == Z_OK) && !z.avail_out ? 0 : -EIO;
}

/* Streaming, because what follows the frame in its last sector is not known. */
static int unzstd_cluster(const u8 *in, size_t in_length, u8 *out, size_t out_length)
{
    ZSTD_DStream *z = ZSTD_createDStream();
    ZSTD_inBuffer from = {in, in_length, 0};
    ZSTD_outBuffer to = {out, out_length, 0};
    size_t r = 1;

    if (!z)
        return -ENOMEM;
    while (to.pos < to.size && r) {
        size_t in_before = from.pos, out_before = to.pos;

        r = ZSTD_decompressStream(z, &to, &from);
        if (ZSTD_isError(r) || (from.pos == in_before && to.pos == out_before))
            break;
    }
    ZSTD_freeDStream(z);
    return !ZSTD_isError(r) && to.pos == to.size ? 0 : -EIO;
}

static int unpack(struct qcow2 *q, u64 entry)
{
    u64 offset, length;
    u8 *in;
    int r = qcow2_compressed_place(q, entry, &offset, &length);

    if (r < 0)
        return r;
    in = malloc(length); /* at most two clusters and a sector: the entry has no more bits */
    if (!q->unpacked)
        q->unpacked = malloc(q->cluster_size);
    r = in && q->unpacked ? file_read(q->image.fd, in, length, offset) : -ENOMEM;
    if (!r && q->h.compression_type == QCOW2_COMPRESSION_ZSTD)
        r = unzstd_cluster(in, length, q->unpacked, q->cluster_size);
    else if (!r)
        r = inflate_cluster(in, length, q->unpacked, q->cluster_size);
    free(in);
    if (r < 0)
        trace(DISK, "%s: compressed cluster at %#llx does not unpack", q->image.path, (unsigned long long)offset);
    return r;
}

int qcow2_read_compressed(struct qcow2 *q, struct iov_cursor *to, u64 entry, u64 in_cluster, u64 length)
{
    int r = 0;

    pthread_mutex_lock(&q->unpacked_mutex);
    if (q->unpacked_entry != entry) {
        q->unpacked_entry = 0; /* until the content is right */
        r = unpack(q, entry);
    }
    if (!r) {
        q->unpacked_entry = entry;
        iov_fill(to, q->unpacked + in_cluster, length);
    }
    pthread_mutex_unlock(&q->unpacked_mutex);
    return r;
}

void qcow2_unpacked_forget(struct qcow2 *q)
{
    pthread_mutex_lock(&q->unpacked_mutex);
    q->unpacked_entry = 0;
    pthread_mutex_unlock(&q->unpacked_mutex);
}

/* Bytes written to `out`, 0 if they would not be fewer than the cluster's. */
static size_t deflate_cluster(const u8 *in, size_t length, u8 *out)
{
    z_stream z = {.next_in = (u8 *)in, .avail_in = (uInt)length, .next_out = out, .avail_out = (uInt)length - 1};
    int r;

    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, DEFLATE_WINDOW, 9, Z_DEFAULT_STRATEGY) != Z_OK)
        return 0;
    r = deflate(&z, Z_FINISH);
    deflateEnd(&z);
    return r == Z_STREAM_END ? z.total_out : 0;
}

static size_t pack(const struct qcow2 *q, const u8 *in, u8 *out)
{
    size_t n;

    if (q->h.compression_type == QCOW2_COMPRESSION_ZLIB)
        return deflate_cluster(in, q->cluster_size, out);
    n = ZSTD_compress(out, q->cluster_size - 1, in, q->cluster_size, ZSTD_LEVEL);
    return ZSTD_isError(n) ? 0 : n;
}

/* The gate is held exclusively. */
static int store(struct qcow2 *q, const u8 *packed, u64 length, u64 guest_offset)
{
    unsigned x = 62 - (q->cluster_bits - 8);
    u64 at, sectors;
    int r;

    pthread_mutex_lock(&q->meta);
    r = qcow2_alloc_bytes(q, length, &at);
    if (!r && at + length > BIT(x))
        r = -EFBIG;
    if (!r)
        r = file_write(q->image.fd, packed, length, at);
    if (!r) {
        sectors = (at % SECTOR_SIZE + length - 1) / SECTOR_SIZE;
        r = qcow2_remap(q, guest_offset, 1, QCOW2_COMPRESSED | sectors << x | at, 0);
    }
    pthread_mutex_unlock(&q->meta);
    return r;
}

int qcow2_write_compressed(struct image *img, const void *cluster, u64 offset)
{
    struct qcow2 *q = qcow2_of(img);
    u8 *packed = malloc(q->cluster_size);
    size_t length;
    int r;

    assert(!qcow2_in_cluster(q, offset));
    if (!packed)
        return -ENOMEM;
    length = pack(q, cluster, packed);
    if (length) {
        gate_exclusive(&q->gate);
        r = store(q, packed, length, offset);
        gate_release(&q->gate);
    } else {
        r = 1;
    }
    free(packed);
    return r;
}
