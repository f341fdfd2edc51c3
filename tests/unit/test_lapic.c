/* The local APIC and the APIC bus: delivery, priorities, EOI, both register interfaces and the way between them,
 * IPIs, destination modes, errors, the timer's three modes. Without vCPUs that run: the test is each vCPU's own
 * thread. */
#include "cpu/cpuid.h"
#include "cpu/lapic.h"
#include "cpu/msr.h"
#include "cpu/xstate.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum {
    ID = 0x20, VERSION = 0x30, TPR = 0x80, PPR = 0xa0, EOI = 0xb0, LDR = 0xd0, DFR = 0xe0, SVR = 0xf0, ISR = 0x100,
    TMR = 0x180, IRR = 0x200, ESR = 0x280, ICR = 0x300, ICR_HIGH = 0x310, LVT_TIMER = 0x320, LVT_LINT0 = 0x350,
    LVT_LINT1 = 0x360, LVT_ERROR = 0x370, INITIAL = 0x380, CURRENT = 0x390, DIVIDE = 0x3e0,
};
enum { MSR_BASE = 0x1b, MSR_DEADLINE = 0x6e0 };
enum { MASKED = 0x10000, PERIODIC = 0x20000, DEADLINE = 0x40000 };
enum { BASE_ENABLE = 0x800, BASE_X2 = 0x400 };

#define CPUS 16

static struct clock machine_clock;
static struct timer_queue timers;
static struct vcpu_group group;
static struct cpu_model model;
static int eoi_vector, eoi_count, pic_vector;

/* The rest of cpu/, as far as local APICs need it. */
void vcpu_attend(struct vcpu *c, u32 bits)
{
    __atomic_or_fetch(&c->attention, bits, __ATOMIC_SEQ_CST);
}

void ext_save_slow(struct vcpu *c)
{
    fail_msg("no extended state is live here");
}

u64 tsc_read(struct vcpu *c)
{
    return tsc_ticks(&group, clock_now(&machine_clock)) + (u64)c->s.tsc_offset;
}

static void bus_eoi(void *ctx, u8 vector)
{
    eoi_vector = vector;
    eoi_count++;
}

static int bus_extint_ack(void *ctx)
{
    return pic_vector;
}

static struct vcpu *cpu(int n)
{
    return group.vcpu[n];
}

static u32 reg(int n, u32 offset)
{
    return lapic_mmio_read(cpu(n), offset, 4);
}

static void reg_set(int n, u32 offset, u32 val)
{
    lapic_mmio_write(cpu(n), offset, 4, val);
}

static bool bit(int n, u32 array, int vector)
{
    return reg(n, array + (u32)(vector / 32) * 16) >> vector % 32 & 1;
}

static void interrupt(int n, int vector, bool level)
{
    const struct apic_message msg = {.dest = (u32)n, .vector = (u8)vector, .level_triggered = level};

    apic_bus_send(&group, &msg);
}

static void send(u32 dest, u8 vector, u8 delivery, bool logical)
{
    const struct apic_message msg = {.dest = dest, .vector = vector, .delivery = delivery, .logical = logical};

    apic_bus_send(&group, &msg);
}

static u64 msr(int n, u32 index)
{
    u64 val = 0;

    assert_true(lapic_msr_read(cpu(n), index, &val));
    return val;
}

static void msr_set(int n, u32 index, u64 val)
{
    assert_true(lapic_msr_write(cpu(n), index, val));
}

static bool msr_refused(int n, u32 index, u64 val)
{
    return !lapic_msr_write(cpu(n), index, val);
}

static void to_x2apic(int n)
{
    msr_set(n, MSR_BASE, msr(n, MSR_BASE) | BASE_X2);
}

static void feature(enum cpu_feature f)
{
    model.features[f / 64] |= 1ull << f % 64;
}

static void time_to(u64 now)
{
    for (u64 next; (next = timer_queue_next(&timers)) <= now;) {
        clock_set(&machine_clock, MAX(next, clock_now(&machine_clock)));
        timer_queue_run(&timers);
    }
    clock_set(&machine_clock, now);
}

/* Takes the waiting interrupt and ends it; -1: none. */
static int serve(int n)
{
    int vector = lapic_interrupt_waiting(cpu(n)) ? lapic_interrupt_take(cpu(n)) : -1;

    if (vector >= 0)
        reg_set(n, EOI, 0);
    return vector;
}

static int setup(void **unused)
{
    struct err e;

    memset(&group, 0, sizeof(group));
    memset(&model, 0, sizeof(model));
    model.phys_bits = 40;
    feature(FEAT_APIC);
    feature(FEAT_X2APIC);
    feature(FEAT_TSC_DEADLINE);
    clock_init(&machine_clock);
    timer_queue_init(&timers, &machine_clock, NULL, NULL);
    eoi_count = 0;
    group.model = &model;
    group.count = CPUS;
    group.tsc_khz = TSC_KHZ_DEFAULT;
    group.config.clock = &machine_clock;
    group.config.timers = &timers;
    group.config.bus.eoi = bus_eoi;
    group.config.bus.extint_ack = bus_extint_ack;
    for (int n = 0; n < CPUS; n++) {
        struct vcpu *c = aligned_alloc(64, ALIGN_UP(sizeof(*c), 64));

        memset(c, 0, sizeof(*c));
        group.vcpu[n] = c;
        c->group = &group;
        c->index = n;
        c->apic_id = (u32)n;
        c->s.bsp = n == 0;
        assert_int_equal(lapic_create(c, &e), 0);
        lapic_reset(c, false);
        reg_set(n, SVR, 0x1ff);
    }
    return 0;
}

static int teardown(void **unused)
{
    for (int n = 0; n < CPUS; n++) {
        lapic_free(group.vcpu[n]);
        free(group.vcpu[n]);
    }
    timer_queue_free(&timers);
    return 0;
}

static void reset_state(void **unused)
{
    lapic_reset(cpu(0), false);
    assert_int_equal(msr(0, MSR_BASE), 0xfee00900);
    assert_int_equal(msr(1, MSR_BASE), 0xfee00800);
    assert_int_equal(reg(0, SVR), 0xff);
    assert_int_equal(reg(0, VERSION), 0x50014);
    assert_int_equal(reg(3, ID), 3 << 24);
    assert_int_equal(reg(0, DFR), UINT32_MAX);
    assert_int_equal(reg(0, LVT_TIMER), MASKED);
    assert_int_equal(reg(0, TPR), 0);
    interrupt(0, 0x40, false); /* disabled by software */
    assert_false(lapic_interrupt_waiting(cpu(0)));
}

static void priorities(void **unused)
{
    interrupt(0, 0x41, false);
    assert_true(cpu(0)->attention & ATTN_EVENT);
    assert_true(bit(0, IRR, 0x41));
    assert_int_equal(lapic_interrupt_take(cpu(0)), 0x41);
    assert_true(bit(0, ISR, 0x41));
    assert_false(bit(0, IRR, 0x41));
    assert_int_equal(reg(0, PPR), 0x40);
    interrupt(0, 0x4f, false); /* the same class waits */
    assert_false(lapic_interrupt_waiting(cpu(0)));
    interrupt(0, 0x52, false);
    assert_true(lapic_interrupt_waiting(cpu(0)));
    assert_int_equal(lapic_interrupt_take(cpu(0)), 0x52);
    cpu(0)->attention = 0;
    reg_set(0, EOI, 0);
    assert_int_equal(cpu(0)->attention, 0);
    assert_int_equal(reg(0, PPR), 0x40);
    reg_set(0, EOI, 0);
    assert_int_equal(cpu(0)->attention, ATTN_EVENT); /* now 0x4F can */
    assert_int_equal(lapic_interrupt_take(cpu(0)), 0x4f);
    assert_int_equal(lapic_interrupt_take(cpu(0)), -1);
}

static void task_priority(void **unused)
{
    reg_set(0, TPR, 0x5f);
    assert_int_equal(lapic_cr8_read(cpu(0)), 5);
    assert_int_equal(reg(0, PPR), 0x5f);
    interrupt(0, 0x5f, false);
    assert_false(lapic_interrupt_waiting(cpu(0)));
    cpu(0)->attention = 0;
    lapic_cr8_write(cpu(0), 4);
    assert_int_equal(cpu(0)->attention, ATTN_EVENT);
    assert_int_equal(reg(0, TPR), 0x40);
    assert_int_equal(serve(0), 0x5f);
}

static void level_eoi_is_broadcast(void **unused)
{
    interrupt(0, 0x60, true);
    assert_true(bit(0, TMR, 0x60));
    assert_int_equal(serve(0), 0x60);
    assert_int_equal(eoi_count, 1);
    assert_int_equal(eoi_vector, 0x60);
    interrupt(0, 0x60, false);
    assert_false(bit(0, TMR, 0x60));
    serve(0);
    assert_int_equal(eoi_count, 1);
    reg_set(0, EOI, 0); /* nothing in service */
    assert_int_equal(eoi_count, 1);
}

static void same_vector_twice_is_once(void **unused)
{
    interrupt(0, 0x60, false);
    interrupt(0, 0x60, false);
    assert_int_equal(serve(0), 0x60);
    assert_int_equal(serve(0), -1);
    interrupt(0, 0x60, false);
    lapic_interrupt_take(cpu(0));
    interrupt(0, 0x60, false); /* one more while in service */
    reg_set(0, EOI, 0);
    assert_int_equal(serve(0), 0x60);
}

static void illegal_vectors(void **unused)
{
    reg_set(0, LVT_ERROR, 0xfe);
    interrupt(0, 0x0f, false);
    assert_int_equal(serve(0), 0xfe);
    assert_int_equal(reg(0, ESR), 0);
    reg_set(0, ESR, 0);
    assert_int_equal(reg(0, ESR), 0x40);
    reg_set(0, ESR, 0);
    assert_int_equal(reg(0, ESR), 0);
    reg_set(0, ICR, 0x0005); /* send */
    reg_set(0, ESR, 0);
    assert_int_equal(reg(0, ESR), 0x20);
    reg(0, 0x3f0); /* no such register */
    reg_set(0, ESR, 0);
    assert_int_equal(reg(0, ESR), 0x80);
    reg_set(0, LVT_ERROR, 3); /* an error interrupt that is itself illegal */
    interrupt(0, 0x0f, false);
    reg_set(0, ESR, 0);
    assert_int_equal(reg(0, ESR), 0x40);
}

static void odd_accesses(void **unused)
{
    reg_set(0, TPR, 0x20);
    assert_int_equal(lapic_mmio_read(cpu(0), TPR, 1) & 0xff, 0x20);
    assert_int_equal(lapic_mmio_read(cpu(0), VERSION + 2, 2) & 0xffff, 5);
    assert_int_equal(lapic_mmio_read(cpu(0), TPR + 4, 4), 0);
    lapic_mmio_write(cpu(0), TPR, 1, 0x50);
    lapic_mmio_write(cpu(0), TPR + 4, 4, 0x50);
    assert_int_equal(reg(0, TPR), 0x20);
    for (u32 offset = 0; offset < 0x1000; offset++) {
        lapic_mmio_read(cpu(0), offset, 4);
        if (offset / 16 != ICR / 16)
            lapic_mmio_write(cpu(0), offset, 4, 0xffffffff);
    }
}

static void software_disable_masks_the_lvt(void **unused)
{
    reg_set(0, LVT_LINT1, 0x400);
    reg_set(0, SVR, 0xff);
    assert_int_equal(reg(0, LVT_LINT1), 0x400 | MASKED);
    reg_set(0, LVT_LINT1, 0x400);
    assert_int_equal(reg(0, LVT_LINT1), 0x400 | MASKED);
    reg_set(0, SVR, 0x1ff);
    reg_set(0, LVT_LINT1, 0x400);
    assert_int_equal(reg(0, LVT_LINT1), 0x400);
    send(0, 0, APIC_NMI, false);
    assert_true(cpu(0)->s.nmi_pending);
}

static void physical_destinations(void **unused)
{
    send(5, 0x30, APIC_FIXED, false);
    for (int n = 0; n < CPUS; n++)
        assert_int_equal(serve(n), n == 5 ? 0x30 : -1);
    send(0xff, 0x31, APIC_FIXED, false);
    for (int n = 0; n < CPUS; n++)
        assert_int_equal(serve(n), 0x31);
    send(77, 0x32, APIC_FIXED, false);
    for (int n = 0; n < CPUS; n++)
        assert_int_equal(serve(n), -1);
}

static void flat_logical_destinations(void **unused)
{
    for (int n = 0; n < 8; n++)
        reg_set(n, LDR, 1u << (24 + n));
    send(0x05, 0x30, APIC_FIXED, true);
    for (int n = 0; n < CPUS; n++)
        assert_int_equal(serve(n), n == 0 || n == 2 ? 0x30 : -1);
}

static void cluster_logical_destinations(void **unused)
{
    for (int n = 0; n < CPUS; n++) {
        reg_set(n, DFR, 0x0fffffff);
        reg_set(n, LDR, (u32)(n / 4) << 28 | 1u << (24 + n % 4));
    }
    send(0x26, 0x30, APIC_FIXED, true); /* cluster 2, members 1 and 2 */
    for (int n = 0; n < CPUS; n++)
        assert_int_equal(serve(n), n == 9 || n == 10 ? 0x30 : -1);
    send(0xf1, 0x31, APIC_FIXED, true); /* every cluster's first */
    for (int n = 0; n < CPUS; n++)
        assert_int_equal(serve(n), n % 4 == 0 ? 0x31 : -1);
}

static void x2apic_destinations(void **unused)
{
    for (int n = 0; n < CPUS; n++) {
        to_x2apic(n);
        assert_int_equal(msr(n, 0x802), n);
        assert_int_equal(msr(n, 0x80d), 1 << n);
    }
    send(0x8001, 0x30, APIC_FIXED, true);
    for (int n = 0; n < CPUS; n++)
        assert_int_equal(lapic_interrupt_take(cpu(n)), n == 0 || n == 15 ? 0x30 : -1);
    send(0x18001, 0x51, APIC_FIXED, true); /* another cluster */
    send(UINT32_MAX, 0x61, APIC_FIXED, false);
    for (int n = 0; n < CPUS; n++) {
        assert_int_equal(lapic_interrupt_take(cpu(n)), 0x61);
        assert_int_equal(lapic_interrupt_take(cpu(n)), -1);
    }
}

static void lowest_priority(void **unused)
{
    int got = 0;

    for (int n = 0; n < CPUS; n++)
        reg_set(n, TPR, n == 6 ? 0x10 : 0x20);
    send(0xff, 0x71, APIC_LOWEST, false);
    for (int n = 0; n < CPUS; n++)
        assert_int_equal(serve(n), n == 6 ? 0x71 : -1);
    reg_set(6, SVR, 0xff); /* takes no interrupts any more */
    send(0xff, 0x71, APIC_LOWEST, false);
    for (int n = 0; n < CPUS; n++)
        got += serve(n) == 0x71;
    assert_int_equal(got, 1);
}

static void shorthands(void **unused)
{
    reg_set(3, ICR, 0x40030 | 0x4000); /* self */
    for (int n = 0; n < CPUS; n++)
        assert_int_equal(serve(n), n == 3 ? 0x30 : -1);
    reg_set(3, ICR, 0x80031 | 0x4000); /* all */
    for (int n = 0; n < CPUS; n++)
        assert_int_equal(serve(n), 0x31);
    reg_set(3, ICR, 0xc0032 | 0x4000); /* others */
    for (int n = 0; n < CPUS; n++)
        assert_int_equal(serve(n), n == 3 ? -1 : 0x32);
    reg_set(3, ICR_HIGH, 7 << 24);
    reg_set(3, ICR, 0x33 | 0x4000);
    assert_int_equal(serve(7), 0x33);
    assert_int_equal(reg(3, ICR), 0x4033);
    assert_int_equal(reg(3, ICR_HIGH), 7 << 24);
}

static void init_and_startup(void **unused)
{
    reg_set(0, ICR_HIGH, 1 << 24);
    reg_set(0, ICR, 0xc500); /* INIT, assert */
    assert_true(cpu(1)->s.init_pending);
    reg_set(0, ICR, 0x8500); /* de-assert: nothing */
    reg_set(0, ICR, 0x4699);
    assert_true(cpu(1)->s.init_pending);
    assert_true(cpu(1)->s.sipi_pending);
    assert_int_equal(cpu(1)->s.sipi_vector, 0x99);
    reg_set(0, ICR, 0xc500); /* a new INIT forgets the SIPI */
    assert_false(cpu(1)->s.sipi_pending);
    assert_false(cpu(2)->s.init_pending);
    cpu(1)->s.init_pending = false;
    reg_set(0, ICR, 0x8500);
    assert_false(cpu(1)->s.init_pending);
    reg_set(0, ICR, 0x4400);
    assert_true(cpu(1)->s.nmi_pending);
}

static void nmis_are_latched(void **unused)
{
    for (int n = 0; n < 3; n++)
        send(1, 0, APIC_NMI, false);
    assert_int_equal(cpu(1)->s.nmi_pending, 2); /* one to serve, one behind it */
    cpu(1)->s.nmi_pending = 0;
    cpu(1)->s.nmi_blocked = true;
    for (int n = 0; n < 3; n++)
        send(1, 0, APIC_NMI, false);
    assert_int_equal(cpu(1)->s.nmi_pending, 1); /* one behind the one that is served */
}

static void xapic_id_can_be_written(void **unused)
{
    reg_set(1, ID, 0x2a000000);
    assert_int_equal(reg(1, ID), 0x2a000000);
    send(1, 0x40, APIC_FIXED, false);
    assert_int_equal(serve(1), -1);
    send(0x2a, 0x40, APIC_FIXED, false);
    assert_int_equal(serve(1), 0x40);
    reg_set(2, ID, 0x2a000000);
    send(0x2a, 0x41, APIC_FIXED, false); /* two of one id: both */
    assert_int_equal(serve(1), 0x41);
    assert_int_equal(serve(2), 0x41);
    lapic_reset(cpu(1), true);
    assert_int_equal(reg(1, ID), 0x2a000000); /* INIT leaves it alone */
    to_x2apic(1);
    assert_int_equal(msr(1, 0x802), 1);
    msr_set(1, MSR_BASE, 0xfee00000);
    msr_set(1, MSR_BASE, 0xfee00800);
    assert_int_equal(reg(1, ID), 1 << 24);
    lapic_reset(cpu(2), false);
    assert_int_equal(reg(2, ID), 2 << 24);
}

static void init_keeps_the_mode(void **unused)
{
    to_x2apic(1);
    msr_set(1, 0x808, 0x50);
    lapic_reset(cpu(1), true);
    assert_int_equal(msr(1, MSR_BASE), 0xfee00c00);
    assert_int_equal(msr(1, 0x808), 0);
    assert_int_equal(msr(1, 0x80f), 0xff);
}

static void extint_through_lint0(void **unused)
{
    pic_vector = 0x08;
    group.intr_level = true;
    assert_false(lapic_interrupt_waiting(cpu(0))); /* masked */
    cpu(0)->attention = 0;
    reg_set(0, LVT_LINT0, 0x700);
    assert_int_equal(cpu(0)->attention, ATTN_EVENT);
    assert_true(lapic_interrupt_waiting(cpu(0)));
    reg_set(1, LVT_LINT0, 0x700);
    assert_false(lapic_interrupt_waiting(cpu(1))); /* the wire ends at the first */
    assert_int_equal(lapic_interrupt_take(cpu(0)), 0x08);
    assert_false(bit(0, ISR, 8));
    group.intr_level = false;
    assert_false(lapic_interrupt_waiting(cpu(0)));
    send(2, 0, APIC_EXTINT, false);
    assert_int_equal(lapic_interrupt_take(cpu(2)), 0x08);
    assert_false(lapic_interrupt_waiting(cpu(2)));
}

static void intr_pin_while_disabled(void **unused)
{
    msr_set(0, MSR_BASE, 0xfee00100);
    group.intr_level = true;
    assert_true(lapic_interrupt_waiting(cpu(0)));
    interrupt(0, 0x40, false);
    assert_int_equal(reg(0, IRR + 0x20), UINT32_MAX); /* no registers either */
    group.intr_level = false;
    assert_false(lapic_interrupt_waiting(cpu(0)));
}

static void virtual_wire(void **unused)
{
    lapic_reset(cpu(0), false);
    lapic_virtual_wire(cpu(0));
    group.intr_level = true;
    lapic_lint(cpu(0), 0, true);
    assert_true(cpu(0)->attention & ATTN_EVENT);
    assert_true(lapic_interrupt_waiting(cpu(0)));
    lapic_lint(cpu(0), 1, true);
    assert_true(cpu(0)->s.nmi_pending);
}

static void lint_as_fixed(void **unused)
{
    reg_set(0, LVT_LINT0, 0x44);
    lapic_lint(cpu(0), 0, true);
    lapic_lint(cpu(0), 0, false);
    assert_int_equal(serve(0), 0x44);
    assert_int_equal(serve(0), -1);
    reg_set(0, LVT_LINT0, 0x44 | MASKED);
    lapic_lint(cpu(0), 0, true);
    assert_int_equal(serve(0), -1);
}

static void base_transitions(void **unused)
{
    u64 base = 0xfee00900;

    assert_true(msr_refused(0, MSR_BASE, (base & ~(u64)BASE_ENABLE) | BASE_X2));
    assert_true(msr_refused(0, MSR_BASE, base | 1));
    assert_true(msr_refused(0, MSR_BASE, base | 1ull << 40));
    msr_set(0, MSR_BASE, 0x123000 | 0x900); /* moved */
    assert_int_equal(msr(0, MSR_BASE), 0x123900);
    msr_set(0, MSR_BASE, base | BASE_X2);
    assert_true(msr_refused(0, MSR_BASE, base)); /* not straight back */
    reg_set(0, TPR, 0x50);                       /* no memory interface now */
    assert_int_equal(msr(0, 0x808), 0);
    msr_set(0, 0x808, 0x50);
    msr_set(0, MSR_BASE, base & ~(u64)BASE_ENABLE);
    assert_true(msr_refused(0, MSR_BASE, base | BASE_X2)); /* not straight from disabled */
    msr_set(0, MSR_BASE, base);
    assert_int_equal(reg(0, TPR), 0); /* as after reset */
    assert_int_equal(reg(0, SVR), 0xff);
    model.features[FEAT_X2APIC / 64] &= ~(1ull << FEAT_X2APIC % 64);
    assert_true(msr_refused(0, MSR_BASE, base | BASE_X2));
}

static void x2apic_registers(void **unused)
{
    static const u32 absent[] = {0x800, 0x801, 0x804, 0x809, 0x80c, 0x80e, 0x829, 0x82f, 0x831, 0x83a, 0x840, 0x8ff};
    u64 val;

    assert_false(lapic_msr_read(cpu(0), 0x802, &val));
    assert_true(msr_refused(0, 0x808, 0));
    to_x2apic(0);
    for (size_t i = 0; i < ARRAY_SIZE(absent); i++) {
        assert_false(lapic_msr_read(cpu(0), absent[i], &val));
        assert_true(msr_refused(0, absent[i], 0));
    }
    assert_false(lapic_msr_read(cpu(0), 0x80b, &val));
    assert_false(lapic_msr_read(cpu(0), 0x83f, &val));
    assert_true(msr_refused(0, 0x802, 0));
    assert_true(msr_refused(0, 0x810, 0));
    assert_true(msr_refused(0, 0x839, 0));
    assert_true(msr_refused(0, 0x80b, 1));
    assert_true(msr_refused(0, 0x828, 1));
    assert_true(msr_refused(0, 0x808, 0x100));
    assert_true(msr_refused(0, 0x808, 1ull << 32));
    assert_true(msr_refused(0, 0x832, 0x80000));
    assert_true(msr_refused(0, 0x83e, 4));
    assert_true(msr_refused(0, 0x83f, 0x100));
    assert_true(msr_refused(0, 0x830, 0x100000));
    msr_set(0, 0x80b, 0);
    msr_set(0, 0x828, 0);
    msr_set(0, 0x83f, 0x77);
    assert_int_equal(lapic_interrupt_take(cpu(0)), 0x77);
    msr_set(0, 0x80b, 0);
    msr_set(0, 0x830, 9ull << 32 | 0x78);
    assert_int_equal(msr(0, 0x830), 9ull << 32 | 0x78);
    assert_int_equal(serve(9), 0x78);
    assert_int_equal(msr(0, 0x803), 0x50014);
}

static void timer_one_shot(void **unused)
{
    reg_set(0, DIVIDE, 0xb); /* by 1: 1 ns a count */
    reg_set(0, LVT_TIMER, 0x40);
    reg_set(0, INITIAL, 1000000);
    time_to(250000);
    assert_int_equal(reg(0, CURRENT), 750000);
    time_to(999999);
    assert_int_equal(serve(0), -1);
    time_to(1000000);
    assert_int_equal(serve(0), 0x40);
    assert_int_equal(reg(0, CURRENT), 0);
    time_to(100000000);
    assert_int_equal(serve(0), -1);
    reg_set(0, INITIAL, 1000);
    reg_set(0, INITIAL, 0); /* stops it */
    time_to(200000000);
    assert_int_equal(serve(0), -1);
}

static void timer_divides(void **unused)
{
    static const u8 code[] = {0xb, 0x0, 0x1, 0x2, 0x3, 0x8, 0x9, 0xa};

    for (u64 i = 0; i < ARRAY_SIZE(code); i++) {
        u64 now = clock_now(&machine_clock);

        reg_set(0, DIVIDE, code[i]);
        assert_int_equal(reg(0, DIVIDE), code[i]);
        reg_set(0, LVT_TIMER, 0x40);
        reg_set(0, INITIAL, 1000);
        time_to(now + (1000u << i) - 1);
        assert_int_equal(serve(0), -1);
        assert_int_equal(reg(0, CURRENT), 1);
        time_to(now + (1000u << i));
        assert_int_equal(serve(0), 0x40);
    }
}

static void timer_divide_changes_under_way(void **unused)
{
    reg_set(0, DIVIDE, 0xb);
    reg_set(0, LVT_TIMER, 0x40);
    reg_set(0, INITIAL, 1000);
    time_to(400);
    reg_set(0, DIVIDE, 0x0); /* 600 counts of 2 ns to go */
    assert_int_equal(reg(0, CURRENT), 600);
    time_to(1599);
    assert_int_equal(serve(0), -1);
    time_to(1600);
    assert_int_equal(serve(0), 0x40);
}

static void timer_periodic(void **unused)
{
    reg_set(0, DIVIDE, 0xb);
    reg_set(0, LVT_TIMER, 0x40 | PERIODIC);
    reg_set(0, INITIAL, 1000000);
    for (u64 n = 1; n < 100; n++) {
        time_to(n * 1000000 - 1);
        assert_int_equal(serve(0), -1);
        time_to(n * 1000000);
        assert_int_equal(serve(0), 0x40);
    }
    clock_set(&machine_clock, 150500000); /* the loop was late */
    timer_queue_run(&timers);
    assert_int_equal(serve(0), 0x40);
    assert_int_equal(reg(0, CURRENT), 500000);
    time_to(151000000);
    assert_int_equal(serve(0), 0x40);
    reg_set(0, LVT_TIMER, 0x40 | PERIODIC | MASKED);
    time_to(152000000);
    assert_int_equal(serve(0), -1);
    assert_int_equal(reg(0, CURRENT), 1000000);
}

static void timer_tiny_periods_do_not_flood(void **unused)
{
    int fired = 0;

    reg_set(0, DIVIDE, 0xb);
    reg_set(0, LVT_TIMER, 0x40 | PERIODIC);
    reg_set(0, INITIAL, 1);
    for (u64 next; (next = timer_queue_next(&timers)) <= 1000000; fired++)
        time_to(next);
    assert_in_range(fired, 1, 51);
}

static void timer_tsc_deadline(void **unused)
{
    cpu(0)->s.tsc_offset = 5000000;
    time_to(1000000); /* TSC 6000000 */
    msr_set(0, MSR_DEADLINE, 7000000); /* not in that mode: ignored */
    assert_int_equal(msr(0, MSR_DEADLINE), 0);
    reg_set(0, LVT_TIMER, 0x40 | DEADLINE);
    msr_set(0, MSR_DEADLINE, 7000000);
    assert_int_equal(msr(0, MSR_DEADLINE), 7000000);
    reg_set(0, INITIAL, 1); /* ignored in this mode */
    assert_int_equal(reg(0, CURRENT), 0);
    time_to(1999999);
    assert_int_equal(serve(0), -1);
    time_to(2000000);
    assert_int_equal(msr(0, MSR_DEADLINE), 0);
    assert_int_equal(serve(0), 0x40);
    msr_set(0, MSR_DEADLINE, 3); /* long gone: at once */
    assert_int_equal(msr(0, MSR_DEADLINE), 0);
    assert_int_equal(serve(0), 0x40);
    msr_set(0, MSR_DEADLINE, UINT64_MAX);
    msr_set(0, MSR_DEADLINE, 8000000);
    cpu(0)->s.tsc_offset = 6000000; /* TSC 8000000 now */
    lapic_tsc_changed(cpu(0));
    assert_int_equal(serve(0), 0x40);
    msr_set(0, MSR_DEADLINE, 9000000);
    reg_set(0, LVT_TIMER, 0x40); /* leaving the mode disarms */
    reg_set(0, LVT_TIMER, 0x40 | DEADLINE);
    assert_int_equal(msr(0, MSR_DEADLINE), 0);
    time_to(100000000);
    assert_int_equal(serve(0), -1);
}

static void timer_stale_callback(void **unused)
{
    reg_set(0, DIVIDE, 0xb);
    reg_set(0, LVT_TIMER, 0x40);
    reg_set(0, INITIAL, 1000);
    clock_set(&machine_clock, 2000);
    timers.heap[0]->fn(timers.heap[0]->ctx); /* expires */
    assert_int_equal(serve(0), 0x40);
    reg_set(0, INITIAL, 5000);
    timers.heap[0]->fn(timers.heap[0]->ctx); /* a call that was under way when the vCPU re-armed */
    assert_int_equal(serve(0), -1);
    time_to(7000);
    assert_int_equal(serve(0), 0x40);
}

enum { SENDERS = 3, SENDS = 400 };

struct sender {
    pthread_t thread;
    u8 vector;
    int served; /* atomic */
};

/* Each message waits until the one before it was served: none may get lost. */
static void *send_from_thread(void *ctx)
{
    struct sender *s = ctx;

    for (int i = 0; i < SENDS; i++) {
        while (__atomic_load_n(&s->served, __ATOMIC_SEQ_CST) < i)
            sched_yield();
        interrupt(0, s->vector, i & 1);
    }
    return NULL;
}

static int loop_stops; /* atomic */

static void *loop_thread(void *unused)
{
    while (!__atomic_load_n(&loop_stops, __ATOMIC_SEQ_CST)) {
        timer_queue_run(&timers);
        sched_yield();
    }
    return NULL;
}

static void other_threads(void **unused)
{
    struct sender sender[SENDERS] = {{.vector = 0x40}, {.vector = 0x41}, {.vector = 0x92}};
    int total = 0, ticks = 0;
    pthread_t loop;

    clock_start(&machine_clock);
    loop_stops = 0;
    reg_set(0, DIVIDE, 0xb);
    reg_set(0, LVT_TIMER, 0xe0);
    pthread_create(&loop, NULL, loop_thread, NULL);
    for (int i = 0; i < SENDERS; i++)
        pthread_create(&sender[i].thread, NULL, send_from_thread, &sender[i]);
    while (total < SENDERS * SENDS || !ticks) {
        int vector;

        if ((total % 16 == 0 || total == SENDERS * SENDS) && !reg(0, CURRENT))
            reg_set(0, INITIAL, 50000);
        if (!(__atomic_fetch_and(&cpu(0)->attention, ~(u32)ATTN_EVENT, __ATOMIC_SEQ_CST) & ATTN_EVENT)) {
            sched_yield();
            continue;
        }
        reg_set(0, TPR, total % 3 ? 0 : 0x40);
        vector = serve(0);
        reg_set(0, TPR, 0);
        if (vector < 0) /* held back by the priority, perhaps */
            vector = serve(0);
        if (vector == 0xe0)
            ticks++;
        for (int i = 0; i < SENDERS; i++)
            if (sender[i].vector == vector && ++total)
                __atomic_add_fetch(&sender[i].served, 1, __ATOMIC_SEQ_CST);
        lapic_cr8_write(cpu(0), 0);
    }
    for (int i = 0; i < SENDERS; i++)
        pthread_join(sender[i].thread, NULL);
    __atomic_store_n(&loop_stops, 1, __ATOMIC_SEQ_CST);
    pthread_join(loop, NULL);
    assert_int_equal(eoi_count, SENDERS * SENDS / 2);
}

static void state_moves(void **unused)
{
    u8 stream[1024];
    size_t len;

    assert_int_equal(state_covered(&lapic_state_table), lapic_state_table.size);
    assert_true(state_stream_size(&lapic_state_table) <= sizeof(stream));
    interrupt(0, 0x45, true);
    reg_set(0, TPR, 0x10);
    reg_set(0, LVT_TIMER, 0x50 | PERIODIC);
    reg_set(0, DIVIDE, 0xb);
    reg_set(0, INITIAL, 1000000);
    len = state_save(&lapic_state_table, lapic_state(cpu(0)), stream);
    assert_int_equal(state_load(&lapic_state_table, lapic_state(cpu(1)), stream, len), 0);
    lapic_loaded(cpu(1));
    assert_true(cpu(1)->attention & ATTN_EVENT);
    assert_int_equal(serve(1), 0x45);
    assert_int_equal(eoi_count, 1);
    time_to(2000000);
    assert_int_equal(serve(1), 0x50);
    assert_int_equal(reg(1, TPR), 0x10);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(reset_state), TEST(priorities), TEST(task_priority), TEST(level_eoi_is_broadcast),
        TEST(same_vector_twice_is_once), TEST(illegal_vectors), TEST(odd_accesses),
        TEST(software_disable_masks_the_lvt), TEST(physical_destinations), TEST(flat_logical_destinations),
        TEST(cluster_logical_destinations), TEST(x2apic_destinations), TEST(lowest_priority), TEST(shorthands),
        TEST(init_and_startup), TEST(init_keeps_the_mode), TEST(nmis_are_latched), TEST(xapic_id_can_be_written), TEST(extint_through_lint0), TEST(intr_pin_while_disabled),
        TEST(virtual_wire), TEST(lint_as_fixed), TEST(base_transitions), TEST(x2apic_registers), TEST(timer_one_shot),
        TEST(timer_divides), TEST(timer_divide_changes_under_way), TEST(timer_periodic),
        TEST(timer_tiny_periods_do_not_flood), TEST(timer_tsc_deadline), TEST(timer_stale_callback),
        TEST(other_threads), TEST(state_moves)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
