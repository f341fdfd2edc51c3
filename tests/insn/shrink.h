/* Makes a failing case smaller. */
#ifndef TESTS_INSN_SHRINK_H
#define TESTS_INSN_SHRINK_H
#include "classify.h"

/* Takes bytes, registers and memory of *c back to those of a plain case as far as fails(ctx, c) stays true. */
void shrink(struct insn_case *c, u64 components, bool (*fails)(void *ctx, const struct insn_case *c), void *ctx);

#endif
