/* The verbs of the command `skerry`. Each takes its own argv (argv[0] is the verb), answers --help, and returns the
 * exit status: 0, 1 for a failure, 2 for a mistake in the command line, or what the verb documents. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#define CLI_FAILURE 1
#define CLI_USAGE 2

int cli_main(int argc, char **argv); /* the whole command line */

int cli_run(int argc, char **argv);
int cli_image_build(int argc, char **argv);
int cli_help(int argc, char **argv);
int cli_version(int argc, char **argv);

/* One verb of the command, for the dispatcher and the help. The table ends with name NULL. */
struct cli_verb {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what; /* one line */
};
extern const struct cli_verb cli_verbs[];

/* NULL when there is none of that name. */
const struct cli_verb *cli_verb_find(const char *name);

/* One sentence on stderr: no such verb, and the nearest one there is. Returns CLI_USAGE. */
int cli_verb_unknown(const char *name);

#endif
