/* Random numbers, for guests of any mode: the same in every run, unless `seed` is set (random.h). */
#ifndef XORSHIFT_H
#define XORSHIFT_H

static u32 seed = 2463534242u;

static inline u32 random32(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
}

static inline bool one_in(u32 n)
{
    return random32() % n == 0;
}

#endif
