/* High precision event timer: main counter, three timers (all periodic and 64-bit capable), legacy replacement routing.
 *
 * The counter is the machine's clock in units of 10 ns, plus a base. Each enabled timer has a deadline at its next
 * match; a late periodic match is raised once and the comparator moves on by whole periods, so nothing drifts or
 * piles up. Left out: FSB (message) delivery, which the capability bits do not show. */
#include "dev/hpet.h"
#include "base/trace.h"

#define TICK_NS (HPET_PERIOD_FS / 1000000u)
#define HPET_SIZE 0x400
/* Counter ticks between a timer's interrupts at least, so that a hostile period cannot keep the host busy. */
#define FASTEST 2000

enum { HPET_ID = 0x00, HPET_CFG = 0x10, HPET_STATUS = 0x20, HPET_COUNTER = 0xf0 };
enum { HPET_TIMER = 0x100, HPET_TIMER_STRIDE = 0x20 };
enum { TN_CFG = 0x00, TN_CMP = 0x08 };
enum { ID_REVISION = 1, ID_TIMERS = (HPET_TIMERS - 1) << 8, ID_COUNTER_64 = 0x2000, ID_LEGACY = 0x8000 };
enum { CFG_ENABLE = 1, CFG_LEGACY = 2 };
enum {
    TN_LEVEL = 0x02, TN_ENABLE = 0x04, TN_PERIODIC = 0x08, TN_PERIODIC_CAP = 0x10, TN_SIZE_CAP = 0x20,
    TN_VAL_SET = 0x40, TN_32BIT = 0x100, TN_ROUTE = 0x3e00, TN_ROUTE_SHIFT = 9,
    TN_WRITABLE = TN_LEVEL | TN_ENABLE | TN_PERIODIC | TN_VAL_SET | TN_32BIT | TN_ROUTE,
};
#define TN_ROUTE_CAP ((u64)((1u << HPET_ROUTES) - 1) << HPET_FIRST_ROUTE << 32)
#define TN_FIXED (TN_ROUTE_CAP | TN_PERIODIC_CAP | TN_SIZE_CAP)

struct hpet_timer_state {
    u64 config, comparator, period;
    u64 deadline; /* clock ns of the next match, or TIMER_NEVER; kept, because a match that is due must not get lost */
};

struct hpet_state {
    struct hpet_timer_state t0, t1, t2;
    u64 base;       /* the counter while halted; while it runs, counter minus clock */
    u32 config;
    u32 status;     /* bit n: level-triggered timer n is asserted */
    u32 line_level; /* levels of the wires: bits as in enum line */
    bool pit_in, rtc_in;
    u8 pad[2];
};

enum line { LINE_IRQ0, LINE_IRQ8, LINE_IOAPIC, LINE_COUNT = LINE_IOAPIC + HPET_ROUTES };

struct hpet_timer {
    struct hpet *hpet;
    int index;
    struct timer timer;
};

struct hpet {
    struct device dev;
    struct hpet_state s;
    struct hpet_wires wires;
    struct hpet_timer timer[HPET_TIMERS];
};

#define HPET_STATE(f) STATE(struct hpet_state, f)
#define TIMER_FIELDS(t) HPET_STATE(t.config), HPET_STATE(t.comparator), HPET_STATE(t.period), HPET_STATE(t.deadline)

static const struct state_field hpet_fields[] = {
    TIMER_FIELDS(t0), TIMER_FIELDS(t1), TIMER_FIELDS(t2), HPET_STATE(base), HPET_STATE(config), HPET_STATE(status),
    HPET_STATE(line_level), HPET_STATE(pit_in), HPET_STATE(rtc_in), STATE_ARRAY(struct hpet_state, pad), STATE_END};

static struct hpet_timer_state *timer_state(struct hpet *h, int n)
{
    return n == 0 ? &h->s.t0 : n == 1 ? &h->s.t1 : &h->s.t2;
}

static u64 clock_ticks(const struct hpet *h)
{
    return machine_now(h->dev.machine) / TICK_NS;
}

static bool running(const struct hpet *h)
{
    return h->s.config & CFG_ENABLE;
}

/* The counter at a reading of the clock. */
static u64 counter_at(const struct hpet *h, u64 now)
{
    return running(h) ? h->s.base + now : h->s.base;
}

static u64 counter(const struct hpet *h)
{
    return counter_at(h, clock_ticks(h));
}

/* The bits in which comparator and counter are compared. */
static u64 width_mask(const struct hpet_timer_state *t)
{
    return t->config & TN_32BIT ? UINT32_MAX : UINT64_MAX;
}

static const struct irq *line_wire(const struct hpet *h, enum line line)
{
    switch (line) {
    case LINE_IRQ0: return &h->wires.irq0;
    case LINE_IRQ8: return &h->wires.irq8;
    default: return &h->wires.ioapic[line - LINE_IOAPIC];
    }
}

/* The wire that timer n drives. */
static enum line timer_line(struct hpet *h, int n)
{
    if (h->s.config & CFG_LEGACY && n < 2)
        return n == 0 ? LINE_IRQ0 : LINE_IRQ8;
    return LINE_IOAPIC + (int)(timer_state(h, n)->config >> TN_ROUTE_SHIFT & (HPET_ROUTES - 1));
}

/* Whether timer n's configuration lets it interrupt: enabled, and routed to a wire that exists. */
static bool timer_connected(struct hpet *h, int n)
{
    u64 config = timer_state(h, n)->config, route = (config & TN_ROUTE) >> TN_ROUTE_SHIFT;

    if (!(config & TN_ENABLE))
        return false;
    return (h->s.config & CFG_LEGACY && n < 2) || (route >= HPET_FIRST_ROUTE && route < HPET_FIRST_ROUTE + HPET_ROUTES);
}

/* Every wire to the level that its sources give it. */
static void lines_update(struct hpet *h)
{
    u32 level = 0;

    for (int n = 0; n < HPET_TIMERS; n++)
        if (h->s.status >> n & 1 && timer_connected(h, n) && timer_state(h, n)->config & TN_LEVEL)
            level |= 1u << timer_line(h, n);
    if (!(h->s.config & CFG_LEGACY))
        level |= (u32)h->s.pit_in << LINE_IRQ0 | (u32)h->s.rtc_in << LINE_IRQ8;
    for (int line = 0; line < LINE_COUNT; line++)
        if ((level ^ h->s.line_level) >> line & 1)
            irq_set(line_wire(h, line), level >> line & 1);
    h->s.line_level = level;
}

static void timer_interrupt(struct hpet *h, int n)
{
    struct hpet_timer_state *t = timer_state(h, n);

    if (t->config & TN_LEVEL) {
        h->s.status |= 1u << n;
        lines_update(h);
    } else if (timer_connected(h, n)) {
        irq_pulse(line_wire(h, timer_line(h, n)));
    }
}

static bool periodic(const struct hpet_timer_state *t)
{
    return t->config & TN_PERIODIC && t->period & width_mask(t);
}

/* The counter's way from `now` to the next match; 0: it matches now. */
static u64 ticks_to_match(const struct hpet *h, const struct hpet_timer_state *t, u64 now)
{
    u64 left = (t->comparator - counter_at(h, now)) & width_mask(t);

    return periodic(t) && t->period < FASTEST ? MAX(left, FASTEST) : left;
}

static void deadline_set(struct hpet *h, int n, u64 now, u64 ticks)
{
    u64 at = now + ticks;
    bool never = !running(h) || at < ticks || at > UINT64_MAX / TICK_NS;

    timer_state(h, n)->deadline = never ? TIMER_NEVER : at * TICK_NS;
    timer_set(&h->timer[n].timer, timer_state(h, n)->deadline);
}

static void timer_arm(struct hpet *h, int n)
{
    u64 now = clock_ticks(h);

    deadline_set(h, n, now, ticks_to_match(h, timer_state(h, n), now));
}

static void timers_arm(struct hpet *h)
{
    for (int n = 0; n < HPET_TIMERS; n++)
        timer_arm(h, n);
}

/* The first match after the counter's value at `now`: whole periods from the last one. */
static void comparator_advance(struct hpet *h, struct hpet_timer_state *t, u64 now)
{
    u64 mask = width_mask(t), period = t->period & mask, behind = (counter_at(h, now) - t->comparator) & mask;

    t->comparator += (behind / period + 1) * period;
    if (t->config & TN_32BIT)
        t->comparator &= UINT32_MAX;
}

/* A one-shot match comes again when the counter has gone all the way round. All by one reading of the clock: if the host stopped us
 * between two for a period, the comparator would be behind the second, and the timer silent until the counter is round. */
static void timer_match(struct hpet *h, int n)
{
    struct hpet_timer_state *t = timer_state(h, n);
    u64 now = clock_ticks(h), ticks;

    if (periodic(t))
        comparator_advance(h, t, now);
    timer_interrupt(h, n);
    ticks = ticks_to_match(h, t, now);
    deadline_set(h, n, now, ticks ? ticks : t->config & TN_32BIT ? 1ull << 32 : UINT64_MAX);
}

static void timer_due(void *ctx)
{
    struct hpet_timer *timer = ctx;

    timer_match(timer->hpet, timer->index);
}

/* Matches that are due come before the effects of a register access. */
static void timers_catch_up(struct hpet *h)
{
    for (int n = 0; n < HPET_TIMERS; n++)
        if (timer_state(h, n)->deadline <= machine_now(h->dev.machine))
            timer_match(h, n);
}

/* Replaces 4 or 8 bytes of a register at `shift` bits. */
static u64 merge(u64 old, u64 val, int shift, int size)
{
    u64 mask = (size == 8 ? UINT64_MAX : UINT32_MAX) << shift;

    return (old & ~mask) | (val << shift & mask);
}

static void config_write(struct hpet *h, u32 val)
{
    u32 config = val & (CFG_ENABLE | CFG_LEGACY);

    if ((config ^ h->s.config) & CFG_ENABLE)
        h->s.base += config & CFG_ENABLE ? -clock_ticks(h) : clock_ticks(h);
    h->s.config = config;
    trace(HPET, "config 0x%x", config);
    timers_arm(h);
    lines_update(h);
}

static void counter_write(struct hpet *h, u64 val, int shift, int size)
{
    u64 now = merge(counter(h), val, shift, size);

    h->s.base = running(h) ? now - clock_ticks(h) : now;
    timers_arm(h);
}

static void timer_config_write(struct hpet *h, int n, u64 val)
{
    struct hpet_timer_state *t = timer_state(h, n);
    u64 config = (val & TN_WRITABLE) | TN_FIXED, route = (val & TN_ROUTE) >> TN_ROUTE_SHIFT;

    if (!(TN_ROUTE_CAP >> 32 >> route & 1)) /* a route that does not exist does not stick */
        config = (config & ~(u64)TN_ROUTE) | (t->config & TN_ROUTE);
    t->config = config;
    if (config & TN_32BIT)
        t->comparator &= UINT32_MAX;
    if (!(config & TN_LEVEL))
        h->s.status &= ~(1u << n);
    trace(HPET, "timer %d: config 0x%llx", n, (unsigned long long)config);
    timer_arm(h, n);
    lines_update(h);
}

/* In periodic mode a write sets the period, and after VAL_SET (good for one write) the accumulator with it: systems
 * that write only once expect both. IA-PC HPET §2.3.9.2.2. */
static void timer_comparator_write(struct hpet *h, int n, u64 val, int shift, int size)
{
    struct hpet_timer_state *t = timer_state(h, n);

    if (t->config & TN_32BIT && shift)
        return;
    if (!(t->config & TN_PERIODIC) || t->config & TN_VAL_SET)
        t->comparator = merge(t->comparator, val, shift, size) & width_mask(t);
    if (t->config & TN_PERIODIC)
        t->period = merge(t->period, val, shift, size) & width_mask(t);
    t->config &= ~(u64)TN_VAL_SET;
    trace(HPET, "timer %d: comparator 0x%llx, period 0x%llx", n, (unsigned long long)t->comparator,
          (unsigned long long)t->period);
    timer_arm(h, n);
}

static u64 timer_register_read(struct hpet *h, u64 reg)
{
    u64 n = (reg - HPET_TIMER) / HPET_TIMER_STRIDE;

    if (n >= HPET_TIMERS)
        return 0;
    switch (reg % HPET_TIMER_STRIDE) {
    case TN_CFG: return timer_state(h, (int)n)->config;
    case TN_CMP: return timer_state(h, (int)n)->comparator;
    default: return 0;
    }
}

static u64 register_read(struct hpet *h, u64 reg)
{
    switch (reg) {
    case HPET_ID: return (u64)HPET_PERIOD_FS << 32 | hpet_block_id();
    case HPET_CFG: return h->s.config;
    case HPET_STATUS: return h->s.status;
    case HPET_COUNTER: return counter(h);
    default: return reg >= HPET_TIMER ? timer_register_read(h, reg) : 0;
    }
}

static void timer_register_write(struct hpet *h, u64 reg, u64 val, int shift, int size)
{
    u64 n = (reg - HPET_TIMER) / HPET_TIMER_STRIDE;

    if (n >= HPET_TIMERS)
        return;
    if (reg % HPET_TIMER_STRIDE == TN_CFG)
        timer_config_write(h, (int)n, merge(timer_state(h, (int)n)->config, val, shift, size));
    else if (reg % HPET_TIMER_STRIDE == TN_CMP)
        timer_comparator_write(h, (int)n, val, shift, size);
}

static u64 hpet_read(struct device *dev, u64 offset, int size)
{
    struct hpet *h = container_of(dev, struct hpet, dev);

    timers_catch_up(h);
    return register_read(h, offset & ~7ull) >> (offset & 4 ? 32 : 0);
}

static void hpet_write(struct device *dev, u64 offset, int size, u64 val)
{
    struct hpet *h = container_of(dev, struct hpet, dev);
    int shift = offset & 4 ? 32 : 0;

    timers_catch_up(h);
    switch (offset & ~7ull) {
    case HPET_CFG: config_write(h, (u32)merge(h->s.config, val, shift, size)); break;
    case HPET_STATUS:
        h->s.status &= ~(u32)(val << shift);
        lines_update(h);
        break;
    case HPET_COUNTER: counter_write(h, val, shift, size); break;
    default:
        if (offset >= HPET_TIMER)
            timer_register_write(h, offset & ~7ull, val, shift, size);
    }
}

static const struct io_ops hpet_ops = {hpet_read, hpet_write, 4, 8};

void hpet_legacy_set(void *hpet, int pin, bool level)
{
    struct hpet *h = hpet;

    if (pin == HPET_PIT_IN)
        h->s.pit_in = level;
    else
        h->s.rtc_in = level;
    lines_update(h);
}

u32 hpet_block_id(void)
{
    return 0x8086u << 16 | ID_LEGACY | ID_COUNTER_64 | ID_TIMERS | ID_REVISION;
}

static void hpet_reset(struct device *dev)
{
    struct hpet *h = container_of(dev, struct hpet, dev);

    h->s.base = 0;
    h->s.config = h->s.status = 0;
    for (int n = 0; n < HPET_TIMERS; n++)
        *timer_state(h, n) = (struct hpet_timer_state){.config = TN_FIXED, .comparator = UINT64_MAX};
    timers_arm(h);
    lines_update(h);
}

static void hpet_loaded(struct device *dev)
{
    struct hpet *h = container_of(dev, struct hpet, dev);

    h->s.config &= CFG_ENABLE | CFG_LEGACY;
    for (int line = 0; line < LINE_COUNT; line++)
        irq_set(line_wire(h, line), h->s.line_level >> line & 1);
    for (int n = 0; n < HPET_TIMERS; n++)
        timer_set(&h->timer[n].timer, timer_state(h, n)->deadline);
}

static void hpet_destroy(struct device *dev)
{
    struct hpet *h = container_of(dev, struct hpet, dev);

    for (int n = 0; n < HPET_TIMERS; n++)
        timer_cancel(&h->timer[n].timer);
}

static const struct device_type hpet_type = {
    .name = "hpet",
    .size = sizeof(struct hpet),
    .state_offset = offsetof(struct hpet, s),
    .state = STATE_TABLE(struct hpet_state, hpet_fields, 1),
    .reset = hpet_reset,
    .loaded = hpet_loaded,
    .destroy = hpet_destroy,
};

struct device *hpet_create(struct machine *m, u64 gpa, const struct hpet_wires *wires)
{
    struct device *dev = device_add(m, &hpet_type);
    struct hpet *h = container_of(dev, struct hpet, dev);

    h->wires = *wires;
    for (int n = 0; n < HPET_TIMERS; n++) {
        h->timer[n].hpet = h;
        h->timer[n].index = n;
        timer_init(&h->timer[n].timer, &m->timers, timer_due, &h->timer[n]);
    }
    mmio_map(m, gpa, HPET_SIZE, dev, &hpet_ops);
    hpet_reset(dev);
    return dev;
}
