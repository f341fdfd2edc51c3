/* Inside the translator: what is known of code that is not translated yet: how often it was asked for, and which way the interpreter's block
 * there went on at its end, so that a translated block goes on that way too.
 *
 * Blocks share entries by a hash of their address, and the latest has it: what an entry says is a guess, never more. */
#ifndef CPU_JIT_HEAT_H
#define CPU_JIT_HEAT_H
#include "base/types.h"

#define JIT_HEATS 131072 /* a power of two */
#define JIT_WENT_FAR 0xffff /* to another page */

struct jit_heat {
    u16 tag;           /* of the block's address and the cache's epoch; whose entry it is */
    u16 to;            /* where it went most often, from the start of its page … */
    u8 times, others;  /* … how often, and how often elsewhere */
    u8 asked;          /* up to "often enough"; one more: seen again since it was translated */
};

struct jit;

enum jit_heat_is {
    JIT_HEAT_NEW,  /* the entry is another's: there may be a translation */
    JIT_HEAT_COLD, /* asked for, but not often enough: there is none */
    JIT_HEAT_HOT,  /* there should be one */
};

/* The code at hva is asked for; counts. */
enum jit_heat_is jit_heat_ask(struct jit *j, const u8 *hva);

/* It will be asked for. */
void jit_heat_prefetch(struct jit *j, const u8 *hva);

/* There is no translation of it, and its entry is another's: takes that over. */
void jit_heat_begin(struct jit *j, const u8 *hva);

/* Its translation is no longer true: it has to prove its worth anew. */
void jit_heat_reset(struct jit *j, const u8 *hva);

/* The interpreter ran the block at hva, and came to `to`, an offset in its page or JIT_WENT_FAR. */
void jit_heat_went(struct jit *j, const u8 *hva, u32 to);

/* The same of a block that may be translated: what was seen before that is forgotten then, the first time. */
void jit_heat_saw(struct jit *j, const u8 *hva, bool translated, u32 to);

/* Whether the block at hva, which ends in a conditional jump, came to `to` almost always. */
bool jit_heat_goes(struct jit *j, const u8 *hva, u32 to);

/* Where the block at hva came to almost always, as an offset in its page; JIT_WENT_FAR: to another page, or nobody knows. */
u32 jit_heat_next(struct jit *j, const u8 *hva);

#endif
