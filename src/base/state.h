/* State tables: what a device or a vCPU must keep across save and restore, declared once.
 *
 * The kept state lives in one plain struct (by custom the member `s`); a table of fields describes it. A field whose type is
 * not an integer of fixed width (a pointer, an fd held in an int) does not compile. A test demands that the fields cover
 * sizeof(s), so padding must be spelt out and nothing can be forgotten.
 *
 * Stream format, little-endian: u32 version, then per field u8 name length, name, u8 kind, u32 count, values; a zero
 * length ends it. Streams are read as hostile input. */
#ifndef BASE_STATE_H
#define BASE_STATE_H
#include "base/types.h"

enum state_kind { STATE_U8 = 1, STATE_U16, STATE_U32, STATE_U64, STATE_S64, STATE_BOOL };

struct state_field {
    const char *name;
    u8 kind; /* enum state_kind */
    u8 size; /* bytes of one value */
    u32 count;
    u32 offset; /* in the state struct */
};

struct state_table {
    u32 version;
    u32 size; /* sizeof the state struct */
    const struct state_field *fields;
};

#define STATE_KIND(x) \
    _Generic((x), u8: STATE_U8, u16: STATE_U16, u32: STATE_U32, u64: STATE_U64, s64: STATE_S64, bool: STATE_BOOL)
#define STATE(T, f) {#f, STATE_KIND(((T *)0)->f), sizeof(((T *)0)->f), 1, offsetof(T, f)}
#define STATE_ARRAY(T, f)                                              \
    {#f, STATE_KIND(((T *)0)->f[0]), sizeof(((T *)0)->f[0]),           \
     sizeof(((T *)0)->f) / sizeof(((T *)0)->f[0]), offsetof(T, f)}
#define STATE_END {0}
#define STATE_TABLE(T, fields, version) {version, sizeof(T), fields}

/* Bytes of the state struct that the fields describe; equals table->size when nothing is missing. */
size_t state_covered(const struct state_table *t);

/* Bytes that state_save will write. */
size_t state_stream_size(const struct state_table *t);

/* Writes the stream to `out` (at least state_stream_size bytes) and returns its length. */
size_t state_save(const struct state_table *t, const void *s, u8 *out);

/* Reads a stream of `len` bytes into `s`. -EINVAL for a stream that is malformed, truncated, newer than the table, or
 * that names a field unknown here; fields that the stream lacks keep their value. On failure `s` is unchanged. */
int state_load(const struct state_table *t, void *s, const u8 *in, size_t len);

/* The first field (by order in the table) whose value differs between two states, or NULL. */
const struct state_field *state_differs(const struct state_table *t, const void *a, const void *b);

#endif
