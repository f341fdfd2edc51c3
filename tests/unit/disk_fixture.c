/* Shared by the disk tests: see disk_fixture.h. */
#include "disk_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char folder[32];
static u64 rng_state;

int scratch_setup(void **state)
{
    const char *seed = getenv("SEED");

    /* in memory, where syncs are fast */
    snprintf(folder, sizeof(folder), "%s/skerry-disk-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(folder))
        return -1;
    rng_state = seed ? strtoull(seed, NULL, 0) : (u64)getpid() * 0x9e3779b97f4a7c15ull ^ (u64)time(NULL);
    printf("SEED=%#llx\n", (unsigned long long)rng_state);
    return 0;
}

int scratch_teardown(void **state)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}

const char *scratch(const char *name)
{
    static char paths[64][64];
    char path[sizeof(paths[0])];
    int i = 0;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    while (*paths[i] && strcmp(paths[i], path))
        assert_true(++i < (int)ARRAY_SIZE(paths));
    return strcpy(paths[i], path);
}

int shell(const char *fmt, ...)
{
    char command[2048];
    int n = snprintf(command, sizeof(command), "cd %s && exec >last.log 2>&1; ", folder);
    va_list ap;
    int status;

    va_start(ap, fmt);
    vsnprintf(command + n, sizeof(command) - (size_t)n, fmt, ap);
    va_end(ap);
    status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool have_qemu_img(void)
{
    return !shell("command -v qemu-img");
}

u64 rng(u64 below)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return below ? rng_state % below : 0;
}

void rng_fill(u8 *buf, size_t length)
{
    for (size_t i = 0; i < length; i++)
        buf[i] = (u8)rng(256);
}

struct shadow shadow_new(u64 size)
{
    return (struct shadow){calloc(1, size), size};
}

void shadow_free(struct shadow *s)
{
    free(s->content);
}

void shadow_adopt(struct shadow *s, struct image *img, u64 offset, u64 length)
{
    assert_int_equal(image_read(img, s->content + offset, offset, length), 0);
}

/* Mostly small pieces, sometimes large ones; mostly sectors, sometimes bytes. */
static void random_range(const struct shadow *s, u64 *offset, u64 *length)
{
    u64 most = rng(4) ? 8192 : rng(4) ? KIB(256) : MIB(3), wanted = 1 + rng(most);

    *offset = rng(s->size);
    *length = MIN(wanted, s->size - *offset);
    if (rng(3)) {
        *offset = ALIGN_DOWN(*offset, SECTOR_SIZE);
        *length = MIN(ALIGN_UP(*length, SECTOR_SIZE), s->size - *offset);
    }
}

/* Splits a buffer into random pieces, empty ones among them. */
static int random_iov(struct iovec *iov, int max, u8 *buf, u64 length)
{
    int n = 0;

    while (n < max - 1 && length) {
        size_t piece = rng(length + 1);

        iov[n++] = (struct iovec){buf, piece};
        buf += piece;
        length -= piece;
    }
    iov[n++] = (struct iovec){buf, length};
    return n;
}

static void step_read(struct shadow *s, struct image *img, u64 offset, u64 length)
{
    u8 *buf = malloc(length);
    struct iovec iov[100];

    memset(buf, 0xa5, length);
    assert_int_equal(image_readv(img, iov, random_iov(iov, 1 + (int)rng(100), buf, length), offset, length), 0);
    assert_memory_equal(buf, s->content + offset, length);
    free(buf);
}

static void step_write(struct shadow *s, struct image *img, u64 offset, u64 length)
{
    struct iovec iov[100];

    rng_fill(s->content + offset, MIN(length, 4096)); /* the rest: what is cheap */
    if (length > 4096)
        memset(s->content + offset + 4096, (int)rng(3) * 7, length - 4096);
    assert_int_equal(
        image_writev(img, iov, random_iov(iov, 1 + (int)rng(100), s->content + offset, length), offset, length), 0);
}

void shadow_step(struct shadow *s, struct image *img)
{
    u64 offset, length;

    random_range(s, &offset, &length);
    switch (rng(20)) {
    case 0:
        assert_int_equal(image_flush(img), 0);
        break;
    case 1 ... 2:
        assert_int_equal(image_discard(img, offset, length), 0);
        shadow_adopt(s, img, offset, length);
        break;
    case 3 ... 5:
        assert_int_equal(image_write_zeroes(img, offset, length), 0);
        memset(s->content + offset, 0, length);
        break;
    case 6 ... 10:
        step_read(s, img, offset, length);
        break;
    default:
        step_write(s, img, offset, length);
    }
}

void shadow_compare(struct shadow *s, struct image *img)
{
    u8 *buf = malloc(MIB(1));

    assert_int_equal(img->size, s->size);
    for (u64 at = 0; at < s->size; at += MIB(1)) {
        u64 n = MIN(MIB(1), s->size - at);

        assert_int_equal(image_read(img, buf, at, n), 0);
        assert_memory_equal(buf, s->content + at, n);
    }
    free(buf);
}

struct image *must_open(const char *path, enum disk_format format, unsigned flags)
{
    struct err e = {0};
    struct image *img = NULL;

    if (image_open(path, format, flags, &img, &e) < 0)
        fail_msg("%s", e.text);
    return img;
}

void must_create(const char *path, const struct qcow2_create *c)
{
    struct err e = {0};
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    if (qcow2_create(fd, path, c, &e) < 0)
        fail_msg("%s", e.text);
    close(fd);
}

static void print_finding(void *ctx, const char *sentence)
{
    print_message("%s\n", sentence);
}

struct qcow2_check must_check(const char *path)
{
    struct qcow2_check check = {.report = print_finding};
    struct image *img = must_open(path, DISK_FORMAT_QCOW2, IMAGE_NO_BACKING | IMAGE_REPAIR);
    struct err e = {0};

    if (qcow2_check(img, QCOW2_REPAIR_NONE, &check, &e) < 0)
        fail_msg("%s", e.text);
    image_close(img);
    return check;
}

void must_be_clean(const char *path)
{
    struct qcow2_check check = must_check(path);

    assert_int_equal(check.errors, 0);
    assert_int_equal(check.leaks, 0);
    if (have_qemu_img())
        if (shell("qemu-img check %s", path))
            fail_msg("qemu-img check %s: see last.log", path);
}
