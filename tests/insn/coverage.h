/* Which mnemonics were tried, and how that went. */
#ifndef TESTS_INSN_COVERAGE_H
#define TESTS_INSN_COVERAGE_H
#include "machines.h"

/* Counts one trial. */
void coverage_note(const struct insn_case *c, const struct decoded *d, const struct trial *t);

/* The table: a line for each mnemonic that Zydis knows. */
void coverage_print(FILE *out);

/* Number of mnemonics that were never tried, or were an invalid opcode whenever they were, without the file explaining it; writes their names.
 * Lines of the file: mnemonics, or @ and ISA extensions, then a colon and why. A name that explains nothing counts too. -1: the file cannot be
 * read. Mnemonics of CPUID features that this host lacks need no explanation. */
int coverage_unexplained(const char *file, FILE *out);

/* How many were compared, and how many mnemonics. */
u64 coverage_compared(void);
int coverage_mnemonics(void);

#endif
