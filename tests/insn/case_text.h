/* Test cases as text: one line that says how a case differs from a plain one (generate.h). What the shrinker prints can be put into
 * fixed_cases.txt as it is.
 *
 *   64 f0 87 03 ; rax=1 rbx=10001800 flags=a02 cs=33 fsbase=0 rip=20000ffe mem:10001800=0102 x:24=801f
 *
 * First the code's bits, then the bytes of the instruction, all in hexadecimal. `mem:ADDRESS=BYTES` is memory, `x:OFFSET=BYTES` the
 * XSAVE image (offset in decimal). Behind # comes a remark. */
#ifndef TESTS_INSN_CASE_TEXT_H
#define TESTS_INSN_CASE_TEXT_H
#include "classify.h"

#include <stdio.h>

void case_print(FILE *out, const struct insn_case *c, u64 components);
void case_print_state(FILE *out, const struct insn_case *c, u64 components); /* of it, what begins with the semicolon */

/* The instruction in Intel's notation. */
void case_print_assembly(FILE *out, const struct insn_case *c, const struct decoded *d);

/* -EINVAL and a sentence when the line cannot be read. */
int case_parse(const char *line, u64 components, struct insn_case *c, struct err *e);

#endif
