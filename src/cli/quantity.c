/* Numbers as users write them: see quantity.h. */
#include "cli/quantity.h"

#include <stdio.h>
#include <string.h>

/* Reads digits at *p; false without any, or past 2^64. */
static bool digits(const char **p, u64 *ret)
{
    const char *start = *p;
    u64 n = 0;

    for (; **p >= '0' && **p <= '9'; ++*p)
        if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, (u64)(**p - '0'), &n))
            return false;
    *ret = n;
    return *p != start;
}

bool quantity_number(const char *text, u64 min, u64 max, u64 *ret)
{
    u64 n;

    if (!digits(&text, &n) || *text || n < min || n > max)
        return false;
    *ret = n;
    return true;
}

bool quantity_size(const char *text, u64 *ret)
{
    static const char units[] = "KMGT";
    const char *unit;
    u64 n;

    if (!digits(&text, &n))
        return false;
    unit = *text ? strchr(units, *text & ~0x20) : NULL; /* either case */
    if (unit) {
        if (__builtin_mul_overflow(n, BIT(10 * (unit - units + 1)), &n))
            return false;
        text++;
        if (!strcmp(text, "iB") || !strcmp(text, "B"))
            text += strlen(text);
    }
    if (*text)
        return false;
    *ret = n;
    return true;
}

bool quantity_seconds(const char *text, u64 max_ms, u64 *ret_ms)
{
    u64 whole, ms = 0, unit = 100;

    if (!digits(&text, &whole) || whole > max_ms / 1000)
        return false;
    if (*text == '.') {
        for (text++; unit && *text >= '0' && *text <= '9'; text++, unit /= 10)
            ms += (u64)(*text - '0') * unit;
    }
    if (*text || whole * 1000 + ms > max_ms)
        return false;
    *ret_ms = whole * 1000 + ms;
    return true;
}

char *quantity_format(u64 bytes, char *buf)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double n = (double)bytes;
    int unit = 0;

    for (; n >= 1024 && unit < 4; unit++)
        n /= 1024;
    snprintf(buf, 32, n == (double)(u64)n ? "%.0f %s" : "%.1f %s", n, units[unit]);
    return buf;
}
