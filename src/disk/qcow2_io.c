/* Guest data of a qcow2 image: reading, writing in place, writing to new clusters, zeroing and discarding. */
#include "disk/image_file.h"
#include "disk/qcow2_refcount.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool backed_at(const struct qcow2 *q, u64 offset)
{
    return q->image.backing && offset < q->image.backing->size;
}

/* Whether the run that begins at `offset` is known to read as zeros. */
static bool run_is_zero(const struct qcow2 *q, const struct qcow2_run *run, u64 offset)
{
    return run->kind == RUN_ZERO || (run->kind == RUN_UNALLOCATED && !backed_at(q, offset));
}

static int read_backing(struct qcow2 *q, struct iov_cursor *to, u64 offset, u64 length)
{
    struct image *b = q->image.backing;
    u64 n = backed_at(q, offset) ? MIN(length, b->size - offset) : 0;
    int r = n ? b->ops->read(b, to, offset, n) : 0;

    if (!r)
        iov_fill_zero(to, length - n);
    return r;
}

static int read_run(struct qcow2 *q, struct iov_cursor *to, u64 offset, const struct qcow2_run *run)
{
    switch (run->kind) {
    case RUN_DATA:
        return file_readv(q->image.fd, to, run->length, run->host);
    case RUN_COMPRESSED:
        return qcow2_read_compressed(q, to, run->entry, qcow2_in_cluster(q, offset), run->length);
    case RUN_UNALLOCATED:
        return read_backing(q, to, offset, run->length);
    default:
        iov_fill_zero(to, run->length);
        return 0;
    }
}

/* Callers hold the gate. */
static int read_range(struct qcow2 *q, struct iov_cursor *to, u64 offset, u64 length)
{
    int r = 0;

    while (length && !r) {
        struct qcow2_run run;

        r = qcow2_map(q, offset, length, true, &run);
        if (!r)
            r = read_run(q, to, offset, &run);
        if (!r) {
            offset += run.length;
            length -= run.length;
        }
    }
    return r;
}

int qcow2_read(struct image *img, struct iov_cursor *to, u64 offset, u64 length)
{
    struct qcow2 *q = qcow2_of(img);
    int r;

    gate_shared(&q->gate);
    r = read_range(q, to, offset, length);
    gate_release(&q->gate);
    return r;
}

/* The part of a new cluster that the guest does not write now keeps what the guest saw there before. What lies beyond
 * the end of the disk is zero. */
static int write_kept(struct qcow2 *q, u64 offset, u64 length, u64 host, bool fresh)
{
    u64 inside = offset < q->image.size ? MIN(length, q->image.size - offset) : 0;
    struct qcow2_run run = {.kind = RUN_ZERO};
    struct iovec iov;
    struct iov_cursor c;
    u8 *buf;
    int r = inside ? qcow2_map(q, offset, inside, true, &run) : 0;

    if (r < 0 || !length || (fresh && run_is_zero(q, &run, offset)))
        return r;
    buf = calloc(1, length);
    if (!buf)
        return -ENOMEM;
    c = iov_cursor_of(&iov, buf, inside);
    r = read_range(q, &c, offset, inside);
    if (!r)
        r = file_write(q->image.fd, buf, length, host);
    free(buf);
    return r;
}

/* Fills new clusters at `host`: guest data at `offset`, and what surrounds it in its first and last cluster. */
static int write_new(struct qcow2 *q, struct iov_cursor *from, u64 offset, u64 length, u64 host, bool fresh)
{
    u64 head = qcow2_in_cluster(q, offset), tail = qcow2_in_cluster(q, -(offset + length));
    int r = write_kept(q, offset - head, head, host, fresh);

    if (!r)
        r = file_writev(q->image.fd, from, length, host + head);
    if (!r)
        r = write_kept(q, offset + length, tail, host + head + length, fresh);
    return r;
}

/* Writes to new clusters as much of `length` as fits into those that are free in a row. The gate is held
 * exclusively. */
static int write_allocating(struct qcow2 *q, struct iov_cursor *from, u64 offset, u64 length, u64 *ret_written)
{
    u64 head = qcow2_in_cluster(q, offset), host, got;
    bool fresh;
    int r;

    pthread_mutex_lock(&q->meta);
    r = qcow2_alloc(q, qcow2_clusters(q, head + length), &host, &got, &fresh);
    pthread_mutex_unlock(&q->meta);
    if (r < 0)
        return r;
    length = MIN(length, (got << q->cluster_bits) - head);
    r = write_new(q, from, offset, length, host, fresh);
    pthread_mutex_lock(&q->meta);
    if (r < 0)
        qcow2_unalloc(q, host, got);
    else
        r = qcow2_remap(q, offset, got, host | QCOW2_COPIED, q->cluster_size);
    pthread_mutex_unlock(&q->meta);
    *ret_written = length;
    return r;
}

/* One step of a write; `exclusive` says how the gate is held. -EAGAIN: it takes more than that. */
static int write_step(struct qcow2 *q, struct iov_cursor *from, u64 offset, u64 length, bool exclusive,
                      u64 *ret_written)
{
    struct qcow2_run run;
    int r = qcow2_map(q, offset, length, true, &run);

    if (r < 0)
        return r;
    if (run.kind == RUN_DATA && run.in_place) {
        *ret_written = run.length;
        return file_writev(q->image.fd, from, run.length, run.host);
    }
    return exclusive ? write_allocating(q, from, offset, run.length, ret_written) : -EAGAIN;
}

static int write_steps(struct qcow2 *q, struct iov_cursor *from, u64 *offset, u64 *length, bool exclusive)
{
    u64 n = 0;
    int r = 0;

    while (*length && !r) {
        r = write_step(q, from, *offset, *length, exclusive, &n);
        if (!r) {
            *offset += n;
            *length -= n;
        }
    }
    return r;
}

int qcow2_write(struct image *img, struct iov_cursor *from, u64 offset, u64 length)
{
    struct qcow2 *q = qcow2_of(img);
    int r;

    gate_shared(&q->gate);
    r = write_steps(q, from, &offset, &length, false);
    gate_release(&q->gate);
    if (r != -EAGAIN)
        return r;
    gate_exclusive(&q->gate);
    r = write_steps(q, from, &offset, &length, true);
    gate_release(&q->gate);
    return r;
}

static int write_zero_bytes(struct qcow2 *q, u64 offset, u64 length)
{
    u8 *zeros = calloc(1, length);
    struct iovec iov;
    struct iov_cursor c;
    int r;

    if (!zeros)
        return -ENOMEM;
    c = iov_cursor_of(&iov, zeros, length);
    r = write_steps(q, &c, &offset, &length, true);
    free(zeros);
    return r;
}

/* A cluster without content reads as zeros by itself, or by the zero flag where a backing file would show. Version 2
 * has no flag. */
static bool can_unmap(const struct qcow2 *q, u64 offset)
{
    return q->h.version >= 3 || !backed_at(q, offset);
}

static int unmap_clusters(struct qcow2 *q, u64 offset, u64 clusters)
{
    u64 entry = backed_at(q, offset) ? QCOW2_ZERO : 0;
    int r;

    pthread_mutex_lock(&q->meta);
    r = qcow2_remap(q, offset, clusters, entry, 0);
    pthread_mutex_unlock(&q->meta);
    return r;
}

/* One step of zeroing at `offset`. Whole clusters lose their content; parts of clusters are written (`discard`: left
 * alone). */
static int zero_step(struct qcow2 *q, u64 offset, u64 length, bool discard, u64 *ret_done)
{
    bool whole = !qcow2_in_cluster(q, offset) && (length >= q->cluster_size || offset + length == q->image.size);
    struct qcow2_run run;
    int r = qcow2_map(q, offset, length, true, &run);

    if (r < 0)
        return r;
    *ret_done = run.length;
    if (run_is_zero(q, &run, offset) || (discard && run.kind == RUN_UNALLOCATED))
        return 0;
    if (whole && can_unmap(q, offset)) {
        u64 clusters = MAX(run.length >> q->cluster_bits, 1ull);

        *ret_done = MIN(clusters << q->cluster_bits, length);
        return unmap_clusters(q, offset, clusters);
    }
    *ret_done = MIN(length, q->cluster_size - qcow2_in_cluster(q, offset));
    return discard ? 0 : write_zero_bytes(q, offset, *ret_done);
}

static int zero_range(struct image *img, u64 offset, u64 length, bool discard)
{
    struct qcow2 *q = qcow2_of(img);
    u64 n;
    int r = 0;

    gate_exclusive(&q->gate);
    while (length && !r) {
        r = zero_step(q, offset, length, discard, &n);
        if (!r) {
            offset += n;
            length -= n;
        }
    }
    gate_release(&q->gate);
    return r;
}

int qcow2_write_zeroes(struct image *img, u64 offset, u64 length)
{
    return zero_range(img, offset, length, false);
}

int qcow2_discard(struct image *img, u64 offset, u64 length)
{
    return zero_range(img, offset, length, true);
}

bool qcow2_direct_begin(struct image *img, bool write, u64 offset, u64 length, u64 *ret_host_offset)
{
    struct qcow2 *q = qcow2_of(img);
    struct qcow2_run run;

    if (!gate_try_shared(&q->gate))
        return false;
    if (qcow2_map(q, offset, length, false, &run) || run.kind != RUN_DATA || run.length != length ||
        (write && !run.in_place)) {
        gate_release(&q->gate);
        return false;
    }
    *ret_host_offset = run.host;
    return true;
}

void qcow2_direct_end(struct image *img)
{
    gate_release(&qcow2_of(img)->gate);
}
