/* Inside the translator: segmented code, which is 16-bit code and 32-bit code with segments that are not flat. See jit_segment.c. */
#ifndef CPU_JIT_SEGMENT_H
#define CPU_JIT_SEGMENT_H
#include "cpu/jit_emit.h"

/* ---- where it is ---- */

static inline u64 jit_linear(const struct vcpu *c)
{
    return (c->lin_base[SEG_CS] + c->s.gpr[RIP]) & c->lin_mask;
}

/* What RIP would be at the start of its linear page; below the segment's start it wraps around. */
static inline u64 jit_page_base(const struct vcpu *c)
{
    return ((jit_linear(c) & PAGE_MASK) - c->lin_base[SEG_CS]) & c->lin_mask;
}

/* The last RIP that the code segment allows, outside 64-bit mode; of 16-bit code what IP can say is the limit too. */
static inline u64 jit_rip_last(const struct vcpu *c)
{
    u32 limit = c->s.seg_limit[SEG_CS];

    return c->code_size == 2 && limit > 0xffff ? 0xffff : limit;
}

/* jit_segment_key.c: what segmented code depends on, for its key; RIP is not behind jit_rip_last(). */
u64 jit_segment_key(const struct vcpu *c);

/* ---- jit_scan.c asks ---- */

/* Whether its memory operands are in segments that translated code checks itself. */
bool segment_operands(const struct jit_emit *e, const struct jit_insn *i);
enum jit_kind segment_branch_kind(const struct jit_emit *e, const struct jit_insn *i);
enum jit_kind segment_stack_kind(const struct jit_emit *e, const struct jit_insn *i);
enum jit_kind segment_system_kind(const struct jit_emit *e, const struct jit_insn *i);

/* ---- emitting ---- */

/* emit_memory() for segmented code. */
struct x86_mem segment_memory(struct jit_emit *e, const struct jit_insn *i, const ZydisDecodedOperandMem *mem, u32 size, bool write);

/* The offset in T1 becomes a pointer to `size` bytes in RAM, or the slow path of `i` is taken. Uses T2. `narrow`: the offset has 16 bits. */
struct x86_mem segment_offset(struct jit_emit *e, const struct jit_insn *i, int seg, u32 size, bool write, bool narrow);

/* The same of the stack, at a host register and a displacement. */
struct x86_mem segment_stack(struct jit_emit *e, const struct jit_insn *i, int reg, s32 disp, int size, bool write);
void segment_stack_move(struct jit_emit *e, s32 by); /* SP or ESP; leaves the flags alone */
void segment_push_scratch(struct jit_emit *e, const struct jit_insn *i); /* emit_push_scratch() */

/* Nothing more of the instruction's last access may fault; the slow path comes back behind it. */
void segment_site_done(struct jit_emit *e);

/* jit_selector.c */
bool can_emit_selector(const struct jit_emit *e, const struct jit_insn *i);
void emit_selector(struct jit_emit *e, const struct jit_insn *i);

/* jit_element.c */
bool can_emit_element(const struct jit_insn *i);
void emit_element(struct jit_emit *e, const struct jit_insn *i);

/* Instructions that use the stack, change RIP, or are otherwise other than in flat segments. False: `i` is none. */
bool segment_emit(struct jit_emit *e, const struct jit_insn *i);

/* To page_base + offset, through the jump table: by the jump `i`, which faults where that is not in the segment; NULL: control just comes there. */
void segment_far(struct jit_emit *e, const struct jit_insn *i, s64 offset);
void segment_miss(struct jit_emit *e, const struct jit_exit *x); /* cold code: EXIT_MISS */

#endif
