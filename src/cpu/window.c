/* Windows on guest address spaces: which spaces have them, when the table changes, what they may cost. See window.h; the pages
 * are window_map.c's business.
 *
 * A space is what CR3 points at, with its PCID. It gets windows when it has run for a while, and loses them when making
 * mappings takes too much of its time: debt grows by what each costs, and shrinks with the instructions that ran. */
#include "cpu/window_map.h"

#include <errno.h>
#include <asm/hwcap2.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include "base/trace.h"
#include "cpu/lockstep.h"
#include "cpu/xstate.h"

#define CR3_ROOT 0x000ffffffffff000ull

#define PROMOTE_HEAT 8000000ull /* instructions */
#define DEMOTIONS_MAX 6          /* each doubles the heat that is asked for, up to 2^6 times */
#define DEBT_MAX 25000000        /* some 10 ms */
#define ALLOWED_PERCENT 15       /* of the time … */
#define CYCLES_PER_INSN 2        /* … which instructions take, in cycles of the host's TSC */
#define ROOM_FOR_ALL (1ull << 46) /* bytes of address space for all vCPUs' reservations */
#define MAPS_FOR_ALL 24000       /* mappings; each may split what is around it. Linux allows a process 65530 */
#define TOP ((1ull << 47) - MIB(64)) /* reservations end below: see window.h, and the page for vsyscall at the top of 2^64 */

#define NO_STACK 1 /* no entry of the table is */

#ifdef VECTORS_SAVED_EARLY /* a sanitizer: it has a shadow for all that is mapped */
#define HOST_HAS_ROOM false
#else
#define HOST_HAS_ROOM true
#endif

/* ---- life ---- */

/* Of RDGSBASE and WRGSBASE, from Linux 5.9 on. */
static bool host_lends_gs(void)
{
    return getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE;
}

static u64 reservation_size(void)
{
    return WINDOW_SIZE + 2 * WINDOW_GUARD;
}

static u8 *reserve(void)
{
    u8 *p = mmap(NULL, reservation_size(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return NULL;
    if ((u64)p + reservation_size() > TOP) {
        munmap(p, reservation_size());
        return NULL;
    }
    madvise(p, reservation_size(), MADV_DONTDUMP);
    return p + WINDOW_GUARD;
}

static void unreserve(u8 *start)
{
    if (start)
        munmap(start - WINDOW_GUARD, reservation_size());
}

static void *lazy_memory(u64 size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

u64 window_empty_entry(const struct windows *w, u64 number)
{
    return (u64)w->empty - (number << WINDOW_SHIFT);
}

int window_create(struct vcpu *c, struct err *e)
{
    struct windows *w;

    if (!HOST_HAS_ROOM || !host_lends_gs() || c->group->config.windows == CPU_WINDOWS_OFF)
        return 0;
    w = calloc(1, sizeof(*w));
    if (!w)
        return err_set(e, -ENOMEM, "vCPU %d: out of memory for windows", c->index);
    c->windows = w;
    w->always = c->group->config.windows == CPU_WINDOWS_ALWAYS;
    w->backing_pages = vcpu_memory(c)->backing_size >> PAGE_SHIFT;
    w->slots_max = (int)MIN(ROOM_FOR_ALL / reservation_size() / (u64)c->group->config.count, WINDOW_RESERVATIONS);
    w->maps_max = MAPS_FOR_ALL / (u32)c->group->config.count;
    w->chunks = 1;
    for (int n = 0; n < WINDOW_SPACES; n++)
        w->space[n].cr3 = WINDOW_NO_CR3;
    w->chunk = lazy_memory(WINDOW_CHUNKS * sizeof(*w->chunk));
    w->writer = lazy_memory(w->backing_pages * sizeof(*w->writer));
    w->empty = reserve();
    if (!w->chunk || !w->writer || !w->empty) {
        trace(JIT, "vcpu %d: no windows: the host has no room for them", c->index);
        window_free(c);
        return 0;
    }
    for (u64 n = 0; n < ARRAY_SIZE(c->window_table); n++)
        c->window_table[n] = window_empty_entry(w, n);
    c->window_state = WINDOW_UNKNOWN;
    return 0;
}

static void counters_trace(const struct vcpu *c)
{
    const struct windows *w = c->windows;

    trace(JIT, "vcpu %d: windows: %llu promotions, %llu demotions, %llu faults, %llu fills, %llu pages", c->index,
          (unsigned long long)w->count.promotions, (unsigned long long)w->count.demotions,
          (unsigned long long)w->count.faults, (unsigned long long)w->count.fills, (unsigned long long)w->count.pages);
    trace(JIT, "vcpu %d: windows: %llu of the fills when the guest came back from a page fault", c->index,
          (unsigned long long)w->count.answers);
    trace(JIT, "vcpu %d: windows: %llu spaces looked through, %llu emptied, %llu drops of pages, %llu protections for code", c->index,
          (unsigned long long)w->count.checks, (unsigned long long)w->count.drops, (unsigned long long)w->count.page_drops,
          (unsigned long long)w->count.protects);
}

void window_free(struct vcpu *c)
{
    struct windows *w = c->windows;

    if (!w)
        return;
    counters_trace(c);
    for (int n = 0; n < WINDOW_RESERVATIONS; n++)
        unreserve(w->slot[n].start);
    unreserve(w->empty);
    if (w->chunk)
        munmap(w->chunk, WINDOW_CHUNKS * sizeof(*w->chunk));
    if (w->writer)
        munmap(w->writer, w->backing_pages * sizeof(*w->writer));
    free(w);
    c->windows = NULL;
    c->window_state = WINDOW_OFF;
}

bool window_covers(const struct vcpu *c, u64 host)
{
    const struct windows *w = c->windows;
    u64 size = reservation_size();

    if (!w)
        return false;
    for (int n = 0; n < w->slots_max; n++)
        if (w->slot[n].start && host - ((u64)w->slot[n].start - WINDOW_GUARD) < size)
            return true;
    return host - ((u64)w->empty - WINDOW_GUARD) < size || host >= 1ull << 47;
}

/* ---- slots ---- */

static void slot_take(struct vcpu *c, struct window_space *s, struct window_slot *t, u64 number)
{
    t->space = s;
    t->number = (u32)number;
    s->slot[s->slots++] = t;
    c->window_table[number] = window_entry(t);
}

/* Gives a space's reservations back, empty. */
static void space_release(struct windows *w, struct window_space *s)
{
    window_space_empty(w, s);
    for (int n = 0; n < s->slots; n++)
        s->slot[n]->space = NULL;
    s->slots = 0;
}

static struct window_slot *slot_free(struct windows *w)
{
    for (int n = 0; n < w->slots_max; n++) {
        struct window_slot *t = &w->slot[n];

        if (t->start && !t->space)
            return t;
        if (!t->start)
            return (t->start = reserve()) ? t : NULL;
    }
    return NULL;
}

static struct window_space *oldest_with_slots(struct windows *w)
{
    struct window_space *oldest = NULL;

    for (int n = 0; n < WINDOW_SPACES; n++) {
        struct window_space *s = &w->space[n];

        if (s->slots && s != w->current && (!oldest || s->used < oldest->used))
            oldest = s;
    }
    return oldest;
}

struct window_slot *window_slot_for(struct vcpu *c, struct window_space *s, u64 gva)
{
    struct windows *w = c->windows;
    u64 number = gva >> WINDOW_SHIFT;
    struct window_slot *t;
    struct window_space *other;

    for (int n = 0; n < s->slots; n++)
        if (s->slot[n]->number == number)
            return s->slot[n];
    if (s->slots == WINDOW_SPACE_SLOTS)
        return NULL;
    t = slot_free(w);
    if (!t && (other = oldest_with_slots(w))) {
        space_release(w, other);
        t = slot_free(w);
    }
    if (t)
        slot_take(c, s, t, number);
    return t;
}

/* ---- spaces ---- */

static u64 current_cr3(const struct vcpu *c)
{
    return (c->s.cr3 & CR3_ROOT) | (c->s.cr4 & CR4_PCIDE ? c->s.cr3 & CR3_PCID : 0);
}

static void table_show(struct vcpu *c, struct window_space *s)
{
    struct windows *w = c->windows;

    if (w->current == s)
        return;
    for (int n = 0; w->current && n < w->current->slots; n++) {
        u32 number = w->current->slot[n]->number;

        c->window_table[number] = window_empty_entry(w, number);
    }
    w->current = s;
    for (int n = 0; s && n < s->slots; n++)
        c->window_table[s->slot[n]->number] = window_entry(s->slot[n]);
}

/* The record of an address space; the one not used for longest becomes that of a new one. */
static struct window_space *space_for(struct vcpu *c, u64 cr3)
{
    struct windows *w = c->windows;
    struct window_space *oldest = &w->space[0];

    for (int n = 0; n < WINDOW_SPACES; n++) {
        struct window_space *s = &w->space[n];

        if (s->cr3 == cr3)
            return s;
        if (s->used < oldest->used)
            oldest = s;
    }
    if (oldest == w->current)
        table_show(c, NULL);
    if (oldest->slots)
        ext_save(c);
    space_release(w, oldest);
    *oldest = (struct window_space){.cr3 = cr3, .promoted = w->always};
    w->count.promotions += w->always;
    return oldest;
}

bool window_enter(struct vcpu *c)
{
    struct windows *w = c->windows;
    struct window_space *s;

    c->window_state = WINDOW_OFF;
    if (!w || !(c->s.cr0 & CR0_PG))
        return false;
    s = space_for(c, current_cr3(c));
    s->used = ++w->clock;
    if (!s->promoted)
        return false;
    if (s->drop || s->dooms) {
        ext_save(c);
        window_space_settle(c, s);
    }
    table_show(c, s);
    c->window_state = WINDOW_ON;
    return true;
}

static void promote(struct vcpu *c, struct window_space *s)
{
    s->promoted = true;
    s->debt = 0;
    c->windows->count.promotions++;
    c->window_state = WINDOW_UNKNOWN;
}

static void demote(struct vcpu *c, struct window_space *s)
{
    if (s == c->windows->current)
        table_show(c, NULL);
    if (s->slots)
        ext_save(c);
    space_release(c->windows, s);
    s->promoted = false;
    s->heat = 0;
    s->demotions += s->demotions < DEMOTIONS_MAX;
    c->windows->count.demotions++;
    c->window_state = WINDOW_UNKNOWN;
}

void window_heat(struct vcpu *c, u64 instructions)
{
    struct windows *w = c->windows;
    struct window_space *s;

    if (!w || w->always || c->mmu_index != MMU_USER || !(c->s.cr0 & CR0_PG))
        return;
    s = space_for(c, current_cr3(c));
    s->heat += instructions;
    s->debt = MAX(s->debt - (s64)instructions * CYCLES_PER_INSN * ALLOWED_PERCENT / 100, 0);
    if (!s->promoted && s->heat >= PROMOTE_HEAT << s->demotions)
        promote(c, s);
    else if (s->promoted && s->debt > DEBT_MAX)
        demote(c, s);
}

/* ---- the stack ---- */

static void gs_base_load(struct vcpu *c, u64 base)
{
    c->window_stack = base;
    __asm__ volatile("wrgsbase %0" : : "r"(base));
}

static u64 entry_of(const struct vcpu *c, u64 gva)
{
    return c->window_table[gva >> WINDOW_SHIFT & (ARRAY_SIZE(c->window_table) - 1)];
}

static u64 stack_entry(const struct vcpu *c)
{
    return entry_of(c, code64(c) ? c->s.gpr[RSP] : 0);
}

static bool for_windows(const struct vcpu *c)
{
    return c->window_state == WINDOW_ON && c->mmu_index == MMU_USER;
}

void window_stack_load(struct vcpu *c)
{
    if (for_windows(c))
        gs_base_load(c, stack_entry(c));
    else
        c->window_stack = NO_STACK;
}

void window_stack_settle(struct vcpu *c)
{
    if (for_windows(c) && c->window_stack != stack_entry(c))
        gs_base_load(c, stack_entry(c));
}

bool window_stack_holds(const struct vcpu *c)
{
    u64 sp = c->s.gpr[RSP], base = c->window_stack;

    return base == stack_entry(c) || (code64(c) && (base == entry_of(c, sp - WINDOW_WALK) || base == entry_of(c, sp + WINDOW_WALK)));
}

/* ---- page faults of the guest's ---- */

#define MISSED 1 /* in window_missed, beside the page */
#define MISSED_WRITE 2

void window_miss(struct vcpu *c, u64 gva, bool write)
{
    if (for_windows(c) && !trial_running(c))
        c->window_missed = (gva & PAGE_MASK) | MISSED | (write ? MISSED_WRITE : 0);
}

void window_answer_slow(struct vcpu *c)
{
    u64 missed = c->window_missed;

    if (!for_windows(c))
        return;
    c->window_missed = 0;
    c->windows->count.answers += window_fill(c, missed & PAGE_MASK, missed & MISSED_WRITE);
}

/* ---- dropping ---- */

static void unknown(struct vcpu *c)
{
    if (c->window_state == WINDOW_ON)
        c->window_state = WINDOW_UNKNOWN;
}

/* Not for the trial's own TLB, which is flushed for every block. */
static bool has_windows(const struct vcpu *c)
{
    return c->windows && !trial_running(c);
}

void window_drop_all(struct vcpu *c)
{
    if (!has_windows(c))
        return;
    for (int n = 0; n < WINDOW_SPACES; n++)
        c->windows->space[n].drop = true;
    c->window_state = WINDOW_UNKNOWN; /* it may be the mode that changed */
}

void window_drop_pcid(struct vcpu *c, u32 pcid)
{
    if (!has_windows(c))
        return;
    for (int n = 0; n < WINDOW_SPACES; n++)
        if ((c->windows->space[n].cr3 & CR3_PCID) == pcid)
            c->windows->space[n].drop = true;
    unknown(c);
}

void window_drop_page(struct vcpu *c, u32 pcid, u64 gva)
{
    if (!has_windows(c) || gva >> 47)
        return;
    for (int n = 0; n < WINDOW_SPACES; n++)
        if ((c->windows->space[n].cr3 & CR3_PCID) == pcid)
            window_space_doom(c->windows, &c->windows->space[n], gva);
    unknown(c);
}

void window_cr3_loaded(struct vcpu *c, bool keep)
{
    if (!has_windows(c))
        return;
    if (!keep)
        window_drop_pcid(c, c->s.cr4 & CR4_PCIDE ? (u32)(c->s.cr3 & CR3_PCID) : 0);
    c->window_state = WINDOW_UNKNOWN;
}
