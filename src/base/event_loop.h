/* The device loop of one VM process: file descriptors, tasks posted from other threads. Built on libuv.
 *
 * Every callback runs in the thread that called event_loop_run(), with the lock given at creation held. */
#ifndef BASE_EVENT_LOOP_H
#define BASE_EVENT_LOOP_H
#include "base/err.h"
#include "base/types.h"
#include <pthread.h>

struct event_loop;
struct watch;

enum { WATCH_READ = 1, WATCH_WRITE = 2 };

/* `lock` is taken around every callback and never while the loop sleeps. It stays the caller's. */
int event_loop_create(pthread_mutex_t *lock, struct event_loop **ret, struct err *e);
void event_loop_free(struct event_loop *l); /* removes what is still watched */

void event_loop_run(struct event_loop *l);  /* returns after event_loop_stop, also one that came before; lock not held */
void event_loop_stop(struct event_loop *l); /* any thread */

/* Calls fn(ctx, events) whenever `fd` is ready for one of `events` (WATCH_*; a hang-up counts as both). The fd stays
 * the caller's and must outlive the watch. Loop thread only (or before the loop runs). */
int event_loop_watch(struct event_loop *l, int fd, int events, void (*fn)(void *ctx, int events), void *ctx,
                     struct watch **ret, struct err *e);
void watch_set_events(struct watch *w, int events); /* 0 pauses it; any thread, lock held */
void watch_remove(struct watch *w);                 /* loop thread only; NULL is fine */

/* A task runs once in the loop thread for each time that it was posted while not already pending. Intrusive, no
 * allocation: it may be posted from any thread, and must not be freed while pending. */
struct loop_task {
    void (*fn)(void *ctx);
    void *ctx;
    bool pending;
    struct loop_task *next;
};
void event_loop_post(struct event_loop *l, struct loop_task *t);

/* Takes back a post, if there is one; afterwards the task may be freed. While the loop does not run, or in its
 * thread. */
void event_loop_cancel(struct event_loop *l, struct loop_task *t);

#endif
