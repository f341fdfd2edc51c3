/* The pages in windows: mapping them after a fault, with their neighbours, and taking them away. See window_map.h.
 *
 * A call of mmap() costs some microseconds whatever it maps, so a fill looks at the 64 pages around the one that was touched and
 * maps those that are ready too, merged where they are neighbours in guest RAM. Which pages are mapped is kept by chunks of 64;
 * where a page of guest RAM is mapped for writing, by page, for when decoded code appears in it. */
#include "cpu/window_map.h"

#include <sys/mman.h>

#include "cpu/xstate.h"

#define SIGNAL_COST 7000 /* cycles */

/* No page here is mapped: operands of 32-bit code that reach behind 4 GiB wrap around. */
#define BEHIND_4G GIB(4)

/* What `writer` has for a page: 0, nowhere; chunk and page; WRITER_SEVERAL. It may be out of date, but never misses one. */
#define WRITER_SEVERAL (~0u)

static struct window_chunk *writer_chunk(const struct windows *w, u32 at)
{
    return &w->chunk[at / WINDOW_CHUNK_PAGES];
}

static bool writer_holds(const struct windows *w, u32 at)
{
    return at == WRITER_SEVERAL || (at && writer_chunk(w, at)->writable >> at % WINDOW_CHUNK_PAGES & 1);
}

static void writer_note(struct windows *w, u64 page, const struct window_chunk *k, int n)
{
    u32 at = (u32)(k - w->chunk) * WINDOW_CHUNK_PAGES + (u32)n;

    w->writer[page] = w->writer[page] != at && writer_holds(w, w->writer[page]) ? WRITER_SEVERAL : at;
}

/* ---- chunks ---- */

static u16 *hash_head(struct windows *w, u8 space, u64 gva)
{
    u64 h = gva / WINDOW_CHUNK_SIZE;

    return &w->hash[(h ^ h >> 11 ^ space * 0x9dull) % WINDOW_HASH];
}

static u8 space_index(const struct windows *w, const struct window_space *s)
{
    return (u8)(s - w->space);
}

static struct window_chunk *chunk_find(struct windows *w, const struct window_space *s, u64 gva)
{
    u8 space = space_index(w, s);

    gva &= ~(WINDOW_CHUNK_SIZE - 1);
    for (u16 n = *hash_head(w, space, gva); n; n = w->chunk[n].next)
        if (w->chunk[n].gva == gva && w->chunk[n].space == space)
            return &w->chunk[n];
    return NULL;
}

static u16 chunk_take(struct windows *w)
{
    u16 n = w->free_chunk;

    if (n)
        w->free_chunk = w->chunk[n].next;
    else if (w->chunks < WINDOW_CHUNKS)
        n = (u16)w->chunks++;
    return n;
}

/* The chunk of gva, made if need be; NULL: there is no room. */
static struct window_chunk *chunk_for(struct windows *w, struct window_space *s, u64 gva)
{
    struct window_chunk *k = chunk_find(w, s, gva);
    u16 n, *head;

    if (k)
        return k;
    n = chunk_take(w);
    if (!n)
        return NULL;
    k = &w->chunk[n];
    gva &= ~(WINDOW_CHUNK_SIZE - 1);
    head = hash_head(w, space_index(w, s), gva);
    *k = (struct window_chunk){.gva = gva, .space = space_index(w, s), .next = *head, .next_of_space = s->chunks};
    *head = n;
    s->chunks = n;
    return k;
}

static void chunk_free(struct windows *w, u16 n)
{
    struct window_chunk *k = &w->chunk[n];
    u16 *link = hash_head(w, k->space, k->gva);

    while (*link != n)
        link = &w->chunk[*link].next;
    *link = k->next;
    k->mapped = k->writable = k->doomed = 0;
    k->next = w->free_chunk;
    w->free_chunk = n;
}

/* ---- the host's mappings ---- */

static u8 *host_address(const struct window_space *s, u64 gva)
{
    for (int n = 0; n < s->slots; n++)
        if (s->slot[n]->number == gva >> WINDOW_SHIFT)
            return s->slot[n]->start + (gva & (WINDOW_SIZE - 1));
    return NULL;
}

static void unmap(u8 *at, u64 size)
{
    void *p = mmap(at, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);

    assert(p == at); /* what it replaces costs the host more */
}

void window_space_empty(struct windows *w, struct window_space *s)
{
    u64 since = window_clock();
    u16 next;

    for (int n = 0; s->maps && n < s->slots; n++)
        unmap(s->slot[n]->start, WINDOW_SIZE);
    for (u16 n = s->chunks; n; n = next) {
        next = w->chunk[n].next_of_space;
        chunk_free(w, n);
    }
    w->count.drops += !!s->maps;
    w->maps -= s->maps;
    s->maps = 0;
    s->chunks = 0;
    s->drop = s->large = false;
    s->dooms = 0;
    window_charge(s, since);
}

/* Calls unmap() for each run of doomed pages. */
static void chunk_settle(struct windows *w, struct window_space *s, struct window_chunk *k)
{
    u64 left = k->doomed & k->mapped;

    while (left) {
        int first = __builtin_ctzll(left);
        u64 others = ~(left >> first);
        int count = others ? __builtin_ctzll(others) : WINDOW_CHUNK_PAGES;

        unmap(host_address(s, k->gva) + (u64)first * PAGE_SIZE, (u64)count * PAGE_SIZE);
        left = first + count == 64 ? 0 : left >> (first + count) << (first + count);
        s->maps++; /* it may have split one */
        w->maps++;
        w->count.page_drops++;
    }
    k->mapped &= ~k->doomed;
    k->writable &= ~k->doomed;
    k->doomed = 0;
}

/* Dooms what the page tables no longer say. */
static void chunk_check(struct vcpu *c, struct window_chunk *k)
{
    struct mmu_page page[WINDOW_CHUNK_PAGES];

    if (!(k->mapped & ~k->doomed))
        return;
    mmu_peek(c, k->gva, WINDOW_CHUNK_PAGES, page);
    for (int n = 0; n < WINDOW_CHUNK_PAGES; n++)
        if (k->mapped >> n & 1 && (!page[n].hva || backing_page(vcpu_memory(c), page[n].hva) != k->backing[n] ||
                                   (k->writable >> n & 1 && !page[n].write)))
            k->doomed |= 1ull << n;
}

/* A guest that flushes all translations mostly keeps its page tables as they are: to look is much less work than to map again. */
static void space_check(struct vcpu *c, struct window_space *s)
{
    struct windows *w = c->windows;

    w->count.checks += !!s->chunks;
    for (u16 n = s->chunks; n; n = w->chunk[n].next_of_space) {
        chunk_check(c, &w->chunk[n]);
        chunk_settle(w, s, &w->chunk[n]);
    }
    s->drop = false;
    s->dooms = 0;
}

void window_space_settle(struct vcpu *c, struct window_space *s)
{
    struct windows *w = c->windows;
    u64 since = window_clock();

    if (s->drop)
        space_check(c, s);
    for (int n = 0; n < s->dooms; n++)
        chunk_settle(w, s, &w->chunk[s->doom[n]]);
    s->dooms = 0;
    window_charge(s, since);
}

static void chunk_doom(struct windows *w, struct window_space *s, struct window_chunk *k, u64 pages)
{
    pages &= k->mapped;
    if (!pages)
        return;
    if (!k->doomed) {
        if (s->dooms == WINDOW_DOOMED) {
            s->drop = true;
            return;
        }
        s->doom[s->dooms++] = (u16)(k - w->chunk);
    }
    k->doomed |= pages;
}

void window_space_doom(struct windows *w, struct window_space *s, u64 gva)
{
    struct window_chunk *k;

    if (!s->chunks || s->drop)
        return;
    if (s->large) { /* any address of a large page asks for all of it */
        s->drop = true;
        return;
    }
    k = chunk_find(w, s, gva);
    if (k)
        chunk_doom(w, s, k, 1ull << (gva / PAGE_SIZE % WINDOW_CHUNK_PAGES));
}

/* ---- filling ---- */

/* Neighbours to be mapped by one call. */
struct run {
    u8 *at;  /* in the window */
    u8 *hva; /* in the backing */
    u64 size;
    bool write;
};

static bool run_map(struct vcpu *c, struct window_space *s, const struct run *r)
{
    struct guest_memory *m = vcpu_memory(c);
    void *p;

    if (!r->size)
        return true;
    p = mmap(r->at, r->size, PROT_READ | (r->write ? PROT_WRITE : 0), MAP_SHARED | MAP_FIXED | MAP_POPULATE, m->fd,
             (off_t)(r->hva - m->backing));
    s->maps += 1;
    c->windows->maps += 1;
    c->windows->count.pages += r->size / PAGE_SIZE;
    return p == r->at;
}

/* Adds a page; false: the host has no room for mappings. */
static bool run_add(struct vcpu *c, struct window_space *s, struct run *r, u8 *at, const struct mmu_page *page)
{
    bool done = true;

    if (r->size && r->at + r->size == at && r->hva + r->size == page->hva && r->write == page->write) {
        r->size += PAGE_SIZE;
        return true;
    }
    if (r->size)
        done = run_map(c, s, r);
    *r = (struct run){.at = at, .hva = page->hva, .size = PAGE_SIZE, .write = page->write};
    return done;
}

static void page_note(struct vcpu *c, struct window_chunk *k, int n, const struct mmu_page *page)
{
    k->mapped |= 1ull << n;
    k->backing[n] = (u32)backing_page(vcpu_memory(c), page->hva);
    if (!page->write)
        return;
    k->writable |= 1ull << n;
    writer_note(c->windows, backing_page(vcpu_memory(c), page->hva), k, n);
}

/* Maps what of the chunk's pages is ready and not mapped yet, and page `wanted` in any case. */
static bool chunk_fill(struct vcpu *c, struct window_space *s, struct window_chunk *k, u8 *start, int wanted)
{
    struct mmu_page page[WINDOW_CHUNK_PAGES];
    struct run r = {.size = 0};
    bool done = true;

    mmu_peek(c, k->gva, WINDOW_CHUNK_PAGES, page);
    for (int n = 0; n < WINDOW_CHUNK_PAGES && done; n++) {
        if (!page[n].hva || (k->mapped >> n & 1 && n != wanted) || k->gva + (u64)n * PAGE_SIZE == BEHIND_4G)
            continue;
        done = run_add(c, s, &r, start + (u64)n * PAGE_SIZE, &page[n]);
        page_note(c, k, n, &page[n]);
        s->large |= page[n].large;
    }
    return done && run_map(c, s, &r);
}

static void all_empty(struct windows *w)
{
    for (int n = 0; n < WINDOW_SPACES; n++)
        window_space_empty(w, &w->space[n]);
}

static bool fits(struct vcpu *c, u64 gva, bool write)
{
    struct mmu_page page;

    if (gva >> 47 || (gva & PAGE_MASK) == BEHIND_4G)
        return false;
    mmu_peek(c, gva & PAGE_MASK, 1, &page);
    return page.hva && (page.write || !write);
}

static bool fill(struct vcpu *c, struct window_space *s, u64 gva, bool write)
{
    struct windows *w = c->windows;
    struct window_slot *t;
    struct window_chunk *k;

    if (!fits(c, gva, write))
        return false;
    ext_save(c);
    if (w->maps >= w->maps_max || (!w->free_chunk && w->chunks == WINDOW_CHUNKS))
        all_empty(w);
    t = window_slot_for(c, s, gva);
    k = t ? chunk_for(w, s, gva) : NULL;
    if (!k)
        return false;
    w->count.fills++;
    if (!chunk_fill(c, s, k, t->start + (k->gva & (WINDOW_SIZE - 1)), (int)(gva / PAGE_SIZE % WINDOW_CHUNK_PAGES))) {
        window_space_empty(w, s);
        s->debt = 1ll << 40; /* no more of it */
    }
    return true;
}

void window_signalled(struct vcpu *c)
{
    c->windows->count.faults++;
    if (c->windows->current)
        c->windows->current->debt += SIGNAL_COST;
}

bool window_fill(struct vcpu *c, u64 gva, bool write)
{
    struct window_space *s = c->windows->current;
    u64 since = window_clock();
    bool filled = fill(c, s, gva, write);

    window_charge(s, since);
    return filled;
}

/* ---- code ---- */

static void page_protect(struct windows *w, struct window_chunk *k, int n)
{
    struct window_space *s = &w->space[k->space];
    u8 *at = host_address(s, k->gva);

    if (mprotect(at + (u64)n * PAGE_SIZE, PAGE_SIZE, PROT_READ)) {
        window_space_empty(w, s);
        return;
    }
    k->writable &= ~(1ull << n);
    s->maps++;
    w->maps++;
}

void window_protect_code(struct vcpu *c, struct vcpu *self, const u8 *hva)
{
    struct windows *w = c->windows;
    u32 *writer, at;

    if (!w)
        return;
    writer = &w->writer[backing_page(vcpu_memory(c), hva)];
    at = *writer;
    *writer = 0;
    if (!writer_holds(w, at))
        return;
    ext_save(self);
    w->count.protects++;
    if (at != WRITER_SEVERAL) {
        page_protect(w, writer_chunk(w, at), (int)(at % WINDOW_CHUNK_PAGES));
        return;
    }
    all_empty(w);
}
