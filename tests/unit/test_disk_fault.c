/* A host that fails: writes without space, file systems without holes, syncs that report a loss. Requests fail with an
 * error code, what succeeded stays true, and a qcow2 image has leaks at worst. --wrap (see tests/unit/meson.build) puts
 * the faults in. */
#include "disk_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>
#include <cmocka.h>

enum { DISK = 4 << 20 };

static int fault_every; /* one call in so many fails; 0: none */
static bool sync_fault;
static int failures; /* requests that failed */

ssize_t __real_pwritev(int fd, const struct iovec *iov, int count, off_t offset);
int __real_fdatasync(int fd);
int __real_ftruncate(int fd, off_t length);
int __real_fallocate(int fd, int mode, off_t offset, off_t length);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int count, off_t offset);
int __wrap_fdatasync(int fd);
int __wrap_ftruncate(int fd, off_t length);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t length);
ssize_t __wrap_pwritev64(int, const struct iovec *, int, off_t) __attribute__((alias("__wrap_pwritev")));
int __wrap_ftruncate64(int, off_t) __attribute__((alias("__wrap_ftruncate")));
int __wrap_fallocate64(int, int, off_t, off_t) __attribute__((alias("__wrap_fallocate")));

static bool faulty(int error)
{
    if (!fault_every || rng((u64)fault_every))
        return false;
    errno = error;
    return true;
}

/* Sometimes a part is written before space ends. */
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
    if (!faulty(ENOSPC))
        return __real_pwritev(fd, iov, count, offset);
    if (rng(2) && iov->iov_len > 1)
        return __real_pwritev(fd, &(struct iovec){iov->iov_base, iov->iov_len / 2}, 1, offset);
    return -1;
}

int __wrap_ftruncate(int fd, off_t length)
{
    return faulty(ENOSPC) ? -1 : __real_ftruncate(fd, length);
}

/* File systems without holes say EOPNOTSUPP. */
int __wrap_fallocate(int fd, int mode, off_t offset, off_t length)
{
    return faulty(EOPNOTSUPP) ? -1 : __real_fallocate(fd, mode, offset, length);
}

int __wrap_fdatasync(int fd)
{
    if (!sync_fault)
        return __real_fdatasync(fd);
    errno = EIO;
    return -1;
}

struct trial {
    struct shadow s;
    u8 *unsure; /* sectors whose content a failed request left open */
};

static void change(struct trial *t, struct image *img)
{
    u64 at = ALIGN_DOWN(rng(DISK), SECTOR_SIZE), most = rng(5) ? KIB(16) : KIB(900);
    u64 length = SECTOR_SIZE * (1 + rng(most / SECTOR_SIZE));
    bool zero = rng(4) == 0;
    int r;

    length = MIN(length, DISK - at);
    memset(t->s.content + at, zero ? 0 : 1 + (int)rng(255), length);
    r = zero ? image_write_zeroes(img, at, length) : image_write(img, t->s.content + at, at, length);
    assert_true(r == 0 || r == -ENOSPC);
    failures += r < 0;
    memset(t->unsure + at / SECTOR_SIZE, r < 0, length / SECTOR_SIZE);
    if (rng(10) == 0)
        image_flush(img);
}

static void verify(const struct trial *t, const char *path)
{
    struct image *img = must_open(path, DISK_FORMAT_QCOW2, 0);
    u8 *content = malloc(DISK);

    assert_int_equal(image_read(img, content, 0, DISK), 0);
    for (u64 i = 0; i < DISK / SECTOR_SIZE; i++)
        if (!t->unsure[i] && memcmp(content + i * SECTOR_SIZE, t->s.content + i * SECTOR_SIZE, SECTOR_SIZE))
            fail_msg("sector %llu is not what was written", (unsigned long long)i);
    image_close(img);
    free(content);
}

static void without_space(const struct qcow2_create *shape)
{
    struct trial t = {shadow_new(DISK), calloc(1, DISK / SECTOR_SIZE)};
    struct qcow2_create c = *shape;
    const char *path = scratch("full.qcow2");

    c.size = DISK;
    must_create(path, &c);
    for (int round = 0; round < 3; round++) {
        struct image *img = must_open(path, DISK_FORMAT_QCOW2, IMAGE_WRITE);

        for (int i = 0; i < 150; i++) {
            fault_every = rng(3) ? 20 : 0;
            change(&t, img);
        }
        fault_every = 0;
        assert_int_equal(image_flush(img), 0);
        image_close(img);
        assert_int_equal(must_check(path).errors, 0);
        verify(&t, path);
    }
    shadow_free(&t.s);
    free(t.unsure);
}

static void disk_full(void **unused)
{
    static const struct qcow2_create shapes[] = {{.version = 3, .cluster_bits = 16, .refcount_order = 4},
                                                 {.version = 3, .cluster_bits = 9, .refcount_order = 6},
                                                 {.version = 2, .cluster_bits = 12, .refcount_order = 4}};

    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
        without_space(&shapes[i]);
    assert_true(failures > 20);
}

/* The host says once that it lost data; a later sync would say that all is well. Ours does not. */
static void a_failed_sync_is_remembered(void **unused)
{
    struct qcow2_create c = QCOW2_CREATE_DEFAULT;
    struct image *img;
    u8 sector[SECTOR_SIZE] = {1};

    c.size = DISK;
    must_create(scratch("lost.qcow2"), &c);
    img = must_open(scratch("lost.qcow2"), DISK_FORMAT_QCOW2, IMAGE_WRITE);
    assert_int_equal(image_write(img, sector, 0, sizeof(sector)), 0);
    sync_fault = true;
    assert_int_equal(image_flush(img), -EIO);
    sync_fault = false;
    assert_int_equal(image_flush(img), -EIO);
    image_close(img);
}

/* Where holes cannot be made, zeros are written. */
static void raw_without_holes(void **unused)
{
    struct shadow s = shadow_new(DISK);
    struct image *img;

    assert_int_equal(shell("truncate -s %d solid.raw", DISK), 0);
    img = must_open(scratch("solid.raw"), DISK_FORMAT_RAW, IMAGE_WRITE);
    memset(s.content, 9, DISK);
    assert_int_equal(image_write(img, s.content, 0, DISK), 0);
    memset(s.content + 1000, 0, MIB(2));
    for (int i = 0, r = -1; r < 0; i++) {
        assert_true(i < 1000);
        fault_every = 2; /* the fallocate fails, some of the writes too */
        r = image_write_zeroes(img, 1000, MIB(2));
        fault_every = 0;
    }
    shadow_compare(&s, img);
    image_close(img);
    shadow_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(disk_full), cmocka_unit_test(a_failed_sync_is_remembered),
                                       cmocka_unit_test(raw_without_holes)};

    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
