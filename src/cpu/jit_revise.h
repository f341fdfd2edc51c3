/* Inside the translator: hot code is looked at again. A block is translated when little was seen of which ways go; of one that is found
 * running often more is known by then, and it is translated anew, once. See jit_revise.c. */
#ifndef CPU_JIT_REVISE_H
#define CPU_JIT_REVISE_H
#include "cpu/jit_block.h"

/* Translated code was left by the link, RIP is set: for want of budget, or not. */
void jit_revise_left(struct vcpu *c, u32 link);

/* If j->watched: whether RIP's block, for which there is code with `key`, is the interpreter's for that reason; then it was run. May raise. */
bool jit_revise_watch(struct vcpu *c, u64 key);

#endif
