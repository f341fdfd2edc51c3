/* Calls through a table of eight functions in random order. */
#include "kernel.h"

#define CALLS 200000u

#define STEP(n, expression)   \
    static u64 step##n(u64 x) \
    {                         \
        return expression;    \
    }
STEP(0, x + 1)
STEP(1, x ^ 0x55)
STEP(2, x * 3)
STEP(3, x >> 1)
STEP(4, x - 7)
STEP(5, ~x)
STEP(6, x + (x << 4))
STEP(7, x ^ x >> 9)

static u64 (*const volatile steps[8])(u64) = {step0, step1, step2, step3, step4, step5, step6, step7};

static u64 indirect_round(void)
{
    u64 state = 17, x = 1;

    for (u32 i = 0; i < CALLS; i++)
        x = steps[sequence_next(&state) % 8](x);
    return x;
}

static const struct kernel kernel = {
    .name = "calls_indirect", .rounds = 60, .checksum = 0xd62a99f44652a7dd, .round = indirect_round};

int main(int argc, char **argv)
{
    return kernel_run(&kernel, argc, argv);
}
