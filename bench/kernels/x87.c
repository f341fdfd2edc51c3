/* Sums in 80-bit long double on the x87 stack: divisions, multiplications, square roots, and conversions from
 * integers. */
#include "kernel.h"

#include <math.h>
#include <string.h>

#define TERMS 100000u

static u64 x87_round(void)
{
    long double sum = 0, weight = 1;
    u64 mantissa;

    for (u32 i = 1; i <= TERMS; i++) {
        long double x = i;

        sum += weight / (x * x) + sqrtl(x) * 1e-6L;
        weight = -weight * 0.99999L;
    }
    memcpy(&mantissa, &sum, sizeof(mantissa));
    return mantissa;
}

static const struct kernel kernel = {.name = "x87", .rounds = 300, .checksum = 0xaf3c5e984dd7cc0d, .round = x87_round};

int main(int argc, char **argv)
{
    return kernel_run(&kernel, argc, argv);
}
