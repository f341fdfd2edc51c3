/* vfork and exec of this very program, which is static and ends at once: making and tearing down an address space. */
#include "kernel.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILDREN 10u
#define STATUS 43

static const char *program;

static int start_and_wait(void)
{
    int status = 0;
    pid_t child = vfork();

    if (!child) {
        execl(program, program, "child", NULL);
        _exit(1);
    }
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == STATUS;
}

/* How many children were started, and ended as they should. */
static u64 exec_round(void)
{
    u64 good = 0;

    for (u32 i = 0; i < CHILDREN; i++)
        good += (u64)start_and_wait();
    return good;
}

static const struct kernel kernel = {.name = "exec", .rounds = 20, .checksum = CHILDREN, .round = exec_round};

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "child"))
        return STATUS;
    program = argv[0];
    return kernel_run(&kernel, argc, argv);
}
