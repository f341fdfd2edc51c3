/* An image file of some format, opened for synchronous use: what the asynchronous disk (disk.h), the image verbs and
 * the tests stand on. A format is one table of operations; image.c dispatches and checks ranges before a format sees
 * them.
 *
 * Any thread may call, several at once. Image files are hostile: a format validates every number it reads from one. */
#ifndef DISK_IMAGE_H
#define DISK_IMAGE_H
#include "base/err.h"
#include "base/types.h"
#include "disk/disk.h"
#include "disk/iov.h"

enum { SECTOR_SIZE = 512 };

enum image_flags {
    IMAGE_WRITE = 1,
    IMAGE_NO_LOCK = 2,    /* look at a file that somebody else may be writing to */
    IMAGE_NO_BACKING = 4, /* leave the backing file closed: for metadata only, do not read content */
    IMAGE_REPAIR = 8,     /* open even what is marked corrupt, and leave a dirty image as it is */
};

enum image_extent_kind {
    EXTENT_DATA,    /* this image has content here */
    EXTENT_ZERO,    /* reads as zeros, takes no space */
    EXTENT_BACKING, /* this image has nothing here: the backing file shows through */
};

struct image_extent {
    enum image_extent_kind kind;
    u64 length;
};

struct image;

/* All return 0 or -Exxx. Ranges lie within the image; those that write are called on writable images only. */
struct image_ops {
    const char *name; /* what the user calls the format */
    int (*read)(struct image *img, struct iov_cursor *to, u64 offset, u64 length);
    int (*write)(struct image *img, struct iov_cursor *from, u64 offset, u64 length);
    int (*write_zeroes)(struct image *img, u64 offset, u64 length);
    int (*discard)(struct image *img, u64 offset, u64 length);
    int (*flush)(struct image *img); /* everything written before is on stable storage when this returns 0 */

    /* What is at `offset`, and for how many bytes (at most `length`, at least 1) that is so. */
    int (*map)(struct image *img, u64 offset, u64 length, struct image_extent *ret);

    /* Whether the whole range lies in one piece of the host file where a transfer can go without the format's help,
     * found without waiting for anything. If true, the range stays there until direct_end. */
    bool (*direct_begin)(struct image *img, bool write, u64 offset, u64 length, u64 *ret_host_offset);
    void (*direct_end)(struct image *img);

    /* Stores exactly one cluster compressed, over nothing; 1 if it does not shrink (nothing is stored). May be NULL. */
    int (*write_compressed)(struct image *img, const void *cluster, u64 offset);

    /* Flushes, frees the format's own; the file and the backing image are image.c's. */
    void (*close)(struct image *img);
};

struct image {
    const struct image_ops *ops;
    int fd;
    char *path;       /* as given, for messages */
    u64 size;         /* bytes, a multiple of 512 */
    u64 cluster_size; /* unit of allocation, 0 if none */
    bool readonly;
    bool probed;           /* the format was guessed from the content */
    struct image *backing; /* owned; NULL if none */
};

/* The files opened above this one, to find loops in a chain. */
struct image_chain {
    const struct image_chain *above;
    u64 device, inode;
    int depth;
};

int image_open(const char *path, enum disk_format format, unsigned flags, struct image **ret, struct err *e);
/* The backing file `name` as it stands in the image `of`: a relative path starts at the folder of `of`. Read-only. */
int image_open_backing(const char *of, const char *name, const char *format, unsigned flags,
                       const struct image_chain *chain, struct image **ret, struct err *e);
/* Flushes what it can; callers that care flush first. NULL is fine. */
void image_close(struct image *img);

int image_read(struct image *img, void *buf, u64 offset, u64 length);
int image_write(struct image *img, const void *buf, u64 offset, u64 length);
int image_readv(struct image *img, const struct iovec *iov, int count, u64 offset, u64 length);
int image_writev(struct image *img, const struct iovec *iov, int count, u64 offset, u64 length);
int image_write_zeroes(struct image *img, u64 offset, u64 length);
int image_discard(struct image *img, u64 offset, u64 length);
int image_flush(struct image *img);
/* As the operation, but sees through the whole chain: DATA or ZERO. */
int image_map(struct image *img, u64 offset, u64 length, struct image_extent *ret);

/* "raw", "qcow2"; -EINVAL and a sentence for other names. */
int image_format_parse(const char *name, enum disk_format *ret, struct err *e);
/* The format that the file's first bytes show: RAW when they show none; -EINVAL and a sentence for formats that others
 * know. */
int image_format_probe(int fd, const char *path, enum disk_format *ret, struct err *e);
/* Where the file `name` that image `of` refers to is found. To be freed. -EINVAL and a sentence if it is no file
 * name. */
int image_resolve_path(const char *of, const char *name, char **ret, struct err *e);

extern const struct image_ops raw_ops, qcow2_ops;

/* The formats. They take over `fd` on success only. */
int raw_open(int fd, const char *path, unsigned flags, struct image **ret, struct err *e);
int qcow2_open(int fd, const char *path, unsigned flags, const struct image_chain *chain, struct image **ret,
               struct err *e);
/* A writable overlay over `backing` in an unlinked temporary file; it vanishes when it is closed. Owns `backing` on
 * success. */
int qcow2_open_overlay(struct image *backing, struct image **ret, struct err *e);

#endif
