/* See fake_vcpu.h. */
#include "fake_vcpu.h"

#include <stdlib.h>

void mtrr_firmware_setup(struct vcpu *c);
void lapic_virtual_wire(struct vcpu *c); /* these of cpu/msr.h and cpu/lapic.h, which would bring the real struct vcpu */

struct vcpu {
    struct vcpu_group *group;
    int index;
};

struct vcpu_group {
    struct vcpu_group_config config;
    struct vcpu vcpu[VCPUS_MAX];
    struct fake_vcpu_log log;
    pthread_mutex_t lock;
    pthread_cond_t stop_changed;
    bool stopping;
    void (*fn)(void *ctx, int index);
    void *ctx;
};

struct fake_vcpu_log *fake_vcpu_log(struct vcpu_group *g)
{
    return &g->log;
}

const struct vcpu_bus *fake_vcpu_bus(struct vcpu_group *g)
{
    return &g->config.bus;
}

void fake_vcpu_program(struct vcpu_group *g, void (*fn)(void *ctx, int index), void *ctx)
{
    g->fn = fn;
    g->ctx = ctx;
}

int vcpu_group_create(const struct vcpu_group_config *config, struct vcpu_group **ret, struct err *e)
{
    struct vcpu_group *g = calloc(1, sizeof(*g));

    assert(g && config->count >= 1 && config->count <= VCPUS_MAX);
    g->config = *config;
    for (int i = 0; i < config->count; i++)
        g->vcpu[i] = (struct vcpu){g, i};
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->stop_changed, NULL);
    *ret = g;
    return 0;
}

void vcpu_group_free(struct vcpu_group *g)
{
    if (!g)
        return;
    assert(!g->log.running);
    pthread_cond_destroy(&g->stop_changed);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

struct vcpu *vcpu_get(struct vcpu_group *g, int index)
{
    return &g->vcpu[index];
}

int vcpu_count(const struct vcpu_group *g)
{
    return g->config.count;
}

void vcpu_run(struct vcpu *c)
{
    struct vcpu_group *g = c->group;

    __atomic_add_fetch(&g->log.running, 1, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&g->log.runs, 1, __ATOMIC_SEQ_CST);
    if (g->fn)
        g->fn(g->ctx, c->index);
    pthread_mutex_lock(&g->lock);
    while (!g->stopping)
        pthread_cond_wait(&g->stop_changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
    __atomic_sub_fetch(&g->log.running, 1, __ATOMIC_SEQ_CST);
}

static void stopping_set(struct vcpu_group *g, bool stopping)
{
    pthread_mutex_lock(&g->lock);
    g->stopping = stopping;
    pthread_cond_broadcast(&g->stop_changed);
    pthread_mutex_unlock(&g->lock);
}

void vcpu_group_stop(struct vcpu_group *g)
{
    stopping_set(g, true);
}

void vcpu_group_resume(struct vcpu_group *g)
{
    stopping_set(g, false);
}

void vcpu_group_reset(struct vcpu_group *g)
{
    assert(!g->log.running);
    g->log.resets++;
}

void vcpu_boot(struct vcpu *c, const struct vcpu_boot_regs *regs)
{
    assert(!c->group->log.running && c->index == 0);
    c->group->log.boot = *regs;
    c->group->log.boots++;
}

void mtrr_firmware_setup(struct vcpu *c)
{
}

void lapic_virtual_wire(struct vcpu *c)
{
    c->group->log.virtual_wires++;
}

void vcpu_group_a20(struct vcpu_group *g, bool open)
{
    g->log.a20_closed = !open;
}

void vcpu_group_ignne(struct vcpu_group *g, bool level)
{
}

void vcpu_group_intr(struct vcpu_group *g, bool level)
{
    g->log.intr = level;
}

void apic_bus_send(struct vcpu_group *g, const struct apic_message *msg)
{
    if (g->log.message_count < FAKE_MESSAGES)
        g->log.message[g->log.message_count++] = *msg;
}

int vcpu_model_check(const struct cpu_model_name *name, struct err *e)
{
    return 0;
}
