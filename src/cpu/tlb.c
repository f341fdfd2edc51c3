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

void tlb_init(struct vcpu *c)
{
    c->tlb->fetch_generation = 0;
    c->tlb->large_pages = false;
    for (int set = 0; set < MMU_SETS; set++) {
        c->tlb->filled[set] = 0;
        for (int i = 0; i < TLB_ENTRIES; i++) {
            tlb_entry_drop(&c->tlb->set[set][i], (u64)i);
            c->tlb->origin[set * TLB_ENTRIES + i].listed = false;
        }
    }
}

void tlb_flush(struct vcpu *c)
{
    for (int set = 0; set < MMU_SETS; set++) {
        for (int n = 0; n < c->tlb->filled[set]; n++) {
            u16 index = c->tlb->fill[set][n];

            tlb_entry_drop(&c->tlb->set[set][index], index);
            c->tlb->origin[set * TLB_ENTRIES + index].listed = false;
        }
        c->tlb->filled[set] = 0;
    }
    fetch_changed(c);
}

void tlb_flush_page(struct vcpu *c, u64 gva)
{
    /* entries are 4 KiB pieces, so a piece of a large page elsewhere may be asked for by any address of that page */
    if (c->tlb->large_pages) {
        tlb_flush(c);
        c->tlb->large_pages = false;
        return;
    }
    for (int set = 0; set < MMU_SETS; set++)
        tlb_entry_drop(tlb_entry(c, set, gva), gva >> PAGE_SHIFT & (TLB_ENTRIES - 1));
    fetch_changed(c);
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
