/* ELF kernels that are entered by PVH, Xen's protocol for guests without firmware: 32-bit protected mode, EBX points
 * at a start_info structure. Xen docs/misc/pvh.pandoc, xen/include/public/arch-x86/hvm/start_info.h, public/elfnote.h.
 *
 * Any ELF kernel with the note is taken; a Linux vmlinux with CONFIG_PVH has it. */
#include "firmware/elf_image.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#define START_INFO_MAGIC 0x336ec578u
#define START_INFO_VERSION 1
#define NOTE_NAME "Xen"
#define NOTE_PHYS32_ENTRY 18
#define INITRD_END GIB(2) /* as bzImages demand it: 32-bit kernels map no more at first */
#define FLAT_CS 0x08

struct hvm_start_info {
    u32 magic, version, flags, nr_modules;
    u64 modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr;
    u32 memmap_entries, reserved;
};

struct hvm_modlist_entry {
    u64 paddr, size, cmdline_paddr, reserved;
};

struct hvm_memmap_entry {
    u64 addr, size;
    u32 type, reserved;
};

static_assert(sizeof(struct hvm_start_info) == 56, "start_info version 1");

/* One note at `at`, `left` bytes before the end of its segment: whether it holds the entry point. *ret_size is where
 * the next begins, 0 at the end. */
static bool note_entry(const u8 *at, u64 left, u64 align, u64 *ret_size, u64 *ret_entry)
{
    Elf32_Nhdr h; /* the same in both classes */
    u64 name_end, desc, end;

    *ret_size = 0;
    if (left < sizeof(h))
        return false;
    memcpy(&h, at, sizeof(h));
    name_end = sizeof(h) + (u64)h.n_namesz;
    desc = ALIGN_UP(name_end, align);
    end = desc + h.n_descsz;
    if (end > left)
        return false;
    *ret_size = ALIGN_UP(end, align) < left ? ALIGN_UP(end, align) : 0;
    if (h.n_type != NOTE_PHYS32_ENTRY || h.n_namesz != sizeof(NOTE_NAME) ||
        memcmp(at + sizeof(h), NOTE_NAME, sizeof(NOTE_NAME)))
        return false;
    if (h.n_descsz != 4 && h.n_descsz != 8)
        return false;
    *ret_entry = 0;
    memcpy(ret_entry, at + desc, h.n_descsz);
    return true;
}

static bool entry_find(const struct elf_image *elf, u64 *ret_entry)
{
    for (u32 i = 0; i < elf->phnum; i++) {
        struct elf_segment s = elf_image_segment(elf, i);
        u64 size = s.type == PT_NOTE ? 1 : 0;

        for (u64 at = 0; size; at += size)
            if (note_entry(elf->file->bytes + s.offset + at, s.filesz - at, s.align == 8 ? 8 : 4, &size, ret_entry))
                return true;
    }
    return false;
}

static bool pvh_recognise(const struct boot_kernel *k)
{
    struct elf_image elf;
    struct err unused;
    u64 entry;

    return elf_image_recognise(k) && !elf_image_open(&elf, k, &unused) && entry_find(&elf, &entry);
}

static int entry_check(const struct elf_image *elf, u64 entry, struct err *e)
{
    for (u32 i = 0; i < elf->phnum; i++) {
        struct elf_segment s = elf_image_segment(elf, i);

        if (s.type == PT_LOAD && entry < GIB(4) && entry >= s.paddr && entry - s.paddr < s.filesz)
            return 0;
    }
    return err_set(e, -EINVAL, "corrupt: its PVH entry 0x%llx is in no segment below 4 GiB", (unsigned long long)entry);
}

static int pvh_parse(const struct boot_kernel *k, struct elf_image *elf, u64 *ret_entry, struct err *e)
{
    int r = elf_image_open(elf, k, e);

    if (r)
        return r;
    if (!entry_find(elf, ret_entry))
        return err_set(e, -EINVAL, "no longer has a PVH entry note");
    return entry_check(elf, *ret_entry, e);
}

static int pvh_check(const struct boot_kernel *k, const char *cmdline, struct err *e)
{
    struct elf_image elf;
    u64 entry;

    return pvh_parse(k, &elf, &entry, e);
}

static int memmap_put(struct boot_load *l, struct hvm_start_info *info, struct err *e)
{
    const struct boot_info *from = l->memory.info;
    struct hvm_memmap_entry map[128] = {0};

    assert(from->e820_count <= (int)ARRAY_SIZE(map));
    for (int i = 0; i < from->e820_count; i++)
        map[i] = (struct hvm_memmap_entry){from->e820[i].addr, from->e820[i].size, from->e820[i].type, 0};
    info->memmap_entries = (u32)from->e820_count;
    return boot_memory_put(&l->memory, map, info->memmap_entries * sizeof(map[0]), 16, "the memory map",
                           &info->memmap_paddr, e);
}

static int initrd_load(struct boot_load *l, struct hvm_start_info *info, struct err *e)
{
    struct boot_place place = {.align = PAGE_SIZE, .min = MIB(1), .end = INITRD_END, .high = true};
    struct hvm_modlist_entry module = {0};
    struct boot_range at;
    int r;

    if (!l->module_count)
        return 0;
    r = boot_module_load(l, 0, &place, &at, e);
    if (r)
        return r;
    module.paddr = at.start;
    module.size = at.end - at.start;
    info->nr_modules = 1;
    return boot_memory_put(&l->memory, &module, sizeof(module), 16, "the module list", &info->modlist_paddr, e);
}

static int pvh_load(struct boot_load *l, struct boot_entry *entry, struct err *e)
{
    struct hvm_start_info info = {
        .magic = START_INFO_MAGIC, .version = START_INFO_VERSION, .rsdp_paddr = l->memory.info->rsdp};
    struct elf_image elf;
    int r = pvh_parse(&l->kernel, &elf, &entry->rip, e);

    if (!r)
        r = elf_image_load(&elf, &l->memory, e);
    if (!r)
        r = initrd_load(l, &info, e);
    if (!r)
        r = memmap_put(l, &info, e);
    if (!r)
        r = boot_memory_put(&l->memory, l->cmdline, strlen(l->cmdline) + 1, 16, "the command line", &info.cmdline_paddr,
                            e);
    if (!r)
        r = boot_memory_put(&l->memory, &info, sizeof(info), 16, "the start info", &entry->rbx, e);
    if (r)
        return r;
    entry->mode = BOOT_PROT32;
    return boot_gdt_put(l, FLAT_CS, entry, e);
}

const struct boot_loader pvh_elf_loader = {
    .name = "PVH ELF", .recognise = pvh_recognise, .check = pvh_check, .load = pvh_load};
