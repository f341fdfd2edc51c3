/* Command-line options, from one table a verb that serves parsing and help alike. */
#ifndef CLI_OPTION_H
#define CLI_OPTION_H
#include "base/err.h"
#include <stdio.h>

struct option_spec {
    const char *name;  /* without the dashes; NULL ends the table */
    char letter;       /* of its short form; 0: none */
    const char *value; /* what the help calls its value; NULL: takes none */
    /* Stores the option; `value` is NULL for an option without one. -Exxx with a sentence, which option_parse completes
     * with the option's name. */
    int (*apply)(void *ctx, const char *value, struct err *e);
    const char *help; /* lines separated by \n */
};

struct option_set {
    const char *verb; /* "run", "image build": for messages */
    const struct option_spec *options;
    int (*operand)(void *ctx, const char *arg, struct err *e); /* an argument that is no option; NULL: none allowed */
};

#define OPTION_HELP 1 /* --help or -h was among the options */

/* Parses argv[1…] in order: --name value, --name=value, -l value, -lvalue, and -- before operands. 0, OPTION_HELP,
 * or -Exxx with a sentence that names the option (and for an unknown one, the nearest). */
int option_parse(const struct option_set *set, int argc, char **argv, void *ctx, struct err *e);

/* Two columns for a verb's --help. */
void option_print(const struct option_spec *options, FILE *out);

#endif
