/* See cpu_world.h. */
#include "cpu_world.h"

#include "cpu/interp.h"
#include "cpu/world.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { HIDDEN = 0x4000, PATTERN = 0xa5 };

/* Backing: hidden, RAM, hidden, ROM, hidden, more RAM, hidden, RAM above 4 GiB, hidden. */
enum {
    RAM_AT = HIDDEN, ROM_AT = RAM_AT + WORLD_RAM + HIDDEN, MORE_AT = ROM_AT + WORLD_PIECE + HIDDEN,
    HIGH_AT = MORE_AT + WORLD_PIECE + HIDDEN, BACKING = HIGH_AT + WORLD_PIECE + HIDDEN
};

static struct guest_memory *mem;
static struct vcpu_group *group;
static struct clock world_clock;
static struct timer_queue timers;
static timer_t stopper;
static u64 device;

static u64 pio_read(void *ctx, u16 port, int size)
{
    return device;
}

static void pio_write(void *ctx, u16 port, int size, u64 val)
{
    device = val;
}

static u64 mmio_read(void *ctx, u64 gpa, int size)
{
    assert(!guest_memory_find(mem, gpa));
    return device;
}

static void mmio_write(void *ctx, u64 gpa, int size, u64 val)
{
    assert(!guest_memory_find(mem, gpa));
    device = val;
}

static int extint_ack(void *ctx)
{
    return (u8)device;
}

static void eoi(void *ctx, u8 vector)
{
}

static void shut_down(void *ctx)
{
    vcpu_group_stop(group);
}

static void earlier(void *ctx, u64 deadline)
{
}

static void must(int r)
{
    if (r)
        abort();
}

static void memory_create(void)
{
    static const struct {
        u64 gpa, size, at;
        bool rom;
    } piece[] = {{0, WORLD_RAM, RAM_AT, false},
                 {WORLD_ROM, WORLD_PIECE, ROM_AT, true},
                 {WORLD_MORE, WORLD_PIECE, MORE_AT, false},
                 {WORLD_HIGH, WORLD_PIECE, HIGH_AT, false}};
    struct err e;

    must(guest_memory_create(BACKING, &mem, &e));
    memset(mem->backing, PATTERN, BACKING);
    for (size_t i = 0; i < ARRAY_SIZE(piece); i++)
        must(guest_memory_map(mem, piece[i].gpa, piece[i].size, piece[i].at, piece[i].rom));
}

static void on_signal(int sig)
{
    vcpu_group_stop(group);
}

/* A signal rather than a thread: nothing of it runs unless guest code loops. */
static void stopper_create(void)
{
    struct sigevent how = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    must(sigaction(SIGRTMIN, &act, NULL));
    must(timer_create(CLOCK_MONOTONIC, &how, &stopper));
}

static void world_create(void)
{
    struct vcpu_group_config config = {.count = 1, .engine = CPU_ENGINE_INTERP, .clock = &world_clock, .timers = &timers};
    struct err e;

    memory_create();
    clock_init(&world_clock);
    timer_queue_init(&timers, &world_clock, earlier, NULL);
    config.mem = mem;
    config.bus =
        (struct vcpu_bus){NULL, pio_read, pio_write, mmio_read, mmio_write, extint_ack, eoi, shut_down, NULL};
    must(vcpu_group_create(&config, &group, &e));
    stopper_create();
}

struct vcpu *cpu_world(void)
{
    if (!mem)
        world_create();
    memset(mem->backing + RAM_AT, 0, WORLD_RAM);
    memset(mem->backing + MORE_AT, 0, WORLD_PIECE);
    memset(mem->backing + HIGH_AT, 0, WORLD_PIECE);
    guest_memory_written(mem, mem->backing, BACKING);
    timer_queue_clear(&timers);
    clock_set(&world_clock, 0);
    device = 0;
    vcpu_group_reset(group);
    vcpu_group_resume(group);
    return vcpu_get(group, 0);
}

static void must_be_pattern(u64 at, u64 size)
{
    const u8 *p = mem->backing + at;

    if (*p != PATTERN || memcmp(p, p + 1, size - 1))
        abort();
}

void cpu_world_check(void)
{
    must_be_pattern(0, HIDDEN);
    must_be_pattern(RAM_AT + WORLD_RAM, HIDDEN + WORLD_PIECE + HIDDEN);
    must_be_pattern(MORE_AT + WORLD_PIECE, HIDDEN);
    must_be_pattern(HIGH_AT + WORLD_PIECE, HIDDEN);
}

/* A halted vCPU would sleep until the signal: it is let go at once. */
void cpu_world_run(int ms)
{
    struct itimerspec at = {.it_value = {.tv_nsec = ms * 1000000l}}, off = {0};
    struct vcpu *c = vcpu_get(group, 0);

    timer_settime(stopper, 0, &at, NULL);
    world_enter(c);
    interp_run(c);
    world_leave(c);
    timer_settime(stopper, 0, &off, NULL);
    vcpu_state_sync(c);
    vcpu_group_resume(group);
    __atomic_and_fetch(&c->attention, ~(u32)ATTN_STOP, __ATOMIC_SEQ_CST);
}
