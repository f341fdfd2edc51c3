/* SHA-256 (FIPS 180-4) in plain C over a megabyte: rotations, logic and additions in registers. The constants are
 * computed as the standard defines them: the first bits of the fractional parts of roots of the first primes. */
#include "kernel.h"

#include <math.h>

#define SIZE (1u << 20) /* a whole number of 64-byte blocks; the padding is one more */

static u32 constants[64], initial[8];
static u8 message[SIZE + 64];

static u32 fraction(long double x)
{
    return (u32)((x - floorl(x)) * 4294967296.0L);
}

static void sha256_setup(void)
{
    u64 state = 1;
    u32 count = 0;

    for (u32 candidate = 2; count < 64; candidate++) {
        u32 divisor = 2;

        while (candidate % divisor)
            divisor++;
        if (divisor != candidate)
            continue;
        if (count < 8)
            initial[count] = fraction(sqrtl(candidate));
        constants[count++] = fraction(cbrtl(candidate));
    }
    for (u32 i = 0; i < SIZE; i++)
        message[i] = (u8)sequence_next(&state);
    message[SIZE] = 0x80;
    for (u32 i = 0; i < 8; i++)
        message[SIZE + 63 - i] = (u8)((u64)SIZE * 8 >> 8 * i);
}

static inline u32 rotate(u32 x, int n)
{
    return x >> n | x << (32 - n);
}

static void schedule(const u8 *block, u32 w[64])
{
    for (int i = 0; i < 16; i++)
        w[i] = (u32)block[i * 4] << 24 | (u32)block[i * 4 + 1] << 16 | (u32)block[i * 4 + 2] << 8 | block[i * 4 + 3];
    for (int i = 16; i < 64; i++) {
        u32 a = w[i - 15], b = w[i - 2];

        w[i] =
            w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[i - 7] + (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
    }
}

static void compress(u32 hash[8], const u8 *block)
{
    u32 w[64], a = hash[0], b = hash[1], c = hash[2], d = hash[3], e = hash[4], f = hash[5], g = hash[6], h = hash[7];

    schedule(block, w);
    for (int i = 0; i < 64; i++) {
        u32 t1 = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + constants[i] + w[i];
        u32 t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));

        h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    hash[0] += a, hash[1] += b, hash[2] += c, hash[3] += d, hash[4] += e, hash[5] += f, hash[6] += g, hash[7] += h;
}

static u64 sha256_round(void)
{
    u32 hash[8];

    for (int i = 0; i < 8; i++)
        hash[i] = initial[i];
    for (u32 at = 0; at < sizeof(message); at += 64)
        compress(hash, message + at);
    return (u64)hash[0] << 32 | hash[7];
}

static const struct kernel kernel = {
    .name = "sha256", .rounds = 40, .checksum = 0x283c0819f610f7bf, .setup = sha256_setup, .round = sha256_round};

int main(int argc, char **argv)
{
    return kernel_run(&kernel, argc, argv);
}
