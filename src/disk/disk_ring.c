/* io_uring: see disk_ring.h. */
#include "disk/disk_ring.h"

#include <errno.h>
#include <liburing.h>
#include <limits.h>
#include <stdlib.h>

enum { RING_ENTRIES = 128 };

struct disk_ring {
    struct io_uring ring;
    unsigned in_flight;
};

int disk_ring_create(int event_fd, struct disk_ring **ret)
{
    struct disk_ring *ring = calloc(1, sizeof(*ring));
    int r = ring ? io_uring_queue_init(RING_ENTRIES, &ring->ring, 0) : -ENOMEM;

    if (r < 0) {
        free(ring);
        return r;
    }
    r = io_uring_register_eventfd(&ring->ring, event_fd);
    if (r < 0) {
        disk_ring_free(ring);
        return r;
    }
    *ret = ring;
    return 0;
}

void disk_ring_free(struct disk_ring *ring)
{
    if (!ring)
        return;
    assert(!ring->in_flight);
    io_uring_queue_exit(&ring->ring);
    free(ring);
}

static void prepare(struct io_uring_sqe *sqe, int fd, struct disk_request *r, u64 host_offset)
{
    if (r->op == DISK_READ)
        io_uring_prep_readv(sqe, fd, r->iov, (unsigned)r->iov_count, host_offset);
    else if (r->op == DISK_WRITE)
        io_uring_prep_writev(sqe, fd, r->iov, (unsigned)r->iov_count, host_offset);
    else
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
    io_uring_sqe_set_data(sqe, r);
}

bool disk_ring_submit(struct disk_ring *ring, int fd, struct disk_request *r, u64 host_offset)
{
    struct io_uring_sqe *sqe;
    int n;

    if (ring->in_flight == RING_ENTRIES || r->iov_count > IOV_MAX || r->length > INT_MAX)
        return false;
    sqe = io_uring_get_sqe(&ring->ring);
    if (!sqe)
        return false;
    prepare(sqe, fd, r, host_offset);
    do
        n = io_uring_submit(&ring->ring);
    while (n == -EINTR);
    if (n < 1) { /* the entry stays in the queue, so it must mean nothing when it is taken later */
        io_uring_prep_nop(sqe);
        io_uring_sqe_set_data(sqe, NULL);
        return false;
    }
    ring->in_flight++;
    return true;
}

struct disk_request *disk_ring_reap(struct disk_ring *ring, int *ret_result)
{
    struct io_uring_cqe *cqe;

    while (!io_uring_peek_cqe(&ring->ring, &cqe)) {
        struct disk_request *r = io_uring_cqe_get_data(cqe);

        *ret_result = cqe->res;
        io_uring_cqe_seen(&ring->ring, cqe);
        if (r) {
            ring->in_flight--;
            return r;
        }
    }
    return NULL;
}
