/* Which kind of kernel a file is, and what the loaders have in common: see linux_boot.h. */
#include "base/trace.h"
#include "firmware/boot_loader.h"
#include "firmware/elf_image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define KERNEL_SIZE_MAX GIB(1)
#define MODULE_SIZE_MAX GIB(4)

#define FLAT_CODE64 0x00af9b000000ffffull
#define FLAT_CODE32 0x00cf9b000000ffffull
#define FLAT_DATA 0x00cf93000000ffffull

struct boot_image {
    const struct boot_loader *loader;
    struct boot_file kernel;
    char *cmdline;
    struct boot_module module[BOOT_MODULES_MAX];
    int module_count;
};

static const struct boot_loader *const loaders[] = {&bzimage_loader, &pvh_elf_loader, &multiboot1_loader,
                                                    &multiboot2_loader};

static int kernel_read(const struct boot_file *f, struct boot_kernel *ret, u8 **ret_owned, struct err *e)
{
    u64 size;
    u8 *bytes;
    int r = boot_file_size(f, &size, e);

    if (r)
        return r;
    bytes = malloc(size);
    if (!bytes)
        return err_set(e, -ENOMEM, "kernel '%s': out of memory for %llu MiB", f->path, (unsigned long long)size >> 20);
    r = boot_file_read(f, bytes, size, e);
    if (r) {
        free(bytes);
        return r;
    }
    *ret = (struct boot_kernel){bytes, size};
    *ret_owned = bytes;
    return 0;
}

/* Why no loader wants it. */
static int unknown_explain(const struct boot_kernel *k, struct err *e)
{
    struct elf_image elf;
    int r;

    if (k->size >= 2 && k->bytes[0] == 0x1f && k->bytes[1] == 0x8b)
        return err_set(e, -EINVAL, "a gzip file; unpack it first (gunzip)");
    if (!elf_image_recognise(k))
        return err_set(e, -EINVAL, "not a bzImage, PVH ELF or multiboot file");
    r = elf_image_open(&elf, k, e);
    if (r)
        return r;
    return err_set(e, -EINVAL,
                   "an ELF file without PVH entry note or multiboot header; for Linux, take the bzImage (vmlinuz) or "
                   "a kernel built with CONFIG_PVH");
}

static int loader_find(const struct boot_kernel *k, const struct boot_loader **ret, struct err *e)
{
    for (size_t i = 0; i < ARRAY_SIZE(loaders); i++) {
        if (!loaders[i]->recognise(k))
            continue;
        *ret = loaders[i];
        return 0;
    }
    return unknown_explain(k, e);
}

static int kernel_open(struct boot_image *b, const char *path, struct err *e)
{
    struct boot_kernel k;
    u8 *owned;
    int r = boot_file_open(&b->kernel, "kernel", path, KERNEL_SIZE_MAX, e);

    if (r)
        return r;
    r = kernel_read(&b->kernel, &k, &owned, e);
    if (r)
        return r;
    r = loader_find(&k, &b->loader, e);
    if (!r)
        r = b->loader->check(&k, b->cmdline, e);
    if (r)
        err_prefix(e, "kernel '%s'", path);
    else
        trace(BOOT, "kernel '%s': %s", path, b->loader->name);
    free(owned);
    return r;
}

/* `text` becomes the module's. */
static int module_open(struct boot_image *b, char *text, bool arguments, struct err *e)
{
    struct boot_module *m = &b->module[b->module_count];
    char *path = text ? strndup(text, arguments ? strcspn(text, " ") : strlen(text)) : NULL;
    int r;

    if (!path)
        r = err_set(e, -ENOMEM, "initrd: out of memory");
    else if (b->module_count == BOOT_MODULES_MAX)
        r = err_set(e, -E2BIG, "initrd: more than %d modules", BOOT_MODULES_MAX);
    else
        r = boot_file_open(&m->file, arguments ? "module" : "initrd", path, MODULE_SIZE_MAX, e);
    free(path);
    if (r) {
        free(text);
        return r;
    }
    m->text = text;
    b->module_count++;
    return 0;
}

static int modules_open(struct boot_image *b, const char *list, struct err *e)
{
    int r = 0;

    if (!list)
        return 0;
    if (!b->loader->module_list)
        return module_open(b, strdup(list), false, e);
    while (!r) {
        size_t len = strcspn(list, ",");

        r = module_open(b, strndup(list, len), true, e);
        if (!list[len])
            break;
        list += len + 1;
    }
    return r;
}

int boot_image_create(const char *kernel, const char *initrd, const char *cmdline, struct boot_image **ret,
                      struct err *e)
{
    struct boot_image *b;
    int r;

    if (!kernel)
        return err_set(e, -EINVAL, "nothing to boot: name a kernel (--kernel FILE)");
    b = calloc(1, sizeof(*b));
    if (!b)
        return err_set(e, -ENOMEM, "kernel '%s': out of memory", kernel);
    b->kernel.fd = -1;
    b->cmdline = strdup(cmdline ? cmdline : "");
    r = b->cmdline ? kernel_open(b, kernel, e) : err_set(e, -ENOMEM, "kernel '%s': out of memory", kernel);
    if (!r)
        r = modules_open(b, initrd, e);
    if (r)
        boot_image_free(b);
    else
        *ret = b;
    return r;
}

void boot_image_free(struct boot_image *b)
{
    if (!b)
        return;
    for (int i = 0; i < b->module_count; i++) {
        boot_file_close(&b->module[i].file);
        free(b->module[i].text);
    }
    boot_file_close(&b->kernel);
    free(b->cmdline);
    free(b);
}

int boot_image_load(const struct boot_image *b, struct guest_memory *mem, const struct boot_info *info,
                    struct boot_entry *entry, struct err *e)
{
    struct boot_load l = {.cmdline = b->cmdline,
                          .module = b->module,
                          .module_count = b->module_count,
                          .memory = {.mem = mem, .info = info}};
    struct boot_entry result = {0};
    u8 *owned;
    int r = kernel_read(&b->kernel, &l.kernel, &owned, e);

    if (r)
        return r;
    r = b->loader->load(&l, &result, e);
    free(owned);
    if (r) {
        err_prefix(e, "kernel '%s'", b->kernel.path);
        return r;
    }
    trace(BOOT, "entry at 0x%llx", (unsigned long long)result.rip);
    *entry = result;
    return 0;
}

int boot_module_load(struct boot_load *l, int n, struct boot_place *place, struct boot_range *ret, struct err *e)
{
    const struct boot_file *f = &l->module[n].file;
    struct guest_memory *mem = l->memory.mem;
    u64 gpa;
    u8 *hva;
    int r = boot_file_size(f, &place->size, e);

    if (!r)
        r = boot_memory_place(&l->memory, place, f->role, &gpa, e);
    if (r)
        return r;
    hva = guest_memory_ptr(mem, gpa, place->size, true);
    if (!hva)
        return err_set(e, -EFAULT, "%s '%s': RAM at 0x%llx is not in one piece", f->role, f->path,
                       (unsigned long long)gpa);
    r = boot_file_read(f, hva, place->size, e);
    guest_memory_written(mem, hva, place->size);
    if (!r)
        *ret = (struct boot_range){gpa, gpa + place->size, f->role};
    return r;
}

int boot_gdt_put(struct boot_load *l, u16 code_sel, struct boot_entry *entry, struct err *e)
{
    u64 gdt[4] = {0};
    size_t code = code_sel >> 3;
    int r;

    assert(code && code + 1 < ARRAY_SIZE(gdt));
    gdt[code] = entry->mode == BOOT_LONG64 ? FLAT_CODE64 : FLAT_CODE32;
    gdt[code + 1] = FLAT_DATA;
    r = boot_memory_put(&l->memory, gdt, (code + 2) * sizeof(gdt[0]), 16, "the descriptor table", &entry->gdt_base, e);
    entry->gdt_limit = (u16)((code + 2) * sizeof(gdt[0]) - 1);
    entry->code_sel = code_sel;
    entry->data_sel = (u16)(code_sel + 8);
    return r;
}
