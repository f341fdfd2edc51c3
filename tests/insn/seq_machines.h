/* The machines that sequences run on, side by side: the host, the interpreter, the translator. */
#ifndef TESTS_INSN_SEQ_MACHINES_H
#define TESTS_INSN_SEQ_MACHINES_H
#include "guest.h"
#include "sequence.h"

#include <stdio.h>

/* Makes the guests and prepares the host; the translator with `stress` and, if so said, with windows
 * for all user memory. -ENOTSUP and a sentence when this host cannot run the tests. Once. */
int seq_machines_setup(u32 stress, bool windows, enum insn_guest_mode mode, struct err *e);

/* XSAVE components that all have. */
u64 seq_components(void);

/* A guest that knows which instructions there are. */
struct insn_guest *seq_guest(void);

/* The guests' TLBs are empty again. */
void seq_forget_pages(void);

struct seq_trial {
    int differences;
    int vector;  /* what the host made of it; INSN_ASTRAY: it was not compared: it would not end, or read the time and the like */
    bool ended;  /* at its end, not by a fault on the way */
};

/* Runs the sequence, 32-bit code in compatibility or in legacy protected mode. The translator runs it twice: as new code, and again with all that
 * it found out. Differences go to `out` in words; NULL: nowhere. */
struct seq_trial seq_try(const struct sequence *q, bool legacy, FILE *out);

/* What the translators have done, all together. */
struct seq_translated {
    u64 blocks;      /* translated */
    u64 insns;       /* run in translated code, those by the interpreter's handlers included */
    u64 slow;        /* those */
    u64 interpreted; /* blocks that are not for the translator */
    u64 rare;        /* blocks that it left to the interpreter although it was to translate everything */
};
struct seq_translated seq_translated(void);

#endif
