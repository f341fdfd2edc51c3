/* Which engine a machine gets: see engine.h. */
#include "cpu/engine.h"

#include <errno.h>
#include <stdio.h>

#include "cpu/cpuid.h"
#include "cpu/kvm_probe.h"

static int reason_set(struct vcpu_group *g, const struct engine *engine, const char *reason)
{
    g->engine = engine;
    snprintf(g->engine_reason, sizeof(g->engine_reason), "%s", reason);
    return 0;
}

/* Whether KVM can show the CPU model that was asked for. */
static bool kvm_shows_model(const struct vcpu_group *g)
{
    struct cpu_model_limit limit;
    struct cpu_model *m = NULL;
    struct err e;
    int r = kvm_engine.model_limit(&limit, &e);

    if (!r)
        r = cpu_model_create(&g->config.model, &limit, &m, &e);
    cpu_model_free(m);
    return r != -ENOTSUP;
}

/* KVM if it is as fast as hardware makes it, else the translator. */
static int choose_best(struct vcpu_group *g)
{
    char speed[64];
    struct err e;
    u32 mips;

    if (kvm_probe(&mips, &e))
        return reason_set(g, &jit_engine, e.text);
    snprintf(speed, sizeof(speed), "/dev/kvm runs %u MIPS", mips);
    if (mips < KVM_WORTH_MIPS)
        return reason_set(g, &jit_engine, speed);
    if (!kvm_shows_model(g))
        return reason_set(g, &jit_engine, "/dev/kvm cannot show this CPU model");
    return reason_set(g, &kvm_engine, speed);
}

int engine_choose(struct vcpu_group *g, struct err *e)
{
    switch (g->config.engine) {
    case CPU_ENGINE_AUTO:
        return choose_best(g);
    case CPU_ENGINE_INTERP:
        g->engine = &interp_engine;
        return 0;
    case CPU_ENGINE_KVM:
        g->engine = &kvm_engine;
        return 0;
    case CPU_ENGINE_JIT:
        g->engine = &jit_engine;
        return 0;
    default:
        g->engine = &lockstep_engine;
        return 0;
    }
}
