/* Inside the translator: the jump tables, in which code is found by its linear address.
 *
 * There is one for each address space and key that ran lately. What is in a table was true when it was put in, and a table is
 * emptied when that may have changed: an invalidated page, a CR3 load that keeps nothing, overwritten code. Filters tell which
 * tables know a page. Generated code looks into vcpu.jumps.
 *
 * A direct jump or call to another page has a cell, with what it found in the table. It holds for one page that the jump is in, and
 * one state of one table: the table's place is a number for those, another one whenever a table is emptied, and the cell has the
 * sum of the two. So one comparison tells whether the table would still say the same. */
#ifndef CPU_JIT_JUMPS_H
#define CPU_JIT_JUMPS_H
#include "cpu/jit_block.h"

#define JIT_JUMPS_SHIFT 15
#define JIT_JUMPS (1u << JIT_JUMPS_SHIFT) /* a table's entries */
#define JIT_JUMP_TABLES 12
#define JIT_FILTER_WORDS 256 /* 16384 bits */
#define JIT_JUMP_FACTOR 0x9e3779b1u

struct jit_jump {
    u64 rip; /* as jit_jump_tag() says it; jit_no_rip(): none */
    const u8 *code;
};

struct jit_jumps {
    _Alignas(64) struct jit_jump at[JIT_JUMPS]; /* first: vcpu.jumps points here for generated code */
    u16 fill[JIT_JUMPS];           /* which are in use */
    u32 filled;
    u32 key;
    u64 limit;    /* of CS; only of segmented code: see jit_segment.h */
    bool local;   /* some are not in global pages: true for `space` only */
    u64 space;    /* tlb.space */
    u64 used;     /* when, in selections */
    u64 place;    /* a number for what is in it now: added to the address of a page it makes one that nothing else makes */
    u64 linear[JIT_FILTER_WORDS];  /* pages that entries depend on: by linear address … */
    u64 backing[JIT_FILTER_WORDS]; /* … and by number in the backing */
};

/* Places: 12 bits below the address of a page, 15 above it, where a canonical address is all alike. */
#define JIT_PLACES (1u << 27)

struct jit_cell {
    u64 place;      /* page_base + the table's place, for which the rest is true; JIT_NO_PLACE: none */
    const u8 *code; /* of the target */
};
#define JIT_NO_PLACE 0x8000000000000001ull /* the sum of no place and an address that is canonical */
#define JIT_CELLS 320000u /* a vCPU's, at most */

/* Where an address is looked for first; then in the other entry of the pair. Bits from the middle of the product: multiplied by
 * 16 the place is the product without its other bits. Generated code computes the same. */
static inline u32 jit_jump_slot(u64 rip)
{
    return (u32)rip * JIT_JUMP_FACTOR >> 4 & (JIT_JUMPS - 1);
}

/* What an entry has that is empty: something that is never looked for there. No one value would do, as a guest's jump may be to anything. */
static inline u64 jit_no_rip(u32 slot)
{
    return slot > 1 ? 0 : 1; /* 0 is looked for in slots 0 and 1, 1 elsewhere */
}

/* Empties what is no longer true of all tables after what happened to the TLB, and makes the table for `key`, the
 * loaded address space, and the limit of segmented code, the vCPU's. */
void jit_jumps_select(struct vcpu *c, u32 key);

/* Nothing has happened to the TLB since. */
bool jit_jumps_fresh(const struct vcpu *c);

/* RIP in a table: its linear address, and where CS has a base that above it, because what RIP may be depends on both. */
static inline u64 jit_jump_tag(const struct vcpu *c)
{
    u64 base = c->lin_base[SEG_CS];

    return ((base + c->s.gpr[RIP]) & c->lin_mask) | base << 32;
}

/* The code for RIP in the selected table, or NULL. */
static inline const u8 *jit_jumps_find(const struct vcpu *c)
{
    u64 tag = jit_jump_tag(c);
    u32 slot = jit_jump_slot(tag);
    const struct jit_jump *first = &c->jumps->at[slot], *second = &c->jumps->at[slot ^ 1];

    if (first->rip == tag)
        return first->code;
    return second->rip == tag ? second->code : NULL;
}

/* RIP leads to block b; to code at hva that does not go on in the next page. */
void jit_jumps_add(struct vcpu *c, const struct jit_block *b);
void jit_jumps_add_code(struct vcpu *c, const u8 *hva, const u8 *code);

/* Empties all. Own thread. */
void jit_jumps_flush(struct vcpu *c);

/* Empties those that know pages of code which were overwritten: after ATTN_CODE. */
void jit_jumps_code_written(struct vcpu *c);

int jit_jumps_create(struct vcpu *c, struct err *e);
void jit_jumps_free(struct vcpu *c);

#endif
