/* Runs a test case on the host's CPU, in this process: 64-bit code, and 32-bit and 16-bit protected code by way of
 * compatibility mode, which does the same for a program's instructions. */
#ifndef TESTS_INSN_NATIVE_H
#define TESTS_INSN_NATIVE_H
#include "insn_case.h"

/* Maps code and data pages, sets up the LDT, and installs signal handlers in front of those there are (the engine's). Once, after
 * the guest is made. 0, or -ENOTSUP and a sentence when the host cannot: then the tests are to be skipped. */
int native_setup(struct err *e);

/* Executes the case. XSAVE components that the state's header does not name start in their initial configuration.
 * Single-threaded. */
void native_run(const struct insn_case *c, struct insn_outcome *ret);

/* For sequences of instructions: makes the code pages writable to programs, once; then runs what `code` holds (CODE_SIZE bytes) from c->s on
 * to the next fault, INT3s included, and shows what the code pages hold in the end. Of the case only state, code_size and data count. */
int native_code_writable(struct err *e);
void native_run_code(const struct insn_case *c, const u8 *code, struct insn_outcome *ret, u8 *ret_code);

/* The limit of a segment of the host's GDT, 0 if it has none that a program may see. */
u32 native_segment_limit(u16 sel);

#endif
