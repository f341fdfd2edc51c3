/* Code as text, for --dump. */
#ifndef CPU_DUMP_H
#define CPU_DUMP_H
#include "base/dump.h"
#include "cpu/vcpu_state.h"
#include <Zydis/Zydis.h>

/* Prints the instructions in bytes[0..len), which the guest runs at linear address lin in code of the current size. Saves live
 * extended registers. */
void dump_guest_code(struct vcpu *c, u64 lin, const u8 *bytes, u32 len);

#define DUMP_TEXT 160

/* A line of a dump, between dump_begin() and dump_end(): `indent` spaces, address, bytes, text, and `note` behind it (may be
 * empty). Extended registers are saved. */
void dump_line(int indent, u64 address, const u8 *bytes, int len, const char *text, const char *note);

/* The text of an instruction at an address; `text` has DUMP_TEXT bytes. Extended registers are saved. */
void dump_text(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *op, u64 address, char *text);

#endif
