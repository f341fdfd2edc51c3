/* The integer loop on the host: prints the seconds for argv[1] million iterations, by the clock and on the CPU, and the
 * sum. */
#include "loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double seconds_now(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    u64 n = (argc > 1 ? strtoull(argv[1], NULL, 0) : 100) * 1000000, sum;
    double wall = seconds_now(CLOCK_MONOTONIC), cpu = seconds_now(CLOCK_PROCESS_CPUTIME_ID);

    sum = integer_loop(n);
    wall = seconds_now(CLOCK_MONOTONIC) - wall;
    cpu = seconds_now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    printf("%.6f %.6f %llx\n", wall, cpu, (unsigned long long)sum);
    return 0;
}
