/* The devices that test guests use: pc-testdev, pci-testdev, and the fw_cfg items that they read. */
#include "dev/fw_cfg.h"
#include "dev/pc_testdev.h"
#include "dev/pci_testdev.h"
#include "machine/pci_bus.h"
#include "machine_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static struct machine *m;

static int setup(void **unused)
{
    m = fixture_machine(1);
    return 0;
}

static int teardown(void **unused)
{
    fixture_free(m);
    return 0;
}

static void fw_cfg_items(void **unused)
{
    struct device *dev = fw_cfg_create(m, 0x510);
    u32 cpus;

    fw_cfg_add(dev, FW_CFG_NB_CPUS, 0x0203, 2);
    pio_write(m, 0x510, 2, FW_CFG_SIGNATURE);
    for (const char *want = "QEMU"; *want; want++)
        assert_int_equal(pio_read(m, 0x511, 1), *want);
    assert_int_equal(pio_read(m, 0x511, 1), 0);
    pio_write(m, 0x510, 2, FW_CFG_NB_CPUS);
    cpus = (u32)pio_read(m, 0x511, 1);
    assert_int_equal(cpus | pio_read(m, 0x511, 1) << 8, 0x0203);
    for (int i = 0; i < 100; i++)
        assert_int_equal(pio_read(m, 0x511, 1), 0);
    pio_write(m, 0x510, 2, 0xffff); /* nobody's */
    assert_int_equal(pio_read(m, 0x511, 1), 0);
    pio_write(m, 0x510, 1, FW_CFG_NB_CPUS); /* not a word: nothing is selected */
    assert_int_equal(pio_read(m, 0x511, 1), 0);
}

static u32 line_levels;

static void line_set(void *ctx, int pin, bool level)
{
    line_levels = (line_levels & ~(1u << pin)) | (u32)level << pin;
}

static void pc_testdev_ports_and_memory(void **unused)
{
    struct irq line[PC_TESTDEV_LINES];

    for (int n = 0; n < PC_TESTDEV_LINES; n++)
        line[n] = (struct irq){.set = line_set, .pin = n};
    line[2] = (struct irq){0};
    pc_testdev_create(m, line);
    pio_write(m, 0xe0, 4, 0x44332211);
    pio_write(m, 0xe1, 1, 0xaa);
    assert_int_equal(pio_read(m, 0xe0, 4), 0x4433aa11);
    assert_int_equal(pio_read(m, 0xe8, 2), 0xaa11);
    pio_write(m, 0xe4, 4, 0x100000); /* flush */
    pio_write(m, 0x2000, 1, 1);
    pio_write(m, 0x2017, 1, 0x80);
    pio_write(m, 0x2002, 1, 1);
    assert_int_equal(line_levels, 0x800001);
    pio_write(m, 0x2000, 1, 0);
    assert_int_equal(line_levels, 0x800000);
    mmio_write(m, 0xff00fff8, 8, 0x1122334455667788);
    assert_int_equal(mmio_read(m, 0xff00fffc, 4), 0x11223344);
    assert_int_equal(mmio_read(m, 0xff00ffff, 2), 0xff11); /* past its end nobody answers */
}

static void config_write(u32 reg, u32 val)
{
    pio_write(m, 0xcf8, 4, 0x80000000u | reg);
    pio_write(m, 0xcfc, 4, val);
}

/* Selects a test and makes writes of its own value and of another; returns how many were counted. */
static u32 counted(u64 bar, bool memory, u8 test)
{
    u8 header[16];

    for (int pass = 0; pass < 2; pass++) {
        if (memory)
            mmio_write(m, bar, 1, test);
        else
            pio_write(m, (u16)bar, 1, test);
        for (u64 n = 0; n < sizeof(header); n++)
            header[n] = (u8)(memory ? mmio_read(m, bar + n, 1) : pio_read(m, (u16)(bar + n), 1));
        for (int n = 0; n < 3; n++) {
            u64 at = bar + header[4] + (u64)header[5] * 256;
            u8 val = n ? header[8] : (u8)~header[8];

            if (memory)
                mmio_write(m, at, 1, val);
            else
                pio_write(m, (u16)at, 1, val);
        }
    }
    return (u32)(memory ? mmio_read(m, bar + 12, 1) : pio_read(m, (u16)bar + 12, 1));
}

static void pci_testdev_counts(void **unused)
{
    pci_bus_create(m);
    pci_testdev_create(m);
    devices_reset(m);
    config_write(PCI_BAR0, 0xc0000000);
    config_write(PCI_BAR0 + 4, 0xc000);
    config_write(PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
    assert_int_equal(mmio_read(m, 0xc0000001, 1), 0); /* no test chosen */
    assert_int_equal(counted(0xc0000000, true, 0), 3);
    assert_int_equal(counted(0xc0000000, true, 2), 2); /* insists on its value */
    assert_int_equal(counted(0xc000, false, 1), 3);
    assert_int_equal(mmio_read(m, 0xc000000c, 1), 0); /* the other BAR's test */
    assert_int_equal(counted(0xc000, false, 3), 0);   /* no such test */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(fw_cfg_items, setup, teardown),
        cmocka_unit_test_setup_teardown(pc_testdev_ports_and_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(pci_testdev_counts, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
