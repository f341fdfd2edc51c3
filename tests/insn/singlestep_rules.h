/* What processors since the 80386 do differently from the 8086 and the 80286, as rules over a test vector: each says for
 * which instructions it holds, and most what the old processor's result becomes under it. */
#ifndef TESTS_SINGLESTEP_RULES_H
#define TESTS_SINGLESTEP_RULES_H
#include "cpu/vcpu_state.h"
#include "moo.h"

/* An instruction taken apart as far as the rules need. */
struct old_insn {
    u8 opcode, reg, mod; /* ModRM fields, 0 for instructions without */
    bool rep, lock;
    int prefixes;
    u8 count; /* of a shift */
    bool overlap; /* the instruction changes its own translated bytes */
};

/* What the interpreter made of a test. */
struct new_result {
    u16 reg[MOO_REGS];
    int vector; /* of a fault, -1: none */
};

/* Why a test is not compared, or a result expected to differ. */
enum old_rule {
    OLD_SAME,           /* nothing: results must agree */
    OLD_REDEFINED,      /* the opcode means another instruction, or none, since the 80186 or 80386 */
    OLD_X87,            /* ESC without a coprocessor; here there is one */
    OLD_WRAP,           /* an operand wraps round the segment's end; now #GP or #SS */
    OLD_LENGTH,         /* longer than the 80286's ten bytes: #UD there */
    OLD_LOCK,           /* a fault, whose pushed IP counts LOCK prefixes that were left out */
    OLD_DIVIDE,         /* IDIV: #DE for the lowest negative quotient on the 8086, none by 80h on the 80286 */
    OLD_DECIMAL,        /* DAA and DAS with AF set of 9A to 9F, DAS below 6: the 8086 leaves the upper digit and CF alone */
    OLD_RESTART,        /* a fault of POP m or a string's operand: the 80286 leaves SP, SI, DI and CX advanced */
    OLD_OVERLAP,        /* a shift of the very bytes that had to be translated */
    OLD_RECORDING,      /* the vector shows SS pushed where all others of its kind show CS */
    OLD_RULES
};
extern const char *const old_rule_text[OLD_RULES];

void old_insn_decode(const struct moo_test *t, struct old_insn *i);

/* Flags that the manuals leave undefined after it. */
u16 old_flags_undefined(const struct old_insn *i, const struct moo_test *t);

/* Before the run: an opcode that the 8086 took for another one becomes that one, a shift count above 31 an equivalent one
 * below; `i` follows. */
void old_test_translate(struct old_insn *i, struct moo_test *t, bool i8086);

/* The 80286 takes LOCK before any instruction: for one that raised #UD, leaves the prefixes out. False: there are none. */
bool old_lock_drop(const struct old_insn *i, struct moo_test *t);

/* After it: turns the old processor's result into what today's must give: what PUSH SP pushes, where a divide error points,
 * the carries of decimal adjustments. `vector`: our fault, or -1. */
void old_result_translate(const struct old_insn *i, struct moo_test *t, bool i8086, int vector);

/* By which rule results may differ after all. */
enum old_rule old_rule_find(const struct old_insn *i, const struct moo_test *t, bool i8086, const struct new_result *r);

/* Physical address of offset `at` in the segment: 16-bit offsets, and twenty address lines for the 8086. */
u32 old_address(u16 seg, u32 at, bool i8086);

#endif
