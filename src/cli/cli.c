/* Which verb a command line asks for: see cli.h. */
#include "cli/cli.h"

#include "base/log.h"
#include "cli/image.h"
#include "cli/suggest.h"
#include <stddef.h>
#include <string.h>

const struct cli_verb cli_verbs[] = {
    {"run", cli_run, "boot a virtual machine"},
    {"image", cli_image, "build guest images; create, look at, convert and check disk images"},
    {"help", cli_help, "explain a verb: skerry help run"},
    {"version", cli_version, "print the version"},
    {NULL, NULL, NULL},
};

static const struct {
    const char *option, *verb;
} synonyms[] = {{"--help", "help"}, {"-h", "help"}, {"--version", "version"}, {"-V", "version"}};

const struct cli_verb *cli_verb_find(const char *name)
{
    for (size_t i = 0; i < sizeof(synonyms) / sizeof(synonyms[0]); i++)
        if (!strcmp(synonyms[i].option, name))
            name = synonyms[i].verb;
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        if (!strcmp(v->name, name))
            return v;
    return NULL;
}

int cli_verb_unknown(const char *name)
{
    struct suggestion s = {.word = name};

    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        suggest_offer(&s, v->name);
    if (suggest_best(&s))
        log_error("no verb '%s'; did you mean '%s'?", name, suggest_best(&s));
    else
        log_error("no verb '%s'; 'skerry help' lists them", name);
    return CLI_USAGE;
}

int cli_main(int argc, char **argv)
{
    const struct cli_verb *verb;

    if (argc < 2) {
        cli_help(1, (char *[]){"help", NULL});
        return CLI_USAGE;
    }
    verb = cli_verb_find(argv[1]);
    return verb ? verb->run(argc - 1, argv + 1) : cli_verb_unknown(argv[1]);
}
