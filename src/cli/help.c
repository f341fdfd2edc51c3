/* `skerry help [VERB]`: the overview, or what a verb says of itself. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

static void overview(void)
{
    printf("skerry runs operating systems as x86 virtual machines.\n\nUsage: skerry VERB [OPTION]...\n\n");
    for (const struct cli_verb *v = cli_verbs; v->name; v++)
        printf("  %-9s %s\n", v->name, v->what);
    printf("\nExamples:\n"
           "  skerry image build debian                     make a Debian guest (once, some minutes)\n"
           "  skerry run --kernel vmlinuz --initrd initrd --append console=ttyS0\n"
           "  skerry help run                               every option, exit status and more examples\n");
}

int cli_help(int argc, char **argv)
{
    const struct cli_verb *verb;

    if (argc < 2 || !strcmp(argv[1], "help") || argv[1][0] == '-') {
        overview();
        return 0;
    }
    verb = cli_verb_find(argv[1]);
    if (!verb)
        return cli_verb_unknown(argv[1]);
    if (argc > 2) /* skerry help image build */
        return verb->run(3, (char *[]){argv[1], argv[2], "--help", NULL});
    return verb->run(2, (char *[]){argv[1], "--help", NULL});
}
