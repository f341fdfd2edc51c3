/* Common parts of multiboot 1 and 2: see multiboot.h. Multiboot Specification 0.6.96 §3.1.3, §3.2; Multiboot2 2.0
 * §3.1.5, §3.3. */
#include "firmware/multiboot.h"

#include <elf.h>
#include <errno.h>

#define FLAT_CS 0x08
#define BASE_MEMORY_KIB 640

int multiboot_image_addresses(struct multiboot_image *image, const struct boot_kernel *k, u64 header_offset,
                              const struct multiboot_addresses *a, u32 entry, struct err *e)
{
    u64 before = (u64)a->header_addr - a->load_addr, size;

    if (a->load_addr > a->header_addr || before > header_offset)
        return err_set(e, -EINVAL,
                       "corrupt: its multiboot header is loaded at 0x%x, before the load address 0x%x or the file's "
                       "start",
                       a->header_addr, a->load_addr);
    size = a->load_end_addr ? (u64)a->load_end_addr - a->load_addr : k->size - (header_offset - before);
    if (a->load_end_addr && a->load_end_addr <= a->load_addr)
        return err_set(e, -EINVAL, "corrupt: its load end 0x%x is not above its load address 0x%x", a->load_end_addr,
                       a->load_addr);
    if (!boot_kernel_has(k, header_offset - before, size))
        return err_set(
            e, -EINVAL, "truncated: its multiboot header promises 0x%llx bytes from 0x%llx on, the file has 0x%llx",
            (unsigned long long)size, (unsigned long long)(header_offset - before), (unsigned long long)k->size);
    if (a->bss_end_addr && a->bss_end_addr < a->load_addr + size)
        return err_set(e, -EINVAL, "corrupt: its bss ends at 0x%x, inside what is loaded", a->bss_end_addr);
    *image = (struct multiboot_image){.file_offset = header_offset - before,
                                      .file_size = size,
                                      .load_addr = a->load_addr,
                                      .bss_end = MAX(a->bss_end_addr, a->load_addr + size),
                                      .entry = entry};
    return 0;
}

int multiboot_image_elf(struct multiboot_image *image, const struct boot_kernel *k, struct err *e)
{
    struct multiboot_image result = {.is_elf = true};
    int r;

    if (!elf_image_recognise(k))
        return err_set(e, -EINVAL, "its multiboot header has no addresses, and it is no ELF file");
    r = elf_image_open(&result.elf, k, e);
    if (r)
        return r;
    result.entry = elf_image_entry(&result.elf);
    *image = result;
    return 0;
}

int multiboot_image_load(const struct multiboot_image *image, struct boot_load *l, struct err *e)
{
    u64 file_end = image->load_addr + image->file_size;
    int r;

    if (image->entry >= GIB(4))
        return err_set(e, -EINVAL, "its entry point 0x%llx is above 4 GiB", (unsigned long long)image->entry);
    if (image->is_elf)
        return elf_image_load(&image->elf, &l->memory, e);
    r = boot_memory_claim(&l->memory, image->load_addr, image->bss_end - image->load_addr, "the kernel", e);
    if (!r)
        r = boot_memory_write(&l->memory, image->load_addr, l->kernel.bytes + image->file_offset, image->file_size, e);
    if (!r)
        r = boot_memory_zero(&l->memory, file_end, image->bss_end - file_end, e);
    return r;
}

u64 multiboot_image_base(const struct multiboot_image *image)
{
    u64 base = UINT64_MAX;

    if (!image->is_elf)
        return image->load_addr;
    for (u32 i = 0; i < image->elf.phnum; i++) {
        struct elf_segment s = elf_image_segment(&image->elf, i);

        if (s.type == PT_LOAD && s.memsz)
            base = MIN(base, s.paddr);
    }
    return base;
}

int multiboot_modules_load(struct boot_load *l, struct boot_range at[BOOT_MODULES_MAX], struct err *e)
{
    struct boot_place place = {.align = PAGE_SIZE, .min = MAX(boot_memory_top(&l->memory), MIB(1)), .end = GIB(4)};
    int r = 0;

    for (int i = 0; i < l->module_count && !r; i++)
        r = boot_module_load(l, i, &place, &at[i], e);
    return r;
}

static u64 ram_from(const struct boot_info *info, u64 addr)
{
    u64 end = addr;

    for (int i = 0; i < info->e820_count; i++) {
        const struct e820_entry *ram = &info->e820[i];

        if (ram->type == 1 && ram->addr <= end && ram->addr + ram->size > end)
            end = ram->addr + ram->size;
    }
    return (end - addr) >> 10;
}

u32 multiboot_memory_lower(const struct boot_info *info)
{
    return (u32)MIN(ram_from(info, 0), BASE_MEMORY_KIB);
}

u32 multiboot_memory_upper(const struct boot_info *info)
{
    return (u32)MIN(ram_from(info, MIB(1)), UINT32_MAX);
}

int multiboot_enter(struct boot_load *l, u64 rip, u32 magic, u64 info, struct boot_entry *entry, struct err *e)
{
    *entry = (struct boot_entry){.mode = BOOT_PROT32, .rip = rip, .rax = magic, .rbx = info};
    return boot_gdt_put(l, FLAT_CS, entry, e);
}
