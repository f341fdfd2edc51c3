/* Files for the guest: see boot_file.h. A file may change under us at any time; whoever reads it works on a copy. */
#include "firmware/boot_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int boot_file_size(const struct boot_file *f, u64 *ret_size, struct err *e)
{
    struct stat st;

    if (fstat(f->fd, &st))
        return err_set(e, -errno, "%s '%s': %s", f->role, f->path, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return err_set(e, -EISDIR, "%s '%s': is a directory; name the file itself", f->role, f->path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, -EINVAL, "%s '%s': not a regular file; copy it to one first", f->role, f->path);
    if (!st.st_size)
        return err_set(e, -EINVAL, "%s '%s': is empty", f->role, f->path);
    if ((u64)st.st_size > f->size_max)
        return err_set(e, -EFBIG,
                       "%s '%s': has %llu MiB, more than a guest could load (%llu MiB); is it the right file?", f->role,
                       f->path, (unsigned long long)st.st_size >> 20, (unsigned long long)f->size_max >> 20);
    *ret_size = (u64)st.st_size;
    return 0;
}

int boot_file_open(struct boot_file *f, const char *role, const char *path, u64 size_max, struct err *e)
{
    struct boot_file file = {.role = role, .fd = -1, .size_max = size_max};
    u64 size;
    int r;

    file.path = strdup(path);
    if (!file.path)
        return err_set(e, -ENOMEM, "%s '%s': out of memory", role, path);
    file.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a named pipe must not keep us waiting for a writer */
    if (file.fd < 0)
        r = err_set(e, -errno, "%s '%s': %s", role, path, strerror(errno));
    else
        r = boot_file_size(&file, &size, e);
    if (r)
        boot_file_close(&file);
    else
        *f = file;
    return r;
}

void boot_file_close(struct boot_file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    free(f->path);
}

int boot_file_read(const struct boot_file *f, void *buf, u64 size, struct err *e)
{
    u64 done = 0;

    while (done < size) {
        ssize_t n = pread(f->fd, (u8 *)buf + done, size - done, (off_t)done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(e, -errno, "%s '%s': %s", f->role, f->path, strerror(errno));
        if (n == 0)
            return err_set(e, -EIO, "%s '%s': became shorter while it was read", f->role, f->path);
        done += (u64)n;
    }
    return 0;
}
