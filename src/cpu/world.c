/* Stopping the world: see world.h. */
#include "cpu/world.h"

#include "cpu/xstate.h"

void world_init(struct vcpu_group *g)
{
    pthread_mutex_init(&g->world_lock, NULL);
    pthread_cond_init(&g->world_cond, NULL);
}

void world_destroy(struct vcpu_group *g)
{
    pthread_cond_destroy(&g->world_cond);
    pthread_mutex_destroy(&g->world_lock);
}

/* Lock held. */
static void running_add(struct vcpu_group *g, int n)
{
    g->running += n;
    pthread_cond_broadcast(&g->world_cond);
}

void world_enter(struct vcpu *c)
{
    struct vcpu_group *g = c->group;

    pthread_mutex_lock(&g->world_lock);
    while (g->exclusive_wanted)
        pthread_cond_wait(&g->world_cond, &g->world_lock);
    c->in_guest = true;
    running_add(g, 1);
    pthread_mutex_unlock(&g->world_lock);
}

void world_leave(struct vcpu *c)
{
    pthread_mutex_lock(&c->group->world_lock);
    c->in_guest = false;
    running_add(c->group, -1);
    pthread_mutex_unlock(&c->group->world_lock);
}

void world_stop(struct vcpu_group *g, struct vcpu *self)
{
    if (self)
        ext_save(self);
    pthread_mutex_lock(&g->world_lock);
    g->exclusive_wanted++;
    if (self && self->in_guest)
        running_add(g, -1);
    for (int i = 0; i < g->count; i++)
        if (g->vcpu[i] != self && g->vcpu[i]->in_guest)
            vcpu_attend(g->vcpu[i], ATTN_EXCLUSIVE);
    while (g->running || g->exclusive_held)
        pthread_cond_wait(&g->world_cond, &g->world_lock);
    g->exclusive_held = true;
    pthread_mutex_unlock(&g->world_lock);
}

void world_go(struct vcpu_group *g, struct vcpu *self)
{
    pthread_mutex_lock(&g->world_lock);
    g->exclusive_held = false;
    g->exclusive_wanted--;
    pthread_cond_broadcast(&g->world_cond);
    if (self && self->in_guest) /* others may still want the world: let them have it first */
        while (g->exclusive_wanted)
            pthread_cond_wait(&g->world_cond, &g->world_lock);
    running_add(g, self && self->in_guest);
    pthread_mutex_unlock(&g->world_lock);
}

void vcpu_group_exclusive(struct vcpu_group *g, struct vcpu *self, void (*fn)(void *ctx), void *ctx)
{
    world_stop(g, self);
    fn(ctx);
    world_go(g, self);
}
