/* ACPI tables for the PC board, built at start: RSDP, XSDT, RSDT, FADT (with FACS and DSDT in AML), MADT, HPET, MCFG absent.
 * ACPI 6.4 ch. 5, 19–20. */
#ifndef FIRMWARE_ACPI_H
#define FIRMWARE_ACPI_H
#include "base/types.h"
#include "mem/guest_memory.h"

struct acpi_config {
    int cpu_count;              /* APIC ids 0 … count-1 */
    u32 lapic_base, ioapic_base, hpet_base;
    u16 sci_irq;                /* ISA IRQ of the SCI, level, active high in this board: GSI of the same number */
    u16 pm_base;                /* PIIX4 PM block: PM1a_EVT at +0, PM1a_CNT at +4, PM_TMR at +8 */
    u16 reset_port;             /* 0xCF9 */
    u8 reset_value;
    u32 pci_mmio_base, pci_mmio_end;    /* window below 4 GiB, end exclusive */
    u64 pci_mmio64_base, pci_mmio64_end; /* above; 0, 0: none */
    u8 pci_irq[4];              /* GSI of PIRQA…D; the pin of slot s, pin p is wire (s + p) % 4; level, active high */
    bool uart[2];               /* COM1 0x3F8/4, COM2 0x2F8/3 present */
};

/* Writes the tables into [base, base+size) (RAM set aside as ACPI reclaimable) and the RSDP at rsdp_gpa (16-byte aligned, in 0xE0000–0xFFFFF).
 * Returns 0 or -ENOSPC. */
int acpi_build(struct guest_memory *mem, const struct acpi_config *config, u64 base, u64 size, u64 rsdp_gpa);

#endif
