/* Random numbers that follow from a seed: xorshift64*. */
#ifndef TESTS_INSN_RANDOM_H
#define TESTS_INSN_RANDOM_H
#include "base/types.h"

struct rng {
    u64 state;
};

/* A generator for case `index` of `seed`: neighbours have nothing in common. */
static inline struct rng rng_for(u64 seed, u64 index)
{
    u64 z = seed + (index + 1) * 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return (struct rng){(z ^ z >> 31) | 1};
}

static inline u64 rnd(struct rng *r)
{
    r->state ^= r->state << 13;
    r->state ^= r->state >> 7;
    r->state ^= r->state << 17;
    return r->state * 0x2545f4914f6cdd1d;
}

static inline u64 below(struct rng *r, u64 n)
{
    return (rnd(r) >> 11) % n;
}

static inline bool one_in(struct rng *r, u64 n)
{
    return !below(r, n);
}

#endif
