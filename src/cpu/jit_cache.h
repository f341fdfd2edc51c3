/* Inside the translator: what one vCPU has translated, and the generated code around it. */
#ifndef CPU_JIT_CACHE_H
#define CPU_JIT_CACHE_H
#include "cpu/jit_block.h"
#include "cpu/jit_counters.h"
#include "cpu/jit_heat.h"
#include "jit/code_cache.h"

#define JIT_SLOW_INSNS 4096
#define JIT_MISSES 16384 /* a power of two */

struct jit_cell;
struct jit_found_set;

struct jit {
    struct jit_counters counters;
    u64 stressed; /* how often jit_stress() was asked */
    struct code_cache *code;
    struct jit_block **hash; /* by backing address */
    struct jit_found_set *found; /* jit_found.h */
    u32 growth;              /* times the size that it began with */
    u64 insns;               /* translated, ever; as it was when the cache was last emptied or grew … */
    u64 filled_insns, filled_retired; /* … and how many had run */
    u8 *arena;               /* blocks and links */
    struct jit_site *site;
    struct jit_emit *emit;   /* the block under way */
    struct jit_block **blocks; /* by where their hot code is */
    u64 arena_used;
    u32 site_count, block_count;
    u32 hot_used, cold_used; /* of their regions of the code cache */
    u32 hot_start;           /* behind the thunks */
    u32 epoch;               /* raised when everything was forgotten */
    u32 link_epoch;          /* when the last link was returned */
    struct jit_jumps *jumps; /* JIT_JUMP_TABLES: see jit_jumps.h */
    u64 jump_selections;
    u64 places;              /* how many were given away: see jit_jumps.h */
    u32 cell_count;
    u32 jump_generation;     /* of the TLB's translations that they are for */
    u64 code_written_seen;   /* how much of guest memory's log of overwritten code they know */
    u64 key_of[3];           /* CR0, CR4, XCR0 that vector_classes is for */
    bool key_v86;
    u32 vector_classes;
    u64 segment_attr[2];     /* s.seg_attr, and below what else segment_key is for; see jit_segment.c */
    u64 segment_mode, segment_key;
    const u8 *enter, *exit[3], *slow, *cell, *jump, *look, *tsc, *victim[MMU_SETS][2]; /* thunks */
    struct jit_slow_insn { /* the interpreter's forms of slow instructions, by a site's number */
        u32 site, epoch;
        struct insn insn;
    } slow_insn[JIT_SLOW_INSNS];
    struct jit_heat heat[JIT_HEATS];
    u32 budgets, watched;  /* jit_revise.c: used up; blocks that are still to be watched */
    const u8 *refused;     /* the block at RIP, which was asked for and is not worth it */
    u8 misses[JIT_MISSES]; /* faults that no window would have avoided, by a hash of the instruction's address */
};

int jit_cache_create(struct vcpu *c, struct err *e); /* c->jit */
void jit_cache_free(struct vcpu *c);
void jit_cache_flush(struct vcpu *c);

/* A fresh block with `key`; there is room for the largest. */
struct jit_emit *jit_emit_begin(struct vcpu *c, u64 key);
/* There will be no block. */
void jit_emit_cancel(struct jit_emit *e);
/* The block is complete: found from now on. */
struct jit_block *jit_emit_end(struct jit *j, struct jit_emit *e);

/* A block that still says what its bytes say, or NULL. */
struct jit_block *jit_block_find(struct jit *j, const u8 *hva, u64 key);

/* In the arena. */
struct jit_crossing *jit_crossing_new(struct jit *j);
u16 *jit_offsets_new(struct jit *j, int count);

/* One that holds nothing. */
struct jit_cell *jit_cell_new(struct vcpu *c);

struct jit_link *jit_link_at(struct jit *j, u32 n);
struct jit_block *jit_block_at(struct jit *j, u32 n); /* by jit_block_number */

/* Runs translated code, from s.gpr and cc and back to them. The number of the link that it left by, RIP still to be set; 0: RIP
 * is set. */
u32 jit_enter(struct vcpu *c, const u8 *code);

/* jit_thunk.c: the ways in and out, at the start of the code cache. */
void jit_thunks_emit(struct vcpu *c, struct x86_asm *a);

/* jit.c: the block at RIP, translated if need be; NULL: it cannot be. May raise. */
struct jit_block *jit_block_at_rip(struct vcpu *c);

/* jit.c: translates the block at hva, in RIP's page; NULL: it cannot be now. `old`: it was before, and NULL if nothing would become
 * of it but the same. */
struct jit_block *jit_translate(struct vcpu *c, const u8 *hva, u64 key, const struct jit_block *old);

/* jit.c: sets RIP, and gives back budget, for a link that jit_enter returned. The link if it is a jump to be linked; else 0. */
u32 jit_leave_by(struct vcpu *c, u32 link);

/* jit.c: a new instruction budget, when translated code came back because there was none. */
void jit_budget_refill(struct vcpu *c);

/* jit_window.c: the pages that an instruction touches which a fault in a window brought to its slow path; found before its handler
 * runs, as that may change registers, and mapped after it. None in `count` if it was no such fault. */
struct jit_touch {
    u64 gva[2];
    int count;
    bool write; /* what the fault was about */
    bool hopeless; /* no mapping would have helped */
    int faulted; /* which of them it was about */
};
void jit_touch(struct vcpu *c, const struct insn *i, struct jit_touch *t);
void jit_touched(struct vcpu *c, u32 site, const struct jit_touch *t);

/* jit_window.c: whether windows were of no use to the instruction that starts at hva. */
bool jit_window_useless(struct vcpu *c, const u8 *hva);

/* jit.c: what the slow thunk calls. */
const u8 *jit_slow(struct vcpu *c, u32 site);

/* jit.c: what the look thunk calls: code for RIP, flags in RAX, where translated code goes on by a jump, whose cell is filled if it has one; NULL:
 * the run loop has to look. Never raises. */
const u8 *jit_look(struct vcpu *c, struct jit_cell *cell);

#endif
