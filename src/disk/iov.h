/* A place in a scatter list: requests are cut along the runs of an image, and each piece takes the next bytes of the
 * list. */
#ifndef DISK_IOV_H
#define DISK_IOV_H
#include "base/types.h"
#include <sys/uio.h>

struct iov_cursor {
    const struct iovec *iov; /* the caller's; never written to */
    int count;               /* elements left, the first of them partly used */
    size_t skip;             /* bytes of the first element that are used already */
};

/* A cursor over one buffer; `iov` is storage that must live as long as the cursor. */
struct iov_cursor iov_cursor_of(struct iovec *iov, void *buf, size_t length);

/* Takes at most `max` bytes into at most `out_max` elements of `out` and moves on. Returns the bytes taken, less than
 * `max` when `out` is full or the list ends. */
size_t iov_take(struct iov_cursor *c, u64 max, struct iovec *out, int out_max, int *ret_count);

/* These expect that `length` bytes are left. They move on by as much. */
void iov_fill_zero(struct iov_cursor *c, u64 length);
void iov_fill(struct iov_cursor *c, const void *from, size_t length);
void iov_drain(struct iov_cursor *c, void *to, size_t length);

u64 iov_total(const struct iovec *iov, int count);

#endif
