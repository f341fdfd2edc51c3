/* Hostile qcow2 files: the input is the file. It is opened, read, checked, written to, repaired and read again,
 * without its backing file. Whatever is in it, nothing may crash, and neither memory nor the file may grow out of
 * proportion.
 *
 * The corpus holds small images of several geometries; fixed-size fields make plain mutation effective.
 */
#include "disk/image.h"
#include "disk/qcow2.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

enum { INPUT_MAX = 1 << 20, PIECE = 3000, GROWTH_MAX = 64 << 20 };

static int file_of(const u8 *data, size_t size)
{
    int fd = memfd_create("image", MFD_CLOEXEC);

    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    return fd;
}

/* Some places of the disk: its start, its end, and steps between them that meet many L1 entries. */
static u64 place(const struct image *img, int i)
{
    u64 at = i < 16 ? (u64)i * 1536 : i < 32 ? img->size / 16 * (u64)(i - 16) : img->size - (u64)(i - 31) * 1024;

    return at < img->size ? at : 0;
}

static u64 length_at(const struct image *img, u64 at)
{
    return MIN(img->size - at, (u64)PIECE);
}

static void read_some(struct image *img)
{
    u8 buf[PIECE];
    struct image_extent x;

    for (int i = 0; i < 40 && img->size; i++) {
        u64 at = place(img, i);

        image_read(img, buf, at, length_at(img, at));
        image_map(img, at, img->size - at, &x);
    }
}

static void change_some(struct image *img)
{
    static const u8 zeros[PIECE];

    for (int i = 0; i < 40 && img->size; i++) {
        u64 at = place(img, i);

        if (i % 5 == 0)
            image_discard(img, at, MIN(img->size - at, MIB(1)));
        else if (i % 5 == 1)
            image_write_zeroes(img, at, length_at(img, at));
        else
            image_write(img, zeros, at, length_at(img, at));
        if (i % 8 == 0)
            image_flush(img);
    }
}

static void ignore_snapshot(void *ctx, const char *id, const char *name, u64 seconds)
{
    *(size_t *)ctx += strlen(id) + strlen(name) + seconds;
}

static void look(struct image *img)
{
    struct qcow2_info info;
    size_t sum = 0;

    qcow2_info(img, &info);
    qcow2_snapshots(img, ignore_snapshot, &sum);
    read_some(img);
}

static void with_image(int file, unsigned flags, enum qcow2_repair repair, void (*use)(struct image *img))
{
    struct qcow2_check check = {0};
    struct image *img;
    struct err e;
    int fd = dup(file);

    if (qcow2_open(fd, "fuzz", flags | IMAGE_NO_BACKING, NULL, &img, &e) < 0) {
        close(fd);
        return;
    }
    if (flags & IMAGE_REPAIR)
        qcow2_check(img, repair, &check, &e);
    use(img);
    image_close(img);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct stat st;
    int file;

    if (size > INPUT_MAX)
        return 0;
    file = file_of(data, size);
    with_image(file, IMAGE_REPAIR, QCOW2_REPAIR_NONE, look);
    with_image(file, IMAGE_WRITE, QCOW2_REPAIR_NONE, change_some);
    with_image(file, IMAGE_WRITE | IMAGE_REPAIR, QCOW2_REPAIR_LEAKS, read_some);
    with_image(file, IMAGE_WRITE | IMAGE_REPAIR, QCOW2_REPAIR_ALL, read_some);
    with_image(file, IMAGE_WRITE, QCOW2_REPAIR_NONE, change_some);
    if (fstat(file, &st) < 0 || st.st_blocks * 512 > (off_t)size + GROWTH_MAX)
        abort();
    close(file);
    return 0;
}
