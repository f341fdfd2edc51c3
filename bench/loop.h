/* See loop.c. */
#ifndef BENCH_LOOP_H
#define BENCH_LOOP_H
#include <stdint.h>
typedef uint64_t u64;

#define INSNS_PER_ITERATION 13.5 /* the conditional ADD runs about every other time */

u64 integer_loop(u64 iterations);

#endif
