/* The TLB: see tlb.h. Flushing is generous: dropping an entry early is always legal. */
#include "cpu/tlb.h"

#include "cpu/access.h"

/* `index` of the entry in its set. */
static void tlb_entry_drop(struct tlb_entry *t, u64 index)
{
    t->read = t->write = t->fetch = tlb_slow(index << PAGE_SHIFT, TLB_INVALID);
}

static void fetch_changed(struct vcpu *c)
{
    c->tlb->fetch_generation++;
    c->fetch_key = (u64)c->tlb->fetch_generation << 8 | (c->fetch_key & 0xff);
}

static void bits_clear(u64 *bits, int words)
{
    for (int n = 0; n < words; n++)
        __atomic_store_n(&bits[n], 0, __ATOMIC_RELAXED); /* atomic: no memset, which uses vector registers */
}

static bool bit_get(const u64 *bits, u64 n)
{
    return bits[n / 64 % (TLB_ENTRIES / 64)] >> (n % 64) & 1;
}

static void bit_set(u64 *bits, u64 n)
{
    bits[n / 64 % (TLB_ENTRIES / 64)] |= 1ull << (n % 64);
}

void tlb_space_load(struct tlb *tlb, u32 pcid, bool kept)
{
    u64 *space = &tlb->space_of[pcid];

    if (!kept || *space <= tlb->spaces_dropped)
        *space = ++tlb->spaces;
    tlb->space = *space;
}

/* The loaded space gets a new number, others will when they are loaded. */
static void spaces_drop(struct vcpu *c)
{
    c->tlb->spaces_dropped = c->tlb->spaces;
    tlb_space_load(c->tlb, c->s.cr4 & CR4_PCIDE ? c->s.cr3 & (TLB_PCIDS - 1) : 0, false);
}

void tlb_init(struct vcpu *c)
{
    c->tlb->fetch_generation = 0;
    spaces_drop(c);
    for (int set = 0; set < MMU_SETS; set++) {
        c->tlb->filled[set] = 0;
        for (int i = 0; i < TLB_ENTRIES; i++) {
            tlb_entry_drop(&c->tlb->set[set][i], (u64)i);
            c->tlb->origin[set * TLB_ENTRIES + i].listed = false;
        }
    }
}

static void set_flush(struct tlb *tlb, int set, bool global_too)
{
    int kept = 0;

    for (int n = 0; n < tlb->filled[set]; n++) {
        u16 index = tlb->fill[set][n];

        if (!global_too && tlb->origin[set * TLB_ENTRIES + index].global) {
            tlb->fill[set][kept++] = index;
            continue;
        }
        tlb_entry_drop(&tlb->set[set][index], index);
        tlb->origin[set * TLB_ENTRIES + index].listed = false;
    }
    tlb->filled[set] = (u16)kept;
}

static void page_gone(struct tlb *tlb, u64 gva)
{
    if (tlb->gone < TLB_GONE)
        tlb->gone_page[tlb->gone] = gva >> PAGE_SHIFT;
    if (tlb->gone <= TLB_GONE)
        tlb->gone++;
}

void tlb_flush(struct vcpu *c)
{
    for (int set = 0; set < MMU_SETS; set++)
        set_flush(c->tlb, set, true);
    bits_clear(c->tlb->large_pages, TLB_ENTRIES / 64);
    c->tlb->giant_pages = 0;
    c->tlb->jump_generation++;
    spaces_drop(c);
    fetch_changed(c);
}

void tlb_flush_local(struct vcpu *c)
{
    for (int set = 0; set < MMU_SETS; set++)
        set_flush(c->tlb, set, false);
    fetch_changed(c);
}

void tlb_flush_page(struct vcpu *c, u64 gva)
{
    /* entries are 4 KiB pieces, and any address of a large page asks for all of its */
    if (bit_get(c->tlb->large_pages, gva >> 21) || c->tlb->giant_pages >> (gva >> 30 & 63) & 1) {
        tlb_flush(c);
        return;
    }
    for (int set = 0; set < MMU_SETS; set++)
        tlb_entry_drop(tlb_entry(c, set, gva), gva >> PAGE_SHIFT & (TLB_ENTRIES - 1));
    page_gone(c->tlb, gva);
    fetch_changed(c);
}

void tlb_note_large(struct tlb *tlb, u64 gva, int shift)
{
    if (shift > 22) {
        tlb->giant_pages |= 1ull << (gva >> 30 & 63);
        return;
    }
    bit_set(tlb->large_pages, gva >> 21);
    if (shift == 22) /* 4 MiB: two of the ranges */
        bit_set(tlb->large_pages, gva >> 21 ^ 1);
}

void tlb_protect_code(struct vcpu *c, const u8 *hva)
{
    u64 page = (u64)hva & PAGE_MASK;

    for (int set = 0; set < MMU_SETS; set++) {
        for (int n = 0; n < c->tlb->filled[set]; n++) {
            struct tlb_entry *t = &c->tlb->set[set][c->tlb->fill[set][n]];

            if (!(t->write & (TLB_INVALID | TLB_MMIO)) && (u64)t->page == page)
                t->write = tlb_slow(tlb_page(t->write), (t->write & ~PAGE_MASK) | TLB_CODE);
        }
    }
}
