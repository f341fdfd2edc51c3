/* Makes a failing sequence small: drops instructions, then simplifies the state as shrink.h does. */
#ifndef TESTS_INSN_SEQ_SHRINK_H
#define TESTS_INSN_SEQ_SHRINK_H
#include "sequence.h"

/* `fails` says whether a sequence still shows the fault. q fails, and is laid out. */
void sequence_shrink(struct sequence *q, u64 components, bool (*fails)(void *ctx, const struct sequence *q), void *ctx);

#endif
