/* Events at instruction boundaries: see event.h. Priorities: SDM vol. 3 table 6-2. */
#include "cpu/event.h"

#include "cpu/engine.h"
#include "cpu/exception.h"
#include "cpu/lapic.h"
#include "cpu/tlb.h"
#include "cpu/vcpu_trace.h"
#include "cpu/xstate.h"

static bool take(bool *flag)
{
    return __atomic_exchange_n(flag, false, __ATOMIC_SEQ_CST);
}

static bool nmi_possible(const struct vcpu *c)
{
    return !c->s.nmi_blocked && __atomic_load_n(&c->s.nmi_pending, __ATOMIC_SEQ_CST);
}

static bool interrupt_possible(struct vcpu *c)
{
    return c->s.rflags & FLAG_IF && lapic_interrupt_waiting(c);
}

void vcpu_flush_if_asked(struct vcpu *c)
{
    u32 asked = __atomic_fetch_and(&c->attention, ~(u32)(ATTN_FLUSH | ATTN_CODE), __ATOMIC_SEQ_CST);

    if (asked & ATTN_CODE && c->group->engine->code_changed)
        c->group->engine->code_changed(c);
    if (!(asked & ATTN_FLUSH))
        return;
    tlb_flush(c);
    c->group->engine->flush(c);
}

bool vcpu_wakes(struct vcpu *c)
{
    vcpu_flush_if_asked(c);
    __atomic_and_fetch(&c->attention, ~(u32)ATTN_EVENT, __ATOMIC_SEQ_CST);
    if (take(&c->s.init_pending))
        vcpu_init_signal(c);
    if (c->s.activity == VCPU_WAIT_SIPI) {
        if (take(&c->s.sipi_pending))
            vcpu_startup(c, c->s.sipi_vector);
    } else if (c->s.activity == VCPU_HALTED && (nmi_possible(c) || interrupt_possible(c))) {
        c->s.activity = VCPU_ACTIVE;
    }
    if (c->s.activity != VCPU_ACTIVE) {
        __atomic_and_fetch(&c->attention, ~(u32)ATTN_STEP, __ATOMIC_SEQ_CST);
        return false;
    }
    /* the run loop finds out for itself whether it must step */
    __atomic_or_fetch(&c->attention, ATTN_EVENT | ATTN_STEP, __ATOMIC_SEQ_CST);
    return true;
}

void vcpu_events_deliver(struct vcpu *c)
{
    int vector;

    __atomic_and_fetch(&c->attention, ~(u32)ATTN_EVENT, __ATOMIC_SEQ_CST);
    if (take(&c->s.init_pending)) {
        vcpu_init_signal(c);
        return;
    }
    c->event_held = true; /* until it turns out that there is none */
    if (c->s.int_shadow) { /* one more instruction first; ATTN_STEP is set and brings us back */
        __atomic_or_fetch(&c->attention, ATTN_EVENT, __ATOMIC_SEQ_CST);
        return;
    }
    if (nmi_possible(c)) {
        __atomic_sub_fetch(&c->s.nmi_pending, 1, __ATOMIC_SEQ_CST);
        __atomic_store_n(&c->s.nmi_blocked, true, __ATOMIC_SEQ_CST);
        exception_deliver(c, EVENT_EXTERNAL, EXC_NMI, false, 0);
        return;
    }
    c->event_held = lapic_interrupt_waiting(c);
    if (!interrupt_possible(c))
        return;
    vector = lapic_interrupt_take(c);
    if (vector < 0)
        return;
    vcpu_trace(c, EXC, "vcpu %d: interrupt %#x", c->index, vector);
    exception_deliver(c, EVENT_EXTERNAL, vector, false, 0);
}
