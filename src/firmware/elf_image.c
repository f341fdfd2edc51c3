/* ELF files: see elf_image.h. Headers are copied out before use, so that nothing depends on their alignment in the
 * file. */
#include "firmware/elf_image.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

enum { PROGRAM_HEADERS_MAX = 256 }; /* kernels have a handful */

bool elf_image_recognise(const struct boot_kernel *k)
{
    return k->size >= SELFMAG && !memcmp(k->bytes, ELFMAG, SELFMAG);
}

static int header_read32(struct elf_image *elf, Elf64_Ehdr *h)
{
    Elf32_Ehdr h32;

    if (!boot_kernel_has(elf->file, 0, sizeof(h32)))
        return -EINVAL;
    memcpy(&h32, elf->file->bytes, sizeof(h32));
    *h = (Elf64_Ehdr){.e_type = h32.e_type,
                      .e_machine = h32.e_machine,
                      .e_entry = h32.e_entry,
                      .e_phoff = h32.e_phoff,
                      .e_phentsize = h32.e_phentsize,
                      .e_phnum = h32.e_phnum};
    return h->e_phentsize >= sizeof(Elf32_Phdr) ? 0 : -EINVAL;
}

static int header_read64(struct elf_image *elf, Elf64_Ehdr *h)
{
    if (!boot_kernel_has(elf->file, 0, sizeof(*h)))
        return -EINVAL;
    memcpy(h, elf->file->bytes, sizeof(*h));
    return h->e_phentsize >= sizeof(Elf64_Phdr) ? 0 : -EINVAL;
}

static int segments_check(const struct elf_image *elf, struct err *e)
{
    u32 loadable = 0;

    for (u32 i = 0; i < elf->phnum; i++) {
        struct elf_segment s = elf_image_segment(elf, i);

        if (s.type != PT_LOAD && s.type != PT_NOTE)
            continue;
        if (!boot_kernel_has(elf->file, s.offset, s.filesz))
            return err_set(e, -EINVAL, "truncated: its header promises 0x%llx bytes at 0x%llx, the file has 0x%llx",
                           (unsigned long long)s.filesz, (unsigned long long)s.offset,
                           (unsigned long long)elf->file->size);
        if (s.type == PT_LOAD && s.filesz > s.memsz)
            return err_set(e, -EINVAL, "corrupt: a segment is larger in the file than in memory");
        loadable += s.type == PT_LOAD && s.memsz;
    }
    return loadable ? 0 : err_set(e, -EINVAL, "an ELF file with nothing to load; is it an executable?");
}

int elf_image_open(struct elf_image *elf, const struct boot_kernel *k, struct err *e)
{
    struct elf_image image = {.file = k};
    Elf64_Ehdr h;
    int r;

    if (!elf_image_recognise(k) || k->size < EI_NIDENT)
        return err_set(e, -EINVAL, "truncated: no complete ELF header");
    image.is64 = k->bytes[EI_CLASS] == ELFCLASS64;
    if (image.is64 ? header_read64(&image, &h) : header_read32(&image, &h))
        return err_set(e, -EINVAL, "truncated or corrupt ELF header");
    if (k->bytes[EI_DATA] != ELFDATA2LSB || (h.e_machine != EM_386 && h.e_machine != EM_X86_64))
        return err_set(e, -EINVAL, "an ELF file for another processor than x86");
    if (h.e_phnum > PROGRAM_HEADERS_MAX)
        return err_set(e, -EINVAL, "an ELF file with %u program headers; at most %d are taken", h.e_phnum,
                       PROGRAM_HEADERS_MAX);
    if (!boot_kernel_has(k, h.e_phoff, (u64)h.e_phnum * h.e_phentsize))
        return err_set(e, -EINVAL, "truncated: its %u program headers end beyond the file", h.e_phnum);
    image.entry = h.e_entry;
    image.phoff = h.e_phoff;
    image.phnum = h.e_phnum;
    image.phentsize = h.e_phentsize;
    r = segments_check(&image, e);
    if (!r)
        *elf = image;
    return r;
}

struct elf_segment elf_image_segment(const struct elf_image *elf, u32 n)
{
    const u8 *at = elf->file->bytes + elf->phoff + (u64)n * elf->phentsize;
    Elf32_Phdr p32;
    Elf64_Phdr p;

    assert(n < elf->phnum);
    if (elf->is64) {
        memcpy(&p, at, sizeof(p));
        return (struct elf_segment){p.p_type, p.p_offset, p.p_filesz, p.p_vaddr, p.p_paddr, p.p_memsz, p.p_align};
    }
    memcpy(&p32, at, sizeof(p32));
    return (struct elf_segment){p32.p_type,  p32.p_offset, p32.p_filesz, p32.p_vaddr,
                                p32.p_paddr, p32.p_memsz,  p32.p_align};
}

/* All are claimed before the first is copied: a file that does not fit changes nothing. */
int elf_image_load(const struct elf_image *elf, struct boot_memory *memory, struct err *e)
{
    int r = 0;

    for (u32 i = 0; i < elf->phnum && !r; i++) {
        struct elf_segment s = elf_image_segment(elf, i);

        if (s.type == PT_LOAD && s.memsz)
            r = boot_memory_claim(memory, s.paddr, s.memsz, "a segment", e);
    }
    for (u32 i = 0; i < elf->phnum && !r; i++) {
        struct elf_segment s = elf_image_segment(elf, i);

        if (s.type != PT_LOAD || !s.memsz)
            continue;
        r = boot_memory_write(memory, s.paddr, elf->file->bytes + s.offset, s.filesz, e);
        if (!r)
            r = boot_memory_zero(memory, s.paddr + s.filesz, s.memsz - s.filesz, e);
    }
    return r;
}

/* Kernels of the upper half are linked at one address and loaded at another. */
u64 elf_image_entry(const struct elf_image *elf)
{
    for (u32 i = 0; i < elf->phnum; i++) {
        struct elf_segment s = elf_image_segment(elf, i);

        if (s.type == PT_LOAD && elf->entry >= s.vaddr && elf->entry - s.vaddr < s.memsz)
            return elf->entry - s.vaddr + s.paddr;
    }
    return elf->entry;
}
