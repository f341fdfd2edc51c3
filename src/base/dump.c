/* Choosing what --dump prints: see dump.h. */
#include "base/dump.h"

#include <errno.h>
#include <string.h>

u32 dump_enabled;

static const struct {
    const char *name;
    u32 bit;
} dumps[] = {{"guest", DUMP_GUEST}};

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
            return err_set(e, -EINVAL, "nothing is called '%.*s'; there is: guest", (int)len, p);
        mask |= bit;
        p += len + (p[len] == ',');
    }
    dump_enabled |= mask;
    return 0;
}
