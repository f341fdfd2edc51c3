/* The machine's clock, and timers that are deadlines on it.
 *
 * All guest time is nanoseconds since the machine started, read with clock_now(). The clock stands still while the
 * machine is paused. A timer queue may be used from any thread; callbacks run in timer_queue_run(), which the
 * machine's loop thread calls with the machine lock held. */
#ifndef BASE_TIMER_H
#define BASE_TIMER_H
#include "base/types.h"
#include <pthread.h>

#define TIMER_NEVER UINT64_MAX

struct clock {
    u64 offset;     /* host monotonic ns that count as guest time 0, while running */
    u32 slower;     /* a second takes so many of the host's */
    u64 stopped_at; /* guest time while paused */
    bool running;
};

void clock_init(struct clock *c);   /* paused at 0, as fast as the host's */
void clock_start(struct clock *c);
void clock_stop(struct clock *c);
void clock_set(struct clock *c, u64 now);
u64 clock_now(const struct clock *c); /* safe from any thread; monotonic while running */
u64 clock_host(const struct clock *c, u64 at); /* host monotonic ns when the running clock shows `at`; TIMER_NEVER: in centuries */

struct timer_queue;

struct timer {
    u64 deadline; /* clock ns; TIMER_NEVER while not armed */
    void (*fn)(void *ctx);
    void *ctx;
    struct timer_queue *queue;
    size_t slot; /* in the queue's heap, valid while armed */
};

struct timer_queue {
    pthread_mutex_t lock; /* guards heap, and deadline and slot of every timer in it */
    struct timer **heap;
    size_t count, room;
    const struct clock *clock;
    u64 told; /* the deadline that `earlier` heard last */
    /* Called, in any thread, lock held, when the first deadline moved before the one told last, and at the end of
     * each run with the next one. A first deadline that moves back is not told: the run that comes too early does
     * nothing. */
    void (*earlier)(void *ctx, u64 deadline);
    void *ctx;
};

void timer_queue_init(struct timer_queue *q, const struct clock *clock, void (*earlier)(void *ctx, u64 deadline),
                      void *ctx);
void timer_queue_clear(struct timer_queue *q); /* disarms every timer */
void timer_queue_free(struct timer_queue *q);

void timer_init(struct timer *t, struct timer_queue *q, void (*fn)(void *ctx), void *ctx);
void timer_set(struct timer *t, u64 deadline); /* arms or re-arms; a deadline in the past fires at the next run */
void timer_cancel(struct timer *t);            /* no effect when not armed */

/* The first deadline, or TIMER_NEVER. */
u64 timer_queue_next(struct timer_queue *q);

/* Tells the first deadline again, after the clock was started or set. */
void timer_queue_tell(struct timer_queue *q);

/* Disarms and calls every timer that is due. Callbacks run without the queue's lock and may arm timers. */
void timer_queue_run(struct timer_queue *q);

#endif
