/* A bounded queue of frames between two threads: see frame_queue.h.
 *
 * A record is a length of 32 bits and the frame, padded to 4 bytes. Where the end of the ring is too short for the next
 * record, a length of GAP sends the reader back to the start. */
#include "net/frame_queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define GAP UINT32_MAX

enum { LENGTH_SIZE = sizeof(u32) };

int frame_queue_init(struct frame_queue *q, size_t size)
{
    *q = (struct frame_queue){.ring = malloc(size), .size = size};
    pthread_mutex_init(&q->lock, NULL);
    return q->ring ? 0 : -ENOMEM;
}

void frame_queue_free(struct frame_queue *q)
{
    if (!q->size)
        return; /* never initialised */
    free(q->ring);
    pthread_mutex_destroy(&q->lock);
}

static size_t frame_length(const struct iovec *iov, int count)
{
    size_t len = 0;

    for (int i = 0; i < count; i++)
        len += iov[i].iov_len;
    return len;
}

/* Where a record of `bytes` can go, with the gap before it accounted for; -1: nowhere. */
static s64 place(struct frame_queue *q, size_t bytes)
{
    size_t at_end = q->size - q->tail;
    u32 gap = GAP;

    if (!q->used)
        q->head = q->tail = 0, at_end = q->size;
    if (bytes <= at_end)
        return bytes <= q->size - q->used ? (s64)q->tail : -1;
    if (at_end + bytes > q->size - q->used)
        return -1;
    memcpy(q->ring + q->tail, &gap, LENGTH_SIZE);
    q->used += at_end;
    return 0;
}

static void gather(u8 *to, const struct iovec *iov, int count)
{
    for (int i = 0; i < count; i++) {
        memcpy(to, iov[i].iov_base, iov[i].iov_len);
        to += iov[i].iov_len;
    }
}

bool frame_queue_push(struct frame_queue *q, const struct iovec *iov, int iov_count, bool *was_empty)
{
    size_t len = frame_length(iov, iov_count), bytes = LENGTH_SIZE + ALIGN_UP(len, 4);
    u32 stored = (u32)len;
    s64 at;

    pthread_mutex_lock(&q->lock);
    *was_empty = !q->used;
    at = bytes < q->size ? place(q, bytes) : -1;
    if (at >= 0) {
        memcpy(q->ring + at, &stored, LENGTH_SIZE);
        gather(q->ring + at + LENGTH_SIZE, iov, iov_count);
        q->used += bytes;
        q->tail = ((size_t)at + bytes) % q->size;
    }
    pthread_mutex_unlock(&q->lock);
    return at >= 0;
}

static u32 length_at_head(const struct frame_queue *q)
{
    u32 len;

    memcpy(&len, q->ring + q->head, LENGTH_SIZE);
    return len;
}

const u8 *frame_queue_peek(struct frame_queue *q, size_t *len)
{
    const u8 *frame = NULL;

    pthread_mutex_lock(&q->lock);
    if (q->used) {
        if (length_at_head(q) == GAP) {
            q->used -= q->size - q->head;
            q->head = 0;
        }
        *len = length_at_head(q);
        frame = q->ring + q->head + LENGTH_SIZE;
    }
    pthread_mutex_unlock(&q->lock);
    return frame;
}

void frame_queue_drop(struct frame_queue *q)
{
    size_t bytes;

    pthread_mutex_lock(&q->lock);
    bytes = LENGTH_SIZE + ALIGN_UP(length_at_head(q), 4);
    q->used -= bytes;
    q->head = (q->head + bytes) % q->size;
    pthread_mutex_unlock(&q->lock);
}

size_t frame_queue_used(struct frame_queue *q)
{
    size_t used;

    pthread_mutex_lock(&q->lock);
    used = q->used;
    pthread_mutex_unlock(&q->lock);
    return used;
}
