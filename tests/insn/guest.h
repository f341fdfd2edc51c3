/* Runs a test case on the interpreter: a guest whose page tables and segments show programs what the host shows. */
#ifndef TESTS_INSN_GUEST_H
#define TESTS_INSN_GUEST_H
#include "insn_case.h"

struct insn_guest;

/* In long mode, for 64-bit code and 32- and 16-bit code in compatibility mode, or in legacy protected mode with PAE paging for the
 * latter two. CPU model "host". */
int guest_create(bool legacy, struct insn_guest **ret, struct err *e);

/* The limit of the GDT's segment of the CPU's number: as the host has it. */
void guest_set_cpu_number_limit(struct insn_guest *g, u32 limit);

/* Executes the case to the end of its instruction, and where that went on outside the code pages, to the fault there. */
void guest_run(struct insn_guest *g, const struct insn_case *c, struct insn_outcome *ret);

struct vcpu *guest_vcpu(struct insn_guest *g);

#endif
