/* One guest computer from creation to its end: see machine.h.
 *
 * The loop thread owns the course of events. A stop or a reset, from whatever thread, is only noted there and then
 * makes the vCPUs and the loop return; machine_run() then joins the vCPU threads and does what was noted with nobody
 * else about. */
#include "machine/machine.h"
#include "base/trace.h"
#include "machine/vcpu_threads.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

static u64 bus_pio_read(void *ctx, u16 port, int size)
{
    return pio_read(ctx, port, size);
}

static void bus_pio_write(void *ctx, u16 port, int size, u64 val)
{
    pio_write(ctx, port, size, val);
}

static u64 bus_mmio_read(void *ctx, u64 gpa, int size)
{
    return mmio_read(ctx, gpa, size);
}

static void bus_mmio_write(void *ctx, u64 gpa, int size, u64 val)
{
    mmio_write(ctx, gpa, size, val);
}

/* Without a PIC the data bus floats: vector 0xFF. */
static int bus_extint_ack(void *ctx)
{
    struct machine *m = ctx;
    int vector;

    pthread_mutex_lock(m->lock);
    vector = m->pic_ack ? m->pic_ack(m->pic) : 0xff;
    pthread_mutex_unlock(m->lock);
    return vector;
}

static void bus_eoi(void *ctx, u8 vector)
{
    struct machine *m = ctx;

    pthread_mutex_lock(m->lock);
    if (m->ioapic_eoi)
        m->ioapic_eoi(m->ioapic, vector);
    pthread_mutex_unlock(m->lock);
}

static void bus_shutdown(void *ctx)
{
    machine_reset(ctx, MACHINE_TRIPLE_FAULT);
}

static void bus_ferr(void *ctx, bool level)
{
    struct machine *m = ctx;

    pthread_mutex_lock(m->lock);
    if (m->ferr)
        m->ferr(m->ferr_device, level);
    pthread_mutex_unlock(m->lock);
}

static int cpus_create(struct machine *m, struct err *e)
{
    struct vcpu_group_config config = {
        .count = m->config.cpu_count,
        .engine = m->config.engine,
        .stress = m->config.stress,
        .windows = m->config.windows,
        .model = m->config.model,
        .insn_trace = m->config.insn_trace,
        .profile = m->config.profile,
        .mem = m->mem,
        .clock = &m->clock,
        .timers = &m->timers,
        .bus = {.ctx = m, .pio_read = bus_pio_read, .pio_write = bus_pio_write, .mmio_read = bus_mmio_read,
                .mmio_write = bus_mmio_write, .extint_ack = bus_extint_ack, .eoi = bus_eoi, .shutdown = bus_shutdown,
                .ferr = bus_ferr},
    };

    return vcpu_group_create(&config, &m->cpus, e);
}

static struct timespec timespec_of(u64 ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
}

static void timer_fd_arm(void *ctx, u64 deadline)
{
    struct machine *m = ctx;
    struct itimerspec at = {0};
    u64 host = clock_host(&m->clock, deadline);

    if (host != TIMER_NEVER && __atomic_load_n(&m->clock.running, __ATOMIC_ACQUIRE))
        at.it_value = timespec_of(host);
    timerfd_settime(m->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

static void timer_fd_expired(void *ctx, int events)
{
    struct machine *m = ctx;
    u64 count;

    if (read(m->timer_fd, &count, sizeof(count)) == sizeof(count))
        timer_queue_run(&m->timers);
}

static void timeout_expired(void *ctx, int events)
{
    struct machine *m = ctx;

    machine_stop(m, MACHINE_TIMEOUT, 0, NULL);
}

static int timer_fd_create(struct machine *m, void (*expired)(void *ctx, int events), int *fd, struct watch **watch,
                           struct err *e)
{
    *fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (*fd < 0)
        return err_set(e, -errno, "timerfd: %s", strerror(errno));
    return event_loop_watch(m->loop, *fd, WATCH_READ, expired, m, watch, e);
}

static int timers_create(struct machine *m, struct err *e)
{
    int r = timer_fd_create(m, timer_fd_expired, &m->timer_fd, &m->timer_watch, e);

    return r ? r : timer_fd_create(m, timeout_expired, &m->timeout_fd, &m->timeout_watch, e);
}

int machine_create(const struct machine_config *config, u64 backing_size, struct machine **ret, struct err *e)
{
    struct machine *m = calloc(1, sizeof(*m));
    int r;

    if (!m)
        return err_set(e, -ENOMEM, "machine: out of memory");
    m->config = *config;
    m->lock = config->lock;
    m->loop = config->loop;
    m->devices_end = &m->devices;
    m->timer_fd = m->timeout_fd = -1;
    pthread_mutex_init(&m->end_lock, NULL);
    clock_init(&m->clock);
    m->clock.slower = MAX(config->slow_clock, 1u);
    timer_queue_init(&m->timers, &m->clock, timer_fd_arm, m);
    r = guest_memory_create(backing_size, &m->mem, e);
    if (!r)
        r = timers_create(m, e);
    if (!r)
        r = cpus_create(m, e);
    if (r)
        machine_free(m);
    else
        *ret = m;
    return r;
}

static void timer_fd_close(int fd, struct watch *watch)
{
    watch_remove(watch);
    if (fd >= 0)
        close(fd);
}

/* Timers are disarmed before their owners go, so that nobody's cancelling walks over freed ones. */
void machine_free(struct machine *m)
{
    if (!m)
        return;
    timer_queue_clear(&m->timers);
    vcpu_group_free(m->cpus);
    devices_free(m);
    io_ranges_free(m->pio);
    io_ranges_free(m->mmio);
    timer_fd_close(m->timer_fd, m->timer_watch);
    timer_fd_close(m->timeout_fd, m->timeout_watch);
    timer_queue_free(&m->timers);
    guest_memory_free(m->mem);
    pthread_mutex_destroy(&m->end_lock);
    free(m);
}

void machine_set_boot(struct machine *m, void (*boot)(struct machine *m, void *ctx), void *ctx)
{
    m->boot = boot;
    m->boot_ctx = ctx;
}

static void all_return(struct machine *m)
{
    vcpu_group_stop(m->cpus);
    event_loop_stop(m->loop);
}

void machine_stop(struct machine *m, enum machine_end why, int value, const char *text)
{
    pthread_mutex_lock(&m->end_lock);
    if (m->end == MACHINE_RUNNING) {
        m->end = why;
        m->end_value = value;
        snprintf(m->end_text, sizeof(m->end_text), "%.*s", (int)sizeof(m->end_text) - 1, text ? text : "");
    }
    pthread_mutex_unlock(&m->end_lock);
    all_return(m);
}

void machine_reset(struct machine *m, enum machine_end why)
{
    trace(CPU, "machine: reset%s", why == MACHINE_TRIPLE_FAULT ? " after a triple fault" : "");
    if (m->config.no_reboot) {
        machine_stop(m, why, 0, NULL);
        return;
    }
    pthread_mutex_lock(&m->end_lock);
    m->reset_wanted = true;
    m->asleep = false;
    pthread_mutex_unlock(&m->end_lock);
    all_return(m);
}

static bool flag_get(struct machine *m, const bool *flag)
{
    bool val;

    pthread_mutex_lock(&m->end_lock);
    val = *flag;
    pthread_mutex_unlock(&m->end_lock);
    return val;
}

static void flag_set(struct machine *m, bool *flag, bool val)
{
    pthread_mutex_lock(&m->end_lock);
    *flag = val;
    pthread_mutex_unlock(&m->end_lock);
}

void machine_sleep(struct machine *m)
{
    trace(CPU, "machine: asleep");
    flag_set(m, &m->asleep, true);
    all_return(m);
}

void machine_wake(struct machine *m)
{
    bool slept;

    pthread_mutex_lock(&m->end_lock);
    slept = m->asleep;
    m->asleep = false;
    m->waking |= slept;
    m->reset_wanted |= slept;
    pthread_mutex_unlock(&m->end_lock);
    if (!slept)
        return;
    trace(CPU, "machine: woken");
    all_return(m);
}

bool machine_waking(struct machine *m)
{
    return flag_get(m, &m->waking);
}

void machine_on_pause(struct machine *m, void (*paused)(void *ctx), void *ctx)
{
    m->on_pause = paused;
    m->pause_ctx = ctx;
}

void machine_pause(struct machine *m)
{
    pthread_mutex_lock(&m->end_lock);
    m->pause_wanted = true;
    pthread_mutex_unlock(&m->end_lock);
    all_return(m);
}

void machine_continue(struct machine *m)
{
    assert(m->paused);
    m->paused = false;
    clock_start(&m->clock);
    timer_queue_tell(&m->timers);
    event_loop_stop(m->loop); /* machine_run starts the vCPUs */
}

static enum machine_end end_now(struct machine *m)
{
    enum machine_end end;

    pthread_mutex_lock(&m->end_lock);
    end = m->end;
    pthread_mutex_unlock(&m->end_lock);
    return end;
}

static bool wish_take(struct machine *m, bool *wish)
{
    bool wanted;

    pthread_mutex_lock(&m->end_lock);
    wanted = *wish;
    *wish = false;
    pthread_mutex_unlock(&m->end_lock);
    return wanted;
}

/* RESET#, and then what the board puts in the place of firmware. No vCPU thread runs. vCPUs come last, so that no
 * interrupt raised by a device on its way down outlives the reset. */
static void machine_boot(struct machine *m)
{
    pthread_mutex_lock(m->lock);
    devices_reset(m);
    vcpu_group_reset(m->cpus);
    if (m->boot)
        m->boot(m, m->boot_ctx);
    flag_set(m, &m->waking, false);
    pthread_mutex_unlock(m->lock);
}

void machine_restart(struct machine *m)
{
    assert(m->paused);
    machine_boot(m);
}

static void pause_if_wanted(struct machine *m)
{
    if (!wish_take(m, &m->pause_wanted) || m->paused)
        return;
    m->paused = true;
    clock_stop(&m->clock);
    pthread_mutex_lock(m->lock);
    if (m->on_pause)
        m->on_pause(m->pause_ctx);
    pthread_mutex_unlock(m->lock);
}

static void time_start(struct machine *m)
{
    struct itimerspec timeout = {.it_value = timespec_of(m->config.timeout_ns)};

    clock_start(&m->clock);
    timer_queue_tell(&m->timers);
    timerfd_settime(m->timeout_fd, 0, &timeout, NULL);
}

enum machine_end machine_run(struct machine *m)
{
    struct err e;

    time_start(m);
    machine_boot(m);
    while (end_now(m) == MACHINE_RUNNING) {
        pause_if_wanted(m);
        if (!m->paused && !flag_get(m, &m->asleep) && vcpu_threads_start(m, &e)) {
            machine_stop(m, MACHINE_FAILED, 0, e.text);
            break;
        }
        event_loop_run(m->loop);
        vcpu_threads_stop(m);
        if (end_now(m) == MACHINE_RUNNING && wish_take(m, &m->reset_wanted))
            machine_boot(m);
    }
    clock_stop(&m->clock);
    return end_now(m);
}

/* SDM vol. 3 §11.11. Addresses elsewhere would be plain memory writes, which no device of ours is asked to make. */
void machine_msi(struct machine *m, u64 addr, u32 data)
{
    struct apic_message msg = {
        .dest = (u32)(addr >> 12) & 0xff,
        .vector = (u8)data,
        .delivery = data >> 8 & 7,
        .logical = addr >> 2 & 1,
        .level_triggered = data >> 15 & 1,
        .deassert = (data >> 15 & 1) && !(data >> 14 & 1),
    };

    if (addr >> 20 != 0xfee) {
        trace(GUEST, "message-signalled interrupt to 0x%llx, which is no APIC", (unsigned long long)addr);
        return;
    }
    apic_bus_send(m->cpus, &msg);
}

void machine_intr_set(void *machine, int pin, bool level)
{
    struct machine *m = machine;

    vcpu_group_intr(m->cpus, level);
}

void machine_set_ignne(struct machine *m, bool level)
{
    vcpu_group_ignne(m->cpus, level);
}

void machine_set_a20(struct machine *m, bool open)
{
    vcpu_group_a20(m->cpus, open);
}
