/* The inside of a local APIC, shared by lapic.c (delivery), lapic_timer.c and lapic_regs.c. Not for other files. */
#ifndef CPU_LAPIC_STATE_H
#define CPU_LAPIC_STATE_H
#include "base/trace.h"
#include "cpu/cpuid.h"
#include "cpu/lapic.h"
#include "cpu/xstate.h"

/* Local vector table, in the order of the registers from 0x320 on. */
enum { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };
enum {
    LVT_VECTOR = 0xff, LVT_DELIVERY_SHIFT = 8, LVT_MASKED = 0x10000, LVT_TIMER_MODE = 0x60000,
    LVT_TIMER_PERIODIC = 0x20000, LVT_TIMER_TSC_DEADLINE = 0x40000,
};
enum { SVR_ENABLE = 0x100 };
enum { ESR_SEND_ILLEGAL = 0x20, ESR_RECEIVE_ILLEGAL = 0x40, ESR_ILLEGAL_REGISTER = 0x80 };
enum { APIC_BASE_BSP = 0x100, APIC_BASE_X2APIC = 0x400, APIC_BASE_ENABLE = 0x800 };

struct lapic_state {
    u64 timer_deadline;      /* clock ns of the timer's next expiry; TIMER_NEVER while it stands. timer_lock */
    u32 irr[8], tmr[8];      /* atomic, any thread */
    u32 isr[8], tpr;         /* own thread writes, any reads */
    u32 ldr, dfr, svr;       /* likewise */
    u32 lvt[LVT_COUNT];      /* likewise; the timer's: timer_lock */
    u32 esr;
    u32 esr_collected;       /* atomic: errors since the last write of ESR */
    u32 icr_low, icr_high;
    u32 timer_initial, timer_divide; /* timer_lock */
    bool extint_pending;     /* atomic: an ExtINT message came */
    u8 xapic_id;             /* the ID register of xAPIC mode; own thread writes, any reads */
    u8 pad[6];
};

struct lapic {
    struct lapic_state s;
    struct vcpu *vcpu;
    /* guards the timer's state, msr_tsc_deadline too, against the loop thread; taken after the machine lock, before
     * the queue's */
    pthread_mutex_t timer_lock;
    struct timer timer;
};

static inline u32 reg_load(const u32 *reg)
{
    return __atomic_load_n(reg, __ATOMIC_RELAXED);
}
static inline void reg_store(u32 *reg, u32 val)
{
    __atomic_store_n(reg, val, __ATOMIC_RELAXED);
}

/* Mode of the APIC; any thread. */
static inline u64 apic_base(const struct vcpu *c)
{
    return __atomic_load_n(&c->s.msr_apic_base, __ATOMIC_RELAXED);
}
static inline bool apic_enabled(const struct vcpu *c)
{
    return apic_base(c) & APIC_BASE_ENABLE;
}
static inline bool x2apic(const struct vcpu *c)
{
    return (~apic_base(c) & (APIC_BASE_ENABLE | APIC_BASE_X2APIC)) == 0;
}

/* The id that messages are addressed to: in xAPIC mode the guest can change it. Any thread. */
static inline u32 lapic_id(const struct vcpu *c)
{
    return x2apic(c) ? c->apic_id : __atomic_load_n(&c->lapic->s.xapic_id, __ATOMIC_RELAXED);
}

/* Back to the id that the processor began with. */
static inline void lapic_id_reset(struct vcpu *c)
{
    __atomic_store_n(&c->lapic->s.xapic_id, (u8)c->apic_id, __ATOMIC_RELAXED);
}

/* In the vCPU's own thread: tracing leaves cpu/. */
#define lapic_trace(c, ...)             \
    do {                                \
        if (trace_on(LAPIC)) {          \
            ext_save(c);                \
            trace(LAPIC, __VA_ARGS__);  \
        }                               \
    } while (0)

/* Sets IRR, or records an illegal vector. Any thread. */
void lapic_vector_accept(struct vcpu *c, u8 vector, bool level);

/* Collects an error; a new one raises the error interrupt. Any thread. */
void lapic_error(struct vcpu *c, u32 esr_bit);

/* Makes the run loop look if an interrupt can be taken now. Own thread. */
void lapic_reconsider(struct vcpu *c);

void lapic_eoi(struct vcpu *c);
void lapic_registers_reset(struct vcpu *c);

/* lapic_timer.c: own thread, and they take timer_lock. */
void lapic_timer_init(struct lapic *l);
void lapic_timer_reset(struct lapic *l);
void lapic_timer_loaded(struct lapic *l);
void lapic_timer_lvt_write(struct vcpu *c, u32 val);
void lapic_timer_initial_write(struct vcpu *c, u32 val);
void lapic_timer_divide_write(struct vcpu *c, u32 val);
u32 lapic_timer_current(struct vcpu *c);
u64 lapic_timer_tsc_deadline_read(struct vcpu *c);
void lapic_timer_tsc_deadline_write(struct vcpu *c, u64 val);

#endif
