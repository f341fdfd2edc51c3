/* What an engine makes of the guest's code, printed as it makes it: chosen by --dump, off otherwise. */
#ifndef BASE_DUMP_H
#define BASE_DUMP_H
#include "base/err.h"
#include "base/types.h"

enum { DUMP_GUEST = 1 }; /* guest instructions, a block at a time, when they are first decoded */

extern u32 dump_enabled; /* DUMP_*; written before threads start */

/* Turns on a comma-separated list of names. -EINVAL and a sentence that lists them if one is unknown. */
int dump_enable(const char *list, struct err *e);

#endif
