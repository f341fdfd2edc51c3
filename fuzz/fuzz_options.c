/* Hostile command lines: the input is the arguments of `skerry run`, separated by newlines. What is accepted must make a
 * configuration that the VM process takes as it is. */
#include "cli/run_options.h"
#include "fuzz_input.h"

#include <stdlib.h>
#include <string.h>

enum { ARGS_MAX = 64 };

static int split(char *text, char **argv)
{
    int argc = 1;

    argv[0] = (char *)"run";
    for (char *line = strtok(text, "\n"); line && argc < ARGS_MAX; line = strtok(NULL, "\n"))
        argv[argc++] = line;
    argv[argc] = NULL;
    return argc;
}

static void accepted(const struct vm_config *c)
{
    struct vm_config again;
    struct err e;
    char *text;

    if (vm_config_check(c, &e) || vm_config_encode(c, &text, &e))
        return; /* a combination that makes no sense, or a name that is no UTF-8 */
    if (vm_config_decode(text, strlen(text), &again, &e))
        abort();
    vm_config_free(&again);
    free(text);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    char *text = malloc(size + 1), *argv[ARGS_MAX + 1];
    struct vm_config config;
    struct err e;

    memcpy(text, data, size);
    text[size] = 0;
    vm_config_init(&config);
    if (!option_parse(&run_options, split(text, argv), argv, &config, &e))
        accepted(&config);
    vm_config_free(&config);
    free(text);
    return 0;
}
