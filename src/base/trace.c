/* Trace lines: see trace.h. */
#include "base/trace.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

u64 trace_enabled;
static int trace_fd = STDERR_FILENO;

static const struct {
    const char *name, *what;
} categories[TRACE_COUNT] = {
#define TRACE(sym, name, what) [TRACE_##sym] = {name, what},
#include "base/trace.def"
#undef TRACE
};

void trace_print(enum trace_category cat, const char *fmt, ...)
{
    struct timespec ts;
    char line[512];
    va_list ap;
    int n;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    n = snprintf(line, sizeof(line), "%lld.%06ld %s: ", (long long)ts.tv_sec, ts.tv_nsec / 1000, categories[cat].name);
    va_start(ap, fmt);
    n += vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
    va_end(ap);
    if (n > (int)sizeof(line) - 2)
        n = (int)sizeof(line) - 2;
    line[n++] = '\n';
    if (write(trace_fd, line, (size_t)n) < 0)
        return; /* a closed trace file must not stop the machine */
}

static int category_find(const char *name, size_t len)
{
    for (int i = 0; i < TRACE_COUNT; i++)
        if (strlen(categories[i].name) == len && !memcmp(categories[i].name, name, len))
            return i;
    return -1;
}

static int unknown_category(struct err *e, const char *name, size_t len)
{
    char all[256] = "";

    for (int i = 0; i < TRACE_COUNT; i++) {
        strncat(all, i ? ", " : "", sizeof(all) - strlen(all) - 1);
        strncat(all, categories[i].name, sizeof(all) - strlen(all) - 1);
    }
    return err_set(e, -EINVAL, "no category '%.*s'; there are: all, %s", (int)len, name, all);
}

int trace_enable(const char *list, struct err *e)
{
    u64 mask = 0;

    for (const char *p = list; *p;) {
        size_t len = strcspn(p, ",");
        int cat = category_find(p, len);

        if (len == 3 && !memcmp(p, "all", 3))
            mask = ~0ull;
        else if (cat < 0)
            return unknown_category(e, p, len);
        else
            mask |= BIT(cat);
        p += len + (p[len] == ',');
    }
    trace_enabled |= mask;
    return 0;
}

void trace_set_fd(int fd)
{
    trace_fd = fd;
}

void trace_list(void (*fn)(void *ctx, const char *name, const char *what), void *ctx)
{
    for (int i = 0; i < TRACE_COUNT; i++)
        fn(ctx, categories[i].name, categories[i].what);
}
