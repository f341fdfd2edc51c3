/* The host file under an image: whole transfers at an offset, size, holes, and the lock that keeps a second VM out. */
#ifndef DISK_IMAGE_FILE_H
#define DISK_IMAGE_FILE_H
#include "base/err.h"
#include "base/types.h"
#include "disk/iov.h"

/* Opens `path` (close-on-exec) and takes its lock unless `lock` is false: a writer excludes everybody, readers share.
 * The locks are understood by QEMU too. Fails with a sentence; -EBUSY if somebody else uses the file in a way that
 * conflicts. What is neither a regular file nor a block device is refused. */
int image_file_open(const char *path, bool writable, bool lock, int *ret_fd, struct err *e);

/* Regular file or block device: its length in bytes. */
int image_file_size(int fd, u64 *ret);

/* Whole transfers: 0 or -Exxx, never short. What lies beyond the end of the file reads as zeros. */
int file_read(int fd, void *buf, size_t length, u64 offset);
int file_write(int fd, const void *buf, size_t length, u64 offset);
int file_readv(int fd, struct iov_cursor *to, u64 length, u64 offset);
int file_writev(int fd, struct iov_cursor *from, u64 length, u64 offset);

/* Makes the range read as zeros, giving its space back where the file system can; writes zeros where it cannot. */
int file_zero(int fd, u64 offset, u64 length);
/* Gives the range's space back where that is possible, else does nothing. Its content is undefined afterwards. */
int file_discard(int fd, u64 offset, u64 length);

#endif
