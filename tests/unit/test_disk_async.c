/* Disks as a VM uses them: many requests in flight through the event loop, by io_uring and by threads alone, against a
 * shadow.
 *
 * The disk is cut into lanes; each lane has one request in flight at a time, so what a read must see is known although
 * requests of different lanes overtake each other. */
#include "disk_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { LANES = 24, LANE_SIZE = 1 << 19, REQUESTS = 3000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

struct run {
    struct event_loop *loop;
    struct disk *disk;
    struct shadow shadow;
    int left, in_flight;
    struct lane {
        struct run *run;
        struct disk_request r;
        struct iovec iov[20];
        u8 *buf;
        u64 base;
        bool discarded;
    } lanes[LANES];
};

static void lane_next(struct lane *l);

static void cut(struct lane *l, u64 length)
{
    u8 *p = l->buf;

    l->r.iov_count = 0;
    while (l->r.iov_count < 19 && length) {
        size_t n = MIN(SECTOR_SIZE * (1 + rng(32)), length);

        l->iov[l->r.iov_count++] = (struct iovec){p, n};
        p += n;
        length -= n;
    }
    l->iov[l->r.iov_count++] = (struct iovec){p, length};
}

static void check_read(struct lane *l)
{
    assert_memory_equal(l->buf, l->run->shadow.content + l->r.offset, l->r.length);
}

static void lane_done(struct disk_request *r, int result)
{
    struct lane *l = r->ctx;
    u8 *content = l->run->shadow.content + r->offset;

    assert_int_equal(result, 0);
    l->run->in_flight--;
    if (r->op == DISK_READ)
        check_read(l);
    else if (r->op == DISK_WRITE)
        memcpy(content, l->buf, r->length);
    else if (r->op == DISK_WRITE_ZEROES)
        memset(content, 0, r->length);
    else if (r->op == DISK_DISCARD)
        l->discarded = true;
    lane_next(l);
}

static enum disk_op random_op(void)
{
    static const enum disk_op ops[] = {DISK_READ,  DISK_READ, DISK_READ,         DISK_WRITE, DISK_WRITE,  DISK_WRITE,
                                       DISK_WRITE, DISK_READ, DISK_WRITE_ZEROES, DISK_FLUSH, DISK_DISCARD};

    return ops[rng(ARRAY_SIZE(ops))];
}

/* What was discarded has undefined content until it is written: the next request writes it. */
static void rewrite(struct lane *l)
{
    l->discarded = false;
    l->r.op = DISK_WRITE;
    l->iov[0] = (struct iovec){l->buf, l->r.length};
    l->r.iov_count = 1;
    memset(l->buf, (int)rng(256), l->r.length);
    l->run->in_flight++;
    disk_submit(l->run->disk, &l->r);
}

static void lane_next(struct lane *l)
{
    struct run *run = l->run;
    u64 at = ALIGN_DOWN(rng(LANE_SIZE), SECTOR_SIZE), most = rng(3) ? 8192 : LANE_SIZE;
    u64 length = SECTOR_SIZE * (1 + rng(most / SECTOR_SIZE));

    if (l->discarded) {
        rewrite(l);
        return;
    }
    if (!run->left || !run->left--) {
        if (!run->in_flight)
            event_loop_stop(run->loop);
        return;
    }
    l->r = (struct disk_request){.op = random_op(),
                                 .offset = l->base + at,
                                 .length = MIN(length, LANE_SIZE - at),
                                 .iov = l->iov,
                                 .done = lane_done,
                                 .ctx = l};
    cut(l, l->r.length);
    if (l->r.op == DISK_WRITE)
        memset(l->buf, (int)rng(256), l->r.length), rng_fill(l->buf, MIN(l->r.length, 600));
    run->in_flight++;
    disk_submit(run->disk, &l->r);
}

static void start(struct run *run, const char *path, const struct disk_options *o)
{
    struct err e = {0};

    if (event_loop_create(&lock, &run->loop, &e) < 0 || disk_open(path, o, run->loop, &run->disk, &e) < 0)
        fail_msg("%s", e.text);
    assert_int_equal(disk_size(run->disk), LANES * LANE_SIZE);
    run->left = REQUESTS;
    for (int i = 0; i < LANES; i++) {
        run->lanes[i] = (struct lane){.run = run, .buf = malloc(LANE_SIZE), .base = (u64)i * LANE_SIZE};
        lane_next(&run->lanes[i]);
    }
}

static void finish(struct run *run)
{
    disk_close(run->disk);
    event_loop_free(run->loop);
    for (int i = 0; i < LANES; i++)
        free(run->lanes[i].buf);
}

static void load(const char *path, const struct disk_options *o, struct shadow *s)
{
    struct run *run = calloc(1, sizeof(*run));

    run->shadow = *s;
    start(run, path, o);
    event_loop_run(run->loop);
    assert_int_equal(run->in_flight, 0);
    finish(run);
    free(run);
}

static void compare(const char *path, struct shadow *s)
{
    struct image *img = must_open(path, DISK_FORMAT_AUTO, 0);

    shadow_compare(s, img);
    image_close(img);
}

static void both_ways(const char *path, enum disk_format format)
{
    struct shadow s = shadow_new(LANES * LANE_SIZE);

    for (int i = 0; i < 2; i++) {
        load(path, &(struct disk_options){.format = format, .io = i ? DISK_IO_THREADS : DISK_IO_AUTO}, &s);
        compare(path, &s);
    }
    shadow_free(&s);
}

static const char *empty_raw(const char *name)
{
    const char *path = scratch(name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, LANES * LANE_SIZE), 0);
    close(fd);
    return path;
}

static const char *empty_qcow2(const char *name, u32 cluster_bits, const char *backing)
{
    struct qcow2_create c = QCOW2_CREATE_DEFAULT;
    const char *path = scratch(name);

    c.size = LANES * LANE_SIZE;
    c.cluster_bits = cluster_bits;
    c.backing = backing;
    c.backing_format = backing ? "raw" : NULL;
    must_create(path, &c);
    return path;
}

static void raw_load(void **unused)
{
    both_ways(empty_raw("load.raw"), DISK_FORMAT_AUTO);
    both_ways(empty_raw("load.raw"), DISK_FORMAT_RAW);
}

static void qcow2_load(void **unused)
{
    static const u32 cluster_bits[] = {16, 9, 12, 21};

    empty_raw("under.raw");
    for (size_t i = 0; i < ARRAY_SIZE(cluster_bits); i++) {
        const char *path = empty_qcow2("load.qcow2", cluster_bits[i], i % 2 ? "under.raw" : NULL);

        both_ways(path, DISK_FORMAT_AUTO);
        must_be_clean(path);
    }
}

static void snapshot_load(void **unused)
{
    struct shadow s = shadow_new(LANES * LANE_SIZE), zeros = shadow_new(LANES * LANE_SIZE);
    const char *path = empty_raw("kept.raw");

    load(path, &(struct disk_options){.format = DISK_FORMAT_RAW, .snapshot = true}, &s);
    compare(path, &zeros);
    shadow_free(&s);
    shadow_free(&zeros);
}

struct waiter {
    struct event_loop *loop;
    int result;
    bool called;
};

static void note(struct disk_request *r, int result)
{
    struct waiter *w = r->ctx;

    w->result = result;
    w->called = true;
    if (w->loop)
        event_loop_stop(w->loop);
}

static int result_of(struct disk *d, struct event_loop *loop, enum disk_op op, u64 offset, u64 length,
                     size_t buf_length)
{
    u8 *buf = calloc(1, MAX(buf_length, 1ul));
    struct iovec iov = {buf, buf_length};
    struct waiter w = {.loop = loop};
    struct disk_request r = {
        .op = op, .offset = offset, .length = length, .iov = &iov, .iov_count = 1, .done = note, .ctx = &w};

    disk_submit(d, &r);
    assert_false(w.called); /* never from inside submit */
    event_loop_run(loop);
    assert_true(w.called);
    free(buf);
    return w.result;
}

static void bad_requests(void **unused)
{
    struct disk_options o = {.format = DISK_FORMAT_RAW};
    const char *path = empty_raw("bad.raw");
    u64 size = LANES * LANE_SIZE;
    struct event_loop *loop;
    struct disk *d;
    struct err e;

    assert_int_equal(event_loop_create(&lock, &loop, &e), 0);
    assert_int_equal(disk_open(path, &o, loop, &d, &e), 0);
    assert_int_equal(result_of(d, loop, DISK_READ, size, 512, 512), -EINVAL);
    assert_int_equal(result_of(d, loop, DISK_READ, size - 512, 1024, 1024), -EINVAL);
    assert_int_equal(result_of(d, loop, DISK_WRITE, UINT64_MAX - 511, 512, 512), -EINVAL);
    assert_int_equal(result_of(d, loop, DISK_READ, 0, 512, 511), -EINVAL);
    assert_int_equal(result_of(d, loop, DISK_READ, 1, 512, 512), -EINVAL);
    assert_int_equal(result_of(d, loop, DISK_DISCARD, 512, UINT64_MAX & ~511ull, 0), -EINVAL);
    assert_int_equal(result_of(d, loop, DISK_READ, 0, 0, 0), 0);
    assert_int_equal(result_of(d, loop, (enum disk_op)77, 0, 512, 512), -EINVAL);
    disk_close(d);
    o.readonly = true;
    assert_int_equal(disk_open(path, &o, loop, &d, &e), 0);
    assert_true(disk_readonly(d));
    assert_int_equal(result_of(d, loop, DISK_WRITE, 0, 512, 512), -EROFS);
    assert_int_equal(result_of(d, loop, DISK_WRITE_ZEROES, 0, 512, 0), -EROFS);
    assert_int_equal(result_of(d, loop, DISK_READ, 0, 512, 512), 0);
    assert_int_equal(result_of(d, loop, DISK_FLUSH, 0, 0, 0), 0);
    disk_close(d);
    event_loop_free(loop);
}

/* Close completes what is in flight. */
static void close_waits(void **unused)
{
    struct disk_options o = {0};
    const char *path = empty_qcow2("close.qcow2", 16, NULL);
    u8 *buf = malloc(MIB(4));
    struct iovec iov = {buf, MIB(4)};
    struct waiter w[3] = {0};
    struct disk_request r[3];
    struct event_loop *loop;
    struct disk *d;
    struct err e;

    memset(buf, 0x77, MIB(4));
    assert_int_equal(event_loop_create(&lock, &loop, &e), 0);
    assert_int_equal(disk_open(path, &o, loop, &d, &e), 0);
    for (int i = 0; i < 3; i++) {
        r[i] = (struct disk_request){.op = DISK_WRITE,
                                     .offset = MIB(4) * (u64)i,
                                     .length = MIB(4),
                                     .iov = &iov,
                                     .iov_count = 1,
                                     .done = note,
                                     .ctx = &w[i]};
        disk_submit(d, &r[i]);
    }
    disk_close(d);
    for (int i = 0; i < 3; i++)
        assert_true(w[i].called && !w[i].result);
    event_loop_free(loop);
    must_be_clean(path);
    free(buf);
}

static void failures_have_a_sentence(void **unused)
{
    static const struct disk_options o[] = {{0}, {.format = DISK_FORMAT_QCOW2}, {.snapshot = true}, {.readonly = true}};
    struct event_loop *loop;
    struct disk *d = NULL;
    struct err e;

    assert_int_equal(event_loop_create(&lock, &loop, &e), 0);
    for (size_t i = 0; i < ARRAY_SIZE(o); i++) {
        assert_int_equal(disk_open(scratch("missing"), &o[i], loop, &d, &e), -ENOENT);
        assert_non_null(strstr(e.text, "missing"));
    }
    assert_true(disk_open(empty_raw("x.raw"), &o[1], loop, &d, &e) < 0);
    assert_non_null(strstr(e.text, "not a qcow2 image"));
    assert_true(disk_open("/dev/null", &o[0], loop, &d, &e) < 0);
    assert_true(disk_open("/tmp", &o[0], loop, &d, &e) < 0);
    assert_null(d);
    event_loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(raw_load),     cmocka_unit_test(qcow2_load),  cmocka_unit_test(snapshot_load),
        cmocka_unit_test(bad_requests), cmocka_unit_test(close_waits), cmocka_unit_test(failures_have_a_sentence),
    };

    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
