/* qcow2 against qemu-img and qemu-io, both ways: what they make we read and change, what we make they find clean and
 * equal. Skipped where qemu-utils is not installed. */
#include "disk_fixture.h"
#include "disk/image_make.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define MUST(...) assert_int_equal(shell(__VA_ARGS__), 0)

/* Writes what the shadow holds into a raw file. */
static void dump(const struct shadow *s, const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, s->content, s->size), s->size);
    close(fd);
}

static void steps(struct shadow *s, struct image *img, int n)
{
    for (int i = 0; i < n; i++)
        shadow_step(s, img);
}

/* Random content of a kind that has holes, zeros and compressible parts. */
static struct shadow patchwork(u64 size)
{
    struct shadow s = shadow_new(size);

    for (u64 at = 0; at < size; at += KIB(32)) {
        u64 n = MIN(KIB(32), size - at);

        if (rng(3) == 0)
            rng_fill(s.content + at, n);
        else if (rng(2))
            memset(s.content + at, (int)rng(256), n);
    }
    return s;
}

/* Each set of qemu-img's options: its image holds what it should; after our changes it is clean and equal for
 * qemu-img. */
static void made_by_qemu(void **unused)
{
    static const char *const options[] = {
        "compat=1.1",
        "compat=0.10",
        "compat=1.1,lazy_refcounts=on",
        "cluster_size=512",
        "cluster_size=4096",
        "cluster_size=2M",
        "refcount_bits=1",
        "refcount_bits=2",
        "refcount_bits=8",
        "refcount_bits=64",
        "preallocation=metadata",
        "preallocation=falloc",
        "cluster_size=1024,refcount_bits=32",
    };

    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        struct shadow s = patchwork(MIB(10) + 1024);
        struct image *img;

        dump(&s, scratch("in.raw"));
        MUST("qemu-img convert -f raw -O qcow2 -o %s in.raw q.qcow2", options[i]);
        img = must_open(scratch("q.qcow2"), DISK_FORMAT_AUTO, IMAGE_WRITE);
        shadow_compare(&s, img);
        steps(&s, img, 200);
        shadow_compare(&s, img);
        image_close(img);
        must_be_clean(scratch("q.qcow2"));
        dump(&s, scratch("want.raw"));
        MUST("qemu-img compare -f raw -F qcow2 want.raw q.qcow2");
        shadow_free(&s);
    }
}

static void compressed_by_qemu(void **unused)
{
    static const char *const options[] = {
        "compression_type=zlib", "compression_type=zstd", "cluster_size=512", "cluster_size=2M,compression_type=zstd",
        "compat=0.10",
    };

    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        struct shadow s = patchwork(MIB(5));
        struct image *img;

        dump(&s, scratch("in.raw"));
        MUST("qemu-img convert -c -f raw -O qcow2 -o %s in.raw c.qcow2", options[i]);
        img = must_open(scratch("c.qcow2"), DISK_FORMAT_AUTO, IMAGE_WRITE);
        shadow_compare(&s, img);
        steps(&s, img, 150);
        shadow_compare(&s, img);
        image_close(img);
        must_be_clean(scratch("c.qcow2"));
        dump(&s, scratch("want.raw"));
        MUST("qemu-img compare -f raw -F qcow2 want.raw c.qcow2");
        shadow_free(&s);
    }
}

/* Snapshots in the file keep their content while the active disk is written to. */
static void snapshots_are_kept(void **unused)
{
    static const char *const options[] = {"compat=1.1", "compat=0.10", "cluster_size=512", "refcount_bits=64"};

    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        struct shadow s = patchwork(MIB(6)), kept = shadow_new(MIB(6));
        struct image *img;

        dump(&s, scratch("in.raw"));
        MUST("qemu-img convert -f raw -O qcow2 -o %s in.raw s.qcow2 && qemu-img snapshot -c one s.qcow2", options[i]);
        memcpy(kept.content, s.content, s.size);
        img = must_open(scratch("s.qcow2"), DISK_FORMAT_AUTO, IMAGE_WRITE);
        steps(&s, img, 200);
        shadow_compare(&s, img);
        image_close(img);
        must_be_clean(scratch("s.qcow2"));
        dump(&s, scratch("want.raw"));
        dump(&kept, scratch("kept.raw"));
        MUST("qemu-img compare -f raw -F qcow2 want.raw s.qcow2");
        MUST("qemu-img convert -l one -O raw s.qcow2 one.raw && cmp one.raw kept.raw");
        MUST("qemu-img snapshot -d one s.qcow2");
        must_be_clean(scratch("s.qcow2"));
        shadow_free(&s);
        shadow_free(&kept);
    }
}

/* Bitmaps in the file: their clusters stay counted; a bitmap that misses our writes is marked as such. */
static void bitmaps_are_left_alone(void **unused)
{
    struct shadow s = patchwork(MIB(6));
    struct image *img;

    dump(&s, scratch("in.raw"));
    MUST("qemu-img convert -f raw -O qcow2 -o cluster_size=4096 in.raw m.qcow2 && qemu-img bitmap --add m.qcow2 b && "
         "qemu-io -c 'write -P 7 0 1M' m.qcow2");
    must_be_clean(scratch("m.qcow2"));
    memset(s.content, 7, MIB(1));
    img = must_open(scratch("m.qcow2"), DISK_FORMAT_AUTO, 0);
    shadow_compare(&s, img);
    image_close(img);
    MUST("qemu-img info m.qcow2 | grep -q bitmaps");
    img = must_open(scratch("m.qcow2"), DISK_FORMAT_AUTO, IMAGE_WRITE);
    steps(&s, img, 100);
    shadow_compare(&s, img);
    image_close(img);
    assert_int_equal(must_check(scratch("m.qcow2")).errors, 0);
    dump(&s, scratch("want.raw"));
    MUST("qemu-img compare -f raw -F qcow2 want.raw m.qcow2");
    shadow_free(&s);
}

/* Overlays in both directions, and qemu-img reading our chain. */
static void chains_with_qemu(void **unused)
{
    struct shadow s = patchwork(MIB(6));
    struct qcow2_create c = QCOW2_CREATE_DEFAULT;
    struct image *img;

    dump(&s, scratch("base.raw"));
    MUST("qemu-img create -f qcow2 -b base.raw -F raw mid.qcow2");
    img = must_open(scratch("mid.qcow2"), DISK_FORMAT_AUTO, IMAGE_WRITE);
    shadow_compare(&s, img);
    steps(&s, img, 100);
    image_close(img);
    c.size = s.size;
    c.backing = "mid.qcow2";
    c.backing_format = "qcow2";
    c.cluster_bits = 12;
    must_create(scratch("top.qcow2"), &c);
    img = must_open(scratch("top.qcow2"), DISK_FORMAT_AUTO, IMAGE_WRITE);
    steps(&s, img, 100);
    shadow_compare(&s, img);
    image_close(img);
    must_be_clean(scratch("mid.qcow2"));
    must_be_clean(scratch("top.qcow2"));
    dump(&s, scratch("want.raw"));
    MUST("qemu-img compare -f raw -F qcow2 want.raw top.qcow2");
    MUST("qemu-img commit top.qcow2 && qemu-img compare -f raw -F qcow2 want.raw mid.qcow2");
    shadow_free(&s);
}

/* qemu-io writes between two uses of ours. */
static void in_turns(void **unused)
{
    struct qcow2_create c = QCOW2_CREATE_DEFAULT;
    struct shadow s = shadow_new(MIB(8));

    c.size = s.size;
    must_create(scratch("turns.qcow2"), &c);
    for (int turn = 0; turn < 8; turn++) {
        struct image *img;
        u64 at = ALIGN_DOWN(rng(MIB(6)), 512), n = ALIGN_UP(1 + rng(MIB(1)), 512);

        MUST("qemu-io -f qcow2 -c 'write -P %d %llu %llu' -c 'write -z %llu 64k' turns.qcow2", turn + 1,
             (unsigned long long)at, (unsigned long long)n, (unsigned long long)at);
        memset(s.content + at, turn + 1, n);
        memset(s.content + at, 0, KIB(64));
        img = must_open(scratch("turns.qcow2"), DISK_FORMAT_AUTO, IMAGE_WRITE);
        shadow_compare(&s, img);
        steps(&s, img, 30);
        image_close(img);
        must_be_clean(scratch("turns.qcow2"));
    }
    shadow_free(&s);
}

static void copy(const char *from, const char *to, enum disk_format format, const struct qcow2_create *shape,
                 bool compress)
{
    struct qcow2_create c = *shape;
    struct image_copy how = {.compress = compress};
    struct image *in = must_open(from, DISK_FORMAT_AUTO, 0), *out;
    struct err e;

    c.size = in->size;
    unlink(to);
    assert_int_equal(image_make(to, format, &c, &e), 0);
    out = must_open(to, format, IMAGE_WRITE);
    assert_int_equal(image_copy(in, out, &how, &e), 0);
    image_close(in);
    image_close(out);
}

static void copies_are_equal(void **unused)
{
    static const struct qcow2_create shapes[] = {
        {.version = 3, .cluster_bits = 16, .refcount_order = 4},
        {.version = 2, .cluster_bits = 9, .refcount_order = 4},
        {.version = 3, .cluster_bits = 21, .refcount_order = 4},
        {.version = 3, .cluster_bits = 12, .refcount_order = 0},
        {.version = 3, .cluster_bits = 16, .refcount_order = 4, .compression_type = QCOW2_COMPRESSION_ZSTD},
    };
    struct shadow s = patchwork(MIB(11) + 512);

    dump(&s, scratch("src.raw"));
    for (size_t i = 0; i < ARRAY_SIZE(shapes) * 2; i++) {
        copy(scratch("src.raw"), scratch("dst.qcow2"), DISK_FORMAT_QCOW2, &shapes[i / 2], i % 2);
        must_be_clean(scratch("dst.qcow2"));
        MUST("qemu-img compare -f raw -F qcow2 src.raw dst.qcow2");
        copy(scratch("dst.qcow2"), scratch("back.raw"), DISK_FORMAT_RAW, &shapes[0], false);
        MUST("cmp src.raw back.raw");
    }
    shadow_free(&s);
}

/* Both programs respect each other's locks. */
static void locks_meet_qemus(void **unused)
{
    struct image *img;

    MUST("qemu-img create -f qcow2 lock.qcow2 1M");
    img = must_open(scratch("lock.qcow2"), DISK_FORMAT_AUTO, IMAGE_WRITE);
    assert_int_not_equal(shell("qemu-io -c 'write 0 512' lock.qcow2"), 0);
    assert_int_not_equal(shell("qemu-img info lock.qcow2"), 0);
    image_close(img);
    img = must_open(scratch("lock.qcow2"), DISK_FORMAT_AUTO, 0);
    assert_int_not_equal(shell("qemu-io -c 'write 0 512' lock.qcow2"), 0);
    assert_int_equal(shell("qemu-io -r -c 'read 0 512' lock.qcow2"), 0);
    image_close(img);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(made_by_qemu),       cmocka_unit_test(compressed_by_qemu),
        cmocka_unit_test(snapshots_are_kept), cmocka_unit_test(chains_with_qemu),
        cmocka_unit_test(in_turns),           cmocka_unit_test(copies_are_equal),
        cmocka_unit_test(locks_meet_qemus),   cmocka_unit_test(bitmaps_are_left_alone),
    };

    if (system("command -v qemu-img qemu-io >/dev/null"))
        return 77; /* meson: skipped */
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
