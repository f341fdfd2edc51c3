/* Random cases: numbers from a seed that is printed, and checks that have a line only where they do not hold. */
#ifndef RANDOM_H
#define RANDOM_H
#include "guest.h"
#include "xorshift.h"

/* A line for each that holds would be too many. */
#define must(ok, ...)                                                                                                  \
    do {                                                                                                               \
        if (!(ok))                                                                                                     \
            check(false, __VA_ARGS__);                                                                                 \
    } while (0)

static void random_start(void)
{
    seed = (u32)rdtsc() | 1;
    print("seed %x\n", seed);
}

#endif
