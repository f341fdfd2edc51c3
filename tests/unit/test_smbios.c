/* SMBIOS: checksums, the chain of structures, and what dmidecode makes of them. */
#include "firmware/smbios.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define RAM MIB(1)
#define BASE 0xf1000
#define SIZE 0x2000
#define ENTRY 0xf0000

static const struct smbios_config config = {
    .uuid = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff},
    .cpu_count = 2,
    .ram_size = GIB(3)};

static struct guest_memory *mem;

static int memory_create(void **unused)
{
    struct err e;

    assert_int_equal(guest_memory_create(RAM, &mem, &e), 0);
    return guest_memory_map(mem, 0, RAM, 0, false);
}

static int memory_free(void **unused)
{
    guest_memory_free(mem);
    return 0;
}

static u8 sum(const u8 *p, size_t len)
{
    u8 total = 0;

    while (len--)
        total += *p++;
    return total;
}

static u32 u32_in(const u8 *p)
{
    u32 v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static void entry_points(void **unused)
{
    const u8 *entry = guest_memory_ptr(mem, ENTRY, SMBIOS_ENTRY_SIZE, false);

    assert_int_equal(smbios_build(mem, &config, BASE, SIZE, ENTRY), 0);
    assert_memory_equal(entry, "_SM_", 4);
    assert_int_equal(sum(entry, 31), 0);
    assert_memory_equal(entry + 16, "_DMI_", 5);
    assert_int_equal(sum(entry + 16, 15), 0);
    assert_int_equal(u32_in(entry + 24), BASE);
    assert_memory_equal(entry + 32, "_SM3_", 5);
    assert_int_equal(sum(entry + 32, 24), 0);
    assert_int_equal(u32_in(entry + 48), BASE);
    assert_int_equal(u32_in(entry + 44), u32_in(entry + 22) & 0xffff);
}

static void structures_chain(void **unused)
{
    static const u8 expected[] = {0, 1, 3, 4, 4, 16, 17, 32, 127};
    static const u8 length[] = {24, 27, 22, 48, 48, 23, 40, 11, 4}; /* DSP0134 3.0 ch. 7 */
    const u8 *entry = guest_memory_ptr(mem, ENTRY, SMBIOS_ENTRY_SIZE, false),
             *p = guest_memory_ptr(mem, BASE, SIZE, false), *end;
    size_t largest = 0;

    assert_int_equal(smbios_build(mem, &config, BASE, SIZE, ENTRY), 0);
    end = p + u32_in(entry + 44);
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
        const u8 *start = p;

        assert_int_equal(p[0], expected[i]);
        assert_int_equal(p[1], length[i]);
        for (p += p[1]; p[0] || p[1]; p++)
            assert_true(p < end);
        p += 2;
        largest = MAX(largest, (size_t)(p - start));
    }
    assert_ptr_equal(p, end);
    assert_int_equal(u32_in(entry + 28) & 0xffff, ARRAY_SIZE(expected));
    assert_int_equal(u32_in(entry + 8) & 0xffff, largest);
}

static void places_that_do_not_do(void **unused)
{
    assert_int_equal(smbios_build(mem, &config, BASE, 64, ENTRY), -ENOSPC);
    assert_int_equal(smbios_build(mem, &config, RAM, SIZE, ENTRY), -EFAULT);
    assert_int_equal(smbios_build(mem, &config, BASE, SIZE, RAM), -EFAULT);
}

/* dmidecode reads a dump that has the entry point at 0 and the structures where that says. */
static void dump_write(const char *path)
{
    u8 dump[32 + SIZE] = {0};
    u64 at = 32;
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(guest_memory_read(mem, ENTRY + 32, dump, 24), 0);
    assert_int_equal(guest_memory_read(mem, BASE, dump + 32, SIZE), 0);
    memcpy(dump + 16, &at, sizeof(at));
    dump[5] = 0;
    dump[5] = (u8)-sum(dump, 24);
    assert_int_equal(fwrite(dump, sizeof(dump), 1, f), 1);
    fclose(f);
}

static void dmidecode_agrees(void **unused)
{
    static const char *const lines[] = {
        "SMBIOS 3.0.0 present",
        "Vendor: skerry",
        "Manufacturer: skerry",
        "UUID: 00112233-4455-6677-8899-aabbccddeeff",
        "Socket Designation: CPU 1",
        "Maximum Capacity: 3 GB",
        "Size: 3 GB",
        "Type: RAM",
        "Status: No errors detected",
        "64-bit capable",
        "End Of Table",
    };
    char path[] = "/tmp/skerry-smbios-XXXXXX", command[256];

    if (system("PATH=$PATH:/usr/sbin; command -v dmidecode >/dev/null"))
        skip();
    assert_int_equal(smbios_build(mem, &config, BASE, SIZE, ENTRY), 0);
    close(mkstemp(path));
    dump_write(path);
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        snprintf(command, sizeof(command), "PATH=$PATH:/usr/sbin; dmidecode --from-dump %s 2>&1 | grep -qF '%s'", path,
                 lines[i]);
        if (system(command))
            fail_msg("not in dmidecode's output: %s", lines[i]);
    }
    snprintf(
        command, sizeof(command),
        "PATH=$PATH:/usr/sbin; ! dmidecode --from-dump %s 2>&1 | grep -E 'OUT OF SPEC|BAD INDEX|TRUNC|Wrong|Invalid'",
        path);
    assert_int_equal(system(command), 0);
    unlink(path);
}

#define MEMORY_TEST(f) cmocka_unit_test_setup_teardown(f, memory_create, memory_free)

int main(void)
{
    const struct CMUnitTest tests[] = {MEMORY_TEST(entry_points), MEMORY_TEST(structures_chain),
                                       MEMORY_TEST(places_that_do_not_do), MEMORY_TEST(dmidecode_agrees)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
