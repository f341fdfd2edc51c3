/* Choosing what --dump prints, and where to: see dump.h. */
#include "base/dump.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

u32 dump_enabled;
static FILE *dump_file;

static const struct {
    const char *name;
    u32 bit;
} dumps[] = {{"guest", DUMP_GUEST}, {"host", DUMP_HOST}};

static u32 dump_find(const char *name, size_t len)
{
    for (size_t i = 0; i < ARRAY_SIZE(dumps); i++)
        if (strlen(dumps[i].name) == len && !memcmp(dumps[i].name, name, len))
            return dumps[i].bit;
    return 0;
}

int dump_enable(const char *list, struct err *e)
{
    u32 mask = 0;

    for (const char *p = list; *p;) {
        size_t len = strcspn(p, ",");
        u32 bit = dump_find(p, len);

        if (!bit)
            return err_set(e, -EINVAL, "nothing is called '%.*s'; there are: guest, host", (int)len, p);
        mask |= bit;
        p += len + (p[len] == ',');
    }
    dump_enabled |= mask;
    return 0;
}

void dump_set_file(FILE *out)
{
    dump_file = out;
}

static FILE *dump_out(void)
{
    return dump_file ? dump_file : stderr;
}

void dump_begin(void)
{
    flockfile(dump_out());
}

void dump_print(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vfprintf(dump_out(), fmt, ap);
    va_end(ap);
}

void dump_end(void)
{
    funlockfile(dump_out());
}
