/* Numbers of the qcow2 file format, and its header in host order. */
#ifndef DISK_QCOW2_FORMAT_H
#define DISK_QCOW2_FORMAT_H
#include "base/types.h"

enum {
    QCOW2_HEADER_V2 = 72,
    QCOW2_HEADER_V3 = 104,
    QCOW2_L1_BYTES_MAX = 32 << 20,
    QCOW2_REFTABLE_BYTES_MAX = 8 << 20,
};

#define QCOW2_MAGIC 0x514649fbu                 /* "QFI\xfb" */
#define QCOW2_OFFSET_MASK 0x00fffffffffffe00ull /* bits 9..55 of L1 and L2 entries */
#define QCOW2_HOST_LIMIT BIT(56)
#define QCOW2_COPIED BIT(63)
#define QCOW2_COMPRESSED BIT(62)
#define QCOW2_ZERO BIT(0)

enum {
    QCOW2_INCOMPAT_DIRTY = 1,
    QCOW2_INCOMPAT_CORRUPT = 2,
    QCOW2_INCOMPAT_DATA_FILE = 4,
    QCOW2_INCOMPAT_COMPRESSION = 8,
    QCOW2_INCOMPAT_EXTENDED_L2 = 16
};
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

#endif
