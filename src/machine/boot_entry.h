/* How a loader hands the boot vCPU to the guest: the mode and the registers that its boot protocol demands.
 * Everything not named here is as after RESET. */
#ifndef MACHINE_BOOT_ENTRY_H
#define MACHINE_BOOT_ENTRY_H
#include "base/types.h"

struct machine;

enum boot_mode {
    BOOT_RESET,  /* the reset vector F000:FFF0, real mode: firmware */
    BOOT_REAL16, /* real mode at code_sel:rip, other segments 0: the waking vector of ACPI S3 */
    BOOT_PROT32, /* protected mode, paging off, flat 4 GiB segments, CS 0x08 DS.. 0x10: PVH, multiboot */
    BOOT_LONG64, /* long mode with cr3, flat segments from the GDT at gdt_base: Linux 64-bit protocol */
};

struct boot_entry {
    enum boot_mode mode;
    u64 rip, rsp, rax, rbx, rsi, rdi;
    u64 cr3;               /* BOOT_LONG64: gpa of a page map that covers what the protocol demands */
    u64 gdt_base;          /* gpa; 0: none loaded (BOOT_PROT32: hidden parts only, as PVH and multiboot allow) */
    u16 gdt_limit;
    u16 code_sel, data_sel; /* selectors to show in CS and in DS, ES, SS, FS, GS */
};

/* Applies it to vCPU 0 (all vCPUs are in reset state when the boot hook runs). */
void machine_boot_enter(struct machine *m, const struct boot_entry *entry);

#endif
