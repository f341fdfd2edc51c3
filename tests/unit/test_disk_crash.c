/* Power loss: whatever subset of the unsynced writes reached the disk, a qcow2 image has no corruption afterwards and
 * everything that was flushed is there.
 *
 * The linker's --wrap lets every write of the image pass through a journal. A crash is a file made from the writes up
 * to the last fdatasync, plus any of the later ones, each cut at a sector or not. */
#include "disk_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>
#include <cmocka.h>

enum { JOURNAL_MAX = 100000, DISK = 10 << 20 /* more L2 tables of small clusters than the cache holds */ };

static struct entry {
    enum { WROTE, SIZED, PUNCHED } kind;
    u64 offset, length;
    u8 *bytes;
    int epoch; /* number of syncs before it */
} journal[JOURNAL_MAX];
static int journal_count, epoch, watched_fd = -1;

ssize_t __real_pwritev(int fd, const struct iovec *iov, int count, off_t offset);
int __real_fdatasync(int fd);
int __real_ftruncate(int fd, off_t length);
int __real_fallocate(int fd, int mode, off_t offset, off_t length);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int count, off_t offset);
int __wrap_fdatasync(int fd);
int __wrap_ftruncate(int fd, off_t length);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t length);
/* What <unistd.h> and others call them when off_t is asked to have 64 bits. */
ssize_t __wrap_pwritev64(int, const struct iovec *, int, off_t) __attribute__((alias("__wrap_pwritev")));
int __wrap_ftruncate64(int, off_t) __attribute__((alias("__wrap_ftruncate")));
int __wrap_fallocate64(int, int, off_t, off_t) __attribute__((alias("__wrap_fallocate")));

static struct entry *note(int kind, u64 offset, u64 length)
{
    struct entry *j = &journal[journal_count++];

    assert_true(journal_count < JOURNAL_MAX);
    *j = (struct entry){kind, offset, length, NULL, epoch};
    return j;
}

ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
    ssize_t n = __real_pwritev(fd, iov, count, offset);

    if (fd == watched_fd && n > 0) {
        struct entry *j = note(WROTE, (u64)offset, (u64)n);
        struct iov_cursor c = {iov, count, 0};

        j->bytes = malloc((size_t)n);
        iov_drain(&c, j->bytes, (size_t)n);
    }
    return n;
}

int __wrap_fdatasync(int fd)
{
    epoch += fd == watched_fd;
    return __real_fdatasync(fd);
}

int __wrap_ftruncate(int fd, off_t length)
{
    if (fd == watched_fd)
        note(SIZED, (u64)length, 0);
    return __real_ftruncate(fd, length);
}

int __wrap_fallocate(int fd, int mode, off_t offset, off_t length)
{
    if (fd == watched_fd)
        note(PUNCHED, (u64)offset, (u64)length);
    return __real_fallocate(fd, mode, offset, length);
}

static void journal_clear(void)
{
    for (int i = 0; i < journal_count; i++)
        free(journal[i].bytes);
    journal_count = epoch = 0;
}

static void apply(int fd, const struct entry *j, bool torn)
{
    u64 from = 0, to = j->length;

    if (j->kind == SIZED) {
        assert_int_equal(__real_ftruncate(fd, (off_t)j->offset), 0);
    } else if (j->kind == PUNCHED) {
        __real_fallocate(fd, 3, (off_t)j->offset, (off_t)j->length);
    } else {
        if (torn) { /* sectors are whole */
            from = rng(to / SECTOR_SIZE + 1) * SECTOR_SIZE;
            to = from + rng((to - from) / SECTOR_SIZE + 1) * SECTOR_SIZE;
        }
        assert_int_equal(pwrite(fd, j->bytes + from, to - from, (off_t)(j->offset + from)), to - from);
    }
}

/* An open copy. */
static int copy_file(const char *from, const char *to)
{
    int in = open(from, O_RDONLY), out = open(to, O_RDWR | O_CREAT | O_TRUNC, 0600);
    off_t end = lseek(in, 0, SEEK_END);

    assert_true(in >= 0 && out >= 0 && end > 0);
    assert_int_equal(lseek(in, 0, SEEK_SET), 0);
    while (lseek(in, 0, SEEK_CUR) < end)
        assert_true(sendfile(out, in, NULL, (size_t)end) > 0);
    close(in);
    return out;
}

/* Power fails after journal entry `end`, with `synced` epochs on stable storage. Sizes are ordered before what depends
 * on them, as a sync of data makes them. */
static void crash(const char *before, const char *after, int end, int synced)
{
    int fd;

    fd = copy_file(before, after);
    for (int i = 0; i < end; i++)
        if (journal[i].epoch < synced || journal[i].kind == SIZED || rng(2))
            apply(fd, &journal[i], journal[i].epoch >= synced && rng(3) == 0);
    close(fd);
}

struct history {
    const char *before;            /* the file as it was when the journal began */
    struct shadow now;             /* what has been written */
    u8 *flushed, *touched;         /* content at the last flush; sectors changed since */
    int flushed_at, flushed_epoch; /* journal at the end of that flush */
};

static void change(struct history *h, struct image *img)
{
    u64 at = ALIGN_DOWN(rng(DISK), SECTOR_SIZE), most = rng(5) ? KIB(16) : MIB(3);
    u64 length = SECTOR_SIZE * (1 + rng(most / SECTOR_SIZE));

    length = MIN(length, DISK - at);
    memset(h->touched + at / SECTOR_SIZE, 1, length / SECTOR_SIZE);
    switch (rng(5)) {
    case 0:
        assert_int_equal(image_discard(img, at, length), 0);
        shadow_adopt(&h->now, img, at, length);
        break;
    case 1:
        assert_int_equal(image_write_zeroes(img, at, length), 0);
        memset(h->now.content + at, 0, length);
        break;
    default:
        memset(h->now.content + at, 1 + (int)rng(255), length);
        assert_int_equal(image_write(img, h->now.content + at, at, length), 0);
    }
}

/* Untouched sectors hold what was flushed. */
static void verify(const struct history *h, const char *path)
{
    struct image *img = must_open(path, DISK_FORMAT_QCOW2, IMAGE_WRITE);
    u8 *content = malloc(DISK);

    assert_int_equal(image_read(img, content, 0, DISK), 0);
    for (u64 s = 0; s < DISK / SECTOR_SIZE; s++)
        if (!h->touched[s] && memcmp(content + s * SECTOR_SIZE, h->flushed + s * SECTOR_SIZE, SECTOR_SIZE))
            fail_msg("sector %llu is lost", (unsigned long long)s);
    image_close(img);
    free(content);
}

static void no_corruption(const char *path)
{
    struct qcow2_check check = {0};
    struct image *img = must_open(path, DISK_FORMAT_QCOW2, IMAGE_NO_BACKING);
    struct err e;

    assert_int_equal(qcow2_check(img, QCOW2_REPAIR_NONE, &check, &e), 0);
    image_close(img);
    if (check.errors)
        must_check(path);
    assert_int_equal(check.errors, 0);
}

/* Some moment since the last flush: any, or just before a sync, when most is in the balance. */
static int moment(const struct history *h)
{
    int end = h->flushed_at + (int)rng((u64)(journal_count - h->flushed_at) + 1);

    if (rng(3) && end > h->flushed_at)
        while (end < journal_count && journal[end].epoch == journal[end - 1].epoch)
            end++;
    return end;
}

/* The journal sees everything: replayed whole, it makes the file that is there. */
static void journal_is_complete(const struct history *h, const char *path)
{
    crash(h->before, scratch("replayed.qcow2"), journal_count, epoch + 1);
    assert_int_equal(shell("cmp %s replayed.qcow2", path), 0);
}

static void crashes(const struct history *h, int n)
{
    const char *after = scratch("after.qcow2");

    while (n--) {
        int end = moment(h);

        crash(h->before, after, end, end > h->flushed_at ? journal[end - 1].epoch : h->flushed_epoch);
        no_corruption(after);
        verify(h, after);
    }
}

static void flush(struct history *h, struct image *img)
{
    assert_int_equal(image_flush(img), 0);
    crashes(h, 4);
    memcpy(h->flushed, h->now.content, DISK);
    memset(h->touched, 0, DISK / SECTOR_SIZE);
    h->flushed_at = journal_count;
    h->flushed_epoch = epoch;
    crashes(h, 1);
}

/* One life of an image: changes and flushes. */
static void life(const char *path, struct history *h)
{
    struct image *img;

    h->before = scratch("before.qcow2");
    assert_int_equal(shell("cp %s %s", path, h->before), 0);
    img = must_open(path, DISK_FORMAT_QCOW2, IMAGE_WRITE);
    journal_clear();
    h->flushed_at = h->flushed_epoch = 0;
    watched_fd = img->fd;
    for (int i = 0; i < 30; i++) {
        change(h, img);
        if (rng(8) == 0)
            shadow_compare(&h->now, img); /* pushes tables out of the cache */
        if (rng(6) == 0)
            flush(h, img);
    }
    flush(h, img);
    image_close(img);
    watched_fd = -1;
    journal_is_complete(h, path);
}

static void power_loss(void **unused)
{
    static const struct {
        u32 cluster_bits, refcount_order;
    } shapes[] = {{9, 6}, {16, 4}, {9, 4}, {12, 4}}; /* the first: its refcount table grows */

    for (int round = 0; round < 4; round++) {
        struct qcow2_create c = QCOW2_CREATE_DEFAULT;
        struct history h = {NULL, shadow_new(DISK), calloc(1, DISK), calloc(1, DISK / SECTOR_SIZE), 0, 0};
        const char *path = scratch("crash.qcow2");

        c.size = DISK;
        c.cluster_bits = shapes[round % 4].cluster_bits;
        c.refcount_order = shapes[round % 4].refcount_order;
        must_create(path, &c);
        for (int n = 0; n < 3; n++)
            life(path, &h);
        must_be_clean(path);
        shadow_free(&h.now);
        free(h.flushed);
        free(h.touched);
    }
    journal_clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(power_loss)};

    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
