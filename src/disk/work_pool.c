/* Worker threads: see work_pool.h. */
#include "disk/work_pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { WORK_THREADS_MAX = 16 };

struct work_pool {
    pthread_mutex_t mutex;
    pthread_cond_t added;
    struct work *first, **last; /* the queue; `last` is where the next one is linked in */
    bool stop;
    int count;
    pthread_t threads[WORK_THREADS_MAX];
};

/* NULL when the pool ends and nothing is left to do. */
static struct work *next_work(struct work_pool *p)
{
    struct work *w;

    pthread_mutex_lock(&p->mutex);
    while (!p->first && !p->stop)
        pthread_cond_wait(&p->added, &p->mutex);
    w = p->first;
    if (w && !(p->first = w->next))
        p->last = &p->first;
    pthread_mutex_unlock(&p->mutex);
    return w;
}

static void *worker(void *ctx)
{
    struct work *w;

    while ((w = next_work(ctx)))
        w->fn(w);
    return NULL;
}

/* Signals (timers, the vCPU's kick, SIGINT) belong to other threads. */
static int start_thread(struct work_pool *p)
{
    sigset_t all, before;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&p->threads[p->count], NULL, worker, p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!r)
        p->count++;
    return -r;
}

int work_pool_create(int threads, struct work_pool **ret, struct err *e)
{
    struct work_pool *p = calloc(1, sizeof(*p));

    assert(threads > 0 && threads <= WORK_THREADS_MAX);
    if (!p)
        return err_set(e, -ENOMEM, "no memory for disk threads");
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->added, NULL);
    p->last = &p->first;
    while (p->count < threads) {
        int r = start_thread(p);

        if (r < 0) {
            work_pool_free(p);
            return err_set(e, r, "cannot start a disk thread: %s", strerror(-r));
        }
    }
    *ret = p;
    return 0;
}

void work_pool_add(struct work_pool *p, struct work *w)
{
    pthread_mutex_lock(&p->mutex);
    w->next = NULL;
    *p->last = w;
    p->last = &w->next;
    pthread_cond_signal(&p->added);
    pthread_mutex_unlock(&p->mutex);
}

void work_pool_free(struct work_pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->mutex);
    p->stop = true;
    pthread_cond_broadcast(&p->added);
    pthread_mutex_unlock(&p->mutex);
    for (int i = 0; i < p->count; i++)
        pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->added);
    pthread_mutex_destroy(&p->mutex);
    free(p);
}
