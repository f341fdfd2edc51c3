/* Fibonacci numbers as the textbook does not recommend: calls and returns, a few instructions between them. */
#include "kernel.h"

/* Neither inlined nor turned into a loop. */
static __attribute__((noinline, optimize("no-optimize-sibling-calls"))) u64 fibonacci(u32 n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static u64 fibonacci_round(void)
{
    return fibonacci(27);
}

static const struct kernel kernel = {
    .name = "calls_recursive", .rounds = 100, .checksum = 196418, .round = fibonacci_round};

int main(int argc, char **argv)
{
    return kernel_run(&kernel, argc, argv);
}
