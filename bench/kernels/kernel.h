/* What the kernels of the benchmark share: each is a program of a fixed amount of work that times and verifies itself.
 * See kernel.c. */
#ifndef BENCH_KERNEL_H
#define BENCH_KERNEL_H
#include <stdint.h>
typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

struct kernel {
    const char *name;
    unsigned rounds;     /* how often at scale 1: some 0.1 to 0.3 seconds on a processor of today */
    u64 checksum;        /* what every round returns on a processor that computes right */
    void (*setup)(void); /* before the clock runs; may be NULL */
    u64 (*round)(void);
};

/* Runs the rounds, argv[1] (a decimal number, 1 if left out) times as many as the kernel says, but at least one. Prints
 * "NAME SECONDS ok", or "NAME SECONDS wrong: X instead of Y". Returns the exit status of the program. */
int kernel_run(const struct kernel *k, int argc, char **argv);

/* The next of a fixed sequence of numbers that look random; *state is where the sequence stands. */
static inline u32 sequence_next(u64 *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (u32)(*state >> 33);
}

#endif
