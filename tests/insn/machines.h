/* The host and the guests side by side: one call tries a case everywhere and compares. */
#ifndef TESTS_INSN_MACHINES_H
#define TESTS_INSN_MACHINES_H
#include "classify.h"

#include <stdio.h>

/* Makes the guests and prepares the host. -ENOTSUP and a sentence when this host cannot run the tests. Once. */
int machines_setup(struct err *e);

/* XSAVE components that host and guests have. */
u64 machines_components(void);

/* Whether the guests' CPU model has what the instruction needs; true for those that are not the vector unit's. */
bool machines_show(const struct insn_case *c, const struct decoded *d);

struct trial {
    int differences;
    enum insn_class class;
    int vector; /* what the host made of it, where it ran there; else the guest */
};

/* Runs a decoded case. 16-bit and 32-bit code runs in compatibility mode and in legacy protected mode. Differences go to `out` in words;
 * NULL: nowhere. */
struct trial machines_try(const struct insn_case *c, const struct decoded *d, FILE *out);

#endif
