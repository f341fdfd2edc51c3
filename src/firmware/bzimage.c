/* Linux kernels as bzImage, by the 64-bit boot protocol; by the 32-bit one where the kernel has no 64-bit entry.
 * Documentation/arch/x86/boot.rst and zero-page.rst of Linux.
 *
 * The file is: setup_sects + 1 sectors of real-mode code, of which only the header is used here, then the protected-
 * mode code, which unpacks the kernel itself. The kernel wants that code, a "zero page" that describes the machine,
 * its command line, and for the 64-bit entry a descriptor table and page tables that map all of them to themselves.
 *
 * Left out: the 16-bit protocol (it needs a BIOS), zImage, loading above 4 GiB, the framebuffer description. */
#include "firmware/boot_loader.h"

#include <asm/bootparam.h>
#include <errno.h>
#include <string.h>

enum {
    SECTOR = 512,
    SETUP_SECTS_OLD = 4, /* what 0 means */
    HEADER_START = offsetof(struct boot_params, hdr),
    HEADER_JUMP = 0x201, /* the operand of a short jump over the header: where it ends, from the next byte on */
    HEADER_END_MAX = offsetof(struct boot_params, edd_mbr_sig_buffer),
    HEADER_FIELDS_MIN = 0x22c, /* the end of protocol 2.02's header, before initrd_addr_max */
};

#define HEADER_MAGIC 0x53726448u /* "HdrS" */
#define BOOT_FLAG 0xaa55
#define LOADER_UNKNOWN 0xff
#define LOAD_ADDRESS_OLD MIB(1)
#define INITRD_ADDR_MAX_OLD 0x37ffffffu
#define CMDLINE_SIZE_OLD 255
#define BOOT_CS 0x10
#define ENTRY64_OFFSET 0x200
enum { PTE_P = 1, PTE_RW = 2, PDE_PS = 0x80, TABLE_ENTRIES = 512, MAPPED_GIB = 4 };

static_assert(sizeof(struct boot_params) == PAGE_SIZE, "zero page");

struct bzimage {
    struct setup_header hdr;   /* fields that the kernel's protocol version does not have are zero */
    u64 payload, payload_size; /* the protected-mode code in the file */
    u64 load_at, align;        /* where it wants to be, or else at a multiple of `align` above if that is not 0 */
    u64 room;                  /* what it needs there, unpacking included */
    u64 initrd_end;            /* exclusive */
    u32 cmdline_max;
    bool entry64;
};

static bool bzimage_recognise(const struct boot_kernel *k)
{
    struct setup_header hdr;

    if (!boot_kernel_has(k, HEADER_START, offsetof(struct setup_header, version)))
        return false;
    memcpy(&hdr, k->bytes + HEADER_START, offsetof(struct setup_header, version));
    return hdr.boot_flag == BOOT_FLAG && hdr.header == HEADER_MAGIC;
}

/* Copies as much of the header as there is; the zero page gets it from here. */
static int header_read(const struct boot_kernel *k, struct setup_header *hdr, struct err *e)
{
    size_t end;

    if (!boot_kernel_has(k, 0, HEADER_FIELDS_MIN))
        return err_set(e, -EINVAL, "truncated: it ends in the bzImage header");
    end = HEADER_JUMP + 1u + k->bytes[HEADER_JUMP];
    if (!boot_kernel_has(k, 0, end))
        return err_set(e, -EINVAL, "truncated: its header has 0x%zx bytes, the file has 0x%llx", end,
                       (unsigned long long)k->size);
    if (end < HEADER_FIELDS_MIN)
        return err_set(e, -EINVAL, "corrupt: its header has only 0x%zx bytes", end);
    memset(hdr, 0, sizeof(*hdr));
    memcpy(hdr, k->bytes + HEADER_START, MIN(end - HEADER_START, sizeof(*hdr)));
    return 0;
}

/* Each protocol version added fields; what a kernel does not say gets its meaning from boot.rst. */
static int protocol_fields(struct bzimage *z, struct err *e)
{
    const struct setup_header *h = &z->hdr;
    u16 version = h->version;
    u32 align = version >= 0x205 && h->relocatable_kernel ? h->kernel_alignment : 0;

    if (version < 0x202)
        return err_set(e, -EINVAL, "its boot protocol %u.%02u is too old; 2.02 (Linux 2.4) or later is needed",
                       version >> 8, version & 0xff);
    if (!(h->loadflags & LOADED_HIGH))
        return err_set(e, -EINVAL, "a zImage, which needs a BIOS; build it as bzImage");
    if (align & (align - 1))
        return err_set(e, -EINVAL, "corrupt: its alignment 0x%x is no power of two", align);
    z->entry64 = version >= 0x20c && h->xloadflags & XLF_KERNEL_64;
    z->initrd_end = (version >= 0x203 ? h->initrd_addr_max : INITRD_ADDR_MAX_OLD) + 1ull;
    z->cmdline_max = version >= 0x206 ? h->cmdline_size : CMDLINE_SIZE_OLD;
    z->load_at = version >= 0x20a ? h->pref_address : LOAD_ADDRESS_OLD;
    z->align = align;
    z->room = MAX(version >= 0x20a ? h->init_size : 0, z->payload_size);
    return 0;
}

static int bzimage_parse(const struct boot_kernel *k, struct bzimage *z, struct err *e)
{
    int r = header_read(k, &z->hdr, e);
    u64 promised;

    if (r)
        return r;
    z->payload = (z->hdr.setup_sects ? z->hdr.setup_sects + 1u : SETUP_SECTS_OLD + 1u) * SECTOR;
    promised = z->hdr.version >= 0x204 ? z->hdr.syssize * 16ull : 1; /* older kernels' numbers are too small */
    if (!promised)
        return err_set(e, -EINVAL, "corrupt: its header says that there is no kernel behind it");
    if (!boot_kernel_has(k, z->payload, promised))
        return err_set(e, -EINVAL, "truncated: its header promises 0x%llx bytes, the file has 0x%llx",
                       (unsigned long long)(z->payload + promised), (unsigned long long)k->size);
    z->payload_size = z->hdr.version >= 0x204 ? promised : k->size - z->payload;
    return protocol_fields(z, e);
}

static int cmdline_check(const struct bzimage *z, const char *cmdline, struct err *e)
{
    size_t len = strlen(cmdline);

    if (len > z->cmdline_max)
        return err_set(e, -E2BIG, "the command line (--append) has %zu bytes; this kernel takes at most %u", len,
                       z->cmdline_max);
    return 0;
}

static int bzimage_check(const struct boot_kernel *k, const char *cmdline, struct err *e)
{
    struct bzimage z;
    int r = bzimage_parse(k, &z, e);

    return r ? r : cmdline_check(&z, cmdline, e);
}

/* At the place that it prefers; a relocatable one else at the first that is free above. Below its preferred place the
 * kernel would move itself back up. */
static int payload_load(struct boot_load *l, const struct bzimage *z, u64 *ret_gpa, struct err *e)
{
    struct boot_place place = {.size = z->room, .align = z->align, .min = z->load_at, .end = GIB(4)};
    int r;

    if (z->align) {
        r = boot_memory_place(&l->memory, &place, "the kernel", ret_gpa, e);
    } else {
        *ret_gpa = z->load_at;
        r = boot_memory_claim(&l->memory, z->load_at, z->room, "the kernel", e);
    }
    if (!r)
        r = boot_memory_write(&l->memory, *ret_gpa, l->kernel.bytes + z->payload, z->payload_size, e);
    return r;
}

/* The initrd goes as high as it can, out of the way of a kernel that grows while it unpacks. */
static int initrd_load(struct boot_load *l, const struct bzimage *z, struct boot_params *bp, struct err *e)
{
    struct boot_place place = {.align = PAGE_SIZE, .min = MIB(1), .end = z->initrd_end, .high = true};
    struct boot_range at;
    int r;

    if (!l->module_count)
        return 0;
    r = boot_module_load(l, 0, &place, &at, e);
    if (r)
        return r;
    bp->hdr.ramdisk_image = (u32)at.start;
    bp->hdr.ramdisk_size = (u32)(at.end - at.start);
    return 0;
}

static void memory_map_fill(struct boot_params *bp, const struct boot_info *info)
{
    assert(info->e820_count <= E820_MAX_ENTRIES_ZEROPAGE);
    for (int i = 0; i < info->e820_count; i++) {
        const struct e820_entry *from = &info->e820[i];

        bp->e820_table[i] = (struct boot_e820_entry){from->addr, from->size, from->type};
    }
    bp->e820_entries = (u8)info->e820_count;
}

static int zero_page_put(struct boot_load *l, const struct bzimage *z, u64 *ret_gpa, struct err *e)
{
    struct boot_params bp = {0};
    size_t header_end = MIN(HEADER_JUMP + 1u + l->kernel.bytes[HEADER_JUMP], HEADER_END_MAX);
    u64 cmdline;
    int r;

    memcpy((u8 *)&bp + HEADER_START, l->kernel.bytes + HEADER_START, header_end - HEADER_START);
    bp.hdr.type_of_loader = LOADER_UNKNOWN;
    bp.hdr.ramdisk_image = bp.hdr.ramdisk_size = 0;
    bp.hdr.setup_data = 0;
    r = initrd_load(l, z, &bp, e);
    if (!r)
        r = boot_memory_put(&l->memory, l->cmdline, strlen(l->cmdline) + 1, 16, "the command line", &cmdline, e);
    if (r)
        return r;
    bp.hdr.cmd_line_ptr = (u32)cmdline;
    bp.acpi_rsdp_addr = l->memory.info->rsdp;
    memory_map_fill(&bp, l->memory.info);
    return boot_memory_put(&l->memory, &bp, sizeof(bp), PAGE_SIZE, "the zero page", ret_gpa, e);
}

/* The first 4 GiB onto themselves in pages of 2 MiB: one PML4, one PDPT, four page directories, in this order. */
static int page_tables_put(struct boot_load *l, u64 *ret_cr3, struct err *e)
{
    static const u64 empty[(2 + MAPPED_GIB) * TABLE_ENTRIES];
    u64 gpa, entry, directory[TABLE_ENTRIES];
    int r = boot_memory_put(&l->memory, empty, sizeof(empty), PAGE_SIZE, "the page tables", &gpa, e);

    entry = (gpa + PAGE_SIZE) | PTE_P | PTE_RW;
    if (!r)
        r = boot_memory_write(&l->memory, gpa, &entry, sizeof(entry), e);
    for (u64 n = 0; n < MAPPED_GIB && !r; n++) {
        u64 at = gpa + (2 + n) * PAGE_SIZE;

        for (u64 i = 0; i < TABLE_ENTRIES; i++)
            directory[i] = GIB(n) | MIB(2) * i | PDE_PS | PTE_P | PTE_RW;
        entry = at | PTE_P | PTE_RW;
        r = boot_memory_write(&l->memory, gpa + PAGE_SIZE + n * sizeof(entry), &entry, sizeof(entry), e);
        if (!r)
            r = boot_memory_write(&l->memory, at, directory, sizeof(directory), e);
    }
    if (!r)
        *ret_cr3 = gpa;
    return r;
}

static int bzimage_load(struct boot_load *l, struct boot_entry *entry, struct err *e)
{
    struct bzimage z;
    u64 at;
    int r = bzimage_parse(&l->kernel, &z, e);

    if (!r)
        r = cmdline_check(&z, l->cmdline, e);
    if (!r)
        r = payload_load(l, &z, &at, e);
    if (!r)
        r = zero_page_put(l, &z, &entry->rsi, e);
    if (!r && z.entry64)
        r = page_tables_put(l, &entry->cr3, e);
    if (r)
        return r;
    entry->mode = z.entry64 ? BOOT_LONG64 : BOOT_PROT32;
    entry->rip = at + (z.entry64 ? ENTRY64_OFFSET : 0);
    return boot_gdt_put(l, BOOT_CS, entry, e);
}

const struct boot_loader bzimage_loader = {
    .name = "bzImage", .recognise = bzimage_recognise, .check = bzimage_check, .load = bzimage_load};
