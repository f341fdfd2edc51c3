/* New disk images, and copies of them in another format: what `skerry image create` and `convert` do. */
#ifndef DISK_IMAGE_MAKE_H
#define DISK_IMAGE_MAKE_H
#include "disk/image.h"
#include "disk/qcow2.h"

/* Makes the file `path`, which must not exist, as an empty disk of `qcow2->size` bytes (a multiple of 512). For RAW,
 * `qcow2` matters only for that. Nothing is left behind on failure. */
int image_make(const char *path, enum disk_format format, const struct qcow2_create *qcow2, struct err *e);

struct image_copy {
    bool compress; /* the destination is qcow2 */
    /* Bytes of the disk; false ends the copy with -EINTR. May be NULL. */
    bool (*progress)(void *ctx, u64 done, u64 total);
    void *ctx;
};

/* Copies the content of `from` into `to`, which is new (reads as zeros) and not smaller. What is zero takes no space in
 * `to`. Flushes. */
int image_copy(struct image *from, struct image *to, const struct image_copy *c, struct err *e);

#endif
