/* Shared and exclusive use of an image: see gate.h. */
#include "disk/gate.h"

void gate_init(struct gate *g)
{
    pthread_mutex_init(&g->mutex, NULL);
    pthread_cond_init(&g->changed, NULL);
    g->shared = g->waiting = 0;
    g->exclusive = false;
}

void gate_destroy(struct gate *g)
{
    assert(!g->shared && !g->exclusive && !g->waiting);
    pthread_cond_destroy(&g->changed);
    pthread_mutex_destroy(&g->mutex);
}

void gate_shared(struct gate *g)
{
    pthread_mutex_lock(&g->mutex);
    while (g->exclusive || g->waiting)
        pthread_cond_wait(&g->changed, &g->mutex);
    g->shared++;
    pthread_mutex_unlock(&g->mutex);
}

bool gate_try_shared(struct gate *g)
{
    bool got;

    pthread_mutex_lock(&g->mutex);
    got = !g->exclusive && !g->waiting;
    g->shared += got;
    pthread_mutex_unlock(&g->mutex);
    return got;
}

void gate_exclusive(struct gate *g)
{
    pthread_mutex_lock(&g->mutex);
    g->waiting++;
    while (g->exclusive || g->shared)
        pthread_cond_wait(&g->changed, &g->mutex);
    g->waiting--;
    g->exclusive = true;
    pthread_mutex_unlock(&g->mutex);
}

void gate_release(struct gate *g)
{
    pthread_mutex_lock(&g->mutex);
    assert(g->exclusive || g->shared);
    if (g->exclusive)
        g->exclusive = false;
    else
        g->shared--;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->mutex);
}
