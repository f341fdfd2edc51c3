/* How much of an instruction that is none a processor fetches before it raises #UD: what lies beyond may raise #PF or #GP first. */
#ifndef CPU_ILLEGAL_LENGTH_H
#define CPU_ILLEGAL_LENGTH_H
#include "base/types.h"

/* Bytes of the instruction at bytes[0..avail) for code of `code_size` (2, 4, 8), by its opcode map, ModRM byte and immediate as if it were
 * one; more than `avail` when those bytes do not tell yet. */
int illegal_length(const u8 *bytes, int avail, int code_size);

/* Whether the bytes are an opcode, or a VEX or EVEX prefix that names no opcode map, at which processors raise #UD without looking further. */
bool illegal_at_once(const u8 *bytes, int avail, int code_size);

#endif
