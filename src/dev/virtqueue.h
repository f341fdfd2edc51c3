/* Split virtqueues, the device's side: taking descriptor chains from the driver and giving them back. Virtio 1.2 §2.7.
 *
 * Everything in a ring is hostile. A ring that breaks the rules (index out of range, chain that loops, buffer outside RAM)
 * becomes `broken`: nothing is taken from it or put into it any more, and its owner is told once. Guest memory is read once.
 *
 * The kept state of all queues of a device is one struct of arrays, so that a state table can list it. */
#ifndef DEV_VIRTQUEUE_H
#define DEV_VIRTQUEUE_H
#include "base/state.h"
#include "mem/guest_memory.h"
#include <sys/uio.h>

#define VIRTQ_MAX 8                        /* queues of one device */
#define VIRTQ_SIZE_MAX 256                 /* descriptors of one queue, and the longest chain */
#define VIRTQ_IOV_MAX (VIRTQ_SIZE_MAX + 2) /* a buffer may straddle two RAM regions */

struct virtq_state {
    /* gpa of descriptor table, available ring, used ring */
    u64 desc[VIRTQ_MAX], driver[VIRTQ_MAX], device[VIRTQ_MAX];
    u16 size[VIRTQ_MAX];       /* a power of two, at most the queue's size_max */
    u16 vector[VIRTQ_MAX];     /* MSI-X vector of its interrupt */
    u16 avail_next[VIRTQ_MAX]; /* free-running index of the next chain to take */
    u16 used_next[VIRTQ_MAX];  /* … of the next used element to write */
    u16 signalled[VIRTQ_MAX];  /* used_next when the driver's wish for an interrupt was last looked at */
    bool enabled[VIRTQ_MAX];
};

/* Entries for the table of a state struct T that has a struct virtq_state at `f`. */
#define VIRTQ_STATE_FIELDS(T, f)                                                                        \
    STATE_ARRAY(T, f.desc), STATE_ARRAY(T, f.driver), STATE_ARRAY(T, f.device), STATE_ARRAY(T, f.size), \
        STATE_ARRAY(T, f.vector), STATE_ARRAY(T, f.avail_next), STATE_ARRAY(T, f.used_next),            \
        STATE_ARRAY(T, f.signalled), STATE_ARRAY(T, f.enabled)

struct virtqueue {
    struct guest_memory *mem;
    struct virtq_state *s;
    int n; /* which queue of `s` this is */
    u16 size_max;
    bool indirect, event_idx; /* negotiated features */
    bool broken;
    void (*on_broken)(struct virtqueue *q); /* called once, when `broken` becomes true */
    void *owner;
};

/* A buffer that the driver offered: iov[0, readable) is for the device to read, the `writable` elements behind to write. */
struct virtq_chain {
    u16 head;
    int readable, writable;
    u32 readable_bytes, writable_bytes;
    struct iovec iov[VIRTQ_IOV_MAX];
};

/* Back to the state after device reset: disabled, size_max descriptors, no addresses, no vector. */
void virtq_reset(struct virtqueue *q);

/* The driver has set size and addresses. Breaks the queue when they cannot be right. */
void virtq_enable(struct virtqueue *q);

/* Takes the next chain. False when there is none, or the queue is disabled or broken. */
bool virtq_pop(struct virtqueue *q, struct virtq_chain *c);

/* Gives back the `count` chains that were popped last, as if never taken. Nothing of them may have been pushed. */
void virtq_unpop(struct virtqueue *q, int count);

/* Chains that wait to be taken. */
int virtq_pending(struct virtqueue *q);

/* Returns a chain to the driver: the first `written` bytes of its writable part now hold data. */
void virtq_push(struct virtqueue *q, const struct virtq_chain *c, u32 written);

/* virtq_push in two steps, for a group of chains that the driver must see at once (§5.1.6.4): fill elements 0, 1, …, then
 * publish them all. Nothing may be pushed between. */
void virtq_fill(struct virtqueue *q, const struct virtq_chain *c, u32 written, int index);
void virtq_publish(struct virtqueue *q, int count);

/* Whether the driver wants an interrupt for what was pushed since the last call. */
bool virtq_interrupt_wanted(struct virtqueue *q);

/* Asks the driver for (or spares it) notifications of new chains. Asking returns true when chains are already there, for
 * which no notification will come. */
bool virtq_notifications_on(struct virtqueue *q);
void virtq_notifications_off(struct virtqueue *q);

/* Declares the queue broken; `why` goes to the guest trace. */
void virtq_break(struct virtqueue *q, const char *why);

/* Copies at most `len` bytes from `offset` in the readable part; returns how many there were. */
size_t virtq_chain_read(const struct virtq_chain *c, size_t offset, void *buf, size_t len);

/* Copies at most `len` bytes to `offset` in the writable part; returns how many fitted. */
size_t virtq_chain_write(struct virtqueue *q, const struct virtq_chain *c, size_t offset, const void *buf, size_t len);

/* Fills out[] (VIRTQ_IOV_MAX elements) with [offset, offset+len) of iov[0, count); returns the elements used. The range
 * must be within. */
int virtq_iov_slice(const struct iovec *iov, int count, size_t offset, size_t len, struct iovec *out);

/* To be called after [offset, offset+len) of the writable part was written other than by virtq_chain_write. */
void virtq_chain_written(struct virtqueue *q, const struct virtq_chain *c, size_t offset, size_t len);

#endif
