/* Product of two matrices of 192 × 192 numbers of type ELEMENT (float or double): packed SSE multiplications and
 * additions. The elements are small whole numbers, so that every sum is exact. */
#include "kernel.h"

#define SIZE 192
#define TEXT(x) #x
#define NAME_OF(element) "matmul_" TEXT(element)

static ELEMENT left[SIZE][SIZE], right[SIZE][SIZE], product[SIZE][SIZE];

static void matmul_setup(void)
{
    u64 state = 5;

    for (int i = 0; i < SIZE; i++)
        for (int j = 0; j < SIZE; j++) {
            left[i][j] = (ELEMENT)(sequence_next(&state) % 64);
            right[i][j] = (ELEMENT)(sequence_next(&state) % 64);
        }
}

static void add_multiple(ELEMENT *restrict sum, const ELEMENT *restrict row, ELEMENT factor)
{
    for (int j = 0; j < SIZE; j++)
        sum[j] += factor * row[j];
}

static u64 matmul_round(void)
{
    u64 sum = 0;

    for (int i = 0; i < SIZE; i++) {
        for (int j = 0; j < SIZE; j++)
            product[i][j] = 0;
        for (int k = 0; k < SIZE; k++)
            add_multiple(product[i], right[k], left[i][k]);
    }
    for (int i = 0; i < SIZE; i++)
        for (int j = 0; j < SIZE; j++)
            sum = sum * 31 + (u64)product[i][j];
    return sum;
}

static const struct kernel kernel = {.name = NAME_OF(ELEMENT),
                                     .rounds = ROUNDS,
                                     .checksum = 0x91d337134fbffb90,
                                     .setup = matmul_setup,
                                     .round = matmul_round};

int main(int argc, char **argv)
{
    return kernel_run(&kernel, argc, argv);
}
