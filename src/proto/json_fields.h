/* Plain structs to and from JSON objects, by one table of fields that serves both ways.
 *
 * Decoding is strict: every key must be in the table, of the right type and within its range; keys that are absent
 * leave the struct's value as it was. */
#ifndef PROTO_JSON_FIELDS_H
#define PROTO_JSON_FIELDS_H
#include "base/err.h"
#include "base/types.h"
#include <jansson.h>

enum json_kind {
    JSON_FIELD_BOOL, /* bool */
    JSON_FIELD_INT,  /* int */
    JSON_FIELD_U32,  /* u32 */
    JSON_FIELD_U64,  /* u64, to 2^63 - 1 */
    JSON_FIELD_TEXT, /* char *, malloc'd, NULL is an absent key; `max` bounds its length */
    JSON_FIELD_NAME, /* unsigned index into `names` */
};

struct json_field {
    const char *key;
    enum json_kind kind;
    size_t offset; /* in the struct */
    s64 min, max;
    const char *const *names;
};

/* The object, or NULL when a text is not UTF-8 or memory ran out. Fields end with key NULL. */
json_t *json_fields_encode(const struct json_field *fields, const void *from);

/* -EINVAL and a sentence that names the key. What was stored before stays stored: free `to` as after success. Keys
 * listed in `others` (NULL-terminated, may be NULL) are the caller's. */
int json_fields_decode(const struct json_field *fields, const json_t *object, const char *const *others, void *to,
                       struct err *e);

/* Frees the texts and leaves NULL. */
void json_fields_free(const struct json_field *fields, void *from);

#endif
