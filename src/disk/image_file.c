/* Host files under images: see image_file.h.
 *
 * Locks are open-file-description locks (fcntl(2), F_OFD_SETLK): they belong to the open file, so two disks of one
 * process exclude each other, and they vanish with the process. The bytes are chosen to meet QEMU's protocol: QEMU
 * marks what it does to an image by shared locks on bytes 100+n and what it forbids others by shared locks on bytes
 * 200+n (n: 0 read, 1 write, 3 resize). A writer of ours locks the whole file exclusively, which collides with every
 * one of those bytes; a reader takes QEMU's reader bytes and looks whether somebody writes. */
#include "disk/image_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOCK_READS = 100, LOCK_WRITES = 101, LOCK_RESIZES = 103, LOCK_NO_WRITERS = 201, LOCK_NO_RESIZERS = 203 };

enum { IOV_BATCH = 64 }; /* elements a system call; on the stack */

static int lock_range(int fd, int cmd, short type, off_t start, off_t length)
{
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};

    if (fcntl(fd, cmd, &l) < 0)
        return errno == EACCES || errno == EAGAIN ? -EBUSY : -errno;
    return cmd == F_OFD_GETLK && l.l_type != F_UNLCK ? -EBUSY : 0;
}

static int lock_reader(int fd)
{
    static const struct {
        int cmd;
        short type;
        int byte;
    } steps[] = {
        {F_OFD_SETLK, F_RDLCK, LOCK_READS},       {F_OFD_SETLK, F_RDLCK, LOCK_NO_WRITERS},
        {F_OFD_SETLK, F_RDLCK, LOCK_NO_RESIZERS}, {F_OFD_GETLK, F_WRLCK, LOCK_WRITES},
        {F_OFD_GETLK, F_WRLCK, LOCK_RESIZES},
    };

    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        int r = lock_range(fd, steps[i].cmd, steps[i].type, steps[i].byte, 1);

        if (r < 0)
            return r;
    }
    return 0;
}

static int lock_file(int fd, bool writable)
{
    int r = writable ? lock_range(fd, F_OFD_SETLK, F_WRLCK, 0, 0) : lock_reader(fd);

    return r == -EBUSY ? r : 0; /* file systems without locks are used without */
}

static int refuse_other_kinds(int fd, const char *path, struct err *e)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return err_set(e, -errno, "cannot examine disk '%s': %s", path, strerror(errno));
    if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))
        return 0;
    return err_set(e, -EINVAL, "'%s' is %s, not a disk image", path,
                   S_ISDIR(st.st_mode) ? "a directory" : "a special file");
}

int image_file_open(const char *path, bool writable, bool lock, int *ret_fd, struct err *e)
{
    /* O_NONBLOCK: a FIFO must be refused, not waited for */
    int fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    int r;

    if (fd < 0) {
        r = -errno;
        if (r == -EISDIR)
            return err_set(e, r, "'%s' is a directory, not a disk image", path);
        if (writable && (r == -EACCES || r == -EROFS))
            return err_set(e, r, "disk '%s' cannot be written: %s; make it writable or use it read-only", path,
                           strerror(-r));
        return err_set(e, r, "cannot open disk '%s': %s", path, strerror(-r));
    }
    r = refuse_other_kinds(fd, path, e);
    fcntl(fd, F_SETFL, 0); /* O_NONBLOCK has done its part; io_uring would heed it */
    if (!r && lock && lock_file(fd, writable) < 0)
        r = err_set(e, -EBUSY, "disk '%s' is in use by another VM", path);
    if (r < 0) {
        close(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

int image_file_size(int fd, u64 *ret)
{
    off_t end = lseek(fd, 0, SEEK_END);

    if (end < 0)
        return -errno;
    *ret = (u64)end;
    return 0;
}

int file_readv(int fd, struct iov_cursor *to, u64 length, u64 offset)
{
    while (length) {
        struct iov_cursor before = *to;
        struct iovec batch[IOV_BATCH];
        int n;
        size_t asked = iov_take(to, length, batch, IOV_BATCH, &n);
        ssize_t got = preadv(fd, batch, n, (off_t)offset);

        assert(asked > 0);
        if (got < 0 && errno != EINTR)
            return -errno;
        *to = before;
        if (got == 0) {
            iov_fill_zero(to, length);
            return 0;
        }
        if (got > 0) {
            iov_take(to, (u64)got, batch, IOV_BATCH, &n);
            offset += (u64)got;
            length -= (u64)got;
        }
    }
    return 0;
}

int file_writev(int fd, struct iov_cursor *from, u64 length, u64 offset)
{
    while (length) {
        struct iov_cursor before = *from;
        struct iovec batch[IOV_BATCH];
        int n;
        size_t asked = iov_take(from, length, batch, IOV_BATCH, &n);
        ssize_t put = pwritev(fd, batch, n, (off_t)offset);

        assert(asked > 0);
        if (put < 0 && errno != EINTR)
            return -errno;
        *from = before;
        if (put == 0)
            return -EIO;
        if (put > 0) {
            iov_take(from, (u64)put, batch, IOV_BATCH, &n);
            offset += (u64)put;
            length -= (u64)put;
        }
    }
    return 0;
}

int file_read(int fd, void *buf, size_t length, u64 offset)
{
    struct iovec iov;
    struct iov_cursor c = iov_cursor_of(&iov, buf, length);

    return file_readv(fd, &c, length, offset);
}

int file_write(int fd, const void *buf, size_t length, u64 offset)
{
    struct iovec iov;
    struct iov_cursor c = iov_cursor_of(&iov, (void *)buf, length);

    return file_writev(fd, &c, length, offset);
}

static int write_zeros(int fd, u64 offset, u64 length)
{
    static const u8 zeros[KIB(64)];

    while (length) {
        size_t n = MIN(length, sizeof(zeros));
        int r = file_write(fd, zeros, n, offset);

        if (r < 0)
            return r;
        offset += n;
        length -= n;
    }
    return 0;
}

int file_zero(int fd, u64 offset, u64 length)
{
    if (!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length))
        return 0;
    return write_zeros(fd, offset, length);
}

int file_discard(int fd, u64 offset, u64 length)
{
    if (!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length))
        return 0;
    return errno == EIO ? -EIO : 0;
}
