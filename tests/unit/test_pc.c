/* The board: memory layout, interrupt wiring, what stands in for firmware, and the whole machine's course on fake
 * vCPUs. */
#include "board/pc_map.h"
#include "machine/pci.h"
#include "pc_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct machine *m;

static int setup(void **unused)
{
    m = pc_fixture(MIB(16), 2);
    return 0;
}

static int teardown(void **unused)
{
    pc_fixture_free(m);
    return 0;
}

static void power_on(void)
{
    devices_reset(m);
    m->boot(m, m->boot_ctx);
}

static u8 cmos(u8 index)
{
    pio_write(m, PC_PORT_RTC, 1, index);
    return (u8)pio_read(m, PC_PORT_RTC + 1, 1);
}

static void low_memory_layout(void **unused)
{
    assert_non_null(guest_memory_ptr(m->mem, 0, 0xa0000, true));
    assert_null(guest_memory_find(m->mem, 0xa0000));
    assert_null(guest_memory_find(m->mem, 0xbffff));
    assert_non_null(guest_memory_ptr(m->mem, 0xc0000, MIB(16) - 0xc0000, true));
    assert_null(guest_memory_find(m->mem, MIB(16)));
}

static void memory_above_the_hole(void **unused)
{
    struct machine *big = pc_fixture(GIB(5), 1);

    assert_non_null(guest_memory_ptr(big->mem, GIB(3) - 1, 1, true));
    assert_null(guest_memory_find(big->mem, GIB(3)));
    assert_null(guest_memory_find(big->mem, GIB(4) - 1));
    assert_non_null(guest_memory_ptr(big->mem, GIB(4), GIB(2), true));
    assert_null(guest_memory_find(big->mem, GIB(6)));
    pc_fixture_free(big);
}

static void bad_memory_sizes(void **unused)
{
    struct pc_config config = {.machine = m->config};
    struct machine *none = NULL;
    struct err e;

    config.machine.ram_size = MIB(1);
    assert_true(pc_create(&config, &none, &e) < 0);
    assert_true(strlen(e.text) > 10);
    config.machine.ram_size = MIB(64) + 1;
    assert_true(pc_create(&config, &none, &e) < 0);
    assert_null(none);
}

static void cmos_tells_the_memory(void **unused)
{
    power_on();
    assert_int_equal(cmos(0x15) | cmos(0x16) << 8, 640);
    assert_int_equal(cmos(0x17) | cmos(0x18) << 8, 15 << 10);
    assert_int_equal(cmos(0x34) | cmos(0x35) << 8, 0);
    assert_int_equal(cmos(0x5f), 1);
}

static void boot_enters_the_kernel(void **unused)
{
    u8 signature[8];

    power_on();
    assert_int_equal(fake_vcpu_log(m->cpus)->boots, 1);
    assert_int_equal(fake_vcpu_log(m->cpus)->boot.rip, PC_FIXTURE_ENTRY);
    assert_int_equal(fake_vcpu_log(m->cpus)->boot.rax, 0x2badb002);
    assert_int_equal(m->end, MACHINE_RUNNING);
    assert_int_equal(guest_memory_read(m->mem, PC_RSDP, signature, 8), 0);
    assert_memory_equal(signature, "RSD PTR ", 8);
}

static void pci_is_programmed(void **unused)
{
    power_on();
    for (int slot = 2; slot < 7; slot++) {
        const struct pci_device *d = pci_device_at(m, slot, 0);

        assert_non_null(d);
        if (d->ps.config[PCI_INTERRUPT_PIN])
            assert_int_equal(d->ps.config[PCI_INTERRUPT_LINE], ((slot & 3) < 2) ? 10 : 11);
        for (int bar = 0; bar < PCI_BARS; bar++) {
            assert_int_equal(d->bar[bar].mapped, d->bar[bar].size != 0);
            if (d->bar[bar].mapped && !d->bar[bar].io)
                assert_true(d->bar[bar].mapped_at >= PC_PCI_MMIO &&
                            d->bar[bar].mapped_at + d->bar[bar].size <= PC_PCI_MMIO_END);
        }
    }
    assert_int_equal(pio_read(m, PC_PORT_ELCR, 2), 0x0e00);
    assert_int_equal(pio_read(m, PC_PORT_PM + 4, 2), 1); /* SCI_EN */
}

/* Programs the PICs as PC operating systems do, unmasking one interrupt. */
static void pic_setup(int irq)
{
    static const u8 master[] = {0x20, 4, 1}, slave[] = {0x28, 2, 1};
    u16 mask = (u16)~(1u << irq | 1u << 2);

    pio_write(m, PC_PORT_PIC_MASTER, 1, 0x11);
    pio_write(m, PC_PORT_PIC_SLAVE, 1, 0x11);
    for (int i = 0; i < 3; i++) {
        pio_write(m, PC_PORT_PIC_MASTER + 1, 1, master[i]);
        pio_write(m, PC_PORT_PIC_SLAVE + 1, 1, slave[i]);
    }
    pio_write(m, PC_PORT_PIC_MASTER + 1, 1, mask & 0xff);
    pio_write(m, PC_PORT_PIC_SLAVE + 1, 1, mask >> 8);
}

/* Edge-triggered to CPU 0, fixed delivery. */
static void ioapic_unmask(int pin, u8 vector, bool level)
{
    mmio_write(m, PC_IOAPIC, 4, 0x11 + 2 * (u64)pin);
    mmio_write(m, PC_IOAPIC + 0x10, 4, 0);
    mmio_write(m, PC_IOAPIC, 4, 0x10 + 2 * (u64)pin);
    mmio_write(m, PC_IOAPIC + 0x10, 4, vector | (level ? 0x8000u : 0));
}

static void pit_interrupt(void)
{
    pio_write(m, PC_PORT_PIT + 3, 1, 0x34);
    pio_write(m, PC_PORT_PIT, 1, 0xa9);
    pio_write(m, PC_PORT_PIT, 1, 0x04);
    fixture_time(m, machine_now(m) + 3000000);
}

static void pit_reaches_the_pic(void **unused)
{
    power_on();
    pic_setup(0);
    assert_false(fake_vcpu_log(m->cpus)->intr);
    pit_interrupt();
    assert_true(fake_vcpu_log(m->cpus)->intr);
    assert_int_equal(m->pic_ack(m->pic), 0x20);
    assert_false(fake_vcpu_log(m->cpus)->intr);
}

static void pit_reaches_the_ioapic(void **unused)
{
    const struct fake_vcpu_log *log = fake_vcpu_log(m->cpus);

    power_on();
    ioapic_unmask(PC_IOAPIC_PIT_PIN, 0x30, false);
    pit_interrupt();
    assert_true(log->message_count >= 1);
    assert_int_equal(log->message[0].vector, 0x30);
}

static void pci_interrupt_reaches_both(void **unused)
{
    const struct fake_vcpu_log *log = fake_vcpu_log(m->cpus);
    struct pci_device *d;

    power_on();
    pic_setup(10);
    ioapic_unmask(10, 0x41, true);
    d = pci_device_at(m, 4, 0); /* PIRQA */
    pci_intx_set(d, true);
    assert_true(log->intr);
    assert_int_equal(log->message_count, 1);
    assert_int_equal(log->message[0].vector, 0x41);
    assert_true(log->message[0].level_triggered);
    m->ioapic_eoi(m->ioapic, 0x41); /* still asserted: again */
    assert_int_equal(log->message_count, 2);
    pci_intx_set(d, false);
    m->ioapic_eoi(m->ioapic, 0x41);
    assert_int_equal(log->message_count, 2);
}

/* The BIOS's own: timer ticks at vector 8. */
static void firmware_left_the_timer_running(void **unused)
{
    u32 vector;

    power_on();
    fixture_time(m, machine_now(m) + 60000000);
    assert_true(fake_vcpu_log(m->cpus)->intr);
    assert_int_equal(m->pic_ack(m->pic), 8);
    assert_int_equal(guest_memory_read(m->mem, 8 * 4, &vector, 4), 0);
    assert_int_equal((vector >> 16 << 4) + (vector & 0xffff), PC_BIOS_CODE + 0x10);
}

static void waking_leaves_memory_alone(void **unused)
{
    u32 vector = 0x9004, mark = 0x600df00d;

    power_on();
    assert_int_equal(guest_memory_write(m->mem, MIB(16) - PC_ACPI_SIZE + 12, &vector, 4), 0);
    assert_int_equal(guest_memory_write(m->mem, 0x100000, &mark, 4), 0); /* where the kernel was loaded */
    m->waking = true;
    power_on();
    assert_int_equal(fake_vcpu_log(m->cpus)->boot.cs.base, 0x9000);
    assert_int_equal(fake_vcpu_log(m->cpus)->boot.rip, 4);
    assert_int_equal(fake_vcpu_log(m->cpus)->boot.cr0 & 1, 0);
    assert_int_equal(*(u32 *)guest_memory_ptr(m->mem, 0x100000, 4, false), mark);
    vector = 0x100000; /* out of real mode's reach: a start from the beginning */
    assert_int_equal(guest_memory_write(m->mem, MIB(16) - PC_ACPI_SIZE + 12, &vector, 4), 0);
    power_on();
    assert_int_equal(fake_vcpu_log(m->cpus)->boot.rip, PC_FIXTURE_ENTRY);
}

static void power_button_raises_the_sci(void **unused)
{
    const struct fake_vcpu_log *log = fake_vcpu_log(m->cpus);

    power_on();
    ioapic_unmask(PC_IRQ_SCI, 0x39, true);
    pio_write(m, PC_PORT_PM + 2, 2, 0x100);
    pc_power_button(m);
    assert_int_equal(log->message_count, 1);
    assert_int_equal(log->message[0].vector, 0x39);
}

/* What the guest does in each of its lives. */
static void guest(void *ctx, int index)
{
    int *life = ctx;

    if (index)
        return;
    switch ((*life)++) {
    case 0: pio_write(m, PC_PORT_RESET, 1, PC_RESET_VALUE); break;
    case 1: pio_write(m, PC_PORT_KBC_COMMAND, 1, 0xfe); break;
    default: pio_write(m, PC_PORT_PM + 4, 2, 0x2001);
    }
}

static void guest_resets_and_powers_off(void **unused)
{
    int life = 0;

    fake_vcpu_program(m->cpus, guest, &life);
    assert_int_equal(machine_run(m), MACHINE_POWER_OFF);
    assert_int_equal(life, 3);
    assert_int_equal(fake_vcpu_log(m->cpus)->boots, 3);
}

static void debug_exit_guest(void *ctx, int index)
{
    if (!index)
        pio_write(m, PC_PORT_DEBUG_EXIT, 1, 0x10);
}

static void guest_exits_by_debug_port(void **unused)
{
    fake_vcpu_program(m->cpus, debug_exit_guest, NULL);
    assert_int_equal(machine_run(m), MACHINE_DEBUG_EXIT);
    assert_int_equal(m->end_value, 0x21);
}

/* Nonsense to every port and over every device's memory. */
static void nonsense_everywhere(void **unused)
{
    power_on();
    srandom(5);
    for (int round = 0; round < 3; round++) {
        for (u32 port = 0; port < 0x10000; port++) {
            pio_write(m, (u16)port, 1 << random() % 3, (u64)random());
            pio_read(m, (u16)port, 1 << random() % 3);
        }
        fixture_time(m, machine_now(m) + 100000000);
        pc_fixture_tasks(m);
        power_on();
        for (u64 gpa = PC_PCI_MMIO; gpa < PC_PCI_MMIO + KIB(256); gpa += 4) {
            mmio_write(m, gpa + (u64)random() % 4, 1 << random() % 4, (u64)random() << 32 | (u64)random());
            mmio_read(m, gpa, 1 << random() % 4);
        }
        for (u64 gpa = 0; gpa < 0x1000; gpa++) {
            mmio_write(m, PC_HPET + gpa, 1 << random() % 4, (u64)random() << 32 | (u64)random());
            mmio_write(m, PC_IOAPIC + gpa, 1 << random() % 4, (u64)random() << 32 | (u64)random());
        }
        fixture_time(m, machine_now(m) + 100000000);
        pc_fixture_tasks(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(low_memory_layout, setup, teardown),
        cmocka_unit_test(memory_above_the_hole),
        cmocka_unit_test_setup_teardown(bad_memory_sizes, setup, teardown),
        cmocka_unit_test_setup_teardown(cmos_tells_the_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(boot_enters_the_kernel, setup, teardown),
        cmocka_unit_test_setup_teardown(pci_is_programmed, setup, teardown),
        cmocka_unit_test_setup_teardown(pit_reaches_the_pic, setup, teardown),
        cmocka_unit_test_setup_teardown(pit_reaches_the_ioapic, setup, teardown),
        cmocka_unit_test_setup_teardown(pci_interrupt_reaches_both, setup, teardown),
        cmocka_unit_test_setup_teardown(firmware_left_the_timer_running, setup, teardown),
        cmocka_unit_test_setup_teardown(waking_leaves_memory_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(power_button_raises_the_sci, setup, teardown),
        cmocka_unit_test_setup_teardown(guest_resets_and_powers_off, setup, teardown),
        cmocka_unit_test_setup_teardown(guest_exits_by_debug_port, setup, teardown),
        cmocka_unit_test_setup_teardown(nonsense_everywhere, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
