/* Inside the windows: which pages an address space has mapped, and in which reservations. See cpu/window.h. */
#ifndef CPU_WINDOW_MAP_H
#define CPU_WINDOW_MAP_H
#include "cpu/window.h"

#define WINDOW_SIZE (1ull << WINDOW_SHIFT)
/* On both sides. Operands reach so far from an address in a slot: by a displacement, GIB(2), and RSP's walk. */
#define WINDOW_GUARD (GIB(2) + WINDOW_WALK + MIB(2))
#define WINDOW_SPACES 8       /* of a vCPU */
#define WINDOW_SPACE_SLOTS 6  /* of a space: a program, its heap, its libraries and its stack take two to four */
#define WINDOW_RESERVATIONS 24 /* of a vCPU, at most */
#define WINDOW_CHUNKS 8192    /* of a vCPU; the first is none */
#define WINDOW_CHUNK_PAGES 64
#define WINDOW_CHUNK_SIZE (WINDOW_CHUNK_PAGES * PAGE_SIZE)
#define WINDOW_HASH 2048
#define WINDOW_DOOMED 128
#define WINDOW_NO_CR3 (~0ull) /* not one that can be loaded */

/* A reservation; `start` is behind the guard below. */
struct window_slot {
    u8 *start;
    struct window_space *space; /* NULL: free */
    u32 number;                 /* of the slot in the address space */
};

/* 64 pages of a space: bit n is page n. */
struct window_chunk {
    u64 gva;
    u64 mapped, writable; /* the second is part of the first */
    u64 doomed;           /* to be dropped before the space is used again */
    u32 backing[WINDOW_CHUNK_PAGES]; /* of those that are mapped: which pages of guest RAM */
    u16 next;             /* in the hash chain, or the free list */
    u16 next_of_space;
    u8 space;
    bool large;           /* some are of large pages */
    bool doubtful;        /* to be compared with the page tables before the space is used again */
};

struct window_space {
    u64 cr3;              /* page table and PCID; WINDOW_NO_CR3: unused */
    u64 used;             /* when: the larger, the later */
    bool promoted;        /* has windows; else it is only counted how busy it is */
    bool drop;            /* what the page tables no longer say, before it is used again */
    bool large;           /* some chunk is of large pages … */
    bool giant;           /* … of more than 2 MiB */
    u16 chunks;           /* the first in the list */
    u32 maps;             /* calls of mmap() since it was empty: half of the kernel's mappings at most */
    int slots;
    struct window_slot *slot[WINDOW_SPACE_SLOTS];
    int dooms;            /* chunks with doomed pages, and doubtful ones */
    u16 doom[WINDOW_DOOMED];
    u64 heat;             /* instructions since it was found or demoted */
    u32 demotions;
    s64 debt;             /* cycles that windows cost beyond what they may */
};

struct windows {
    struct window_space space[WINDOW_SPACES];
    struct window_space *current; /* the table shows it; NULL: none */
    struct window_slot slot[WINDOW_RESERVATIONS];
    int slots_max;
    u8 *empty;                    /* the start of the reservation without pages */
    u64 clock;                    /* of `used` */
    u32 maps, maps_max;           /* of all spaces */
    bool always;
    struct window_chunk *chunk;
    u32 chunks;                   /* ever used */
    u16 free_chunk;
    u32 free_chunks;
    u16 hash[WINDOW_HASH];
    u32 *writer;                  /* by page of the backing: chunk and page that map it for writing, see writer_at */
    u64 backing_pages;
    struct {
        u64 promotions, demotions, fills, pages, faults, checks, drops, page_drops, protects, answers;
    } count;
};

/* What a space's windows cost is measured: from a reading of the host's TSC to now. A thread that was interrupted meanwhile does
 * not count as so much work. */
#define WINDOW_COST_MAX 200000
static inline u64 window_clock(void)
{
    return __builtin_ia32_rdtsc();
}
static inline void window_charge(struct window_space *s, u64 since)
{
    s->debt += (s64)MIN(window_clock() - since, WINDOW_COST_MAX);
}

/* Drops all pages of a space, at once. */
void window_space_empty(struct windows *w, struct window_space *s);
/* Drops what is doomed; of the current address space. */
void window_space_settle(struct vcpu *c, struct window_space *s);
/* Dooms the page at gva, and doubts all that may be of the same large page. */
void window_space_doom(struct windows *w, struct window_space *s, u64 gva);

/* The reservation for gva, made or taken from another space if need be; NULL: there is none to be had. */
struct window_slot *window_slot_for(struct vcpu *c, struct window_space *s, u64 gva);

/* What the table has for a slot that the space does not use. */
u64 window_empty_entry(const struct windows *w, u64 number);
static inline u64 window_entry(const struct window_slot *t)
{
    return (u64)t->start - ((u64)t->number << WINDOW_SHIFT);
}

#endif
