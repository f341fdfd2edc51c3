/* Translated blocks as text, for --dump=host. */
#ifndef CPU_JIT_DUMP_H
#define CPU_JIT_DUMP_H
#include "base/dump.h"
#include "cpu/jit_emit.h"

/* Prints the block that was just emitted, which the guest runs at linear address `lin`: each guest instruction with its host
 * code below it, then the slow paths and exits. Saves live extended registers. */
void jit_dump_block(const struct jit_emit *e, u64 lin);

#endif
