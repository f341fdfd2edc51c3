/* The C library's qsort over 100,000 numbers: comparisons through a function pointer, and copies. */
#include "kernel.h"

#include <stdlib.h>

#define COUNT 100000u

static u32 numbers[COUNT];

static int compare(const void *a, const void *b)
{
    u32 x = *(const u32 *)a, y = *(const u32 *)b;

    return (x > y) - (x < y);
}

static u64 qsort_round(void)
{
    u64 state = 7, sum = 0;

    for (u32 i = 0; i < COUNT; i++)
        numbers[i] = sequence_next(&state);
    qsort(numbers, COUNT, sizeof(numbers[0]), compare);
    for (u32 i = 0; i < COUNT; i++)
        sum += (u64)numbers[i] * i;
    for (u32 i = 1; i < COUNT; i++)
        sum += numbers[i - 1] > numbers[i];
    return sum;
}

static const struct kernel kernel = {
    .name = "qsort", .rounds = 15, .checksum = 0x636c360826a6dc65, .round = qsort_round};

int main(int argc, char **argv)
{
    return kernel_run(&kernel, argc, argv);
}
