/* ACPI tables for the PC board, built at start: RSDP, XSDT, RSDT, FADT (with FACS and DSDT in AML), MADT, HPET. ACPI
 * 6.4 ch. 5. ACPI mode is always on: there is no SMI command port to ask, so the board sets SCI_EN itself. The power
 * button is a fixed one. */
#ifndef FIRMWARE_ACPI_H
#define FIRMWARE_ACPI_H
#include "base/types.h"
#include "mem/guest_memory.h"

struct acpi_config {
    int cpu_count;              /* APIC ids 0 … count-1 */
    u32 lapic_base, ioapic_base;
    u8 ioapic_id;               /* as the I/O APIC's ID register shows it; its inputs are GSI 0 and up */
    u32 hpet_base;              /* 0: none */
    u32 hpet_block_id;          /* low half of the HPET's capability register */
    u16 sci_irq;                /* ISA IRQ of the SCI, level, active high in this board: GSI of the same number */
    u16 pm_base;                /* PIIX4 PM block: PM1a_EVT at +0, PM1a_CNT at +4, PM_TMR at +8 */
    u16 reset_port;             /* 0xCF9 */
    u8 reset_value;
    u32 pci_mmio_base, pci_mmio_end;    /* window below 4 GiB, end exclusive */
    u64 pci_mmio64_base, pci_mmio64_end; /* above; 0, 0: none */
    u8 pci_irq[4];              /* GSI of PIRQA…D; the pin of slot s, pin p is wire (s + p) % 4; level, active high */
    bool uart[2];               /* COM1 0x3F8/4, COM2 0x2F8/3 present */
    bool vga;                   /* there is a VGA card to probe */
};

/* Where in the FACS, the first of the tables, the guest says where it wants to be woken: a 32-bit address. */
enum { ACPI_FACS_WAKING_VECTOR = 12 };

/* Writes the tables into [base, base+size) (64-byte aligned RAM below 4 GiB, set aside as ACPI reclaimable) and the
 * RSDP at rsdp_gpa (16-byte aligned, in 0xE0000–0xFFFFF). Returns 0, -ENOSPC when `size` is too small, -EFAULT when
 * one of the places is not RAM, or -ENOMEM. */
int acpi_build(struct guest_memory *mem, const struct acpi_config *config, u64 base, u64 size, u64 rsdp_gpa);

#endif
