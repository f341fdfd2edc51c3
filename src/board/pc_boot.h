/* What stands in for the PC's firmware when a kernel is loaded directly: chips programmed as a BIOS leaves them, the
 * memory map, ACPI tables, and the kernel itself. */
#ifndef BOARD_PC_BOOT_H
#define BOARD_PC_BOOT_H
#include "firmware/linux_boot.h"
#include "machine/machine.h"

struct pc_boot {
    const struct boot_image *image;
    bool com1;
    struct e820_entry e820[16];
    struct boot_info info;
};

/* Fills `b`, puts the memory sizes into CMOS RAM, and makes `b` the machine's boot hook. `b` must live as long as the
 * machine. */
void pc_boot_setup(struct pc_boot *b, struct machine *m, struct device *rtc, const struct boot_image *image, bool com1);

#endif
