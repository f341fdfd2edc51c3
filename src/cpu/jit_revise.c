/* What goes on in hot code is sampled: every so many budgets the interpreter runs a few blocks from wherever control is, and notes which way they
 * went (jit_heat.h). And the block in which a budget is used up is found hot when that has happened often enough: it is translated again, by
 * what is known now, and its old code's entries jump to the new one's, so that links, jump tables and cells that lead to the old one stay as
 * they are. */
#include "cpu/jit_revise.h"

#include "cpu/access.h"
#include "cpu/interp.h"
#include "cpu/jit_cache.h"
#include "cpu/jit_segment.h"
#include "cpu/vector.h"

#define PERIOD 128 /* budgets that blocks used up which were not revised yet … */
#define WATCHED 16 /* … for so many blocks by the interpreter: half a per cent of the time at most */
#define WATCHED_MORE 64 /* and for so many at most until one is translated */
#define HOT 250 /* budgets that a block used up */
#define JUMP_SIZE 5

/* ---- samples ---- */

bool jit_revise_watch(struct vcpu *c, u64 key)
{
    struct jit *j = c->jit;
    u64 lin = jit_linear(c);
    const struct tlb_entry *t = interp_fetch_entry(c, lin);
    const u8 *hva = t->fetch & TLB_MMIO ? NULL : tlb_hva(t, lin);
    bool translated = hva && jit_block_find(j, hva, key);

    j->watched--;
    if (j->watched < WATCHED_MORE && translated) { /* nothing has to be translated for where this happens to end */
        j->watched = 0;
        return false;
    }
    interp_block(c);
    if (hva)
        jit_heat_saw(j, hva, translated, (lin ^ jit_linear(c)) & PAGE_MASK ? JIT_WENT_FAR : jit_linear(c) & ~PAGE_MASK);
    return true;
}

/* ---- again ---- */

static void jump_write(struct jit *j, const u8 *from, const u8 *to)
{
    u8 *at = j->code->write + jit_code_offset(j, from);

    at[0] = 0xe9;
    *(u32_any *)(at + 1) = (u32)(to - (from + JUMP_SIZE));
}

/* Entries that are close to one another differ by where the flags are: the code at the first moves them, and stays. */
static void forward(struct jit *j, const struct jit_block *old, const struct jit_block *new)
{
    s64 between = old->entry_saved - old->entry;

    if (between >= JUMP_SIZE || between < 0)
        jump_write(j, old->entry, new->entry);
    if (between <= -JUMP_SIZE || between >= 0)
        jump_write(j, old->entry_saved, new->entry_saved);
    if (old->entry_ext)
        jump_write(j, old->entry_ext, new->entry_ext ? new->entry_ext : new->entry);
}

static bool current(const struct jit_block *b)
{
    return b->version == __atomic_load_n(b->version_now, __ATOMIC_RELAXED);
}

/* Not if its bytes are others by now; nor if the old one's only entry does not tell where the flags are, which nobody looked at. */
static bool replaces(const struct jit_block *new, const struct jit_block *old)
{
    return new->version == old->version && !new->crossing && (old->entry != old->entry_saved || new->entry == new->entry_saved);
}

static void translate_again(struct vcpu *c, struct jit_block *b)
{
    u32 epoch = c->jit->epoch;
    struct jit_block *new;

    vector_make_room(c);
    if (c->jit->epoch != epoch) /* the block is forgotten */
        return;
    new = jit_translate(c, b->hva, b->key, b);
    if (!new)
        return;
    new->revised = true;
    if (c->jit->epoch != epoch || !replaces(new, b)) /* the former: b is forgotten now */
        return;
    forward(c->jit, b, new);
    c->jit->counters.revised++;
}

/* How many budgets a block uses up until it is hot. */
static u32 hot(const struct vcpu *c)
{
    return c->group->config.stress ? 1 : HOT;
}

void jit_revise_left(struct vcpu *c, u32 link)
{
    const struct jit_link *l = jit_link_at(c->jit, link);
    struct jit_block *b = jit_block_at(c->jit, l->block);

    if (l->rel32 || b->revised || b->crossing || b->key & JIT_KEY_SEGMENTED || c->trial)
        return;
    if (!(++c->jit->budgets % PERIOD))
        c->jit->watched = WATCHED + WATCHED_MORE;
    if (++b->used_up < hot(c) || !current(b))
        return;
    b->revised = true;
    translate_again(c, b);
}
