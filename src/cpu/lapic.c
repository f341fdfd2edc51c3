/* The local APIC's heart: accepting, prioritizing and dispensing interrupts, EOI, errors, and its life with the vCPU.
 * SDM vol. 3 §11.8 (priorities, IRR, ISR, TMR, EOI), §11.5.3 (errors), §11.4.7 (state after reset and INIT).
 *
 * Left out: SMI (there is no SMM), thermal, performance and CMCI interrupts (nothing raises them), focus processor
 * checking, arbitration priority, level-triggered LINT pins (taken as edges). */
#include "cpu/lapic_state.h"

#include <errno.h>
#include <stdlib.h>

static int highest_vector(const u32 *bits)
{
    for (int i = 7; i >= 0; i--) {
        u32 word = __atomic_load_n(&bits[i], __ATOMIC_SEQ_CST);

        if (word)
            return i * 32 + 31 - __builtin_clz(word);
    }
    return -1;
}

/* Processor priority: what an interrupt's class must exceed. */
u8 lapic_priority(struct vcpu *c)
{
    int serving = highest_vector(c->lapic->s.isr);
    u32 tpr = reg_load(&c->lapic->s.tpr);
    u32 class = serving < 0 ? 0 : (u32)serving & 0xf0;

    return (u8)((tpr & 0xf0) >= class ? tpr : class);
}

static bool software_enabled(const struct vcpu *c)
{
    return reg_load(&c->lapic->s.svr) & SVR_ENABLE;
}

bool lapic_takes_interrupts(struct vcpu *c)
{
    return apic_enabled(c) && software_enabled(c);
}

static void lvt_deliver(struct vcpu *c, u32 lvt)
{
    const struct apic_message msg = {.vector = lvt & LVT_VECTOR, .delivery = lvt >> LVT_DELIVERY_SHIFT & 7};

    if (!(lvt & LVT_MASKED))
        lapic_accept(c, &msg);
}

void lapic_error(struct vcpu *c, u32 esr_bit)
{
    struct lapic_state *s = &c->lapic->s;

    /* only a new error interrupts; that also ends the error interrupt whose own vector is illegal */
    if (!(__atomic_fetch_or(&s->esr_collected, esr_bit, __ATOMIC_SEQ_CST) & esr_bit))
        lvt_deliver(c, reg_load(&s->lvt[LVT_ERROR]) & (LVT_VECTOR | LVT_MASKED));
}

void lapic_vector_accept(struct vcpu *c, u8 vector, bool level)
{
    struct lapic_state *s = &c->lapic->s;
    u32 bit = 1u << (vector & 31);

    if (!lapic_takes_interrupts(c))
        return;
    if (vector < 16) {
        lapic_error(c, ESR_RECEIVE_ILLEGAL);
        return;
    }
    if (level)
        __atomic_or_fetch(&s->tmr[vector / 32], bit, __ATOMIC_SEQ_CST);
    else
        __atomic_and_fetch(&s->tmr[vector / 32], ~bit, __ATOMIC_SEQ_CST);
    __atomic_or_fetch(&s->irr[vector / 32], bit, __ATOMIC_SEQ_CST);
    vcpu_attend(c, ATTN_EVENT);
}

static void event_set(struct vcpu *c, bool *event)
{
    __atomic_store_n(event, true, __ATOMIC_SEQ_CST);
    vcpu_attend(c, ATTN_EVENT);
}

/* An INIT supersedes a SIPI that came before it; a SIPI right behind an INIT must survive until the INIT is handled. */
static void init_accept(struct vcpu *c)
{
    __atomic_store_n(&c->s.sipi_pending, false, __ATOMIC_SEQ_CST);
    event_set(c, &c->s.init_pending);
}

/* A processor latches one NMI behind the one that it serves; what comes beyond is lost. A vCPU that serves none may be
 * late to take the first (its thread waits for a host CPU), so it holds two: on hardware the first would be in its handler
 * when the second comes. */
static void nmi_accept(struct vcpu *c)
{
    u8 held, most;

    do { /* in this order: the vCPU takes one from the held before it blocks others */
        most = __atomic_load_n(&c->s.nmi_blocked, __ATOMIC_SEQ_CST) ? 1 : 2;
        held = __atomic_load_n(&c->s.nmi_pending, __ATOMIC_SEQ_CST);
    } while (held < most && !__atomic_compare_exchange_n(&c->s.nmi_pending, &held, (u8)(held + 1), false,
                                                         __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    vcpu_attend(c, ATTN_EVENT);
}

void lapic_accept(struct vcpu *c, const struct apic_message *msg)
{
    switch (msg->delivery) {
    case APIC_FIXED: case APIC_LOWEST: lapic_vector_accept(c, msg->vector, msg->level_triggered); break;
    case APIC_NMI: nmi_accept(c); break;
    case APIC_INIT:
        if (!msg->deassert)
            init_accept(c);
        break;
    case APIC_STARTUP:
        __atomic_store_n(&c->s.sipi_vector, msg->vector, __ATOMIC_SEQ_CST);
        event_set(c, &c->s.sipi_pending);
        break;
    case APIC_EXTINT: event_set(c, &c->lapic->s.extint_pending); break;
    }
}

void lapic_lint(struct vcpu *c, int pin, bool level)
{
    u32 lvt = reg_load(&c->lapic->s.lvt[pin ? LVT_LINT1 : LVT_LINT0]);

    if (!level)
        return;
    if (!apic_enabled(c) || (lvt >> LVT_DELIVERY_SHIFT & 7) == APIC_EXTINT)
        vcpu_attend(c, ATTN_EVENT); /* the pin's level is looked at when the vCPU can take it */
    else
        lvt_deliver(c, lvt);
}

static bool logical_match_xapic(const struct lapic_state *s, u8 dest)
{
    u8 id = (u8)(reg_load(&s->ldr) >> 24);

    if (reg_load(&s->dfr) >> 28 == 0xf) /* flat model */
        return id & dest;
    return (id >> 4 == dest >> 4 || dest >> 4 == 0xf) && id & dest & 0xf;
}

/* SDM §11.6.2. Physical 0xFF means all, unless an x2APIC sends it. */
bool lapic_matches(struct vcpu *c, const struct apic_message *msg)
{
    if (!apic_enabled(c))
        return false;
    if (msg->dest == UINT32_MAX)
        return true;
    if (!msg->logical)
        return (msg->dest == 0xff && !msg->wide) || msg->dest == lapic_id(c);
    if (x2apic(c))
        return msg->dest >> 16 == c->apic_id >> 4 && msg->dest >> (c->apic_id & 15) & 1;
    return msg->dest <= 0xff && logical_match_xapic(&c->lapic->s, (u8)msg->dest);
}

/* Whether the PIC asks: directly at the INTR pin while the APIC is disabled, else through LINT0 or an ExtINT
 * message. */
static bool extint_waiting(struct vcpu *c)
{
    const struct lapic_state *s = &c->lapic->s;
    bool intr = c->index == 0 && __atomic_load_n(&c->group->intr_level, __ATOMIC_SEQ_CST);
    u32 lint0 = s->lvt[LVT_LINT0];

    if (!apic_enabled(c))
        return intr;
    if (intr && !(lint0 & LVT_MASKED) && (lint0 >> LVT_DELIVERY_SHIFT & 7) == APIC_EXTINT)
        return true;
    return __atomic_load_n(&s->extint_pending, __ATOMIC_SEQ_CST);
}

/* The vector that the priorities let through now, or -1. */
static int vector_waiting(struct vcpu *c)
{
    int vector = highest_vector(c->lapic->s.irr);

    if (vector < 0 || !apic_enabled(c) || (vector & 0xf0) <= (lapic_priority(c) & 0xf0))
        return -1;
    return vector;
}

bool lapic_interrupt_waiting(struct vcpu *c)
{
    return extint_waiting(c) || vector_waiting(c) >= 0;
}

int lapic_interrupt_take(struct vcpu *c)
{
    struct lapic_state *s = &c->lapic->s;
    int vector;

    if (extint_waiting(c)) {
        __atomic_store_n(&s->extint_pending, false, __ATOMIC_SEQ_CST);
        ext_save(c);
        return c->group->config.bus.extint_ack(c->group->config.bus.ctx);
    }
    vector = vector_waiting(c);
    if (vector < 0)
        return -1;
    __atomic_and_fetch(&s->irr[vector / 32], ~(1u << (vector & 31)), __ATOMIC_SEQ_CST);
    reg_store(&s->isr[vector / 32], s->isr[vector / 32] | 1u << (vector & 31));
    return vector;
}

void lapic_reconsider(struct vcpu *c)
{
    if (lapic_interrupt_waiting(c))
        vcpu_attend(c, ATTN_EVENT);
}

void lapic_eoi(struct vcpu *c)
{
    struct lapic_state *s = &c->lapic->s;
    int vector = highest_vector(s->isr);

    if (vector < 0)
        return;
    reg_store(&s->isr[vector / 32], s->isr[vector / 32] & ~(1u << (vector & 31)));
    if (__atomic_load_n(&s->tmr[vector / 32], __ATOMIC_SEQ_CST) >> (vector & 31) & 1) {
        ext_save(c);
        c->group->config.bus.eoi(c->group->config.bus.ctx, (u8)vector);
    }
    lapic_reconsider(c);
}

u64 lapic_cr8_read(struct vcpu *c)
{
    return c->lapic->s.tpr >> 4 & 15;
}

void lapic_cr8_write(struct vcpu *c, u64 val)
{
    reg_store(&c->lapic->s.tpr, (u32)(val & 15) << 4);
    lapic_reconsider(c);
}

/* SDM §11.4.7.1. INIT comes while other vCPUs look at these registers, and set bits of IRR. */
void lapic_registers_reset(struct vcpu *c)
{
    struct lapic_state *s = &c->lapic->s;
    u32 *const zero[] = {&s->tpr, &s->ldr, &s->esr, &s->esr_collected, &s->icr_low, &s->icr_high};

    ext_save(c);
    lapic_timer_reset(c->lapic);
    for (int i = 0; i < 8; i++) {
        reg_store(&s->irr[i], 0);
        reg_store(&s->tmr[i], 0);
        reg_store(&s->isr[i], 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(zero); i++)
        reg_store(zero[i], 0);
    reg_store(&s->dfr, UINT32_MAX);
    reg_store(&s->svr, 0xff);
    for (int i = LVT_TIMER + 1; i < LVT_COUNT; i++)
        reg_store(&s->lvt[i], LVT_MASKED);
    __atomic_store_n(&s->extint_pending, false, __ATOMIC_SEQ_CST);
}

void lapic_reset(struct vcpu *c, bool init_only)
{
    lapic_registers_reset(c);
    if (init_only) /* leaves the id alone, §11.4.7.3 */
        return;
    lapic_id_reset(c);
    c->s.msr_apic_base = has(c, FEAT_APIC) ? LAPIC_DEFAULT_BASE | APIC_BASE_ENABLE | (c->s.bsp ? APIC_BASE_BSP : 0) : 0;
}

void lapic_virtual_wire(struct vcpu *c)
{
    struct lapic_state *s = &c->lapic->s;

    reg_store(&s->svr, 0xff | SVR_ENABLE);
    reg_store(&s->lvt[LVT_LINT0], APIC_EXTINT << LVT_DELIVERY_SHIFT);
    reg_store(&s->lvt[LVT_LINT1], APIC_NMI << LVT_DELIVERY_SHIFT);
}

int lapic_create(struct vcpu *c, struct err *e)
{
    struct lapic *l = calloc(1, sizeof(*l));

    if (!l)
        return err_set(e, -ENOMEM, "vCPU %d: out of memory", c->index);
    l->vcpu = c;
    c->lapic = l;
    lapic_timer_init(l);
    return 0;
}

void lapic_free(struct vcpu *c)
{
    struct lapic *l = c->lapic;

    if (!l)
        return;
    timer_cancel(&l->timer);
    pthread_mutex_destroy(&l->timer_lock);
    free(l);
    c->lapic = NULL;
}

void lapic_loaded(struct vcpu *c)
{
    lapic_timer_loaded(c->lapic);
    lapic_reconsider(c);
}

void *lapic_state(struct vcpu *c)
{
    return &c->lapic->s;
}

#define LAPIC(f) STATE(struct lapic_state, f)
#define LAPIC_ARRAY(f) STATE_ARRAY(struct lapic_state, f)

static const struct state_field lapic_fields[] = {
    LAPIC(timer_deadline), LAPIC_ARRAY(irr), LAPIC_ARRAY(tmr), LAPIC_ARRAY(isr), LAPIC(tpr), LAPIC(ldr), LAPIC(dfr),
    LAPIC(svr), LAPIC_ARRAY(lvt), LAPIC(esr), LAPIC(esr_collected), LAPIC(icr_low), LAPIC(icr_high),
    LAPIC(timer_initial), LAPIC(timer_divide), LAPIC(extint_pending),
    LAPIC(xapic_id), LAPIC_ARRAY(pad), STATE_END};

const struct state_table lapic_state_table = STATE_TABLE(struct lapic_state, lapic_fields, 1);
