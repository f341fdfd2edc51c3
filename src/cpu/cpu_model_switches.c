/* Parsing of --cpu-model: see cpu_model_switches.h. */
#include "cpu/cpu_model_switches.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PART_MAX = 63, PHYS_BITS_MIN = 32, PHYS_BITS_MAX = 52 };

static int plain(char c)
{
    return c == '-' ? '_' : toupper((unsigned char)c);
}

static bool name_equal(const char *a, const char *b)
{
    while (*a && plain(*a) == plain(*b))
        a++, b++;
    return plain(*a) == plain(*b);
}

static int switch_parse(const char *part, struct cpu_model_switches *s, struct err *e)
{
    u64 *on = *part == '+' ? s->add : s->drop, *off = *part == '+' ? s->drop : s->add;

    for (int f = 0; f < FEAT_COUNT; f++)
        if (name_equal(cpu_feature_places[f].name, part + 1)) {
            on[f / 64] |= 1ull << (f % 64);
            off[f / 64] &= ~(1ull << (f % 64));
            return 0;
        }
    return err_set(e, -EINVAL, "--cpu-model: there is no CPU feature '%s' that could be switched", part + 1);
}

static int vendor_parse(const char *text, struct cpu_model_switches *s, struct err *e)
{
    if (strlen(text) != 12)
        return err_set(e, -EINVAL, "--cpu-model: vendor '%s' must have 12 characters, as GenuineIntel", text);
    strcpy(s->vendor, text);
    return 0;
}

static int phys_bits_parse(const char *text, struct cpu_model_switches *s, struct err *e)
{
    char *end;
    unsigned long bits = strtoul(text, &end, 10);

    if (!isdigit((unsigned char)*text) || *end || bits < PHYS_BITS_MIN || bits > PHYS_BITS_MAX)
        return err_set(e, -EINVAL, "--cpu-model: phys-bits must be a number from %d to %d", PHYS_BITS_MIN, PHYS_BITS_MAX);
    s->phys_bits = (int)bits;
    return 0;
}

static int part_parse(const char *part, bool first, struct cpu_model_switches *s, struct err *e)
{
    if (*part == '+' || *part == '-')
        return switch_parse(part, s, e);
    if (!strncmp(part, "vendor=", 7))
        return vendor_parse(part + 7, s, e);
    if (!strncmp(part, "phys-bits=", 10))
        return phys_bits_parse(part + 10, s, e);
    if (!first)
        return err_set(e, -EINVAL, "--cpu-model: '%s' must be +FEATURE, -FEATURE, vendor=NAME or phys-bits=N", part);
    snprintf(s->name, sizeof(s->name), "%.*s", (int)sizeof(s->name) - 1, part);
    return 0;
}

int cpu_model_switches_parse(const char *text, struct cpu_model_switches *ret, struct err *e)
{
    const char *at = text;
    int r = 0;

    *ret = (struct cpu_model_switches){0};
    while (*at && !r) {
        size_t len = strcspn(at, ",");
        char part[PART_MAX + 1];

        if (len > PART_MAX)
            return err_set(e, -EINVAL, "--cpu-model: '%.20s…' is too long", at);
        snprintf(part, sizeof(part), "%.*s", (int)len, at);
        r = part_parse(part, at == text, ret, e);
        at += len + (at[len] == ',');
    }
    return r;
}
