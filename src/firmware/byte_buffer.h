/* A growing run of bytes, in which tables and AML are put together before they go into guest memory. Numbers are
 * little-endian.
 *
 * Running out of memory makes the buffer `failed` for good and later calls do nothing, so that a builder asks once, at
 * its end. A zeroed struct is an empty buffer. */
#ifndef FIRMWARE_BYTE_BUFFER_H
#define FIRMWARE_BYTE_BUFFER_H
#include "base/types.h"

struct byte_buffer {
    u8 *data;
    size_t len, cap;
    bool failed;
};

void bytes_free(struct byte_buffer *b);

/* Appends `len` bytes, or `len` zeros where `data` is NULL. */
void bytes_append(struct byte_buffer *b, const void *data, size_t len);
void bytes_string(struct byte_buffer *b, const char *s); /* with its NUL */
void bytes_put8(struct byte_buffer *b, u8 v);
void bytes_put16(struct byte_buffer *b, u16 v);
void bytes_put32(struct byte_buffer *b, u32 v);
void bytes_put64(struct byte_buffer *b, u64 v);
void bytes_align(struct byte_buffer *b, size_t align); /* zeros up to a multiple of a power of two */

/* Opens a gap at `at` (at most the length) and fills it. */
void bytes_insert(struct byte_buffer *b, size_t at, const void *data, size_t len);

/* Overwrites four bytes that are there already; outside of the buffer nothing happens (it failed before). */
void bytes_patch32(struct byte_buffer *b, size_t at, u32 v);

/* The value that makes the sum of all bytes of [data, data+len) zero, once it is put where a zero byte was. */
u8 bytes_checksum(const u8 *data, size_t len);

#endif
