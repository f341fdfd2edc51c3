/* Between boot_image.c and the loaders, one a kind of kernel. Sentences of loaders start after "kernel 'x': ", which
 * boot_image.c puts before them. */
#ifndef FIRMWARE_BOOT_LOADER_H
#define FIRMWARE_BOOT_LOADER_H
#include "firmware/boot_file.h"
#include "firmware/boot_memory.h"

#define BOOT_MODULES_MAX 32 /* initrds or multiboot modules */

/* A kernel's file, in a memory of its own. */
struct boot_kernel {
    const u8 *bytes;
    u64 size;
};

struct boot_module {
    struct boot_file file;
    char *text; /* what the user wrote: file name and arguments; owned */
};

struct boot_load {
    struct boot_kernel kernel;
    const char *cmdline; /* never NULL */
    const struct boot_module *module;
    int module_count;
    struct boot_memory memory;
};

struct boot_loader {
    const char *name;
    bool module_list; /* the initrd option names any number of modules rather than one file */

    /* Whether the file is of this kind, by its magic numbers. */
    bool (*recognise)(const struct boot_kernel *k);

    /* Whether the file and the command line are sound, as far as that can be said without a machine. */
    int (*check)(const struct boot_kernel *k, const char *cmdline, struct err *e);

    /* Checks again, loads, and fills `entry`, which is zero. */
    int (*load)(struct boot_load *l, struct boot_entry *entry, struct err *e);
};

extern const struct boot_loader bzimage_loader, pvh_elf_loader, multiboot1_loader, multiboot2_loader;

/* Loads a module's file: finds room for it by `place`, whose size is filled in here. */
int boot_module_load(struct boot_load *l, int n, struct boot_place *place, struct boot_range *ret, struct err *e);

/* Stores a global descriptor table with flat segments for the entry: null descriptors but for code at `code_sel` and
 * data right behind it. A long-mode entry gets a 64-bit code segment. */
int boot_gdt_put(struct boot_load *l, u16 code_sel, struct boot_entry *entry, struct err *e);

/* Whether [offset, offset+len) is inside the kernel's file. */
static inline bool boot_kernel_has(const struct boot_kernel *k, u64 offset, u64 len)
{
    return offset <= k->size && len <= k->size - offset;
}

#endif
