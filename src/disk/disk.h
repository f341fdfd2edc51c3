/* Disks: an image file of some format behind one asynchronous request interface.
 *
 * Requests are submitted and completed in the loop thread (machine lock held), any number in flight, completed in any
 * order. */
#ifndef DISK_DISK_H
#define DISK_DISK_H
#include "base/err.h"
#include "base/event_loop.h"
#include "base/types.h"
#include <sys/uio.h>

enum disk_format { DISK_FORMAT_AUTO, DISK_FORMAT_RAW, DISK_FORMAT_QCOW2 };

enum disk_io { DISK_IO_AUTO, DISK_IO_THREADS }; /* AUTO: io_uring where the host has it, threads where not */

struct disk_options {
    /* AUTO: by the file's magic; raw files whose content looks like another format need it said */
    enum disk_format format;
    bool readonly;
    bool snapshot; /* writes go to a temporary overlay that is lost at close */
    enum disk_io io;
};

struct disk;

enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD, DISK_WRITE_ZEROES };

/* The caller owns the request and its buffers until done() is called, once, in the loop thread. */
struct disk_request {
    enum disk_op op;
    u64 offset, length; /* bytes, multiples of 512, within the disk; length is the sum of iov for READ and WRITE */
    const struct iovec *iov;
    int iov_count;
    void (*done)(struct disk_request *r, int result); /* 0 or -Exxx */
    void *ctx;
    void *priv[4]; /* the disk's own */
};

/* Opens an image for a VM, and its backing files. Locks them (shared if readonly) so that no second VM writes to them:
 * -EBUSY. The loop must outlive the disk. */
int disk_open(const char *path, const struct disk_options *options, struct event_loop *loop, struct disk **ret,
              struct err *e);
void disk_close(struct disk *d); /* loop thread, not from done(): completes what is in flight, flushes; NULL is fine */

u64 disk_size(const struct disk *d); /* bytes, a multiple of 512 */
bool disk_readonly(const struct disk *d);
/* done() comes later, never from inside. -EINVAL: out of range; -EROFS: a change to a read-only disk. */
void disk_submit(struct disk *d, struct disk_request *r);

/* Waits until nothing is in flight; calls done() of each request on the way. Loop thread: for resets, where buffers
 * must not change any more. */
void disk_drain(struct disk *d);

#endif
