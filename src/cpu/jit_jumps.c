/* The jump tables: see jit_jumps.h. */
#include "cpu/jit_jumps.h"

#include <errno.h>
#include <sys/mman.h>

#include "cpu/interp.h"
#include "cpu/jit_cache.h"
#include "cpu/jit_crossing.h"
#include "cpu/jit_segment.h"
#include "cpu/xstate.h"

static u64 tables_size(void)
{
    return ALIGN_UP(sizeof(struct jit_jumps) * JIT_JUMP_TABLES, PAGE_SIZE);
}

int jit_jumps_create(struct vcpu *c, struct err *e)
{
    void *p = mmap(NULL, tables_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return err_set(e, -ENOMEM, "vCPU %d: out of memory for jump tables", c->index);
    c->jit->jumps = p;
    static_assert(ARRAY_SIZE(c->jumps_of) == MMU_SETS, "");
    for (int set = 0; set < MMU_SETS; set++)
        c->jumps_of[set] = &c->jit->jumps[0];
    c->jumps = &c->jit->jumps[0];
    return 0;
}

void jit_jumps_free(struct vcpu *c)
{
    if (c->jit->jumps)
        munmap(c->jit->jumps, tables_size());
    c->jit->jumps = c->jumps = NULL;
}

/* ---- filters ---- */

static u32 filter_bit(u64 page)
{
    return (u32)page * JIT_JUMP_FACTOR >> 18;
}

static void filter_add(u64 *filter, u64 page)
{
    static_assert(JIT_FILTER_WORDS * 64 == 1 << (32 - 18), "");
    filter[filter_bit(page) / 64] |= 1ull << filter_bit(page) % 64;
}

static bool filter_has(const u64 *filter, u64 page)
{
    return filter[filter_bit(page) / 64] >> filter_bit(page) % 64 & 1;
}

static void filter_clear(u64 *filter)
{
    for (int n = 0; n < JIT_FILTER_WORDS; n++)
        __atomic_store_n(&filter[n], 0, __ATOMIC_RELAXED); /* atomic: no memset, which uses vector registers */
}

/* ---- emptying ---- */

static u64 place_new(struct jit *j)
{
    u64 n = ++j->places;

    static_assert(PAGE_SHIFT == 12, "");
    return (n & ~PAGE_MASK) | (n >> 12) << 48;
}

/* All numbers were given away. */
static void places_begin(struct vcpu *c)
{
    struct jit *j = c->jit;

    for (u32 n = 0; n < j->cell_count; n++)
        c->cells[n].place = JIT_NO_PLACE;
    j->places = 0;
    for (int n = 0; n < JIT_JUMP_TABLES; n++)
        j->jumps[n].place = place_new(j);
}

/* What cells remember of the table is true no more. */
static void place_change(struct vcpu *c, struct jit_jumps *t)
{
    if (c->jit->places + 1 == JIT_PLACES)
        places_begin(c);
    t->place = place_new(c->jit);
    c->place = c->jumps->place;
}

static void table_clear(struct vcpu *c, struct jit_jumps *t)
{
    if (!t->filled)
        return;
    c->jit->counters.jump_clears++;
    place_change(c, t);
    for (u32 n = 0; n < t->filled; n++)
        t->at[t->fill[n]].rip = jit_no_rip(t->fill[n]);
    t->filled = 0;
    filter_clear(t->linear);
    filter_clear(t->backing);
}

static bool user_key(u32 key)
{
    u32 set = (key & JIT_KEY_SET) >> JIT_KEY_SET_SHIFT;

    return set == MMU_USER || set == MMU_ALIGN;
}

static_assert((u32)JIT_JUMP_FACTOR >> (32 - JIT_JUMPS_SHIFT) > 1, "jit_no_rip: the slot of 1");

static void table_reset(struct vcpu *c, struct jit_jumps *t, u32 key)
{
    table_clear(c, t);
    if (!t->key) { /* never used */
        place_change(c, t);
        for (u32 n = 0; n < JIT_JUMPS; n++)
            t->at[n].rip = jit_no_rip(n);
    }
    t->key = key;
    t->local = user_key(key);
    t->space = c->tlb->space;
    t->limit = c->s.seg_limit[SEG_CS];
}

void jit_jumps_flush(struct vcpu *c)
{
    for (int n = 0; n < JIT_JUMP_TABLES; n++)
        table_clear(c, &c->jit->jumps[n]);
}

static void clear_knowing_linear(struct vcpu *c, u64 page)
{
    for (int n = 0; n < JIT_JUMP_TABLES; n++)
        if (filter_has(c->jit->jumps[n].linear, page))
            table_clear(c, &c->jit->jumps[n]);
}

/* After pages, or everything, were dropped from the TLB. */
static void refresh(struct vcpu *c)
{
    struct tlb *tlb = c->tlb;

    if (c->jit->jump_generation != tlb->jump_generation || tlb->gone > TLB_GONE)
        jit_jumps_flush(c);
    else
        for (u32 n = 0; n < tlb->gone; n++)
            clear_knowing_linear(c, tlb->gone_page[n]);
    c->jit->jump_generation = tlb->jump_generation;
    tlb->gone = 0;
}

void jit_jumps_code_written(struct vcpu *c)
{
    u64 pages[CODE_WRITTEN_LOG];
    int count;

    ext_save(c);
    count = guest_memory_code_written(vcpu_memory(c), &c->jit->code_written_seen, pages);
    if (count < 0)
        jit_jumps_flush(c);
    for (int i = 0; i < count; i++)
        for (int n = 0; n < JIT_JUMP_TABLES; n++)
            if (filter_has(c->jit->jumps[n].backing, pages[i]))
                table_clear(c, &c->jit->jumps[n]);
}

/* ---- choosing ---- */

static bool serves(const struct vcpu *c, const struct jit_jumps *t, u32 key)
{
    return t->key == key && (!t->local || t->space == c->tlb->space) && (!(key & JIT_KEY_SEGMENTED) || t->limit == c->s.seg_limit[SEG_CS]);
}

static struct jit_jumps *table_for(struct vcpu *c, u32 key)
{
    struct jit_jumps *oldest = &c->jit->jumps[0];

    for (int n = 0; n < JIT_JUMP_TABLES; n++) {
        struct jit_jumps *t = &c->jit->jumps[n];

        if (serves(c, t, key))
            return t;
        if (t->used < oldest->used)
            oldest = t;
    }
    table_reset(c, oldest, key);
    return oldest;
}

static void use(struct vcpu *c, struct jit_jumps *t)
{
    c->jumps = t;
    c->place = t->place;
}

bool jit_jumps_fresh(const struct vcpu *c)
{
    return !c->tlb->gone && c->jit->jump_generation == c->tlb->jump_generation;
}

void jit_jumps_select(struct vcpu *c, u32 key)
{
    if (unlikely(!jit_jumps_fresh(c)))
        refresh(c);
    if (likely(serves(c, c->jumps, key)))
        return;
    use(c, c->jumps_of[c->mmu_index]); /* system calls go to and fro */
    if (likely(serves(c, c->jumps, key)))
        return;
    use(c, table_for(c, key));
    c->jumps_of[c->mmu_index] = c->jumps;
    c->jumps->used = ++c->jit->jump_selections;
}

/* ---- adding ---- */

static void note_page(struct vcpu *c, struct jit_jumps *t, u64 lin, const u8 *hva, bool global)
{
    filter_add(t->linear, lin >> PAGE_SHIFT);
    filter_add(t->backing, backing_page(vcpu_memory(c), hva));
    if (!global && !t->local) {
        t->local = true;
        t->space = c->tlb->space;
    }
}

static void put(struct jit_jumps *t, u32 slot, struct jit_jump jump)
{
    if (t->at[slot].rip == jit_no_rip(slot))
        t->fill[t->filled++] = (u16)slot;
    t->at[slot] = jump;
}

void jit_jumps_add_code(struct vcpu *c, const u8 *hva, const u8 *code)
{
    struct jit_jumps *t = c->jumps;
    u64 tag = jit_jump_tag(c), lin = jit_linear(c);
    u32 slot = jit_jump_slot(tag);

    if (t->at[slot].rip != jit_no_rip(slot) && t->at[slot].rip != tag)
        put(t, slot ^ 1, t->at[slot]); /* either place of the pair is as good for it */
    put(t, slot, (struct jit_jump){.rip = tag, .code = code});
    note_page(c, t, lin, hva, t->local || tlb_origin(c->tlb, interp_fetch_entry(c, lin))->global);
}

void jit_jumps_add(struct vcpu *c, const struct jit_block *b)
{
    jit_jumps_add_code(c, b->hva, jit_block_code(b));
    if (b->crossing)
        note_page(c, c->jumps, jit_crossing_linear(c), b->crossing->page, jit_crossing_global(c));
}
