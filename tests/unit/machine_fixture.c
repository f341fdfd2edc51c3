/* See machine_fixture.h. */
#include "machine_fixture.h"

#include <stdio.h>
#include <stdlib.h>

static pthread_mutex_t *lock_create(void)
{
    pthread_mutex_t *lock = malloc(sizeof(*lock));
    pthread_mutexattr_t attr;

    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(lock, &attr);
    pthread_mutexattr_destroy(&attr);
    return lock;
}

static void must(int r, const struct err *e)
{
    if (!r)
        return;
    fprintf(stderr, "fixture: %s\n", e->text);
    abort();
}

void fixture_config(struct machine_config *config, int cpus)
{
    struct err e;

    *config = (struct machine_config){.ram_size = FIXTURE_RAM, .cpu_count = cpus, .lock = lock_create()};
    must(event_loop_create(config->lock, &config->loop, &e), &e);
}

struct machine *fixture_machine(int cpus)
{
    struct machine_config config;
    struct machine *m = NULL;
    struct err e;

    fixture_config(&config, cpus);
    must(machine_create(&config, FIXTURE_RAM, &m, &e), &e);
    must(guest_memory_map(m->mem, 0, FIXTURE_RAM, 0, false), &e);
    return m;
}

void fixture_free(struct machine *m)
{
    pthread_mutex_t *lock = m->lock;
    struct event_loop *loop = m->loop;

    machine_free(m);
    fixture_host_free(loop, lock);
}

void fixture_host_free(struct event_loop *loop, pthread_mutex_t *lock)
{
    event_loop_free(loop);
    pthread_mutex_destroy(lock);
    free(lock);
}

void fixture_time(struct machine *m, u64 now)
{
    for (u64 next; (next = timer_queue_next(&m->timers)) <= now;) {
        clock_set(&m->clock, MAX(next, machine_now(m)));
        timer_queue_run(&m->timers);
    }
    clock_set(&m->clock, now);
}

static void probe_set(void *ctx, int pin, bool level)
{
    struct irq_probe *p = ctx;

    p->rises += level && !p->level;
    p->changes += level != p->level;
    p->level = level;
}

struct irq irq_probe(struct irq_probe *p)
{
    return (struct irq){.set = probe_set, .ctx = p};
}
