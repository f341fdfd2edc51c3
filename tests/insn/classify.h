/* What can be done with an instruction: whether the host may try it, and which registers say nothing. */
#ifndef TESTS_INSN_CLASSIFY_H
#define TESTS_INSN_CLASSIFY_H
#include "insn_case.h"

#include <Zydis/Zydis.h>

/* A case's bytes as Zydis sees them, with the engine's decoders. */
struct decoded {
    bool valid;
    ZydisDecodedInstruction zi;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
};
void case_decode(const struct insn_case *c, struct decoded *d);

enum insn_class {
    INSN_COMPARE,   /* runs on both */
    INSN_HIDDEN,    /* no CPU model shows it, but hosts may have it: the guest must raise #UD */
    INSN_EMULATED,  /* the host's kernel makes up an answer where the processor faults: the guest must raise #GP(0) (UMIP) */
    INSN_NEVER,     /* enters the host's kernel */
};
enum insn_class insn_classify(const struct insn_case *c, const struct decoded *d);

/* General registers (bit n: register n) whose new value is this machine's own: time, identity, random numbers. */
u32 insn_own_values(const struct decoded *d);

#endif
