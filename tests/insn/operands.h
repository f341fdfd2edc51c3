/* Makes a random state fit an instruction: addresses that hit the data pages, counts that end, images that load. Most of the time;
 * the rest stays as random as it was. */
#ifndef TESTS_INSN_OPERANDS_H
#define TESTS_INSN_OPERANDS_H
#include "classify.h"
#include "random.h"

/* c has an instruction and random state; d is what it decodes to. Changes registers, data, and the displacement and immediate bytes of
 * the instruction, and decodes it anew. `components`: of XSAVE, that the processor has. */
void operands_fit(struct insn_case *c, struct decoded *d, struct rng *r, u64 components);

#endif
