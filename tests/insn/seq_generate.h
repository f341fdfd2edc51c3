/* Makes sequences of instructions: see sequence.h. Each follows from a seed and a number alone. */
#ifndef TESTS_INSN_SEQ_GENERATE_H
#define TESTS_INSN_SEQ_GENERATE_H
#include "generate.h"
#include "guest.h"
#include "sequence.h"

/* Kinds of instructions that are chosen by their mnemonic. */
enum pool { POOL_ALU, POOL_FLAGS, POOL_GENERAL, POOL_STRING, POOL_DIVIDE, POOL_VECTOR, POOL_X87, POOL_MMX, POOL_COUNT };

struct seq_generator {
    struct generator g;
    struct insn_guest *guest; /* says which instructions there are */
    bool smc;                 /* sequences that change themselves */
    bool real;                /* for real and virtual-8086 mode */
    u16 pool[POOL_COUNT][ZYDIS_MNEMONIC_MAX_VALUE];
    u32 pool_count[POOL_COUNT];
};

/* For code of `code_size` bytes, 8, 4 or 2. */
int seq_generator_setup(struct seq_generator *s, int code_size, u64 seed, u64 components, struct insn_guest *guest, struct err *e);
void seq_generator_free(struct seq_generator *s);

/* Sequence `index`, laid out. *ret_r has the rest of its randomness. */
void seq_generate(const struct seq_generator *s, u64 index, struct sequence *q, struct rng *ret_r);

/* Another state for a sequence: other values in registers that hold no addresses (which of those do is found by their values), other flags;
 * now and then one thing that makes faults: a pointer or the stack at an edge, alignment checks, single steps, unmasked exceptions. */
void seq_vary_state(struct sequence *q, struct rng *r);

/* Where the stack's segment begins. */
u64 seq_stack_base(const struct insn_case *c);

#endif
