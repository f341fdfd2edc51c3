/* One test case: an instruction, the machine state that it starts from, and what became of it. The currency between the
 * generator (generate.h), the two machines that execute it (native.h, guest.h), the comparison (compare.h) and the
 * shrinker (shrink.h). */
#ifndef TESTS_INSN_CASE_H
#define TESTS_INSN_CASE_H
#include "cpu/vcpu_state.h"
#include "layout.h"

#define INSN_MAX 15

/* User-visible registers. Selectors are those of layout.h; FS and GS bases are free in 64-bit code, and follow the
 * selectors elsewhere. xsave: standard format with the offsets of ext_components, on any host. */
struct insn_state {
    _Alignas(64) u8 xsave[XSAVE_AREA_SIZE];
    u64 gpr[16];
    u64 rip; /* offset in CS */
    u64 flags;
    u16 sel[6]; /* SEG_ES … SEG_GS */
    u64 fs_base, gs_base;
};

struct insn_case {
    struct insn_state s;
    u8 code_size;         /* bytes: 2, 4, 8 (64-bit) */
    u8 len;               /* of bytes[] that matter: the whole instruction, or 15 where it is none */
    u8 bytes[INSN_MAX];
    u8 data[DATA_SIZE];   /* what the data pages hold; the read-only one never changes */
};

/* Offset of the instruction in the code pages; at least CODE_SIZE: the case cannot be run. */
static inline u64 case_code_at(const struct insn_case *c)
{
    return layout_base(c->s.sel[SEG_CS]) + c->s.rip - CODE_VA;
}

enum { /* insn_outcome.vector, beside exceptions */
    INSN_DONE = -1,    /* it ended, and control is at an INT3 of the code pages */
    INSN_ASTRAY = -2,  /* control went into the middle of its own bytes, or it would not end: nothing to compare */
};

struct insn_outcome {
    struct insn_state s;
    int vector;
    u64 error, address; /* address: of a page fault */
    u8 data[DATA_WRITABLE];
};

#endif
