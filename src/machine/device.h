/* What every device of a machine has in common.
 *
 * A device is one file in dev/, named after its chip. Its struct starts with `struct device dev`; what survives save
 * and restore lives in its member `s`, described by the type's state table. Device code runs with the machine lock
 * held, whether called from a vCPU thread (port and memory accesses) or from the loop thread (timers, host I/O). */
#ifndef MACHINE_DEVICE_H
#define MACHINE_DEVICE_H
#include "base/state.h"
#include "base/types.h"

struct machine;
struct device;

struct device_type {
    const char *name;         /* the chip, as in `i8254_pit` */
    size_t size;              /* of the struct that starts with struct device */
    size_t state_offset;      /* of member `s` in it */
    struct state_table state; /* fields == NULL: keeps nothing */
    void (*reset)(struct device *dev);    /* to the state after power-on or RESET#; may be NULL */
    void (*loaded)(struct device *dev);   /* after `s` was restored: re-arm timers, re-raise lines; may be NULL */
    void (*destroy)(struct device *dev);  /* frees what the device owns, not the device; may be NULL */
};

struct device {
    const struct device_type *type;
    struct machine *machine;
    char id[24]; /* unique in the machine: "i8254_pit", "virtio_blk.1" */
    struct device *next;
};

/* Allocates a zeroed device of `type`, names it, and appends it to the machine, which owns it from now on.
 * Never fails: memory is reserved before the guest runs, and running out then is fatal with a message. */
struct device *device_add(struct machine *m, const struct device_type *type);

/* The first device of `type`, or NULL. */
struct device *device_find(struct machine *m, const struct device_type *type);

/* For machine.c: every device, in the order of device_add. Freeing first destroys all of them. */
void devices_reset(struct machine *m);
void devices_free(struct machine *m);

/* The kept state of a device: what its table describes. */
static inline void *device_state(struct device *dev)
{
    return (char *)dev + dev->type->state_offset;
}

#endif
