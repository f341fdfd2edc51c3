/* Multiboot 2 kernels for i386 machines with a BIOS-like state. Multiboot2 Specification 2.0.
 *
 * Given to the kernel: command line, loader name, modules, memory sizes and map, ACPI root pointers, load base. Left
 * out: symbols, video, boot device, APM, EFI, relocation (a relocatable image goes where it was linked). */
#include "firmware/byte_buffer.h"
#include "firmware/multiboot.h"

#include <errno.h>
#include <string.h>

#define HEADER_MAGIC 0xe85250d6u
#define LOADER_MAGIC 0x36d76289u
#define HEADER_SEARCH 32768
#define ARCHITECTURE_I386 0
#define HEADER_TAG_OPTIONAL 1
#define LOAD_FROM_START UINT32_MAX /* as load_addr: the file is loaded from its first byte on */
#define RSDP_V1_SIZE 20
#define RSDP_V2_SIZE 36
#define MMAP_ENTRY_SIZE 24

/* tags of the header */
enum {
    HEADER_TAG_END,
    HEADER_TAG_REQUEST,
    HEADER_TAG_ADDRESS,
    HEADER_TAG_ENTRY,
    HEADER_TAG_CONSOLE,
    HEADER_TAG_FRAMEBUFFER,
    HEADER_TAG_MODULE_ALIGN,
    HEADER_TAG_EFI_BOOT_SERVICES,
    HEADER_TAG_ENTRY_EFI32,
    HEADER_TAG_ENTRY_EFI64,
    HEADER_TAG_RELOCATABLE,
    HEADER_TAGS,
};

/* tags of the boot information */
enum {
    INFO_TAG_END = 0,
    INFO_TAG_CMDLINE = 1,
    INFO_TAG_LOADER_NAME = 2,
    INFO_TAG_MODULE = 3,
    INFO_TAG_MEMORY = 4,
    INFO_TAG_MMAP = 6,
    INFO_TAG_RSDP_OLD = 14,
    INFO_TAG_RSDP_NEW = 15,
    INFO_TAG_LOAD_BASE = 21,
};

struct multiboot2_header {
    u32 magic, architecture, length, checksum;
};

struct multiboot2_tag {
    u16 type, flags;
    u32 size; /* the eight bytes of this included */
};

/* What the header's tags say. */
struct multiboot2_demand {
    bool has_addresses, has_entry, relocatable;
    struct multiboot_addresses addresses;
    u32 entry;
};

/* The header's offset in the file, or a negative number. */
static s64 header_find(const struct boot_kernel *k, struct multiboot2_header *h)
{
    for (u64 at = 0; at + sizeof(*h) <= MIN(k->size, HEADER_SEARCH); at += 8) {
        memcpy(h, k->bytes + at, sizeof(*h));
        if (h->magic == HEADER_MAGIC && h->magic + h->architecture + h->length + h->checksum == 0)
            return (s64)at;
    }
    return -1;
}

static bool multiboot2_recognise(const struct boot_kernel *k)
{
    struct multiboot2_header h;

    return header_find(k, &h) >= 0;
}

/* Kernels may ask for what the specification knows and must live with its absence; new types must be refused. */
static int request_check(const u8 *body, u32 size, bool optional, struct err *e)
{
    for (u32 at = 0; size - at >= sizeof(u32); at += sizeof(u32)) {
        u32 type;

        memcpy(&type, body + at, sizeof(type));
        if (type > INFO_TAG_LOAD_BASE && !optional)
            return err_set(e, -ENOTSUP, "demands multiboot 2 information of type %u, which is unknown", type);
    }
    return 0;
}

static int tag_read(struct multiboot2_demand *d, const struct multiboot2_tag *tag, const u8 *body, struct err *e)
{
    u32 size = tag->size - (u32)sizeof(*tag);
    bool optional = tag->flags & HEADER_TAG_OPTIONAL;

    if ((tag->type == HEADER_TAG_ADDRESS && size < sizeof(d->addresses)) ||
        (tag->type == HEADER_TAG_ENTRY && size < sizeof(d->entry)))
        return err_set(e, -EINVAL, "corrupt: its multiboot 2 header tag of type %u is too short", tag->type);
    switch (tag->type) {
    case HEADER_TAG_REQUEST:
        return request_check(body, size, optional, e);
    case HEADER_TAG_ADDRESS:
        memcpy(&d->addresses, body, sizeof(d->addresses));
        d->has_addresses = true;
        return 0;
    case HEADER_TAG_ENTRY:
        memcpy(&d->entry, body, sizeof(d->entry));
        d->has_entry = true;
        return 0;
    case HEADER_TAG_FRAMEBUFFER:
        return optional ? 0 : err_set(e, -ENOTSUP, "demands a framebuffer from its boot loader, which is not offered");
    case HEADER_TAG_RELOCATABLE:
        d->relocatable = true;
        return 0;
    }
    if (tag->type >= HEADER_TAGS && !optional)
        return err_set(e, -ENOTSUP, "its multiboot 2 header demands feature %u, which is unknown", tag->type);
    return 0;
}

static int tags_read(const struct boot_kernel *k, u64 at, u64 end, struct multiboot2_demand *d, struct err *e)
{
    struct multiboot2_tag tag;

    for (; end - at >= sizeof(tag); at += MIN(ALIGN_UP((u64)tag.size, 8), end - at)) {
        int r;

        memcpy(&tag, k->bytes + at, sizeof(tag));
        if (tag.size < sizeof(tag) || tag.size > end - at)
            return err_set(e, -EINVAL, "corrupt: a multiboot 2 header tag has %u bytes, %llu are left", tag.size,
                           (unsigned long long)(end - at));
        if (tag.type == HEADER_TAG_END)
            return 0;
        r = tag_read(d, &tag, k->bytes + at + sizeof(tag), e);
        if (r)
            return r;
    }
    return err_set(e, -EINVAL, "corrupt: its multiboot 2 header has no end tag");
}

static int image_fill(const struct boot_kernel *k, u64 at, struct multiboot2_demand *d, struct multiboot_image *image,
                      struct err *e)
{
    int r;

    if (!d->has_addresses) {
        r = multiboot_image_elf(image, k, e);
        if (!r && d->has_entry)
            image->entry = d->entry;
        return r;
    }
    if (!d->has_entry)
        return err_set(e, -EINVAL, "its multiboot 2 header has an address tag but no entry address tag");
    if (d->addresses.load_addr == LOAD_FROM_START && d->addresses.header_addr >= at)
        d->addresses.load_addr = d->addresses.header_addr - (u32)at;
    return multiboot_image_addresses(image, k, at, &d->addresses, d->entry, e);
}

static int multiboot2_parse(const struct boot_kernel *k, struct multiboot_image *image, bool *ret_relocatable,
                            struct err *e)
{
    struct multiboot2_demand demand = {0};
    struct multiboot2_header h;
    s64 at = header_find(k, &h);
    int r;

    if (at < 0)
        return err_set(e, -EINVAL, "no longer has a multiboot 2 header");
    if (h.architecture != ARCHITECTURE_I386)
        return err_set(e, -EINVAL, "a multiboot 2 kernel for another architecture (%u)", h.architecture);
    if (h.length < sizeof(h) || !boot_kernel_has(k, (u64)at, h.length))
        return err_set(e, -EINVAL, "truncated: its multiboot 2 header has 0x%x bytes", h.length);
    r = tags_read(k, (u64)at + sizeof(h), (u64)at + h.length, &demand, e);
    if (!r)
        r = image_fill(k, (u64)at, &demand, image, e);
    if (!r)
        *ret_relocatable = demand.relocatable;
    return r;
}

static int multiboot2_check(const struct boot_kernel *k, const char *cmdline, struct err *e)
{
    struct multiboot_image image;
    bool relocatable;

    return multiboot2_parse(k, &image, &relocatable, e);
}

static size_t tag_begin(struct byte_buffer *b, u32 type)
{
    size_t start;

    bytes_align(b, 8);
    start = b->len;
    bytes_put32(b, type);
    bytes_put32(b, 0); /* size: tag_end */
    return start;
}

static void tag_end(struct byte_buffer *b, size_t start)
{
    bytes_patch32(b, start + 4, (u32)(b->len - start));
}

static void string_tag(struct byte_buffer *b, u32 type, const char *s)
{
    size_t start = tag_begin(b, type);

    bytes_string(b, s);
    tag_end(b, start);
}

static void module_tag(struct byte_buffer *b, const struct boot_range *at, const char *text)
{
    size_t start = tag_begin(b, INFO_TAG_MODULE);

    bytes_put32(b, (u32)at->start);
    bytes_put32(b, (u32)at->end);
    bytes_string(b, text);
    tag_end(b, start);
}

static void memory_tags(struct byte_buffer *b, const struct boot_info *info)
{
    size_t start = tag_begin(b, INFO_TAG_MEMORY);

    bytes_put32(b, multiboot_memory_lower(info));
    bytes_put32(b, multiboot_memory_upper(info));
    tag_end(b, start);

    start = tag_begin(b, INFO_TAG_MMAP);
    bytes_put32(b, MMAP_ENTRY_SIZE);
    bytes_put32(b, 0); /* version */
    for (int i = 0; i < info->e820_count; i++) {
        bytes_put64(b, info->e820[i].addr);
        bytes_put64(b, info->e820[i].size);
        bytes_put32(b, info->e820[i].type);
        bytes_put32(b, 0);
    }
    tag_end(b, start);
}

/* Copies of the root pointer: its first version's part for old kernels, and all of it. */
static void rsdp_tags(struct byte_buffer *b, const struct boot_memory *memory)
{
    u8 rsdp[RSDP_V2_SIZE];
    size_t start;

    if (!memory->info->rsdp || guest_memory_read(memory->mem, memory->info->rsdp, rsdp, sizeof(rsdp)))
        return;
    start = tag_begin(b, INFO_TAG_RSDP_OLD);
    bytes_append(b, rsdp, RSDP_V1_SIZE);
    tag_end(b, start);
    start = tag_begin(b, INFO_TAG_RSDP_NEW);
    bytes_append(b, rsdp, RSDP_V2_SIZE);
    tag_end(b, start);
}

static void load_base_tag(struct byte_buffer *b, u64 base)
{
    size_t start = tag_begin(b, INFO_TAG_LOAD_BASE);

    bytes_put32(b, (u32)base);
    tag_end(b, start);
}

static int info_put(struct boot_load *l, const struct boot_range *module, const struct multiboot_image *image,
                    bool relocatable, u64 *ret_gpa, struct err *e)
{
    struct byte_buffer b = {0};
    int r;

    bytes_put64(&b, 0); /* total size, reserved */
    string_tag(&b, INFO_TAG_CMDLINE, l->cmdline);
    string_tag(&b, INFO_TAG_LOADER_NAME, MULTIBOOT_LOADER_NAME);
    for (int i = 0; i < l->module_count; i++)
        module_tag(&b, &module[i], l->module[i].text);
    memory_tags(&b, l->memory.info);
    rsdp_tags(&b, &l->memory);
    if (relocatable)
        load_base_tag(&b, multiboot_image_base(image));
    tag_end(&b, tag_begin(&b, INFO_TAG_END));
    bytes_patch32(&b, 0, (u32)b.len);
    if (b.failed)
        r = err_set(e, -ENOMEM, "out of memory for its boot information");
    else
        r = boot_memory_put(&l->memory, b.data, b.len, 8, "the boot information", ret_gpa, e);
    bytes_free(&b);
    return r;
}

static int multiboot2_load(struct boot_load *l, struct boot_entry *entry, struct err *e)
{
    struct multiboot_image image;
    struct boot_range module[BOOT_MODULES_MAX];
    bool relocatable;
    u64 gpa;
    int r = multiboot2_parse(&l->kernel, &image, &relocatable, e);

    if (!r)
        r = multiboot_image_load(&image, l, e);
    if (!r)
        r = multiboot_modules_load(l, module, e);
    if (!r)
        r = info_put(l, module, &image, relocatable, &gpa, e);
    return r ? r : multiboot_enter(l, image.entry, LOADER_MAGIC, gpa, entry, e);
}

const struct boot_loader multiboot2_loader = {.name = "multiboot 2",
                                              .module_list = true,
                                              .recognise = multiboot2_recognise,
                                              .check = multiboot2_check,
                                              .load = multiboot2_load};
