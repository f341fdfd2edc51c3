/* The pages in windows: mapping them after a fault, with their neighbours, and taking them away. See window_map.h.
 *
 * A call of mmap() costs some microseconds whatever it maps, so a fill looks at the 64 pages around the one that was touched, or
 * the 2 MiB around a piece of a large page, and maps those that are ready too, merged where they are neighbours in guest RAM.
 * Which pages are mapped is kept by chunks of 64; where a page of guest RAM is mapped for writing, by page, for when decoded
 * code appears in it. */
#include "cpu/window_map.h"

#include <sys/mman.h>

#include "cpu/xstate.h"

#define SIGNAL_COST 7000 /* cycles */

/* No page here is mapped: operands of 32-bit code that reach behind 4 GiB wrap around. */
#define BEHIND_4G GIB(4)

/* What is looked at around a page that is a piece of a large one. */
#define LARGE_SHIFT 21
#define LARGE_SIZE (1ull << LARGE_SHIFT)

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

    if (!n) {
        assert(w->chunks < WINDOW_CHUNKS);
        return (u16)w->chunks++;
    }
    w->free_chunk = w->chunk[n].next;
    w->free_chunks--;
    return n;
}

/* The chunk of gva, made if need be: has_room() said that there are some. */
static struct window_chunk *chunk_for(struct windows *w, struct window_space *s, u64 gva)
{
    struct window_chunk *k = chunk_find(w, s, gva);
    u16 n, *head;

    if (k)
        return k;
    n = chunk_take(w);
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
    w->free_chunks++;
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
    s->drop = s->large = s->giant = false;
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
    k->doubtful = false;
}

static void size_note(struct window_space *s, struct window_chunk *k, const struct mmu_page *page)
{
    k->large |= page->shift > PAGE_SHIFT;
    s->large |= page->shift > PAGE_SHIFT;
    s->giant |= page->shift > LARGE_SHIFT;
}

static bool page_holds(struct vcpu *c, const struct window_chunk *k, int n, const struct mmu_page *page)
{
    return page->hva && backing_page(vcpu_memory(c), page->hva) == k->backing[n] && (page->write || !(k->writable >> n & 1));
}

/* Dooms what the page tables no longer say. */
static void chunk_check(struct vcpu *c, struct window_space *s, struct window_chunk *k)
{
    struct mmu_page page[WINDOW_CHUNK_PAGES];

    if (!(k->mapped & ~k->doomed))
        return;
    mmu_peek(c, k->gva, WINDOW_CHUNK_PAGES, page);
    for (int n = 0; n < WINDOW_CHUNK_PAGES; n++)
        if (k->mapped >> n & 1 && page_holds(c, k, n, &page[n]))
            size_note(s, k, &page[n]);
        else if (k->mapped >> n & 1)
            k->doomed |= 1ull << n;
}

/* A guest that flushes all translations mostly keeps its page tables as they are: to look is much less work than to map again. */
static void space_check(struct vcpu *c, struct window_space *s)
{
    struct windows *w = c->windows;

    w->count.checks += !!s->chunks;
    for (u16 n = s->chunks; n; n = w->chunk[n].next_of_space) {
        chunk_check(c, s, &w->chunk[n]);
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
    for (int n = 0; n < s->dooms; n++) {
        struct window_chunk *k = &w->chunk[s->doom[n]];

        if (k->doubtful)
            chunk_check(c, s, k);
        chunk_settle(w, s, k);
    }
    s->dooms = 0;
    window_charge(s, since);
}

/* False: the list is full. */
static bool doom_list(struct windows *w, struct window_space *s, const struct window_chunk *k)
{
    if (k->doomed || k->doubtful)
        return true;
    if (s->dooms == WINDOW_DOOMED) {
        s->drop = true;
        return false;
    }
    s->doom[s->dooms++] = (u16)(k - w->chunk);
    return true;
}

static void page_doom(struct windows *w, struct window_space *s, u64 gva)
{
    struct window_chunk *k = chunk_find(w, s, gva);
    u64 page = 1ull << (gva / PAGE_SIZE % WINDOW_CHUNK_PAGES);

    if (k && k->mapped & page && !k->large && doom_list(w, s, k))
        k->doomed |= page;
}

static void large_doubt(struct windows *w, struct window_space *s, u64 gva)
{
    gva &= ~(LARGE_SIZE - 1);
    for (u64 at = gva; at < gva + LARGE_SIZE; at += WINDOW_CHUNK_SIZE) {
        struct window_chunk *k = chunk_find(w, s, at);

        if (k && k->large && k->mapped && doom_list(w, s, k))
            k->doubtful = true;
    }
}

void window_space_doom(struct windows *w, struct window_space *s, u64 gva)
{
    if (!s->chunks || s->drop)
        return;
    if (s->giant) { /* any address of a large page asks for all of it */
        s->drop = true;
        return;
    }
    if (s->large)
        large_doubt(w, s, gva);
    page_doom(w, s, gva);
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
    p = mmap(r->at, r->size, PROT_READ | (r->write ? PROT_WRITE : 0),
             MAP_SHARED | MAP_FIXED | (r->size <= WINDOW_CHUNK_SIZE ? MAP_POPULATE : 0), m->fd, (off_t)(r->hva - m->backing));
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

/* Maps what of the chunk's pages is ready and not mapped yet, and page `wanted` in any case. What may go on in the next chunk is
 * left in `r`. */
static bool chunk_fill(struct vcpu *c, struct window_space *s, struct window_chunk *k, u8 *start, int wanted, struct run *r)
{
    struct mmu_page page[WINDOW_CHUNK_PAGES];
    bool done = true;

    mmu_peek(c, k->gva, WINDOW_CHUNK_PAGES, page);
    for (int n = 0; n < WINDOW_CHUNK_PAGES && done; n++) {
        if (!page[n].hva || (k->mapped >> n & 1 && n != wanted) || k->gva + (u64)n * PAGE_SIZE == BEHIND_4G)
            continue;
        done = run_add(c, s, r, start + (u64)n * PAGE_SIZE, &page[n]);
        page_note(c, k, n, &page[n]);
        size_note(s, k, &page[n]);
    }
    return done;
}

/* Fills the chunk of gva; if it is a piece of a large page, all chunks of that, or of its 2 MiB. */
static bool chunks_fill(struct vcpu *c, struct window_space *s, struct window_slot *t, u64 gva, bool large)
{
    u64 from = gva & ~((large ? LARGE_SIZE : WINDOW_CHUNK_SIZE) - 1), end = from + (large ? LARGE_SIZE : WINDOW_CHUNK_SIZE);
    struct run r = {.size = 0};
    bool done = true;

    for (u64 at = from; at < end && done; at += WINDOW_CHUNK_SIZE) {
        int wanted = gva - at < WINDOW_CHUNK_SIZE ? (int)((gva - at) / PAGE_SIZE) : -1;

        done = chunk_fill(c, s, chunk_for(c->windows, s, at), t->start + (at & (WINDOW_SIZE - 1)), wanted, &r);
    }
    return done && run_map(c, s, &r);
}

static void all_empty(struct windows *w)
{
    for (int n = 0; n < WINDOW_SPACES; n++)
        window_space_empty(w, &w->space[n]);
}

/* Whether the page may be mapped, for writing if asked. */
static bool fits(struct vcpu *c, u64 gva, bool write, bool *large)
{
    struct mmu_page page;

    if (gva >> 47 || (gva & PAGE_MASK) == BEHIND_4G)
        return false;
    mmu_peek(c, gva & PAGE_MASK, 1, &page);
    *large = page.shift > PAGE_SHIFT;
    return page.hva && (page.write || !write);
}

static bool has_room(const struct windows *w)
{
    return w->maps < w->maps_max && w->chunks - w->free_chunks + LARGE_SIZE / WINDOW_CHUNK_SIZE <= WINDOW_CHUNKS;
}

static bool fill(struct vcpu *c, struct window_space *s, u64 gva, bool write)
{
    struct windows *w = c->windows;
    struct window_slot *t;
    bool large;

    if (!fits(c, gva, write, &large))
        return false;
    ext_save(c);
    if (!has_room(w))
        all_empty(w);
    t = window_slot_for(c, s, gva);
    if (!t)
        return false;
    w->count.fills++;
    if (!chunks_fill(c, s, t, gva, large)) {
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
