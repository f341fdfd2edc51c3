/* Compares what two machines made of the same case. */
#ifndef TESTS_INSN_COMPARE_H
#define TESTS_INSN_COMPARE_H
#include "classify.h"

#include <stdio.h>

/* What the machines are, where it matters for what may differ. */
struct comparison {
    const struct insn_case *c;
    const struct decoded *d;
    const struct insn_outcome *host, *ours;
    u64 components; /* of XSAVE, that both have */
    bool legacy;    /* ours is not in long mode */
};

/* Number of differences that processors may not have. Writes a line for each to `out`, which may be NULL. */
int compare(const struct comparison *k, FILE *out);

/* Cases that say nothing. */
bool incomparable(const struct comparison *k);

/* For instructions that the host did not execute: whether ours raised what it should. */
int compare_hidden(const struct comparison *k, enum insn_class class, FILE *out);

#endif
