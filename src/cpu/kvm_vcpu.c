/* A vCPU on /dev/kvm: its loop around KVM_RUN, what ends one (exits), interrupts on their way in, and kicks.
 *
 * An instruction that the kernel's emulator does not know, and a state that it refuses, go to the interpreter for one
 * instruction. Nothing of that is cached there: what other vCPUs write under KVM would not be noticed. */
#include "cpu/kvm_vm.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpu/cpuid.h"
#include "cpu/event.h"
#include "cpu/exception.h"
#include "cpu/interp.h"
#include "cpu/kvm_run.h"
#include "cpu/lapic.h"
#include "cpu/msr.h"
#include "cpu/tlb.h"
#include "cpu/vcpu_trace.h"
#include "cpu/xstate.h"

#define MSR_BIOS_SIGN_ID 0x8b

/* It only interrupts KVM_RUN. */
static void on_kick(int sig)
{
}

int kvm_kick_set_up(struct err *e)
{
    struct sigaction sa = {.sa_handler = on_kick};

    sigemptyset(&sa.sa_mask);
    return sigaction(KVM_KICK_SIGNAL, &sa, NULL)
               ? err_set(e, -errno, "cannot install a signal handler: %s", strerror(errno))
               : 0;
}

/* `immediate_exit` ends a KVM_RUN that has not begun, the signal one that has. */
void kvm_kick(struct vcpu *c)
{
    int thread;

    if (!c->kvm)
        return;
    __atomic_store_n(&c->kvm->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    thread = __atomic_load_n(&c->kvm->thread, __ATOMIC_SEQ_CST);
    if (thread)
        syscall(SYS_tgkill, getpid(), thread, KVM_KICK_SIGNAL);
}

/* The guest may have moved CR8. */
static void tpr_follow(struct vcpu *c)
{
    if (c->kvm->run->cr8 != lapic_cr8_read(c))
        lapic_cr8_write(c, c->kvm->run->cr8);
}

static bool exit_under_way(u32 reason)
{
    return reason == KVM_EXIT_IO || reason == KVM_EXIT_MMIO || reason == KVM_EXIT_X86_RDMSR ||
           reason == KVM_EXIT_X86_WRMSR;
}

int kvm_enter(struct vcpu *c, bool complete_only)
{
    struct kvm_vcpu *k = c->kvm;
    int r = 0;

    k->run->cr8 = lapic_cr8_read(c);
    __atomic_store_n(&k->run->immediate_exit, complete_only, __ATOMIC_SEQ_CST);
    __atomic_store_n(&k->thread, (int)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
    if (!complete_only && __atomic_load_n(&c->attention, __ATOMIC_SEQ_CST))
        r = -EINTR;
    else if (ioctl(k->fd, KVM_RUN, 0) < 0)
        r = -errno;
    __atomic_store_n(&k->thread, 0, __ATOMIC_SEQ_CST);
    if (r == -EAGAIN)
        r = -EINTR;
    k->io_under_way = !r && exit_under_way(k->run->exit_reason);
    if (!r || complete_only)
        tpr_follow(c);
    return r;
}

static void exit_io(struct vcpu *c)
{
    const struct vcpu_bus *bus = &c->group->config.bus;
    struct kvm_run *run = c->kvm->run;
    u8 *data = (u8 *)run + run->io.data_offset;

    for (u32 n = 0; n < run->io.count; n++, data += run->io.size) {
        u64 val = 0;

        if (run->io.direction == KVM_EXIT_IO_OUT) {
            memcpy(&val, data, run->io.size);
            bus->pio_write(bus->ctx, run->io.port, run->io.size, val);
        } else {
            val = bus->pio_read(bus->ctx, run->io.port, run->io.size);
            memcpy(data, &val, run->io.size);
        }
    }
}

static u64 memory_read(struct vcpu *c, u64 gpa, int size)
{
    const struct vcpu_bus *bus = &c->group->config.bus;
    u64 val = 0;

    if (lapic_page(c, gpa))
        return lapic_mmio_read(c, (u32)(gpa & ~PAGE_MASK), size);
    if (!guest_memory_read(c->group->config.mem, gpa, &val, (u64)size)) /* a slot that the kernel refused */
        return val;
    return bus->mmio_read(bus->ctx, gpa, size);
}

static void memory_write(struct vcpu *c, u64 gpa, int size, u64 val)
{
    const struct vcpu_bus *bus = &c->group->config.bus;

    if (lapic_page(c, gpa))
        lapic_mmio_write(c, (u32)(gpa & ~PAGE_MASK), size, (u32)val);
    else if (guest_memory_find(c->group->config.mem, gpa)) /* ROM: -EFAULT, and nothing happens */
        guest_memory_write(c->group->config.mem, gpa, &val, (u64)size);
    else
        bus->mmio_write(bus->ctx, gpa, size, val);
}

/* The kernel cuts accesses at page ends: what is left may be of any length up to eight. */
static void exit_mmio(struct vcpu *c)
{
    struct kvm_run *run = c->kvm->run;
    u32 len = MIN(run->mmio.len, 8u), size = len & (len - 1) ? 1 : len;

    for (u32 at = 0; at < len; at += size) {
        u64 val = 0;

        if (run->mmio.is_write) {
            memcpy(&val, run->mmio.data + at, size);
            memory_write(c, run->mmio.phys_addr + at, (int)size, val);
        } else {
            val = memory_read(c, run->mmio.phys_addr + at, (int)size);
            memcpy(run->mmio.data + at, &val, size);
        }
    }
}

static void exit_rdmsr(struct vcpu *c)
{
    struct kvm_run *run = c->kvm->run;
    u64 val = 0;

    if (run->msr.index == MSR_BIOS_SIGN_ID) { /* the CPUID instruction loads it, and is not seen here */
        u32 out[4];

        cpuid(c, 1, 0, out);
    }
    run->msr.error = kvm_msr_in_kernel(run->msr.index, false) || !msr_read(c, run->msr.index, &val);
    run->msr.data = val;
}

static void exit_wrmsr(struct vcpu *c)
{
    struct kvm_run *run = c->kvm->run;

    run->msr.error = kvm_msr_in_kernel(run->msr.index, true) || !msr_write(c, run->msr.index, run->msr.data);
}

void kvm_exit_handle(struct vcpu *c)
{
    switch (c->kvm->run->exit_reason) {
    case KVM_EXIT_IO:
        exit_io(c);
        break;
    case KVM_EXIT_MMIO:
        exit_mmio(c);
        break;
    case KVM_EXIT_X86_RDMSR:
        exit_rdmsr(c);
        break;
    case KVM_EXIT_X86_WRMSR:
        exit_wrmsr(c);
        break;
    }
}

/* One instruction by the interpreter. */
static void interpret(struct vcpu *c, bool events)
{
    kvm_guest_fetch(c);
    interp_step_uncached(c, events);
    ext_save(c);
}

/* Halted first: an event that the kernel holds (a single-step trap of the HLT) ends it. */
static void exit_halt(struct vcpu *c)
{
    c->s.activity = VCPU_HALTED;
    kvm_core_fetch(c);
}

static void exit_shutdown(struct vcpu *c)
{
    kvm_guest_fetch(c);
    vcpu_shutdown(c);
}

static void exit_other(struct vcpu *c)
{
    switch (c->kvm->run->exit_reason) {
    case KVM_EXIT_HLT:
        exit_halt(c);
        break;
    case KVM_EXIT_SHUTDOWN:
        exit_shutdown(c);
        break;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_SET_TPR:
        __atomic_or_fetch(&c->attention, ATTN_EVENT, __ATOMIC_SEQ_CST);
        break;
    case KVM_EXIT_INTR:
        break;
    case KVM_EXIT_INTERNAL_ERROR: /* the kernel cannot emulate an instruction, or deliver an event */
    default:
        vcpu_trace(c, CPU, "vcpu %d: KVM exit %u (%u): interpreted", c->index, c->kvm->run->exit_reason,
                   c->kvm->run->exit_reason == KVM_EXIT_INTERNAL_ERROR ? c->kvm->run->internal.suberror : 0);
        interpret(c, false);
        break;
    }
}

/* The registers that went with this KVM_RUN were not taken: `s` still has them, and what was to be injected. */
static void registers_take_back(struct vcpu *c)
{
    struct kvm_run *run = c->kvm->run;
    struct kvm_vcpu_events ev = run->s.regs.events;

    if (!run->kvm_dirty_regs)
        return;
    run->kvm_dirty_regs = 0;
    c->kvm->in_kernel &= ~(u32)KVM_PART_CORE;
    kvm_guest_fetch(c);
    if (ev.nmi.pending)
        __atomic_add_fetch(&c->s.nmi_pending, 1, __ATOMIC_SEQ_CST);
    if (ev.interrupt.injected)
        interp_deliver(c, EVENT_EXTERNAL, ev.interrupt.nr, false, 0);
}

/* The kernel refuses this state, or is out of something: the guest goes on all the same, slowly. */
static void enter_failed(struct vcpu *c, int r)
{
    if (!c->kvm->broken)
        vcpu_trace(c, STUB, "vcpu %d: KVM_RUN: %s: interpreted", c->index, strerror(-r));
    c->kvm->broken = true;
    registers_take_back(c);
    interpret(c, false);
}

static bool interrupt_injectable(const struct vcpu *c)
{
    if (c->kvm->run->kvm_dirty_regs)
        return c->s.rflags & FLAG_IF && !c->s.int_shadow && !c->kvm->run->s.regs.events.interrupt.injected;
    return c->kvm->run->ready_for_interrupt_injection;
}

static void interrupt_inject(struct vcpu *c, int vector)
{
    struct kvm_run *run = c->kvm->run;
    struct kvm_interrupt irq = {.irq = (u32)vector};

    vcpu_trace(c, EXC, "vcpu %d: interrupt %#x", c->index, vector);
    if (run->kvm_dirty_regs) {
        run->s.regs.events.interrupt.injected = 1;
        run->s.regs.events.interrupt.nr = (u8)vector;
    } else {
        kvm_ioctl(c->kvm->fd, KVM_INTERRUPT, &irq);
        run->ready_for_interrupt_injection = 0;
    }
}

static void nmi_inject(struct vcpu *c)
{
    if (c->kvm->run->kvm_dirty_regs)
        c->kvm->run->s.regs.events.nmi.pending++; /* two at most: see nmi_accept */
    else
        kvm_ioctl(c->kvm->fd, KVM_NMI, NULL);
}

/* What waits goes in now, or has the kernel say when it can. The state is stored. */
static void events_inject(struct vcpu *c)
{
    struct kvm_run *run = c->kvm->run;
    int vector;

    __atomic_and_fetch(&c->attention, ~(u32)ATTN_EVENT, __ATOMIC_SEQ_CST);
    for (u8 n = __atomic_exchange_n(&c->s.nmi_pending, 0, __ATOMIC_SEQ_CST); n; n--)
        nmi_inject(c);
    if (lapic_interrupt_waiting(c) && interrupt_injectable(c)) {
        vector = lapic_interrupt_take(c);
        if (vector >= 0)
            interrupt_inject(c, vector);
    }
    run->request_interrupt_window = lapic_interrupt_waiting(c);
}

static void init_take(struct vcpu *c)
{
    if (__atomic_exchange_n(&c->s.init_pending, false, __ATOMIC_SEQ_CST))
        vcpu_init_signal(c);
}

/* False: leave. */
static bool attend(struct vcpu *c)
{
    u32 bits = __atomic_fetch_and(&c->attention, ~(u32)ATTN_STEP, __ATOMIC_SEQ_CST);

    if (bits & (ATTN_STOP | ATTN_EXCLUSIVE))
        return false;
    vcpu_flush_if_asked(c);
    if (bits & ATTN_EVENT)
        init_take(c);
    return c->s.activity == VCPU_ACTIVE;
}

static void run_once(struct vcpu *c)
{
    int r = kvm_enter(c, false);

    if (r == -EINTR)
        return;
    if (r)
        enter_failed(c, r);
    else if (c->kvm->io_under_way)
        kvm_exit_handle(c);
    else
        exit_other(c);
}

void kvm_run_guest(struct vcpu *c)
{
    kvm_slots_sync(c->group);
    while (attend(c)) {
        if (unlikely(c->group->a20_closed)) {
            interpret(c, true); /* the kernel knows no such gate */
        } else if (!kvm_state_store(c)) {
            interpret(c, false);
        } else {
            events_inject(c);
            run_once(c);
        }
    }
}

void kvm_flush(struct vcpu *c)
{
    interp_flush(c);
    kvm_slots_sync(c->group);
}

/* The guest's TSC runs at the rate of every other engine's where the host can scale it, else at the host's own. */
static void tsc_rate_set(struct vcpu *c)
{
    int khz;

    if (kvm_ioctl(c->kvm->fd, KVM_SET_TSC_KHZ, (void *)(long)TSC_KHZ_DEFAULT) >= 0)
        return;
    khz = kvm_ioctl(c->kvm->fd, KVM_GET_TSC_KHZ, NULL);
    if (khz > 0)
        c->group->tsc_khz = (u32)khz;
}

int kvm_vcpu_create(struct vcpu *c, struct err *e)
{
    struct kvm_vcpu *k = calloc(1, sizeof(*k));

    if (!k)
        return err_set(e, -ENOMEM, "vCPU %d: out of memory", c->index);
    k->fd = kvm_ioctl(c->group->kvm->fd, KVM_CREATE_VCPU, (void *)(long)c->index);
    if (k->fd < 0) {
        int r = k->fd;

        free(k);
        return err_set(e, r, "/dev/kvm: cannot create vCPU %d: %s", c->index, strerror(-r));
    }
    k->run = mmap(NULL, c->group->kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd, 0);
    if (k->run == MAP_FAILED) {
        close(k->fd);
        free(k);
        return err_set(e, -ENOMEM, "/dev/kvm: cannot map vCPU %d: %s", c->index, strerror(errno));
    }
    c->kvm = k;
    tsc_rate_set(c);
    return kvm_cpuid_set(c, e);
}

void kvm_vcpu_free(struct vcpu *c)
{
    struct kvm_vcpu *k = c->kvm;

    if (!k)
        return;
    c->kvm = NULL;
    munmap(k->run, c->group->kvm->run_size);
    close(k->fd);
    free(k);
}
