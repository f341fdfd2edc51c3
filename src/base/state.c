/* State tables to and from byte streams: see state.h. */
#include "base/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

size_t state_covered(const struct state_table *t)
{
    size_t n = 0;

    for (const struct state_field *f = t->fields; f->name; f++)
        n += (size_t)f->size * f->count;
    return n;
}

size_t state_stream_size(const struct state_table *t)
{
    size_t n = 4 + 1;

    for (const struct state_field *f = t->fields; f->name; f++)
        n += 1 + strlen(f->name) + 1 + 4 + (size_t)f->size * f->count;
    return n;
}

static u8 *put(u8 *p, u64 v, int bytes)
{
    for (; bytes; bytes--, v >>= 8)
        *p++ = (u8)v;
    return p;
}

static u64 get(const u8 *p, int bytes)
{
    u64 v = 0;

    while (bytes--)
        v = v << 8 | p[bytes];
    return v;
}

static u8 *put_field(u8 *p, const struct state_field *f, const u8 *s)
{
    size_t name_len = strlen(f->name);

    p = put(p, name_len, 1);
    memcpy(p, f->name, name_len);
    p = put(p + name_len, f->kind, 1);
    p = put(p, f->count, 4);
    /* hosts are little-endian x86-64: values in memory are already in stream order */
    memcpy(p, s + f->offset, (size_t)f->size * f->count);
    return p + (size_t)f->size * f->count;
}

size_t state_save(const struct state_table *t, const void *s, u8 *out)
{
    u8 *p = put(out, t->version, 4);

    for (const struct state_field *f = t->fields; f->name; f++)
        p = put_field(p, f, s);
    return (size_t)(put(p, 0, 1) - out);
}

static const struct state_field *field_find(const struct state_table *t, const u8 *name, size_t len)
{
    for (const struct state_field *f = t->fields; f->name; f++)
        if (strlen(f->name) == len && !memcmp(f->name, name, len))
            return f;
    return NULL;
}

/* Checks one field at *in against the table, and where `s` is given stores its values. */
static int load_field(const struct state_table *t, u8 *s, const u8 **in, const u8 *end)
{
    const u8 *p = *in;
    size_t name_len = *p++, bytes;
    const struct state_field *f;

    if ((size_t)(end - p) < name_len + 5)
        return -EINVAL;
    f = field_find(t, p, name_len);
    p += name_len;
    if (!f || f->kind != *p || f->count != get(p + 1, 4))
        return -EINVAL;
    p += 5;
    bytes = (size_t)f->size * f->count;
    if ((size_t)(end - p) < bytes)
        return -EINVAL;
    if (f->kind == STATE_BOOL)
        for (size_t i = 0; i < bytes; i++)
            if (p[i] > 1)
                return -EINVAL;
    if (s)
        memcpy(s + f->offset, p, bytes);
    *in = p + bytes;
    return 0;
}

static int load_fields(const struct state_table *t, u8 *s, const u8 *p, const u8 *end)
{
    while (p < end && *p)
        if (load_field(t, s, &p, end))
            return -EINVAL;
    return p + 1 == end ? 0 : -EINVAL;
}

int state_load(const struct state_table *t, void *s, const u8 *in, size_t len)
{
    if (len < 5 || get(in, 4) > t->version)
        return -EINVAL;
    if (load_fields(t, NULL, in + 4, in + len))
        return -EINVAL;
    return load_fields(t, s, in + 4, in + len);
}

const struct state_field *state_differs(const struct state_table *t, const void *a, const void *b)
{
    for (const struct state_field *f = t->fields; f->name; f++)
        if (memcmp((const u8 *)a + f->offset, (const u8 *)b + f->offset, (size_t)f->size * f->count))
            return f;
    return NULL;
}
