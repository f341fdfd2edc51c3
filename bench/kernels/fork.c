/* fork of a process with some megabytes of touched memory; the child ends at once, the parent waits for it. */
#include "kernel.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILDREN 10u
#define STATUS 42

static u8 memory[4 << 20];

static void fork_setup(void)
{
    memset(memory, 1, sizeof(memory));
}

/* How many children were started, and ended as they should. */
static u64 fork_round(void)
{
    u64 good = 0;

    for (u32 i = 0; i < CHILDREN; i++) {
        int status = 0;
        pid_t child = fork();

        if (!child)
            _exit(memory[i * 4096] ? STATUS : 0);
        good += child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == STATUS;
    }
    return good;
}

static const struct kernel kernel = {
    .name = "fork", .rounds = 60, .checksum = CHILDREN, .setup = fork_setup, .round = fork_round};

int main(int argc, char **argv)
{
    return kernel_run(&kernel, argc, argv);
}
