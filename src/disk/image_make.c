/* New disk images and copies: see image_make.h. */
#include "disk/image_make.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { COPY_CHUNK = 2 << 20, HOLE_UNIT = 4096 }; /* the chunk is a multiple of every cluster size */

static int fill_file(int fd, const char *path, enum disk_format format, const struct qcow2_create *qcow2, struct err *e)
{
    if (format == DISK_FORMAT_QCOW2)
        return qcow2_create(fd, path, qcow2, e);
    if (qcow2->size > INT64_MAX || ftruncate(fd, (off_t)qcow2->size) < 0)
        return err_set(e, -EFBIG, "cannot make disk '%s' as large as %llu bytes", path,
                       (unsigned long long)qcow2->size);
    return 0;
}

int image_make(const char *path, enum disk_format format, const struct qcow2_create *qcow2, struct err *e)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    int r;

    if (fd < 0 && errno == EEXIST)
        return err_set(e, -EEXIST, "'%s' exists already; remove it first or choose another name", path);
    if (fd < 0)
        return err_set(e, -errno, "cannot create disk '%s': %s", path, strerror(errno));
    r = fill_file(fd, path, format, qcow2, e);
    close(fd);
    if (r < 0)
        unlink(path);
    return r;
}

static bool is_zero(const u8 *p, u64 length)
{
    return !p[0] && !memcmp(p, p + 1, length - 1);
}

/* The first run in buf[*at…length) of whole units that are not zero; false if there is none. */
static bool next_data(const u8 *buf, u64 unit, u64 length, u64 *at, u64 *run)
{
    while (*at < length && is_zero(buf + *at, MIN(unit, length - *at)))
        *at += unit;
    for (*run = 0; *at + *run < length && !is_zero(buf + *at + *run, MIN(unit, length - *at - *run));)
        *run += MIN(unit, length - *at - *run);
    return *run;
}

/* `run` bytes at `at` in cluster units; the buffer behind the last one is zero up to its end. */
static int write_compressed(struct image *to, const u8 *buf, u64 offset, u64 at, u64 run)
{
    int r = 0;

    for (u64 end = at + run; at < end && r >= 0; at += to->cluster_size) {
        r = to->ops->write_compressed(to, buf + at, offset + at);
        if (r > 0)
            r = image_write(to, buf + at, offset + at, MIN(to->cluster_size, end - at));
    }
    return r;
}

static int write_data(struct image *to, const u8 *buf, u64 offset, u64 length, bool compress)
{
    u64 unit = MAX(to->cluster_size, (u64)HOLE_UNIT), run;
    int r = 0;

    if (compress)
        unit = to->cluster_size;
    for (u64 at = 0; !r && next_data(buf, unit, length, &at, &run); at += run)
        r = compress ? write_compressed(to, buf, offset, at, run) : image_write(to, buf + at, offset + at, run);
    return r;
}

/* The next chunk boundary behind the zeros that begin at `at`, or `at` if this chunk has data. */
static int skip_zeros(struct image *from, u64 at, u64 *ret, struct err *e)
{
    u64 end = at;

    while (end < from->size) {
        struct image_extent x;
        int r = image_map(from, end, from->size - end, &x);

        if (r < 0)
            return err_set(e, r, "cannot read disk '%s': %s", from->path, strerror(-r));
        if (x.kind != EXTENT_ZERO)
            break;
        end += x.length;
    }
    *ret = end == from->size ? end : ALIGN_DOWN(end, COPY_CHUNK);
    return 0;
}

static int copy_chunk(struct image *from, struct image *to, u8 *buf, u64 at, bool compress, struct err *e)
{
    u64 length = MIN((u64)COPY_CHUNK, from->size - at);
    int r = image_read(from, buf, at, length);

    if (r < 0)
        return err_set(e, r, "cannot read disk '%s': %s", from->path, strerror(-r));
    memset(buf + length, 0, COPY_CHUNK - length);
    r = write_data(to, buf, at, length, compress);
    return r < 0 ? err_set(e, r, "cannot write disk '%s': %s", to->path, strerror(-r)) : 0;
}

static int copy_all(struct image *from, struct image *to, u8 *buf, const struct image_copy *c, struct err *e)
{
    u64 at = 0;

    while (at < from->size) {
        int r = skip_zeros(from, at, &at, e);

        if (!r && at < from->size) {
            r = copy_chunk(from, to, buf, at, c->compress, e);
            at = MIN(at + COPY_CHUNK, from->size);
        }
        if (r < 0)
            return r;
        if (c->progress && !c->progress(c->ctx, at, from->size))
            return err_set(e, -EINTR, "interrupted");
    }
    return 0;
}

int image_copy(struct image *from, struct image *to, const struct image_copy *c, struct err *e)
{
    u8 *buf = malloc(COPY_CHUNK);
    int r;

    assert(to->size >= from->size && (!c->compress || to->ops->write_compressed));
    if (!buf)
        return err_set(e, -ENOMEM, "no memory to copy disk '%s'", from->path);
    r = copy_all(from, to, buf, c, e);
    free(buf);
    if (r < 0)
        return r;
    r = image_flush(to);
    return r < 0 ? err_set(e, r, "cannot write disk '%s': %s", to->path, strerror(-r)) : 0;
}
