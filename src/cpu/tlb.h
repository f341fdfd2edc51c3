/* Translation look-aside buffer: guest-virtual pages to pointers into guest RAM, with separate tags for reading, writing and
 * fetching. SDM vol. 3 §4.10.
 *
 * Dropping an entry early is always legal, late never. A tag is the page's address. Where an access must take the slow path
 * low bits say why, and the lowest bit of the page number is turned over: the addresses that look into an entry agree in
 * that bit, so such a tag matches none of them, and one comparison tells (see tlb_slow). */
#ifndef CPU_TLB_H
#define CPU_TLB_H
#include "cpu/vcpu_state.h"

#define TLB_ENTRIES 4096 /* a set; direct-mapped */
#define TLB_VICTIMS_SHIFT 8
#define TLB_VICTIMS (1 << TLB_VICTIMS_SHIFT) /* of a set: see tlb_victim_index */
#define TLB_VICTIMS_LISTED 64
#define TLB_VICTIM_FACTOR 0x9e3779b1u
#define CR3_NO_FLUSH (1ull << 63) /* in what is loaded, with CR4.PCIDE */
#define CR3_PCID 0xfffull
#define TLB_GONE 8
#define TLB_LARGE_WORDS 256
#define TLB_PCIDS 4096

/* Which set an access uses. */
enum {
    MMU_SUPERVISOR, /* CPL 0–2, SMAP off or RFLAGS.AC set */
    MMU_USER,       /* CPL 3 */
    MMU_SMAP,       /* CPL 0–2 (and implicit accesses at CPL 3) while SMAP forbids user pages */
    MMU_ALIGN,      /* CPL 3 with alignment checks: every tag is slow */
    MMU_SETS
};

enum { /* low bits of a tag */
    TLB_INVALID = 1, /* never matches */
    TLB_MMIO = 2,    /* not RAM: `gpa` tells where */
    TLB_ROM = 4,     /* writes are dropped */
    TLB_CODE = 8,    /* writes must look for decoded code */
    TLB_WATCH = 16,  /* a data breakpoint is in this page */
    TLB_CHECK = 32,  /* alignment is checked */
    TLB_TRIAL = 64,  /* writes are noted: see cpu/lockstep.h */
};

struct tlb_entry {
    u64 read, write, fetch; /* tags */
    u8 *page;               /* where the page is in this process; NULL: a device */
};

/* What only the slow paths ask of an entry. */
struct tlb_origin {
    u64 gpa;     /* of the page */
    bool global; /* stays when CR3 is loaded */
    bool listed[2]; /* in tlb.used, by `global`; in the other as well if its place had another page before */
};

#define TLB_SPACES_AWAY 6    /* address spaces that are not loaded, and whose entries are kept … */
#define TLB_AWAY_ENTRIES 512 /* … up to so many */

struct tlb_away {
    u64 space, fetch_generation; /* as they were; 0: none */
    u64 left;                    /* when, in switches */
    u16 pcid, count;
    struct tlb_kept {
        struct tlb_entry entry;
        u64 gpa;
        u16 index;
        u8 set;
    } kept[TLB_AWAY_ENTRIES];
};

struct tlb {
    u64 fetch_generation; /* another one whenever a fetch translation may have changed; keys the block cache's fast lookup */
    u64 fetch_generations; /* how many were given away */
    u32 jump_generation;  /* raised when everything was dropped */
    u32 gone;             /* pages dropped since somebody set this to 0; more than TLB_GONE: not all are listed … */
    u64 gone_page[TLB_GONE]; /* … here, their numbers */
    u64 space;            /* the address space: a number for as long as CR3 loads keep its translations; never 0 */
    u64 spaces;           /* the last number that was given away */
    u64 space_of[TLB_PCIDS]; /* by PCID; of no use if not above … */
    u64 spaces_dropped;   /* … the last that was given away when everything was dropped */
    u64 switches;         /* of spaces */
    u16 pcid;             /* of the space that is loaded */
    u64 large_pages[TLB_LARGE_WORDS]; /* bits by a hash: there may be a piece of a large page in a range of 2 MiB or 1 GiB */
    struct tlb_list { /* the entries of a set that are in use, so that a flush visits just those */
        u16 count;
        u16 index[TLB_ENTRIES];
    } used[2][MMU_SETS]; /* by `global` */
    struct tlb_entry set[MMU_SETS][TLB_ENTRIES];
    struct tlb_entry victim[MMU_SETS * TLB_VICTIMS]; /* what other pages drove out of their places, for translated code */
    u32 victims;          /* how many were put there since all were dropped: … */
    u16 victim_used[TLB_VICTIMS_LISTED]; /* … the first of them, by place */
    struct tlb_origin origin[MMU_SETS * TLB_ENTRIES]; /* in the order of set[][] */
    struct tlb_away away[TLB_SPACES_AWAY];
};

/* Where the victim of a page is. Two pages that share a place in the TLB hardly ever share one here; pages that do agree in their number's
 * lowest bit, as tags want it. */
static inline u32 tlb_victim_index(u64 gva)
{
    return ((u32)(gva >> (PAGE_SHIFT + 1)) * TLB_VICTIM_FACTOR >> (32 - (TLB_VICTIMS_SHIFT - 1))) * 2 + (gva >> PAGE_SHIFT & 1);
}

/* An entry is about to become another page's. */
void tlb_victim_keep(struct tlb *tlb, int set, const struct tlb_entry *t);
/* All of them. */
void tlb_victims_drop(struct tlb *tlb);

/* An entry was filled: it will be found when its set is flushed. */
void tlb_entry_used(struct tlb *tlb, int set, u64 index, bool global);
/* Makes an entry miss; `index` is its place in its set. */
void tlb_entry_drop(struct tlb_entry *t, u64 index);
/* Sets fetch_generation, and what depends on it. */
void tlb_fetch_set(struct vcpu *c, u64 generation);


/* The tag for `page` whose accesses are slow for the reasons given; none: the page itself. */
static inline u64 tlb_slow(u64 page, u64 reasons)
{
    return reasons ? (page ^ PAGE_SIZE) | reasons : page;
}

/* The page that a tag is about, for a used entry. */
static inline u64 tlb_page(u64 tag)
{
    return tag & ~PAGE_MASK ? (tag & PAGE_MASK) ^ PAGE_SIZE : tag;
}

/* Writes take the slow path from now on, if they are to the RAM page at `page` of this process. */
static inline void tlb_entry_protect_code(struct tlb_entry *t, u64 page)
{
    if (unlikely((u64)t->page == page) && !(t->write & (TLB_INVALID | TLB_MMIO)))
        t->write = tlb_slow(tlb_page(t->write), (t->write & ~PAGE_MASK) | TLB_CODE);
}

static inline struct tlb_origin *tlb_origin(struct tlb *tlb, const struct tlb_entry *t)
{
    return &tlb->origin[t - tlb->set[0]];
}
static inline u64 tlb_gpa(const struct tlb *tlb, const struct tlb_entry *t)
{
    return tlb->origin[t - tlb->set[0]].gpa;
}

/* Where gva is in this process; the entry is that of its page, and of RAM. */
static inline u8 *tlb_hva(const struct tlb_entry *t, u64 gva)
{
    return t->page + (gva & ~PAGE_MASK);
}

void tlb_init(struct vcpu *c);                /* once, before any use */
void tlb_flush(struct vcpu *c);               /* everything */
void tlb_flush_local(struct vcpu *c);         /* all but global pages, of the loaded address space */
void tlb_flush_page(struct vcpu *c, u64 gva); /* one page, all sets; large pages: everything that may share it */

/* tlb_space.c. Another address space is loaded, that of `pcid`; `kept`: with the translations that were known of it. */
void tlb_space_load(struct vcpu *c, u32 pcid, bool kept);
/* The translations of one space, of all, are good no more, `pcid` being loaded: new numbers, which leaves the TLB as it is. */
void tlb_space_drop(struct tlb *tlb, u32 pcid);
void tlb_spaces_drop(struct tlb *tlb, u32 pcid);
/* The parts of tlb_flush_page and tlb_protect_code for spaces that are not loaded. */
void tlb_away_refetch(struct tlb *tlb);
void tlb_away_protect_code(struct tlb *tlb, u64 page);

/* A piece of a page of 2^shift bytes is in the TLB. */
void tlb_note_large(struct tlb *tlb, u64 gva, int shift);

/* Makes every fast write path to the RAM page at hva slow, in this vCPU's TLB. */
void tlb_protect_code(struct vcpu *c, const u8 *hva);

enum mmu_access { MMU_READ, MMU_WRITE, MMU_FETCH };

/* Walks the page tables (or takes the address as it is without paging), checks the access for the set `mmu`, sets A and D
 * bits, fills and returns the TLB entry. Raises #PF, or #GP(0)/#SS(0) for non-canonical addresses (`stack` chooses). */
struct tlb_entry *tlb_fill(struct vcpu *c, u64 gva, enum mmu_access access, int mmu);

/* Raises #GP(0) or #SS(0) unless all of [gva, gva+size) is canonical, where that is asked for. */
void mmu_check_canonical(struct vcpu *c, u64 gva, u32 size);

/* What the page tables say of a page for reads and writes at CPL 3 that need no slow path: nothing, or where it is. */
struct mmu_page {
    u8 *hva;    /* NULL: every access needs it */
    bool write; /* writes do not */
    u8 shift;   /* log of the size of its page; it may be a piece of a large one */
};
/* Looks at `count` pages from gva on, all below a multiple of 2 MiB. No side effects. Pages that are global are left out. */
void mmu_peek(struct vcpu *c, u64 gva, int count, struct mmu_page *page);

/* A walk for debuggers: gpa of gva, no side effects, no permission checks. False when not mapped. */
bool mmu_translate_debug(struct vcpu *c, u64 gva, u64 *gpa);

/* MOV to CR3 and friends: loads PDPTEs in PAE mode (raises #GP(0) on reserved bits) and flushes as the manual says. */
void mmu_load_cr3(struct vcpu *c, u64 cr3);
/* WRPKRU and XRSTOR: the rights of protection keys are part of what the TLB holds. */
void mmu_load_pkru(struct vcpu *c, u32 pkru);
/* Reloads the PDPTEs when CR0/CR4 changed to PAE paging; raises #GP(0). `cr3` is the value to use. */
void mmu_load_pdptes(struct vcpu *c, u64 cr3);

#endif
