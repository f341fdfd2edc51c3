/* Virtio over PCI: what all virtio devices share. Virtio 1.2 §2.1-2.3 (status, features, configuration), §4.1 (PCI).
 *
 * A device's struct starts with `struct virtio_pci virtio` and keeps a `struct virtio_state` in its `s`. Queues are served in
 * the loop thread: a driver's notification only marks the queue and wakes the loop. Machine lock held throughout. */
#ifndef DEV_VIRTIO_PCI_H
#define DEV_VIRTIO_PCI_H
#include "dev/virtqueue.h"
#include "machine/machine.h"
#include "machine/pci.h"

enum { /* device ids, §5 */
       VIRTIO_ID_NET = 1,
       VIRTIO_ID_BLOCK = 2,
       VIRTIO_ID_CONSOLE = 3,
       VIRTIO_ID_ENTROPY = 4,
       VIRTIO_ID_BALLOON = 5,
};
enum { /* feature bits of every device, §6 */
       VIRTIO_F_INDIRECT_DESC = 28,
       VIRTIO_F_EVENT_IDX = 29,
       VIRTIO_F_VERSION_1 = 32,
       VIRTIO_F_RING_RESET = 40,
};
enum { /* device status, §2.1 */
       VIRTIO_ACKNOWLEDGE = 1,
       VIRTIO_DRIVER = 2,
       VIRTIO_DRIVER_OK = 4,
       VIRTIO_FEATURES_OK = 8,
       VIRTIO_NEEDS_RESET = 64,
       VIRTIO_FAILED = 128,
};
enum { VIRTIO_ISR_QUEUE = 1, VIRTIO_ISR_CONFIG = 2 };

#define VIRTIO_NO_VECTOR 0xffff
#define VIRTIO_CONFIG_MAX 64 /* bytes of device-specific configuration */

enum { /* where the structures of §4.1.4 are in BAR 0; BAR 1 holds the MSI-X table */
       VIRTIO_BAR_COMMON = 0x0000,
       VIRTIO_BAR_ISR = 0x1000,
       VIRTIO_BAR_DEVICE = 0x2000,
       VIRTIO_BAR_NOTIFY = 0x3000,
       VIRTIO_BAR_SIZE = 0x4000,
       VIRTIO_NOTIFY_MULTIPLIER = 4,
};

struct virtio_state {
    struct virtq_state queue;
    u64 driver_features;
    u32 device_feature_select, driver_feature_select;
    u16 config_vector, queue_select;
    u8 status, isr, config_generation;
    bool config_changed; /* since the driver last read its configuration */
};

/* Entries for the table of a state struct T that has a struct virtio_state at `f`. */
#define VIRTIO_STATE_FIELDS(T, f)                                                                                   \
    VIRTQ_STATE_FIELDS(T, f.queue), STATE(T, f.driver_features), STATE(T, f.device_feature_select),                 \
        STATE(T, f.driver_feature_select), STATE(T, f.config_vector), STATE(T, f.queue_select), STATE(T, f.status), \
        STATE(T, f.isr), STATE(T, f.config_generation), STATE(T, f.config_changed)

struct virtio_pci;

/* What makes a virtio device the one it is. */
struct virtio_model {
    u16 id;
    u32 pci_class; /* class, subclass, prog-if */
    int config_size;
    /* Fills the zeroed image of the device-specific configuration (config_size bytes). */
    void (*config_read)(struct virtio_pci *v, void *config);
    /* One write into it, within config_size; NULL: nothing is writable. */
    void (*config_write)(struct virtio_pci *v, int offset, int size, u32 val);
    /* The driver put chains into queue n. Loop thread, device live. Must take a bounded number of them (the queue's size)
     * and, when more may be there, ask to be called again with virtio_pci_kick. */
    void (*serve)(struct virtio_pci *v, int n);
    /* Device-specific state to its values after reset; no request is in flight. May be NULL. */
    void (*reset)(struct virtio_pci *v);
    /* FEATURES_OK was accepted: the driver's choice is final. May be NULL. */
    void (*features_ok)(struct virtio_pci *v);
    /* Returns only when no request is in flight, each ended with virtio_pci_request_end. NULL: none ever is. */
    void (*drain)(struct virtio_pci *v);
};

struct virtio_pci {
    struct pci_device pci;
    const struct virtio_model *model;
    struct virtio_state *s; /* in the device's kept state */
    u64 features;           /* offered; the device adds its own before the guest runs */
    int queue_count;
    struct virtqueue queue[VIRTQ_MAX];
    int in_flight[VIRTQ_MAX];                   /* requests popped and handed to the host */
    bool queue_resetting[VIRTQ_MAX], resetting; /* the guest asked; waits until nothing is in flight */
    u32 kicked;                                 /* bit n: queue n is to be served */
    struct loop_task serve_task;
    int access_cap; /* the PCI configuration access capability */
};

/* Puts a device of `type` on the PCI bus. The caller sets v->s (at once, before any other call), adds its feature bits to
 * v->features, and adds its queues. */
struct virtio_pci *virtio_pci_add(struct machine *m, const struct device_type *type, const struct virtio_model *model,
                                  struct virtio_state *(*state_of)(struct virtio_pci *v));
void virtio_pci_add_queue(struct virtio_pci *v, u16 size_max);

static inline struct virtio_pci *virtio_pci_of(struct device *dev)
{
    return container_of(dev, struct virtio_pci, pci.dev);
}

/* For the device_type of every virtio device. */
void virtio_pci_reset(struct device *dev);
void virtio_pci_loaded(struct device *dev);
void virtio_pci_destroy(struct device *dev);

bool virtio_pci_has(const struct virtio_pci *v, int feature); /* negotiated */

/* Whether the device may touch its queues: DRIVER_OK, not broken, not in reset, bus mastership given. */
bool virtio_pci_live(const struct virtio_pci *v);

/* Has queue n served (again) from the loop. */
void virtio_pci_kick(struct virtio_pci *v, int n);

/* Interrupts the driver for queue n if it wants that for what was pushed. */
void virtio_pci_interrupt(struct virtio_pci *v, int n);

/* The device-specific configuration changed: tells the driver. */
void virtio_pci_config_changed(struct virtio_pci *v);

/* The device cannot go on: DEVICE_NEEDS_RESET. */
void virtio_pci_fail(struct virtio_pci *v);

/* Brackets a request of queue n whose buffers the host works on. Reset of the queue or device waits for the end. After it,
 * a chain may be pushed only while virtio_pci_may_push. */
void virtio_pci_request_begin(struct virtio_pci *v, int n);
void virtio_pci_request_end(struct virtio_pci *v, int n);
bool virtio_pci_may_push(const struct virtio_pci *v, int n);

#endif
