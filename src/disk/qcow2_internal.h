/* qcow2, versions 2 and 3, as the specification "Qcow2 Image File Format" of the QEMU project has it. Names are the
 * specification's. This header is for the qcow2_*.c files only.
 *
 * Locking: `gate` says who may use data clusters (see gate.h): transfers hold it shared, whatever allocates, moves or
 * frees clusters holds it exclusively. `meta` protects every table in memory, is taken inside the gate, and is never
 * held while guest data is transferred.
 *
 * Order on disk, so that a crash at any moment loses nothing that was flushed and leaks clusters at worst: guest data
 * and refcounts (up) → L2 tables → L1 table → refcounts (down); each step is on stable storage before the next begins.
 * Clusters that are given up therefore wait in `freed` until the tables that named them are written. */
#ifndef DISK_QCOW2_INTERNAL_H
#define DISK_QCOW2_INTERNAL_H
#include "disk/gate.h"
#include "disk/image.h"
#include "disk/qcow2.h"
#include "disk/qcow2_format.h"

/* A table of big-endian 64-bit entries that is in memory whole (L1, refcount table). Entries lo..hi-1 await writing. */
struct qcow2_table {
    u64 *entries; /* host order */
    u32 count;
    u32 lo, hi; /* dirty; none if lo >= hi */
    u64 offset; /* in the file */
};

/* Metadata clusters (L2 tables or refcount blocks) in memory, as they are in the file; least recently used goes
 * first. */
struct qcow2_cache {
    int count;
    struct qcow2_cached *slots;
    u64 clock;
};

struct qcow2_cached {
    u64 offset; /* 0: empty */
    u64 used;   /* time of last use */
    u8 *data;   /* allocated at first use */
    bool dirty;
};

struct qcow2_freed {
    u64 offset, clusters;
};

struct qcow2 {
    struct image image;
    struct qcow2_header h;
    char backing_name[QCOW2_NAME_MAX + 1], backing_format[QCOW2_FORMAT_NAME_MAX + 1];
    u64 bitmap_directory, bitmap_directory_size; /* 0 if none */
    u32 bitmap_count;

    /* log2 of: bytes a cluster, entries an L2 table, refcounts a block */
    unsigned cluster_bits, l2_bits, refblock_bits;
    u64 cluster_size;
    bool scratch; /* dies with the process: nothing need reach stable storage */

    struct gate gate;
    pthread_mutex_t meta;
    /* All below: under `meta`. */
    struct qcow2_table l1, reftable;
    struct qcow2_cache l2, refblocks;
    u64 free_hint; /* index of a cluster below which none is free */
    u64 file_end;  /* length of the file */
    /* Once the host has failed to sync, it does not tell what it lost: no later sync succeeds. */
    _Atomic int sync_error;
    u64 compress_at; /* where the next compressed cluster may begin; 0: at a new cluster */
    struct qcow2_freed *freed;
    size_t freed_count;

    pthread_mutex_t unpacked_mutex;
    u64 unpacked_entry; /* L2 entry whose content `unpacked` holds; 0 if none */
    u8 *unpacked;
};

static inline struct qcow2 *qcow2_of(struct image *img)
{
    return container_of(img, struct qcow2, image);
}

static inline u64 qcow2_in_cluster(const struct qcow2 *q, u64 offset)
{
    return offset & (q->cluster_size - 1);
}

static inline u64 qcow2_clusters(const struct qcow2 *q, u64 bytes)
{
    return (bytes + q->cluster_size - 1) >> q->cluster_bits;
}

/* ---- qcow2_header.c: the first cluster ---- */
/* Fills h, the names and the geometry; refuses what is not understood. */
int qcow2_header_read(struct qcow2 *q, struct err *e);
/* The first cluster anew: header, backing format, backing name. -ENAMETOOLONG if they do not fit. */
int qcow2_header_create(struct qcow2 *q);
/* Writes back the fields of h that can change: feature bits, refcount table. Waits until it is on stable storage. */
int qcow2_header_update(struct qcow2 *q);

/* ---- qcow2_cache.c: tables in memory. Callers hold `meta`. ---- */
int qcow2_sync(struct qcow2 *q); /* fdatasync, unless scratch */
int qcow2_table_load(struct qcow2 *q, struct qcow2_table *t, u64 offset, u32 count);
void qcow2_table_set(struct qcow2_table *t, u32 index, u64 entry);
int qcow2_cache_init(struct qcow2_cache *c, int count);
void qcow2_cache_free(struct qcow2_cache *c);
/* The cluster at `offset`, valid until the next call on the same cache. `fresh`: do not read it, it is new (zeros). */
int qcow2_cache_get(struct qcow2 *q, struct qcow2_cache *c, u64 offset, bool fresh, struct qcow2_cached **ret);
bool qcow2_cache_has(const struct qcow2_cache *c, u64 offset);
void qcow2_cache_drop(struct qcow2_cache *c, u64 offset); /* the cluster means something else from now on */
int qcow2_flush_refcounts(struct qcow2 *q);
int qcow2_meta_flush(struct qcow2 *q); /* everything above to stable storage in the order of the head of this file */
bool qcow2_meta_dirty(const struct qcow2 *q);

/* ---- qcow2_map.c: guest offsets to host offsets ---- */
enum qcow2_run_kind { RUN_DATA, RUN_ZERO, RUN_UNALLOCATED, RUN_COMPRESSED };

struct qcow2_run {
    enum qcow2_run_kind kind;
    bool in_place; /* DATA: its clusters are ours alone and may be written */
    u64 length;    /* bytes for which all this holds */
    u64 host;      /* DATA: offset in the file of the first byte */
    u64 entry;     /* the first cluster's L2 entry */
};

/* Takes `meta`. At most `length` bytes, at most to the end of one L2 table. `wait` false: -EAGAIN rather than reading a
 * table. */
int qcow2_map(struct qcow2 *q, u64 offset, u64 length, bool wait, struct qcow2_run *ret);
/* Points `clusters` guest clusters from `offset` on at entry, entry+stride, … and gives up what they had. Callers hold
 * `meta` and the gate exclusively; the clusters lie in one L2 table. */
int qcow2_remap(struct qcow2 *q, u64 offset, u64 clusters, u64 entry, u64 stride);
/* Where a compressed cluster's bytes are. -EIO if outside of the file. */
int qcow2_compressed_place(const struct qcow2 *q, u64 entry, u64 *ret_offset, u64 *ret_length);

/* ---- qcow2_compress.c ---- */
int qcow2_read_compressed(struct qcow2 *q, struct iov_cursor *to, u64 entry, u64 in_cluster, u64 length);
int qcow2_write_compressed(struct image *img, const void *cluster, u64 offset); /* the image operation */
void qcow2_unpacked_forget(struct qcow2 *q);

/* ---- qcow2_snapshot.c ---- */
struct qcow2_snapshot {
    u64 l1_offset, seconds;
    u32 l1_size;
    const char *id, *name;
};
/* Calls fn for each snapshot until it returns non-zero, which is returned. -EIO for a broken table. Also tells the
 * table's length. */
int qcow2_snapshot_each(struct qcow2 *q, int (*fn)(void *ctx, const struct qcow2_snapshot *s), void *ctx,
                        u64 *ret_length);

/* ---- qcow2.c ---- */
/* An object with nothing but the file in it. The fd stays the caller's. NULL: no memory. */
struct qcow2 *qcow2_new(int fd, const char *path);
void qcow2_free(struct qcow2 *q); /* writes nothing, closes nothing */

/* ---- qcow2_io.c: the image operations that move data ---- */
int qcow2_read(struct image *img, struct iov_cursor *to, u64 offset, u64 length);
int qcow2_write(struct image *img, struct iov_cursor *from, u64 offset, u64 length);
int qcow2_write_zeroes(struct image *img, u64 offset, u64 length);
int qcow2_discard(struct image *img, u64 offset, u64 length);
bool qcow2_direct_begin(struct image *img, bool write, u64 offset, u64 length, u64 *ret_host_offset);
void qcow2_direct_end(struct image *img);

#endif
