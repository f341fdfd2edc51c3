/* `skerry version`. */
#include "cli/cli.h"

#include <stdio.h>

int cli_version(int argc, char **argv)
{
    printf("skerry %s\n", SKERRY_VERSION);
    return 0;
}
