/* From instruction bytes to struct insn, by Zydis. */
#ifndef CPU_DECODE_H
#define CPU_DECODE_H
#include "cpu/insn.h"

/* Decodes one instruction at bytes[0..avail) for code of `code_size` (2, 4, 8). Returns its length, or 0 when it needs more
 * bytes than there are. An illegal one gets a handler that raises #UD; one over 15 bytes, #GP(0). Saves live extended registers (calls Zydis). */
int decode_insn(struct vcpu *c, const u8 *bytes, int avail, int code_size, struct insn *ret);

/* Whether the instruction ends a block: it changes RIP, mode, or what may run next. */
bool insn_ends_block(const struct insn *i);

#endif
