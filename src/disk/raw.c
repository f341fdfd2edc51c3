/* Raw images: the bytes of the disk, as they are, in a file or on a block device. Holes are the file system's. */
#include "disk/image.h"
#include "disk/image_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int raw_read(struct image *img, struct iov_cursor *to, u64 offset, u64 length)
{
    return file_readv(img->fd, to, length, offset);
}

static int raw_write(struct image *img, struct iov_cursor *from, u64 offset, u64 length)
{
    return file_writev(img->fd, from, length, offset);
}

static int raw_write_zeroes(struct image *img, u64 offset, u64 length)
{
    return file_zero(img->fd, offset, length);
}

static int raw_discard(struct image *img, u64 offset, u64 length)
{
    return file_discard(img->fd, offset, length);
}

static int raw_flush(struct image *img)
{
    return fdatasync(img->fd) < 0 ? -errno : 0;
}

static int raw_map(struct image *img, u64 offset, u64 length, struct image_extent *ret)
{
    off_t data = lseek(img->fd, (off_t)offset, SEEK_DATA);
    off_t hole;

    if (data < 0 && errno != ENXIO) { /* no such knowledge: block devices, old file systems */
        *ret = (struct image_extent){EXTENT_DATA, length};
        return 0;
    }
    if (data < 0 || (u64)data >= offset + length) {
        *ret = (struct image_extent){EXTENT_ZERO, length};
        return 0;
    }
    if ((u64)data > offset) {
        *ret = (struct image_extent){EXTENT_ZERO, (u64)data - offset};
        return 0;
    }
    hole = lseek(img->fd, (off_t)offset, SEEK_HOLE);
    if (hole < 0)
        return -errno;
    *ret = (struct image_extent){EXTENT_DATA, (u64)hole > offset ? MIN(length, (u64)hole - offset) : length};
    return 0;
}

static bool raw_direct_begin(struct image *img, bool write, u64 offset, u64 length, u64 *ret_host_offset)
{
    if (write && img->probed && offset < SECTOR_SIZE)
        return false; /* image_writev looks at the start of probed disks */
    *ret_host_offset = offset;
    return true;
}

static void raw_direct_end(struct image *img)
{
}

static void raw_close(struct image *img)
{
    free(img);
}

const struct image_ops raw_ops = {
    .name = "raw",
    .read = raw_read,
    .write = raw_write,
    .write_zeroes = raw_write_zeroes,
    .discard = raw_discard,
    .flush = raw_flush,
    .map = raw_map,
    .direct_begin = raw_direct_begin,
    .direct_end = raw_direct_end,
    .close = raw_close,
};

int raw_open(int fd, const char *path, unsigned flags, struct image **ret, struct err *e)
{
    struct image *img;
    u64 size;
    int r = image_file_size(fd, &size);

    if (r < 0)
        return err_set(e, r, "cannot find the size of disk '%s': %s", path, strerror(-r));
    img = calloc(1, sizeof(*img));
    if (!img || !(img->path = strdup(path))) {
        free(img);
        return err_set(e, -ENOMEM, "no memory to open disk '%s'", path);
    }
    img->ops = &raw_ops;
    img->fd = fd;
    img->size = ALIGN_UP(size, SECTOR_SIZE);
    img->readonly = !(flags & IMAGE_WRITE);
    *ret = img;
    return 0;
}
