/* Sieve of Eratosthenes over a megabyte: byte stores with a stride, and a count of what is left. */
#include "kernel.h"

#include <string.h>

#define LIMIT (1u << 20)

static u8 composite[LIMIT];

static u64 sieve_round(void)
{
    u64 primes = 0;

    memset(composite, 0, sizeof(composite));
    for (u32 i = 2; i < LIMIT; i++) {
        if (composite[i])
            continue;
        primes++;
        for (u64 multiple = (u64)i * i; multiple < LIMIT; multiple += i)
            composite[multiple] = 1;
    }
    return primes;
}

/* There are 82025 primes below 2^20. */
static const struct kernel kernel = {.name = "sieve", .rounds = 60, .checksum = 82025, .round = sieve_round};

int main(int argc, char **argv)
{
    return kernel_run(&kernel, argc, argv);
}
