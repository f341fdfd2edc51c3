/* Console output to a descriptor that may be slow: writes what the host takes, queues the rest, never waits. */
#ifndef UI_OUTPUT_H
#define UI_OUTPUT_H
#include "base/event_loop.h"
#include "base/types.h"

struct output {
    int fd;              /* its own, in non-blocking mode where the kind of file has one */
    int restore_flags;   /* of the caller's open file, which fd shares; -1: fd has its own */
    struct watch *watch; /* NULL: a file that is always ready */
    u8 *queue;           /* a ring, allocated when first needed */
    size_t head, used;
    u64 lost;  /* bytes dropped since the queue was last full */
    bool gone; /* nobody will ever read: everything is dropped */
};

/* A descriptor in non-blocking mode for what `fd` is open on, without changing that mode for others who share `fd` where the
 * host allows it; otherwise *restore_flags is what to put back. -Exxx on failure. */
int descriptor_own(int fd, int access, int *restore_flags);
void descriptor_close(int fd, int restore_flags);

/* Takes over `fd` and restore_flags. `loop` NULL: the queue is flushed only by further writes and at close. */
void output_open(struct output *o, int fd, int restore_flags, struct event_loop *loop);
void output_write(struct output *o, const u8 *data, size_t len);
void output_close(struct output *o); /* waits for a slow reader, but not for long */

#endif
