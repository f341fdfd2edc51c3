/* Makes test cases: instructions from the catalogue and from random bytes, with random state that fits them. Each follows from a seed
 * and a number alone. */
#ifndef TESTS_INSN_GENERATE_H
#define TESTS_INSN_GENERATE_H
#include "catalogue.h"
#include "classify.h"
#include "random.h"

struct generator {
    int code_size;
    u64 seed;
    u64 components;          /* of XSAVE, that the processor has */
    const char *only;        /* NULL, or mnemonics separated by commas */
    struct catalogue *catalogue;
    u16 wanted[ZYDIS_MNEMONIC_MAX_VALUE + 1]; /* what is chosen from */
    u32 wanted_count;
};

/* -EINVAL when `only` names nothing that there is in this mode. */
int generator_setup(struct generator *g, int code_size, u64 seed, u64 components, const char *only, struct err *e);
void generator_free(struct generator *g);

/* Case `index`: c->bytes are decoded into d. All its randomness is in *r, for who wants more of it. */
void generate(const struct generator *g, u64 index, struct insn_case *c, struct decoded *d);

/* The parts, for sequences of instructions: a state that suits any, one instruction from *r at c->s.rip, and one of those that
 * g->catalogue has of a mnemonic, whose operands are anywhere. */
void generate_state(const struct generator *g, struct rng *r, struct insn_case *c);
void generate_insn(const struct generator *g, struct rng *r, struct insn_case *c, struct decoded *d);

void generate_mnemonic(const struct generator *g, u32 mnemonic, struct rng *r, struct insn_case *c, struct decoded *d);

/* A case with nothing remarkable in it but the instruction, which the caller puts in. */
void plain_case(int code_size, u64 components, struct insn_case *c);

#endif
