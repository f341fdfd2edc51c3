/* Virtio over PCI, non-transitional: see virtio_pci.h. Virtio 1.2; section numbers below are of that document.
 *
 * BAR 0 holds the structures that the capabilities point at, BAR 1 the MSI-X table with one vector a queue and one for
 * configuration changes. Without MSI-X, INTA# follows the ISR status.
 *
 * Left out: the legacy and transitional interfaces, packed rings, NOTIFICATION_DATA, shared memory regions. */
#include "dev/virtio_pci.h"

#include "base/trace.h"

#include <string.h>

enum { PCI_CAP_VENDOR = 0x09 };
enum { CAP_COMMON = 1, CAP_NOTIFY = 2, CAP_ISR = 3, CAP_DEVICE = 4, CAP_PCI_CFG = 5 }; /* §4.1.4 */
enum { CAP_SIZE = 16, CAP_BAR = 4, CAP_OFFSET = 8, CAP_LENGTH = 12, CAP_EXTRA = 16 };

#define FEATURES_EVERY \
    (BIT(VIRTIO_F_INDIRECT_DESC) | BIT(VIRTIO_F_EVENT_IDX) | BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_F_RING_RESET))

/* ---- interrupts ---- */

static void intx_update(struct virtio_pci *v)
{
    pci_intx_set(&v->pci, v->s->isr && !pci_msix_enabled(&v->pci));
}

static void interrupt(struct virtio_pci *v, u8 isr_bit, u16 vector)
{
    if (!pci_msix_enabled(&v->pci) || isr_bit == VIRTIO_ISR_CONFIG) /* §4.1.4.5.1 */
        v->s->isr |= isr_bit;
    if (pci_msix_enabled(&v->pci) && vector != VIRTIO_NO_VECTOR)
        pci_msix_raise(&v->pci, vector);
    intx_update(v);
}

void virtio_pci_interrupt(struct virtio_pci *v, int n)
{
    if (virtq_interrupt_wanted(&v->queue[n]))
        interrupt(v, VIRTIO_ISR_QUEUE, v->s->queue.vector[n]);
}

void virtio_pci_config_changed(struct virtio_pci *v)
{
    v->s->config_changed = true;
    if (v->s->status & VIRTIO_DRIVER_OK)
        interrupt(v, VIRTIO_ISR_CONFIG, v->s->config_vector);
}

/* ---- status ---- */

bool virtio_pci_has(const struct virtio_pci *v, int feature)
{
    return v->s->driver_features & BIT(feature);
}

bool virtio_pci_live(const struct virtio_pci *v)
{
    return (v->s->status & (VIRTIO_DRIVER_OK | VIRTIO_NEEDS_RESET | VIRTIO_FAILED)) == VIRTIO_DRIVER_OK &&
           !v->resetting && pci_dma_allowed(&v->pci);
}

void virtio_pci_fail(struct virtio_pci *v)
{
    if (v->s->status & VIRTIO_NEEDS_RESET)
        return;
    trace(VIRTIO, "%s: needs reset", v->pci.dev.id);
    v->s->status |= VIRTIO_NEEDS_RESET;
    if (v->s->status & VIRTIO_DRIVER_OK) /* §2.1.2 */
        interrupt(v, VIRTIO_ISR_CONFIG, v->s->config_vector);
}

static void queue_broken(struct virtqueue *q)
{
    virtio_pci_fail(q->owner);
}

static void reset_finish(struct virtio_pci *v)
{
    struct virtio_state *s = v->s;

    v->resetting = false;
    v->kicked = 0;
    s->driver_features = 0;
    s->device_feature_select = s->driver_feature_select = 0;
    s->config_vector = VIRTIO_NO_VECTOR;
    s->queue_select = 0;
    s->status = s->isr = 0;
    for (int n = 0; n < v->queue_count; n++) {
        virtq_reset(&v->queue[n]);
        v->queue_resetting[n] = false;
    }
    intx_update(v);
    if (v->model->reset)
        v->model->reset(v);
}

static bool idle(const struct virtio_pci *v)
{
    for (int n = 0; n < v->queue_count; n++)
        if (v->in_flight[n])
            return false;
    return true;
}

/* The driver waits until status reads 0 (§4.1.4.3.2), so requests in flight may first come to their end. */
static void reset_start(struct virtio_pci *v)
{
    trace(VIRTIO, "%s: reset", v->pci.dev.id);
    v->resetting = true;
    if (idle(v))
        reset_finish(v);
}

static void queue_reset_start(struct virtio_pci *v, int n)
{
    v->queue_resetting[n] = true;
    if (!v->in_flight[n]) {
        virtq_reset(&v->queue[n]);
        v->queue_resetting[n] = false;
    }
}

void virtio_pci_request_begin(struct virtio_pci *v, int n)
{
    v->in_flight[n]++;
}

void virtio_pci_request_end(struct virtio_pci *v, int n)
{
    assert(v->in_flight[n] > 0);
    v->in_flight[n]--;
    if (v->resetting && idle(v))
        reset_finish(v);
    else if (v->queue_resetting[n])
        queue_reset_start(v, n);
}

bool virtio_pci_may_push(const struct virtio_pci *v, int n)
{
    return virtio_pci_live(v) && !v->queue_resetting[n];
}

static bool features_acceptable(const struct virtio_pci *v)
{
    u64 f = v->s->driver_features;

    return !(f & ~v->features) && (f & BIT(VIRTIO_F_VERSION_1));
}

static void features_ok(struct virtio_pci *v)
{
    if (!features_acceptable(v)) {
        trace(GUEST, "%s: features %#llx refused", v->pci.dev.id, (unsigned long long)v->s->driver_features);
        return;
    }
    v->s->status |= VIRTIO_FEATURES_OK;
    for (int n = 0; n < v->queue_count; n++) {
        v->queue[n].indirect = virtio_pci_has(v, VIRTIO_F_INDIRECT_DESC);
        v->queue[n].event_idx = virtio_pci_has(v, VIRTIO_F_EVENT_IDX);
    }
    if (v->model->features_ok)
        v->model->features_ok(v);
}

static void kick_all(struct virtio_pci *v)
{
    for (int n = 0; n < v->queue_count; n++)
        virtio_pci_kick(v, n);
}

static void status_write(struct virtio_pci *v, u8 val)
{
    struct virtio_state *s = v->s;
    u8 set = val & ~s->status;

    if (!val) {
        reset_start(v);
        return;
    }
    if (v->resetting)
        return;
    if (s->status & ~VIRTIO_NEEDS_RESET & ~val)
        trace(GUEST, "%s: status bits %#x cleared", v->pci.dev.id, s->status & ~val);
    s->status |= set & (VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FAILED);
    if (set & VIRTIO_FEATURES_OK)
        features_ok(v);
    if (!(set & VIRTIO_DRIVER_OK))
        return;
    if (!(s->status & VIRTIO_FEATURES_OK)) {
        trace(GUEST, "%s: DRIVER_OK without FEATURES_OK", v->pci.dev.id);
        return;
    }
    trace(VIRTIO, "%s: driver ready, features %#llx", v->pci.dev.id, (unsigned long long)s->driver_features);
    s->status |= VIRTIO_DRIVER_OK;
    kick_all(v); /* chains may have been put in place before */
}

/* ---- serving queues ---- */

void virtio_pci_kick(struct virtio_pci *v, int n)
{
    v->kicked |= 1u << n;
    event_loop_post(v->pci.dev.machine->loop, &v->serve_task);
}

static void serve_kicked(void *ctx)
{
    struct virtio_pci *v = ctx;
    u32 kicked = v->kicked;

    v->kicked = 0;
    for (int n = 0; n < v->queue_count; n++)
        if (kicked & 1u << n && v->s->queue.enabled[n] && !v->queue_resetting[n] && virtio_pci_live(v))
            v->model->serve(v, n);
}

static void notify_write(struct virtio_pci *v, u64 offset)
{
    u64 n = offset / VIRTIO_NOTIFY_MULTIPLIER;

    if (n >= (u64)v->queue_count || !(v->s->status & VIRTIO_DRIVER_OK)) {
        trace(GUEST, "%s: notification of queue %llu", v->pci.dev.id, (unsigned long long)n);
        return;
    }
    virtio_pci_kick(v, (int)n);
}

/* ---- common configuration, §4.1.4.3 ---- */

enum {
    DEVICE_FEATURE_SELECT = 0x00,
    DEVICE_FEATURE = 0x04,
    DRIVER_FEATURE_SELECT = 0x08,
    DRIVER_FEATURE = 0x0c,
    CONFIG_MSIX_VECTOR = 0x10,
    NUM_QUEUES = 0x12,
    DEVICE_STATUS = 0x14,
    CONFIG_GENERATION = 0x15,
    QUEUE_SELECT = 0x16,
    QUEUE_SIZE = 0x18,
    QUEUE_MSIX_VECTOR = 0x1a,
    QUEUE_ENABLE = 0x1c,
    QUEUE_NOTIFY_OFF = 0x1e,
    QUEUE_DESC = 0x20,
    QUEUE_DRIVER = 0x28,
    QUEUE_DEVICE = 0x30,
    QUEUE_NOTIFY_DATA = 0x38,
    QUEUE_RESET = 0x3a,
    COMMON_SIZE = 0x3c,
};

/* The width of each field; 64-bit ones are two of 32. The driver must use it (§4.1.3.1). */
static const u8 common_width[COMMON_SIZE] = {
    [DEVICE_FEATURE_SELECT] = 4, [DEVICE_FEATURE] = 4, [DRIVER_FEATURE_SELECT] = 4, [DRIVER_FEATURE] = 4,
    [CONFIG_MSIX_VECTOR] = 2,    [NUM_QUEUES] = 2,     [DEVICE_STATUS] = 1,         [CONFIG_GENERATION] = 1,
    [QUEUE_SELECT] = 2,          [QUEUE_SIZE] = 2,     [QUEUE_MSIX_VECTOR] = 2,     [QUEUE_ENABLE] = 2,
    [QUEUE_NOTIFY_OFF] = 2,      [QUEUE_DESC] = 4,     [QUEUE_DESC + 4] = 4,        [QUEUE_DRIVER] = 4,
    [QUEUE_DRIVER + 4] = 4,      [QUEUE_DEVICE] = 4,   [QUEUE_DEVICE + 4] = 4,      [QUEUE_NOTIFY_DATA] = 2,
    [QUEUE_RESET] = 2,
};

static u32 feature_word(u64 features, u32 select)
{
    return select < 2 ? (u32)(features >> (32 * select)) : 0;
}

static u32 queue_field_read(struct virtio_pci *v, int n, u64 offset)
{
    struct virtq_state *q = &v->s->queue;

    switch (offset) {
    case QUEUE_SIZE:
        return q->size[n];
    case QUEUE_MSIX_VECTOR:
        return q->vector[n];
    case QUEUE_ENABLE:
        return q->enabled[n];
    case QUEUE_NOTIFY_OFF:
    case QUEUE_NOTIFY_DATA:
        return (u32)n;
    case QUEUE_DESC:
        return (u32)q->desc[n];
    case QUEUE_DESC + 4:
        return (u32)(q->desc[n] >> 32);
    case QUEUE_DRIVER:
        return (u32)q->driver[n];
    case QUEUE_DRIVER + 4:
        return (u32)(q->driver[n] >> 32);
    case QUEUE_DEVICE:
        return (u32)q->device[n];
    case QUEUE_DEVICE + 4:
        return (u32)(q->device[n] >> 32);
    default: /* QUEUE_RESET */
        return v->queue_resetting[n];
    }
}

static u32 common_read(struct virtio_pci *v, u64 offset, int size)
{
    struct virtio_state *s = v->s;

    if (offset >= COMMON_SIZE || common_width[offset] != size) {
        trace(GUEST, "%s: %d-byte read of common configuration at %#llx", v->pci.dev.id, size,
              (unsigned long long)offset);
        return 0;
    }
    switch (offset) {
    case DEVICE_FEATURE_SELECT:
        return s->device_feature_select;
    case DEVICE_FEATURE:
        return feature_word(v->features, s->device_feature_select);
    case DRIVER_FEATURE_SELECT:
        return s->driver_feature_select;
    case DRIVER_FEATURE:
        return feature_word(s->driver_features, s->driver_feature_select);
    case CONFIG_MSIX_VECTOR:
        return s->config_vector;
    case NUM_QUEUES:
        return (u32)v->queue_count;
    case DEVICE_STATUS:
        return s->status;
    case CONFIG_GENERATION:
        return s->config_generation;
    case QUEUE_SELECT:
        return s->queue_select;
    }
    /* a queue that does not exist has size 0 (§4.1.4.3.1) */
    return s->queue_select < v->queue_count ? queue_field_read(v, s->queue_select, offset) : 0;
}

static void driver_feature_write(struct virtio_pci *v, u32 val)
{
    struct virtio_state *s = v->s;
    int shift = 32 * (int)(s->driver_feature_select & 1);

    if (s->driver_feature_select > 1 || s->status & VIRTIO_FEATURES_OK) {
        trace(GUEST, "%s: features written %s", v->pci.dev.id,
              s->driver_feature_select > 1 ? "beyond 63" : "after FEATURES_OK");
        return;
    }
    s->driver_features = (s->driver_features & ~((u64)UINT32_MAX << shift)) | (u64)val << shift;
}

/* A vector that the table does not have cannot be mapped, which reading back shows (§4.1.5.1.2). */
static u16 vector_valid(const struct virtio_pci *v, u32 val)
{
    return val < (u32)v->pci.msix_count ? (u16)val : VIRTIO_NO_VECTOR;
}

static void set_low(u64 *field, u32 val)
{
    *field = (*field & ~(u64)UINT32_MAX) | val;
}

static void set_high(u64 *field, u32 val)
{
    *field = (u32)*field | (u64)val << 32;
}

static void queue_enable_write(struct virtio_pci *v, int n, u32 val)
{
    if (val != 1 || !(v->s->status & VIRTIO_FEATURES_OK)) {
        trace(GUEST, "%s: queue_enable %u in status %#x", v->pci.dev.id, val, v->s->status);
        return;
    }
    virtq_enable(&v->queue[n]);
    if (v->s->status & VIRTIO_DRIVER_OK)
        virtio_pci_kick(v, n); /* enabled again after a queue reset */
}

static void queue_field_write(struct virtio_pci *v, int n, u64 offset, u32 val)
{
    struct virtq_state *q = &v->s->queue;

    switch (offset) {
    case QUEUE_SIZE:
        if (val && val <= v->queue[n].size_max && !(val & (val - 1)))
            q->size[n] = (u16)val;
        else
            trace(GUEST, "%s: queue %d of size %u", v->pci.dev.id, n, val);
        break;
    case QUEUE_ENABLE:
        queue_enable_write(v, n, val);
        break;
    case QUEUE_DESC:
        set_low(&q->desc[n], val);
        break;
    case QUEUE_DESC + 4:
        set_high(&q->desc[n], val);
        break;
    case QUEUE_DRIVER:
        set_low(&q->driver[n], val);
        break;
    case QUEUE_DRIVER + 4:
        set_high(&q->driver[n], val);
        break;
    case QUEUE_DEVICE:
        set_low(&q->device[n], val);
        break;
    case QUEUE_DEVICE + 4:
        set_high(&q->device[n], val);
        break;
    }
}

static void queue_write(struct virtio_pci *v, u64 offset, u32 val)
{
    int n = v->s->queue_select;

    if (n >= v->queue_count)
        trace(GUEST, "%s: write to queue %d", v->pci.dev.id, n);
    else if (offset == QUEUE_MSIX_VECTOR)
        v->s->queue.vector[n] = vector_valid(v, val);
    else if (offset == QUEUE_RESET) {
        if (val == 1 && virtio_pci_has(v, VIRTIO_F_RING_RESET))
            queue_reset_start(v, n);
    } else if (v->s->queue.enabled[n] || v->queue_resetting[n])
        trace(GUEST, "%s: queue %d changed while enabled", v->pci.dev.id, n);
    else
        queue_field_write(v, n, offset, val);
}

static void common_write(struct virtio_pci *v, u64 offset, int size, u32 val)
{
    struct virtio_state *s = v->s;

    if (offset >= COMMON_SIZE || common_width[offset] != size) {
        trace(GUEST, "%s: %d-byte write of common configuration at %#llx", v->pci.dev.id, size,
              (unsigned long long)offset);
        return;
    }
    switch (offset) {
    case DEVICE_FEATURE_SELECT:
        s->device_feature_select = val;
        break;
    case DRIVER_FEATURE_SELECT:
        s->driver_feature_select = val;
        break;
    case DRIVER_FEATURE:
        driver_feature_write(v, val);
        break;
    case CONFIG_MSIX_VECTOR:
        s->config_vector = vector_valid(v, val);
        break;
    case DEVICE_STATUS:
        status_write(v, (u8)val);
        break;
    case QUEUE_SELECT:
        s->queue_select = (u16)val;
        break;
    case DEVICE_FEATURE:
    case NUM_QUEUES:
    case CONFIG_GENERATION:
        break; /* read-only */
    default:
        queue_write(v, offset, val);
    }
}

/* ---- ISR status and device-specific configuration ---- */

static u32 isr_read(struct virtio_pci *v)
{
    u8 isr = v->s->isr;

    v->s->isr = 0;
    intx_update(v);
    return isr;
}

static u32 config_read(struct virtio_pci *v, u64 offset, int size)
{
    u8 image[VIRTIO_CONFIG_MAX] = {0};
    u32 val = 0;

    if (offset + (u64)size > (u64)v->model->config_size)
        return 0;
    /* A driver that reads the generation, the fields and the generation again sees that they changed between (§4.1.4.3.1). */
    v->s->config_generation += v->s->config_changed;
    v->s->config_changed = false;
    v->model->config_read(v, image);
    memcpy(&val, image + offset, (size_t)size);
    return val;
}

static void config_write(struct virtio_pci *v, u64 offset, int size, u32 val)
{
    if (offset + (u64)size > (u64)v->model->config_size || !v->model->config_write)
        trace(GUEST, "%s: write of read-only configuration at %#llx", v->pci.dev.id, (unsigned long long)offset);
    else
        v->model->config_write(v, (int)offset, size, val);
}

/* ---- BAR 0 ---- */

static u64 bar_read(struct device *dev, u64 offset, int size)
{
    struct virtio_pci *v = virtio_pci_of(dev);

    switch (offset & ~0xfffull) {
    case VIRTIO_BAR_COMMON:
        return common_read(v, offset, size);
    case VIRTIO_BAR_ISR:
        return offset == VIRTIO_BAR_ISR ? isr_read(v) : 0;
    case VIRTIO_BAR_DEVICE:
        return config_read(v, offset - VIRTIO_BAR_DEVICE, size);
    }
    return 0;
}

static void bar_write(struct device *dev, u64 offset, int size, u64 val)
{
    struct virtio_pci *v = virtio_pci_of(dev);

    switch (offset & ~0xfffull) {
    case VIRTIO_BAR_COMMON:
        common_write(v, offset, size, (u32)val);
        break;
    case VIRTIO_BAR_DEVICE:
        config_write(v, offset - VIRTIO_BAR_DEVICE, size, (u32)val);
        break;
    case VIRTIO_BAR_NOTIFY:
        notify_write(v, offset - VIRTIO_BAR_NOTIFY);
        break;
    }
}

static const struct io_ops bar_ops = {.read = bar_read, .write = bar_write, .max_size = 4};

/* ---- PCI configuration space ---- */

/* The window of the PCI configuration access capability (§4.1.4.9), as the driver set it. False: not a legal one. */
static bool access_window(const struct virtio_pci *v, u32 *ret_offset, int *ret_size)
{
    const u8 *cap = &v->pci.ps.config[v->access_cap];
    u32 offset, size;

    memcpy(&offset, cap + CAP_OFFSET, 4);
    memcpy(&size, cap + CAP_LENGTH, 4);
    if (cap[CAP_BAR] || (size != 1 && size != 2 && size != 4) || offset % size || offset >= VIRTIO_BAR_SIZE)
        return false;
    *ret_offset = offset;
    *ret_size = (int)size;
    return true;
}

static bool hits_access_data(const struct virtio_pci *v, int offset, int size)
{
    int data = v->access_cap + CAP_EXTRA;

    return offset < data + 4 && offset + size > data;
}

static void pci_config_reading(struct pci_device *pci, int offset, int size)
{
    struct virtio_pci *v = container_of(pci, struct virtio_pci, pci);
    u32 at, val;
    int width;

    if (!hits_access_data(v, offset, size) || !access_window(v, &at, &width))
        return;
    val = (u32)bar_read(&pci->dev, at, width);
    memcpy(&pci->ps.config[v->access_cap + CAP_EXTRA], &val, (size_t)width);
}

static void pci_config_written(struct pci_device *pci, int offset, int size)
{
    struct virtio_pci *v = container_of(pci, struct virtio_pci, pci);
    u32 at, val = 0;
    int width;

    if (hits_access_data(v, offset, size) && access_window(v, &at, &width)) {
        memcpy(&val, &pci->ps.config[v->access_cap + CAP_EXTRA], (size_t)width);
        bar_write(&pci->dev, at, width, val);
        return;
    }
    intx_update(v); /* MSI-X may have been switched */
    if (offset <= PCI_COMMAND && PCI_COMMAND < offset + size && virtio_pci_live(v))
        kick_all(v); /* bus mastership may have come back */
}

static int capability_add(struct virtio_pci *v, u8 type, int extra, u32 offset, u32 length)
{
    int at = pci_capability_add(&v->pci, PCI_CAP_VENDOR, CAP_SIZE + extra);

    pci_config_set8(&v->pci, at + 2, (u8)(CAP_SIZE + extra));
    pci_config_set8(&v->pci, at + 3, type);
    pci_config_set32(&v->pci, at + CAP_OFFSET, offset);
    pci_config_set32(&v->pci, at + CAP_LENGTH, length);
    return at;
}

static void capabilities_add(struct virtio_pci *v)
{
    int at;

    capability_add(v, CAP_COMMON, 0, VIRTIO_BAR_COMMON, COMMON_SIZE);
    capability_add(v, CAP_ISR, 0, VIRTIO_BAR_ISR, 1);
    if (v->model->config_size)
        capability_add(v, CAP_DEVICE, 0, VIRTIO_BAR_DEVICE, (u32)v->model->config_size);
    at = capability_add(v, CAP_NOTIFY, 4, VIRTIO_BAR_NOTIFY, VIRTQ_MAX * VIRTIO_NOTIFY_MULTIPLIER);
    pci_config_set32(&v->pci, at + CAP_EXTRA, VIRTIO_NOTIFY_MULTIPLIER);

    at = v->access_cap = capability_add(v, CAP_PCI_CFG, 4, 0, 0);
    v->pci.writable[at + CAP_BAR] = 0xff;
    memset(&v->pci.writable[at + CAP_OFFSET], 0xff, 12); /* offset, length, data */
}

/* ---- lifecycle ---- */

struct virtio_pci *virtio_pci_add(struct machine *m, const struct device_type *type, const struct virtio_model *model,
                                  struct virtio_state *(*state_of)(struct virtio_pci *v))
{
    struct virtio_pci *v = container_of(pci_device_add(m, type, -1, 0), struct virtio_pci, pci);

    assert(model->config_size <= VIRTIO_CONFIG_MAX);
    v->model = model;
    v->s = state_of(v);
    v->features = FEATURES_EVERY;
    v->serve_task = (struct loop_task){.fn = serve_kicked, .ctx = v};
    v->s->config_vector = VIRTIO_NO_VECTOR;
    pci_identity_set(&v->pci, 0x1af4, (u16)(0x1040 + model->id), model->pci_class, 1, 0x1af4, (u16)(0x1040 + model->id),
                     true);
    pci_bar_memory(&v->pci, 0, VIRTIO_BAR_SIZE, false, &bar_ops);
    pci_bar_memory(&v->pci, 1, 4096, false, NULL);
    pci_msix_add(&v->pci, 1, VIRTQ_MAX + 1, 0, 2048);
    capabilities_add(v);
    v->pci.config_reading = pci_config_reading;
    v->pci.config_written = pci_config_written;
    return v;
}

void virtio_pci_add_queue(struct virtio_pci *v, u16 size_max)
{
    int n = v->queue_count++;

    assert(n < VIRTQ_MAX && size_max <= VIRTQ_SIZE_MAX);
    v->queue[n] = (struct virtqueue){.mem = v->pci.dev.machine->mem,
                                     .s = &v->s->queue,
                                     .n = n,
                                     .size_max = size_max,
                                     .on_broken = queue_broken,
                                     .owner = v};
    virtq_reset(&v->queue[n]);
}

void virtio_pci_reset(struct device *dev)
{
    struct virtio_pci *v = virtio_pci_of(dev);

    pci_device_reset(&v->pci);
    v->resetting = true; /* what comes to its end now is not the guest's any more */
    if (v->model->drain)
        v->model->drain(v);
    assert(idle(v));
    reset_finish(v);
}

void virtio_pci_destroy(struct device *dev)
{
    struct virtio_pci *v = virtio_pci_of(dev);

    v->resetting = true; /* the guest is gone */
    if (v->model->drain)
        v->model->drain(v);
    event_loop_cancel(dev->machine->loop, &v->serve_task);
}

void virtio_pci_loaded(struct device *dev)
{
    struct virtio_pci *v = virtio_pci_of(dev);
    bool needs_reset = v->s->status & VIRTIO_NEEDS_RESET;

    for (int n = 0; n < v->queue_count; n++) {
        struct virtqueue *q = &v->queue[n];

        q->indirect = virtio_pci_has(v, VIRTIO_F_INDIRECT_DESC);
        q->event_idx = virtio_pci_has(v, VIRTIO_F_EVENT_IDX);
        q->broken = needs_reset;
        if (v->s->queue.enabled[n])
            virtq_enable(q); /* the stream may lie: checks size and addresses again */
    }
    kick_all(v);
}
