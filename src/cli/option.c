/* Option tables: see option.h. */
#include "cli/option.h"

#include "cli/suggest.h"
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define HELP_COLUMN 28

/* The option that `arg` spells, and in *ret_value what follows = or the letter (NULL: nothing does). */
static const struct option_spec *option_find(const struct option_spec *o, const char *arg, const char **ret_value)
{
    size_t len = strcspn(arg, "=");

    for (; o->name; o++) {
        if (arg[1] != '-' && o->letter == arg[1]) {
            *ret_value = arg[2] ? arg + 2 : NULL;
            return o;
        }
        if (arg[1] == '-' && strlen(o->name) == len - 2 && !memcmp(o->name, arg + 2, len - 2)) {
            *ret_value = arg[len] ? arg + len + 1 : NULL;
            return o;
        }
    }
    return NULL;
}

static int option_unknown(const struct option_set *set, const char *arg, struct err *e)
{
    char word[64];
    struct suggestion s = {.word = word};

    snprintf(word, sizeof(word), "%.*s", (int)strcspn(arg + 2, "="), arg + 2);
    for (const struct option_spec *o = set->options; arg[1] == '-' && o->name; o++)
        suggest_offer(&s, o->name);
    if (suggest_best(&s))
        return err_set(e, -EINVAL, "no option '%s'; did you mean --%s?", arg, suggest_best(&s));
    return err_set(e, -EINVAL, "no option '%s'; 'skerry help %s' lists them", arg, set->verb);
}

static int option_apply(const struct option_spec *o, const char *value, void *ctx, struct err *e)
{
    if (!o->apply(ctx, value, e))
        return 0;
    if (o->letter)
        err_prefix(e, "-%c", o->letter);
    else
        err_prefix(e, "--%s", o->name);
    return e->code;
}

static int operand_apply(const struct option_set *set, const char *arg, void *ctx, struct err *e)
{
    if (set->operand)
        return set->operand(ctx, arg, e);
    return err_set(e, -EINVAL, "'%s' is no option, and '%s' takes nothing else; see 'skerry help %s'", arg, set->verb,
                   set->verb);
}

/* One option at argv[*at], and its value; moves *at past them. */
static int option_next(const struct option_set *set, char **argv, int *at, void *ctx, struct err *e)
{
    const char *arg = argv[(*at)++], *value = NULL;
    const struct option_spec *o = option_find(set->options, arg, &value);

    if (!o)
        return option_unknown(set, arg, e);
    if (!o->value && value)
        return err_set(e, -EINVAL, "--%s takes no value", o->name);
    if (o->value && !value) {
        value = argv[*at];
        if (!value)
            return err_set(e, -EINVAL, "--%s needs a value: --%s %s", o->name, o->name, o->value);
        ++*at;
    }
    return option_apply(o, value, ctx, e);
}

int option_parse(const struct option_set *set, int argc, char **argv, void *ctx, struct err *e)
{
    bool operands_only = false;

    for (int at = 1; at < argc;) {
        const char *arg = argv[at];

        if (operands_only || arg[0] != '-' || !arg[1]) {
            at++;
            if (operand_apply(set, arg, ctx, e))
                return e->code;
        } else if (!strcmp(arg, "--help") || !strcmp(arg, "-h")) {
            return OPTION_HELP;
        } else if (!strcmp(arg, "--")) {
            operands_only = true;
            at++;
        } else if (option_next(set, argv, &at, ctx, e)) {
            return e->code;
        }
    }
    return 0;
}

static void help_column(const char *help, FILE *out)
{
    for (;;) {
        size_t len = strcspn(help, "\n");

        fprintf(out, "%.*s\n", (int)len, help);
        if (!help[len])
            return;
        help += len + 1;
        fprintf(out, "%*s", HELP_COLUMN, "");
    }
}

void option_print(const struct option_spec *options, FILE *out)
{
    for (const struct option_spec *o = options; o->name; o++) {
        char left[64];
        int n;

        if (o->letter)
            n = snprintf(left, sizeof(left), "  -%c, --%s %s", o->letter, o->name, o->value ? o->value : "");
        else
            n = snprintf(left, sizeof(left), "  --%s %s", o->name, o->value ? o->value : "");
        if (n >= HELP_COLUMN)
            fprintf(out, "%s\n%*s", left, HELP_COLUMN, "");
        else
            fprintf(out, "%-*s", HELP_COLUMN, left);
        help_column(o->help, out);
    }
}
