/* Multiboot 1 kernels. Multiboot Specification 0.6.96.
 *
 * Given to the kernel: memory sizes and map, command line, modules, loader name. Left out, and absent from the
 * information's flags: boot device, symbols, drives, ROM configuration, APM, video modes. */
#include "firmware/multiboot.h"

#include <errno.h>
#include <string.h>

#define HEADER_MAGIC 0x1badb002u
#define LOADER_MAGIC 0x2badb002u
#define HEADER_SEARCH 8192

/* header flags; what is in the low half and unknown must be refused */
enum {
    HEADER_PAGE_ALIGN = 1 << 0,
    HEADER_MEMORY_INFO = 1 << 1,
    HEADER_VIDEO_MODE = 1 << 2,
    HEADER_REQUIRED = 0xffff,
    HEADER_ADDRESSES = 1 << 16,
};

enum { INFO_MEMORY = 1 << 0, INFO_CMDLINE = 1 << 2, INFO_MODS = 1 << 3, INFO_MMAP = 1 << 6, INFO_LOADER_NAME = 1 << 9 };
enum { VIDEO_LINEAR, VIDEO_TEXT };

struct multiboot1_header {
    u32 magic, flags, checksum;
    struct multiboot_addresses addresses;
    u32 entry_addr;
    u32 mode_type, width, height, depth;
};
enum { HEADER_SIZE_MIN = 12, HEADER_SIZE_ADDRESSES = 32, HEADER_SIZE_VIDEO = 48 };

struct multiboot1_info {
    u32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4];
    u32 mmap_length, mmap_addr, drives_length, drives_addr, config_table, boot_loader_name, apm_table;
    u32 vbe[4], framebuffer[7]; /* not present by the flags */
};

struct multiboot1_module {
    u32 mod_start, mod_end, string, reserved;
};

struct multiboot1_mmap_entry {
    u32 size; /* of what follows */
    u64 addr, len;
    u32 type;
} __attribute__((packed));

/* The header's offset in the file, or a negative number. */
static s64 header_find(const struct boot_kernel *k)
{
    for (u64 at = 0; at + HEADER_SIZE_MIN <= MIN(k->size, HEADER_SEARCH); at += 4) {
        u32 h[3];

        memcpy(h, k->bytes + at, sizeof(h));
        if (h[0] == HEADER_MAGIC && h[0] + h[1] + h[2] == 0)
            return (s64)at;
    }
    return -1;
}

static bool multiboot1_recognise(const struct boot_kernel *k)
{
    return header_find(k) >= 0;
}

static int header_read(const struct boot_kernel *k, u64 at, struct multiboot1_header *h, struct err *e)
{
    u64 size = HEADER_SIZE_MIN;

    memset(h, 0, sizeof(*h));
    memcpy(h, k->bytes + at, size);
    if (h->flags & HEADER_ADDRESSES)
        size = HEADER_SIZE_ADDRESSES;
    if (h->flags & HEADER_VIDEO_MODE)
        size = HEADER_SIZE_VIDEO;
    if (!boot_kernel_has(k, at, size))
        return err_set(e, -EINVAL, "truncated: it ends in the multiboot header");
    memcpy(h, k->bytes + at, size);
    return 0;
}

static int multiboot1_parse(const struct boot_kernel *k, struct multiboot_image *image, struct err *e)
{
    s64 at = header_find(k);
    struct multiboot1_header h;
    u32 unknown;
    int r;

    if (at < 0)
        return err_set(e, -EINVAL, "no longer has a multiboot header");
    r = header_read(k, (u64)at, &h, e);
    if (r)
        return r;
    unknown = h.flags & HEADER_REQUIRED & ~(u32)(HEADER_PAGE_ALIGN | HEADER_MEMORY_INFO | HEADER_VIDEO_MODE);
    if (unknown)
        return err_set(e, -EINVAL, "demands unknown multiboot features (header flags 0x%x)", unknown);
    if (h.flags & HEADER_VIDEO_MODE && h.mode_type == VIDEO_LINEAR)
        return err_set(e, -ENOTSUP, "demands a graphics mode from its boot loader, which is not offered");
    if (h.flags & HEADER_ADDRESSES)
        return multiboot_image_addresses(image, k, (u64)at, &h.addresses, h.entry_addr, e);
    return multiboot_image_elf(image, k, e);
}

static int multiboot1_check(const struct boot_kernel *k, const char *cmdline, struct err *e)
{
    struct multiboot_image image;

    return multiboot1_parse(k, &image, e);
}

static int string_put(struct boot_load *l, const char *s, const char *what, u32 *ret_gpa, struct err *e)
{
    u64 gpa;
    int r = boot_memory_put(&l->memory, s, strlen(s) + 1, 4, what, &gpa, e);

    if (!r)
        *ret_gpa = (u32)gpa;
    return r;
}

static int modules_put(struct boot_load *l, struct multiboot1_info *info, struct err *e)
{
    struct multiboot1_module list[BOOT_MODULES_MAX] = {0};
    struct boot_range at[BOOT_MODULES_MAX];
    u64 gpa;
    int r = multiboot_modules_load(l, at, e);

    for (int i = 0; i < l->module_count && !r; i++) {
        list[i].mod_start = (u32)at[i].start;
        list[i].mod_end = (u32)at[i].end;
        r = string_put(l, l->module[i].text, "a module's name", &list[i].string, e);
    }
    if (r || !l->module_count)
        return r;
    r = boot_memory_put(&l->memory, list, (u64)l->module_count * sizeof(list[0]), 16, "the module list", &gpa, e);
    if (r)
        return r;
    info->flags |= INFO_MODS;
    info->mods_count = (u32)l->module_count;
    info->mods_addr = (u32)gpa;
    return 0;
}

static int mmap_put(struct boot_load *l, struct multiboot1_info *info, struct err *e)
{
    const struct boot_info *from = l->memory.info;
    struct multiboot1_mmap_entry map[128];
    u64 gpa;
    int r;

    assert(from->e820_count <= (int)ARRAY_SIZE(map));
    for (int i = 0; i < from->e820_count; i++)
        map[i] = (struct multiboot1_mmap_entry){sizeof(map[0]) - sizeof(map[0].size), from->e820[i].addr,
                                                from->e820[i].size, from->e820[i].type};
    info->mmap_length = (u32)from->e820_count * (u32)sizeof(map[0]);
    r = boot_memory_put(&l->memory, map, info->mmap_length, 16, "the memory map", &gpa, e);
    if (r)
        return r;
    info->flags |= INFO_MMAP;
    info->mmap_addr = (u32)gpa;
    return 0;
}

static int multiboot1_load(struct boot_load *l, struct boot_entry *entry, struct err *e)
{
    struct multiboot1_info info = {.flags = INFO_MEMORY | INFO_CMDLINE | INFO_LOADER_NAME,
                                   .mem_lower = multiboot_memory_lower(l->memory.info),
                                   .mem_upper = multiboot_memory_upper(l->memory.info)};
    struct multiboot_image image;
    u64 gpa;
    int r = multiboot1_parse(&l->kernel, &image, e);

    if (!r)
        r = multiboot_image_load(&image, l, e);
    if (!r)
        r = modules_put(l, &info, e);
    if (!r)
        r = mmap_put(l, &info, e);
    if (!r)
        r = string_put(l, l->cmdline, "the command line", &info.cmdline, e);
    if (!r)
        r = string_put(l, MULTIBOOT_LOADER_NAME, "the loader's name", &info.boot_loader_name, e);
    if (!r)
        r = boot_memory_put(&l->memory, &info, sizeof(info), 16, "the boot information", &gpa, e);
    return r ? r : multiboot_enter(l, image.entry, LOADER_MAGIC, gpa, entry, e);
}

const struct boot_loader multiboot1_loader = {.name = "multiboot 1",
                                              .module_list = true,
                                              .recognise = multiboot1_recognise,
                                              .check = multiboot1_check,
                                              .load = multiboot1_load};
