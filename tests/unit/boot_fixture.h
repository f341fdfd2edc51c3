/* What the loader tests share: a small guest with the PC's memory map, files that exist only in memory, and kernels
 * put together byte by byte. */
#ifndef TESTS_BOOT_FIXTURE_H
#define TESTS_BOOT_FIXTURE_H
#include "firmware/linux_boot.h"

#define BOOT_GUEST_RSDP 0xe0000ull

struct boot_guest {
    struct guest_memory *mem;
    struct e820_entry e820[8];
    struct boot_info info;
};

/* RAM from 0 to `ram_size`, the last 64 KiB for ACPI. */
void boot_guest_create(struct boot_guest *g, u64 ram_size);
void boot_guest_free(struct boot_guest *g);

u8 guest_u8(const struct boot_guest *g, u64 gpa);
u16 guest_u16(const struct boot_guest *g, u64 gpa);
u32 guest_u32(const struct boot_guest *g, u64 gpa);
u64 guest_u64(const struct boot_guest *g, u64 gpa);
const char *guest_string(const struct boot_guest *g, u64 gpa); /* NUL-terminated, else the test fails */
void guest_pattern_check(const struct boot_guest *g, u64 gpa, const u8 *bytes, u64 len);

/* A file kernel under construction: zeros, until told otherwise. */
struct image_bytes {
    u8 data[65536];
    u64 size;
};
void image_put16(struct image_bytes *i, u64 at, u16 v);
void image_put32(struct image_bytes *i, u64 at, u32 v);
void image_put64(struct image_bytes *i, u64 at, u64 v);
void image_pattern(struct image_bytes *i, u64 at, u64 len); /* recognisable, no zeros */

/* An ELF file header with `phnum` program headers right behind it, then the headers themselves. */
void image_elf(struct image_bytes *i, bool is64, u64 entry, int phnum);
void image_elf_segment(struct image_bytes *i, bool is64, int n, u32 type, u64 offset, u64 vaddr, u64 paddr, u64 filesz,
                       u64 memsz);

/* A path that leads to a file of these bytes until file_close(). */
const char *file_open(const void *bytes, u64 size);
void file_close(const char *path);

/* Creates and loads; 0 or the error of whichever failed. */
int boot(const void *bytes, u64 size, const char *initrd, const char *cmdline, struct boot_guest *g,
         struct boot_entry *entry, struct err *e);

/* Must fail, with a sentence that has `word` in it. */
void boot_fails(const struct image_bytes *i, struct boot_guest *g, const char *cmdline, const char *word);

/* Boots every shortening of the file (which must fail, all of them) and every single-bit change of its first `len`
 * bytes (of which nothing is demanded but that they end). */
void boot_shortened(const struct image_bytes *i, struct boot_guest *g);
void boot_flipped(const struct image_bytes *i, u64 len, struct boot_guest *g);

#endif
