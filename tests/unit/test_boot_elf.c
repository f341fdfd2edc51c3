/* ELF kernels with a PVH entry: segments, the start info, and hostile headers. */
#include "boot_fixture.h"

#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define RAM MIB(16)
#define TEXT 0x1000 /* file offsets */
#define DATA 0x2000
#define NOTES 0x800
#define TEXT_AT 0x200000ull
#define DATA_AT 0x300000ull
#define BSS_SIZE 0x1800
#define ENTRY (TEXT_AT + 0x40)
#define UPPER_HALF 0xffffffff80000000ull

static struct image_bytes image;
static struct boot_guest guest;

static u64 note_put(u64 at, const char *name, u32 type, const void *desc, u32 desc_size)
{
    u32 name_size = (u32)strlen(name) + 1;

    image_put32(&image, at, name_size);
    image_put32(&image, at + 4, desc_size);
    image_put32(&image, at + 8, type);
    memcpy(image.data + at + 12, name, name_size);
    at += 12 + ALIGN_UP(name_size, 4);
    memcpy(image.data + at, desc, desc_size);
    return at + ALIGN_UP(desc_size, 4);
}

static void kernel_build(bool is64)
{
    u64 entry = ENTRY, notes_end;

    memset(&image, 0, sizeof(image));
    image_elf(&image, is64, is64 ? UPPER_HALF + 0x1000 : 0x1000, 3);
    image_elf_segment(&image, is64, 0, PT_LOAD, TEXT, TEXT_AT, TEXT_AT, 0x1000, 0x1000);
    image_elf_segment(&image, is64, 1, PT_LOAD, DATA, is64 ? UPPER_HALF : 0, DATA_AT, 0x800, 0x800 + BSS_SIZE);
    notes_end = note_put(NOTES, "GNU", 3, "build id", 8);
    notes_end = note_put(notes_end, "Xen", 6, "linux", 6);
    notes_end = note_put(notes_end, "Xen", 18, &entry, is64 ? 8 : 4);
    image_elf_segment(&image, is64, 2, PT_NOTE, NOTES, 0, 0, notes_end - NOTES, notes_end - NOTES);
    image_pattern(&image, TEXT, 0x1000);
    image_pattern(&image, DATA, 0x800);
    image.size = DATA + 0x800;
    boot_guest_create(&guest, RAM);
}

static int kernel_build64(void **unused)
{
    kernel_build(true);
    return 0;
}

static int kernel_build32(void **unused)
{
    kernel_build(false);
    return 0;
}

static int kernel_drop(void **unused)
{
    boot_guest_free(&guest);
    return 0;
}

static struct boot_entry must_boot(const char *initrd, const char *cmdline)
{
    struct boot_entry entry;
    struct err e = {0};

    if (boot(image.data, image.size, initrd, cmdline, &guest, &entry, &e))
        fail_msg("%s", e.text);
    return entry;
}

static void segments_are_loaded(void **unused)
{
    static const u8 zeros[BSS_SIZE];
    struct boot_entry entry;

    memset(guest_memory_ptr(guest.mem, DATA_AT, 0x4000, true), 0xee, 0x4000); /* as a guest left it before a reset */
    entry = must_boot(NULL, NULL);
    assert_int_equal(entry.mode, BOOT_PROT32);
    assert_int_equal(entry.rip, ENTRY);
    guest_pattern_check(&guest, TEXT_AT, image.data + TEXT, 0x1000);
    guest_pattern_check(&guest, DATA_AT, image.data + DATA, 0x800);
    guest_pattern_check(&guest, DATA_AT + 0x800, zeros, BSS_SIZE);
    assert_int_equal(guest_u8(&guest, DATA_AT + 0x800 + BSS_SIZE), 0xee);
    assert_int_equal(guest_u64(&guest, entry.gdt_base + entry.code_sel), 0x00cf9b000000ffff);
    assert_int_equal(guest_u64(&guest, entry.gdt_base + entry.data_sel), 0x00cf93000000ffff);
}

static void start_info_describes_the_machine(void **unused)
{
    const char *initrd = file_open("an initrd", 9);
    struct boot_entry entry = must_boot(initrd, "console=ttyS0");
    u64 info = entry.rbx, module = guest_u64(&guest, info + 16), map = guest_u64(&guest, info + 40);

    assert_int_equal(guest_u32(&guest, info), 0x336ec578);
    assert_int_equal(guest_u32(&guest, info + 4), 1);
    assert_int_equal(guest_u32(&guest, info + 8), 0);
    assert_int_equal(guest_u32(&guest, info + 12), 1);
    assert_string_equal(guest_string(&guest, guest_u64(&guest, info + 24)), "console=ttyS0");
    assert_int_equal(guest_u64(&guest, info + 32), BOOT_GUEST_RSDP);
    assert_int_equal(guest_u32(&guest, info + 48), guest.info.e820_count);
    for (int i = 0; i < guest.info.e820_count; i++) {
        assert_int_equal(guest_u64(&guest, map + 24 * (u64)i), guest.e820[i].addr);
        assert_int_equal(guest_u64(&guest, map + 24 * (u64)i + 8), guest.e820[i].size);
        assert_int_equal(guest_u64(&guest, map + 24 * (u64)i + 16), guest.e820[i].type);
    }
    assert_int_equal(guest_u64(&guest, module), RAM - KIB(64) - PAGE_SIZE);
    assert_int_equal(guest_u64(&guest, module + 8), 9);
    guest_pattern_check(&guest, guest_u64(&guest, module), (const u8 *)"an initrd", 9);
    file_close(initrd);
}

static void no_initrd_no_module(void **unused)
{
    struct boot_entry entry = must_boot(NULL, NULL);

    assert_int_equal(guest_u32(&guest, entry.rbx + 12), 0);
    assert_int_equal(guest_u64(&guest, entry.rbx + 16), 0);
    assert_string_equal(guest_string(&guest, guest_u64(&guest, entry.rbx + 24)), "");
}

/* A kernel may be linked into the place where structures usually go. */
static void structures_avoid_the_kernel(void **unused)
{
    struct boot_entry entry;

    image_elf_segment(&image, true, 1, PT_LOAD, DATA, 0, 0x10000, 0x800, 0x80000);
    entry = must_boot(NULL, "out of the way");
    assert_true(entry.rbx >= 0x90000);
    assert_true(entry.gdt_base >= 0x90000);
    assert_string_equal(guest_string(&guest, guest_u64(&guest, entry.rbx + 24)), "out of the way");
    guest_pattern_check(&guest, 0x10000, image.data + DATA, 0x800);
    assert_int_equal(guest_u64(&guest, 0x8fff8), 0);
}

static void segments_must_be_in_ram(void **unused)
{
    static const struct {
        u64 paddr, memsz;
    } bad[] = {
        {RAM - KIB(64) - 0x800, 0x801},
        {RAM, 0x1000},
        {0x9f000, 0x1000},
        {0xa0000, 0x1000},
        {0xe0000, 0x1000},
        {MIB(1), RAM},
        {MIB(1), UINT64_MAX},
        {UINT64_MAX - 0x7ff, 0x800},
        {UINT64_MAX, UINT64_MAX},
        {GIB(4), 0x1000},
        {DATA_AT, 0 - DATA_AT},
        {0, MIB(2)},
        {RAM - KIB(64), KIB(64)},
        {0xfee00000, PAGE_SIZE},
        {MIB(4), GIB(4) - MIB(4)},
        {DATA_AT, UINT64_MAX},
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        image_elf_segment(&image, true, 1, PT_LOAD, DATA, 0, bad[i].paddr, 0x800, bad[i].memsz);
        boot_fails(&image, &guest, NULL, "--memory");
    }
}

static void segments_must_not_overlap(void **unused)
{
    image_elf_segment(&image, true, 1, PT_LOAD, DATA, 0, TEXT_AT + 0xfff, 0x800, 0x800);
    boot_fails(&image, &guest, NULL, "overlaps a segment at 0x200000");
    image_elf_segment(&image, true, 1, PT_LOAD, DATA, 0, TEXT_AT - 0x800, 0x800, 0x801);
    boot_fails(&image, &guest, NULL, "overlaps a segment at 0x200000");
    image_elf_segment(&image, true, 1, PT_LOAD, DATA, 0, TEXT_AT - 0x800, 0x800, 0x800);
    must_boot(NULL, NULL);
}

static void segments_must_be_in_the_file(void **unused)
{
    static const struct {
        u64 offset, filesz, memsz;
    } bad[] = {
        {DATA, 0x801, 0x801}, {UINT64_MAX, 1, 1},          {UINT64_MAX - 0x7ff, 0x800, 0x800},
        {DATA + 0x801, 0, 1}, {0, UINT64_MAX, UINT64_MAX},
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        image_elf_segment(&image, true, 1, PT_LOAD, bad[i].offset, 0, DATA_AT, bad[i].filesz, bad[i].memsz);
        boot_fails(&image, &guest, NULL, "truncated: its header promises");
    }
    image_elf_segment(&image, true, 1, PT_LOAD, DATA, 0, DATA_AT, 0x800, 0x7ff);
    boot_fails(&image, &guest, NULL, "larger in the file than in memory");
}

static void entry_must_be_in_a_segment(void **unused)
{
    u64 bad[] = {0, TEXT_AT - 1, TEXT_AT + 0x1000, GIB(4) + TEXT_AT, UINT64_MAX};

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        u64 end = note_put(NOTES, "Xen", 18, &bad[i], 8);

        image_elf_segment(&image, true, 2, PT_NOTE, NOTES, 0, 0, end - NOTES, end - NOTES);
        boot_fails(&image, &guest, NULL, "is in no segment");
    }
}

static void notes_that_are_not_pvh(void **unused)
{
    u64 entry = ENTRY, end = note_put(NOTES, "Xem", 18, &entry, 8);

    image_elf_segment(&image, true, 2, PT_NOTE, NOTES, 0, 0, end - NOTES, end - NOTES);
    boot_fails(&image, &guest, NULL, "without PVH entry note or multiboot header");
    end = note_put(NOTES, "Xen", 18, "abc", 3);
    image_elf_segment(&image, true, 2, PT_NOTE, NOTES, 0, 0, end - NOTES, end - NOTES);
    boot_fails(&image, &guest, NULL, "without PVH entry note");
    end = note_put(NOTES, "Xen", 18, &entry, 8);
    image_elf_segment(&image, true, 2, PT_NOTE, NOTES, 0, 0, end - NOTES - 1, end - NOTES - 1);
    boot_fails(&image, &guest, NULL, "without PVH entry note");
    image_put32(&image, NOTES, UINT32_MAX); /* a name that is longer than the segment */
    image_elf_segment(&image, true, 2, PT_NOTE, NOTES, 0, 0, end - NOTES, end - NOTES);
    boot_fails(&image, &guest, NULL, "without PVH entry note");
    image_put32(&image, NOTES, 4);
    image_put32(&image, NOTES + 4, UINT32_MAX - 3);
    boot_fails(&image, &guest, NULL, "without PVH entry note");
}

static void other_elf_files_are_refused(void **unused)
{
    struct image_bytes good = image;

    image.data[EI_DATA] = ELFDATA2MSB;
    boot_fails(&image, &guest, NULL, "another processor");
    image = good;
    image_put16(&image, offsetof(Elf64_Ehdr, e_machine), EM_AARCH64);
    boot_fails(&image, &guest, NULL, "another processor");
    image = good;
    image_put16(&image, offsetof(Elf64_Ehdr, e_phnum), 0);
    boot_fails(&image, &guest, NULL, "nothing to load");
    image_put16(&image, offsetof(Elf64_Ehdr, e_phnum), PN_XNUM);
    boot_fails(&image, &guest, NULL, "65535 program headers");
    image_put16(&image, offsetof(Elf64_Ehdr, e_phnum), 256);
    boot_fails(&image, &guest, NULL, "truncated");
    image = good;
    image_put16(&image, offsetof(Elf64_Ehdr, e_phentsize), 8);
    boot_fails(&image, &guest, NULL, "corrupt ELF header");
    image = good;
    image_put64(&image, offsetof(Elf64_Ehdr, e_phoff), UINT64_MAX);
    boot_fails(&image, &guest, NULL, "truncated");
}

static void too_many_segments(void **unused)
{
    image_put16(&image, offsetof(Elf64_Ehdr, e_phnum), 200);
    image.size = 65536;
    memcpy(image.data + 0xf000, image.data + NOTES, 0x100);
    for (int i = 0; i < 199; i++)
        image_elf_segment(&image, true, i, PT_LOAD, 0, 0, TEXT_AT + 0x10000ull * (u64)i % (RAM / 2), 0x100, 0x100);
    image_elf_segment(&image, true, 199, PT_NOTE, 0xf000, 0, 0, 0x100, 0x100);
    boot_fails(&image, &guest, NULL, "pieces to load");
}

static void every_shorter_file_is_refused(void **unused)
{
    boot_shortened(&image, &guest);
}

static void flipped_bits_do_no_harm(void **unused)
{
    boot_flipped(&image, sizeof(Elf64_Ehdr) + 3 * sizeof(Elf64_Phdr), &guest);
}

static void flipped_notes_do_no_harm(void **unused)
{
    for (u64 bit = NOTES * 8; bit < (NOTES + 0x60) * 8; bit++) {
        struct boot_entry entry;
        struct err e;

        image.data[bit / 8] ^= (u8)(1 << bit % 8);
        boot(image.data, image.size, NULL, NULL, &guest, &entry, &e);
        image.data[bit / 8] ^= (u8)(1 << bit % 8);
    }
}

/* A vmlinux that somebody uses: SKERRY_VMLINUX names it. */
static void real_kernel(void **unused)
{
    const char *path = getenv("SKERRY_VMLINUX");
    struct boot_guest big;
    struct boot_image *b;
    struct boot_entry entry;
    struct err e;

    if (!path)
        skip();
    boot_guest_create(&big, MIB(256));
    if (boot_image_create(path, NULL, "console=ttyS0", &b, &e) || boot_image_load(b, big.mem, &big.info, &entry, &e))
        fail_msg("%s", e.text);
    assert_int_equal(entry.mode, BOOT_PROT32);
    assert_true(entry.rip >= MIB(1) && guest_u64(&big, entry.rip) != 0);
    boot_image_free(b);
    boot_guest_free(&big);
}

#define TEST64(f) cmocka_unit_test_setup_teardown(f, kernel_build64, kernel_drop)
#define TEST32(f)                                            \
    {                                                        \
#f " (32-bit)", f, kernel_build32, kernel_drop, NULL \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {TEST64(segments_are_loaded),
                                       TEST32(segments_are_loaded),
                                       TEST64(start_info_describes_the_machine),
                                       TEST32(start_info_describes_the_machine),
                                       TEST64(no_initrd_no_module),
                                       TEST64(structures_avoid_the_kernel),
                                       TEST64(segments_must_be_in_ram),
                                       TEST64(segments_must_not_overlap),
                                       TEST64(segments_must_be_in_the_file),
                                       TEST64(entry_must_be_in_a_segment),
                                       TEST64(notes_that_are_not_pvh),
                                       TEST64(other_elf_files_are_refused),
                                       TEST64(too_many_segments),
                                       TEST64(every_shorter_file_is_refused),
                                       TEST32(every_shorter_file_is_refused),
                                       TEST64(flipped_bits_do_no_harm),
                                       TEST32(flipped_bits_do_no_harm),
                                       TEST64(flipped_notes_do_no_harm),
                                       cmocka_unit_test(real_kernel)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
