/* Random register and memory contents: random bits, but more often the values where something changes. */
#ifndef TESTS_INSN_RANDOM_STATE_H
#define TESTS_INSN_RANDOM_STATE_H
#include "insn_case.h"
#include "random.h"

u64 random_integer(struct rng *r);

/* Eight bytes of a vector: integers, or floating-point numbers of any size, edge values among them. */
u64 random_lanes(struct rng *r);

/* Ten bytes of an x87 register: numbers of every class, unsupported formats, BCD. */
void random_x87(struct rng *r, u8 out[10]);

/* A whole XSAVE image; exceptions unmasked now and then. `components`: those that the processor has. */
void random_xsave(struct rng *r, u64 components, u8 *xsave);

/* Components that the header does not name get what the processor will put there. */
void initial_components(u8 *xsave);

/* All components in a plain, simple state: the same that shrinking tends to. */
void plain_xsave(u64 components, u8 *xsave);

#endif
