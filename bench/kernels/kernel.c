/* The frame of a kernel: rounds, clock, verdict. Every round is the same work and must return the same checksum, so
 * that a wrong result is seen whatever the scale. */
#include "kernel.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double seconds_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int kernel_run(const struct kernel *k, int argc, char **argv)
{
    double scale = argc > 1 ? strtod(argv[1], NULL) : 1, start, seconds;
    unsigned rounds = (unsigned)(k->rounds * scale);
    u64 wrong = k->checksum;

    if (k->setup)
        k->setup();
    start = seconds_now();
    for (unsigned i = 0; i < (rounds ? rounds : 1); i++) {
        u64 sum = k->round();

        if (sum != k->checksum)
            wrong = sum;
    }
    seconds = seconds_now() - start;
    printf("%s %.6f ", k->name, seconds);
    if (wrong == k->checksum)
        puts("ok");
    else
        printf("wrong: %#" PRIx64 " instead of %#" PRIx64 "\n", wrong, k->checksum);
    return wrong != k->checksum;
}
