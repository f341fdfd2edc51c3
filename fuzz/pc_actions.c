/* Actions on a whole PC: see pc_actions.h. An action is a byte that chooses it, and its parameters.
 *
 * Ports and addresses come from lists of where chips are, with an offset, so that inputs find them; any other address can be
 * named as well. Time moves in steps, in which timers fire at their moments, or jumps, as on a host that slept. */
#include "pc_actions.h"

#include "../tests/unit/pc_fixture.h"
#include "../tests/unit/virtio_driver.h"
#include "board/pc_map.h"
#include "cpu/interp.h"
#include "cpu/lapic.h"
#include "machine/pci.h"

#include <fcntl.h>
#include <string.h>

enum { RAM = MIB(4), RAM_USED = 0x40000, CODE_AT = 0x500, RINGS_AT = 0x8000, RINGS_EACH = 0x6000, VIRTIO_MAX = 8 };

static struct machine *m;
static struct device *virtio[VIRTIO_MAX];
static struct driver driver[VIRTIO_MAX];
static int virtio_count;

/* ---- ports and memory ---- */

static u16 port_choose(struct fuzz_input *in)
{
    static const u16 chips[] = {
        PC_PORT_PIC_MASTER, PC_PORT_PIC_SLAVE, PC_PORT_PIT,      PC_PORT_CONTROL_B,  PC_PORT_KBC_DATA,   PC_PORT_KBC_COMMAND,
        PC_PORT_RTC,        PC_PORT_CONTROL_A, PC_PORT_COM1,     PC_PORT_COM1 + 1,   PC_PORT_COM1 + 4,   PC_PORT_ELCR,
        PC_PORT_PM,         PC_PORT_PM + 4,    PC_PORT_PM + 8,   PC_PORT_RESET,      PC_PORT_SMI_COMMAND, PC_PORT_DEBUGCON,
        PC_PORT_DEBUG_EXIT, 0xcf8,             0xcfc,            PC_PORT_PIT + 3,    PC_PORT_RTC + 1,    PC_PORT_PM + 0x20};
    u8 which = (u8)take(in, 1);

    if (which & 0x80)
        return (u16)take(in, 2);
    return (u16)(chips[(which & 0x1f) % ARRAY_SIZE(chips)] + (which >> 5));
}

static void act_port(struct fuzz_input *in)
{
    u16 port = port_choose(in);
    u8 how = (u8)take(in, 1);
    int size = 1 << (how & 3) % 3;

    if (how & 4)
        pio_read(m, port, size);
    else
        pio_write(m, port, size, take(in, size));
}

static u64 gpa_choose(struct fuzz_input *in)
{
    static const u64 chips[] = {PC_IOAPIC, PC_IOAPIC + 0x10, PC_HPET, PC_HPET + 0x100, PC_HPET + 0x120, PC_VGA_WINDOW, PC_LAPIC};
    u8 which = (u8)take(in, 1);

    if (which & 0x80)
        return take(in, 8);
    if (which & 0x40)
        return (driver[which % MAX(virtio_count, 1)].common & ~0xfffull) + take(in, 2) % 0x10000;
    return chips[which % ARRAY_SIZE(chips)] + take(in, 1);
}

static void act_memory(struct fuzz_input *in)
{
    u64 gpa = gpa_choose(in);
    u8 how = (u8)take(in, 1);
    int size = 1 << (how & 3);

    if (guest_memory_find(m->mem, gpa))
        return;
    if (how & 4)
        mmio_read(m, gpa, size);
    else
        mmio_write(m, gpa, size, take(in, size));
}

static void act_lapic(struct fuzz_input *in)
{
    struct vcpu *c = vcpu_get(m->cpus, (int)take(in, 1) & 1);
    u32 reg = (u32)take(in, 1) << 4 | (u32)take(in, 1) % 16;
    u8 how = (u8)take(in, 1);
    u64 val;

    switch (how % 4) {
    case 0: lapic_mmio_write(c, reg & 0xff0, 4, (u32)take(in, 4)); break;
    case 1: lapic_mmio_read(c, reg, 1 << (how >> 2 & 3)); break;
    case 2: lapic_msr_write(c, how & 4 ? 0x1b : how & 8 ? 0x6e0 : 0x800 + reg % 64, take(in, 8)); break;
    case 3: lapic_msr_read(c, how & 4 ? 0x1b : 0x800 + reg % 64, &val); break;
    }
}

static void act_pci(struct fuzz_input *in)
{
    u16 at = (u16)take(in, 2);
    u8 how = (u8)take(in, 1);
    int size = 1 << (how & 3) % 3;
    u16 port = (u16)(0xcfc + (at & 3 & ~(size - 1)));

    pio_write(m, 0xcf8, 4, 0x80000000u | (u32)(at & 0xff) % 10 << 11 | (u32)(how >> 3 & 3) << 8 | (u32)(at >> 8 & 0xfc));
    if (how & 4)
        pio_read(m, port, size);
    else
        pio_write(m, port, size, take(in, size));
}

static void act_ram(struct fuzz_input *in)
{
    u64 gpa = (take(in, 2) << 2) % RAM_USED;
    u8 len = (u8)take(in, 1), bytes[256];

    for (int i = 0; i < len; i++)
        bytes[i] = (u8)take(in, 1);
    dma_write(m, gpa, bytes, len);
}

/* ---- virtio ---- */

static void rings(struct driver *d, int i)
{
    int queues = (int)MIN(common_get(d, 0x12, 2), 8u); /* all ones when the BAR is gone */

    d->next_gpa = RINGS_AT + (u64)i * RINGS_EACH;
    for (int n = 0; n < queues; n++)
        driver_queue(d, n, 16);
}

static void act_virtio_start(struct fuzz_input *in)
{
    int i = (int)take(in, 1) % virtio_count;
    struct driver *d = &driver[i];

    driver_find(d, m, virtio[i]);
    common_set(d, 0x14, 1, 0);
    common_set(d, 0x14, 1, 3);
    driver_accept(d, ~take(in, 8) & driver_offered(d));
    common_set(d, 0x14, 1, 11);
    rings(d, i);
    common_set(d, 0x14, 1, 15);
}

static void act_virtio_register(struct fuzz_input *in)
{
    struct driver *d = &driver[take(in, 1) % (u64)virtio_count];
    u8 how = (u8)take(in, 1);
    int size = how & 0x80 ? 2 : how & 0x40 ? 1 : 4;

    mmio_write(m, d->common + (how & 0x3f), size, take(in, size));
    mmio_read(m, d->common + (how & 0x3f), size);
}

/* A chain of up to eight descriptors, any field of which may be spoilt. */
static void act_virtio_chain(struct fuzz_input *in)
{
    struct driver *d = &driver[take(in, 1) % (u64)virtio_count];
    u8 what = (u8)take(in, 1);
    int n = what & 7, count = 1 + (what >> 3 & 7);
    struct ring *r = &d->ring[n];
    u16 head = r->next_desc;

    if (!r->size)
        return;
    for (int k = 0; k < count; k++) {
        u8 how = (u8)take(in, 1);
        u64 gpa = how & 1 ? take(in, 8) : (take(in, 2) << 2) % RAM_USED;
        u32 len = how & 2 ? (u32)take(in, 4) : (u32)take(in, 1);
        u16 flags = how & 4 ? (u16)take(in, 2) : (u16)((how >> 6 & 2) | (k + 1 < count));
        u16 next = how & 8 ? (u16)take(in, 2) : (u16)((head + k + 1) % r->size);

        desc_set(d, r->desc, (head + k) % r->size, gpa, len, flags, next);
    }
    r->next_desc = (u16)((head + count) % r->size);
    driver_offer(d, n, head);
    mmio_write(m, d->notify + (u64)n * 4, 2, (u64)n);
}

/* ---- time and the outside ---- */

static void act_time(struct fuzz_input *in)
{
    u8 how = (u8)take(in, 1);
    u64 step = take(in, 1) << (how & 31), until = machine_now(m) + step;

    for (int n = 0; n < 100 && timer_queue_next(&m->timers) <= until; n++) {
        clock_set(&m->clock, MAX(timer_queue_next(&m->timers), machine_now(m)));
        timer_queue_run(&m->timers);
    }
    clock_set(&m->clock, MAX(until, machine_now(m)));
    timer_queue_run(&m->timers);
}

/* Up to some years, in one go. */
static void act_sleep(struct fuzz_input *in)
{
    u64 now = machine_now(m);

    if (now > 1ull << 60)
        return;
    clock_set(&m->clock, now + (1ull << take(in, 1) % 58));
    timer_queue_run(&m->timers);
}

static void console_keys(struct console *c, struct fuzz_input *in)
{
    u8 keys[64];
    int room = c->room ? c->room(c->ctx) : 0, len = 1 + (int)take(in, 1) % 64;

    memset(keys, (int)take(in, 1), sizeof(keys));
    if (room > 0)
        c->receive(c->ctx, keys, MIN(len, room));
}

static void act_outside(struct fuzz_input *in)
{
    static u8 frame[4096];

    switch (take(in, 1) % 5) {
    case 0: console_keys(pc_fixture_console(0), in); break;
    case 1: console_keys(pc_fixture_console(1), in); break;
    case 2: net_deliver(pc_fixture_net(), frame, 14 + take(in, 2) % (sizeof(frame) - 14)); break;
    case 3: pc_power_button(m); break;
    case 4:
        if (pc_fixture_console(0)->line_break)
            pc_fixture_console(0)->line_break(pc_fixture_console(0)->ctx);
    }
}

static void act_loop(struct fuzz_input *in)
{
    pc_fixture_tasks(m);
    if (m->reset_wanted)
        pc_actions_reset();
}

/* ---- code ---- */

/* Real-mode code in vCPU 0: interrupts reach it through a table of zeros. */
static void act_code(struct fuzz_input *in)
{
    struct vcpu *c = vcpu_get(m->cpus, 0);
    u8 code[16], steps = (u8)take(in, 1);

    for (size_t i = 0; i < sizeof(code); i++)
        code[i] = (u8)take(in, 1);
    dma_write(m, CODE_AT, code, sizeof(code));
    if (c->s.activity == VCPU_ACTIVE && !protected_mode(c) && steps & 0x80)
        c->s.gpr[RIP] = CODE_AT - c->s.seg_base[SEG_CS];
    if (steps & 0x40)
        c->s.rflags |= FLAG_IF;
    for (int i = 0; i < (steps & 0x3f); i++)
        interp_step(c);
}

static void (*const action[])(struct fuzz_input *in) = {
    act_port,         act_port,  act_port,   act_memory, act_memory,  act_lapic, act_pci,  act_ram, act_virtio_start,
    act_virtio_register, act_virtio_chain, act_time, act_sleep,   act_outside, act_loop, act_code};

/* ---- the machine ---- */

static void virtio_find(void)
{
    for (struct device *dev = m->devices; dev && virtio_count < VIRTIO_MAX; dev = dev->next)
        if (!strncmp(dev->type->name, "virtio", 6))
            virtio[virtio_count++] = dev;
}

struct machine *pc_actions_machine(void)
{
    if (!m) {
        m = pc_fixture(RAM, 2);
        virtio_find();
    }
    return m;
}

void pc_actions_reset(void)
{
    static struct frame_queue *queue;
    size_t len;

    queue = &pc_fixture_net()->to_host;
    pc_fixture_tasks(m);
    while (frame_queue_peek(queue, &len))
        frame_queue_drop(queue);
    memset(m->mem->backing, 0, RAM_USED);
    fallocate(m->mem->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, RAM_USED, RAM - RAM_USED); /* DMA went anywhere */
    guest_memory_written(m->mem, m->mem->backing, RAM);
    timer_queue_clear(&m->timers);
    clock_set(&m->clock, 0);
    m->end = MACHINE_RUNNING;
    m->reset_wanted = false;
    devices_reset(m);
    vcpu_group_reset(m->cpus);
    vcpu_group_resume(m->cpus);
    for (int i = 0; i < virtio_count; i++)
        driver_find(&driver[i], m, virtio[i]);
    pc_fixture_tasks(m);
}

void pc_actions_run(struct fuzz_input *in)
{
    while (in->left)
        action[take(in, 1) % ARRAY_SIZE(action)](in);
    pc_fixture_tasks(m);
}
