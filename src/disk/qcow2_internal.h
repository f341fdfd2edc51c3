/* qcow2, versions 2 and 3, as the specification "Qcow2 Image File Format" of the QEMU project has it. Names are the
 * specification's. This header is for the qcow2_*.c files only.
 *
 * Locking: `gate` says who may use data clusters (see gate.h): transfers hold it shared, whatever allocates, moves or frees
 * clusters holds it exclusively. `meta` protects every table in memory, is taken inside the gate, and is never held while
 * guest data is transferred.
 *
 * Order on disk, so that a crash at any moment loses nothing that was flushed and leaks clusters at worst:
 * guest data and refcounts (up) → L2 tables → L1 table → refcounts (down); each step is on stable storage before
 * the next begins. Clusters that are given up therefore wait in `freed` until the tables that named them are written. */
#ifndef DISK_QCOW2_INTERNAL_H
#define DISK_QCOW2_INTERNAL_H
#include "disk/gate.h"
#include "disk/image.h"
#include "disk/qcow2.h"

enum {
    QCOW2_HEADER_V2 = 72,
    QCOW2_HEADER_V3 = 104,
    QCOW2_L1_BYTES_MAX = 32 << 20,
    QCOW2_REFTABLE_BYTES_MAX = 8 << 20,
};

#define QCOW2_MAGIC 0x514649fbu /* "QFI\xfb" */
#define QCOW2_OFFSET_MASK 0x00fffffffffffe00ull /* bits 9..55 of L1 and L2 entries */
#define QCOW2_HOST_LIMIT BIT(56)
#define QCOW2_COPIED BIT(63)
#define QCOW2_COMPRESSED BIT(62)
#define QCOW2_ZERO BIT(0)

enum { QCOW2_INCOMPAT_DIRTY = 1, QCOW2_INCOMPAT_CORRUPT = 2, QCOW2_INCOMPAT_DATA_FILE = 4, QCOW2_INCOMPAT_COMPRESSION = 8,
       QCOW2_INCOMPAT_EXTENDED_L2 = 16 };
enum { QCOW2_COMPAT_LAZY_REFCOUNTS = 1 };
enum { QCOW2_EXT_END = 0, QCOW2_EXT_BACKING_FORMAT = (int)0xe2792aca, QCOW2_EXT_BITMAPS = 0x23852875 };

struct qcow2_header {
    u32 version;
    u64 backing_offset;
    u32 backing_length, cluster_bits;
    u64 size;
    u32 crypt_method, l1_size;
    u64 l1_offset, reftable_offset;
    u32 reftable_clusters, nb_snapshots;
    u64 snapshots_offset;
    u64 incompatible, compatible, autoclear;
    u32 refcount_order, header_length;
    u8 compression_type;
};

/* A table of big-endian 64-bit entries that is in memory whole (L1, refcount table). Entries lo..hi-1 await writing. */
struct qcow2_table {
    u64 *entries; /* host order */
    u32 count;
    u32 lo, hi; /* dirty; none if lo >= hi */
    u64 offset; /* in the file */
};

/* Metadata clusters (L2 tables or refcount blocks) in memory, as they are in the file; least recently used goes first. */
struct qcow2_cache {
    int count;
    struct qcow2_cached {
        u64 offset; /* 0: empty */
        u64 used;   /* time of last use */
        u8 *data;   /* allocated at first use */
        bool dirty;
    } *slots;
    u64 clock;
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

    unsigned cluster_bits, l2_bits, refblock_bits; /* log2 of: bytes a cluster, entries an L2 table, refcounts a block */
    u64 cluster_size;
    bool scratch; /* dies with the process: nothing need reach stable storage */

    struct gate gate;
    pthread_mutex_t meta;
    /* All below: under `meta`. */
    struct qcow2_table l1, reftable;
    struct qcow2_cache l2, refblocks;
    u64 free_hint;   /* index of a cluster below which none is free */
    u64 file_end;    /* length of the file */
    _Atomic int sync_error;  /* once the host has failed to sync, it does not tell what it lost: no later sync succeeds */
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
int qcow2_header_read(struct qcow2 *q, struct err *e); /* fills h, the names and the geometry; refuses what is not understood */
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

/* ---- qcow2_refcount.c: which clusters of the file are in use. Callers hold `meta`. ---- */
int qcow2_refcount_get(struct qcow2 *q, u64 cluster, u64 *ret);
int qcow2_refcount_set(struct qcow2 *q, u64 cluster, u64 value);
int qcow2_refcount_put(const struct qcow2 *q, u8 *block, u64 i, u64 value); /* -ERANGE if it does not fit */
/* Whether one of the tables in memory is there. A broken image may count such a cluster as free: it is not handed out. */
bool qcow2_is_metadata(const struct qcow2 *q, u64 offset);
/* Finds 1..want clusters in a row and counts them as used. `fresh`: they lay beyond the end of the file and read as zeros. */
int qcow2_alloc(struct qcow2 *q, u64 want, u64 *ret_offset, u64 *ret_got, bool *ret_fresh);
/* Clusters that are handed out lie within the file, so that those beyond its old end read as zeros. */
int qcow2_extend_file(struct qcow2 *q, u64 end);
void qcow2_unalloc(struct qcow2 *q, u64 offset, u64 clusters); /* takes back an allocation that nothing refers to yet */
int qcow2_free_later(struct qcow2 *q, u64 offset, u64 clusters); /* once the tables on disk no longer refer to it */
int qcow2_apply_freed(struct qcow2 *q);                          /* for qcow2_meta_flush */
/* A place of `length` <= cluster_size bytes for a compressed cluster. */
int qcow2_alloc_bytes(struct qcow2 *q, u64 length, u64 *ret_offset);

/* ---- qcow2_reftable.c ---- */
/* Writes a refcount table and refcount blocks at cluster `at` and switches to them. Blocks from cluster `base` (the first of
 * a block) on are new: clusters base..at-1 get the counts given (NULL: 1 each), the new structures 1; the table's
 * entries below `base` are kept. */
int qcow2_refcounts_place(struct qcow2 *q, u64 base, u64 at, const u32 *counts);

/* ---- qcow2_map.c: guest offsets to host offsets ---- */
enum qcow2_run_kind { RUN_DATA, RUN_ZERO, RUN_UNALLOCATED, RUN_COMPRESSED };

struct qcow2_run {
    enum qcow2_run_kind kind;
    bool in_place; /* DATA: its clusters are ours alone and may be written */
    u64 length;    /* bytes for which all this holds */
    u64 host;      /* DATA: offset in the file of the first byte */
    u64 entry;     /* the first cluster's L2 entry */
};

/* Takes `meta`. At most `length` bytes, at most to the end of one L2 table. `wait` false: -EAGAIN rather than reading a table. */
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
/* Calls fn for each snapshot until it returns non-zero, which is returned. -EIO for a broken table. Also tells the table's length. */
int qcow2_snapshot_each(struct qcow2 *q, int (*fn)(void *ctx, const struct qcow2_snapshot *s), void *ctx, u64 *ret_length);

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
