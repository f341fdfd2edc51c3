/* Multiboot 1 and 2: images as ELF and by the header's addresses, the boot information, modules, hostile headers. */
#include "boot_fixture.h"

#include <elf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define RAM MIB(16)
#define LOAD_AT 0x100000ull
#define FILE_SIZE 0x1800
#define HEADER 0x200 /* file offset */
#define TEXT 0x1000

enum { MB1_ADDRESSES = 1 << 16 };
enum { TAG_END, TAG_REQUEST, TAG_ADDRESS, TAG_ENTRY, TAG_FRAMEBUFFER = 5, TAG_RELOCATABLE = 10 };

static struct image_bytes image;
static struct boot_guest guest;

static int guest_setup(void **unused)
{
    memset(&image, 0, sizeof(image));
    image_pattern(&image, 0, FILE_SIZE);
    image.size = FILE_SIZE;
    boot_guest_create(&guest, RAM);
    return 0;
}

static int guest_teardown(void **unused)
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

static void header1(u32 flags)
{
    image_put32(&image, HEADER, 0x1badb002);
    image_put32(&image, HEADER + 4, flags);
    image_put32(&image, HEADER + 8, 0 - 0x1badb002 - flags);
}

static void header1_addresses(u32 header_addr, u32 load_addr, u32 load_end, u32 bss_end, u32 entry)
{
    header1(3 | MB1_ADDRESSES);
    image_put32(&image, HEADER + 12, header_addr);
    image_put32(&image, HEADER + 16, load_addr);
    image_put32(&image, HEADER + 20, load_end);
    image_put32(&image, HEADER + 24, bss_end);
    image_put32(&image, HEADER + 28, entry);
}

/* One segment; the entry point as ELF files of upper-half kernels have it. */
static void elf(bool is64)
{
    u64 virtual = is64 ? 0xffffffff80100000 : 0xc0100000;

    memset(image.data, 0, HEADER);
    image_elf(&image, is64, virtual + 0x10, 1);
    image_elf_segment(&image, is64, 0, PT_LOAD, TEXT, virtual, LOAD_AT, FILE_SIZE - TEXT, 0x3000);
}

static void image_check(const struct boot_entry *entry, u64 offset, u64 len, u64 bss_end)
{
    guest_pattern_check(&guest, LOAD_AT, image.data + offset, len);
    for (u64 gpa = LOAD_AT + len; gpa < bss_end; gpa++)
        assert_int_equal(guest_u8(&guest, gpa), 0);
    assert_int_equal(entry->mode, BOOT_PROT32);
    assert_int_equal(entry->rip, LOAD_AT + 0x10);
    assert_int_equal(guest_u64(&guest, entry->gdt_base + entry->code_sel), 0x00cf9b000000ffff);
    assert_int_equal(guest_u64(&guest, entry->gdt_base + entry->data_sel), 0x00cf93000000ffff);
}

static void by_addresses(void **unused)
{
    struct boot_entry entry;

    memset(guest_memory_ptr(guest.mem, LOAD_AT, 0x4000, true), 0xee, 0x4000);
    header1_addresses(LOAD_AT + 0x100, LOAD_AT, LOAD_AT + 0x1200, LOAD_AT + 0x2000, LOAD_AT + 0x10);
    entry = must_boot(NULL, NULL);
    image_check(&entry, HEADER - 0x100, 0x1200, LOAD_AT + 0x2000);
    assert_int_equal(guest_u8(&guest, LOAD_AT + 0x2000), 0xee);
    assert_int_equal(entry.rax, 0x2badb002);

    header1_addresses(LOAD_AT, LOAD_AT, 0, 0, LOAD_AT + 0x10); /* the rest of the file, no bss */
    entry = must_boot(NULL, NULL);
    image_check(&entry, HEADER, FILE_SIZE - HEADER, 0);
}

static void as_elf(void **unused)
{
    for (int is64 = 0; is64 < 2; is64++) {
        struct boot_entry entry;

        elf(is64);
        header1(3);
        entry = must_boot(NULL, NULL);
        image_check(&entry, TEXT, FILE_SIZE - TEXT, LOAD_AT + 0x3000);
        assert_int_equal(entry.rax, 0x2badb002);
    }
}

static void information1(void **unused)
{
    struct boot_entry entry;
    u64 info, map;

    elf(false);
    header1(3);
    entry = must_boot(NULL, "one two");
    info = entry.rbx;
    assert_int_equal(guest_u32(&guest, info), 1 | 1 << 2 | 1 << 6 | 1 << 9);
    assert_int_equal(guest_u32(&guest, info + 4), 639);
    assert_int_equal(guest_u32(&guest, info + 8), (RAM - MIB(1) - KIB(64)) / 1024);
    assert_string_equal(guest_string(&guest, guest_u32(&guest, info + 16)), "one two");
    assert_string_equal(guest_string(&guest, guest_u32(&guest, info + 64)), "skerry");
    assert_int_equal(guest_u32(&guest, info + 44), 24 * guest.info.e820_count);
    map = guest_u32(&guest, info + 48);
    for (int i = 0; i < guest.info.e820_count; i++, map += 24) {
        assert_int_equal(guest_u32(&guest, map), 20);
        assert_int_equal(guest_u64(&guest, map + 4), guest.e820[i].addr);
        assert_int_equal(guest_u64(&guest, map + 12), guest.e820[i].size);
        assert_int_equal(guest_u32(&guest, map + 20), guest.e820[i].type);
    }
}

/* Two modules, the second with arguments. */
static char *module_list(const char **ret_a, const char **ret_b)
{
    char *list;

    *ret_a = file_open("first module", 12);
    *ret_b = file_open("second", 6);
    assert_true(asprintf(&list, "%s,%s a=1 b", *ret_a, *ret_b) > 0);
    return list;
}

static void modules1(void **unused)
{
    const char *a, *b;
    char *list = module_list(&a, &b);
    struct boot_entry entry;
    u64 mods;

    elf(false);
    header1(3);
    entry = must_boot(list, NULL);
    assert_true(guest_u32(&guest, entry.rbx) & 1 << 3);
    assert_int_equal(guest_u32(&guest, entry.rbx + 20), 2);
    mods = guest_u32(&guest, entry.rbx + 24);
    assert_int_equal(guest_u32(&guest, mods), LOAD_AT + 0x3000);
    assert_int_equal(guest_u32(&guest, mods + 4), LOAD_AT + 0x3000 + 12);
    guest_pattern_check(&guest, guest_u32(&guest, mods), (const u8 *)"first module", 12);
    assert_string_equal(guest_string(&guest, guest_u32(&guest, mods + 8)), a);
    assert_int_equal(guest_u32(&guest, mods + 16), LOAD_AT + 0x4000);
    guest_pattern_check(&guest, guest_u32(&guest, mods + 16), (const u8 *)"second", 6);
    assert_string_equal(guest_string(&guest, guest_u32(&guest, mods + 24)), strchr(list, ',') + 1);
    file_close(a);
    file_close(b);
    free(list);
}

static void module_errors(void **unused)
{
    const char *kernel, *module = file_open("m", 1);
    struct boot_image *b;
    struct err e;
    char list[34 * 64] = "";

    elf(false);
    header1(3);
    kernel = file_open(image.data, image.size);
    assert_true(boot_image_create(kernel, "/no/such/module x=1", NULL, &b, &e) < 0);
    assert_non_null(strstr(e.text, "module '/no/such/module': No such file"));
    assert_true(boot_image_create(kernel, "", NULL, &b, &e) < 0);
    for (int i = 0; i < 33; i++)
        sprintf(list + strlen(list), "%s%s", i ? "," : "", module);
    assert_true(boot_image_create(kernel, list, NULL, &b, &e) < 0);
    assert_non_null(strstr(e.text, "more than 32 modules"));
    file_close(kernel);
    file_close(module);
}

static void hostile_addresses(void **unused)
{
    header1_addresses(LOAD_AT - 1, LOAD_AT, 0, 0, LOAD_AT);
    boot_fails(&image, &guest, NULL, "before the load address");
    header1_addresses(LOAD_AT + HEADER + 1, LOAD_AT, 0, 0, LOAD_AT);
    boot_fails(&image, &guest, NULL, "before the load address");
    header1_addresses(UINT32_MAX, 0, 0, 0, 0);
    boot_fails(&image, &guest, NULL, "before the load address");
    header1_addresses(LOAD_AT, LOAD_AT, LOAD_AT, 0, LOAD_AT);
    boot_fails(&image, &guest, NULL, "not above its load address");
    header1_addresses(LOAD_AT, LOAD_AT, LOAD_AT + FILE_SIZE - HEADER + 1, 0, LOAD_AT);
    boot_fails(&image, &guest, NULL, "truncated");
    header1_addresses(LOAD_AT, LOAD_AT, UINT32_MAX, 0, LOAD_AT);
    boot_fails(&image, &guest, NULL, "truncated");
    header1_addresses(LOAD_AT, LOAD_AT, LOAD_AT + 0x100, LOAD_AT + 0xff, LOAD_AT);
    boot_fails(&image, &guest, NULL, "bss");
    header1_addresses(LOAD_AT, LOAD_AT, LOAD_AT + 0x100, UINT32_MAX, LOAD_AT);
    boot_fails(&image, &guest, NULL, "--memory");
    header1_addresses(UINT32_MAX - 0xff, UINT32_MAX - 0xff, 0, 0, LOAD_AT);
    boot_fails(&image, &guest, NULL, "--memory");
    header1_addresses(0x9f000, 0x9f000, 0, 0, LOAD_AT);
    boot_fails(&image, &guest, NULL, "--memory");
}

static void demands1(void **unused)
{
    header1(1 << 5);
    boot_fails(&image, &guest, NULL, "unknown multiboot features (header flags 0x20)");
    header1(3);
    boot_fails(&image, &guest, NULL, "no ELF file");
    header1(1 << 2);
    image_put32(&image, HEADER + 32, 0);
    boot_fails(&image, &guest, NULL, "graphics mode");
    elf(false);
    image_put32(&image, HEADER + 32, 1); /* text is what there is */
    must_boot(NULL, NULL);
    image_put32(&image, HEADER + 8, 1);
    boot_fails(&image, &guest, NULL, "without PVH entry note or multiboot header");
}

static void header_must_be_early(void **unused)
{
    header1_addresses(LOAD_AT, LOAD_AT, 0, 0, LOAD_AT);
    memmove(image.data + 8192 - 12, image.data + HEADER, 32);
    memset(image.data + HEADER, 0, 32);
    image.size = 8192 + 64;
    must_boot(NULL, NULL);
    memmove(image.data + 8192 - 8, image.data + 8192 - 12, 32);
    boot_fails(&image, &guest, NULL, "not a bzImage");
}

/* Tags of a multiboot 2 header; each put returns where the next one goes. */
static u64 tag2(u64 at, u16 type, u16 flags, const u32 *words, u32 count)
{
    image_put16(&image, at, type);
    image_put16(&image, at + 2, flags);
    image_put32(&image, at + 4, 8 + 4 * count);
    for (u32 i = 0; i < count; i++)
        image_put32(&image, at + 8 + 4 * i, words[i]);
    return ALIGN_UP(at + 8 + 4 * count, 8);
}

static void header2(u64 end)
{
    u32 length = (u32)(end - HEADER);

    image_put32(&image, HEADER, 0xe85250d6);
    image_put32(&image, HEADER + 4, 0);
    image_put32(&image, HEADER + 8, length);
    image_put32(&image, HEADER + 12, 0 - 0xe85250d6 - length);
}

static void header2_addresses(u32 header_addr, u32 load_addr, u32 load_end, u32 bss_end)
{
    u64 at = tag2(HEADER + 16, TAG_ADDRESS, 0, (u32[]){header_addr, load_addr, load_end, bss_end}, 4);

    at = tag2(at, TAG_ENTRY, 0, (u32[]){LOAD_AT + 0x10}, 1);
    header2(tag2(at, TAG_END, 0, NULL, 0));
}

static void header2_empty(void)
{
    header2(tag2(HEADER + 16, TAG_END, 0, NULL, 0));
}

static void by_addresses2(void **unused)
{
    struct boot_entry entry;

    header2_addresses(LOAD_AT + 0x100, LOAD_AT, LOAD_AT + 0x1200, LOAD_AT + 0x2000);
    entry = must_boot(NULL, NULL);
    image_check(&entry, HEADER - 0x100, 0x1200, LOAD_AT + 0x2000);
    assert_int_equal(entry.rax, 0x36d76289);
    assert_int_equal(entry.rbx & 7, 0);

    header2_addresses(LOAD_AT + HEADER, UINT32_MAX, 0, 0); /* from the file's start */
    entry = must_boot(NULL, NULL);
    image_check(&entry, 0, FILE_SIZE, 0);
    header2_addresses(HEADER - 1, UINT32_MAX, 0, 0);
    boot_fails(&image, &guest, NULL, "before the load address");
}

static void as_elf2(void **unused)
{
    for (int is64 = 0; is64 < 2; is64++) {
        struct boot_entry entry;

        elf(is64);
        header2_empty();
        entry = must_boot(NULL, NULL);
        image_check(&entry, TEXT, FILE_SIZE - TEXT, LOAD_AT + 0x3000);
        assert_int_equal(entry.rax, 0x36d76289);
    }
}

static void entry_tag_outranks_elf(void **unused)
{
    u64 at = tag2(HEADER + 16, TAG_ENTRY, 0, (u32[]){LOAD_AT + 0x44}, 1);

    elf(true);
    header2(tag2(at, TAG_END, 0, NULL, 0));
    assert_int_equal(must_boot(NULL, NULL).rip, LOAD_AT + 0x44);
}

/* The n-th tag of a type in the boot information, or 0. */
static u64 info_tag(u64 info, u32 type, int n)
{
    u64 end = info + guest_u32(&guest, info);

    for (u64 at = info + 8; at < end; at += ALIGN_UP(guest_u32(&guest, at + 4), 8)) {
        if (guest_u32(&guest, at) == type && !n--)
            return at;
        assert_true(guest_u32(&guest, at + 4) >= 8);
        if (!guest_u32(&guest, at))
            assert_int_equal(at + 8, end);
    }
    return 0;
}

static void information2(void **unused)
{
    const char *a, *b;
    char *list = module_list(&a, &b);
    u8 rsdp[36];
    u64 info, tag;

    for (u8 i = 0; i < sizeof(rsdp); i++)
        rsdp[i] = i;
    assert_int_equal(guest_memory_write(guest.mem, BOOT_GUEST_RSDP, rsdp, sizeof(rsdp)), 0);
    elf(true);
    header2(tag2(tag2(HEADER + 16, TAG_RELOCATABLE, 0, (u32[4]){0}, 4), TAG_END, 0, NULL, 0));
    info = must_boot(list, "one two").rbx;

    assert_string_equal(guest_string(&guest, info_tag(info, 1, 0) + 8), "one two");
    assert_string_equal(guest_string(&guest, info_tag(info, 2, 0) + 8), "skerry");
    tag = info_tag(info, 3, 1);
    assert_int_equal(guest_u32(&guest, tag + 12) - guest_u32(&guest, tag + 8), 6);
    guest_pattern_check(&guest, guest_u32(&guest, tag + 8), (const u8 *)"second", 6);
    assert_string_equal(guest_string(&guest, tag + 16), strchr(list, ',') + 1);
    assert_int_equal(info_tag(info, 3, 2), 0);
    tag = info_tag(info, 4, 0);
    assert_int_equal(guest_u32(&guest, tag + 8), 639);
    assert_int_equal(guest_u32(&guest, tag + 12), (RAM - MIB(1) - KIB(64)) / 1024);
    tag = info_tag(info, 6, 0);
    assert_int_equal(guest_u32(&guest, tag + 4), 16 + 24 * guest.info.e820_count);
    assert_int_equal(guest_u32(&guest, tag + 8), 24);
    for (int i = 0; i < guest.info.e820_count; i++) {
        assert_int_equal(guest_u64(&guest, tag + 16 + 24 * (u64)i), guest.e820[i].addr);
        assert_int_equal(guest_u64(&guest, tag + 24 + 24 * (u64)i), guest.e820[i].size);
        assert_int_equal(guest_u64(&guest, tag + 32 + 24 * (u64)i), guest.e820[i].type);
    }
    guest_pattern_check(&guest, info_tag(info, 14, 0) + 8, rsdp, 20);
    guest_pattern_check(&guest, info_tag(info, 15, 0) + 8, rsdp, 36);
    assert_int_equal(guest_u32(&guest, info_tag(info, 21, 0) + 8), LOAD_AT);
    assert_int_not_equal(info_tag(info, 0, 0), 0);
    file_close(a);
    file_close(b);
    free(list);
}

static void demands2(void **unused)
{
    u64 at = HEADER + 16;

    elf(true);
    header2(tag2(tag2(at, TAG_REQUEST, 0, (u32[]){1, 6, 8}, 3), TAG_END, 0, NULL, 0));
    must_boot(NULL, NULL);
    header2(tag2(tag2(at, TAG_REQUEST, 0, (u32[]){1, 99}, 2), TAG_END, 0, NULL, 0));
    boot_fails(&image, &guest, NULL, "information of type 99");
    header2(tag2(tag2(at, TAG_REQUEST, 1, (u32[]){1, 99}, 2), TAG_END, 0, NULL, 0));
    must_boot(NULL, NULL);
    header2(tag2(tag2(at, TAG_FRAMEBUFFER, 0, (u32[]){0, 0, 0}, 3), TAG_END, 0, NULL, 0));
    boot_fails(&image, &guest, NULL, "framebuffer");
    header2(tag2(tag2(at, TAG_FRAMEBUFFER, 1, (u32[]){0, 0, 0}, 3), TAG_END, 0, NULL, 0));
    must_boot(NULL, NULL);
    header2(tag2(tag2(at, 77, 0, NULL, 0), TAG_END, 0, NULL, 0));
    boot_fails(&image, &guest, NULL, "feature 77");
    header2(tag2(tag2(at, TAG_ADDRESS, 0, (u32[]){1, 2}, 2), TAG_END, 0, NULL, 0));
    boot_fails(&image, &guest, NULL, "too short");
    header2(tag2(tag2(at, TAG_ADDRESS, 0, (u32[]){LOAD_AT, LOAD_AT, 0, 0}, 4), TAG_END, 0, NULL, 0));
    boot_fails(&image, &guest, NULL, "no entry address tag");
}

static void hostile_tags(void **unused)
{
    static const u32 sizes[] = {0, 7, 0x11, 0x1000, UINT32_MAX, UINT32_MAX - 7, 0x80000000};
    u64 end = tag2(tag2(HEADER + 16, 77, 1, NULL, 0), TAG_END, 0, NULL, 0);

    elf(true);
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        header2(end);
        image_put32(&image, HEADER + 20, sizes[i]);
        boot_fails(&image, &guest, NULL, "a multiboot 2 header tag has");
    }
    header2(HEADER + 16);
    boot_fails(&image, &guest, NULL, "no end tag");
    header2(HEADER + 8);
    boot_fails(&image, &guest, NULL, "header has 0x8 bytes");
    header2(HEADER + FILE_SIZE);
    boot_fails(&image, &guest, NULL, "truncated");
    header2_empty();
    image_put32(&image, HEADER + 4, 4); /* MIPS */
    image_put32(&image, HEADER + 12, 0 - 0xe85250d6 - 4 - 24);
    boot_fails(&image, &guest, NULL, "another architecture");
}

static void shorter_files_are_refused(void **unused)
{
    elf(false);
    header1(3);
    boot_shortened(&image, &guest);
    header1_addresses(LOAD_AT + 0x100, LOAD_AT, LOAD_AT + FILE_SIZE - HEADER + 0x100, 0, LOAD_AT);
    boot_shortened(&image, &guest);
    header1(0);
    image_put32(&image, HEADER, 0);
    header2_addresses(LOAD_AT + 0x100, LOAD_AT, LOAD_AT + FILE_SIZE - HEADER + 0x100, 0);
    boot_shortened(&image, &guest);
}

static void flipped_bits_do_no_harm(void **unused)
{
    elf(true);
    header1(3);
    boot_flipped(&image, sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr), &guest);
}

static void flipped_addresses_do_no_harm(void **unused)
{
    memset(image.data, 0, HEADER);
    memmove(image.data, image.data + HEADER, FILE_SIZE - HEADER); /* the header comes first */
    header1_addresses(LOAD_AT, LOAD_AT, LOAD_AT + 0x800, LOAD_AT + 0x2000, LOAD_AT);
    memmove(image.data, image.data + HEADER, 32);
    boot_flipped(&image, 32, &guest);
    header2_addresses(LOAD_AT, LOAD_AT, LOAD_AT + 0x800, LOAD_AT + 0x2000);
    memmove(image.data, image.data + HEADER, 64);
    boot_flipped(&image, 64, &guest);
}

#define GUEST_TEST(f) cmocka_unit_test_setup_teardown(f, guest_setup, guest_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {GUEST_TEST(by_addresses),
                                       GUEST_TEST(as_elf),
                                       GUEST_TEST(information1),
                                       GUEST_TEST(modules1),
                                       GUEST_TEST(module_errors),
                                       GUEST_TEST(hostile_addresses),
                                       GUEST_TEST(demands1),
                                       GUEST_TEST(header_must_be_early),
                                       GUEST_TEST(by_addresses2),
                                       GUEST_TEST(as_elf2),
                                       GUEST_TEST(entry_tag_outranks_elf),
                                       GUEST_TEST(information2),
                                       GUEST_TEST(demands2),
                                       GUEST_TEST(hostile_tags),
                                       GUEST_TEST(shorter_files_are_refused),
                                       GUEST_TEST(flipped_bits_do_no_harm),
                                       GUEST_TEST(flipped_addresses_do_no_harm)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
