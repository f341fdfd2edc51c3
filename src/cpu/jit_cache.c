/* What a vCPU has translated: blocks by backing address, their slow-path sites and links, and the memory for all of it. When
 * one kind of memory is used up everything is forgotten and made again: what is hot is back soon.
 *
 * The code cache has two regions, so that what runs always is dense: hot code from its start, slow paths from its middle. */
#include "cpu/jit_cache.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "cpu/host_fault.h"
#include "cpu/jit.h"
#include "cpu/jit_crossing.h"
#include "cpu/jit_emit.h"
#include "cpu/jit_found.h"
#include "cpu/jit_jumps.h"
#include "cpu/jit_stress.h"
#include "cpu/window.h"

#define HOT_BLOCK_MAX (JIT_INSNS_MAX * 512) /* more than the instructions can need */
#define COLD_BLOCK_MAX (JIT_INSNS_MAX * 1024) /* slow paths that restore renamed registers, detours, side exits */
#define ARENA_BLOCK_MAX KIB(4)

/* What the cache begins with: Debian's login just fits, with room for the largest block. It doubles, up to GROWTH_MAX times that, when it is full of what has hardly run. */
#define HOT_SIZE (MIB(12) - KIB(32) + HOT_BLOCK_MAX)
#define COLD_SIZE (MIB(9) - KIB(64) + COLD_BLOCK_MAX)
#define ARENA_SIZE MIB(8)
#define SITES (199424u + JIT_STUBS_MAX + JIT_INSNS_MAX)
#define BLOCKS 80000u
#define CELLS 80000u
#define HASH_SIZE 262144u
#define GROWTH_MAX 4u
#define HARDLY 2000 /* instructions run for each that was translated */

/* ---- life ---- */

static void *lazy_memory(u64 size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

static void lazy_free(void *p, u64 size)
{
    if (p)
        munmap(p, size);
}

/* Gives back what is beyond the first of GROWTH_MAX equal parts, but for the page that the border is in. */
static void lazy_shrink(void *p, u64 size)
{
    u64 from = ALIGN_UP(size, PAGE_SIZE);

    madvise((u8 *)p + from, size * GROWTH_MAX - from, MADV_DONTNEED);
}

static void thunks_make(struct vcpu *c)
{
    struct jit *j = c->jit;
    struct x86_asm a = {.code = j->code->write, .size = KIB(2), .exec = j->code->exec};

    jit_thunks_emit(c, &a);
    j->hot_start = j->hot_used = (u32)ALIGN_UP(a.len, 64);
}

int jit_cache_create(struct vcpu *c, struct err *e)
{
    struct jit *j = calloc(1, sizeof(*j));
    int r;

    if (!j)
        return err_set(e, -ENOMEM, "vCPU %d: out of memory for translations", c->index);
    c->jit = j;
    j->growth = 1;
    j->arena = lazy_memory(ARENA_SIZE * GROWTH_MAX);
    j->site = lazy_memory(SITES * GROWTH_MAX * sizeof(*j->site));
    j->blocks = lazy_memory(BLOCKS * GROWTH_MAX * sizeof(*j->blocks));
    j->hash = lazy_memory(HASH_SIZE * GROWTH_MAX * sizeof(*j->hash));
    j->found = lazy_memory(JIT_FOUND_SIZE);
    j->emit = lazy_memory(sizeof(*j->emit));
    if (j->emit)
        j->emit->insn = lazy_memory(JIT_INSNS_MAX * sizeof(*j->emit->insn));
    if (!j->arena || !j->site || !j->blocks || !j->hash || !j->found || !j->emit || !j->emit->insn)
        return err_set(e, -ENOMEM, "vCPU %d: out of memory for translations", c->index);
    r = code_cache_create((HOT_SIZE + COLD_SIZE) * GROWTH_MAX, &j->code, e);
    if (r)
        return r;
    thunks_make(c);
    jit_cache_flush(c);
    return host_fault_translator(j->code->exec, j->code->size, e);
}

void jit_cache_free(struct vcpu *c)
{
    struct jit *j = c->jit;

    if (j->code)
        host_fault_unguard(j->code->exec);
    code_cache_free(j->code);
    if (j->emit)
        lazy_free(j->emit->insn, JIT_INSNS_MAX * sizeof(*j->emit->insn));
    lazy_free(j->emit, sizeof(*j->emit));
    lazy_free(j->found, JIT_FOUND_SIZE);
    lazy_free(j->hash, HASH_SIZE * GROWTH_MAX * sizeof(*j->hash));
    lazy_free(j->blocks, BLOCKS * GROWTH_MAX * sizeof(*j->blocks));
    lazy_free(j->site, SITES * GROWTH_MAX * sizeof(*j->site));
    lazy_free(j->arena, ARENA_SIZE * GROWTH_MAX);
    free(j);
    c->jit = NULL;
}

static void mark_fill(struct vcpu *c)
{
    c->jit->filled_retired = c->retired;
    c->jit->filled_insns = c->jit->insns;
}

static void shrink_all(struct jit *j)
{
    code_cache_release(j->code, HOT_SIZE, HOT_SIZE * (GROWTH_MAX - 1));
    code_cache_release(j->code, HOT_SIZE * GROWTH_MAX + COLD_SIZE, COLD_SIZE * (GROWTH_MAX - 1));
    lazy_shrink(j->arena, ARENA_SIZE);
    lazy_shrink(j->site, SITES * sizeof(*j->site));
    lazy_shrink(j->blocks, BLOCKS * sizeof(*j->blocks));
    lazy_shrink(j->hash, HASH_SIZE * sizeof(*j->hash));
    j->growth = 1;
}

static struct jit_block **hash_slot(const struct jit *j, const u8 *hva)
{
    u64 h = (u64)hva;

    return &j->hash[(u32)(h ^ h >> 16) & (HASH_SIZE * j->growth - 1)];
}

/* Where there are few blocks it is they that are taken out. */
static void hash_clear(struct jit *j)
{
    bool few = j->block_count < HASH_SIZE / 16;

    for (u32 n = 0; n < j->block_count && few; n++)
        *hash_slot(j, j->blocks[n]->hva) = NULL;
    for (u32 n = 0; n < HASH_SIZE * j->growth && !few; n++)
        __atomic_store_n(&j->hash[n], NULL, __ATOMIC_RELAXED); /* atomic: no memset, which uses vector registers */
}

void jit_cache_flush(struct vcpu *c)
{
    struct jit *j = c->jit;

    hash_clear(j);
    if (j->growth > 1)
        shrink_all(j);
    for (int n = 0; n < JIT_MISSES; n++)
        __atomic_store_n(&j->misses[n], 0, __ATOMIC_RELAXED);
    j->arena_used = 16; /* 0: no link */
    j->site_count = 1; /* 0: no site */
    j->block_count = j->cell_count = 0;
    j->hot_used = j->hot_start;
    j->cold_used = HOT_SIZE * GROWTH_MAX;
    j->epoch++; /* the heat too: or what did not fit would all come back at once */
    jit_found_flush(j);
    j->counters.flushes++;
    mark_fill(c);
}

/* ---- blocks ---- */

static void hash_insert(struct jit *j, struct jit_block *b)
{
    struct jit_block **slot = hash_slot(j, b->hva);

    b->next = *slot;
    *slot = b;
}

/* Its bytes were overwritten, and may be again: new code there has to prove its worth. */
static void block_stale(struct jit *j, struct jit_block **link)
{
    jit_heat_reset(j, (*link)->hva);
    *link = (*link)->next;
}

struct jit_block *jit_block_find(struct jit *j, const u8 *hva, u64 key)
{
    struct jit_block **link = hash_slot(j, hva);

    while (*link) {
        struct jit_block *b = *link;

        if (b->hva != hva || b->key != key)
            link = &b->next;
        else if (b->version != __atomic_load_n(b->version_now, __ATOMIC_RELAXED) || (b->crossing && jit_crossing_stale(b->crossing)))
            block_stale(j, link);
        else
            return b;
    }
    return NULL;
}

static bool room(const struct jit *j)
{
    u32 g = j->growth;

    return j->arena_used + ARENA_BLOCK_MAX <= ARENA_SIZE * g && j->site_count + JIT_STUBS_MAX + JIT_INSNS_MAX <= SITES * g &&
           j->block_count < BLOCKS * g && j->cell_count + ARRAY_SIZE(j->emit->exit) <= CELLS * g && j->hot_used + HOT_BLOCK_MAX <= HOT_SIZE * g &&
           j->cold_used + COLD_BLOCK_MAX <= HOT_SIZE * GROWTH_MAX + COLD_SIZE * g;
}

/* Whether forgetting would cost more than it is worth: what was translated since the cache grew or was emptied has hardly run. */
static bool grow_wanted(const struct vcpu *c)
{
    const struct jit *j = c->jit;

    return j->growth < GROWTH_MAX && c->retired - j->filled_retired < (j->insns - j->filled_insns) * HARDLY;
}

static void grow(struct vcpu *c)
{
    struct jit *j = c->jit;

    for (u32 n = 0; n < HASH_SIZE * j->growth; n++)
        __atomic_store_n(&j->hash[n], NULL, __ATOMIC_RELAXED);
    j->growth *= 2;
    for (u32 n = 0; n < j->block_count; n++)
        hash_insert(j, j->blocks[n]);
    mark_fill(c);
}

static void make_room(struct vcpu *c)
{
    if (jit_stressed(c, STRESS_EVICT) && c->jit->block_count >= JIT_STRESS_BLOCKS)
        jit_flush(c);
    if (room(c->jit))
        return;
    if (grow_wanted(c))
        grow(c);
    else
        jit_flush(c);
}

static void *arena_take(struct jit *j, u64 size)
{
    void *p = j->arena + j->arena_used;

    j->arena_used += ALIGN_UP(size, 16);
    assert(j->arena_used <= ARENA_SIZE * j->growth);
    return p;
}

struct jit_emit *jit_emit_begin(struct vcpu *c, u64 key)
{
    struct jit *j = c->jit;
    struct jit_emit *e = j->emit;

    make_room(c);
    e->c = c;
    e->j = j;
    e->b = arena_take(j, sizeof(*e->b));
    e->b->key = key;
    e->b->crossing = NULL;
    e->b->revised = false;
    e->b->used_up = 0;
    e->b->offset = NULL;
    e->b->first_site = j->site_count;
    e->b->hot = j->hot_used;
    e->hot = (struct x86_asm){.code = j->code->write + j->hot_used, .size = HOT_BLOCK_MAX, .exec = j->code->exec + j->hot_used};
    e->cold = (struct x86_asm){.code = j->code->write + j->cold_used, .size = COLD_BLOCK_MAX,
                               .exec = j->code->exec + j->cold_used};
    e->code_size = (int)(key & JIT_KEY_SIZE);
    e->windows = key & JIT_KEY_WINDOW;
    e->segmented = key & JIT_KEY_SEGMENTED;
    e->first = key >> JIT_KEY_BEFORE_SHIFT & ~PAGE_MASK;
    e->end = PAGE_SIZE - (key >> JIT_KEY_BEHIND_SHIFT & ~PAGE_MASK);
    e->stubs = e->exits = e->detours = 0;
    e->share.last = NULL;
    e->in_detour = false;
    rename_none(e);
    e->x87_offset = -1;
    e->given_back = false;
    e->stack_checks = 0;
    return e;
}

void jit_emit_cancel(struct jit_emit *e)
{
    e->j->arena_used = (u64)((u8 *)e->b - e->j->arena);
}

struct jit_block *jit_emit_end(struct jit *j, struct jit_emit *e)
{
    struct jit_block *b = e->b;
    u32 hot = j->hot_used, cold = j->cold_used;

    b->sites = j->site_count - b->first_site;
    j->hot_used = (u32)ALIGN_UP(j->hot_used + e->hot.len, 16);
    j->cold_used += e->cold.len;
    code_cache_written(j->code, hot, j->hot_used);
    code_cache_written(j->code, cold, j->cold_used);
    hash_insert(j, b);
    j->blocks[j->block_count++] = b;
    j->insns += b->insns;
    jit_count_block(&j->counters, e);
    return b;
}

static s16 paid_behind(const struct jit_emit *e, const struct jit_insn *i)
{
    if (e->given_back)
        return 0;
    return (s16)(e->pays && i < e->pays ? e->insn - i - 1 : e->insn + e->count - i - 1);
}

struct jit_stub *jit_stub_new(struct jit_emit *e)
{
    assert(e->stubs < JIT_STUBS_MAX);
    return &e->stub[e->stubs++];
}

u32 jit_site_new(struct jit_emit *e, const struct jit_insn *i, enum jit_site_kind kind)
{
    struct jit *j = e->j;

    j->site[j->site_count] = (struct jit_site){.block = jit_block_number(j, e->b), .offset = i->offset, .kind = (u8)kind,
                                               .hot = e->b->hot + e->hot.len, .paid = paid_behind(e, i),
                                               .ext = e->b->ext, .windows = e->windows};
    return j->site_count++;
}

struct jit_site *jit_site_at(struct jit *j, u32 n)
{
    return &j->site[n];
}

void jit_site_ends(struct jit_emit *e, struct jit_site *s)
{
    s->hot_len = (u16)(e->b->hot + e->hot.len - s->hot);
}

void jit_site_done(struct jit_emit *e, struct jit_site *s)
{
    s->resume = jit_code_offset(e->j, asm_here(&e->hot));
    s->hot_len = (u16)(e->b->hot + e->hot.len - s->hot);
}

u32 jit_code_offset(const struct jit *j, const u8 *exec)
{
    return (u32)(exec - j->code->exec);
}

u32 jit_block_number(const struct jit *j, const struct jit_block *b)
{
    return (u32)((const u8 *)b - j->arena);
}

struct jit_block *jit_block_at(struct jit *j, u32 n)
{
    return (struct jit_block *)(j->arena + n);
}

struct jit_crossing *jit_crossing_new(struct jit *j)
{
    return arena_take(j, sizeof(struct jit_crossing));
}

struct jit_cell *jit_cell_new(struct vcpu *c)
{
    struct jit_cell *cell = &c->cells[c->jit->cell_count++];

    static_assert(CELLS * GROWTH_MAX <= JIT_CELLS, "");
    cell->place = JIT_NO_PLACE;
    return cell;
}

u16 *jit_offsets_new(struct jit *j, int count)
{
    return arena_take(j, (u64)count * sizeof(u16));
}

struct jit_link *jit_link_at(struct jit *j, u32 n)
{
    return (struct jit_link *)(j->arena + n);
}

u32 jit_link_new(struct jit *j, const struct jit_link *l)
{
    struct jit_link *ret = arena_take(j, sizeof(*l));

    *ret = *l;
    return (u32)((u8 *)ret - j->arena);
}

/* ---- faults of the host in translated code ---- */

static struct jit_block *block_by_code(const struct jit *j, u32 hot)
{
    u32 low = 0, high = j->block_count;

    while (low < high) {
        u32 middle = (low + high) / 2;

        if (j->blocks[middle]->hot <= hot)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? j->blocks[low - 1] : NULL;
}

/* Whether a page fault is one that windows explain; and notes it. */
static bool window_fault(struct vcpu *c, const struct jit_block *b, const struct jit_fault *f)
{
    if (f->trap != EXC_PF)
        c->window_fault = b->key & JIT_KEY_WINDOW && (f->trap == EXC_GP || f->trap == EXC_SS) ? WINDOW_FAULT_OTHER : 0;
    else if (b->key & JIT_KEY_WINDOW && window_covers(c, f->address))
        c->window_fault = f->error & 2 ? WINDOW_FAULT_WRITE : WINDOW_FAULT_READ;
    else
        return false;
    c->window_fault_offset = (u16)(f->address & ~PAGE_MASK);
    return true;
}

const u8 *jit_fault(const struct jit_fault *f)
{
    struct vcpu *c = (struct vcpu *)(f->frame - VCPU_POINT);
    u32 hot = (u32)(f->pc - c->jit->code->exec);
    struct jit_block *b = block_by_code(c->jit, hot);

    if (!b || !window_fault(c, b, f))
        return NULL;
    for (u32 n = b->first_site; n < b->first_site + b->sites; n++) {
        const struct jit_site *s = &c->jit->site[n];

        if (hot >= s->hot && hot < s->hot + s->hot_len)
            return c->jit->code->exec + s->stub;
    }
    return NULL;
}
