/* A growing run of bytes: see byte_buffer.h. */
#include "firmware/byte_buffer.h"

#include <stdlib.h>
#include <string.h>

static bool reserve(struct byte_buffer *b, size_t more)
{
    size_t cap = b->cap ? b->cap : 256;
    u8 *data;

    if (b->failed)
        return false;
    while (cap - b->len < more)
        cap *= 2;
    if (cap == b->cap)
        return true;
    data = realloc(b->data, cap);
    if (!data) {
        b->failed = true;
        return false;
    }
    b->data = data;
    b->cap = cap;
    return true;
}

void bytes_free(struct byte_buffer *b)
{
    free(b->data);
    *b = (struct byte_buffer){0};
}

void bytes_append(struct byte_buffer *b, const void *data, size_t len)
{
    if (!len || !reserve(b, len))
        return;
    if (data)
        memcpy(b->data + b->len, data, len);
    else
        memset(b->data + b->len, 0, len);
    b->len += len;
}

void bytes_string(struct byte_buffer *b, const char *s)
{
    bytes_append(b, s, strlen(s) + 1);
}

void bytes_put8(struct byte_buffer *b, u8 v)
{
    bytes_append(b, &v, sizeof(v));
}

void bytes_put16(struct byte_buffer *b, u16 v)
{
    bytes_append(b, &v, sizeof(v));
}

void bytes_put32(struct byte_buffer *b, u32 v)
{
    bytes_append(b, &v, sizeof(v));
}

void bytes_put64(struct byte_buffer *b, u64 v)
{
    bytes_append(b, &v, sizeof(v));
}

void bytes_align(struct byte_buffer *b, size_t align)
{
    bytes_append(b, NULL, ALIGN_UP(b->len, align) - b->len);
}

void bytes_insert(struct byte_buffer *b, size_t at, const void *data, size_t len)
{
    if (b->failed || at > b->len || !reserve(b, len))
        return;
    memmove(b->data + at + len, b->data + at, b->len - at);
    memcpy(b->data + at, data, len);
    b->len += len;
}

void bytes_patch32(struct byte_buffer *b, size_t at, u32 v)
{
    if (at <= b->len && b->len - at >= sizeof(v))
        memcpy(b->data + at, &v, sizeof(v));
}

u8 bytes_checksum(const u8 *data, size_t len)
{
    u8 sum = 0;

    for (size_t i = 0; i < len; i++)
        sum += data[i];
    return (u8)-sum;
}
