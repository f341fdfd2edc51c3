/* Image formats, synchronously: random operations against a shadow, reopening, backing chains, snapshots of a run,
 * locks. */
#include "disk_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static void make_raw(const char *path, u64 size)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    close(fd);
}

/* Random operations, a reopening and a comparison, some rounds. */
static void exercise(const char *path, enum disk_format format, struct shadow *s, int rounds, int steps)
{
    for (int round = 0; round < rounds; round++) {
        struct image *img = must_open(path, format, IMAGE_WRITE);

        for (int i = 0; i < steps; i++)
            shadow_step(s, img);
        shadow_compare(s, img);
        image_close(img);
        img = must_open(path, format, 0);
        shadow_compare(s, img);
        image_close(img);
        if (format == DISK_FORMAT_QCOW2)
            must_be_clean(path);
    }
}

static void raw_random(void **unused)
{
    const char *path = scratch("random.raw");
    struct shadow s = shadow_new(MIB(9) + 512);

    make_raw(path, s.size);
    exercise(path, DISK_FORMAT_RAW, &s, 3, 300);
    shadow_free(&s);
}

static void qcow2_random(void **unused)
{
    static const struct {
        u32 version, cluster_bits, refcount_order;
        u64 size;
    } shapes[] = {
        {3, 16, 4, MIB(20)}, {2, 16, 4, MIB(20)},        {3, 9, 4, MIB(14) + 512}, {3, 9, 6, MIB(4)},
        {3, 9, 0, MIB(3)},   {3, 12, 1, MIB(7)},         {3, 12, 2, MIB(7)},       {3, 12, 3, MIB(7)},
        {3, 12, 5, MIB(7)},  {3, 21, 4, MIB(40) + 1536}, {2, 9, 4, MIB(2)},        {3, 13, 4, KIB(100)},
        {3, 16, 4, 512},
    };

    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
        struct qcow2_create c = {.size = shapes[i].size,
                                 .version = shapes[i].version,
                                 .cluster_bits = shapes[i].cluster_bits,
                                 .refcount_order = shapes[i].refcount_order};
        const char *path = scratch("random.qcow2");
        struct shadow s = shadow_new(c.size);

        must_create(path, &c);
        must_be_clean(path);
        exercise(path, DISK_FORMAT_QCOW2, &s, 3, 150);
        shadow_free(&s);
    }
}

/* An overlay of another size and geometry over a written image, over a raw file. */
static void backing_chain(void **unused)
{
    struct qcow2_create middle = QCOW2_CREATE_DEFAULT, top = QCOW2_CREATE_DEFAULT;
    struct shadow s = shadow_new(MIB(12));
    const char *base = scratch("base.raw"), *mid = scratch("mid.qcow2"), *over = scratch("top.qcow2");

    make_raw(base, MIB(4) + 512);
    s.size = MIB(4) + 512;
    exercise(base, DISK_FORMAT_RAW, &s, 1, 100);
    middle.size = s.size = MIB(12);
    middle.backing = "base.raw";
    middle.backing_format = "raw";
    middle.cluster_bits = 12;
    must_create(mid, &middle);
    exercise(mid, DISK_FORMAT_QCOW2, &s, 2, 100);
    top.size = s.size = MIB(9);
    top.backing = "mid.qcow2";
    top.backing_format = "qcow2";
    must_create(over, &top);
    exercise(over, DISK_FORMAT_QCOW2, &s, 2, 100);
    shadow_free(&s);
}

static void version_2_overlay(void **unused)
{
    struct qcow2_create c = QCOW2_CREATE_DEFAULT;
    struct shadow s = shadow_new(MIB(5));

    make_raw(scratch("base2.raw"), MIB(3));
    s.size = MIB(3);
    exercise(scratch("base2.raw"), DISK_FORMAT_RAW, &s, 1, 50);
    c.size = s.size = MIB(5);
    c.version = 2;
    c.backing = "base2.raw";
    c.backing_format = "raw";
    must_create(scratch("over2.qcow2"), &c);
    exercise(scratch("over2.qcow2"), DISK_FORMAT_QCOW2, &s, 3, 100);
    shadow_free(&s);
}

static void overlay_vanishes(void **unused)
{
    struct qcow2_create c = QCOW2_CREATE_DEFAULT;
    const char *path = scratch("kept.qcow2");
    struct shadow s = shadow_new(MIB(5)), before = shadow_new(MIB(5));
    struct image *base, *top;
    struct err e;

    c.size = s.size;
    must_create(path, &c);
    exercise(path, DISK_FORMAT_QCOW2, &s, 1, 60);
    memcpy(before.content, s.content, s.size);
    base = must_open(path, DISK_FORMAT_AUTO, 0);
    assert_int_equal(qcow2_open_overlay(base, &top, &e), 0);
    for (int i = 0; i < 200; i++)
        shadow_step(&s, top);
    shadow_compare(&s, top);
    image_close(top);
    base = must_open(path, DISK_FORMAT_AUTO, 0);
    shadow_compare(&before, base);
    image_close(base);
    shadow_free(&s);
    shadow_free(&before);
}

static int open_code(const char *path, enum disk_format format, unsigned flags)
{
    struct image *img;
    struct err e = {0};
    int r = image_open(path, format, flags, &img, &e);

    if (!r)
        image_close(img);
    else
        assert_true(strlen(e.text) > 10);
    return r;
}

static void locks_exclude_writers(void **unused)
{
    const char *path = scratch("locked.raw");
    struct image *one, *two;

    make_raw(path, MIB(1));
    one = must_open(path, DISK_FORMAT_RAW, IMAGE_WRITE);
    assert_int_equal(open_code(path, DISK_FORMAT_RAW, IMAGE_WRITE), -EBUSY);
    assert_int_equal(open_code(path, DISK_FORMAT_RAW, 0), -EBUSY);
    assert_int_equal(open_code(path, DISK_FORMAT_RAW, IMAGE_NO_LOCK), 0);
    image_close(one);
    one = must_open(path, DISK_FORMAT_RAW, 0);
    two = must_open(path, DISK_FORMAT_RAW, 0);
    assert_int_equal(open_code(path, DISK_FORMAT_RAW, IMAGE_WRITE), -EBUSY);
    image_close(one);
    image_close(two);
    assert_int_equal(open_code(path, DISK_FORMAT_RAW, IMAGE_WRITE), 0);
}

/* An overlay keeps its backing file from being written to. */
static void backing_is_locked(void **unused)
{
    struct qcow2_create c = QCOW2_CREATE_DEFAULT;
    struct image *img;

    make_raw(scratch("held.raw"), MIB(1));
    c.size = MIB(1);
    c.backing = "held.raw";
    must_create(scratch("holder.qcow2"), &c);
    img = must_open(scratch("holder.qcow2"), DISK_FORMAT_QCOW2, IMAGE_WRITE);
    assert_int_equal(open_code(scratch("held.raw"), DISK_FORMAT_RAW, IMAGE_WRITE), -EBUSY);
    image_close(img);
}

static void loops_are_refused(void **unused)
{
    struct qcow2_create c = QCOW2_CREATE_DEFAULT;

    c.size = MIB(1);
    c.backing = "b.qcow2";
    c.backing_format = "qcow2";
    must_create(scratch("a.qcow2"), &c);
    c.backing = "a.qcow2";
    must_create(scratch("b.qcow2"), &c);
    assert_int_equal(open_code(scratch("a.qcow2"), DISK_FORMAT_AUTO, 0), -ELOOP);
    c.backing = "self.qcow2";
    must_create(scratch("self.qcow2"), &c);
    assert_int_equal(open_code(scratch("self.qcow2"), DISK_FORMAT_AUTO, 0), -ELOOP);
    for (int i = 0; i < 40; i++) {
        char name[32], below[32];

        snprintf(name, sizeof(name), "deep%d.qcow2", i);
        snprintf(below, sizeof(below), "deep%d.qcow2", i - 1);
        c.backing = i ? below : NULL;
        must_create(scratch(name), &c);
    }
    assert_int_equal(open_code(scratch("deep30.qcow2"), DISK_FORMAT_AUTO, 0), 0);
    assert_int_equal(open_code(scratch("deep39.qcow2"), DISK_FORMAT_AUTO, 0), -ELOOP);
}

static void backing_names_that_are_no_files(void **unused)
{
    static const char *const names[] = {"json:{}", "nbd://host/x", "missing.raw", "/nonexistent/x", "file:"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct qcow2_create c = QCOW2_CREATE_DEFAULT;

        c.size = MIB(1);
        c.backing = names[i];
        must_create(scratch("odd.qcow2"), &c);
        assert_true(open_code(scratch("odd.qcow2"), DISK_FORMAT_AUTO, 0) < 0);
        assert_int_equal(open_code(scratch("odd.qcow2"), DISK_FORMAT_AUTO, IMAGE_NO_BACKING), 0);
    }
}

/* A guest may not turn a raw disk into an image that names a file of the host. */
static void probed_raw_keeps_its_kind(void **unused)
{
    const char *path = scratch("probed.raw");
    u8 sector[1024] = "QFI\xfb";
    struct image *img;

    make_raw(path, MIB(1));
    img = must_open(path, DISK_FORMAT_AUTO, IMAGE_WRITE);
    assert_int_equal(image_write(img, sector, 0, 1024), -EPERM);
    assert_int_equal(image_write(img, sector, 512, 512), 0);
    sector[0] = 'X';
    assert_int_equal(image_write(img, sector, 0, 1024), 0);
    assert_int_equal(image_write(img, "QFI\xfb", 0, 4), -EPERM);
    image_close(img);
    img = must_open(path, DISK_FORMAT_RAW, IMAGE_WRITE);
    assert_int_equal(image_write(img, "QFI\xfb", 0, 4), 0);
    image_close(img);
}

static void ranges_are_checked(void **unused)
{
    struct qcow2_create c = QCOW2_CREATE_DEFAULT;
    struct image *img;
    u8 sector[512] = {0};

    c.size = MIB(1);
    must_create(scratch("range.qcow2"), &c);
    img = must_open(scratch("range.qcow2"), DISK_FORMAT_AUTO, IMAGE_WRITE);
    assert_int_equal(image_read(img, sector, MIB(1), 512), -EINVAL);
    assert_int_equal(image_write(img, sector, MIB(1) - 511, 512), -EINVAL);
    assert_int_equal(image_discard(img, UINT64_MAX - 511, 512), -EINVAL);
    assert_int_equal(image_write_zeroes(img, 512, UINT64_MAX), -EINVAL);
    image_close(img);
    img = must_open(scratch("range.qcow2"), DISK_FORMAT_AUTO, 0);
    assert_int_equal(image_write(img, sector, 0, 512), -EROFS);
    image_close(img);
}

/* What is discarded returns to the file system, and its clusters are used again. */
static void discard_gives_space_back(void **unused)
{
    struct qcow2_create c = QCOW2_CREATE_DEFAULT;
    const char *path = scratch("trim.qcow2");
    struct image *img;
    struct stat st;
    u8 *buf = malloc(MIB(8));

    memset(buf, 0x55, MIB(8));
    c.size = MIB(64);
    must_create(path, &c);
    img = must_open(path, DISK_FORMAT_AUTO, IMAGE_WRITE);
    for (u64 at = 0; at < MIB(64); at += MIB(8)) {
        assert_int_equal(image_write(img, buf, at, MIB(8)), 0);
        assert_int_equal(image_flush(img), 0);
        assert_int_equal(image_discard(img, at, MIB(8)), 0);
        assert_int_equal(image_flush(img), 0);
    }
    image_close(img);
    assert_int_equal(stat(path, &st), 0);
    assert_true((u64)st.st_size < MIB(20));
    assert_true((u64)st.st_blocks * 512 < MIB(2));
    must_be_clean(path);
    free(buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(raw_random),
        cmocka_unit_test(qcow2_random),
        cmocka_unit_test(backing_chain),
        cmocka_unit_test(version_2_overlay),
        cmocka_unit_test(overlay_vanishes),
        cmocka_unit_test(locks_exclude_writers),
        cmocka_unit_test(backing_is_locked),
        cmocka_unit_test(loops_are_refused),
        cmocka_unit_test(backing_names_that_are_no_files),
        cmocka_unit_test(probed_raw_keeps_its_kind),
        cmocka_unit_test(ranges_are_checked),
        cmocka_unit_test(discard_gives_space_back),
    };

    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
