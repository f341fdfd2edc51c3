/* Dispatch of port and memory accesses: splitting, overlaps, remapping from inside a handler. */
#include "machine_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* A device whose byte at offset n reads as `seed` + n, and which writes down the accesses that it gets. */
struct recorder {
    struct device dev;
    u8 seed;
    char log[256];
};

static void record(struct recorder *r, const char *what, u64 offset, int size, u64 val)
{
    size_t used = strlen(r->log);

    snprintf(r->log + used, sizeof(r->log) - used, "%s%llx/%d=%llx ", what, (unsigned long long)offset, size,
             (unsigned long long)val);
}

static u64 recorder_read(struct device *dev, u64 offset, int size)
{
    struct recorder *r = container_of(dev, struct recorder, dev);
    u64 val = 0;

    for (int i = 0; i < size; i++)
        val |= (u64)(u8)(r->seed + offset + (u64)i) << (8 * i);
    record(r, "r", offset, size, val);
    return val;
}

static void recorder_write(struct device *dev, u64 offset, int size, u64 val)
{
    record(container_of(dev, struct recorder, dev), "w", offset, size, val);
}

static const struct io_ops any_ops = {recorder_read, recorder_write, 0, 0};
static const struct io_ops byte_ops = {recorder_read, recorder_write, 1, 1};
static const struct io_ops dword_ops = {recorder_read, recorder_write, 4, 4};
static const struct io_ops read_only_ops = {recorder_read, NULL, 1, 4};
static const struct device_type recorder_type = {.name = "recorder", .size = sizeof(struct recorder)};

static struct machine *m;
static struct recorder *a, *b;

static struct recorder *recorder_add(u8 seed)
{
    struct recorder *r = container_of(device_add(m, &recorder_type), struct recorder, dev);

    r->seed = seed;
    return r;
}

static int setup(void **unused)
{
    m = fixture_machine(1);
    a = recorder_add(0x10);
    b = recorder_add(0x80);
    return 0;
}

static int teardown(void **unused)
{
    fixture_free(m);
    return 0;
}

static void expect(struct recorder *r, const char *log)
{
    assert_string_equal(r->log, log);
    r->log[0] = 0;
}

static void nobody_answers_all_ones(void **unused)
{
    pio_map(m, 0x100, 8, &a->dev, &any_ops);
    assert_int_equal(pio_read(m, 0x108, 1), 0xff);
    assert_int_equal(pio_read(m, 0xff, 1), 0xff);
    assert_int_equal(pio_read(m, 0x5000, 4), 0xffffffff);
    assert_int_equal(mmio_read(m, 0x100, 8), UINT64_MAX);
    assert_int_equal(mmio_read(m, UINT64_MAX, 8), UINT64_MAX);
    pio_write(m, 0x5000, 4, 0);
    mmio_write(m, UINT64_MAX - 2, 8, 0);
    expect(a, "");
}

static void sizes_pass_through(void **unused)
{
    mmio_map(m, 0x1000, 0x100, &a->dev, &any_ops);
    assert_int_equal(mmio_read(m, 0x1008, 8), 0x1f1e1d1c1b1a1918);
    assert_int_equal(mmio_read(m, 0x1001, 1), 0x11);
    mmio_write(m, 0x1004, 4, 0xffffffff12345678);
    expect(a, "r8/8=1f1e1d1c1b1a1918 r1/1=11 w4/4=12345678 ");
}

static void wide_accesses_are_split(void **unused)
{
    pio_map(m, 0x3f8, 8, &a->dev, &byte_ops);
    mmio_map(m, 0x1000, 0x100, &b->dev, &dword_ops);
    assert_int_equal(pio_read(m, 0x3f8, 4), 0x13121110);
    expect(a, "r0/1=10 r1/1=11 r2/1=12 r3/1=13 ");
    pio_write(m, 0x3fa, 2, 0xabcd);
    expect(a, "w2/1=cd w3/1=ab ");
    mmio_write(m, 0x1010, 8, 0x1122334455667788);
    expect(b, "w10/4=55667788 w14/4=11223344 ");
}

static void unaligned_accesses_are_split(void **unused)
{
    mmio_map(m, 0x1000, 0x100, &a->dev, &any_ops);
    assert_int_equal(mmio_read(m, 0x1003, 4), 0x16151413);
    expect(a, "r3/1=13 r4/2=1514 r6/1=16 ");
    mmio_write(m, 0x1002, 8, 0x0807060504030201);
    expect(a, "w2/2=201 w4/4=6050403 w8/2=807 ");
}

static void narrow_accesses_of_wide_chips(void **unused)
{
    mmio_map(m, 0x1000, 0x100, &a->dev, &dword_ops);
    assert_int_equal(mmio_read(m, 0x1006, 2), 0x1716);
    assert_int_equal(mmio_read(m, 0x1005, 1), 0x15);
    expect(a, "r4/4=17161514 r4/4=17161514 ");
    mmio_write(m, 0x1004, 2, 0x1234);
    expect(a, "");
}

static void accesses_across_range_ends(void **unused)
{
    pio_map(m, 0x102, 2, &a->dev, &any_ops);
    pio_map(m, 0x104, 1, &b->dev, &any_ops);
    assert_int_equal(pio_read(m, 0x100, 4), 0x1110ffff);
    expect(a, "r0/2=1110 ");
    assert_int_equal(pio_read(m, 0x104, 4), 0xffffff80);
    pio_map(m, 0xfffe, 2, &a->dev, &any_ops);
    assert_int_equal(pio_read(m, 0xfffe, 4), 0xffff1110);
    mmio_map(m, UINT64_MAX - 0xfff, 0x1000, &a->dev, &any_ops);
    assert_int_equal(mmio_read(m, UINT64_MAX, 4), 0xffffff0f);
}

static void read_only_ranges_drop_writes(void **unused)
{
    pio_map(m, 0x100, 4, &a->dev, &read_only_ops);
    pio_write(m, 0x100, 4, 1);
    expect(a, "");
}

static void newest_range_wins(void **unused)
{
    mmio_map(m, 0x1000, 0x1000, &a->dev, &any_ops);
    mmio_map(m, 0x1800, 0x10, &b->dev, &any_ops);
    assert_int_equal(mmio_read(m, 0x1800, 1), 0x80);
    assert_int_equal(mmio_read(m, 0x1810, 1), 0x20);
    mmio_unmap(m, 0x1800, 0x10, &b->dev);
    assert_int_equal(mmio_read(m, 0x1800, 1), 0x10);
    mmio_unmap(m, 0x1000, 0x1000, &a->dev);
    assert_int_equal(mmio_read(m, 0x1800, 1), 0xff);
}

/* As 0xCF9 in the dword at 0xCF8. */
static void first_byte_decides(void **unused)
{
    pio_map(m, 0xcf8, 4, &a->dev, &any_ops);
    pio_map(m, 0xcf9, 1, &b->dev, &byte_ops);
    pio_write(m, 0xcf8, 4, 0x80000000);
    pio_write(m, 0xcf9, 1, 6);
    expect(a, "w0/4=80000000 ");
    expect(b, "w0/1=6 ");
}

/* A write of 8 bytes whose first half unmaps the very range. */
static void unmap_self(struct device *dev, u64 offset, int size, u64 val)
{
    mmio_unmap(dev->machine, 0x1000, 0x1000, dev);
    mmio_map(dev->machine, 0x8000, 0x1000, dev, &any_ops);
}

static void handlers_may_remap(void **unused)
{
    static const struct io_ops ops = {NULL, unmap_self, 4, 4};

    mmio_map(m, 0x1000, 0x1000, &a->dev, &ops);
    mmio_write(m, 0x1000, 8, 0);
    assert_int_equal(mmio_read(m, 0x1000, 1), 0xff);
    assert_int_equal(mmio_read(m, 0x8000, 1), 0x10);
}

static void device_names_are_unique(void **unused)
{
    assert_string_equal(a->dev.id, "recorder");
    assert_string_equal(b->dev.id, "recorder.1");
    assert_ptr_equal(device_find(m, &recorder_type), &a->dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nobody_answers_all_ones, setup, teardown),
        cmocka_unit_test_setup_teardown(sizes_pass_through, setup, teardown),
        cmocka_unit_test_setup_teardown(wide_accesses_are_split, setup, teardown),
        cmocka_unit_test_setup_teardown(unaligned_accesses_are_split, setup, teardown),
        cmocka_unit_test_setup_teardown(narrow_accesses_of_wide_chips, setup, teardown),
        cmocka_unit_test_setup_teardown(accesses_across_range_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(read_only_ranges_drop_writes, setup, teardown),
        cmocka_unit_test_setup_teardown(newest_range_wins, setup, teardown),
        cmocka_unit_test_setup_teardown(first_byte_decides, setup, teardown),
        cmocka_unit_test_setup_teardown(handlers_may_remap, setup, teardown),
        cmocka_unit_test_setup_teardown(device_names_are_unique, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
