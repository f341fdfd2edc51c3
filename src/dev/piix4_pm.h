/* Intel PIIX4 (82371AB) function 3: ACPI power management. PM1a event and control registers, PM timer, SMI command
 * port. */
#ifndef DEV_PIIX4_PM_H
#define DEV_PIIX4_PM_H
#include "machine/pci.h"

extern const struct device_type piix4_pm_type;

enum {
    PIIX4_PMBASE = 0x40,    /* configuration register: I/O base of the PM block, 64-byte aligned */
    PIIX4_PMREGMISC = 0x80, /* bit 0: the PM block decodes */
};
enum { /* offsets in the PM block, as the FADT names them */
    PM1A_STS = 0x00, PM1A_EN = 0x02, PM1A_CNT = 0x04, PM_TMR = 0x08, PM_BLOCK_SIZE = 0x40,
};
enum { PM_ACPI_ENABLE = 0xf1, PM_ACPI_DISABLE = 0xf0 }; /* values for the SMI command port, as the FADT names them */

/* Adds it at 00:`slot`.`function`. `sci` is its interrupt output, level, active high (copied). `smi_cmd` is the SMI
 * command port (0xB2); the status port follows it. The PM block appears once PMBASE and PMREGMISC are written, as a
 * firmware does. */
struct device *piix4_pm_create(struct machine *m, int slot, int function, u16 smi_cmd, const struct irq *sci);

/* The user pressed the power button: PWRBTN_STS, and an SCI if the guest enabled it. Machine lock held. */
void piix4_pm_power_button(struct device *pm);

/* Where the real-time clock's interrupt output goes besides IRQ8: its rise sets RTC_STS, and an SCI follows if the guest
 * enabled it. For `struct irq`; `pm` is the device, the pin is not used. Machine lock held. */
void piix4_pm_rtc_set(void *pm, int pin, bool level);

#endif
