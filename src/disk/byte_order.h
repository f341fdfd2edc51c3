/* Big-endian fields at any address, as qcow2 has them. */
#ifndef DISK_BYTE_ORDER_H
#define DISK_BYTE_ORDER_H
#include "base/types.h"
#include <endian.h>
#include <string.h>

static inline u16 get_be16(const void *p)
{
    u16 v;

    memcpy(&v, p, sizeof(v));
    return be16toh(v);
}

static inline u32 get_be32(const void *p)
{
    u32 v;

    memcpy(&v, p, sizeof(v));
    return be32toh(v);
}

static inline u64 get_be64(const void *p)
{
    u64 v;

    memcpy(&v, p, sizeof(v));
    return be64toh(v);
}

static inline void put_be16(void *p, u16 v)
{
    v = htobe16(v);
    memcpy(p, &v, sizeof(v));
}

static inline void put_be32(void *p, u32 v)
{
    v = htobe32(v);
    memcpy(p, &v, sizeof(v));
}

static inline void put_be64(void *p, u64 v)
{
    v = htobe64(v);
    memcpy(p, &v, sizeof(v));
}

#endif
