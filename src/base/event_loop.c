/* The device loop on libuv: see event_loop.h.
 *
 * libuv's handles belong to the thread that runs the loop; only uv_async_send may come from elsewhere. What other
 * threads want is therefore noted under `mutex` and carried out in the loop thread, which the one async handle
 * wakes. */
#include "base/event_loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

struct event_loop {
    uv_loop_t uv;
    uv_async_t wake;
    pthread_mutex_t *lock; /* the caller's, around callbacks */
    bool stop;             /* atomic */
    bool running;          /* atomic; `runner` is valid */
    pthread_t runner;
    pthread_mutex_t mutex; /* guards what follows; innermost */
    struct loop_task *first, **last;
    size_t task_count;
    struct watch *changed; /* linked by `change`: their `events` are not in force yet */
};

struct watch {
    uv_poll_t poll;
    struct event_loop *loop;
    int events; /* what the owner wants, WATCH_*; caller's lock */
    void (*fn)(void *ctx, int events);
    void *ctx;
    bool change_pending; /* on loop->changed */
    struct watch *change;
};

static bool in_loop_thread(struct event_loop *l)
{
    return !__atomic_load_n(&l->running, __ATOMIC_ACQUIRE) || pthread_equal(l->runner, pthread_self());
}

static struct loop_task *task_take(struct event_loop *l)
{
    struct loop_task *t;

    pthread_mutex_lock(&l->mutex);
    t = l->first;
    if (t) {
        l->first = t->next;
        if (!l->first)
            l->last = &l->first;
        l->task_count--;
        t->pending = false;
    }
    pthread_mutex_unlock(&l->mutex);
    return t;
}

static size_t task_count(struct event_loop *l)
{
    size_t n;

    pthread_mutex_lock(&l->mutex);
    n = l->task_count;
    pthread_mutex_unlock(&l->mutex);
    return n;
}

/* Runs as many tasks as there are now, so that tasks which post themselves cannot keep descriptors from being served.
 * Taken one by one, because a task may cancel those behind it. */
static void tasks_run(struct event_loop *l)
{
    struct loop_task *t;

    for (size_t n = task_count(l); n && (t = task_take(l)); n--) {
        pthread_mutex_lock(l->lock);
        t->fn(t->ctx);
        pthread_mutex_unlock(l->lock);
    }
}

static void polled(uv_poll_t *poll, int status, int uv_events);

static void watch_apply(struct watch *w)
{
    int uv_events = (w->events & WATCH_READ ? UV_READABLE : 0) | (w->events & WATCH_WRITE ? UV_WRITABLE : 0);

    if (uv_events)
        uv_poll_start(&w->poll, uv_events, polled);
    else
        uv_poll_stop(&w->poll);
}

static void changes_apply(struct event_loop *l)
{
    struct watch *w;

    pthread_mutex_lock(l->lock);
    pthread_mutex_lock(&l->mutex);
    while ((w = l->changed)) {
        l->changed = w->change;
        w->change_pending = false;
        watch_apply(w);
    }
    pthread_mutex_unlock(&l->mutex);
    pthread_mutex_unlock(l->lock);
}

static void woken(uv_async_t *async)
{
    struct event_loop *l = async->data;

    changes_apply(l);
    tasks_run(l);
}

/* libuv reports an error condition of the fd as a failed poll and stops it: the owner learns of it from its next read
 * or write. */
static void polled(uv_poll_t *poll, int status, int uv_events)
{
    struct watch *w = poll->data;
    pthread_mutex_t *lock = w->loop->lock; /* the callback may remove the watch */
    int events = (uv_events & UV_READABLE ? WATCH_READ : 0) | (uv_events & UV_WRITABLE ? WATCH_WRITE : 0);

    if (status < 0)
        events = WATCH_READ | WATCH_WRITE;
    pthread_mutex_lock(lock);
    events &= w->events;
    if (events)
        w->fn(w->ctx, events);
    pthread_mutex_unlock(lock);
}

int event_loop_create(pthread_mutex_t *lock, struct event_loop **ret, struct err *e)
{
    struct event_loop *l = calloc(1, sizeof(*l));
    int r;

    if (!l)
        return err_set(e, -ENOMEM, "event loop: out of memory");
    r = uv_loop_init(&l->uv);
    if (r) {
        free(l);
        return err_set(e, r, "event loop: %s", uv_strerror(r));
    }
    r = uv_async_init(&l->uv, &l->wake, woken);
    if (r) {
        uv_loop_close(&l->uv);
        free(l);
        return err_set(e, r, "event loop: %s", uv_strerror(r));
    }
    l->wake.data = l;
    l->lock = lock;
    l->last = &l->first;
    pthread_mutex_init(&l->mutex, NULL);
    *ret = l;
    return 0;
}

static void watch_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void handle_close(uv_handle_t *handle, void *loop)
{
    struct event_loop *l = loop;

    if (!uv_is_closing(handle))
        uv_close(handle, handle == (uv_handle_t *)&l->wake ? NULL : watch_closed);
}

void event_loop_free(struct event_loop *l)
{
    int r;

    if (!l)
        return;
    uv_walk(&l->uv, handle_close, l);
    uv_run(&l->uv, UV_RUN_DEFAULT); /* only the close callbacks are left */
    r = uv_loop_close(&l->uv);
    assert(!r);
    pthread_mutex_destroy(&l->mutex);
    free(l);
}

void event_loop_run(struct event_loop *l)
{
    l->runner = pthread_self();
    __atomic_store_n(&l->running, true, __ATOMIC_RELEASE);
    while (!__atomic_exchange_n(&l->stop, false, __ATOMIC_ACQ_REL))
        uv_run(&l->uv, UV_RUN_ONCE);
    __atomic_store_n(&l->running, false, __ATOMIC_RELEASE);
}

void event_loop_stop(struct event_loop *l)
{
    __atomic_store_n(&l->stop, true, __ATOMIC_RELEASE);
    uv_async_send(&l->wake);
}

int event_loop_watch(struct event_loop *l, int fd, int events, void (*fn)(void *ctx, int events), void *ctx,
                     struct watch **ret, struct err *e)
{
    struct watch *w = calloc(1, sizeof(*w));
    int r;

    assert(in_loop_thread(l));
    if (!w)
        return err_set(e, -ENOMEM, "event loop: out of memory");
    r = uv_poll_init(&l->uv, &w->poll, fd);
    if (r) {
        free(w);
        return err_set(e, r, "event loop: cannot watch descriptor %d: %s", fd, uv_strerror(r));
    }
    w->poll.data = w;
    w->loop = l;
    w->events = events;
    w->fn = fn;
    w->ctx = ctx;
    watch_apply(w);
    *ret = w;
    return 0;
}

void watch_set_events(struct watch *w, int events)
{
    struct event_loop *l = w->loop;

    w->events = events;
    if (in_loop_thread(l)) {
        watch_apply(w);
        return;
    }
    pthread_mutex_lock(&l->mutex);
    if (!w->change_pending) {
        w->change_pending = true;
        w->change = l->changed;
        l->changed = w;
    }
    pthread_mutex_unlock(&l->mutex);
    uv_async_send(&l->wake);
}

static void change_forget(struct watch *w)
{
    struct event_loop *l = w->loop;

    pthread_mutex_lock(&l->mutex);
    for (struct watch **p = &l->changed; *p; p = &(*p)->change)
        if (*p == w) {
            *p = w->change;
            break;
        }
    pthread_mutex_unlock(&l->mutex);
}

void watch_remove(struct watch *w)
{
    if (!w)
        return;
    assert(in_loop_thread(w->loop));
    change_forget(w);
    w->events = 0;
    uv_close((uv_handle_t *)&w->poll, watch_closed);
}

void event_loop_post(struct event_loop *l, struct loop_task *t)
{
    pthread_mutex_lock(&l->mutex);
    if (!t->pending) {
        t->pending = true;
        t->next = NULL;
        *l->last = t;
        l->last = &t->next;
        l->task_count++;
    }
    pthread_mutex_unlock(&l->mutex);
    uv_async_send(&l->wake);
}

void event_loop_cancel(struct event_loop *l, struct loop_task *t)
{
    pthread_mutex_lock(&l->mutex);
    for (struct loop_task **p = &l->first; t->pending && *p; p = &(*p)->next) {
        if (*p != t)
            continue;
        *p = t->next;
        if (l->last == &t->next)
            l->last = p;
        l->task_count--;
        t->pending = false;
        break;
    }
    pthread_mutex_unlock(&l->mutex);
}
