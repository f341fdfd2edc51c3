/* Which clusters of a qcow2 file are in use. Callers hold `meta` (see qcow2_internal.h). */
#ifndef DISK_QCOW2_REFCOUNT_H
#define DISK_QCOW2_REFCOUNT_H
#include "disk/qcow2_internal.h"

int qcow2_refcount_get(struct qcow2 *q, u64 cluster, u64 *ret);
int qcow2_refcount_set(struct qcow2 *q, u64 cluster, u64 value);
int qcow2_refcount_put(const struct qcow2 *q, u8 *block, u64 i, u64 value); /* -ERANGE if it does not fit */
/* Whether one of the tables in memory is there. A broken image may count such a cluster as free: it is not handed
 * out. */
bool qcow2_is_metadata(const struct qcow2 *q, u64 offset);
/* Finds 1..want clusters in a row and counts them as used. `fresh`: they lay beyond the end of the file and read as
 * zeros. */
int qcow2_alloc(struct qcow2 *q, u64 want, u64 *ret_offset, u64 *ret_got, bool *ret_fresh);
/* Clusters that are handed out lie within the file, so that those beyond its old end read as zeros. */
int qcow2_extend_file(struct qcow2 *q, u64 end);
void qcow2_unalloc(struct qcow2 *q, u64 offset, u64 clusters); /* takes back an allocation that nothing refers to yet */
int qcow2_free_later(struct qcow2 *q, u64 offset, u64 clusters); /* once the tables on disk no longer refer to it */
int qcow2_apply_freed(struct qcow2 *q);                          /* for qcow2_meta_flush */
/* A place of `length` <= cluster_size bytes for a compressed cluster. */
int qcow2_alloc_bytes(struct qcow2 *q, u64 length, u64 *ret_offset);

/* qcow2_reftable.c */
/* Writes a refcount table and refcount blocks at cluster `at` and switches to them. Blocks from cluster `base` (the
 * first of a block) on are new: clusters base..at-1 get the counts given (NULL: 1 each), the new structures 1; the
 * table's entries below `base` are kept. */
int qcow2_refcounts_place(struct qcow2 *q, u64 base, u64 at, const u32 *counts);

#endif
