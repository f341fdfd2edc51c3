/* The firmware's work before a kernel that is loaded directly: see pc_boot.h. Runs at power-on and after every reset,
 * and programs chips through their ports, as firmware does. */
#include "board/pc_boot.h"

#include "board/pc_map.h"
#include "dev/hpet.h"
#include "dev/mc146818_rtc.h"
#include "dev/piix3_isa.h"
#include "dev/piix4_pm.h"
#include "firmware/acpi.h"
#include "firmware/bios_vectors.h"
#include "firmware/smbios.h"

#include <errno.h>
#include <string.h>

enum { E820_RAM = 1, E820_RESERVED = 2, E820_ACPI = 3 };

static const u8 pirq_irq[4] = PC_PIRQ;

static u64 low_ram_end(const struct machine *m)
{
    return MIN(m->config.ram_size, PC_LOW_RAM_MAX);
}

static void e820_add(struct pc_boot *b, u64 addr, u64 end, u32 type)
{
    assert(b->info.e820_count < (int)ARRAY_SIZE(b->e820));
    b->e820[b->info.e820_count++] = (struct e820_entry){.addr = addr, .size = end - addr, .type = type};
}

static void memory_map_fill(struct pc_boot *b, const struct machine *m)
{
    u64 low_end = low_ram_end(m), acpi = low_end - PC_ACPI_SIZE, high = m->config.ram_size - low_end;

    e820_add(b, 0, PC_EBDA, E820_RAM);
    e820_add(b, PC_EBDA, PC_VGA_WINDOW, E820_RESERVED);
    e820_add(b, PC_BIOS_AREA, PC_BIOS_AREA_END, E820_RESERVED);
    e820_add(b, PC_BIOS_AREA_END, acpi, E820_RAM);
    e820_add(b, acpi, low_end, E820_ACPI);
    e820_add(b, PC_IOAPIC, PC_IOAPIC + PAGE_SIZE, E820_RESERVED);
    e820_add(b, PC_HPET, PC_HPET + PAGE_SIZE, E820_RESERVED);
    e820_add(b, PC_LAPIC, PC_LAPIC + PAGE_SIZE, E820_RESERVED);
    if (high)
        e820_add(b, PC_HIGH_RAM, PC_HIGH_RAM + high, E820_RAM);
    b->info.e820 = b->e820;
    b->info.low_ram_end = acpi;
    b->info.rsdp = PC_RSDP;
}

static void cmos_word(struct device *rtc, u8 index, u64 val)
{
    mc146818_rtc_cmos_set(rtc, index, (u8)val);
    mc146818_rtc_cmos_set(rtc, (u8)(index + 1), (u8)(val >> 8));
}

/* The places are the AT's, and from 0x34 on those that BIOSes of emulators use. */
static void cmos_fill(const struct machine *m, struct device *rtc)
{
    u64 low_end = low_ram_end(m), high = m->config.ram_size - low_end;
    u64 extended = MIN((low_end - MIB(1)) >> 10, 0xffff), above_16m = low_end > MIB(16) ? low_end - MIB(16) : 0;

    mc146818_rtc_cmos_set(rtc, 0x14, 0x02); /* equipment: an FPU; no floppy, the display brings its own BIOS */
    cmos_word(rtc, 0x15, 640);              /* base memory, KiB */
    cmos_word(rtc, 0x17, extended);         /* above 1 MiB, KiB: as configured … */
    cmos_word(rtc, 0x30, extended);         /* … and as found */
    cmos_word(rtc, 0x34, above_16m >> 16);  /* in units of 64 KiB */
    cmos_word(rtc, 0x5b, high >> 16);       /* above 4 GiB, in units of 64 KiB */
    mc146818_rtc_cmos_set(rtc, 0x5d, (u8)(high >> 32));
    mc146818_rtc_cmos_set(rtc, 0x5f, (u8)(m->config.cpu_count - 1));
}

static void config_write(struct machine *m, int slot, int function, int reg, int size, u32 val)
{
    pio_write(m, 0xcf8, 4, 0x80000000u | (u32)slot << 11 | (u32)function << 8 | ((u32)reg & 0xfc));
    pio_write(m, (u16)(0xcfc + (reg & 3)), size, val);
}

static u8 interrupt_line(int slot, int pin)
{
    return pirq_irq[(slot + pin) & 3];
}

static void pci_program(struct machine *m)
{
    pci_assign_resources(m, PC_PCI_MMIO, PC_PCI_MMIO_END, PC_PORT_PCI_BARS, PC_PORT_PCI_BARS_END, interrupt_line);
    for (int i = 0; i < 4; i++)
        config_write(m, PC_SLOT_ISA, 0, PIIX3_PIRQRCA + i, 1, pirq_irq[i]);
}

/* Interrupts 0 to 7 at vectors 0x08 to 0x0F, 8 to 15 at 0x70 to 0x77, as every BIOS has them. All are masked but the
 * timer and the cascade. */
static void pic_program(struct machine *m)
{
    static const u8 master[] = {0x08, 1 << 2, 0x01, 0xfa}, slave[] = {0x70, 2, 0x01, 0xff};

    pio_write(m, PC_PORT_PIC_MASTER, 1, 0x11);
    pio_write(m, PC_PORT_PIC_SLAVE, 1, 0x11);
    for (size_t i = 0; i < sizeof(master); i++) {
        pio_write(m, PC_PORT_PIC_MASTER + 1, 1, master[i]);
        pio_write(m, PC_PORT_PIC_SLAVE + 1, 1, slave[i]);
    }
}

/* 18.2 ticks a second. */
static void pit_program(struct machine *m)
{
    pio_write(m, PC_PORT_PIT + 3, 1, 0x36); /* channel 0, both bytes, mode 3 */
    pio_write(m, PC_PORT_PIT, 1, 0);
    pio_write(m, PC_PORT_PIT, 1, 0);
}

/* PIRQs and the SCI are level-triggered. */
static void elcr_program(struct machine *m)
{
    u16 level = 1u << PC_IRQ_SCI;

    for (int i = 0; i < 4; i++)
        level |= (u16)(1u << pirq_irq[i]);
    pio_write(m, PC_PORT_ELCR, 1, level & 0xff);
    pio_write(m, PC_PORT_ELCR + 1, 1, level >> 8);
}

/* The FADT offers no SMI command port: the guest finds ACPI mode on. */
static void acpi_program(struct machine *m)
{
    config_write(m, PC_SLOT_ISA, PC_FUNCTION_PM, PIIX4_PMBASE, 4, PC_PORT_PM);
    config_write(m, PC_SLOT_ISA, PC_FUNCTION_PM, PIIX4_PMREGMISC, 1, 1);
    pio_write(m, PC_PORT_SMI_COMMAND, 1, PM_ACPI_ENABLE);
}

/* BIOS data area: where the firmware's own memory begins. */
static void bios_data_fill(struct machine *m)
{
    u16 ebda_segment = PC_EBDA >> 4, base_kib = PC_EBDA >> 10;

    dma_write(m, 0x40e, &ebda_segment, 2);
    dma_write(m, 0x413, &base_kib, 2);
}

static void acpi_tables_build(const struct pc_boot *b, struct machine *m)
{
    struct acpi_config config = {
        .cpu_count = m->config.cpu_count,
        .lapic_base = PC_LAPIC,
        .ioapic_base = PC_IOAPIC,
        .ioapic_id = PC_IOAPIC_ID,
        .hpet_base = PC_HPET,
        .hpet_block_id = hpet_block_id(),
        .sci_irq = PC_IRQ_SCI,
        .pm_base = PC_PORT_PM,
        .reset_port = PC_PORT_RESET,
        .reset_value = PC_RESET_VALUE,
        .pci_mmio_base = PC_PCI_MMIO,
        .pci_mmio_end = PC_PCI_MMIO_END,
        .pci_irq = PC_PIRQ,
        .uart = {b->com1, false},
    };
    int r = acpi_build(m->mem, &config, low_ram_end(m) - PC_ACPI_SIZE, PC_ACPI_SIZE, PC_RSDP);

    assert(!r);
}

static void smbios_tables_build(struct machine *m)
{
    struct smbios_config config = {.cpu_count = m->config.cpu_count, .ram_size = m->config.ram_size};
    int r = smbios_build(m->mem, &config, PC_SMBIOS, PC_SMBIOS_SIZE, PC_SMBIOS_ENTRY);

    assert(!r || r == -ENOMEM); /* a guest lives without */
}

/* Waking from S3, firmware leaves memory alone and goes where the FACS says, in real mode. ACPI 6.4 §5.2.10. False: the
 * guest gave no place that real mode can reach. */
static bool resume(const struct pc_boot *b, struct machine *m)
{
    u64 facs = b->info.low_ram_end; /* the first of the tables */
    struct boot_entry entry = {.mode = BOOT_REAL16};
    u32 vector;

    if (dma_read(m, facs + ACPI_FACS_WAKING_VECTOR, &vector, sizeof(vector)) || !vector || vector >= MIB(1))
        return false;
    entry.code_sel = (u16)(vector >> 4);
    entry.rip = vector & 15;
    machine_boot_enter(m, &entry);
    return true;
}

static void chips_program(struct machine *m)
{
    pci_program(m);
    pic_program(m);
    pit_program(m);
    elcr_program(m);
    acpi_program(m);
}

static void pc_boot(struct machine *m, void *ctx)
{
    struct pc_boot *b = ctx;
    struct boot_entry entry;
    struct err e;

    chips_program(m);
    if (machine_waking(m) && resume(b, m))
        return;
    bios_vectors_build(m->mem, PC_BIOS_CODE);
    bios_data_fill(m);
    acpi_tables_build(b, m);
    smbios_tables_build(m);
    if (boot_image_load(b->image, m->mem, &b->info, &entry, &e))
        machine_stop(m, MACHINE_FAILED, 0, e.text);
    else
        machine_boot_enter(m, &entry);
}

void pc_boot_setup(struct pc_boot *b, struct machine *m, struct device *rtc, const struct boot_image *image, bool com1)
{
    *b = (struct pc_boot){.image = image, .com1 = com1};
    memory_map_fill(b, m);
    cmos_fill(m, rtc);
    machine_set_boot(m, pc_boot, b);
}
