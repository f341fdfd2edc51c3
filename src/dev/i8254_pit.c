/* Intel 8254: three counters in modes 0 to 5, binary and BCD, counter latch and read-back; and port 0x61.
 *
 * Nothing counts here. A channel remembers at which tick of its 1.193182 MHz clock it was loaded, and everything
 * else follows from the tick that the machine's clock shows now. Only channel 0's OUT has a timer, for its rising
 * edges; a late callback raises one edge, however many were missed, and the next deadline still counts from the
 * load, so nothing drifts. Left out: the pulses' low phase as seen from outside between callbacks (the PIC latches
 * edges). */
#include "dev/i8254_pit.h"
#include "base/trace.h"

#define NS_PER_S 1000000000ull
#define REFRESH_NS 15085 /* DRAM refresh: channel 1 at its customary count of 18 */
#define NO_TICK UINT64_MAX
#define FASTEST 16 /* ticks between edges of channel 0 at most, so that a hostile count cannot keep the host busy */

enum { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };
enum { READ_BACK = 3, READ_BACK_NO_COUNT = 0x20, READ_BACK_NO_STATUS = 0x10 };
enum { PORT61_GATE2 = 0x01, PORT61_WRITABLE = 0x0f, PORT61_REFRESH = 0x10, PORT61_OUT2 = 0x20 };

struct i8254_channel {
    u64 start;       /* tick at which the counter holds `count`, the first of its period */
    u64 next_at;     /* while next_count waits: the tick at which it takes over */
    u64 frozen;      /* while the gate holds the count: ticks since start */
    u32 count;       /* 1 to 65536 */
    u32 next_count;  /* written while a period runs (modes 2, 3) or before a trigger (1, 5); 0: none waits */
    u16 latched;     /* by the counter latch command */
    u8 latched_status;
    u8 low_byte;     /* the first half of a two-byte count */
    u8 mode, access; /* access: ACCESS_LOW to ACCESS_BOTH */
    u8 control; /* bits 5 to 0 of the last control word as written, for the status; modes 6 and 7 are 2 and 3 */
    bool gate;
    bool next_low;   /* mode 3: the new count takes over at the end of the high half, and begins with its low half */
    bool loaded;     /* a count was written since the control word */
    bool started;    /* modes 1 and 5: a trigger came */
    bool stopped;    /* the gate holds the count */
    bool write_high, read_high; /* which half of a two-byte access is next */
    bool count_latched, status_latched;
};

struct i8254_pit_state {
    struct i8254_channel c0, c1, c2;
    u64 rise0; /* tick at which channel 0's OUT rises next */
    u8 port61;
    bool out0; /* level of the wire */
    u8 pad[6];
};

struct i8254_pit {
    struct device dev;
    struct i8254_pit_state s;
    struct irq out0;
    struct timer timer;
};

#define PIT_STATE(f) STATE(struct i8254_pit_state, f)
#define CHANNEL_FIELDS(c)                                                                                           \
    PIT_STATE(c.start), PIT_STATE(c.next_at), PIT_STATE(c.frozen), PIT_STATE(c.count), PIT_STATE(c.next_count),   \
    PIT_STATE(c.latched), PIT_STATE(c.latched_status), PIT_STATE(c.low_byte), PIT_STATE(c.mode),                     \
    PIT_STATE(c.access), PIT_STATE(c.control), PIT_STATE(c.gate), PIT_STATE(c.next_low), PIT_STATE(c.loaded),        \
    PIT_STATE(c.started), PIT_STATE(c.stopped), PIT_STATE(c.write_high), PIT_STATE(c.read_high),                   \
    PIT_STATE(c.count_latched), PIT_STATE(c.status_latched)

static const struct state_field i8254_pit_fields[] = {
    CHANNEL_FIELDS(c0), CHANNEL_FIELDS(c1), CHANNEL_FIELDS(c2), PIT_STATE(rise0), PIT_STATE(port61), PIT_STATE(out0),
    STATE_ARRAY(struct i8254_pit_state, pad), STATE_END};

static struct i8254_channel *channel(struct i8254_pit *p, u64 n)
{
    return n == 0 ? &p->s.c0 : n == 1 ? &p->s.c1 : &p->s.c2;
}

static u64 tick_now(const struct i8254_pit *p)
{
    return (u64)((u128)machine_now(p->dev.machine) * I8254_PIT_HZ / NS_PER_S);
}

/* The first nanosecond at which tick_now() shows `tick`. */
static u64 tick_ns(u64 tick)
{
    return (u64)(((u128)tick * NS_PER_S + I8254_PIT_HZ - 1) / I8254_PIT_HZ);
}

static bool periodic(const struct i8254_channel *c)
{
    return c->mode == 2 || c->mode == 3;
}

static bool bcd(const struct i8254_channel *c)
{
    return c->control & 1;
}

static bool triggered(const struct i8254_channel *c)
{
    return c->mode == 1 || c->mode == 5;
}

/* Whether the counting element runs from a count of the present mode (gate aside). */
static bool counting(const struct i8254_channel *c)
{
    return c->loaded && (!triggered(c) || c->started);
}

/* Mode 3 is high for the longer half. */
static u32 high_ticks(u32 count)
{
    return (count + 1) / 2;
}

/* Where the period of the waiting count begins. */
static u64 next_start(const struct i8254_channel *c)
{
    return c->next_low ? c->next_at - high_ticks(c->next_count) : c->next_at;
}

/* A count that waited for the end of a period takes over. */
static void catch_up(struct i8254_channel *c, u64 now)
{
    if (!c->next_count || c->stopped || now < c->next_at)
        return;
    c->start = next_start(c);
    c->count = c->next_count;
    c->next_count = 0;
}

static u64 elapsed(const struct i8254_channel *c, u64 now)
{
    if (c->stopped)
        return c->frozen;
    return (s64)(now - c->start) > 0 ? now - c->start : 0;
}

static bool out_level(const struct i8254_channel *c, u64 now)
{
    u64 e = elapsed(c, now);

    if (!counting(c))
        return c->mode != 0;
    switch (c->mode) {
    case 0: case 1: return e >= c->count;
    case 2: return c->stopped || e % c->count != c->count - 1;
    case 3: return c->stopped || e % c->count < high_ticks(c->count);
    default: return e != c->count;
    }
}

/* The first tick after `now` at which OUT rises while nobody touches the channel. */
static u64 next_rise(const struct i8254_channel *c, u64 now)
{
    u64 rise;

    if (!counting(c) || c->stopped)
        return NO_TICK;
    if (!periodic(c)) {
        rise = c->start + c->count + (c->mode >= 4);
        return rise > now ? rise : NO_TICK;
    }
    if (c->next_count) {
        rise = c->next_low ? next_start(c) + c->next_count : c->next_at;
        return MAX(rise, now + 1);
    }
    /* the data sheet forbids a count of 1 here: OUT never moves */
    return c->count > 1 ? c->start + (elapsed(c, now) / c->count + 1) * c->count : NO_TICK;
}

static u16 to_bcd(u32 n)
{
    n %= 10000;
    return (u16)(n / 1000 << 12 | n / 100 % 10 << 8 | n / 10 % 10 << 4 | n % 10);
}

/* Digits above nine count with their weight, as the chip's subtraction would first meet them. */
static u32 from_bcd(u16 n)
{
    return (n >> 12) * 1000u + (n >> 8 & 15) * 100u + (n >> 4 & 15) * 10u + (n & 15);
}

/* What the counting element shows. */
static u16 count_read(const struct i8254_channel *c, u64 now)
{
    u32 span = bcd(c) ? 10000 : 65536, val = 0;
    u64 e = elapsed(c, now);

    if (counting(c)) {
        if (c->mode == 2)
            val = c->count - (u32)(e % c->count);
        else if (c->mode == 3) /* by twos, once for each half; odd counts start one lower */
            val = (c->count & ~1u) - 2 * ((u32)(e % c->count) % high_ticks(c->count));
        else
            val = (c->count + span - (u32)(e % span)) % span;
    }
    return bcd(c) ? to_bcd(val) : (u16)val;
}

static u8 status_read(const struct i8254_channel *c, u64 now)
{
    bool null_count = !c->loaded || c->next_count || (s64)(now - c->start) < 0;

    return (u8)(out_level(c, now) << 7 | null_count << 6 | (c->control & 0x3f));
}

static u64 rise_ns(const struct i8254_pit *p)
{
    return p->s.rise0 == NO_TICK ? TIMER_NEVER : tick_ns(p->s.rise0);
}

/* Drives OUT0: the edge that is due, if any, then the level; and arms the next one. */
static void out0_update(struct i8254_pit *p)
{
    struct i8254_channel *c = &p->s.c0;
    u64 now = tick_now(p);
    bool rose = p->s.rise0 <= now, level;

    catch_up(c, now);
    level = out_level(c, now);
    if (rose && p->s.out0)
        irq_set(&p->out0, p->s.out0 = false);
    if (rose)
        irq_set(&p->out0, p->s.out0 = true);
    if (level != p->s.out0)
        irq_set(&p->out0, p->s.out0 = level);
    p->s.rise0 = next_rise(c, periodic(c) && c->count < FASTEST ? now + FASTEST : now);
    timer_set(&p->timer, rise_ns(p));
}

static void out0_rises(void *pit)
{
    out0_update(pit);
}

/* A new count goes to the counting element with the next clock; in modes 2 and 3 a running period (half of it, in
 * mode 3) ends first; modes 1 and 5 wait for their trigger. */
static void count_load(struct i8254_channel *c, u32 count, u64 now)
{
    u64 e = elapsed(c, now);

    if (triggered(c) && c->started) {
        c->next_count = count; /* for the next trigger */
        c->next_at = NO_TICK;
        c->next_low = false;
    } else if (periodic(c) && c->loaded && (s64)(now - c->start) >= 0 && !c->stopped) {
        u64 period = c->start + e / c->count * c->count;

        c->next_low = c->mode == 3 && e % c->count < high_ticks(c->count);
        c->next_at = period + (c->next_low ? high_ticks(c->count) : c->count);
        c->next_count = count;
    } else {
        c->count = count;
        c->start = now + 1;
        c->frozen = 0;
    }
    c->loaded = true;
}

static void count_write(struct i8254_channel *c, u8 val, u64 now)
{
    u16 raw = c->access == ACCESS_LOW ? val : (u16)(val << 8);
    u32 count;

    if (c->access == ACCESS_BOTH && !c->write_high) {
        c->low_byte = val;
        c->write_high = true;
        if (c->mode == 0) /* the first byte stops the count, and OUT is low */
            c->loaded = false;
        return;
    }
    if (c->access == ACCESS_BOTH)
        raw |= c->low_byte;
    c->write_high = false;
    count = bcd(c) ? from_bcd(raw) : raw;
    if (!count)
        count = bcd(c) ? 10000 : 65536;
    count_load(c, count, now);
}

static void gate_write(struct i8254_channel *c, bool gate, u64 now)
{
    bool rises = gate && !c->gate;

    if (!gate && c->gate && !triggered(c)) {
        c->frozen = elapsed(c, now);
        c->stopped = true;
    }
    c->gate = gate;
    if (!rises)
        return;
    if (triggered(c) || periodic(c)) { /* the next clock loads the count anew */
        if (c->next_count)
            c->count = c->next_count;
        c->next_count = 0;
        c->start = now + 1;
        c->started = c->loaded;
    } else {
        c->start = now - c->frozen;
    }
    c->stopped = false;
}

static void latch_count(struct i8254_channel *c, u64 now)
{
    if (c->count_latched)
        return;
    c->latched = count_read(c, now);
    c->count_latched = true;
    c->read_high = false;
}

static void latch_status(struct i8254_channel *c, u64 now)
{
    if (c->status_latched)
        return;
    c->latched_status = status_read(c, now);
    c->status_latched = true;
}

static void read_back(struct i8254_pit *p, u8 val, u64 now)
{
    for (u64 n = 0; n < 3; n++) {
        if (!(val >> (n + 1) & 1))
            continue;
        if (!(val & READ_BACK_NO_COUNT))
            latch_count(channel(p, n), now);
        if (!(val & READ_BACK_NO_STATUS))
            latch_status(channel(p, n), now);
    }
}

static void mode_write(struct i8254_channel *c, u8 val)
{
    u8 mode = val >> 1 & 7;

    c->mode = mode > 5 ? mode - 4 : mode;
    c->access = val >> 4 & 3;
    c->control = val & 0x3f;
    c->loaded = c->started = c->write_high = c->read_high = false;
    c->count_latched = c->status_latched = false;
    c->next_count = 0;
    c->frozen = 0;
    c->stopped = !c->gate && !triggered(c);
}

static void control_write(struct i8254_pit *p, u8 val, u64 now)
{
    u8 n = val >> 6;

    if (n == READ_BACK) {
        read_back(p, val, now);
    } else if ((val >> 4 & 3) == ACCESS_LATCH) {
        latch_count(channel(p, n), now);
    } else {
        trace(PIT, "channel %d: mode %d, access %d%s", n, val >> 1 & 7, val >> 4 & 3, val & 1 ? ", BCD" : "");
        mode_write(channel(p, n), val);
    }
}

static void i8254_pit_write(struct device *dev, u64 offset, int size, u64 val)
{
    struct i8254_pit *p = container_of(dev, struct i8254_pit, dev);
    u64 now = tick_now(p);

    for (u64 n = 0; n < 3; n++)
        catch_up(channel(p, n), now);
    if (offset == 3) {
        control_write(p, (u8)val, now);
    } else {
        count_write(channel(p, offset), (u8)val, now);
        trace(PIT, "channel %d: count %u", (int)offset, channel(p, offset)->count);
    }
    out0_update(p);
}

static u8 count_half(struct i8254_channel *c, u16 val)
{
    bool high = c->access == ACCESS_HIGH || (c->access == ACCESS_BOTH && c->read_high);

    if (c->access == ACCESS_BOTH)
        c->read_high = !c->read_high;
    if (c->access != ACCESS_BOTH || !c->read_high)
        c->count_latched = false;
    return (u8)(high ? val >> 8 : val);
}

static u64 i8254_pit_read(struct device *dev, u64 offset, int size)
{
    struct i8254_pit *p = container_of(dev, struct i8254_pit, dev);
    struct i8254_channel *c = channel(p, offset);
    u64 now = tick_now(p);

    if (offset == 3)
        return 0xff; /* no operation: the data bus floats */
    catch_up(c, now);
    if (c->status_latched) {
        c->status_latched = false;
        return c->latched_status;
    }
    return count_half(c, c->count_latched ? c->latched : count_read(c, now));
}

static u64 port61_read(struct device *dev, u64 offset, int size)
{
    struct i8254_pit *p = container_of(dev, struct i8254_pit, dev);
    u64 now = tick_now(p);
    bool refresh = machine_now(dev->machine) / REFRESH_NS & 1;

    catch_up(&p->s.c2, now);
    return p->s.port61 | (refresh ? PORT61_REFRESH : 0) | (out_level(&p->s.c2, now) ? PORT61_OUT2 : 0);
}

static void port61_write(struct device *dev, u64 offset, int size, u64 val)
{
    struct i8254_pit *p = container_of(dev, struct i8254_pit, dev);

    catch_up(&p->s.c2, tick_now(p));
    p->s.port61 = val & PORT61_WRITABLE;
    gate_write(&p->s.c2, val & PORT61_GATE2, tick_now(p));
}

static const struct io_ops i8254_pit_ops = {i8254_pit_read, i8254_pit_write, 1, 1};
static const struct io_ops port61_ops = {port61_read, port61_write, 1, 1};

/* Undefined on hardware until the first control words; here mode 0 without a count, whose OUT is low. */
static void i8254_pit_reset(struct device *dev)
{
    struct i8254_pit *p = container_of(dev, struct i8254_pit, dev);

    irq_set(&p->out0, false);
    p->s = (struct i8254_pit_state){.rise0 = NO_TICK};
    for (u64 n = 0; n < 3; n++) {
        *channel(p, n) = (struct i8254_channel){
            .count = 65536, .access = ACCESS_BOTH, .control = ACCESS_BOTH << 4, .gate = n != 2};
        channel(p, n)->stopped = n == 2;
    }
    out0_update(p);
}

/* A stream can hold anything: the arithmetic above needs counts within range and modes that exist. */
static void channel_check(struct i8254_channel *c)
{
    c->count = c->count < 1 || c->count > 65536 ? 65536 : c->count;
    c->next_count = c->next_count > 65536 ? 0 : c->next_count;
    c->mode = c->mode > 5 ? 3 : c->mode;
    c->access = c->access < ACCESS_LOW || c->access > ACCESS_BOTH ? ACCESS_BOTH : c->access;
}

static void i8254_pit_loaded(struct device *dev)
{
    struct i8254_pit *p = container_of(dev, struct i8254_pit, dev);

    for (u64 n = 0; n < 3; n++)
        channel_check(channel(p, n));
    p->s.port61 &= PORT61_WRITABLE;
    irq_set(&p->out0, p->s.out0);
    timer_set(&p->timer, rise_ns(p));
}

static void i8254_pit_destroy(struct device *dev)
{
    timer_cancel(&container_of(dev, struct i8254_pit, dev)->timer);
}

static const struct device_type i8254_pit_type = {
    .name = "i8254_pit",
    .size = sizeof(struct i8254_pit),
    .state_offset = offsetof(struct i8254_pit, s),
    .state = STATE_TABLE(struct i8254_pit_state, i8254_pit_fields, 1),
    .reset = i8254_pit_reset,
    .loaded = i8254_pit_loaded,
    .destroy = i8254_pit_destroy,
};

struct device *i8254_pit_create(struct machine *m, u16 port, u16 control_port, const struct irq *out0)
{
    struct device *dev = device_add(m, &i8254_pit_type);
    struct i8254_pit *p = container_of(dev, struct i8254_pit, dev);

    if (out0)
        p->out0 = *out0;
    timer_init(&p->timer, &m->timers, out0_rises, p);
    pio_map(m, port, 4, dev, &i8254_pit_ops);
    pio_map(m, control_port, 1, dev, &port61_ops);
    i8254_pit_reset(dev);
    return dev;
}
