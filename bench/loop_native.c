/* The integer loop on the host: prints seconds for argv[1] million iterations. */
#include "loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv)
{
    struct timespec a, b;
    u64 n = (argc > 1 ? strtoull(argv[1], NULL, 0) : 100) * 1000000, sum;

    clock_gettime(CLOCK_MONOTONIC, &a);
    sum = integer_loop(n);
    clock_gettime(CLOCK_MONOTONIC, &b);
    printf("%.6f %llx\n", (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9, (unsigned long long)sum);
    return 0;
}
