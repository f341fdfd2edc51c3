/* Hostile drivers: virtio devices are given rings and buffers everywhere (RAM, their own registers, other devices', the local
 * APIC, holes, the ends of the address space), chains that loop or point astray, and are reset in the middle, while other
 * processors write into the rings. No answer is right or wrong, but afterwards
 * - memory that was never offered is as it was, and so are the registers of the interrupt controllers,
 * - every device still does its work for a driver that keeps the rules.
 * The processors race, so that runs differ. The balloon is left out: it would rightly take this program's own pages. Virtio 1.2 §2.7, §4.1. */
#include "guest.h"

#define AREA 0x1000000ul /* rings and buffers: 1 MiB */
#define AREA_SIZE 0x100000ul
#define CANARY 0x800000ul /* never offered, and below all that is: 1 MiB */
#define CANARY_SIZE 0x100000ul
#define LAPIC 0xfee00000ul
#define IOAPIC 0xfec00000ul
#define HPET 0xfed00000ul
#define RAM_END 0x4000000ul
#define DEVICES_MAX 8
#define BALLOON 5
#define ROUNDS 2000

struct device {
    u32 slot, id;
    u64 bar, common, notify, notify_size;
};

static struct device device[DEVICES_MAX];
static int devices;
static volatile bool stop;

static u64 random_of(u64 *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static u64 own_seed = 0x9e3779b97f4a7c15;

static u64 random(void)
{
    return random_of(&own_seed);
}

/* ---- PCI and the virtio transport ---- */

static u32 config_read(u32 slot, u32 reg)
{
    outl(0xcf8, 0x80000000u | slot << 11 | (reg & 0xfc));
    return inl(0xcfc);
}

static void config_write(u32 slot, u32 reg, u32 val)
{
    outl(0xcf8, 0x80000000u | slot << 11 | (reg & 0xfc));
    outl(0xcfc, val);
}

static u32 reg_read(u64 at, int size)
{
    return size == 1 ? *(volatile u8 *)at : size == 2 ? *(volatile u16 *)at : *(volatile u32 *)at;
}

static void reg_write(u64 at, int size, u64 val)
{
    if (size == 1)
        *(volatile u8 *)at = (u8)val;
    else if (size == 2)
        *(volatile u16 *)at = (u16)val;
    else
        *(volatile u32 *)at = (u32)val;
}

static void capabilities(struct device *d)
{
    for (u32 at = config_read(d->slot, 0x34) & 0xff; at; at = config_read(d->slot, at) >> 8 & 0xff) {
        u32 head = config_read(d->slot, at), type = head >> 24;
        u64 bar = config_read(d->slot, 0x10 + 4 * (config_read(d->slot, at + 4) & 0xff)) & ~15u;

        if ((head & 0xff) != 9)
            continue;
        if (type == 1)
            d->common = bar + config_read(d->slot, at + 8);
        if (type == 2) {
            d->notify = bar + config_read(d->slot, at + 8);
            d->notify_size = config_read(d->slot, at + 16);
        }
        d->bar = bar;
    }
}

static void devices_find(void)
{
    for (u32 slot = 0; slot < 32 && devices < DEVICES_MAX; slot++) {
        struct device *d = &device[devices];

        if ((config_read(slot, 0) & 0xffff) != 0x1af4)
            continue;
        *d = (struct device){.slot = slot, .id = (config_read(slot, 0) >> 16) - 0x1040};
        config_write(slot, 4, 0x406); /* memory, bus master, no INTx */
        capabilities(d);
        if (d->common)
            devices++;
    }
}

static u64 features_offered(struct device *d)
{
    u64 low;

    reg_write(d->common, 4, 0);
    low = reg_read(d->common + 4, 4);
    reg_write(d->common, 4, 1);
    return low | (u64)reg_read(d->common + 4, 4) << 32;
}

static void reset(struct device *d)
{
    reg_write(d->common + 0x14, 1, 0);
    for (int n = 0; n < 1000000 && reg_read(d->common + 0x14, 1); n++)
        asm volatile("pause");
}

static bool handshake(struct device *d, u64 features)
{
    reset(d);
    reg_write(d->common + 0x14, 1, 3);
    features &= features_offered(d);
    features |= 1ul << 32; /* VERSION_1 */
    reg_write(d->common + 8, 4, 0);
    reg_write(d->common + 12, 4, features);
    reg_write(d->common + 8, 4, 1);
    reg_write(d->common + 12, 4, features >> 32);
    reg_write(d->common + 0x14, 1, 11);
    return reg_read(d->common + 0x14, 1) == 11;
}

static void queue_set(struct device *d, u32 n, u32 size, u64 desc, u64 avail, u64 used)
{
    reg_write(d->common + 0x16, 2, n);
    reg_write(d->common + 0x18, 2, size);
    for (int half = 0; half < 2; half++) {
        reg_write(d->common + 0x20 + (u64)half * 4, 4, desc >> 32 * half);
        reg_write(d->common + 0x28 + (u64)half * 4, 4, avail >> 32 * half);
        reg_write(d->common + 0x30 + (u64)half * 4, 4, used >> 32 * half);
    }
    reg_write(d->common + 0x1c, 2, 1);
}

static void notify(struct device *d, u32 n)
{
    reg_write(d->notify + n * d->notify_size, 2, n);
}

/* ---- nonsense ---- */

static u64 area(void)
{
    return AREA + random() % AREA_SIZE / 16 * 16;
}

static u64 anywhere(struct device *d)
{
    switch (random() % 16) {
    case 0: return d->bar + random() % 0x4000;
    case 1: return device[random() % (u64)devices].bar + random() % 0x4000 / 16 * 16;
    case 2: return LAPIC + random() % 0x400 / 16 * 16;
    case 3: return IOAPIC + random() % 0x20;
    case 4: return HPET + random() % 0x400;
    case 5: return RAM_END - random() % 64;
    case 6: return 0x9fff0 + random() % 32;
    case 7: return -(random() % 64);
    case 8: return 0xa0000 + random() % 0x20000;
    case 9: return 1ul << (36 + random() % 28);
    default: return area();
    }
}

static u32 length(void)
{
    switch (random() % 8) {
    case 0: return 0;
    case 1: return 1;
    case 2: return random() % 16 ? 512 : (u32)random();
    case 3: return random() % 16 ? 4096 : 0x80000000u;
    case 4: return 16; /* of a block request's header */
    default: return (u32)(random() % 5000);
    }
}

static void desc_write(u64 table, u32 index, u64 addr, u32 len, u32 flags, u32 next)
{
    volatile u64 *p = (volatile u64 *)(table + 16ul * index);

    p[0] = addr;
    p[1] = len | (u64)flags << 32 | (u64)next << 48;
}

/* Rings in the area hold 256 descriptors; in fours they are plausible requests to a disk, but for what is spoilt. */
static u64 rings_fill(struct device *d)
{
    u64 at = AREA + random() % (AREA_SIZE / 0x4000) * 0x4000;
    volatile u16 *avail = (volatile u16 *)(at + 0x1000);

    for (u32 n = 0; n < 256; n++) {
        u32 flags = n % 4 == 3 ? 2 : n % 4 ? 1 | (n & 2) : 1, next = n + 1;

        if (random() % 32 == 0)
            flags = (u32)random() & (random() % 2 ? 7 : 0xffff);
        if (random() % 32 == 0)
            next = (u32)random() % (random() % 4 ? 64 : 0x10000);
        desc_write(at, n, random() % 64 ? area() : anywhere(d), n % 4 == 0 ? 16 : n % 4 == 3 ? 1 : length(), flags, next);
    }
    for (u32 n = 0; n < 256; n++)
        avail[2 + n] = (u16)(random() % (random() % 128 ? 64 : 0x10000) & (random() % 8 ? ~3u : ~0u));
    avail[0] = 0;
    avail[1] = (u16)(random() % (random() % 32 ? 64 : 0x10000));
    return at;
}

static void storm(struct device *d)
{
    u32 queues;

    handshake(d, random() % 4 ? ~0ul : random());
    queues = reg_read(d->common + 0x12, 2);
    for (u32 n = 0; n < queues && n < 8; n++) {
        u64 at = rings_fill(d);
        u32 size = random() % 8 ? 64 : (u32)random() & 0xffff;

        if (random() % 16)
            queue_set(d, n, size, at, at + 0x1000, at + 0x2000);
        else
            queue_set(d, n, size, anywhere(d), anywhere(d), anywhere(d));
    }
    reg_write(d->common + 0x14, 1, 15);
    for (u32 n = 0; n < queues && n < 8; n++) {
        notify(d, n);
        if (random() % 8 == 0)
            notify(d, (u32)random() & 0xffff);
    }
    switch (random() % 4) {
    case 0: reset(d); break;
    case 1: config_write(d->slot, 4, 2 | (random() & 4)); break; /* bus mastering off, perhaps */
    case 2:
        reg_write(d->common + 0x16, 2, random() % 8);
        reg_write(d->common + 0x1c, 2, random()); /* the queue again */
        reg_write(d->common + 0x3a, 2, 1);        /* or its reset */
    }
    config_write(d->slot, 4, 0x406);
}

/* The other processors. */
static void scribble(int cpu)
{
    u64 seed = 0x1234567 * (u64)cpu;

    while (!stop) {
        u64 r = random_of(&seed);
        volatile u16 *p = (volatile u16 *)(AREA + r % AREA_SIZE / 2 * 2);

        *p = (u16)(r >> 40 & (r >> 60 ? 0x3f : 0xffff));
    }
}

/* ---- what must hold ---- */

/* Small numbers: as headers of block requests they make sense. */
static void area_fill(void)
{
    for (u64 n = 0; n < AREA_SIZE / 4; n++)
        ((u32 *)AREA)[n] = random() % 64 ? (u32)random() % 16 : (u32)random();
}

static void canary_fill(void)
{
    for (u64 n = 0; n < CANARY_SIZE / 8; n++)
        ((u64 *)CANARY)[n] = CANARY + n * 8;
}

static bool canary_kept(void)
{
    for (u64 n = 0; n < CANARY_SIZE / 8; n++)
        if (((u64 *)CANARY)[n] != CANARY + n * 8)
            return false;
    return true;
}

static u64 controllers(void)
{
    u64 sum = lapic_read(0xf0) + lapic_read(0x320) * 3ul + lapic_read(0x80) * 7ul + lapic_read(0xd0) * 11ul;

    for (u32 reg = 0; reg < 0x40; reg++) {
        *(volatile u32 *)IOAPIC = reg;
        sum = sum * 31 + *(volatile u32 *)(IOAPIC + 16);
    }
    return sum;
}

/* One chain through queue `n`; the used length, or ~0. */
static u32 request(struct device *d, u32 n, int count)
{
    volatile u16 *avail = (volatile u16 *)(AREA + 0x1000), *used = (volatile u16 *)(AREA + 0x2000);

    for (u32 i = 0; i < 0x1000; i++)
        ((volatile u8 *)avail)[i] = ((volatile u8 *)used)[i] = 0;
    (void)count;
    queue_set(d, n, 16, AREA, AREA + 0x1000, AREA + 0x2000);
    reg_write(d->common + 0x14, 1, 15);
    avail[2] = 0;
    avail[1] = 1;
    notify(d, n);
    for (u64 i = 0; i < 200000000 && used[1] == 0; i++)
        asm volatile("pause" ::: "memory");
    return used[1] == 1 ? *(volatile u32 *)(AREA + 0x2008) : ~0u;
}

static bool random_numbers(struct device *d)
{
    volatile u64 *to = (volatile u64 *)(AREA + 0x8000);

    to[0] = to[1] = 0;
    desc_write(AREA, 0, (u64)to, 16, 2, 0);
    return request(d, 0, 1) == 16 && (to[0] || to[1]);
}

/* The disk is this very program's file. */
static bool first_sector(struct device *d)
{
    volatile u32 *to = (volatile u32 *)(AREA + 0x9000);
    volatile u8 *status = (volatile u8 *)(AREA + 0xa000);

    *(volatile u64 *)(AREA + 0x8000) = 0;
    *(volatile u64 *)(AREA + 0x8008) = 0;
    *to = 0;
    *status = 0xff;
    desc_write(AREA, 0, AREA + 0x8000, 16, 1, 1);
    desc_write(AREA, 1, (u64)to, 512, 3, 2);
    desc_write(AREA, 2, (u64)status, 1, 2, 0);
    return request(d, 0, 3) == 513 && *to == 0x464c457f && !*status;
}

static void works_still(struct device *d)
{
    bool started = handshake(d, 0);

    if (d->id == 4)
        check(started && random_numbers(d), "random numbers for a driver that keeps the rules");
    else if (d->id == 2)
        check(started && first_sector(d), "a sector for a driver that keeps the rules");
    else
        check(started, "device %u starts again", d->id);
    reset(d);
}

void guest_main(void)
{
    u64 before;

    devices_find();
    check(devices >= 4, "%u virtio devices", (u32)devices);
    area_fill();
    canary_fill();
    before = controllers();
    check(cpus_start(3, scribble) == 3, "two more processors");
    for (int n = 0; n < ROUNDS; n++)
        if (device[n % devices].id != BALLOON)
            storm(&device[n % devices]);
    stop = true;
    for (int n = 0; n < devices; n++)
        reset(&device[n]);
    for (int n = 0; n < 10000; n++)
        inb(0x80);
    check(canary_kept(), "memory that was never offered is untouched");
    check(controllers() == before, "interrupt controllers are untouched");
    for (int n = 0; n < devices; n++)
        works_still(&device[n]);
}
