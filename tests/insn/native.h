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

/* The limit of a segment of the host's GDT, 0 if it has none that a program may see. */
u32 native_segment_limit(u16 sel);

#endif
