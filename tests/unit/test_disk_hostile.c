/* Image files that lie: every number of the header, truncated files, flipped bits in every table. Opening refuses with
 * a sentence or reading fails; nothing crashes (the sanitizers watch), grows without bound or takes forever. */
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

enum { CLUSTER = 4096, DISK = 3 << 20 };

struct file {
    u8 *bytes;
    size_t length;
};

static struct file load(const char *path)
{
    struct stat st;
    struct file f;
    int fd = open(path, O_RDONLY);

    assert_true(fd >= 0 && !fstat(fd, &st));
    f = (struct file){malloc((size_t)st.st_size), (size_t)st.st_size};
    assert_int_equal(read(fd, f.bytes, f.length), f.length);
    close(fd);
    return f;
}

static void store(const char *path, const u8 *bytes, size_t length)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, length), length);
    close(fd);
}

/* A small image with data, zeros, and compressed clusters. */
static struct file victim(u32 version)
{
    struct qcow2_create c = QCOW2_CREATE_DEFAULT;
    const char *path = scratch("victim.qcow2");
    u8 cluster[CLUSTER];
    struct image *img;

    c.size = DISK;
    c.version = version;
    c.cluster_bits = 12;
    must_create(path, &c);
    img = must_open(path, DISK_FORMAT_QCOW2, IMAGE_WRITE);
    for (u64 at = 0; at < DISK; at += CLUSTER * 3) {
        memset(cluster, (int)(at >> 12), sizeof(cluster));
        if (at / CLUSTER % 2)
            assert_int_equal(img->ops->write_compressed(img, cluster, at), 0);
        else
            assert_int_equal(image_write(img, cluster, at, CLUSTER), 0);
    }
    assert_int_equal(image_write_zeroes(img, CLUSTER * 9, CLUSTER), 0);
    image_close(img);
    must_be_clean(path);
    return load(path);
}

static void put(u8 *p, int size, u64 value)
{
    for (int i = size - 1; i >= 0; i--, value >>= 8)
        p[i] = (u8)value;
}

static void header_numbers(void **unused)
{
    static const struct {
        u32 at, size;
        u64 value;
        unsigned flags;
        const char *says;
    } lies[] = {
        {0, 4, 0x514649fa, 0, "not a qcow2"},
        {4, 4, 1, 0, "version 1"},
        {4, 4, 4, 0, "version 4"},
        {8, 8, 5000, 0, "backing"},
        {8, 8, UINT64_MAX, 0, "backing"},
        {20, 4, 8, 0, "cluster size"},
        {20, 4, 22, 0, "cluster size"},
        {20, 4, UINT32_MAX, 0, "cluster size"},
        {24, 8, UINT64_MAX, 0, "size"},
        {24, 8, GIB(100), 0, "too small"},
        {32, 4, 1, 0, "encrypted"},
        {32, 4, 2, 0, "encrypted"},
        {36, 4, 0, 0, "L1 table"},
        {36, 4, UINT32_MAX, 0, "L1 table"},
        {36, 4, 4 << 20, 0, "L1 table"},
        {40, 8, 0, 0, "L1 table"},
        {40, 8, 4097, 0, "L1 table"},
        {40, 8, UINT64_MAX - 4095, 0, "L1 table"},
        {48, 8, 0, 0, "refcount table"},
        {48, 8, 4097, 0, "refcount table"},
        {48, 8, BIT(62), 0, "refcount table"},
        {56, 4, 0, 0, "refcount table"},
        {56, 4, UINT32_MAX, 0, "refcount table"},
        {72, 8, 2, IMAGE_WRITE, "corrupt"},
        {72, 8, 4, 0, "second file"},
        {72, 8, 16, 0, "extended L2"},
        {72, 8, BIT(40), 0, "not known"},
        {72, 8, 8, 0, "compression"},
        {96, 4, 7, 0, "refcounts"},
        {96, 4, UINT32_MAX, 0, "refcounts"},
        {100, 4, 8, 0, "header length"},
        {100, 4, 8192, 0, "header length"},
        {100, 4, 113, 0, "header length"},
        {104, 1, 1, 0, "compression"},
        {104, 1, 9, 0, "compressed"},
        {112, 4, 0xe2792aca, 0, "extension"},
        {64, 8, 77, 0, NULL},
    };
    struct file f = victim(3);

    put(f.bytes + 116, 4, 0xffffffff); /* length of the extension that the last lies turn on */
    for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
        u8 *copy = malloc(f.length);
        struct image *img;
        struct err e = {0};
        int r;

        memcpy(copy, f.bytes, f.length);
        put(copy + lies[i].at, (int)lies[i].size, lies[i].value);
        store(scratch("lie.qcow2"), copy, f.length);
        r = image_open(scratch("lie.qcow2"), DISK_FORMAT_QCOW2, lies[i].flags, &img, &e);
        if (lies[i].says && (r >= 0 || !strstr(e.text, lies[i].says)))
            fail_msg("lie %zu: %d '%s' (want '%s')", i, r, e.text, lies[i].says);
        if (!r)
            image_close(img);
        free(copy);
    }
    free(f.bytes);
}

/* Whatever happens, it is an error code or a result. */
static void use(const char *path, unsigned flags)
{
    struct image_extent x;
    struct image *img;
    struct err e;
    u8 buf[CLUSTER * 2];

    if (image_open(path, DISK_FORMAT_QCOW2, flags, &img, &e) < 0)
        return;
    for (u64 at = 0; at + sizeof(buf) <= MIN(img->size, (u64)DISK); at += sizeof(buf)) {
        image_read(img, buf, at, sizeof(buf));
        image_map(img, at, sizeof(buf), &x);
        if (flags & IMAGE_WRITE && rng(3) == 0)
            image_write(img, buf, at, 1 + rng(sizeof(buf)));
        if (flags & IMAGE_WRITE && rng(9) == 0)
            image_discard(img, at, sizeof(buf));
        if (flags & IMAGE_WRITE && rng(9) == 0)
            image_write_zeroes(img, at + 512, sizeof(buf) - 512);
    }
    image_flush(img);
    image_close(img);
}

static void check_it(const char *path, enum qcow2_repair repair)
{
    struct qcow2_check check = {0};
    struct image *img;
    struct err e;

    if (image_open(path, DISK_FORMAT_QCOW2, IMAGE_REPAIR | IMAGE_NO_BACKING | (repair ? IMAGE_WRITE : 0), &img, &e) < 0)
        return;
    qcow2_check(img, repair, &check, &e);
    image_close(img);
}

static void use_all(const char *path)
{
    struct stat st;

    check_it(path, QCOW2_REPAIR_NONE);
    use(path, 0);
    use(path, IMAGE_WRITE);
    check_it(path, QCOW2_REPAIR_LEAKS);
    check_it(path, QCOW2_REPAIR_ALL);
    use(path, IMAGE_WRITE);
    if (!stat(path, &st))
        assert_true(st.st_size < (off_t)MIB(64));
}

static void truncated_files(void **unused)
{
    struct file f = victim(3);

    for (size_t n = 0; n < f.length; n += n < CLUSTER ? 197 : 3777) {
        store(scratch("short.qcow2"), f.bytes, n);
        use_all(scratch("short.qcow2"));
    }
    free(f.bytes);
}

/* Flips that leave the first fields of the header alone, so that the tables behind them are reached. */
static void flipped_bits(void **unused)
{
    for (u32 version = 2; version <= 3; version++) {
        struct file f = victim(version);

        for (int round = 0; round < 80; round++) {
            u8 *copy = malloc(f.length);

            memcpy(copy, f.bytes, f.length);
            for (u64 n = 1 + rng(12); n; n--)
                copy[24 + rng(MIN(f.length, (size_t)CLUSTER * 6) - 24)] ^= (u8)BIT(rng(8));
            store(scratch("flip.qcow2"), copy, f.length);
            use_all(scratch("flip.qcow2"));
            free(copy);
        }
        free(f.bytes);
    }
}

/* Table entries that point anywhere: at tables, at themselves, out of the file, compressed at any length. */
static void wild_entries(void **unused)
{
    struct file f = victim(3);
    u64 l1 = CLUSTER; /* where qcow2_create puts it */

    for (int round = 0; round < 80; round++) {
        u8 *copy = malloc(f.length);

        memcpy(copy, f.bytes, f.length);
        for (u64 n = 1 + rng(40); n; n--) {
            u64 entry = rng(f.length * 5 / 4);
            u64 at = rng(4) ? CLUSTER + rng(f.length - CLUSTER - 8) : l1 + rng(2) * 8;

            entry = rng(4) ? ALIGN_DOWN(entry, CLUSTER) : entry;
            entry |= rng(2) ? BIT(63) : 0;
            entry |= rng(4) ? 0 : BIT(62) | rng(255) << 54;
            put(copy + ALIGN_DOWN(at, 8), 8, entry);
        }
        store(scratch("wild.qcow2"), copy, f.length);
        use_all(scratch("wild.qcow2"));
        free(copy);
    }
    free(f.bytes);
}

static void other_formats_are_known(void **unused)
{
    static const struct {
        u32 at;
        const char *magic, *name;
    } formats[] = {{0, "KDMV", "VMDK"},
                   {0, "# Disk DescriptorFile", "VMDK"},
                   {0, "vhdxfile", "VHDX"},
                   {0, "conectix", "VHD"},
                   {64, "\x7f\x10\xda\xbe", "VDI"}};

    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        u8 head[1024] = {0};
        struct image *img;
        struct err e;

        memcpy(head + formats[i].at, formats[i].magic, strlen(formats[i].magic));
        store(scratch("other"), head, sizeof(head));
        assert_int_equal(image_open(scratch("other"), DISK_FORMAT_AUTO, 0, &img, &e), -EINVAL);
        assert_non_null(strstr(e.text, formats[i].name));
        assert_int_equal(image_open(scratch("other"), DISK_FORMAT_RAW, 0, &img, &e), 0);
        image_close(img);
    }
}

/* Leaks are lowered, low counts and wrong flags are counted anew, and then content is as before. */
static void repairs(void **unused)
{
    struct file f = victim(3);
    struct qcow2_check check = {0};
    const char *path = scratch("repair.qcow2");
    u8 *before = malloc(DISK), *after = malloc(DISK);
    struct image *img = must_open(scratch("victim.qcow2"), DISK_FORMAT_QCOW2, 0);
    u64 block, table;
    struct err e;

    assert_int_equal(image_read(img, before, 0, DISK), 0);
    image_close(img);
    memcpy(&table, f.bytes + 48, 8);
    table = __builtin_bswap64(table);
    memcpy(&block, f.bytes + table, 8);
    block = __builtin_bswap64(block);
    for (int kind = 0; kind < 3; kind++) {
        u8 *copy = malloc(f.length);

        memcpy(copy, f.bytes, f.length);
        if (kind == 0)
            put(copy + block + (f.length / CLUSTER + 3) * 2, 2, 1); /* beyond the file: no leak that matters */
        if (kind == 1)
            put(copy + block + 20 * 2, 2, 0);
        if (kind == 2) {
            memset(copy + block, 0, CLUSTER);
            put(copy + 72, 8, 1); /* dirty: opening for writing repairs */
        }
        store(path, copy, f.length);
        if (kind == 1) {
            check = (struct qcow2_check){0};
            img = must_open(path, DISK_FORMAT_QCOW2, IMAGE_WRITE | IMAGE_REPAIR);
            assert_int_equal(qcow2_check(img, QCOW2_REPAIR_ALL, &check, &e), 0);
            assert_true(check.errors && check.fixed >= check.errors);
            image_close(img);
        }
        img = must_open(path, DISK_FORMAT_QCOW2, IMAGE_WRITE);
        assert_int_equal(image_read(img, after, 0, DISK), 0);
        assert_memory_equal(before, after, DISK);
        assert_int_equal(image_write(img, after, DISK - 5 * CLUSTER, 4 * CLUSTER), 0);
        image_close(img);
        if (kind)
            must_be_clean(path);
        free(copy);
    }
    free(before);
    free(after);
    free(f.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_numbers), cmocka_unit_test(truncated_files),         cmocka_unit_test(flipped_bits),
        cmocka_unit_test(wild_entries),   cmocka_unit_test(other_formats_are_known), cmocka_unit_test(repairs),
    };

    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
