/* Loaders: put a guest's first code into its memory and say how to enter it. Files are hostile: every length is
 * checked.
 *
 * The files are opened and looked at once, at create, and stay open, so that a reset can load again, also from a jail
 * without file system; they are not kept in memory, where they would double the guest's. load() reads them afresh,
 * straight into guest memory where it can, and checks them again. */
#ifndef FIRMWARE_LINUX_BOOT_H
#define FIRMWARE_LINUX_BOOT_H
#include "base/err.h"
#include "machine/boot_entry.h"
#include "mem/guest_memory.h"

struct boot_image; /* a kernel of any known kind with its initrd and command line */

/* Opens `kernel` (bzImage, ELF with a PVH note, multiboot 1 or 2, tried in that order by content) and, unless NULL,
 * `initrd`. For a multiboot kernel `initrd` is a comma-separated list of modules, each a file name that a space and
 * arguments may follow; for others it is one file name. `cmdline` may be NULL; multiboot kernels get it as it is, as
 * from GRUB 2 (some skip its first word, since older loaders put the kernel's name there). The sentence says what the
 * file is not. */
int boot_image_create(const char *kernel, const char *initrd, const char *cmdline, struct boot_image **ret,
                      struct err *e);
void boot_image_free(struct boot_image *b); /* NULL is fine */

/* What the loaders tell the guest about the machine. */
struct e820_entry {
    u64 addr, size;
    u32 type; /* 1 RAM, 2 reserved, 3 ACPI reclaimable */
};
struct boot_info {
    const struct e820_entry *e820; /* sorted by address, never overlapping, at most 128; only type 1 is used */
    int e820_count;
    u64 low_ram_end;  /* end of RAM below the PCI hole */
    u64 rsdp;         /* gpa of the ACPI root pointer, 0: none */
};

/* Copies everything into memory and fills `entry`. -E2BIG with a sentence when RAM is too small. */
int boot_image_load(const struct boot_image *b, struct guest_memory *mem, const struct boot_info *info,
                    struct boot_entry *entry, struct err *e);

#endif
