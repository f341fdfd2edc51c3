/* Coprocessor errors by interrupt: see irq13.h. Port F1h, which reset the 80287, does nothing. */
#include "dev/irq13.h"
#include "machine/machine.h"

struct irq13_state {
    bool ferr;    /* the pin as the processors drive it */
    bool latched; /* interrupt 13 is requested */
    bool ignne;
    u8 pad;
};

struct irq13 {
    struct device dev;
    struct irq13_state s;
    struct irq irq;
};

static const struct state_field irq13_fields[] = {STATE(struct irq13_state, ferr), STATE(struct irq13_state, latched),
                                                  STATE(struct irq13_state, ignne), STATE(struct irq13_state, pad), STATE_END};

static void update(struct irq13 *d, bool latched, bool ignne)
{
    d->s.latched = latched;
    d->s.ignne = ignne;
    irq_set(&d->irq, latched);
    machine_set_ignne(d->dev.machine, ignne);
}

static void irq13_ferr(struct device *dev, bool level)
{
    struct irq13 *d = container_of(dev, struct irq13, dev);
    bool edge = level && !d->s.ferr;

    d->s.ferr = level;
    update(d, d->s.latched || edge, d->s.ignne && level);
}

static void irq13_write(struct device *dev, u64 offset, int size, u64 val)
{
    struct irq13 *d = container_of(dev, struct irq13, dev);

    update(d, false, d->s.ferr);
}

static u64 irq13_read(struct device *dev, u64 offset, int size)
{
    return 0xff;
}

static const struct io_ops irq13_ops = {irq13_read, irq13_write, 1, 1};

static void irq13_reset(struct device *dev)
{
    struct irq13 *d = container_of(dev, struct irq13, dev);

    d->s = (struct irq13_state){0};
    update(d, false, false);
}

const struct device_type irq13_type = {
    .name = "irq13",
    .size = sizeof(struct irq13),
    .state_offset = offsetof(struct irq13, s),
    .state = STATE_TABLE(struct irq13_state, irq13_fields, 1),
    .reset = irq13_reset,
};

struct device *irq13_create(struct machine *m, u16 port, const struct irq *irq)
{
    struct irq13 *d = container_of(device_add(m, &irq13_type), struct irq13, dev);

    d->irq = *irq;
    m->ferr = irq13_ferr;
    m->ferr_device = &d->dev;
    pio_map(m, port, 2, &d->dev, &irq13_ops);
    return &d->dev;
}
