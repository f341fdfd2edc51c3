/* Lines along the machine's clock, by the host's TSC: see tsc.h. Whoever comes to the end of one draws the next, under the lock. */
#include "cpu/tsc.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cpu/vcpu_state.h"
#include "cpu/xstate.h"

#define LINE_NS 1000000u         /* as long as a line may be */
#define SPEED_NS_MIN 10000000u   /* the speed is measured over so much at least, … */
#define SPEED_NS_MAX 1000000000u /* … and then anew */
#define SLOWER 2048              /* a line is less steep than the clock by one in so many; clocks are adjusted by less as a rule */
#define SAMPLE_TICKS 4000        /* a look at the clock that took more is of no use */

/* Whether the host's kernel keeps time by the TSC: then it found those of all processors alike and steady. */
static bool host_usable(void)
{
    u32 eax = 0x80000007, ebx, ecx = 0, edx;
    char name[8] = "";
    int fd;

    asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    if (!(edx & BIT(8))) /* invariant */
        return false;
    fd = open("/sys/devices/system/clocksource/clocksource0/current_clocksource", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    if (read(fd, name, sizeof(name) - 1) < 0)
        name[0] = 0;
    close(fd);
    return !strcmp(name, "tsc\n");
}

void tsc_clock_init(struct tsc_clock *t)
{
    pthread_mutex_init(&t->lock, NULL);
    t->usable = host_usable();
}

void tsc_clock_free(struct tsc_clock *t)
{
    pthread_mutex_destroy(&t->lock);
}

/* `length` 0: no line. */
static void line_set(struct tsc_clock *t, u64 tsc, u64 ns, u64 length)
{
    __atomic_store_n(&t->number, t->number + 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&t->tsc, tsc, __ATOMIC_SEQ_CST);
    __atomic_store_n(&t->ns, ns, __ATOMIC_SEQ_CST);
    __atomic_store_n(&t->length, length, __ATOMIC_SEQ_CST);
    __atomic_store_n(&t->number, t->number + 1, __ATOMIC_SEQ_CST);
}

static u64 on_line(u64 ticks, u64 slope, u64 ns)
{
    return (u64)((unsigned __int128)ticks * slope >> 32) + ns;
}

bool tsc_clock_line(const struct tsc_clock *t, u64 *ret)
{
    u64 number = __atomic_load_n(&t->number, __ATOMIC_ACQUIRE);
    u64 tsc = __atomic_load_n(&t->tsc, __ATOMIC_ACQUIRE), ns = __atomic_load_n(&t->ns, __ATOMIC_ACQUIRE);
    u64 slope = __atomic_load_n(&t->slope, __ATOMIC_ACQUIRE), length = __atomic_load_n(&t->length, __ATOMIC_ACQUIRE);
    u64 ticks;

    asm volatile("lfence" : : : "memory");
    ticks = __builtin_ia32_rdtsc() - tsc; /* huge if this processor's counter is behind, which does no harm */

    *ret = on_line(ticks, slope, ns);
    return ticks < length && !(number & 1) && __atomic_load_n(&t->number, __ATOMIC_ACQUIRE) == number;
}

/* What nobody may read less than from now on, at that time of the host's. */
static u64 line_reached(const struct tsc_clock *t, u64 tsc)
{
    return t->length ? on_line(MIN(tsc - t->tsc, t->length), t->slope, t->ns) : 0;
}

static void forget(struct tsc_clock *t, u64 offset)
{
    line_set(t, 0, 0, 0);
    t->offset = offset;
    t->slope = 0;
    t->first_tsc = t->first_ns = 0;
}

/* A reset may just have counted from the clock itself, which is never to be more than is read from now on. */
static void line_end(struct tsc_clock *t)
{
    u64 tsc = __builtin_ia32_rdtsc();

    if (t->length)
        line_set(t, tsc, line_reached(t, tsc), 1);
}

void tsc_clock_check(struct tsc_clock *t, const struct clock *clock)
{
    if (!t->usable)
        return;
    pthread_mutex_lock(&t->lock);
    if (!clock->running || clock->slower != 1 || t->offset != clock->offset)
        forget(t, clock->offset);
    else
        line_end(t);
    pthread_mutex_unlock(&t->lock);
}

/* The clock showed `ns` at `tsc`. */
static void measure(struct tsc_clock *t, u64 tsc, u64 ns)
{
    u64 took = ns - t->first_ns, ticks = tsc - t->first_tsc;

    if (t->first_tsc && took < SPEED_NS_MIN)
        return;
    if (t->first_tsc && took < UINT32_MAX && tsc > t->first_tsc) {
        t->slope = (took << 32) / ticks;
        t->slope -= t->slope / SLOWER;
    }
    if (!t->first_tsc || took > SPEED_NS_MAX) {
        t->first_tsc = tsc;
        t->first_ns = ns;
    }
}

/* A line from here on, if one can be drawn. Where it begins. */
static u64 line_draw(struct tsc_clock *t, const struct clock *clock)
{
    u64 before = __builtin_ia32_rdtsc(), ns = clock_now(clock), tsc = __builtin_ia32_rdtsc();

    ns = MAX(ns, line_reached(t, tsc));
    if (tsc - before > SAMPLE_TICKS) {
        line_set(t, tsc, ns, t->slope ? 1 : 0); /* what was reached is not forgotten */
        return ns;
    }
    line_set(t, tsc, ns, 0);
    measure(t, tsc, ns);
    if (t->slope)
        line_set(t, tsc, ns, ((u64)LINE_NS << 32) / t->slope);
    return ns;
}

u64 tsc_clock_read(struct vcpu *c)
{
    struct tsc_clock *t = &c->group->tsc_clock;
    const struct clock *clock = c->group->config.clock;
    u64 ns;

    if (tsc_clock_line(t, &ns))
        return ns;
    ext_save(c);
    if (!t->usable || !clock->running || clock->slower != 1)
        return clock_now(clock);
    pthread_mutex_lock(&t->lock);
    if (!tsc_clock_line(t, &ns))
        ns = line_draw(t, clock);
    pthread_mutex_unlock(&t->lock);
    return ns;
}
