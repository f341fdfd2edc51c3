/* The DSDT: processors, the PCI host bridge with its windows and interrupt routes, the ISA devices, and how to switch
 * off. ACPI 6.4 ch. 6 (device objects), §6.2.13 (_PRT), §7.4.2 (\_Sx); the ids are those of the "PNP ID and ACPI ID
 * registry".
 *
 * The interrupt routes go through link devices rather than straight to an interrupt number, because only a link can
 * say that its interrupt is active high: operating systems take hard-wired ones for active low, as PCI's own pins are.
 * The links cannot be moved. */
#include "firmware/dsdt.h"
#include "firmware/aml.h"

#include <stdio.h>

#define ISA_BRIDGE_ADR 0x00010000u /* slot 1, function 0: the PIIX3's place on every 440FX board */
#define LAST_PORT_BEFORE_PCI_CONFIG 0x0cf7
#define PCI_CONFIG_PORT 0x0cf8
#define FIRST_PORT_AFTER_PCI_CONFIG 0x0d00
#define VGA_WINDOW 0xa0000u
#define VGA_WINDOW_LAST 0xbffffu
#define PM_BLOCK_LEN 0x40
#define HPET_LEN 0x400
#define PCI_SLOTS 32
#define PCI_PINS 4

static const char *const link_name[PCI_PINS] = {"LNKA", "LNKB", "LNKC", "LNKD"};

static void processors(struct aml *a, const struct acpi_config *config)
{
    for (int i = 0; i < config->cpu_count; i++) {
        char name[5];

        snprintf(name, sizeof(name), "C%03X", (unsigned)i & 0xfff);
        aml_device_open(a, name);
        aml_name(a, "_HID");
        aml_string(a, "ACPI0007");
        aml_name_integer(a, "_UID", (u64)i);
        aml_close(a);
    }
}

static void host_bridge_resources(struct aml *a, const struct acpi_config *config)
{
    aml_name(a, "_CRS");
    aml_resources_open(a);
    aml_window_bus(a, 0, 0xff);
    aml_io(a, PCI_CONFIG_PORT, 8);
    aml_window_io(a, 0, LAST_PORT_BEFORE_PCI_CONFIG);
    aml_window_io(a, FIRST_PORT_AFTER_PCI_CONFIG, 0xffff);
    aml_window_memory32(a, VGA_WINDOW, VGA_WINDOW_LAST, true);
    aml_window_memory32(a, config->pci_mmio_base, config->pci_mmio_end - 1, false);
    if (config->pci_mmio64_end)
        aml_window_memory64(a, config->pci_mmio64_base, config->pci_mmio64_end - 1, false);
    aml_resources_close(a);
}

/* One entry for each pin of each slot, all functions: the slot's number turns the wires, so that neighbours share
 * less. */
static void interrupt_routes(struct aml *a)
{
    aml_name(a, "_PRT");
    aml_package_open(a, PCI_SLOTS * PCI_PINS);
    for (u32 slot = 0; slot < PCI_SLOTS; slot++)
        for (u32 pin = 0; pin < PCI_PINS; pin++) {
            aml_package_open(a, 4);
            aml_integer(a, slot << 16 | 0xffff);
            aml_integer(a, pin);
            aml_reference(a, link_name[(slot + pin) % PCI_PINS]);
            aml_integer(a, 0);
            aml_close(a);
        }
    aml_close(a);
}

static void interrupt_resource(struct aml *a, const char *name, u8 gsi)
{
    aml_name(a, name);
    aml_resources_open(a);
    aml_interrupt_level_high(a, gsi);
    aml_resources_close(a);
}

static void interrupt_link(struct aml *a, const struct acpi_config *config, int n)
{
    aml_device_open(a, link_name[n]);
    aml_name(a, "_HID");
    aml_eisa_id(a, "PNP0C0F");
    aml_name_integer(a, "_UID", (u64)n);
    interrupt_resource(a, "_PRS", config->pci_irq[n]);
    interrupt_resource(a, "_CRS", config->pci_irq[n]);
    aml_method_empty(a, "_SRS", 1);
    aml_method_empty(a, "_DIS", 0);
    aml_close(a);
}

/* An ISA device, its ports and its interrupt still to come. */
static void isa_device_open(struct aml *a, const char *name, const char *id)
{
    aml_device_open(a, name);
    aml_name(a, "_HID");
    aml_eisa_id(a, id);
    aml_name(a, "_CRS");
    aml_resources_open(a);
}

static void isa_device_close(struct aml *a)
{
    aml_resources_close(a);
    aml_close(a);
}

static void timers_and_pics(struct aml *a)
{
    isa_device_open(a, "PIC", "PNP0000");
    aml_io(a, 0x20, 2);
    aml_io(a, 0xa0, 2);
    aml_io(a, 0x4d0, 2);
    aml_irq(a, 2);
    isa_device_close(a);

    isa_device_open(a, "TMR", "PNP0100");
    aml_io(a, 0x40, 4);
    aml_irq(a, 0);
    isa_device_close(a);

    isa_device_open(a, "RTC", "PNP0B00");
    aml_io(a, 0x70, 2);
    aml_irq(a, 8);
    isa_device_close(a);
}

static void keyboard(struct aml *a)
{
    isa_device_open(a, "KBD", "PNP0303");
    aml_io(a, 0x60, 1);
    aml_io(a, 0x64, 1);
    aml_irq(a, 1);
    isa_device_close(a);
}

/* Ports of the board that nothing else claims, so that the guest puts no device there. */
static void board_resources(struct aml *a, const struct acpi_config *config)
{
    isa_device_open(a, "MBRD", "PNP0C02");
    aml_io(a, config->pm_base, PM_BLOCK_LEN);
    aml_io(a, 0x61, 1); /* speaker and NMI status */
    aml_io(a, 0x92, 1); /* system control port A */
    aml_io(a, 0xb2, 2); /* SMI command and status */
    isa_device_close(a);
}

static void uart(struct aml *a, const char *name, u64 uid, u16 port, u8 irq)
{
    aml_device_open(a, name);
    aml_name(a, "_HID");
    aml_eisa_id(a, "PNP0501");
    aml_name_integer(a, "_UID", uid);
    aml_name(a, "_CRS");
    aml_resources_open(a);
    aml_io(a, port, 8);
    aml_irq(a, irq);
    isa_device_close(a);
}

static void isa_bridge(struct aml *a, const struct acpi_config *config)
{
    aml_device_open(a, "ISA");
    aml_name_integer(a, "_ADR", ISA_BRIDGE_ADR);
    timers_and_pics(a);
    keyboard(a);
    board_resources(a, config);
    if (config->uart[0])
        uart(a, "COM1", 1, 0x3f8, 4);
    if (config->uart[1])
        uart(a, "COM2", 2, 0x2f8, 3);
    aml_close(a);
}

static void host_bridge(struct aml *a, const struct acpi_config *config)
{
    aml_device_open(a, "PCI0");
    aml_name(a, "_HID");
    aml_eisa_id(a, "PNP0A03");
    aml_name_integer(a, "_UID", 0);
    aml_name_integer(a, "_BBN", 0);
    host_bridge_resources(a, config);
    interrupt_routes(a);
    isa_bridge(a, config);
    aml_close(a);
}

static void hpet(struct aml *a, const struct acpi_config *config)
{
    aml_device_open(a, "HPET");
    aml_name(a, "_HID");
    aml_eisa_id(a, "PNP0103");
    aml_name_integer(a, "_UID", 0);
    aml_name(a, "_CRS");
    aml_resources_open(a);
    aml_memory32_fixed(a, config->hpet_base, HPET_LEN);
    isa_device_close(a);
}

/* The PIIX4's sleep type for a sleep state. */
static void sleep_state(struct aml *a, const char *name, u64 type)
{
    aml_name(a, name);
    aml_package_open(a, 4);
    aml_integer(a, type); /* PM1a_CNT.SLP_TYP; PM1b's, of which there is none; two reserved */
    for (int i = 0; i < 3; i++)
        aml_integer(a, 0);
    aml_close(a);
}

void dsdt_append(struct byte_buffer *out, const struct acpi_config *config)
{
    struct aml a = {.out = out};

    aml_scope_open(&a, "\\_SB");
    processors(&a, config);
    host_bridge(&a, config);
    for (int i = 0; i < PCI_PINS; i++)
        interrupt_link(&a, config, i);
    if (config->hpet_base)
        hpet(&a, config);
    aml_close(&a);
    sleep_state(&a, "\\_S3", 1); /* suspend to RAM */
    sleep_state(&a, "\\_S5", 0); /* soft off */
}
