/* What qcow2 has beyond the operations of every image: creation, check and repair, snapshots, and what its header
 * says. */
#ifndef DISK_QCOW2_H
#define DISK_QCOW2_H
#include "disk/image.h"

enum {
    QCOW2_CLUSTER_BITS_MIN = 9,
    QCOW2_CLUSTER_BITS_MAX = 21,
    QCOW2_CLUSTER_BITS_DEFAULT = 16,
    QCOW2_REFCOUNT_ORDER_MAX = 6,
    QCOW2_REFCOUNT_ORDER_DEFAULT = 4,
    QCOW2_NAME_MAX = 1023,
    QCOW2_FORMAT_NAME_MAX = 15,
};
enum { QCOW2_COMPRESSION_ZLIB, QCOW2_COMPRESSION_ZSTD };

struct qcow2_create {
    u64 size; /* bytes; a multiple of 512 */
    u32 version, cluster_bits, refcount_order;
    u8 compression_type;
    bool lazy_refcounts;
    const char *backing, *backing_format; /* as they are to be stored; NULL if none */
};
#define QCOW2_CREATE_DEFAULT                                                                                     \
    {                                                                                                            \
        .version = 3, .cluster_bits = QCOW2_CLUSTER_BITS_DEFAULT, .refcount_order = QCOW2_REFCOUNT_ORDER_DEFAULT \
    }

/* Writes an empty image into the empty file `fd`, which stays the caller's. */
int qcow2_create(int fd, const char *path, const struct qcow2_create *c, struct err *e);

struct qcow2_check {
    u64 errors, leaks;         /* corrupt entries; clusters that are counted more often than used */
    u64 fixed;                 /* of them, what was repaired */
    u64 allocated, compressed; /* of the guest disk */
    void (*report)(void *ctx, const char *sentence); /* one line a finding; may be NULL */
    void *ctx;
};
enum qcow2_repair { QCOW2_REPAIR_NONE, QCOW2_REPAIR_LEAKS, QCOW2_REPAIR_ALL };

/* Compares the refcounts with what the tables refer to. Repair needs a writable image. -Exxx only if the check itself
 * fails. Nobody else uses the image meanwhile. */
int qcow2_check(struct image *img, enum qcow2_repair repair, struct qcow2_check *ret, struct err *e);

struct qcow2_info {
    u32 version, refcount_bits;
    u64 cluster_size;
    const char *compression;    /* "zlib", "zstd" */
    const char *backing_name;   /* as it stands in the file; "" if none; valid while the image is open */
    const char *backing_format; /* likewise */
    bool lazy_refcounts, dirty, corrupt;
};
void qcow2_info(struct image *img, struct qcow2_info *ret);

/* Calls fn for each snapshot in the file; stops at a broken table (-EIO). */
int qcow2_snapshots(struct image *img, void (*fn)(void *ctx, const char *id, const char *name, u64 seconds), void *ctx);

#endif
