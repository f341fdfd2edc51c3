/* The PC board: which chip sits where, and which wire goes to which pin. See pc.h for the board, pc_map.h for the
 * numbers.
 *
 * Intel 440FX and PIIX4 data sheets (290549, 290562). Wires of the ISA interrupts join two sources, an ISA device and
 * the PIRQ router, and end at two controllers, the PIC pair and the I/O APIC; the guest uses one of them. */
#include "board/pc.h"
#include "board/pc_boot.h"
#include "board/pc_map.h"
#include "dev/debugcon.h"
#include "dev/fw_cfg.h"
#include "dev/hpet.h"
#include "dev/i440fx_host.h"
#include "dev/i8042_kbc.h"
#include "dev/i8254_pit.h"
#include "dev/i8259_pic.h"
#include "dev/ioapic_82093aa.h"
#include "dev/irq13.h"
#include "dev/isa_debug_exit.h"
#include "dev/mc146818_rtc.h"
#include "dev/ns16550_uart.h"
#include "dev/pc_testdev.h"
#include "dev/pci_testdev.h"
#include "dev/piix3_isa.h"
#include "dev/piix4_pm.h"
#include "dev/virtio_balloon.h"
#include "dev/virtio_blk.h"
#include "dev/virtio_console.h"
#include "dev/virtio_net.h"
#include "dev/virtio_rng.h"

#include <errno.h>

/* Levels of the wires are kept like any state: a restore that drove them anew would show edges to the controllers. */
struct pc_state {
    u16 isa_levels;  /* bit n: an ISA device drives interrupt n */
    u16 pirq_levels; /* bit n: the PIRQ router does */
};

/* The board is itself a device of the machine, so that it lives and is reset with it. */
struct pc {
    struct device dev;
    struct pc_state s;
    struct pc_boot boot;
    struct device *pic, *ioapic, *rtc, *hpet, *pm;
};

static const struct state_field pc_fields[] = {
    STATE(struct pc_state, isa_levels), STATE(struct pc_state, pirq_levels), STATE_END};

static void isa_update(struct pc *pc, int n)
{
    bool level = (pc->s.isa_levels | pc->s.pirq_levels) >> n & 1;

    i8259_pic_set(pc->pic, n, level);
    ioapic_82093aa_set(pc->ioapic, n == PC_IRQ_PIT ? PC_IOAPIC_PIT_PIN : n, level);
}

static u16 with_bit(u16 bits, int n, bool val)
{
    return (u16)((bits & ~(1u << n)) | (unsigned)val << n);
}

static void isa_set(void *ctx, int n, bool level)
{
    struct pc *pc = ctx;

    pc->s.isa_levels = with_bit(pc->s.isa_levels, n, level);
    isa_update(pc, n);
}

static void isa_pirq_set(void *ctx, int n, bool level)
{
    struct pc *pc = ctx;

    pc->s.pirq_levels = with_bit(pc->s.pirq_levels, n, level);
    isa_update(pc, n);
}

static struct irq isa_irq(struct pc *pc, int n)
{
    return (struct irq){.set = isa_set, .ctx = pc, .pin = n};
}

static void pc_reset(struct device *dev)
{
    struct pc *pc = container_of(dev, struct pc, dev);

    pc->s = (struct pc_state){0};
}

static const struct device_type pc_type = {
    .name = "pc",
    .size = sizeof(struct pc),
    .state_offset = offsetof(struct pc, s),
    .state = STATE_TABLE(struct pc_state, pc_fields, 1),
    .reset = pc_reset,
};

static void interrupt_controllers_add(struct pc *pc)
{
    struct machine *m = pc->dev.machine;
    struct irq intr = {.set = machine_intr_set, .ctx = m};

    pc->pic = m->pic = i8259_pic_create(m, PC_PORT_PIC_MASTER, PC_PORT_PIC_SLAVE, PC_PORT_ELCR, &intr);
    m->pic_ack = i8259_pic_ack;
    pc->ioapic = m->ioapic = ioapic_82093aa_create(m, PC_IOAPIC, PC_IOAPIC_ID);
    m->ioapic_eoi = ioapic_82093aa_eoi;
}

/* The HPET's legacy routing takes IRQ8 from the clock; its alarm then reaches the guest as the ACPI event. */
static void rtc_set(void *ctx, int pin, bool level)
{
    struct pc *pc = ctx;

    hpet_legacy_set(pc->hpet, HPET_RTC_IN, level);
    piix4_pm_rtc_set(pc->pm, pin, level);
}

/* The PIT's and the RTC's interrupts pass through the HPET, which can take their place. */
static void timers_add(struct pc *pc)
{
    struct machine *m = pc->dev.machine;
    struct hpet_wires wires = {.irq0 = isa_irq(pc, PC_IRQ_PIT), .irq8 = isa_irq(pc, PC_IRQ_RTC)};
    struct irq pit = {.set = hpet_legacy_set, .pin = HPET_PIT_IN}, rtc = {.set = rtc_set, .ctx = pc};

    for (int i = 0; i < HPET_ROUTES; i++)
        wires.ioapic[i] = (struct irq){.set = ioapic_82093aa_set, .ctx = pc->ioapic, .pin = HPET_FIRST_ROUTE + i};
    pc->hpet = hpet_create(m, PC_HPET, &wires);
    pit.ctx = pc->hpet;
    i8254_pit_create(m, PC_PORT_PIT, PC_PORT_CONTROL_B, &pit);
    pc->rtc = mc146818_rtc_create(m, PC_PORT_RTC, &rtc);
}

/* After the PCI bus took 0xCF8: the reset control register lies inside that dword and answers to bytes. */
static void bridges_add(struct pc *pc)
{
    struct machine *m = pc->dev.machine;
    struct irq sci = isa_irq(pc, PC_IRQ_SCI), pirq[16];

    for (int n = 0; n < 16; n++)
        pirq[n] = (struct irq){.set = isa_pirq_set, .ctx = pc, .pin = n};
    pci_bus_create(m);
    i440fx_host_create(m);
    piix3_isa_create(m, PC_SLOT_ISA, PC_PORT_RESET, pirq);
    pc->pm = piix4_pm_create(m, PC_SLOT_ISA, PC_FUNCTION_PM, PC_PORT_SMI_COMMAND, &sci);
}

/* What firmware asks first; the items are those that a direct kernel boot can use. */
static void fw_cfg_fill(struct machine *m)
{
    struct device *fw_cfg = fw_cfg_create(m, PC_PORT_FW_CFG);

    fw_cfg_add(fw_cfg, FW_CFG_RAM_SIZE, m->config.ram_size, 8);
    fw_cfg_add(fw_cfg, FW_CFG_NB_CPUS, (u64)m->config.cpu_count, 2);
    fw_cfg_add(fw_cfg, FW_CFG_MAX_CPUS, (u64)m->config.cpu_count, 2);
}

/* Lines 0 to 15 are the ISA interrupts but for 2, the PICs' cascade; the others are inputs of the I/O APIC alone. */
static void pc_testdev_add(struct pc *pc)
{
    struct irq line[PC_TESTDEV_LINES];

    for (int n = 0; n < PC_TESTDEV_LINES; n++)
        line[n] = n < 16 ? isa_irq(pc, n) : (struct irq){.set = ioapic_82093aa_set, .ctx = pc->ioapic, .pin = n};
    line[2] = (struct irq){0};
    pc_testdev_create(pc->dev.machine, line);
}

static void isa_devices_add(struct pc *pc, const struct pc_config *config)
{
    struct machine *m = pc->dev.machine;
    struct irq keyboard = isa_irq(pc, PC_IRQ_KEYBOARD), mouse = isa_irq(pc, PC_IRQ_MOUSE);
    struct irq com1 = isa_irq(pc, PC_IRQ_COM1), coprocessor = isa_irq(pc, PC_IRQ_COPROCESSOR);

    i8042_kbc_create(m, PC_PORT_KBC_DATA, PC_PORT_KBC_COMMAND, PC_PORT_CONTROL_A, &keyboard, &mouse);
    irq13_create(m, PC_PORT_COPROCESSOR_ERROR, &coprocessor);
    if (config->serial)
        ns16550_uart_create(m, PC_PORT_COM1, &com1, config->serial);
    fw_cfg_fill(m);
    if (config->pc_testdev)
        pc_testdev_add(pc); /* before the debug console, whose port lies among its own */
    if (config->debugcon)
        debugcon_create(m, PC_PORT_DEBUGCON, config->debugcon);
    if (config->debug_exit)
        isa_debug_exit_create(m, PC_PORT_DEBUG_EXIT);
}

static void pci_devices_add(struct pc *pc, const struct pc_config *config)
{
    struct machine *m = pc->dev.machine;

    for (int i = 0; i < config->disk_count; i++)
        virtio_blk_create(m, config->disk[i], config->disk_serial[i]);
    if (config->net)
        virtio_net_create(m, config->net, config->mac);
    if (config->virtio_console)
        virtio_console_create(m, config->virtio_console);
    if (config->rng)
        virtio_rng_create(m);
    if (config->balloon)
        virtio_balloon_create(m);
    if (config->pci_testdev)
        pci_testdev_create(m);
}

/* Offsets in the backing are guest-physical addresses, with what lies above the hole moved down to its start. */
static int ram_map(struct machine *m)
{
    struct guest_memory *mem = m->mem;
    u64 low = MIN(m->config.ram_size, PC_LOW_RAM_MAX), high = m->config.ram_size - low;
    int r = guest_memory_map(mem, 0, PC_VGA_WINDOW, 0, false);

    if (!r)
        r = guest_memory_map(mem, PC_VGA_WINDOW_END, low - PC_VGA_WINDOW_END, PC_VGA_WINDOW_END, false);
    if (!r && high)
        r = guest_memory_map(mem, PC_HIGH_RAM, high, low, false);
    return r;
}

static int ram_size_check(u64 size, struct err *e)
{
    if (size < PC_RAM_MIN)
        return err_set(e, -EINVAL, "%llu KiB of memory are too little for a PC; give it at least %llu MiB",
                       (unsigned long long)size >> 10, (unsigned long long)PC_RAM_MIN >> 20);
    if (size & ~PAGE_MASK)
        return err_set(e, -EINVAL, "the memory size must be a multiple of 4 KiB");
    return 0;
}

int pc_check(const struct pc_config *config, struct err *e)
{
    int r = ram_size_check(config->machine.ram_size, e);

    return r ? r : vcpu_model_check(&config->machine.model, e);
}

int pc_create(const struct pc_config *config, struct machine **ret, struct err *e)
{
    struct machine *m = NULL;
    struct pc *pc;
    int r = ram_size_check(config->machine.ram_size, e);

    if (r)
        return r;
    r = machine_create(&config->machine, config->machine.ram_size, &m, e);
    if (r)
        return r;
    r = ram_map(m);
    assert(!r);
    pc = container_of(device_add(m, &pc_type), struct pc, dev);
    interrupt_controllers_add(pc);
    bridges_add(pc);
    timers_add(pc); /* their wires end at a bridge */
    isa_devices_add(pc, config);
    pci_devices_add(pc, config);
    pc_boot_setup(&pc->boot, m, pc->rtc, config->boot, config->serial);
    *ret = m;
    return 0;
}

void pc_power_button(struct machine *m)
{
    piix4_pm_power_button(device_find(m, &piix4_pm_type));
}
