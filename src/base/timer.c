/* The machine's clock and its timers: see timer.h.
 *
 * The queue is a binary heap by deadline: a PC has a few dozen timers, and the local APICs' move at every tick. Each
 * timer knows its slot, so that re-arming and cancelling need no search. */
#include "base/timer.h"

#include <stdlib.h>
#include <time.h>

static u64 host_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (u64)ts.tv_sec * 1000000000u + (u64)ts.tv_nsec;
}

void clock_init(struct clock *c)
{
    *c = (struct clock){.slower = 1};
}

void clock_start(struct clock *c)
{
    if (c->running)
        return;
    c->offset = host_now() - c->stopped_at * c->slower;
    __atomic_store_n(&c->running, true, __ATOMIC_RELEASE);
}

void clock_stop(struct clock *c)
{
    c->stopped_at = clock_now(c);
    __atomic_store_n(&c->running, false, __ATOMIC_RELEASE);
}

void clock_set(struct clock *c, u64 now)
{
    c->stopped_at = now;
    c->offset = host_now() - now * c->slower;
}

u64 clock_now(const struct clock *c)
{
    if (!__atomic_load_n(&c->running, __ATOMIC_ACQUIRE))
        return c->stopped_at;
    return likely(c->slower == 1) ? host_now() - c->offset : (host_now() - c->offset) / c->slower;
}

u64 clock_host(const struct clock *c, u64 at)
{
    return at < INT64_MAX / c->slower ? c->offset + at * c->slower : TIMER_NEVER;
}

static void heap_put(struct timer_queue *q, struct timer *t, size_t slot)
{
    q->heap[slot] = t;
    t->slot = slot;
}

static void heap_up(struct timer_queue *q, struct timer *t, size_t slot)
{
    for (; slot && q->heap[(slot - 1) / 2]->deadline > t->deadline; slot = (slot - 1) / 2)
        heap_put(q, q->heap[(slot - 1) / 2], slot);
    heap_put(q, t, slot);
}

static void heap_down(struct timer_queue *q, struct timer *t, size_t slot)
{
    for (size_t child; (child = 2 * slot + 1) < q->count; slot = child) {
        if (child + 1 < q->count && q->heap[child + 1]->deadline < q->heap[child]->deadline)
            child++;
        if (q->heap[child]->deadline >= t->deadline)
            break;
        heap_put(q, q->heap[child], slot);
    }
    heap_put(q, t, slot);
}

static void heap_insert(struct timer_queue *q, struct timer *t)
{
    if (q->count == q->room) {
        q->room = q->room ? 2 * q->room : 16;
        q->heap = reallocarray(q->heap, q->room, sizeof(*q->heap));
        assert(q->heap);
    }
    heap_up(q, t, q->count++);
}

static void heap_remove(struct timer_queue *q, struct timer *t)
{
    struct timer *last = q->heap[--q->count];

    t->deadline = TIMER_NEVER;
    if (last == t)
        return;
    heap_down(q, last, t->slot);
    heap_up(q, last, last->slot);
}

static u64 first_deadline(const struct timer_queue *q)
{
    return q->count ? q->heap[0]->deadline : TIMER_NEVER;
}

static void tell(struct timer_queue *q)
{
    q->told = first_deadline(q);
    if (q->earlier)
        q->earlier(q->ctx, q->told);
}

void timer_queue_init(struct timer_queue *q, const struct clock *clock, void (*earlier)(void *ctx, u64 deadline),
                      void *ctx)
{
    *q = (struct timer_queue){.clock = clock, .told = TIMER_NEVER, .earlier = earlier, .ctx = ctx};
    pthread_mutex_init(&q->lock, NULL);
}

void timer_queue_clear(struct timer_queue *q)
{
    pthread_mutex_lock(&q->lock);
    for (size_t i = 0; i < q->count; i++)
        q->heap[i]->deadline = TIMER_NEVER;
    q->count = 0;
    pthread_mutex_unlock(&q->lock);
}

void timer_queue_free(struct timer_queue *q)
{
    free(q->heap);
    pthread_mutex_destroy(&q->lock);
}

void timer_init(struct timer *t, struct timer_queue *q, void (*fn)(void *ctx), void *ctx)
{
    *t = (struct timer){.deadline = TIMER_NEVER, .fn = fn, .ctx = ctx, .queue = q};
}

void timer_set(struct timer *t, u64 deadline)
{
    struct timer_queue *q = t->queue;

    pthread_mutex_lock(&q->lock);
    if (t->deadline != TIMER_NEVER)
        heap_remove(q, t);
    t->deadline = deadline;
    if (deadline != TIMER_NEVER)
        heap_insert(q, t);
    if (first_deadline(q) < q->told)
        tell(q);
    pthread_mutex_unlock(&q->lock);
}

void timer_cancel(struct timer *t)
{
    timer_set(t, TIMER_NEVER);
}

u64 timer_queue_next(struct timer_queue *q)
{
    u64 deadline;

    pthread_mutex_lock(&q->lock);
    deadline = first_deadline(q);
    pthread_mutex_unlock(&q->lock);
    return deadline;
}

void timer_queue_tell(struct timer_queue *q)
{
    pthread_mutex_lock(&q->lock);
    tell(q);
    pthread_mutex_unlock(&q->lock);
}

void timer_queue_run(struct timer_queue *q)
{
    u64 now = clock_now(q->clock);

    pthread_mutex_lock(&q->lock);
    /* no more calls than timers, so that one that re-arms itself in the past cannot hold the loop here */
    for (size_t calls = q->count; calls && first_deadline(q) <= now; calls--) {
        struct timer *t = q->heap[0];
        void (*fn)(void *ctx) = t->fn;
        void *ctx = t->ctx;

        heap_remove(q, t);
        pthread_mutex_unlock(&q->lock);
        fn(ctx);
        pthread_mutex_lock(&q->lock);
    }
    tell(q);
    pthread_mutex_unlock(&q->lock);
}
