/* The interpreter: blocks of decoded instructions, cached by where their bytes are in guest RAM, and the loop that runs them.
 *
 * A block is a run of instructions within one page that ends at the first one that changes RIP or the mode. It remembers the
 * version of its page (see mem/guest_memory.h): a write into decoded code raises the version, and the block is decoded anew
 * at its next use. Blocks are found by linear address in a direct-mapped table whose entries hold only for one TLB
 * generation, then by backing address in a hash table. An instruction that crosses a page is decoded for each execution.
 *
 * Faults come back to the run loop by __builtin_longjmp, with RIP put back to the start of the instruction. */
#include "cpu/interp.h"

#include <errno.h>
#include <sys/mman.h>

#include "cpu/access.h"
#include "cpu/debug_points.h"
#include "cpu/decode.h"
#include "cpu/decode_cache.h"
#include "cpu/dump.h"
#include "cpu/engine.h"
#include "cpu/event.h"
#include "cpu/insn_trace.h"
#include "cpu/vector.h"
#include "cpu/window.h"
#include "cpu/world.h"
#include "cpu/xstate.h"

#define BLOCK_INSNS_MAX 64
#define ARENA_SIZE MIB(6)
#define HASH_SIZE 16384
#define QUICK_SIZE 8192
#define CROSSINGS 512

struct block {
    const u8 *hva;   /* of the first byte, in the backing */
    const u32 *version_now;
    u32 version;
    u16 bytes;
    u8 code_size;
    struct block *next; /* in the hash chain */
    const struct insn *end;
    struct insn insn[];
};

struct quick {
    u64 lin, key; /* linear address; vcpu.fetch_key */
    struct block *block;
};

struct interp {
    u8 *arena;
    u64 arena_used;
    struct block *hash[HASH_SIZE];
    struct quick quick[QUICK_SIZE];
    struct insn crossing; /* the page-crossing instruction under way */
    struct crossing {     /* those decoded before, by linear address; right while their bytes are the same */
        u64 lin;
        u8 code_size, len; /* 0: none */
        u8 bytes[15];
        struct insn insn;
    } crossings[CROSSINGS];
    bool single;          /* blocks are decoded with one instruction: while every instruction is stepped */
    bool uncached;        /* interp_step_uncached: `crossing` for every instruction */
};

int interp_create(struct vcpu *c, struct err *e)
{
    void *p = mmap(NULL, sizeof(struct interp) + ARENA_SIZE, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    c->interp = p == MAP_FAILED ? NULL : p;
    c->decoded = decode_cache_create();
    if (!c->interp || !c->decoded)
        return err_set(e, -ENOMEM, "vCPU %d: out of memory", c->index);
    decode_setup();
    c->interp->arena = (u8 *)p + ALIGN_UP(sizeof(struct interp), 64);
    return 0;
}

void interp_free(struct vcpu *c)
{
    if (c->interp)
        munmap(c->interp, sizeof(struct interp) + ARENA_SIZE);
    c->interp = NULL;
    decode_cache_free(c->decoded);
    c->decoded = NULL;
}

void interp_flush(struct vcpu *c)
{
    struct interp *in = c->interp;

    ext_save(c); /* these loops become memset */
    for (int n = 0; n < HASH_SIZE; n++)
        in->hash[n] = NULL;
    for (int n = 0; n < QUICK_SIZE; n++)
        in->quick[n].block = NULL;
    for (int n = 0; n < CROSSINGS; n++)
        in->crossings[n].len = 0;
    in->arena_used = 0;
}

static u64 fetch_linear(const struct vcpu *c)
{
    return (c->lin_base[SEG_CS] + c->s.gpr[RIP]) & c->lin_mask;
}

static int fetch_set(const struct vcpu *c)
{
    return c->s.cpl == 3 ? MMU_USER : MMU_SUPERVISOR;
}

struct tlb_entry *interp_fetch_entry(struct vcpu *c, u64 lin)
{
    struct tlb_entry *t = tlb_entry(c, fetch_set(c), lin);

    if (t->fetch == (lin & PAGE_MASK) || t->fetch == tlb_slow(lin & PAGE_MASK, TLB_MMIO))
        return t;
    return tlb_fill(c, lin, MMU_FETCH, fetch_set(c));
}

const struct tlb_entry *interp_fetch_known(const struct vcpu *c, u64 lin)
{
    const struct tlb_entry *t = tlb_entry(c, fetch_set(c), lin);

    return t->fetch == (lin & PAGE_MASK) ? t : NULL;
}

static bool block_fresh(const struct block *b)
{
    return b->version == __atomic_load_n(b->version_now, __ATOMIC_RELAXED);
}

/* The first mark of a page comes while the world is stopped, with the fast write paths' end: or another vCPU found the page marked, decoded
 * what is there too, and wrote to it unseen. */
u32 interp_code_mark(struct vcpu *c, const u8 *hva, u64 len)
{
    struct vcpu_group *g = c->group;
    u32 version;

    if (code_lines_mark_more(vcpu_memory(c), hva, len, &version))
        return version;
    if (g->count > 1)
        world_stop(g, c);
    code_lines_mark(vcpu_memory(c), hva, len, &version);
    for (int n = 0; n < g->count; n++) {
        tlb_protect_code(g->vcpu[n], hva);
        window_protect_code(g->vcpu[n], c, hva);
    }
    if (g->count > 1)
        world_go(g, c);
    return version;
}

static u32 hash_slot(const u8 *hva)
{
    u64 h = (u64)hva;

    return (u32)(h ^ h >> 14) & (HASH_SIZE - 1);
}

static struct block *hash_find(struct vcpu *c, const u8 *hva)
{
    struct block **link = &c->interp->hash[hash_slot(hva)];

    while (*link) {
        struct block *b = *link;

        if (b->hva != hva || b->code_size != c->code_size)
            link = &b->next;
        else if (block_fresh(b))
            return b;
        else
            *link = b->next;
    }
    return NULL;
}

/* Room for a block of the largest size; forgets everything when there is none. */
static struct block *block_alloc(struct vcpu *c)
{
    struct interp *in = c->interp;
    u64 most = sizeof(struct block) + (BLOCK_INSNS_MAX + 1) * sizeof(struct insn);

    if (in->arena_used + most > ARENA_SIZE - 64)
        interp_flush(c);
    return (struct block *)(in->arena + in->arena_used);
}

/* Bytes of a block that are about to be decoded: up to where its lines are marked now. A write from then on makes the block old, if it is
 * later than the first mark. */
static u64 lines_mark(struct vcpu *c, struct block *b, u64 at, u64 len)
{
    u32 version = interp_code_mark(c, b->hva + at, len);

    if (!at)
        b->version = version;
    return ALIGN_UP((u64)b->hva + at + len, 1u << CODE_LINE_SHIFT) - (u64)b->hva;
}

/* Decodes a block at hva; NULL when its first instruction crosses into the next page. */
static struct block *block_decode(struct vcpu *c, const u8 *hva)
{
    struct block *b = block_alloc(c);
    u64 room = PAGE_SIZE - ((u64)hva & ~PAGE_MASK), at = 0, marked = 0;
    struct insn *i = b->insn;

    b->hva = hva;
    b->code_size = c->code_size;
    b->version_now = &vcpu_memory(c)->code_version[backing_page(vcpu_memory(c), hva)];
    while (at < room && i < b->insn + (c->interp->single ? 1 : BLOCK_INSNS_MAX)) {
        int len, avail = (int)MIN(room - at, 15);

        if (at && debug_may_break(c, (u64)(hva + at)))
            break;
        if (at + (u64)avail > marked)
            marked = lines_mark(c, b, at, (u64)avail);
        len = decode_insn(c, hva + at, avail, c->code_size, i);
        if (!len)
            break;
        insn_place(i, (u16)at);
        at += (u64)len;
        if ((i++)->ends_block)
            break;
    }
    if (i == b->insn)
        return NULL;
    b->bytes = (u16)at;
    b->end = i;
    if (unlikely(dump_enabled & DUMP_GUEST))
        dump_guest_code(c, fetch_linear(c), hva, b->bytes);
    b->next = c->interp->hash[hash_slot(hva)];
    c->interp->hash[hash_slot(hva)] = b;
    c->interp->arena_used += ALIGN_UP((u64)((u8 *)i - (u8 *)b), 8);
    return b;
}

/* Outside 64-bit mode RIP must lie within the code segment. */
static void check_code_limit(struct vcpu *c, u64 len)
{
    if (code64(c))
        return;
    c->s.gpr[RIP] &= 0xffffffff;
    if (c->s.gpr[RIP] + len - 1 > c->s.seg_limit[SEG_CS])
        raise_gp0(c);
}

/* Fetches up to 15 bytes that may cross a page or come from a device, and decodes one instruction. */
static struct crossing *crossing_slot(struct vcpu *c, u64 lin)
{
    return &c->interp->crossings[(lin ^ lin >> PAGE_SHIFT) & (CROSSINGS - 1)];
}

/* One that was decoded before and still has its bytes, or NULL. Raises what fetching them raises. */
static const struct insn *crossing_again(struct vcpu *c, u64 lin)
{
    const struct crossing *k = crossing_slot(c, lin);
    struct tlb_entry *t = NULL;

    if (k->lin != lin || k->code_size != c->code_size || !k->len || c->interp->uncached)
        return NULL;
    for (u32 n = 0; n < k->len; n++) {
        u64 at = (lin + n) & c->lin_mask;

        check_code_limit(c, n + 1);
        if (!t || !(at & ~PAGE_MASK))
            t = interp_fetch_entry(c, at);
        if (t->fetch & TLB_MMIO || *tlb_hva(t, at) != k->bytes[n])
            return NULL;
    }
    return &k->insn;
}

static void crossing_keep(struct vcpu *c, u64 lin, const u8 bytes[15], const struct insn *i)
{
    struct crossing *k = crossing_slot(c, lin);

    if (i->mnemonic == ZYDIS_MNEMONIC_UD2 || i->len <= PAGE_SIZE - (lin & ~PAGE_MASK))
        return; /* an illegal one depends on more bytes than its length says */
    k->lin = lin;
    k->code_size = c->code_size;
    k->len = i->len;
    for (u32 n = 0; n < i->len; n++)
        k->bytes[n] = bytes[n];
    k->insn = *i;
}

static const struct insn *crossing_decode(struct vcpu *c, u64 lin)
{
    struct insn *i = &c->interp->crossing;
    u64 room = PAGE_SIZE - (lin & ~PAGE_MASK);
    u8 bytes[15];

    vector_make_room(c);

    for (u64 n = 0; n < 15; n++) {
        u64 at = (lin + n) & c->lin_mask;
        struct tlb_entry *t;

        check_code_limit(c, n + 1); /* before what paging says */
        t = interp_fetch_entry(c, at);

        if (t->fetch & TLB_MMIO) {
            ext_save(c);
            bytes[n] = (u8)c->group->config.bus.mmio_read(c->group->config.bus.ctx, tlb_gpa(c->tlb, t) | (at & ~PAGE_MASK), 1);
        } else {
            bytes[n] = *tlb_hva(t, at);
        }
        if (n + 1 >= MIN(room, 15) || t->fetch & TLB_MMIO)
            if (decode_insn(c, bytes, (int)n + 1, c->code_size, i))
                break;
    }
    insn_place(i, 0);
    crossing_keep(c, lin, bytes, i);
    return i;
}

/* What a breakpoint of the debugger's raises; no guest ever sees it. */
#define FAULT_DEBUG_STOP 0xff

/* Leaves before the instruction at lin if the debugger has a breakpoint there. Such an address is in no quick entry, so that
 * every visit comes here. True: it has one, which is to be passed. */
static bool debug_break_check(struct vcpu *c, u64 lin)
{
    if (debug_breaks_at(c, lin)) {
        debug_stopped(c, DEBUG_BREAK, lin, DEBUG_EXECUTE);
        raise_fault(c, FAULT_DEBUG_STOP);
    }
    return debug_code_point(c, lin);
}

static struct block *block_find_slow(struct vcpu *c, u64 lin)
{
    bool break_here = debug_may_break(c, lin) && debug_break_check(c, lin);
    struct tlb_entry *t = interp_fetch_entry(c, lin);
    struct quick *q = &c->interp->quick[lin & (QUICK_SIZE - 1)];
    const u8 *hva;
    struct block *b;

    if (t->fetch & TLB_MMIO)
        return NULL;
    hva = tlb_hva(t, lin);
    b = hash_find(c, hva);
    if (!b) {
        vector_make_room(c);
        b = block_decode(c, hva);
    }
    if (b && !break_here)
        *q = (struct quick){.lin = lin, .key = c->fetch_key, .block = b};
    return b;
}

/* The block at RIP, or NULL: its first instruction must be fetched piecewise. May raise. */
static inline struct block *block_find(struct vcpu *c, u64 lin)
{
    struct quick *q = &c->interp->quick[lin & (QUICK_SIZE - 1)];

    if (likely(q->lin == lin && q->key == c->fetch_key && q->block && block_fresh(q->block)))
        return q->block;
    return block_find_slow(c, lin);
}

/* Runs instructions from i, the first of its block, up to `end`, or to where a handler moves block_end. RIP is that of `i`, and afterwards that of
 * what comes next. */
static inline void insns_run(struct vcpu *c, const struct insn *i, const struct insn *end)
{
    c->block_first = i;
    c->block_end = end;
    do {
        c->insn = i;
        if (unlikely(i->ends_block))
            c->s.gpr[RIP] += (u64)i->offset + i->len;
        i->fn(c, i);
        ext_settle(c);
    } while (++i < c->block_end);
    c->retired += (u64)(i - c->block_first);
    i--;
    if (!i->ends_block)
        c->s.gpr[RIP] += (u64)i->offset + i->len;
    c->insn = NULL;
}

/* Single instruction, for stepping and for what cannot run as a block. */
static void step_insn(struct vcpu *c)
{
    u64 lin;
    struct block *b;

    check_code_limit(c, 1);
    lin = fetch_linear(c);
    b = c->interp->uncached ? NULL : block_find(c, lin);
    if (b) {
        check_code_limit(c, b->insn[0].len);
        insns_run(c, &b->insn[0], &b->insn[1]);
    } else {
        const struct insn *i = crossing_again(c, lin);

        if (!i)
            i = crossing_decode(c, lin);

        check_code_limit(c, i->len);
        insns_run(c, i, i + 1);
    }
}

/* DR6 bits of the breakpoints that match an instruction at lin. */
static u64 code_breakpoints(const struct vcpu *c, u64 lin)
{
    u64 bits = 0;

    for (int n = 0; n < 4; n++)
        if (c->s.dr[7] >> n * 2 & 3 && !(c->s.dr[7] >> (16 + n * 4) & 3) && c->s.dr[n] == lin)
            bits |= 1ull << n;
    return bits;
}

static bool any_code_breakpoint(const struct vcpu *c)
{
    for (int n = 0; n < 4; n++)
        if (c->s.dr[7] >> n * 2 & 3 && !(c->s.dr[7] >> (16 + n * 4) & 3))
            return true;
    return false;
}

static bool must_step(const struct vcpu *c)
{
    return c->s.rflags & (FLAG_TF | FLAG_RF) || c->s.int_shadow || c->s.debug_shadow || c->s.pending_db ||
           any_code_breakpoint(c) || insn_trace_steps(c);
}

/* One instruction with all that may happen around it: code breakpoints before, shadows, single-step and data breakpoint
 * traps after. SDM vol. 3 §6.9, §17.3. */
static void step_careful(struct vcpu *c)
{
    bool debug_shadow = c->s.debug_shadow, trap = c->s.rflags & FLAG_TF;
    bool resume = c->s.rflags & FLAG_RF;
    u64 lin = fetch_linear(c), hits = code_breakpoints(c, lin);

    if (debug_may_break(c, lin))
        debug_break_check(c, lin); /* now, while nothing has changed */
    if (hits && !resume && !debug_shadow) {
        c->s.dr[6] = (c->s.dr[6] & ~0xfull) | hits;
        raise_fault(c, EXC_DB);
    }
    c->s.int_shadow = c->s.debug_shadow = false;
    c->s.rflags &= ~(u64)FLAG_RF; /* now: IRET may set it again for the next */
    if (trap)
        c->s.pending_db |= DR6_BS; /* now: what clears TF on the way into a handler takes it back */
    if (unlikely(c->group->insn_trace))
        insn_trace_begin(c);
    step_insn(c);
    if (unlikely(c->group->insn_trace))
        insn_trace_end(c);
    /* a shadow that begins now hides this instruction's traps until the next is done */
    if (c->s.pending_db && !c->s.debug_shadow)
        debug_trap_deliver(c);
}

/* The instruction trace begins or ends: what was decoded is of the wrong size for the other way to run. */
static void single_set(struct vcpu *c, bool single)
{
    c->interp->single = single;
    interp_flush(c);
}

static void step(struct vcpu *c)
{
    if (unlikely(c->interp->single != insn_trace_steps(c)))
        single_set(c, !c->interp->single);
    if (!must_step(c)) {
        __atomic_and_fetch(&c->attention, ~(u32)ATTN_STEP, __ATOMIC_SEQ_CST);
        return;
    }
    if (c->s.pending_db && !c->s.debug_shadow) /* left by a task switch */
        debug_trap_deliver(c);
    else
        step_careful(c);
}

/* Sees to attention bits. False: leave the engine. */
bool interp_attend(struct vcpu *c)
{
    u32 bits = __atomic_load_n(&c->attention, __ATOMIC_SEQ_CST);

    if (bits & (ATTN_STOP | ATTN_EXCLUSIVE) || c->s.activity != VCPU_ACTIVE)
        return false;
    if (bits & (ATTN_FLUSH | ATTN_CODE))
        vcpu_flush_if_asked(c);
    if (bits & ATTN_EVENT)
        vcpu_events_deliver(c);
    if (c->s.activity != VCPU_ACTIVE)
        return false;
    if (bits & ATTN_STEP)
        step(c);
    return true;
}

/* Runs one block, or one instruction where no block can be. */
static inline void block_run(struct vcpu *c)
{
    u64 lin;
    struct block *b;

    if (unlikely(c->seg_check & 1u << SEG_CS || c->code_size != 8))
        check_code_limit(c, 1);
    lin = fetch_linear(c);
    b = block_find(c, lin);
    if (unlikely(!b || (c->code_size != 8 && c->s.gpr[RIP] + b->bytes - 1 > c->s.seg_limit[SEG_CS]))) {
        step_insn(c);
        return;
    }
    insns_run(c, b->insn, b->end);
}

void interp_block(struct vcpu *c)
{
    block_run(c);
}

/* A fault was raised, by an instruction or while an event was delivered: puts RIP back. */
void interp_fault_rewind(struct vcpu *c)
{
    if (c->world_stopped) {
        c->world_stopped = false;
        world_go(c->group, c);
    }
    if (c->insn) {
        c->retired += (u64)(c->insn - c->block_first);
        c->s.gpr[RIP] = insn_rip(c, c->insn);
        c->insn = NULL;
    }
}

void interp_fault_caught(struct vcpu *c)
{
    interp_fault_rewind(c);
    if (unlikely(c->fault_vector == FAULT_DEBUG_STOP))
        return;
    debug_watch_forget(c);
    exception_handle_fault(c);
}

/* A function of its own: one that has a setjmp keeps nothing in registers. */
static __attribute__((noinline)) void blocks_run(struct vcpu *c)
{
    for (;;) {
        if (unlikely(__atomic_load_n(&c->attention, __ATOMIC_RELAXED))) {
            if (!interp_attend(c))
                return;
            continue; /* a step may be followed by another, and by events that its shadow held off */
        }
        if (unlikely(c->s.activity != VCPU_ACTIVE))
            return;
        block_run(c);
    }
}

void interp_run(struct vcpu *c)
{
    if (__builtin_setjmp(c->fault_jump))
        interp_fault_caught(c);
    blocks_run(c);
}

static void step_events_and_insn(struct vcpu *c)
{
    if (__atomic_load_n(&c->attention, __ATOMIC_SEQ_CST) & ATTN_EVENT)
        vcpu_events_deliver(c);
    if (c->s.activity == VCPU_ACTIVE)
        step_careful(c);
}

void interp_step(struct vcpu *c)
{
    if (__builtin_setjmp(c->fault_jump))
        interp_fault_caught(c);
    else
        step_events_and_insn(c);
}

static void debug_step(struct vcpu *c, bool events)
{
    u64 rip = c->s.gpr[RIP];
    u16 cs = c->s.seg_sel[SEG_CS];
    u32 bits = __atomic_fetch_or(&c->attention, ATTN_STEP, __ATOMIC_SEQ_CST);

    if (bits & ATTN_FLUSH)
        vcpu_flush_if_asked(c);
    if (bits & ATTN_CODE) {
        __atomic_and_fetch(&c->attention, ~(u32)ATTN_CODE, __ATOMIC_SEQ_CST);
        if (c->group->engine->code_changed)
            c->group->engine->code_changed(c);
    }
    if (events && bits & ATTN_EVENT)
        vcpu_events_deliver(c);
    if (c->s.activity != VCPU_ACTIVE || c->s.gpr[RIP] != rip || c->s.seg_sel[SEG_CS] != cs)
        return;
    if (c->s.pending_db && !c->s.debug_shadow)
        debug_trap_deliver(c);
    else
        step_careful(c);
}

void interp_step_debug(struct vcpu *c, bool events)
{
    if (__builtin_setjmp(c->fault_jump))
        interp_fault_caught(c);
    else
        debug_step(c, events);
}

static void step_uncached(struct vcpu *c, bool events)
{
    if (c->s.pending_db && !c->s.debug_shadow)
        debug_trap_deliver(c);
    else if (events)
        step_events_and_insn(c);
    else
        step_careful(c);
}

void interp_step_uncached(struct vcpu *c, bool events)
{
    c->interp->uncached = true;
    if (__builtin_setjmp(c->fault_jump))
        interp_fault_caught(c);
    else
        step_uncached(c, events);
    c->interp->uncached = false;
}

void interp_deliver(struct vcpu *c, enum event_kind kind, int vector, bool has_error, u32 error)
{
    if (__builtin_setjmp(c->fault_jump))
        interp_fault_caught(c);
    else
        exception_deliver(c, kind, vector, has_error, error);
}

int interp_try(struct vcpu *c)
{
    if (__builtin_setjmp(c->fault_jump)) {
        interp_fault_rewind(c);
        return c->fault_vector;
    }
    step_insn(c);
    return -1;
}

const struct engine interp_engine = {.name = "interp", .run = interp_run, .flush = interp_flush};
