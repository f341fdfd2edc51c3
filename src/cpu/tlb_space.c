/* The address spaces of the TLB: their numbers, and the entries of those that are not loaded. SDM vol. 3 §4.10.
 *
 * The TLB itself knows one address space, so that a lookup compares nothing but the page. When CR3 goes to another PCID, the
 * entries that are not global are put away, and come back with it: a switch costs as much as there were entries, and no walk.
 * What drops entries of a PCID that is not loaded drops all that was put away for it: dropping early is always legal.
 *
 * A space has its number, tlb.space, for as long as its translations are kept: what others made of them (the translator's jump
 * tables) is good again with the number. fetch_generation comes back too. */
#include "cpu/tlb.h"

static bool number_good(const struct tlb *tlb, u64 space)
{
    return space > tlb->spaces_dropped;
}

static void number_load(struct tlb *tlb, u32 pcid, bool kept)
{
    u64 *space = &tlb->space_of[pcid];

    if (!kept || !number_good(tlb, *space))
        *space = ++tlb->spaces;
    tlb->space = *space;
    tlb->pcid = (u16)pcid;
}

void tlb_spaces_drop(struct tlb *tlb, u32 pcid)
{
    tlb->spaces_dropped = tlb->spaces;
    number_load(tlb, pcid, false);
}

void tlb_space_drop(struct tlb *tlb, u32 pcid)
{
    if (pcid == tlb->pcid)
        number_load(tlb, pcid, false);
    else
        tlb->space_of[pcid] = 0;
}

/* ---- what is put away ---- */

static bool away_good(const struct tlb *tlb, const struct tlb_away *away)
{
    return number_good(tlb, away->space) && tlb->space_of[away->pcid] == away->space;
}

/* One that is of no use, or was not loaded for the longest time. */
static struct tlb_away *away_to_use(struct tlb *tlb)
{
    struct tlb_away *best = &tlb->away[0];

    for (int n = 0; n < TLB_SPACES_AWAY; n++) {
        if (!away_good(tlb, &tlb->away[n]))
            return &tlb->away[n];
        if (tlb->away[n].left < best->left)
            best = &tlb->away[n];
    }
    return best;
}

static void entry_put_away(struct tlb_away *away, const struct tlb_entry *t, u64 gpa, int set, u16 index)
{
    if (away->count < TLB_AWAY_ENTRIES && !(t->read & t->write & t->fetch & TLB_INVALID))
        away->kept[away->count++] = (struct tlb_kept){.entry = *t, .gpa = gpa, .set = (u8)set, .index = index};
}

/* The entries that are not global, out of a set. */
static void set_put_away(struct tlb *tlb, int set, struct tlb_away *away)
{
    struct tlb_list *list = &tlb->used[false][set];

    for (int n = 0; n < list->count; n++) {
        u16 index = list->index[n];
        struct tlb_origin *origin = &tlb->origin[set * TLB_ENTRIES + index];

        origin->listed[false] = false;
        if (origin->global)
            continue;
        entry_put_away(away, &tlb->set[set][index], origin->gpa, set, index);
        tlb_entry_drop(&tlb->set[set][index], index);
    }
    list->count = 0;
}

static void put_away(struct tlb *tlb, u64 space, u16 pcid)
{
    struct tlb_away *away = away_to_use(tlb);

    away->space = space;
    away->pcid = pcid;
    away->fetch_generation = tlb->fetch_generation;
    away->left = ++tlb->switches;
    away->count = 0;
    tlb_victims_drop(tlb);
    for (int set = 0; set < MMU_SETS; set++)
        set_put_away(tlb, set, away);
}

/* Back where nothing else is. */
static void bring_back(struct tlb *tlb, struct tlb_away *away)
{
    for (int n = 0; n < away->count; n++) {
        const struct tlb_kept *k = &away->kept[n];
        struct tlb_entry *t = &tlb->set[k->set][k->index];

        if (!(t->read & t->write & t->fetch & TLB_INVALID))
            continue;
        *t = k->entry;
        tlb_origin(tlb, t)->gpa = k->gpa;
        tlb_entry_used(tlb, k->set, k->index, false);
    }
    away->space = 0;
}

/* What was put away for the space that is loaded now, or NULL. */
static struct tlb_away *away_of_loaded(struct tlb *tlb)
{
    for (int n = 0; n < TLB_SPACES_AWAY; n++)
        if (tlb->away[n].space == tlb->space)
            return &tlb->away[n];
    return NULL;
}

static void space_switch(struct vcpu *c, u64 from, u16 from_pcid)
{
    struct tlb *tlb = c->tlb;
    struct tlb_away *away = away_of_loaded(tlb);
    u64 generation = away ? away->fetch_generation : 0;

    if (away)
        away->left = tlb->switches + 1; /* or its place might be taken now */
    put_away(tlb, from, from_pcid);
    if (away)
        bring_back(tlb, away);
    tlb_fetch_set(c, generation ? generation : ++tlb->fetch_generations);
}

void tlb_space_load(struct vcpu *c, u32 pcid, bool kept)
{
    u64 from = c->tlb->space;
    u16 from_pcid = c->tlb->pcid;

    number_load(c->tlb, pcid, kept);
    if (from_pcid != pcid)
        space_switch(c, from, from_pcid);
    else if (!kept)
        tlb_flush_local(c);
}

void tlb_away_refetch(struct tlb *tlb)
{
    for (int n = 0; n < TLB_SPACES_AWAY; n++)
        tlb->away[n].fetch_generation = 0;
}

void tlb_away_protect_code(struct tlb *tlb, u64 page)
{
    for (int n = 0; n < TLB_SPACES_AWAY; n++)
        for (int k = 0; away_good(tlb, &tlb->away[n]) && k < tlb->away[n].count; k++)
            tlb_entry_protect_code(&tlb->away[n].kept[k].entry, page);
}
