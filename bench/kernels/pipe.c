/* A byte goes to another process through a pipe and comes back through a second one: system calls, waking, context
 * switches. */
#include "kernel.h"

#include <sys/wait.h>
#include <unistd.h>

#define TRIPS 1000u

static int forth[2], back[2];

/* The other process adds one to each byte, until the pipe is closed. */
static void echo(void)
{
    u8 byte;

    close(forth[1]);
    while (read(forth[0], &byte, 1) == 1) {
        byte++;
        if (write(back[1], &byte, 1) != 1)
            break;
    }
    _exit(0);
}

static void pipe_setup(void)
{
    if (!pipe(forth) && !pipe(back) && !fork())
        echo();
}

/* How many bytes came back as they should. */
static u64 pipe_round(void)
{
    u64 good = 0;

    for (u32 i = 0; i < TRIPS; i++) {
        u8 byte = (u8)i;

        if (write(forth[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1)
            good += byte == (u8)(i + 1);
    }
    return good;
}

static const struct kernel kernel = {
    .name = "pipe", .rounds = 30, .checksum = TRIPS, .setup = pipe_setup, .round = pipe_round};

int main(int argc, char **argv)
{
    int status = kernel_run(&kernel, argc, argv);

    close(forth[1]); /* which ends the other process */
    wait(NULL);
    return status;
}
