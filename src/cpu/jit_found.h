/* Inside the translator: which blocks were found lately, by backing address and mode, so that the next look for one of them costs a cache
 * line. The jump tables, which are by linear address, forget when an address space goes; this does not: code of libraries is at the same place
 * in the backing for all.
 *
 * What is here is a copy of what jit_block_find() said, good for as long as the page has the version that the block has. Blocks of segmented
 * code and those that go on in the next page are not here: they depend on more. */
#ifndef CPU_JIT_FOUND_H
#define CPU_JIT_FOUND_H
#include "cpu/jit_cache.h"

#define JIT_FOUND_SHIFT 14
#define JIT_FOUND_SETS (1u << JIT_FOUND_SHIFT)
#define JIT_FOUND_SIZE (sizeof(struct jit_found_set) * JIT_FOUND_SETS)
#define JIT_FOUND_EPOCHS 0x10000u

struct jit_found {
    u64 tag; /* of the address and the cache's epoch; 0: none */
    const u32 *version_now;
    u32 key, version;
    u32 block; /* in the arena */
    u32 code;  /* in the code cache: to be entered with the flags in RAX */
};
struct jit_found_set {
    _Alignas(64) struct jit_found at[2]; /* that which was put in last is the first */
};
static_assert(sizeof(struct jit_found_set) == 64, "a cache line");

static inline u64 jit_found_tag(const struct jit *j, const u8 *hva)
{
    return (u64)hva | (u64)(j->epoch % JIT_FOUND_EPOCHS) << 48; /* user addresses have 47 bits */
}

static inline struct jit_found_set *jit_found_set(const struct jit *j, const u8 *hva, u32 key)
{
    return &j->found[((u64)hva + key) * 0x9e3779b97f4a7c15ull >> (64 - JIT_FOUND_SHIFT)];
}

/* The block at hva for `key`, or NULL: jit_block_find() may know. */
static inline const struct jit_found *jit_found_ask(const struct jit *j, const u8 *hva, u64 key)
{
    const struct jit_found *f = jit_found_set(j, hva, (u32)key)->at;
    u64 tag = jit_found_tag(j, hva);

    if (f->tag != tag || f->key != key)
        f++;
    return f->tag == tag && f->key == key && f->version == __atomic_load_n(f->version_now, __ATOMIC_RELAXED) ? f : NULL;
}

/* b was found. */
void jit_found_add(struct jit *j, const struct jit_block *b);

/* After the cache was emptied and has its new epoch. */
void jit_found_flush(struct jit *j);

#endif
