/* A small virtio driver for tests: finds a device by its PCI capabilities, as a guest would, and works its queues in the RAM of a
 * machine_fixture. Everything that a hostile driver would like to spoil is open to the test. */
#ifndef TESTS_VIRTIO_DRIVER_H
#define TESTS_VIRTIO_DRIVER_H
#include "machine/pci.h"
#include "machine_fixture.h"

struct ring {
    u64 desc, avail, used; /* gpa */
    u16 size, next_desc, avail_idx, used_seen;
};

struct buffer {
    u64 gpa;
    u32 len;
    bool write; /* the device writes */
};

struct driver {
    struct machine *m;
    int slot;
    u64 common, isr, config, notify; /* gpa of the structures */
    u32 notify_multiplier;
    int access_cap; /* offset of the PCI configuration access capability */
    u64 features;   /* negotiated */
    struct ring ring[8];
    u64 next_gpa; /* of memory not handed out yet */
};

enum { DRIVER_MSI_VECTOR = 0x40 }; /* queue n interrupts with this + n, configuration with this + 8 */

/* A machine with a PCI bus whose INTA# wires end in *intx. */
struct machine *driver_machine(int cpus, struct irq_probe *intx);

/* Assigns BARs and finds the structures of the device. */
void driver_find(struct driver *d, struct machine *m, struct device *dev);

/* The handshake up to DRIVER_OK with those of `features` that the device offers, and `queues` queues of `size`. With `msix` all
 * vectors are set up, else INTA# is used. */
void driver_start(struct driver *d, u64 features, int queues, u16 size, bool msix);

/* The single steps of it. */
u64 driver_offered(struct driver *d);
void driver_accept(struct driver *d, u64 features);
void driver_queue(struct driver *d, int n, u16 size);
void driver_status(struct driver *d, u8 status); /* written, then the loop settles */
u8 driver_get_status(struct driver *d);

u32 common_get(struct driver *d, int offset, int size);
void common_set(struct driver *d, int offset, int size, u32 val);
u64 config_get(struct driver *d, int offset, int size);

/* Zeroed guest memory, 16-byte aligned; guest memory as ours. */
u64 driver_alloc(struct driver *d, u32 len);
void *driver_ptr(struct driver *d, u64 gpa);

/* Writes one descriptor; flags: 1 next, 2 write, 4 indirect. */
void desc_set(struct driver *d, u64 table, int index, u64 gpa, u32 len, u16 flags, u16 next);

/* Puts a chain of buffers into descriptors (or an indirect table) and the available ring; returns its head. */
u16 driver_add(struct driver *d, int n, const struct buffer *b, int count);
u16 driver_add_indirect(struct driver *d, int n, const struct buffer *b, int count);
void driver_offer(struct driver *d, int n, u16 head); /* the available ring only */

void driver_kick(struct driver *d, int n); /* notifies, then the loop settles */
void driver_settle(struct machine *m);     /* runs the loop until its tasks are done */

/* The head of the next used chain, or -1; *len is what the device says it wrote. */
int driver_used(struct driver *d, int n, u32 *len);

/* Messages with this vector so far. */
int driver_messages(struct machine *m, u8 vector);

#endif
