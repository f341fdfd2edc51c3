/* What the two multiboot versions share: how the image gets into memory, modules, and the amount of memory. */
#ifndef FIRMWARE_MULTIBOOT_H
#define FIRMWARE_MULTIBOOT_H
#include "firmware/elf_image.h"

#define MULTIBOOT_LOADER_NAME "skerry"

/* The address fields of a header ("a.out kludge", address tag), as the file has them: physical, ends exclusive, 0: not
 * given. */
struct multiboot_addresses {
    u32 header_addr, load_addr, load_end_addr, bss_end_addr;
};

/* How to load a kernel: from an ELF file, or as one piece by the header's addresses. */
struct multiboot_image {
    bool is_elf;
    struct elf_image elf;
    u64 file_offset, file_size; /* else: this part of the file … */
    u64 load_addr, bss_end;     /* … goes to load_addr, with zeros up to bss_end */
    u64 entry;
};

/* The next two check all that can be said without a machine. `entry` is physical. */
int multiboot_image_addresses(struct multiboot_image *image, const struct boot_kernel *k, u64 header_offset,
                              const struct multiboot_addresses *a, u32 entry, struct err *e);
int multiboot_image_elf(struct multiboot_image *image, const struct boot_kernel *k, struct err *e);

int multiboot_image_load(const struct multiboot_image *image, struct boot_load *l, struct err *e);

/* Physical address of the image's first byte. */
u64 multiboot_image_base(const struct multiboot_image *image);

/* Loads every module above the kernel, on pages of their own. */
int multiboot_modules_load(struct boot_load *l, struct boot_range at[BOOT_MODULES_MAX], struct err *e);

/* KiB of RAM from 0 on (at most 640), and from 1 MiB on up to the first gap. */
u32 multiboot_memory_lower(const struct boot_info *info);
u32 multiboot_memory_upper(const struct boot_info *info);

/* The machine state that both demand: 32-bit protected mode, flat segments, EAX and EBX. */
int multiboot_enter(struct boot_load *l, u64 rip, u32 magic, u64 info, struct boot_entry *entry, struct err *e);

#endif
