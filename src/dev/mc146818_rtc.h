/* Motorola MC146818 real-time clock with 256 bytes of CMOS RAM in two banks, as in the PIIX4.
 * MC146818A data sheet; 82371AB (PIIX4) data sheet §4.2.6. */
#ifndef DEV_MC146818_RTC_H
#define DEV_MC146818_RTC_H
#include "machine/machine.h"

#define MC146818_CENTURY 0x32 /* the century's register, in the place that the ACPI tables name */

/* Index and data at `port` and port + 1, the upper bank's at port + 2 and port + 3. `irq` is the interrupt output,
 * active high here (copied). The clock shows the host's time (UTC), shifted by what the guest set. */
struct device *mc146818_rtc_create(struct machine *m, u16 port, const struct irq *irq);

/* A byte of CMOS RAM for firmware (memory sizes, boot order): indices from 0x0E on, except the century, which is the
 * clock's. Survives resets. */
void mc146818_rtc_cmos_set(struct device *rtc, u8 index, u8 val);
u8 mc146818_rtc_cmos_get(const struct device *rtc, u8 index);

/* Bit 7 of the index port: the guest has masked NMI. */
bool mc146818_rtc_nmi_masked(const struct device *rtc);

#endif
