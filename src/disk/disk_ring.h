/* Transfers to host files through io_uring. One thread submits and reaps; an eventfd tells it that there is something
 * to reap. */
#ifndef DISK_DISK_RING_H
#define DISK_DISK_RING_H
#include "disk/disk.h"

struct disk_ring;

/* Completions make `event_fd` readable. -ENOSYS and the like where the host has no io_uring or forbids it. */
int disk_ring_create(int event_fd, struct disk_ring **ret);
void disk_ring_free(struct disk_ring *ring); /* nothing is in flight; NULL is fine */

/* Starts READ, WRITE or FLUSH of `r` on the file, at an offset in the file. False if the ring has no room or cannot:
 * nothing has happened then. */
bool disk_ring_submit(struct disk_ring *ring, int fd, struct disk_request *r, u64 host_offset);

/* Takes one request that has ended. `ret_result`: bytes transferred (0 for FLUSH) or -Exxx. NULL when there is none. */
struct disk_request *disk_ring_reap(struct disk_ring *ring, int *ret_result);

#endif
