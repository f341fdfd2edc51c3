/* What an engine makes of the guest's code, printed as it makes it: chosen by --dump, off otherwise. */
#ifndef BASE_DUMP_H
#define BASE_DUMP_H
#include "base/err.h"
#include "base/types.h"
#include <stdio.h>

enum {
    DUMP_GUEST = 1, /* guest instructions, a block at a time, when they are first decoded */
    DUMP_HOST = 2,  /* blocks as they are translated: guest instructions and the host code that each became */
};

extern u32 dump_enabled; /* DUMP_*; written before threads start */

/* Turns on a comma-separated list of names. -EINVAL and a sentence that lists them if one is unknown. */
int dump_enable(const char *list, struct err *e);

/* Where the text goes instead of stderr; NULL: stderr. The stream stays the caller's. Before threads start, after they ended. */
void dump_set_file(FILE *out);

/* A dump of several lines that other threads' do not interrupt: between these two, dump_print(). */
void dump_begin(void);
void dump_print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void dump_end(void);

#endif
