/* Hostile virtio drivers: every virtio device on one machine, the input is a list of what the guest and the host do.
 *
 * The input chooses a device and an action: register writes, memory writes, descriptors, available rings, notifications, and
 * the host's side (a frame arrives, a key is typed, the disk answers). One action brings a device to DRIVER_OK with good rings,
 * so that most inputs get past the handshake. Sanitizers look for harm; a hang is found by libFuzzer's -timeout. The vCPUs
 * are the fake ones of the unit tests.
 */
#include "dev/virtio_balloon.h"
#include "dev/virtio_blk.h"
#include "dev/virtio_console.h"
#include "dev/virtio_net.h"
#include "dev/virtio_pci.h"
#include "dev/virtio_rng.h"
#include "disk/disk.h"
#include "net/backend.h"
#include "ui/console_backend.h"
#include "../tests/unit/virtio_driver.h"

#include <errno.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

enum { DEVICES = 5, QUEUE_SIZE = 16, CAPACITY = 64 * 512, HELD_MAX = 1024, RAM_USED = 0x40000 };

/* ---- the host's side ---- */

struct disk {
    struct disk_request *held[HELD_MAX];
    int held_count;
};

static struct disk disk;

u64 disk_size(const struct disk *d)
{
    return CAPACITY;
}

bool disk_readonly(const struct disk *d)
{
    return false;
}

void disk_submit(struct disk *d, struct disk_request *r)
{
    assert(d->held_count < HELD_MAX);
    d->held[d->held_count++] = r;
}

/* Touches every byte of the buffers, as a real disk would. */
static void disk_answer(struct disk *d, int result)
{
    struct disk_request *r = d->held[--d->held_count];
    u64 total = 0;
    u8 all = 0;

    for (int i = 0; i < r->iov_count; i++) {
        total += r->iov[i].iov_len;
        if (r->op == DISK_READ)
            memset(r->iov[i].iov_base, 0x5a, r->iov[i].iov_len);
        for (size_t k = 0; k < r->iov[i].iov_len; k++)
            all |= ((u8 *)r->iov[i].iov_base)[k];
    }
    assert(r->op > DISK_WRITE || total == r->length);
    assert(r->offset <= CAPACITY && r->length <= CAPACITY - r->offset);
    r->done(r, result ? -EIO : all & 0);
}

void disk_drain(struct disk *d)
{
    while (d->held_count)
        disk_answer(d, 0);
}

static u8 console_sum;

/* Reads every byte. */
static void console_take(struct console *c, const u8 *data, int len)
{
    console_sum = 0;
    for (int i = 0; i < len; i++)
        console_sum += data[i];
}

static void console_keys(struct console *c, const u8 *keys, int len)
{
    int room = c->room(c->ctx);

    if (room > 0)
        c->receive(c->ctx, keys, MIN(len, room));
}

static void net_wake(struct net *n)
{
    size_t len;

    while (frame_queue_peek(&n->to_host, &len))
        frame_queue_drop(&n->to_host);
}

static const struct console_ops console_ops = {.write = console_take};
static const struct net_ops net_ops = {.wake = net_wake};
static struct console console = {.ops = &console_ops};
static struct net net;

/* ---- the input ---- */

static const u8 *in;
static size_t left;

static u64 take(int bytes)
{
    u64 v = 0;

    for (; bytes && left; bytes--, left--)
        v = v << 8 | *in++;
    return v;
}

/* ---- actions ---- */

static struct machine *m;
static struct device *device[DEVICES];
static struct driver driver[DEVICES];

static void act_common(struct driver *d, int i)
{
    static const u8 size[4] = {4, 2, 1, 8};
    u8 offset = (u8)take(1);

    mmio_write(m, d->common + (offset & 0x3f), size[offset >> 6], take(4));
    mmio_read(m, d->common + (offset & 0x3f), size[offset >> 6]);
}

static void act_bar(struct driver *d, int i)
{
    u64 at = (d->common & ~(u64)(VIRTIO_BAR_SIZE - 1)) + take(2) % VIRTIO_BAR_SIZE;

    mmio_write(m, at, 1 << take(1) % 4, take(4));
    mmio_read(m, at, 4);
}

static void act_start(struct driver *d, int i)
{
    u64 features = take(1) & 1 ? ~0ull : ~take(8);
    int queues = (int)MIN(common_get(d, 0x12, 2), 8u); /* all ones when the BAR is gone */

    common_set(d, 0x14, 1, 0);
    common_set(d, 0x14, 1, 3);
    driver_accept(d, features & driver_offered(d));
    common_set(d, 0x14, 1, 11);
    d->next_gpa = 0x8000 + 0x8000ull * (u64)i;
    for (int n = 0; n < queues; n++)
        driver_queue(d, n, QUEUE_SIZE);
    common_set(d, 0x14, 1, 15);
}

static void act_memory(struct driver *d, int i)
{
    u64 gpa = take(2) << 2;
    u8 len = (u8)take(1);

    while (len-- && left)
        *(u8 *)driver_ptr(d, gpa++ % RAM_USED) = (u8)take(1);
}

/* A chain of up to eight descriptors, of which any field may be spoilt, and its head in the available ring. */
static void act_chain(struct driver *d, int i)
{
    int n = (int)take(1) % 8, count = 1 + (int)take(1) % 8;
    struct ring *r = &d->ring[n];
    u16 head = r->next_desc;

    if (!r->size)
        return;
    for (int k = 0; k < count; k++) {
        u8 how = (u8)take(1);
        u64 gpa = how & 1 ? take(8) : take(2) << 2;
        u32 len = how & 2 ? (u32)take(4) : (u32)take(1);
        u16 flags = how & 4 ? (u16)take(2) : (u16)((how >> 6 & 2) | (k + 1 < count));
        u16 next = how & 8 ? (u16)take(2) : (u16)((head + k + 1) % QUEUE_SIZE);

        desc_set(d, r->desc, (head + k) % QUEUE_SIZE, gpa, len, flags, next);
    }
    r->next_desc = (u16)((head + count) % QUEUE_SIZE);
    driver_offer(d, n, head);
    mmio_write(m, d->notify + (u64)n * 4, 2, (u64)n);
}

static void act_kick(struct driver *d, int i)
{
    driver_kick(d, (int)take(1) % 10);
}

static void act_host(struct driver *d, int i)
{
    static u8 frame[4096];

    switch (take(1) % 6) {
    case 0:
        net_deliver(&net, frame, 14 + take(2) % (sizeof(frame) - 14));
        break;
    case 1:
        console_keys(&console, frame, 1 + (int)take(2) % 4096);
        break;
    case 2:
        if (disk.held_count)
            disk_answer(&disk, (int)take(1) & 1);
        break;
    case 3:
        virtio_balloon_set_target(device[4], take(4));
        break;
    case 4:
        virtio_pci_reset(device[i]);
        driver_find(d, m, device[i]);
        break;
    case 5:
        virtio_pci_loaded(device[i]);
        break;
    }
}

static void act_pci(struct driver *d, int i)
{
    pio_write(m, 0xcf8, 4, 0x80000000u | (u32)d->slot << 11 | (u32)(take(1) & 0xfc));
    pio_write(m, (u16)(0xcfc + take(1) % 4), 1 << take(1) % 3, take(4));
    pio_read(m, 0xcfc, 4);
    if (take(1) & 1)
        driver_find(d, m, device[i]);
}

static void (*const action[8])(struct driver *d, int i) = {act_common, act_bar,  act_start, act_memory,
                                                           act_chain,  act_kick, act_host,  act_pci};

static void world_create(void)
{
    static const u8 mac[6] = {0x52, 0x54, 0, 0, 0, 1};
    static struct irq_probe intx;

    m = driver_machine(4, &intx);
    net_open(&net, &net_ops, m->loop);
    device[0] = virtio_blk_create(m, &disk, "fuzz");
    device[1] = virtio_net_create(m, &net, mac);
    device[2] = virtio_rng_create(m);
    device[3] = virtio_console_create(m, &console);
    device[4] = virtio_balloon_create(m);
}

/* Same machine, clean devices and memory: one input does not depend on those before. */
static void world_reset(void)
{
    size_t len;

    memset(m->mem->backing, 0, RAM_USED);
    for (int i = 0; i < DEVICES; i++) {
        virtio_pci_reset(device[i]);
        driver_find(&driver[i], m, device[i]);
    }
    while (frame_queue_peek(&net.to_guest, &len))
        frame_queue_drop(&net.to_guest);
    driver_settle(m);
    fake_vcpu_log(m->cpus)->message_count = 0;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    if (!m)
        world_create();
    world_reset();
    in = data;
    left = size;
    while (left) {
        u8 op = (u8)take(1);
        int i = op % DEVICES;

        action[op / DEVICES % 8](&driver[i], i);
    }
    driver_settle(m);
    return 0;
}
