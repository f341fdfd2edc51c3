/* The local APIC's timer: one-shot and periodic on a bus clock of 1 GHz, and TSC deadline. SDM vol. 3 §11.5.4.
 *
 * The count is not kept: an armed timer is a deadline on the machine's clock, and the current count follows from it.
 * A periodic timer's next deadline counts from its last one, so it does not drift; expiries that were missed are one
 * interrupt. */
#include "cpu/lapic_state.h"
#include "cpu/msr.h"

/* A guest that asks for more periodic interrupts than this gets every n-th: it must not keep the host's loop busy. */
#define FASTEST_NS 20000

static u64 now(const struct lapic *l)
{
    return clock_now(l->vcpu->group->config.clock);
}

static u32 mode(const struct lapic *l)
{
    return l->s.lvt[LVT_TIMER] & LVT_TIMER_MODE;
}

/* Divide configuration: bits 3, 1, 0; 111 divides by 1. */
static u64 divisor(const struct lapic *l)
{
    u32 d = (l->s.timer_divide & 3) | (l->s.timer_divide >> 1 & 4);

    return 1ull << ((d + 1) & 7);
}

static void deadline_set(struct lapic *l, u64 deadline)
{
    l->s.timer_deadline = deadline;
    timer_set(&l->timer, deadline);
}

static void stop(struct lapic *l)
{
    l->s.timer_initial = 0;
    l->vcpu->s.msr_tsc_deadline = 0;
    deadline_set(l, TIMER_NEVER);
}

/* Moves an expired timer on; true if the interrupt is to be raised. */
static bool expire(struct lapic *l)
{
    u64 period = l->s.timer_initial * divisor(l), next = TIMER_NEVER, t = now(l);

    if (l->s.timer_deadline > t) /* re-armed while the queue was calling */
        return false;
    if (mode(l) == LVT_TIMER_PERIODIC && period) {
        u64 from = l->s.timer_deadline, earliest = period < FASTEST_NS ? t + FASTEST_NS : t;

        next = from + ((earliest - from) / period + 1) * period;
    }
    l->vcpu->s.msr_tsc_deadline = 0;
    deadline_set(l, next);
    return !(l->s.lvt[LVT_TIMER] & LVT_MASKED);
}

/* Takes the lock, so that it also serves the loop thread. */
static void expire_if_due(struct lapic *l)
{
    bool fire;
    u8 vector;

    pthread_mutex_lock(&l->timer_lock);
    fire = expire(l);
    vector = l->s.lvt[LVT_TIMER] & LVT_VECTOR;
    pthread_mutex_unlock(&l->timer_lock);
    if (fire)
        lapic_vector_accept(l->vcpu, vector, false);
}

static void timer_due(void *lapic)
{
    expire_if_due(lapic);
}

/* In one-shot and periodic mode, what is left of the count. */
static u32 current(const struct lapic *l)
{
    u64 left, t = now(l);

    if (l->s.timer_deadline == TIMER_NEVER || l->s.timer_deadline <= t || mode(l) == LVT_TIMER_TSC_DEADLINE)
        return 0;
    left = (l->s.timer_deadline - t + divisor(l) - 1) / divisor(l);
    return l->s.timer_initial && left > l->s.timer_initial ? (u32)(left % l->s.timer_initial) : (u32)left;
}

u32 lapic_timer_current(struct vcpu *c)
{
    u32 count;

    ext_save(c);
    pthread_mutex_lock(&c->lapic->timer_lock);
    count = current(c->lapic);
    pthread_mutex_unlock(&c->lapic->timer_lock);
    return count;
}

/* A change between TSC deadline and the counting modes disarms. What ran out before is settled first, by the old LVT: the loop
 * thread may be late. */
void lapic_timer_lvt_write(struct vcpu *c, u32 val)
{
    struct lapic *l = c->lapic;

    ext_save(c);
    expire_if_due(l);
    pthread_mutex_lock(&l->timer_lock);
    if ((val ^ l->s.lvt[LVT_TIMER]) & LVT_TIMER_TSC_DEADLINE)
        stop(l);
    reg_store(&l->s.lvt[LVT_TIMER], val);
    pthread_mutex_unlock(&l->timer_lock);
}

void lapic_timer_initial_write(struct vcpu *c, u32 val)
{
    struct lapic *l = c->lapic;

    ext_save(c);
    expire_if_due(l);
    pthread_mutex_lock(&l->timer_lock);
    if (mode(l) != LVT_TIMER_TSC_DEADLINE) {
        l->s.timer_initial = val;
        deadline_set(l, val ? now(l) + val * divisor(l) : TIMER_NEVER);
    }
    pthread_mutex_unlock(&l->timer_lock);
}

/* A running timer goes on from its present count at the new speed. */
void lapic_timer_divide_write(struct vcpu *c, u32 val)
{
    struct lapic *l = c->lapic;
    u32 left;

    ext_save(c);
    pthread_mutex_lock(&l->timer_lock);
    left = current(l);
    l->s.timer_divide = val;
    if (left)
        deadline_set(l, now(l) + left * divisor(l));
    pthread_mutex_unlock(&l->timer_lock);
}

/* The clock's moment of a TSC value, TIMER_NEVER if too far away; the past is now. */
static u64 tsc_moment(const struct lapic *l, u64 tsc)
{
    u64 t = now(l), tsc_now = tsc_read(l->vcpu), ns;

    if (tsc <= tsc_now)
        return t;
    ns = tsc_nanoseconds(l->vcpu->group, tsc - tsc_now);
    return ns < TIMER_NEVER - t ? t + ns : TIMER_NEVER;
}

u64 lapic_timer_tsc_deadline_read(struct vcpu *c)
{
    u64 val;

    pthread_mutex_lock(&c->lapic->timer_lock);
    val = c->s.msr_tsc_deadline;
    pthread_mutex_unlock(&c->lapic->timer_lock);
    return val;
}

/* Ignored outside TSC deadline mode. A deadline in the past expires here and now. */
void lapic_timer_tsc_deadline_write(struct vcpu *c, u64 val)
{
    struct lapic *l = c->lapic;

    ext_save(c);
    pthread_mutex_lock(&l->timer_lock);
    if (mode(l) == LVT_TIMER_TSC_DEADLINE) {
        c->s.msr_tsc_deadline = val;
        deadline_set(l, val ? tsc_moment(l, val) : TIMER_NEVER);
    }
    pthread_mutex_unlock(&l->timer_lock);
    expire_if_due(l);
}

void lapic_tsc_changed(struct vcpu *c)
{
    lapic_timer_tsc_deadline_write(c, lapic_timer_tsc_deadline_read(c));
}

void lapic_timer_init(struct lapic *l)
{
    pthread_mutex_init(&l->timer_lock, NULL);
    l->s.timer_deadline = TIMER_NEVER;
    timer_init(&l->timer, l->vcpu->group->config.timers, timer_due, l);
}

void lapic_timer_reset(struct lapic *l)
{
    pthread_mutex_lock(&l->timer_lock);
    stop(l);
    l->s.timer_divide = 0;
    reg_store(&l->s.lvt[LVT_TIMER], LVT_MASKED);
    pthread_mutex_unlock(&l->timer_lock);
}

void lapic_timer_loaded(struct lapic *l)
{
    pthread_mutex_lock(&l->timer_lock);
    timer_set(&l->timer, l->s.timer_deadline);
    pthread_mutex_unlock(&l->timer_lock);
}
