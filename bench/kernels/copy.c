/* memcpy of the C library, a megabyte at a time, between two buffers of 4 MiB each. */
#include "kernel.h"

#include <string.h>

#define BLOCK (1u << 20)
#define BLOCKS 4

static u8 from[BLOCKS][BLOCK], to[BLOCKS][BLOCK];

static void copy_setup(void)
{
    u64 state = 13;

    for (u32 i = 0; i < BLOCKS; i++)
        for (u32 j = 0; j < BLOCK; j += 64)
            from[i][j] = (u8)sequence_next(&state);
}

static u64 copy_round(void)
{
    u64 sum = 0;

    for (u32 i = 0; i < 64; i++)
        memcpy(to[i % BLOCKS], from[(i + i / BLOCKS) % BLOCKS], BLOCK);
    for (u32 i = 0; i < BLOCKS; i++)
        for (u32 j = 0; j < BLOCK; j += 4096)
            sum = sum * 31 + to[i][j];
    return sum;
}

static const struct kernel kernel = {
    .name = "copy", .rounds = 20, .checksum = 0xec58559c646d509e, .setup = copy_setup, .round = copy_round};

int main(int argc, char **argv)
{
    return kernel_run(&kernel, argc, argv);
}
