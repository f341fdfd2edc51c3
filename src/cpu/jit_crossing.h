/* Inside the translator: blocks of one instruction that goes on in the next page. */
#ifndef CPU_JIT_CROSSING_H
#define CPU_JIT_CROSSING_H
#include "cpu/jit_cache.h"

struct jit_emit;

#define JIT_CROSSING_BYTES 15 /* the longest instruction */

/* What a block of such an instruction depends on besides its own page; in the arena. */
struct jit_crossing {
    const u8 *page;         /* the next page, in the backing */
    const u32 *version_now; /* of its code */
    u32 version;
    u8 bytes[JIT_CROSSING_BYTES]; /* of the instruction, and some behind it */
    u8 len;                 /* the instruction's own */
    const u8 *code;         /* the block's own code, flags in RAX; its entries are the gate's */
};

/* Makes e->b the block of the instruction at hva, which needs bytes of the next page. False: it cannot be, because that page is
 * not in the TLB or a device's, or because the instruction is illegal or ends before it. */
bool jit_crossing_scan(struct jit_emit *e, const u8 *hva);

/* Where to enter a block, flags in RAX. */
static inline const u8 *jit_block_code(const struct jit_block *b)
{
    return b->crossing ? b->crossing->code : b->entry_saved;
}

/* The bytes of its instructions, b->bytes of them. */
static inline const u8 *jit_block_bytes(const struct jit_block *b)
{
    return b->crossing ? b->crossing->bytes : b->hva;
}

/* Its bytes in the next page were overwritten. */
bool jit_crossing_stale(const struct jit_crossing *k);

/* Whether the page behind RIP's is in the TLB, still the one that it was made for, and in the code segment as far as it is needed. */
bool jit_crossing_holds(struct vcpu *c, const struct jit_crossing *k);

/* The page behind RIP's: its address; whether its mapping is known to be global. */
u64 jit_crossing_linear(const struct vcpu *c);
bool jit_crossing_global(struct vcpu *c);

#endif
