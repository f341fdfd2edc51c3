/* What the loader tests share: see boot_fixture.h. */
#include "boot_fixture.h"

#include <elf.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

void boot_guest_create(struct boot_guest *g, u64 ram_size)
{
    const struct e820_entry map[] = {{0, 0x9fc00, 1},
                                     {0x9fc00, 0x400, 2},
                                     {0xe0000, 0x20000, 2},
                                     {MIB(1), ram_size - MIB(1) - KIB(64), 1},
                                     {ram_size - KIB(64), KIB(64), 3}};
    struct err e;

    memset(g, 0, sizeof(*g));
    memcpy(g->e820, map, sizeof(map));
    g->info = (struct boot_info){g->e820, ARRAY_SIZE(map), ram_size - KIB(64), BOOT_GUEST_RSDP};
    assert_int_equal(guest_memory_create(ram_size, &g->mem, &e), 0);
    assert_int_equal(guest_memory_map(g->mem, 0, 0xa0000, 0, false), 0);
    assert_int_equal(guest_memory_map(g->mem, 0xc0000, ram_size - 0xc0000, 0xc0000, false), 0);
}

void boot_guest_free(struct boot_guest *g)
{
    guest_memory_free(g->mem);
}

u64 guest_u64(const struct boot_guest *g, u64 gpa)
{
    u64 v;

    assert_int_equal(guest_memory_read(g->mem, gpa, &v, sizeof(v)), 0);
    return v;
}

u32 guest_u32(const struct boot_guest *g, u64 gpa)
{
    return (u32)guest_u64(g, gpa);
}

u16 guest_u16(const struct boot_guest *g, u64 gpa)
{
    return (u16)guest_u64(g, gpa);
}

u8 guest_u8(const struct boot_guest *g, u64 gpa)
{
    return (u8)guest_u64(g, gpa);
}

const char *guest_string(const struct boot_guest *g, u64 gpa)
{
    const char *s = (const char *)guest_memory_ptr(g->mem, gpa, PAGE_SIZE, false);

    assert_non_null(s);
    assert_true(strnlen(s, PAGE_SIZE) < PAGE_SIZE);
    return s;
}

void guest_pattern_check(const struct boot_guest *g, u64 gpa, const u8 *bytes, u64 len)
{
    const u8 *there = guest_memory_ptr(g->mem, gpa, len, false);

    assert_non_null(there);
    assert_memory_equal(there, bytes, len);
}

void image_put16(struct image_bytes *i, u64 at, u16 v)
{
    memcpy(i->data + at, &v, sizeof(v));
}

void image_put32(struct image_bytes *i, u64 at, u32 v)
{
    memcpy(i->data + at, &v, sizeof(v));
}

void image_put64(struct image_bytes *i, u64 at, u64 v)
{
    memcpy(i->data + at, &v, sizeof(v));
}

void image_pattern(struct image_bytes *i, u64 at, u64 len)
{
    for (u64 n = 0; n < len; n++)
        i->data[at + n] = (u8)(1 + (n * 7 + n / 251) % 255);
}

void image_elf(struct image_bytes *i, bool is64, u64 entry, int phnum)
{
    u8 ident[EI_NIDENT] = {0x7f, 'E', 'L', 'F', is64 ? ELFCLASS64 : ELFCLASS32, ELFDATA2LSB, EV_CURRENT};
    Elf32_Ehdr h32 = {.e_type = ET_EXEC,
                      .e_machine = EM_386,
                      .e_entry = (u32)entry,
                      .e_phoff = sizeof(h32),
                      .e_ehsize = sizeof(h32),
                      .e_phentsize = sizeof(Elf32_Phdr),
                      .e_phnum = (u16)phnum};
    Elf64_Ehdr h64 = {.e_type = ET_EXEC,
                      .e_machine = EM_X86_64,
                      .e_entry = entry,
                      .e_phoff = sizeof(h64),
                      .e_ehsize = sizeof(h64),
                      .e_phentsize = sizeof(Elf64_Phdr),
                      .e_phnum = (u16)phnum};

    memcpy(i->data, is64 ? (void *)&h64 : (void *)&h32, is64 ? sizeof(h64) : sizeof(h32));
    memcpy(i->data, ident, sizeof(ident));
}

void image_elf_segment(struct image_bytes *i, bool is64, int n, u32 type, u64 offset, u64 vaddr, u64 paddr, u64 filesz,
                       u64 memsz)
{
    Elf32_Phdr p32 = {.p_type = type,
                      .p_offset = (u32)offset,
                      .p_vaddr = (u32)vaddr,
                      .p_paddr = (u32)paddr,
                      .p_filesz = (u32)filesz,
                      .p_memsz = (u32)memsz,
                      .p_align = 4};
    Elf64_Phdr p64 = {.p_type = type,
                      .p_offset = offset,
                      .p_vaddr = vaddr,
                      .p_paddr = paddr,
                      .p_filesz = filesz,
                      .p_memsz = memsz,
                      .p_align = 4};

    if (is64)
        memcpy(i->data + sizeof(Elf64_Ehdr) + (size_t)n * sizeof(p64), &p64, sizeof(p64));
    else
        memcpy(i->data + sizeof(Elf32_Ehdr) + (size_t)n * sizeof(p32), &p32, sizeof(p32));
}

const char *file_open(const void *bytes, u64 size)
{
    int fd = memfd_create("boot-test", 0);
    char *path;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), size);
    assert_true(asprintf(&path, "/proc/self/fd/%d", fd) > 0);
    return path;
}

void file_close(const char *path)
{
    close(atoi(strrchr(path, '/') + 1));
    free((char *)path);
}

int boot(const void *bytes, u64 size, const char *initrd, const char *cmdline, struct boot_guest *g,
         struct boot_entry *entry, struct err *e)
{
    const char *path = file_open(bytes, size);
    struct boot_image *image;
    int r = boot_image_create(path, initrd, cmdline, &image, e);

    if (!r) {
        r = boot_image_load(image, g->mem, &g->info, entry, e);
        boot_image_free(image);
    }
    file_close(path);
    return r;
}

void boot_fails(const struct image_bytes *i, struct boot_guest *g, const char *cmdline, const char *word)
{
    struct boot_entry entry;
    struct err e = {0};

    assert_true(boot(i->data, i->size, NULL, cmdline, g, &entry, &e) < 0);
    if (!strstr(e.text, word))
        fail_msg("'%s' is not in: %s", word, e.text);
    assert_non_null(strstr(e.text, "kernel '/proc/"));
}

void boot_shortened(const struct image_bytes *i, struct boot_guest *g)
{
    for (u64 size = 0; size < i->size; size++) {
        struct boot_entry entry;
        struct err e = {0};

        if (!boot(i->data, size, NULL, NULL, g, &entry, &e))
            fail_msg("boots with %llu of %llu bytes", (unsigned long long)size, (unsigned long long)i->size);
        assert_true(e.text[0]);
    }
}

void boot_flipped(const struct image_bytes *i, u64 len, struct boot_guest *g)
{
    struct image_bytes *copy = malloc(sizeof(*copy));

    for (u64 bit = 0; bit < len * 8; bit++) {
        struct boot_entry entry;
        struct err e = {0};

        *copy = *i;
        copy->data[bit / 8] ^= (u8)(1 << bit % 8);
        if (boot(copy->data, copy->size, NULL, "flipped", g, &entry, &e))
            assert_true(e.text[0]);
    }
    free(copy);
}
