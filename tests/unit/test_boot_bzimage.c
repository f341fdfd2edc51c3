/* Linux bzImages: what the boot protocol promises to the kernel, and what becomes of files that break it. */
#include "boot_fixture.h"

#include <asm/bootparam.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define RAM MIB(16)
#define PREF MIB(2)
#define ROOM MIB(4)
#define SETUP_SECTS 2
#define PAYLOAD ((SETUP_SECTS + 1) * 512)
#define PAYLOAD_SIZE 4096
#define HDR 0x1f1
#define FIELD(name) (HDR + offsetof(struct setup_header, name))

static struct image_bytes image;
static struct boot_guest guest;

/* A relocatable 64-bit kernel of protocol 2.15. */
static int kernel_build(void **unused)
{
    memset(&image, 0, sizeof(image));
    image.data[HDR] = SETUP_SECTS;
    image_put32(&image, FIELD(syssize), PAYLOAD_SIZE / 16);
    image_put16(&image, FIELD(boot_flag), 0xaa55);
    image_put16(&image, FIELD(jump), 0x6aeb);
    memcpy(image.data + FIELD(header), "HdrS", 4);
    image_put16(&image, FIELD(version), 0x20f);
    image.data[FIELD(loadflags)] = LOADED_HIGH;
    image_put32(&image, FIELD(code32_start), 0x100000);
    image_put32(&image, FIELD(ramdisk_image), 0xdead);
    image_put32(&image, FIELD(initrd_addr_max), 0x7fffffff);
    image_put32(&image, FIELD(kernel_alignment), MIB(1));
    image.data[FIELD(relocatable_kernel)] = 1;
    image_put16(&image, FIELD(xloadflags), XLF_KERNEL_64);
    image_put32(&image, FIELD(cmdline_size), 100);
    image_put64(&image, FIELD(setup_data), 0xdead);
    image_put64(&image, FIELD(pref_address), PREF);
    image_put32(&image, FIELD(init_size), ROOM);
    image_pattern(&image, PAYLOAD, PAYLOAD_SIZE);
    image.size = PAYLOAD + PAYLOAD_SIZE;
    boot_guest_create(&guest, RAM);
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

static void enters_in_long_mode(void **unused)
{
    struct boot_entry entry = must_boot(NULL, "quiet");

    assert_int_equal(entry.mode, BOOT_LONG64);
    assert_int_equal(entry.rip, PREF + 0x200);
    guest_pattern_check(&guest, PREF, image.data + PAYLOAD, PAYLOAD_SIZE);
    assert_int_equal(entry.code_sel, 0x10);
    assert_int_equal(entry.data_sel, 0x18);
    assert_int_equal(entry.gdt_limit, 4 * 8 - 1);
    assert_int_equal(guest_u64(&guest, entry.gdt_base + 0x10), 0x00af9b000000ffff);
    assert_int_equal(guest_u64(&guest, entry.gdt_base + 0x18), 0x00cf93000000ffff);
}

static u64 translate(u64 cr3, u64 gva)
{
    u64 pml4e = guest_u64(&guest, cr3 + 8 * (gva >> 39 & 511)), pdpte, pde;

    assert_int_equal(pml4e & 3, 3);
    pdpte = guest_u64(&guest, (pml4e & PAGE_MASK) + 8 * (gva >> 30 & 511));
    assert_int_equal(pdpte & 0x83, 3);
    pde = guest_u64(&guest, (pdpte & PAGE_MASK) + 8 * (gva >> 21 & 511));
    assert_int_equal(pde & 0x83, 0x83);
    return (pde & ~0x1fffffull) | (gva & 0x1fffff);
}

static void low_4_gib_are_mapped(void **unused)
{
    static const u64 addresses[] = {0, 0xfff, PREF, MIB(2) - 1, GIB(1), GIB(3) + MIB(7), GIB(4) - 1};
    struct boot_entry entry = must_boot(NULL, NULL);

    for (size_t i = 0; i < ARRAY_SIZE(addresses); i++)
        assert_int_equal(translate(entry.cr3, addresses[i]), addresses[i]);
}

static void zero_page_describes_the_machine(void **unused)
{
    struct boot_entry entry = must_boot(NULL, "console=ttyS0 root=/dev/vda");
    struct boot_params bp;

    assert_int_equal(guest_memory_read(guest.mem, entry.rsi, &bp, sizeof(bp)), 0);
    assert_int_equal(bp.hdr.header, 0x53726448);
    assert_int_equal(bp.hdr.type_of_loader, 0xff);
    assert_int_equal(bp.hdr.pref_address, PREF);
    assert_int_equal(bp.hdr.ramdisk_image, 0);
    assert_int_equal(bp.hdr.ramdisk_size, 0);
    assert_int_equal(bp.hdr.setup_data, 0);
    assert_int_equal(bp.sentinel, 0);
    assert_int_equal(bp.acpi_rsdp_addr, BOOT_GUEST_RSDP);
    assert_string_equal(guest_string(&guest, bp.hdr.cmd_line_ptr), "console=ttyS0 root=/dev/vda");
    assert_int_equal(bp.e820_entries, guest.info.e820_count);
    for (int i = 0; i < bp.e820_entries; i++) {
        assert_int_equal(bp.e820_table[i].addr, guest.e820[i].addr);
        assert_int_equal(bp.e820_table[i].size, guest.e820[i].size);
        assert_int_equal(bp.e820_table[i].type, guest.e820[i].type);
    }
}

static void initrd_check(u64 expected_end)
{
    u8 *initrd = malloc(70000);
    const char *path;
    struct boot_entry entry;
    u32 at, size;

    memset(initrd, 0x5a, 70000);
    path = file_open(initrd, 70000);
    entry = must_boot(path, NULL);
    at = guest_u32(&guest, entry.rsi + FIELD(ramdisk_image));
    size = guest_u32(&guest, entry.rsi + FIELD(ramdisk_size));
    assert_int_equal(size, 70000);
    assert_int_equal(at & 0xfff, 0);
    assert_int_equal(ALIGN_UP((u64)at + size, PAGE_SIZE), expected_end);
    guest_pattern_check(&guest, at, initrd, size);
    file_close(path);
    free(initrd);
}

static void initrd_goes_high(void **unused)
{
    initrd_check(RAM - KIB(64));
}

static void initrd_stays_below_its_limit(void **unused)
{
    image_put32(&image, FIELD(initrd_addr_max), MIB(9) - 1);
    initrd_check(MIB(9));
}

static void initrd_avoids_the_kernel(void **unused)
{
    image_put32(&image, FIELD(initrd_addr_max), MIB(5) - 1);
    initrd_check(PREF);
}

static void initrd_without_room_is_refused(void **unused)
{
    const char *path = file_open(image.data, image.size);
    struct boot_entry entry;
    struct err e;

    image_put32(&image, FIELD(initrd_addr_max), MIB(1));
    assert_int_equal(boot(image.data, image.size, path, NULL, &guest, &entry, &e), -E2BIG);
    assert_non_null(strstr(e.text, "no room for initrd"));
    file_close(path);
}

static void zero_setup_sects_means_four(void **unused)
{
    image.data[HDR] = 0;
    image_pattern(&image, 5 * 512, PAYLOAD_SIZE);
    image.size = 5 * 512 + PAYLOAD_SIZE;
    must_boot(NULL, NULL);
    guest_pattern_check(&guest, PREF, image.data + 5 * 512, PAYLOAD_SIZE);
}

/* A hole in RAM where the kernel would like to be. */
static void hole_make(void)
{
    guest.e820[3].size = MIB(2);
    guest.e820[4] = (struct e820_entry){MIB(3) + KIB(64), RAM - MIB(3) - KIB(128), 1};
}

static void relocatable_kernel_moves_up(void **unused)
{
    struct boot_entry entry;

    hole_make();
    entry = must_boot(NULL, NULL);
    assert_int_equal(entry.rip, MIB(4) + 0x200);
    guest_pattern_check(&guest, MIB(4), image.data + PAYLOAD, PAYLOAD_SIZE);
}

static void fixed_kernel_does_not_move(void **unused)
{
    hole_make();
    image.data[FIELD(relocatable_kernel)] = 0;
    boot_fails(&image, &guest, NULL, "the kernel at 0x200000");
}

static void too_little_ram(void **unused)
{
    image_put32(&image, FIELD(init_size), RAM);
    boot_fails(&image, &guest, NULL, "--memory");
    image_put32(&image, FIELD(init_size), UINT32_MAX);
    boot_fails(&image, &guest, NULL, "--memory");
    image_put64(&image, FIELD(pref_address), UINT64_MAX - 10);
    boot_fails(&image, &guest, NULL, "--memory");
    image.data[FIELD(relocatable_kernel)] = 0;
    boot_fails(&image, &guest, NULL, "--memory");
}

static void kernel_without_64_bit_entry(void **unused)
{
    struct boot_entry entry;

    image_put16(&image, FIELD(version), 0x20b); /* the flags that follow did not exist */
    entry = must_boot(NULL, "old");
    assert_int_equal(entry.mode, BOOT_PROT32);
    assert_int_equal(entry.rip, PREF);
    assert_int_equal(entry.code_sel, 0x10);
    assert_int_equal(entry.data_sel, 0x18);
    assert_int_equal(entry.rbx | entry.rdi, 0);
    assert_int_equal(guest_u64(&guest, entry.gdt_base + 0x10), 0x00cf9b000000ffff);
    assert_string_equal(guest_string(&guest, guest_u32(&guest, entry.rsi + FIELD(cmd_line_ptr))), "old");
}

static void kernel_of_linux_2_4(void **unused)
{
    struct boot_entry entry;

    image_put16(&image, FIELD(version), 0x203);
    image_put32(&image, FIELD(syssize), 1); /* not to be trusted */
    image.data[HDR + 0x10] = 0x3b;          /* the jump: its header ends after initrd_addr_max */
    image_put32(&image, FIELD(initrd_addr_max), 0x37ffffff);
    entry = must_boot(NULL, NULL);
    assert_int_equal(entry.mode, BOOT_PROT32);
    assert_int_equal(entry.rip, MIB(1));
    guest_pattern_check(&guest, MIB(1), image.data + PAYLOAD, PAYLOAD_SIZE);
}

static void command_line_limits(void **unused)
{
    char cmdline[260];

    memset(cmdline, 'x', sizeof(cmdline));
    cmdline[101] = 0;
    boot_fails(&image, &guest, cmdline, "has 101 bytes; this kernel takes at most 100");
    cmdline[100] = 0;
    must_boot(NULL, cmdline);
    memset(cmdline, 'x', sizeof(cmdline));
    cmdline[256] = 0;
    image_put16(&image, FIELD(version), 0x205);
    boot_fails(&image, &guest, cmdline, "at most 255");
}

static void broken_headers_are_refused(void **unused)
{
    struct image_bytes good = image;

    image_put16(&image, FIELD(version), 0x201);
    boot_fails(&image, &guest, NULL, "boot protocol 2.01 is too old");
    image = good;
    image.data[FIELD(loadflags)] = 0;
    boot_fails(&image, &guest, NULL, "zImage");
    image = good;
    image_put32(&image, FIELD(kernel_alignment), 0x300000);
    boot_fails(&image, &guest, NULL, "no power of two");
    image = good;
    image_put32(&image, FIELD(syssize), 0);
    boot_fails(&image, &guest, NULL, "corrupt");
    image = good;
    image_put32(&image, FIELD(syssize), UINT32_MAX);
    boot_fails(&image, &guest, NULL, "truncated: its header promises");
    image = good;
    image.data[HDR + 0x10] = 1;
    boot_fails(&image, &guest, NULL, "corrupt: its header has only");
    image = good;
    memcpy(image.data + FIELD(header), "nope", 4);
    boot_fails(&image, &guest, NULL, "not a bzImage, PVH ELF or multiboot file");
    image.data[0] = 0x1f;
    image.data[1] = 0x8b;
    boot_fails(&image, &guest, NULL, "gzip");
}

static void every_shorter_file_is_refused(void **unused)
{
    boot_shortened(&image, &guest);
}

static void flipped_bits_do_no_harm(void **unused)
{
    boot_flipped(&image, 0x270, &guest);
}

/* A reset loads again what the guest has overwritten. */
static void loads_again_after_a_reset(void **unused)
{
    const char *path = file_open(image.data, image.size);
    struct boot_image *b;
    struct boot_entry first, again;
    struct err e;

    assert_int_equal(boot_image_create(path, NULL, "x", &b, &e), 0);
    assert_int_equal(boot_image_load(b, guest.mem, &guest.info, &first, &e), 0);
    memset(guest_memory_ptr(guest.mem, 0, 0xa0000, true), 0xff, 0xa0000);
    memset(guest_memory_ptr(guest.mem, MIB(1), RAM - MIB(1), true), 0xff, RAM - MIB(1));
    assert_int_equal(boot_image_load(b, guest.mem, &guest.info, &again, &e), 0);
    assert_memory_equal(&first, &again, sizeof(first));
    assert_int_equal(translate(again.cr3, PREF), PREF);
    guest_pattern_check(&guest, PREF, image.data + PAYLOAD, PAYLOAD_SIZE);
    boot_image_free(b);
    file_close(path);
}

static void shortened_after_creation(void **unused)
{
    const char *path = file_open(image.data, image.size);
    int fd = open(path, O_RDWR);
    struct boot_image *b;
    struct boot_entry entry;
    struct err e;

    assert_int_equal(boot_image_create(path, NULL, NULL, &b, &e), 0);
    assert_int_equal(ftruncate(fd, 700), 0);
    assert_true(boot_image_load(b, guest.mem, &guest.info, &entry, &e) < 0);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_true(boot_image_load(b, guest.mem, &guest.info, &entry, &e) < 0);
    assert_non_null(strstr(e.text, "is empty"));
    boot_image_free(b);
    close(fd);
    file_close(path);
}

static void create_fails(const char *kernel, const char *initrd, const char *word)
{
    struct boot_image *b = NULL;
    struct err e = {0};

    assert_true(boot_image_create(kernel, initrd, NULL, &b, &e) < 0);
    assert_null(b);
    if (!strstr(e.text, word))
        fail_msg("'%s' is not in: %s", word, e.text);
}

static void files_that_cannot_be_read(void **unused)
{
    const char *path = file_open(image.data, image.size), *empty = file_open("", 0);

    create_fails(NULL, NULL, "--kernel");
    create_fails("/no/such/kernel", NULL, "kernel '/no/such/kernel': No such file");
    create_fails("/", NULL, "is a directory");
    create_fails("/dev/zero", NULL, "not a regular file");
    create_fails(empty, NULL, "is empty");
    create_fails(path, "/no/such/initrd", "initrd '/no/such/initrd': No such file");
    create_fails(path, "/no/such,initrd", "initrd '/no/such,initrd': No such file"); /* no list for Linux */
    file_close(path);
    file_close(empty);
}

/* A kernel that somebody uses: SKERRY_KERNEL names it. */
static void real_kernel(void **unused)
{
    const char *path = getenv("SKERRY_KERNEL");
    struct boot_guest big;
    struct boot_image *b;
    struct boot_entry entry;
    struct err e;

    if (!path)
        skip();
    boot_guest_create(&big, MIB(256));
    if (boot_image_create(path, path, "console=ttyS0", &b, &e) || boot_image_load(b, big.mem, &big.info, &entry, &e))
        fail_msg("%s", e.text);
    assert_int_equal(entry.mode, BOOT_LONG64);
    assert_int_equal(entry.rip & (MIB(2) - 1), 0x200);
    assert_true(guest_u64(&big, entry.rip) != 0);
    boot_image_free(b);
    boot_guest_free(&big);

    boot_guest_create(&big, MIB(32)); /* too small for any */
    assert_int_equal(boot_image_create(path, NULL, NULL, &b, &e), 0);
    assert_int_equal(boot_image_load(b, big.mem, &big.info, &entry, &e), -E2BIG);
    boot_image_free(b);
    boot_guest_free(&big);
}

#define KERNEL_TEST(f) cmocka_unit_test_setup_teardown(f, kernel_build, kernel_drop)

int main(void)
{
    const struct CMUnitTest tests[] = {KERNEL_TEST(enters_in_long_mode),
                                       KERNEL_TEST(low_4_gib_are_mapped),
                                       KERNEL_TEST(zero_page_describes_the_machine),
                                       KERNEL_TEST(initrd_goes_high),
                                       KERNEL_TEST(initrd_stays_below_its_limit),
                                       KERNEL_TEST(initrd_avoids_the_kernel),
                                       KERNEL_TEST(initrd_without_room_is_refused),
                                       KERNEL_TEST(zero_setup_sects_means_four),
                                       KERNEL_TEST(relocatable_kernel_moves_up),
                                       KERNEL_TEST(fixed_kernel_does_not_move),
                                       KERNEL_TEST(too_little_ram),
                                       KERNEL_TEST(kernel_without_64_bit_entry),
                                       KERNEL_TEST(kernel_of_linux_2_4),
                                       KERNEL_TEST(command_line_limits),
                                       KERNEL_TEST(broken_headers_are_refused),
                                       KERNEL_TEST(every_shorter_file_is_refused),
                                       KERNEL_TEST(flipped_bits_do_no_harm),
                                       KERNEL_TEST(loads_again_after_a_reset),
                                       KERNEL_TEST(shortened_after_creation),
                                       KERNEL_TEST(files_that_cannot_be_read),
                                       cmocka_unit_test(real_kernel)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
