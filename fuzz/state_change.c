/* See state_change.h. */
#include "state_change.h"

#include <stdlib.h>
#include <string.h>

static int field_count(const struct state_table *t)
{
    int n = 0;

    while (t->fields[n].name)
        n++;
    return n;
}

/* A value of a field: any byte of it, or all of them. */
static void value_change(const struct state_table *t, u8 *state, struct fuzz_input *in)
{
    const struct state_field *f = &t->fields[take(in, 1) % (u64)field_count(t)];
    u8 how = (u8)take(in, 1), *val = state + f->offset + (take(in, 1) % f->count) * f->size;

    if (how & 1)
        val[how >> 1 & (f->size - 1)] = (u8)take(in, 1);
    else
        memset(val, (int)take(in, 1), f->size);
}

/* The stream's own bytes, and where it ends. */
static size_t stream_change(u8 *stream, size_t len, struct fuzz_input *in)
{
    for (int n = (int)take(in, 1) % 4; n; n--)
        stream[take(in, 2) % len] = (u8)take(in, 1);
    return take(in, 1) % 8 ? len : take(in, 2) % len;
}

u8 *state_stream_changed(const struct state_table *t, const void *s, struct fuzz_input *in, size_t *ret_len)
{
    u8 *stream = malloc(state_stream_size(t)), *copy = malloc(t->size);

    memcpy(copy, s, t->size);
    for (int n = (int)take(in, 1) % 8; n; n--)
        value_change(t, copy, in);
    *ret_len = stream_change(stream, state_save(t, copy, stream), in);
    free(copy);
    return stream;
}
