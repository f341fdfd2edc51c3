/* Runs a test case on the interpreter: a guest whose page tables and segments show programs what the host shows. */
#ifndef TESTS_INSN_GUEST_H
#define TESTS_INSN_GUEST_H
#include "classify.h"

struct insn_guest;

/* What guests run: programs of protected mode; 16-bit code in virtual-8086 mode, which is legacy; in real mode, without paging. */
enum insn_guest_mode { GUEST_PROTECTED, GUEST_V86, GUEST_REAL };

struct insn_guest_config {
    enum insn_guest_mode mode;
    bool legacy; /* legacy protected mode with PAE paging, for 32- and 16-bit code; else long mode, for 64-bit code and compatibility mode */
    enum cpu_engine engine;
    u32 stress;  /* enum vcpu_stress */
    bool windows; /* the translator uses windows, always; else never */
    bool code_writable;
};

/* CPU model "host". */
int guest_create(const struct insn_guest_config *config, struct insn_guest **ret, struct err *e);

/* The limit of the GDT's segment of the CPU's number: as the host has it. */
void guest_set_cpu_number_limit(struct insn_guest *g, u32 limit);

/* Executes the case to the end of its instruction, and where that went on outside the code pages, to the fault there. */
void guest_run(struct insn_guest *g, const struct insn_case *c, struct insn_outcome *ret);

/* As native_run_code(), on the guest's engine. The vector is INSN_ASTRAY where it did not end: after `steps` instructions, if that is not 0,
 * one by one, which is the interpreter's affair; else when somebody called guest_interrupt(). */
void guest_run_code(struct insn_guest *g, const struct insn_case *c, const u8 *code, u32 steps, struct insn_outcome *ret, u8 *ret_code);

/* Ends guest_run_code() soon. From a signal handler. */
void guest_interrupt(struct insn_guest *g);

/* Forgets what the TLB knows. */
void guest_forget_pages(struct insn_guest *g);

/* Whether the CPU model has what the instruction needs; true for those that are not the vector unit's. */
bool guest_shows(struct insn_guest *g, const struct insn_case *c, const struct decoded *d);

struct vcpu *guest_vcpu(struct insn_guest *g);

#endif
