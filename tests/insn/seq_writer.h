/* Inside the generator of sequences: what is known while one is written, and the ways to add to it. */
#ifndef TESTS_INSN_SEQ_WRITER_H
#define TESTS_INSN_SEQ_WRITER_H
#include "seq_generate.h"

#define POINTERS 3
#define HOT_AREA (DATA_VA + 0x1400)   /* where most operands are */
#define COUNTERS (DATA_VA + 0x2f00)   /* of loops; no operand of others is there */
#define SLOTS (DATA_VA + 0x2f80)      /* targets of indirect jumps */
#define OPERANDS_END (DATA_VA + 0x2e00)

struct writer {
    const struct seq_generator *s;
    struct rng *r;
    struct sequence *q;
    int pointer[POINTERS], index; /* general registers */
    u32 kept;                     /* bit n: register n keeps its address */
    bool scattered;               /* pieces are in several places: short jumps may not reach */
    bool words;                   /* of 16-bit code: calls, returns and the like have 16-bit operands */
    int counters;
};

/* ---- seq_writer.c: pieces by hand ---- */

/* A new piece; EMIT(w, 0x0f, 0x05) has its bytes. More can be appended while it is the last. */
struct piece *emit(struct writer *w, const u8 *bytes, size_t len);
#define EMIT(w, ...) emit((w), (const u8[]){__VA_ARGS__}, sizeof((const u8[]){__VA_ARGS__}))
void append(struct piece *p, const void *bytes, size_t len);
void append32(struct piece *p, u32 val);
void append_absolute(struct writer *w, struct piece *p, int reg, u32 address); /* ModRM and the rest for [disp32] */
struct piece *emit_mov(struct writer *w, int reg, u32 val); /* mov r32, imm32 */
struct piece *emit_ff(struct writer *w, int op, int reg);   /* opcode FF /op on a register */

/* Prefixes for the operand and the address size of a piece that needs none: in 16-bit code the sequence's, now and then others. */
void lead_operand(struct writer *w, struct piece *p);
void lead_any(struct writer *w, struct piece *p);

/* A jump or call with a displacement of 16 or 32 bits, by the opcode's bytes. */
void emit_near(struct writer *w, const u8 *bytes, size_t len, int target);
#define EMIT_NEAR(w, target, ...) emit_near((w), (const u8[]){__VA_ARGS__}, sizeof((const u8[]){__VA_ARGS__}), (target))

/* The field at `at` refers to a piece. */
void refer(struct piece *p, enum piece_fix fix, int at, int target);

bool wide(const struct writer *w); /* 64-bit code */
bool narrow(const struct writer *w); /* 16-bit code */
u32 data_base(const struct writer *w); /* of DS */
int any_register(struct writer *w); /* that keeps no address */
int ahead(struct writer *w); /* the number of a piece that may come soon */

/* ---- seq_operand.c: memory operands ---- */

/* Where an operand of `size` bytes may be. */
u64 operand_address(struct writer *w, u64 size, bool aligned);

/* Makes p the instruction in w->q->c with another memory operand: of registers that hold addresses, and a displacement. False: that cannot be. */
bool operand_choose(struct writer *w, struct piece *p, const ZydisDecodedOperand *mem, const struct decoded *d);

/* ---- seq_insn.c: instructions by mnemonic ---- */

void pools_fill(struct seq_generator *s);
void add_insn(struct writer *w, enum pool pool);
void add_any(struct writer *w);

/* ---- seq_compound.c: several instructions that belong together ---- */

void add_jump(struct writer *w);
void add_loop_by_register(struct writer *w);
void add_loop(struct writer *w);
void add_call(struct writer *w);
void add_indirect(struct writer *w);
void add_string(struct writer *w);
void add_divide(struct writer *w);
void add_step(struct writer *w);

/* ---- seq_near.c: accesses close to one another ---- */

void add_near(struct writer *w);

/* ---- seq_change.c: code that changes itself ---- */

void add_change(struct writer *w);

/* ---- seq_real.c: real and virtual-8086 mode ---- */

void add_real(struct writer *w);

/* ---- seq_generate.c ---- */

/* Anything; `nested`: in a loop. */
void add_part(struct writer *w, bool nested);

#endif
