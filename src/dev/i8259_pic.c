/* Intel 8259A pair: initialization and operation command words, rotation, special mask, poll, automatic EOI, special
 * fully nested mode, cascade; edge or level by the PIIX's ELCR (ICW1's LTIM bit does nothing there, as in the PIIX).
 *
 * Deviation: an edge is latched until acknowledged; the data sheet withdraws the request when the input falls first.
 * A tick whose vCPU thread the host kept waiting would otherwise be lost as a spurious IRQ 7. Left out: MCS-80
 * vectors, buffered mode. */
#include "dev/i8259_pic.h"
#include "base/trace.h"

#include <stdlib.h>

#define CASCADE 2 /* the master's input that the slave's INT reaches */

enum { ICW1_IC4 = 0x01, ICW1_SNGL = 0x02, ICW1 = 0x10 };
enum { ICW4_AEOI = 0x02, ICW4_SFNM = 0x10 };
enum { OCW3_RIS = 0x01, OCW3_RR = 0x02, OCW3_POLL = 0x04, OCW3 = 0x08, OCW3_SMM = 0x20, OCW3_ESMM = 0x40 };

struct i8259 {
    u8 irr, isr, imr;
    u8 input;       /* levels of the IR pins */
    u8 elcr;        /* level-triggered pins */
    u8 vector_base; /* ICW2 */
    u8 icw_next;    /* the initialization word that port 1 takes next: 2 to 4; 0: operational */
    u8 lowest;      /* pin with the lowest priority: 7 unless rotated */
    bool icw4_wanted, single;
    bool auto_eoi, rotate_in_aeoi, special_nested, special_mask;
    bool poll, read_isr;
    bool int_out;
    u8 pad;
};

struct i8259_pic_state {
    struct i8259 master, slave;
};

struct i8259_pic {
    struct device dev;
    struct i8259_pic_state s;
    struct irq intr;
};

#define PIC_STATE(f) STATE(struct i8259_pic_state, f)
#define CHIP_FIELDS(c)                                                                                               \
    PIC_STATE(c.irr), PIC_STATE(c.isr), PIC_STATE(c.imr), PIC_STATE(c.input), PIC_STATE(c.elcr),                     \
    PIC_STATE(c.vector_base), PIC_STATE(c.icw_next), PIC_STATE(c.lowest), PIC_STATE(c.icw4_wanted),                  \
    PIC_STATE(c.single), PIC_STATE(c.auto_eoi), PIC_STATE(c.rotate_in_aeoi), PIC_STATE(c.special_nested),            \
    PIC_STATE(c.special_mask), PIC_STATE(c.poll), PIC_STATE(c.read_isr), PIC_STATE(c.int_out), PIC_STATE(c.pad)

static const struct state_field i8259_pic_fields[] = {CHIP_FIELDS(master), CHIP_FIELDS(slave), STATE_END};

/* Which bits of the ELCR exist: IRQ 0, 1, 2, 8 and 13 are always edge-triggered. */
enum { ELCR_MASTER = 0xf8, ELCR_SLAVE = 0xde };

/* Order of a pin in the present rotation: 0 is the highest priority. */
static int priority(const struct i8259 *c, int pin)
{
    return (pin - c->lowest - 1) & 7;
}

static int highest(const struct i8259 *c, u8 pins)
{
    for (int order = 0; order < 8; order++) {
        int pin = (c->lowest + 1 + order) & 7;

        if (pins >> pin & 1)
            return pin;
    }
    return -1;
}

/* The pin whose request the chip would put through now, or -1. */
static int chip_request(const struct i8259_pic *p, const struct i8259 *c)
{
    int pin = highest(c, c->irr & (u8)~c->imr);
    int serving = highest(c, c->special_mask ? c->isr & (u8)~c->imr : c->isr);

    if (pin < 0 || c->icw_next)
        return -1;
    if (serving < 0 || priority(c, pin) < priority(c, serving))
        return pin;
    /* special fully nested: the slave may interrupt its own service with a higher request */
    return c == &p->s.master && c->special_nested && pin == CASCADE && serving == CASCADE ? pin : -1;
}

static void update_master(struct i8259_pic *p)
{
    struct i8259 *c = &p->s.master;
    bool out = chip_request(p, c) >= 0;

    if (out == c->int_out)
        return;
    c->int_out = out;
    irq_set(&p->intr, out);
}

/* The slave's INT is wired to IR2, whose request follows it: it goes away when the slave has nothing left. */
static void update(struct i8259_pic *p)
{
    struct i8259 *m = &p->s.master, *s = &p->s.slave;

    s->int_out = chip_request(p, s) >= 0;
    m->irr = (u8)((m->irr & ~BIT(CASCADE)) | (u64)s->int_out << CASCADE);
    update_master(p);
}

void i8259_pic_set(void *pic, int pin, bool level)
{
    struct i8259_pic *p = pic;
    struct i8259 *c = pin < 8 ? &p->s.master : &p->s.slave;
    u8 bit = (u8)BIT(pin & 7), before = c->input;

    assert(pin >= 0 && pin < 16);
    if (pin == CASCADE)
        return;
    c->input = level ? c->input | bit : c->input & (u8)~bit;
    if (c->elcr & bit)
        c->irr = level ? c->irr | bit : c->irr & (u8)~bit;
    else if (level && !(before & bit))
        c->irr |= bit;
    update(p);
}

static void end_of_interrupt(struct i8259 *c, int pin, bool rotate)
{
    c->isr &= (u8)~BIT(pin);
    if (rotate)
        c->lowest = (u8)pin;
}

/* One INTA# sequence at one chip: returns the pin, 7 when its request has gone meanwhile. */
static int chip_ack(struct i8259_pic *p, struct i8259 *c)
{
    int pin = chip_request(p, c);

    if (pin < 0) {
        trace(PIC, "%s: spurious", c == &p->s.master ? "master" : "slave");
        return 7;
    }
    if (!(c->elcr >> pin & 1))
        c->irr &= (u8)~BIT(pin);
    if (c->auto_eoi)
        end_of_interrupt(c, pin, c->rotate_in_aeoi);
    else
        c->isr |= (u8)BIT(pin);
    return pin;
}

int i8259_pic_ack(struct device *dev)
{
    struct i8259_pic *p = container_of(dev, struct i8259_pic, dev);
    struct i8259 *m = &p->s.master, *s = &p->s.slave;
    bool cascaded = chip_request(p, m) == CASCADE && !m->single;
    int vector = m->vector_base + chip_ack(p, m);

    if (cascaded)
        vector = s->vector_base + chip_ack(p, s);
    /* INTR drops during the cycle even if another request follows at once */
    p->s.master.int_out = false;
    irq_set(&p->intr, false);
    update(p);
    trace(PIC, "ack: vector 0x%02x", vector);
    return vector;
}

/* The read that follows a poll command acts as INTA#. */
static u8 poll_read(struct i8259_pic *p, struct i8259 *c)
{
    int pin = chip_request(p, c);

    c->poll = false;
    if (pin < 0)
        return 0;
    chip_ack(p, c);
    update(p);
    return (u8)(0x80 | pin);
}

static void write_icw1(struct i8259 *c, u8 val)
{
    c->irr &= c->elcr; /* the edge sense circuits are reset */
    c->isr = c->imr = 0;
    c->lowest = 7;
    c->special_mask = c->poll = c->read_isr = false;
    c->auto_eoi = c->special_nested = c->rotate_in_aeoi = false;
    c->icw4_wanted = val & ICW1_IC4;
    c->single = val & ICW1_SNGL;
    c->icw_next = 2;
}

static void write_ocw2(struct i8259 *c, u8 val)
{
    int pin = val & 7, serving;
    bool rotate = val & 0x80;

    switch (val >> 5) {
    case 0: c->rotate_in_aeoi = false; break;
    case 4: c->rotate_in_aeoi = true; break;
    case 1: case 5: /* non-specific EOI; in special mask mode it spares what is masked */
        serving = highest(c, c->special_mask ? c->isr & (u8)~c->imr : c->isr);
        if (serving >= 0)
            end_of_interrupt(c, serving, rotate);
        break;
    case 3: case 7: end_of_interrupt(c, pin, rotate); break;
    case 6: c->lowest = (u8)pin; break;
    }
}

static void write_ocw3(struct i8259 *c, u8 val)
{
    if (val & OCW3_ESMM)
        c->special_mask = val & OCW3_SMM;
    if (val & OCW3_POLL)
        c->poll = true;
    else if (val & OCW3_RR)
        c->read_isr = val & OCW3_RIS;
}

static void write_icw_or_mask(struct i8259 *c, u8 val)
{
    switch (c->icw_next) {
    case 2:
        c->vector_base = val & 0xf8;
        c->icw_next = !c->single ? 3 : c->icw4_wanted ? 4 : 0;
        break;
    case 3: /* which pin the cascade is on: wired, so nothing to keep */
        c->icw_next = c->icw4_wanted ? 4 : 0;
        break;
    case 4:
        c->auto_eoi = val & ICW4_AEOI;
        c->special_nested = val & ICW4_SFNM;
        c->icw_next = 0;
        break;
    default: c->imr = val; break;
    }
}

static void chip_write(struct i8259_pic *p, struct i8259 *c, u64 offset, u8 val)
{
    trace(PIC, "%s: port %d <- 0x%02x", c == &p->s.master ? "master" : "slave", (int)offset, val);
    if (offset)
        write_icw_or_mask(c, val);
    else if (val & ICW1)
        write_icw1(c, val);
    else if (val & OCW3)
        write_ocw3(c, val);
    else
        write_ocw2(c, val);
    update(p);
}

static u8 chip_read(struct i8259_pic *p, struct i8259 *c, u64 offset)
{
    if (c->poll)
        return poll_read(p, c);
    if (offset)
        return c->imr;
    return c->read_isr ? c->isr : c->irr;
}

static u64 master_read(struct device *dev, u64 offset, int size)
{
    struct i8259_pic *p = container_of(dev, struct i8259_pic, dev);

    return chip_read(p, &p->s.master, offset);
}

static void master_write(struct device *dev, u64 offset, int size, u64 val)
{
    struct i8259_pic *p = container_of(dev, struct i8259_pic, dev);

    chip_write(p, &p->s.master, offset, (u8)val);
}

static u64 slave_read(struct device *dev, u64 offset, int size)
{
    struct i8259_pic *p = container_of(dev, struct i8259_pic, dev);

    return chip_read(p, &p->s.slave, offset);
}

static void slave_write(struct device *dev, u64 offset, int size, u64 val)
{
    struct i8259_pic *p = container_of(dev, struct i8259_pic, dev);

    chip_write(p, &p->s.slave, offset, (u8)val);
}

static u64 elcr_read(struct device *dev, u64 offset, int size)
{
    struct i8259_pic *p = container_of(dev, struct i8259_pic, dev);

    return offset ? p->s.slave.elcr : p->s.master.elcr;
}

static void elcr_write(struct device *dev, u64 offset, int size, u64 val)
{
    struct i8259_pic *p = container_of(dev, struct i8259_pic, dev);
    struct i8259 *c = offset ? &p->s.slave : &p->s.master;

    c->elcr = (u8)val & (offset ? ELCR_SLAVE : ELCR_MASTER);
    c->irr = (c->irr & (u8)~c->elcr) | (c->input & c->elcr);
    update(p);
}

static const struct io_ops master_ops = {master_read, master_write, 1, 1};
static const struct io_ops slave_ops = {slave_read, slave_write, 1, 1};
static const struct io_ops elcr_ops = {elcr_read, elcr_write, 1, 1};

/* Power-on contents are undefined; all masked is kind to guests that a loader starts without firmware. Inputs are
 * low: the devices behind them reset too. */
static void chip_reset(struct i8259 *c)
{
    *c = (struct i8259){.imr = 0xff, .lowest = 7};
}

static void i8259_pic_reset(struct device *dev)
{
    struct i8259_pic *p = container_of(dev, struct i8259_pic, dev);

    chip_reset(&p->s.master);
    chip_reset(&p->s.slave);
    irq_set(&p->intr, false);
}

static void i8259_pic_loaded(struct device *dev)
{
    struct i8259_pic *p = container_of(dev, struct i8259_pic, dev);

    /* the stream is not to be trusted: shifts and switches rely on these */
    p->s.master.lowest &= 7;
    p->s.slave.lowest &= 7;
    irq_set(&p->intr, p->s.master.int_out);
}

static const struct device_type i8259_pic_type = {
    .name = "i8259_pic",
    .size = sizeof(struct i8259_pic),
    .state_offset = offsetof(struct i8259_pic, s),
    .state = STATE_TABLE(struct i8259_pic_state, i8259_pic_fields, 1),
    .reset = i8259_pic_reset,
    .loaded = i8259_pic_loaded,
};

struct device *i8259_pic_create(struct machine *m, u16 master_port, u16 slave_port, u16 elcr_port,
                                const struct irq *intr)
{
    struct device *dev = device_add(m, &i8259_pic_type);
    struct i8259_pic *p = container_of(dev, struct i8259_pic, dev);

    if (intr)
        p->intr = *intr;
    pio_map(m, master_port, 2, dev, &master_ops);
    pio_map(m, slave_port, 2, dev, &slave_ops);
    pio_map(m, elcr_port, 2, dev, &elcr_ops);
    i8259_pic_reset(dev);
    return dev;
}
