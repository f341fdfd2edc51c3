/* getppid, again and again: the way into the kernel and back. */
#include "kernel.h"

#include <sys/syscall.h>
#include <unistd.h>

#define CALLS 10000u

static pid_t parent;

static void syscalls_setup(void)
{
    parent = getppid();
}

/* How many calls gave the right answer. */
static u64 syscalls_round(void)
{
    u64 right = 0;

    for (u32 i = 0; i < CALLS; i++)
        right += syscall(SYS_getppid) == parent;
    return right;
}

static const struct kernel kernel = {
    .name = "syscalls", .rounds = 100, .checksum = CALLS, .setup = syscalls_setup, .round = syscalls_round};

int main(int argc, char **argv)
{
    return kernel_run(&kernel, argc, argv);
}
