/* A bounded queue of frames between two threads: a ring of bytes, each frame in one piece, so that the reader needs no copy.
 * One thread pushes, one peeks and drops. */
#ifndef NET_FRAME_QUEUE_H
#define NET_FRAME_QUEUE_H
#include "base/types.h"
#include <pthread.h>
#include <sys/uio.h>

struct frame_queue {
    pthread_mutex_t lock; /* guards the positions; bytes in use belong to the reader, the others to the writer */
    u8 *ring;
    size_t size, head, tail; /* the reader's and the writer's position */
    size_t used;             /* bytes, frames' lengths and gaps included */
};

int frame_queue_init(struct frame_queue *q, size_t size); /* 0 or -ENOMEM; size a multiple of 4 */
void frame_queue_free(struct frame_queue *q);

/* Appends the gathered frame. False when it does not fit: the frame is lost. *was_empty: the reader may be asleep. */
bool frame_queue_push(struct frame_queue *q, const struct iovec *iov, int iov_count, bool *was_empty);

/* The oldest frame, or NULL. It stays valid until frame_queue_drop. */
const u8 *frame_queue_peek(struct frame_queue *q, size_t *len);
void frame_queue_drop(struct frame_queue *q);

size_t frame_queue_used(struct frame_queue *q);

#endif
