/* Field tables for JSON objects: see json_fields.h. */
#include "proto/json_fields.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static json_t *field_encode(const struct json_field *f, const void *p)
{
    switch (f->kind) {
    case JSON_FIELD_BOOL:
        return json_boolean(*(const bool *)p);
    case JSON_FIELD_INT:
        return json_integer(*(const int *)p);
    case JSON_FIELD_U32:
        return json_integer(*(const u32 *)p);
    case JSON_FIELD_U64:
        return json_integer((s64)(*(const u64 *)p));
    case JSON_FIELD_TEXT:
        return json_string(*(char *const *)p);
    case JSON_FIELD_NAME:
        return json_string(f->names[*(const unsigned *)p]);
    }
    return NULL;
}

static bool absent(const struct json_field *f, const void *p)
{
    return f->kind == JSON_FIELD_TEXT && !*(char *const *)p;
}

json_t *json_fields_encode(const struct json_field *fields, const void *from)
{
    json_t *object = json_object();

    for (const struct json_field *f = fields; object && f->key; f++) {
        const void *p = (const char *)from + f->offset;

        if (!absent(f, p) && json_object_set_new(object, f->key, field_encode(f, p))) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

static int text_decode(const struct json_field *f, const json_t *v, char **p, struct err *e)
{
    char *copy;

    if (!json_is_string(v))
        return err_set(e, -EINVAL, "'%s' must be a text", f->key);
    if (json_string_length(v) > (size_t)f->max)
        return err_set(e, -EINVAL, "'%s' is longer than %lld bytes", f->key, (long long)f->max);
    copy = strdup(json_string_value(v));
    if (!copy)
        return err_set(e, -ENOMEM, "out of memory");
    free(*p);
    *p = copy;
    return 0;
}

static int name_decode(const struct json_field *f, const json_t *v, unsigned *p, struct err *e)
{
    const char *name = json_string_value(v);

    for (unsigned i = 0; name && f->names[i]; i++)
        if (!strcmp(f->names[i], name)) {
            *p = i;
            return 0;
        }
    return err_set(e, -EINVAL, "'%s' is none of the names it may be", f->key);
}

static int number_decode(const struct json_field *f, const json_t *v, void *p, struct err *e)
{
    json_int_t n = json_integer_value(v);

    if (!json_is_integer(v) || n < f->min || n > f->max)
        return err_set(e, -EINVAL, "'%s' must be a number from %lld to %lld", f->key, (long long)f->min,
                       (long long)f->max);
    if (f->kind == JSON_FIELD_INT)
        *(int *)p = (int)n;
    else if (f->kind == JSON_FIELD_U32)
        *(u32 *)p = (u32)n;
    else
        *(u64 *)p = (u64)n;
    return 0;
}

static int field_decode(const struct json_field *f, const json_t *v, void *p, struct err *e)
{
    switch (f->kind) {
    case JSON_FIELD_BOOL:
        if (!json_is_boolean(v))
            return err_set(e, -EINVAL, "'%s' must be true or false", f->key);
        *(bool *)p = json_is_true(v);
        return 0;
    case JSON_FIELD_TEXT:
        return text_decode(f, v, p, e);
    case JSON_FIELD_NAME:
        return name_decode(f, v, p, e);
    default:
        return number_decode(f, v, p, e);
    }
}

static const struct json_field *field_find(const struct json_field *fields, const char *key)
{
    for (; fields->key; fields++)
        if (!strcmp(fields->key, key))
            return fields;
    return NULL;
}

static bool listed(const char *const *keys, const char *key)
{
    for (; keys && *keys; keys++)
        if (!strcmp(*keys, key))
            return true;
    return false;
}

int json_fields_decode(const struct json_field *fields, const json_t *object, const char *const *others, void *to,
                       struct err *e)
{
    const char *key;
    json_t *value;

    if (!json_is_object(object))
        return err_set(e, -EINVAL, "not a JSON object");
    json_object_foreach((json_t *)object, key, value) {
        const struct json_field *f = field_find(fields, key);

        if (!f && !listed(others, key))
            return err_set(e, -EINVAL, "unknown key '%.64s'", key);
        if (f && field_decode(f, value, (char *)to + f->offset, e))
            return e->code;
    }
    return 0;
}

void json_fields_free(const struct json_field *fields, void *from)
{
    for (const struct json_field *f = fields; f->key; f++) {
        char **text = (char **)((char *)from + f->offset);

        if (f->kind != JSON_FIELD_TEXT)
            continue;
        free(*text);
        *text = NULL;
    }
}
