/* Traces for whoever develops skerry or a guest: one line an event, by category, off unless asked for with --trace.
 *
 * trace(PIT, "channel %d reload %u", n, v) costs one load and a branch while its category is off. */
#ifndef BASE_TRACE_H
#define BASE_TRACE_H
#include "base/err.h"
#include "base/types.h"

enum trace_category {
#define TRACE(sym, name, what) TRACE_##sym,
#include "base/trace.def"
#undef TRACE
    TRACE_COUNT
};

extern u64 trace_enabled; /* bit n: category n; written before threads start */

#define trace_on(cat) unlikely(trace_enabled &BIT(TRACE_##cat))
#define trace(cat, ...)                             \
    do {                                            \
        if (trace_on(cat))                          \
            trace_print(TRACE_##cat, __VA_ARGS__);  \
    } while (0)

void trace_print(enum trace_category cat, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Turns on a comma-separated list of category names ("all" for every one). -EINVAL and a sentence that lists the names
 * if one is unknown. */
int trace_enable(const char *list, struct err *e);

/* Sends traces to a file descriptor other than stderr. The descriptor stays the caller's. */
void trace_set_fd(int fd);

/* Calls fn for each category with its name and one-line description, for --help. */
void trace_list(void (*fn)(void *ctx, const char *name, const char *what), void *ctx);

#endif
