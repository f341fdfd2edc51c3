/* Inside the translator: what happened how often, a set a vCPU. Printed at its end with --trace jit. */
#ifndef CPU_JIT_COUNTERS_H
#define CPU_JIT_COUNTERS_H
#include "cpu/jit_block.h"

#define JIT_COUNTED_KINDS 32 /* room for enum jit_kind */

/* Why the interpreter ran a block. */
enum jit_block_left {
    JIT_BLOCK_RARE,     /* not asked for often enough */
    JIT_BLOCK_MODE,     /* RIP is behind the code segment */
    JIT_BLOCK_CROSSING, /* its first instruction goes on in the next page */
    JIT_BLOCK_DEVICE,   /* not in RAM */
    JIT_BLOCKS_LEFT,
};

struct jit_counters {
    u64 blocks;                    /* translated */
    u64 insns[JIT_COUNTED_KINDS];  /* translated, by enum jit_kind; how many of them are vector and x87 code: */
    u64 vector, x87;
    u64 shared;                    /* of them by a TLB check that others use too: see jit_share.c */
    u64 hot_bytes, cold_bytes;     /* of host code, and of … */
    u64 guest_bytes;               /* … guest code */
    u64 revised;                   /* blocks that were translated again for what was seen since */
    u64 flushes;                   /* of everything, for lack of room or because the map changed */
    u64 jump_clears;               /* of the jump tables */
    u64 entered, looked_up;        /* blocks, by the run loop; of these not in the jump table */
    u64 found_before;              /* by jumps that the jump table did not know: see jit_found.h */
    u64 retired;                   /* instructions in translated blocks, those of `slow` included */
    u64 interpreted[JIT_BLOCKS_LEFT]; /* blocks by the interpreter */
    u64 slow[ZYDIS_MNEMONIC_MAX_VALUE + 1][2]; /* instructions by the interpreter's handler, out of a block: by mnemonic, and
                                                  JIT_SITE_INSN or JIT_SITE_LEFT */
};

struct jit_emit;

/* A block was translated. */
void jit_count_block(struct jit_counters *n, const struct jit_emit *e);

/* Prints them, as category JIT, when the vCPU runs no more. */
void jit_counters_trace(const struct vcpu *c);

#endif
