/* Every address and interrupt of the PC board. What the ACPI tables and the memory map tell the guest comes from here
 * too. */
#ifndef BOARD_PC_MAP_H
#define BOARD_PC_MAP_H
#include "base/types.h"

/* Memory. RAM reaches from 0 to the PCI hole, but for the legacy video window, and goes on at 4 GiB. */
#define PC_EBDA 0x9fc00ull /* the last KiB of base memory belongs to the firmware */
#define PC_VGA_WINDOW 0xa0000ull
#define PC_VGA_WINDOW_END 0xc0000ull
#define PC_RSDP 0xe0000ull /* in the area that operating systems search */
#define PC_BIOS_AREA 0xe0000ull
#define PC_SMBIOS_ENTRY 0xf0000ull
#define PC_SMBIOS 0xf1000ull
#define PC_SMBIOS_SIZE 0xe000ull
#define PC_BIOS_CODE 0xff000ull /* real-mode interrupt handlers */
#define PC_BIOS_AREA_END 0x100000ull
#define PC_LOW_RAM_MAX 0xc0000000ull
#define PC_HIGH_RAM 0x100000000ull
#define PC_ACPI_SIZE KIB(64) /* tables, at the end of RAM below the hole */

#define PC_PCI_MMIO 0xc0000000ull
#define PC_PCI_MMIO_END 0xfec00000ull
#define PC_IOAPIC 0xfec00000ull
#define PC_HPET 0xfed00000ull
#define PC_LAPIC 0xfee00000ull

/* Ports. */
enum {
    PC_PORT_PIC_MASTER = 0x20,
    PC_PORT_PIT = 0x40,
    PC_PORT_KBC_DATA = 0x60,
    PC_PORT_CONTROL_B = 0x61,
    PC_PORT_KBC_COMMAND = 0x64,
    PC_PORT_RTC = 0x70,
    PC_PORT_CONTROL_A = 0x92,
    PC_PORT_PIC_SLAVE = 0xa0,
    PC_PORT_SMI_COMMAND = 0xb2,
    PC_PORT_DEBUGCON = 0xe9,
    PC_PORT_COPROCESSOR_ERROR = 0xf0,
    PC_PORT_DEBUG_EXIT = 0xf4,
    PC_PORT_COM1 = 0x3f8,
    PC_PORT_ELCR = 0x4d0,
    PC_PORT_FW_CFG = 0x510,
    PC_PORT_PM = 0x600,
    PC_PORT_RESET = 0xcf9,
    PC_PORT_PCI_BARS = 0xc000, /* to the end of the space */
    PC_PORT_PCI_BARS_END = 0x10000,
};
enum { PC_RESET_VALUE = 0x06 }; /* hard reset, see piix3_isa.c */

/* ISA interrupts. ISA interrupt n is I/O APIC input n, but for the PIT's 0, which is input 2. */
enum {
    PC_IRQ_PIT = 0,
    PC_IRQ_KEYBOARD = 1,
    PC_IRQ_COM1 = 4,
    PC_IRQ_RTC = 8,
    PC_IRQ_SCI = 9,
    PC_IRQ_MOUSE = 12,
    PC_IRQ_COPROCESSOR = 13,
};
enum { PC_IOAPIC_ID = 0, PC_IOAPIC_PIT_PIN = 2 };
#define PC_PIRQ {10, 10, 11, 11} /* PIRQA to D */

/* PCI slots; what comes after takes the next free ones. */
enum { PC_SLOT_HOST = 0, PC_SLOT_ISA = 1, PC_FUNCTION_PM = 3 };

#endif
