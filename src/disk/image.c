/* Images of any format: opening a chain of them, and the range checks that every format relies on. See image.h. */
#include "disk/image.h"
#include "disk/image_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BACKING_DEPTH_MAX = 32, PROBE_LENGTH = 512 };

/* Formats that a guest or another program may have written. Those without a reader here are known so that nobody
 * mistakes them for raw disks and overwrites them. */
static const struct {
    u32 at, length;
    const char *magic, *name;
    enum disk_format format;
} magics[] = {
    {0, 4, "QFI\xfb", "qcow2", DISK_FORMAT_QCOW2},
    {0, 4, "KDMV", "VMDK", DISK_FORMAT_AUTO},
    {0, 4, "COWD", "VMDK", DISK_FORMAT_AUTO},
    {0, 21, "# Disk DescriptorFile", "VMDK", DISK_FORMAT_AUTO},
    {0, 8, "vhdxfile", "VHDX", DISK_FORMAT_AUTO},
    {0, 8, "conectix", "VHD", DISK_FORMAT_AUTO},
    {64, 4, "\x7f\x10\xda\xbe", "VDI", DISK_FORMAT_AUTO},
    {0, 4, "QED\0", "QED", DISK_FORMAT_AUTO},
};

int image_format_parse(const char *name, enum disk_format *ret, struct err *e)
{
    if (!strcmp(name, "raw"))
        *ret = DISK_FORMAT_RAW;
    else if (!strcmp(name, "qcow2"))
        *ret = DISK_FORMAT_QCOW2;
    else
        return err_set(e, -EINVAL, "unknown disk format '%s'; known are raw and qcow2", name);
    return 0;
}

int image_format_probe(int fd, const char *path, enum disk_format *ret, struct err *e)
{
    u8 head[PROBE_LENGTH];
    int r = file_read(fd, head, sizeof(head), 0);

    if (r < 0)
        return err_set(e, r, "cannot read disk '%s': %s", path, strerror(-r));
    for (size_t i = 0; i < ARRAY_SIZE(magics); i++) {
        if (memcmp(head + magics[i].at, magics[i].magic, magics[i].length))
            continue;
        if (magics[i].format == DISK_FORMAT_AUTO)
            return err_set(e, -EINVAL,
                           "disk '%s' looks like a %s image, which is not supported; convert it with qemu-img, "
                           "or say format=raw if it is a raw disk",
                           path, magics[i].name);
        *ret = magics[i].format;
        return 0;
    }
    *ret = DISK_FORMAT_RAW;
    return 0;
}

static int check_chain(int fd, const char *path, const struct image_chain *above, struct image_chain *ret,
                       struct err *e)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return err_set(e, -errno, "cannot examine disk '%s': %s", path, strerror(errno));
    *ret = (struct image_chain){above, st.st_dev, st.st_ino, above ? above->depth + 1 : 0};
    for (; above; above = above->above)
        if (above->device == st.st_dev && above->inode == st.st_ino)
            return err_set(e, -ELOOP, "disk '%s' is its own backing file", path);
    if (ret->depth > BACKING_DEPTH_MAX)
        return err_set(e, -ELOOP, "disk '%s' is more than %d backing files deep", path, BACKING_DEPTH_MAX);
    return 0;
}

static int open_format(int fd, const char *path, enum disk_format format, unsigned flags,
                       const struct image_chain *chain, struct image **ret, struct err *e)
{
    bool probed = format == DISK_FORMAT_AUTO;
    int r = probed ? image_format_probe(fd, path, &format, e) : 0;

    if (r < 0)
        return r;
    r = format == DISK_FORMAT_RAW ? raw_open(fd, path, flags, ret, e) : qcow2_open(fd, path, flags, chain, ret, e);
    if (!r)
        (*ret)->probed = probed;
    return r;
}

static int open_in_chain(const char *path, enum disk_format format, unsigned flags, const struct image_chain *above,
                         struct image **ret, struct err *e)
{
    struct image_chain chain;
    int fd;
    int r = image_file_open(path, flags & IMAGE_WRITE, !(flags & IMAGE_NO_LOCK), &fd, e);

    if (r < 0)
        return r;
    r = check_chain(fd, path, above, &chain, e);
    if (!r)
        r = open_format(fd, path, format, flags, &chain, ret, e);
    if (r < 0)
        close(fd);
    return r;
}

int image_open(const char *path, enum disk_format format, unsigned flags, struct image **ret, struct err *e)
{
    return open_in_chain(path, format, flags, NULL, ret, e);
}

int image_resolve_path(const char *of, const char *name, char **ret, struct err *e)
{
    const char *slash = strrchr(of, '/');
    int n;

    if (!strncmp(name, "file:", 5))
        name += 5;
    if (!*name || !strncmp(name, "json:", 5) || strstr(name, "://"))
        return err_set(e, -EINVAL, "disk '%s': its backing '%s' is not a file name", of, name);
    if (name[0] == '/' || !slash)
        n = asprintf(ret, "%s", name);
    else
        n = asprintf(ret, "%.*s/%s", (int)(slash - of), of, name);
    return n < 0 ? err_set(e, -ENOMEM, "no memory to open disk '%s'", of) : 0;
}

int image_open_backing(const char *of, const char *name, const char *format, unsigned flags,
                       const struct image_chain *chain, struct image **ret, struct err *e)
{
    enum disk_format f = DISK_FORMAT_AUTO;
    char *path;
    int r = *format ? image_format_parse(format, &f, e) : 0;

    if (!r)
        r = image_resolve_path(of, name, &path, e);
    if (r < 0)
        goto out;
    r = open_in_chain(path, f, flags & ~(unsigned)(IMAGE_WRITE | IMAGE_REPAIR), chain, ret, e);
    free(path);
out:
    if (r < 0)
        err_prefix(e, "backing file of '%s'", of);
    return r;
}

void image_close(struct image *img)
{
    struct image *backing;
    char *path;
    int fd;

    if (!img)
        return;
    backing = img->backing;
    path = img->path;
    fd = img->fd;
    img->ops->close(img);
    close(fd);
    free(path);
    image_close(backing);
}

static bool in_range(const struct image *img, u64 offset, u64 length)
{
    return offset <= img->size && length <= img->size - offset;
}

static int may_write(const struct image *img, u64 offset, u64 length)
{
    if (img->readonly)
        return -EROFS;
    return in_range(img, offset, length) ? 0 : -EINVAL;
}

int image_readv(struct image *img, const struct iovec *iov, int count, u64 offset, u64 length)
{
    struct iov_cursor c = {iov, count, 0};

    return in_range(img, offset, length) ? img->ops->read(img, &c, offset, length) : -EINVAL;
}

int image_read(struct image *img, void *buf, u64 offset, u64 length)
{
    struct iovec iov = {buf, length};

    return image_readv(img, &iov, 1, offset, length);
}

/* A guest could turn a raw disk into an image of another format that names any file of the host as its backing file,
 * and read that file when the disk is opened the next time by its content. So the start of a disk that was taken for
 * raw because of its content may not become a magic number. The sector is copied first: the guest may change its memory
 * while we look. */
static int write_probed(struct image *img, struct iov_cursor *c, u64 offset, u64 length)
{
    u8 head[PROBE_LENGTH];
    u64 n = MIN(length, PROBE_LENGTH - offset);
    struct iovec iov;
    struct iov_cursor guarded = iov_cursor_of(&iov, head + offset, n);
    int r = img->ops->read(img, &(struct iov_cursor){&(struct iovec){head, sizeof(head)}, 1, 0}, 0,
                           MIN(sizeof(head), img->size));

    if (r < 0)
        return r;
    iov_drain(c, head + offset, n);
    for (size_t i = 0; i < ARRAY_SIZE(magics); i++)
        if (!memcmp(head + magics[i].at, magics[i].magic, magics[i].length))
            return -EPERM;
    r = img->ops->write(img, &guarded, offset, n);
    if (r < 0 || n == length)
        return r;
    return img->ops->write(img, c, offset + n, length - n);
}

int image_writev(struct image *img, const struct iovec *iov, int count, u64 offset, u64 length)
{
    struct iov_cursor c = {iov, count, 0};
    int r = may_write(img, offset, length);

    if (r < 0 || !length)
        return r;
    if (img->probed && img->ops == &raw_ops && offset < PROBE_LENGTH)
        return write_probed(img, &c, offset, length);
    return img->ops->write(img, &c, offset, length);
}

int image_write(struct image *img, const void *buf, u64 offset, u64 length)
{
    struct iovec iov = {(void *)buf, length};

    return image_writev(img, &iov, 1, offset, length);
}

int image_write_zeroes(struct image *img, u64 offset, u64 length)
{
    int r = may_write(img, offset, length);

    return r < 0 || !length ? r : img->ops->write_zeroes(img, offset, length);
}

int image_discard(struct image *img, u64 offset, u64 length)
{
    int r = may_write(img, offset, length);

    return r < 0 || !length ? r : img->ops->discard(img, offset, length);
}

int image_flush(struct image *img)
{
    return img->readonly ? 0 : img->ops->flush(img);
}

int image_map(struct image *img, u64 offset, u64 length, struct image_extent *ret)
{
    int r;

    if (!length || !in_range(img, offset, length))
        return -EINVAL;
    r = img->ops->map(img, offset, length, ret);
    if (r < 0 || ret->kind != EXTENT_BACKING)
        return r;
    if (!img->backing || offset >= img->backing->size) {
        ret->kind = EXTENT_ZERO;
        return 0;
    }
    return image_map(img->backing, offset, MIN(ret->length, img->backing->size - offset), ret);
}
