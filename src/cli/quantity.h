/* Numbers as users write them. */
#ifndef CLI_QUANTITY_H
#define CLI_QUANTITY_H
#include "base/types.h"

/* A whole decimal number, nothing around it. False if it is none or out of [min, max]. */
bool quantity_number(const char *text, u64 min, u64 max, u64 *ret);

/* A number of bytes, with K, M, G or T (powers of 1024; iB may follow) or none. False also when it overflows. */
bool quantity_size(const char *text, u64 *ret);

/* Seconds, at most three decimals, in milliseconds. */
bool quantity_seconds(const char *text, u64 max_ms, u64 *ret_ms);

/* "1.5 GiB", "512 MiB": for sentences. `buf` holds at least 32 bytes and is returned. */
char *quantity_format(u64 bytes, char *buf);

#endif
