/* skerry: one program, two roles. The command reads the user's wish; a VM process, started by it, holds one machine. */
#include "cli/cli.h"
#include "vm/vm_main.h"

#include <string.h>

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "vm"))
        return vm_main(argc - 1, argv + 1);
    return cli_main(argc, argv);
}
