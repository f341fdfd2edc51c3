/* Interrupt wires. A device holds a `struct irq *` for each of its outputs; the board connects it to an input pin.
 * Machine lock held throughout. */
#ifndef MACHINE_IRQ_H
#define MACHINE_IRQ_H
#include "base/types.h"

struct irq {
    void (*set)(void *ctx, int pin, bool level);
    void *ctx;
    int pin;
};

/* Drives the wire to a level. Edge-triggered inputs see the change. NULL or all zero: the output is not connected. */
static inline void irq_set(const struct irq *irq, bool level)
{
    if (irq && irq->set)
        irq->set(irq->ctx, irq->pin, level);
}

/* A rising edge and back. */
static inline void irq_pulse(const struct irq *irq)
{
    irq_set(irq, true);
    irq_set(irq, false);
}

#endif
