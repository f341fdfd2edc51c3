/* The TLB: see tlb.h. Flushing is generous: dropping an entry early is always legal. */
#include "cpu/tlb.h"

#include "cpu/access.h"
#include "cpu/window.h"

void tlb_entry_drop(struct tlb_entry *t, u64 index)
{
    t->read = t->write = t->fetch = tlb_slow(index << PAGE_SHIFT, TLB_INVALID);
}

/* ---- victims ---- */

static void victim_drop(struct tlb *tlb, u32 at)
{
    tlb_entry_drop(&tlb->victim[at], at);
}

void tlb_victim_keep(struct tlb *tlb, int set, const struct tlb_entry *t)
{
    u32 at = (u32)set * TLB_VICTIMS + tlb_victim_index(tlb_page(t->read));

    if (t->read & ~PAGE_MASK) /* nobody's, or slow to read */
        return;
    tlb->victim[at] = *t;
    if (tlb->victims < TLB_VICTIMS_LISTED)
        tlb->victim_used[tlb->victims] = (u16)at;
    tlb->victims++;
}

void tlb_victims_drop(struct tlb *tlb)
{
    bool listed = tlb->victims <= TLB_VICTIMS_LISTED;

    for (u32 n = 0; n < (listed ? tlb->victims : MMU_SETS * TLB_VICTIMS); n++)
        victim_drop(tlb, listed ? tlb->victim_used[n] : n);
    tlb->victims = 0;
}

static void victims_protect_code(struct tlb *tlb, u64 page)
{
    for (u32 n = 0; n < MMU_SETS * TLB_VICTIMS && tlb->victims; n++)
        tlb_entry_protect_code(&tlb->victim[n], page);
}

/* ---- entries ---- */

void tlb_fetch_set(struct vcpu *c, u64 generation)
{
    c->tlb->fetch_generation = generation;
    c->fetch_key = generation << 8 | (c->fetch_key & 0xff);
}

static void fetch_changed(struct vcpu *c)
{
    tlb_fetch_set(c, ++c->tlb->fetch_generations);
}

static void bits_clear(u64 *bits, int words)
{
    for (int n = 0; n < words; n++)
        __atomic_store_n(&bits[n], 0, __ATOMIC_RELAXED); /* atomic: no memset, which uses vector registers */
}

/* The bit of a range of 2 MiB or 1 GiB, scattered: kernels have large pages for all memory, and drop others all the time. */
static u32 large_bit(u64 range)
{
    static_assert(TLB_LARGE_WORDS * 64 == 1 << (32 - 18), "as below");
    return (u32)range * 0x9e3779b1u >> 18;
}

#define GIANT_RANGE 0x40000000u /* sets numbers of ranges of 1 GiB apart from those of 2 MiB */

static bool large_get(const struct tlb *tlb, u64 range)
{
    return tlb->large_pages[large_bit(range) / 64] >> large_bit(range) % 64 & 1;
}

static void large_set(struct tlb *tlb, u64 range)
{
    tlb->large_pages[large_bit(range) / 64] |= 1ull << large_bit(range) % 64;
}

static u32 loaded_pcid(const struct vcpu *c)
{
    return c->s.cr4 & CR4_PCIDE ? (u32)(c->s.cr3 & CR3_PCID) : 0;
}

void tlb_init(struct vcpu *c)
{
    c->tlb->fetch_generation = 0;
    tlb_spaces_drop(c->tlb, 0);
    c->tlb->victims = TLB_VICTIMS_LISTED + 1; /* all of them */
    tlb_victims_drop(c->tlb);
    for (int set = 0; set < MMU_SETS; set++) {
        c->tlb->used[0][set].count = c->tlb->used[1][set].count = 0;
        for (int i = 0; i < TLB_ENTRIES; i++) {
            tlb_entry_drop(&c->tlb->set[set][i], (u64)i);
            c->tlb->origin[set * TLB_ENTRIES + i] = (struct tlb_origin){.gpa = 0};
        }
    }
}

void tlb_entry_used(struct tlb *tlb, int set, u64 index, bool global)
{
    struct tlb_origin *origin = &tlb->origin[(u64)set * TLB_ENTRIES + index];
    struct tlb_list *list = &tlb->used[global][set];

    origin->global = global;
    if (origin->listed[global])
        return;
    origin->listed[global] = true;
    list->index[list->count++] = (u16)index;
}

static void set_flush(struct tlb *tlb, int set, bool global)
{
    struct tlb_list *list = &tlb->used[global][set];

    for (int n = 0; n < list->count; n++) {
        struct tlb_origin *origin = &tlb->origin[set * TLB_ENTRIES + list->index[n]];

        if (origin->global == global)
            tlb_entry_drop(&tlb->set[set][list->index[n]], list->index[n]);
        origin->listed[global] = false;
    }
    list->count = 0;
}

static void page_gone(struct tlb *tlb, u64 gva)
{
    if (tlb->gone < TLB_GONE)
        tlb->gone_page[tlb->gone] = gva >> PAGE_SHIFT;
    if (tlb->gone <= TLB_GONE)
        tlb->gone++;
}

static void flush(struct vcpu *c)
{
    for (int set = 0; set < MMU_SETS; set++) {
        set_flush(c->tlb, set, false);
        set_flush(c->tlb, set, true);
    }
    tlb_victims_drop(c->tlb);
    bits_clear(c->tlb->large_pages, TLB_LARGE_WORDS);
    c->tlb->jump_generation++;
    tlb_spaces_drop(c->tlb, loaded_pcid(c));
    fetch_changed(c);
}

void tlb_flush(struct vcpu *c)
{
    window_drop_all(c);
    flush(c);
}

void tlb_flush_local(struct vcpu *c)
{
    tlb_victims_drop(c->tlb);
    for (int set = 0; set < MMU_SETS; set++)
        set_flush(c->tlb, set, false);
    fetch_changed(c);
}

void tlb_flush_page(struct vcpu *c, u64 gva)
{
    window_drop_page(c, loaded_pcid(c), gva);
    /* entries are 4 KiB pieces, and any address of a large page asks for all of its */
    if (large_get(c->tlb, gva >> 21) || large_get(c->tlb, gva >> 30 ^ GIANT_RANGE)) {
        flush(c); /* windows know better what they have */
        return;
    }
    for (int set = 0; set < MMU_SETS; set++) {
        tlb_entry_drop(tlb_entry(c, set, gva), gva >> PAGE_SHIFT & (TLB_ENTRIES - 1));
        victim_drop(c->tlb, (u32)set * TLB_VICTIMS + tlb_victim_index(gva));
    }
    page_gone(c->tlb, gva);
    tlb_away_refetch(c->tlb); /* it may be a global one */
    fetch_changed(c);
}

void tlb_note_large(struct tlb *tlb, u64 gva, int shift)
{
    if (shift > 22) {
        large_set(tlb, gva >> 30 ^ GIANT_RANGE);
        return;
    }
    large_set(tlb, gva >> 21);
    if (shift == 22) /* 4 MiB: two of the ranges */
        large_set(tlb, gva >> 21 ^ 1);
}

static void protect_list(struct tlb *tlb, int set, const struct tlb_list *list, u64 page)
{
    for (int n = 0; n < list->count; n++)
        tlb_entry_protect_code(&tlb->set[set][list->index[n]], page);
}

void tlb_protect_code(struct vcpu *c, const u8 *hva)
{
    u64 page = (u64)hva & PAGE_MASK;

    for (int set = 0; set < MMU_SETS; set++) {
        protect_list(c->tlb, set, &c->tlb->used[0][set], page);
        protect_list(c->tlb, set, &c->tlb->used[1][set], page);
    }
    victims_protect_code(c->tlb, page);
    tlb_away_protect_code(c->tlb, page);
}
