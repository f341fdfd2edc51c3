/* The translator's run loop: finds the code for where RIP is, translates it if there is none, enters it, and sees to what made
 * it come back. See jit.h; what a block looks like is jit_control.c's business. */
#include "cpu/jit.h"

#include <errno.h>
#include <sys/mman.h>

#include "cpu/access.h"
#include "cpu/decode.h"
#include "cpu/engine.h"
#include "cpu/event.h"
#include "cpu/host_fault.h"
#include "cpu/interp.h"
#include "cpu/jit_cache.h"
#include "cpu/jit_crossing.h"
#include "cpu/jit_dump.h"
#include "cpu/jit_heat.h"
#include "cpu/jit_emit.h"
#include "cpu/jit_found.h"
#include "cpu/jit_jumps.h"
#include "cpu/jit_profile.h"
#include "cpu/jit_revise.h"
#include "cpu/jit_segment.h"
#include "cpu/jit_stress.h"
#include "cpu/jit_x87.h"
#include "cpu/vector.h"
#include "cpu/vector_op.h"
#include "cpu/window.h"
#include "cpu/xstate.h"

/* Instructions between two looks at what others want. */
#define BUDGET 20000
/* A kick takes this from the budget, however often: what was used stays readable below it. */
#define BUDGET_KICK (1ll << 40)

/* ---- what is translated ---- */

static u32 vector_classes(struct vcpu *c)
{
    struct jit *j = c->jit;
    u32 bits = 0;

    if (likely(j->key_of[0] == c->s.cr0 && j->key_of[1] == c->s.cr4 && j->key_of[2] == c->s.xcr0 && j->key_v86 == v86_mode(c)))
        return j->vector_classes;
    for (int class = 0; class < VC_COUNT; class++)
        bits |= (u32)vector_allowed(c, (enum vector_class)class) << class;
    j->key_of[0] = c->s.cr0;
    j->key_of[1] = c->s.cr4;
    j->key_of[2] = c->s.xcr0;
    j->key_v86 = v86_mode(c);
    j->vector_classes = bits;
    return bits;
}

/* 32-bit code in which only FS and GS may have bases and limits. */
static bool flat(const struct vcpu *c)
{
    u32 segments = 1u << SEG_ES | 1u << SEG_CS | 1u << SEG_SS | 1u << SEG_DS;

    return c->code_size == 4 && c->stack_mask == 0xffffffff && !(c->seg_check & segments & ~(1u << SEG_CS)) &&
           c->s.seg_limit[SEG_CS] == 0xffffffff &&
           !(c->lin_base[SEG_ES] | c->lin_base[SEG_CS] | c->lin_base[SEG_SS] | c->lin_base[SEG_DS]);
}

/* All code, where RIP is in the code segment. */
static bool translatable(const struct vcpu *c)
{
    return c->code_size == 8 || c->s.gpr[RIP] <= jit_rip_last(c);
}

static u64 jit_key(struct vcpu *c)
{
    u64 key = c->code_size | (u32)c->mmu_index << JIT_KEY_SET_SHIFT | vector_classes(c) << JIT_KEY_VECTOR_SHIFT;

    if (!c->s.cpl)
        key |= JIT_KEY_RING0;
    if (c->code_size != 8 && !flat(c))
        return key | jit_segment_key(c);
    if (c->seg_check >> SEG_FS & 1)
        key |= JIT_KEY_FS;
    if (c->seg_check >> SEG_GS & 1)
        key |= JIT_KEY_GS;
    if (window_ready(c))
        key |= JIT_KEY_WINDOW;
    return key;
}

static void emit_kind(struct jit_emit *e, const struct jit_insn *i)
{
    switch (i->kind) {
    case JIT_SAME: emit_same(e, i); break;
    case JIT_NOTHING: break;
    case JIT_LEA: emit_lea(e, i); break;
    case JIT_PUSH: emit_push(e, i); break;
    case JIT_POP: emit_pop(e, i); break;
    case JIT_LEAVE: emit_leave(e, i); break;
    case JIT_MOFFS: emit_moffs(e, i); break;
    case JIT_BIT_MEMORY: emit_bit_memory(e, i); break;
    case JIT_SYSTEM: emit_system(e, i); break;
    case JIT_STRING: emit_string(e, i); break;
    case JIT_SELECTOR: case JIT_ELEMENT: break; /* segmented code's: segment_emit() */
    case JIT_JMP: emit_jmp(e, i); break;
    case JIT_SET_AC: emit_set_ac(e, i); break;
    case JIT_LOOP: emit_count_jump(e, i); break;
    case JIT_JCC: emit_jcc(e, i); break;
    case JIT_CALL: emit_call(e, i); break;
    case JIT_JMP_INDIRECT: emit_jmp_indirect(e, i); break;
    case JIT_CALL_INDIRECT: emit_call_indirect(e, i); break;
    case JIT_RET: emit_return(e, i); break;
    case JIT_INTERPRET: emit_interpret(e, i, false); break;
    case JIT_LEAVE_BLOCK: emit_interpret(e, i, true); break;
    }
}

void emit_insn(struct jit_emit *e, const struct jit_insn *i)
{
    u32 stub = e->stubs;

    e->rax_lent = false;
    flags_before_writes(e, i);
    if (i->may_leave && !(e->flags & FLAGS_RECIPE) && !i->window && !share_follows(e, i))
        flags_save(e); /* but a fault in a window leaves them in EFLAGS */
    if (!e->segmented || !segment_emit(e, i))
        emit_kind(e, i);
    flags_after_writes(e, i);
    slot_after(e, i);
    stack_after(e, i);
    for (; stub < e->stubs; stub++) {
        e->stub[stub].slot = (u8)(e->slot + 1);
        e->stub[stub].in_loop = e->loop;
        e->stub[stub].renamed = e->host == e->renamed;
    }
    if (i->x87)
        e->x87_offset = i->offset;
}

static void emit_block(struct jit_emit *e)
{
    struct jit_insn *i = e->insn;

    slot_forget(e);
    loop_plan(e);
    emit_entry(e);
    rename_begin(e);
    loop_begin(e);
    if (!e->pays)
        emit_budget_before(e, NULL);
    for (; i < e->insn + e->count; i++) {
        rename_for(e, i);
        if (i == e->pays)
            emit_budget_before(e, i);
        i->host = e->hot.len;
        share_before(e, i);
        emit_insn(e, i);
        share_after(e, i);
    }
    i--;
    if (i->kind < JIT_JMP || i->kind == JIT_INTERPRET)
        emit_fall_through(e, (u32)(i->offset + i->zi.length));
    share_detours(e);
    emit_cold(e);
}

/* Whether the block would most likely be what it was; under stress it never is. */
static bool same_way(const struct jit_emit *e, const struct jit_block *old)
{
    return e->b->insns == old->insns && e->b->way == old->way && !e->c->group->config.stress;
}

struct jit_block *jit_translate(struct vcpu *c, const u8 *hva, u64 key, const struct jit_block *old)
{
    struct jit *j = c->jit;
    struct jit_emit *e = jit_emit_begin(c, key);
    struct jit_block *b;
    u64 lin = (jit_linear(c) & PAGE_MASK) + ((u64)hva & ~PAGE_MASK);
    u32 version;

    interp_code_mark(c, hva, 1); /* first of all: a write from now on raises the version */
    version = __atomic_load_n(&vcpu_memory(c)->code_version[backing_page(vcpu_memory(c), hva)], __ATOMIC_SEQ_CST);
    e->b->hva = hva;
    if ((!jit_scan(e, hva) && !jit_crossing_scan(e, hva)) || (old && same_way(e, old))) {
        jit_emit_cancel(e);
        return NULL;
    }
    e->runs = c->group->profile ? jit_profile_begin(e, lin) : NULL;
    emit_block(e);
    if (c->group->profile)
        jit_profile_end(e, lin);
    if (unlikely(dump_enabled & DUMP_HOST))
        jit_dump_block(e, lin);
    b = jit_emit_end(j, e);
    b->version_now = &vcpu_memory(c)->code_version[backing_page(vcpu_memory(c), hva)];
    b->version = version;
    return b;
}

/* ---- finding ---- */

/* Not worth it yet: the interpreter's. */
static struct jit_block *refused(struct vcpu *c, const u8 *hva)
{
    c->jit->refused = hva;
    c->jit->counters.interpreted[JIT_BLOCK_RARE]++;
    return NULL;
}

static struct jit_block *block_at(struct vcpu *c, const u8 *hva, u64 key)
{
    bool at_once = c->trial || jit_stressed(c, STRESS_HOT);
    enum jit_heat_is heat = at_once ? JIT_HEAT_HOT : jit_heat_ask(c->jit, hva);
    const struct jit_found *found;
    struct jit_block *b;

    if (heat == JIT_HEAT_COLD)
        return refused(c, hva);
    found = jit_found_ask(c->jit, hva, key);
    if (found)
        return jit_block_at(c->jit, found->block);
    b = jit_block_find(c->jit, hva, key);
    if (b && (!b->crossing || jit_crossing_holds(c, b->crossing)))
        return b;
    if (heat == JIT_HEAT_NEW)
        jit_heat_begin(c->jit, hva);
    if (!at_once && jit_heat_ask(c->jit, hva) != JIT_HEAT_HOT) /* or no longer: there was one, which was overwritten */
        return refused(c, hva);
    vector_make_room(c);
    b = jit_translate(c, hva, key, NULL);
    c->jit->counters.interpreted[JIT_BLOCK_CROSSING] += !b;
    return b;
}

/* The block at RIP; NULL: not in RAM, or not worth it yet. May raise. */
static struct jit_block *find(struct vcpu *c, u64 key)
{
    u64 lin = jit_linear(c);
    struct tlb_entry *t = interp_fetch_entry(c, lin);

    c->jit->refused = NULL;
    if (!(t->fetch & TLB_MMIO))
        return block_at(c, tlb_hva(t, lin), key);
    c->jit->counters.interpreted[JIT_BLOCK_DEVICE]++;
    return NULL;
}

struct jit_block *jit_block_at_rip(struct vcpu *c)
{
    return translatable(c) ? find(c, jit_key(c)) : NULL;
}

/* The link that was left by leads to b: from now on directly. */
static void patch(struct jit *j, const struct jit_link *l, const struct jit_block *b)
{
    const struct jit_block *from = jit_block_at(j, l->block);
    const u8 *to = l->flags_saved ? b->entry_saved : from->ext && b->entry_ext ? b->entry_ext : b->entry;

    if (((u64)from->hva ^ (u64)b->hva) & PAGE_MASK || from->version != b->version ||
        ((from->key & ~(u64)JIT_KEY_SET) | (u64)l->set << JIT_KEY_SET_SHIFT) != b->key)
        return;
    *(u32_any *)(j->code->write + l->rel32) = jit_code_offset(j, to) - (l->rel32 + 4);
}

/* Most of what the run loop does not find in the jump table is rare: what tells that comes from memory while it looks there. */
static void heat_prefetch(const struct vcpu *c)
{
    u64 lin = jit_linear(c);
    const struct tlb_entry *t = interp_fetch_known(c, lin);

    if (likely(t))
        jit_heat_prefetch(c->jit, tlb_hva(t, lin));
}

/* Code to enter at RIP with the flags in RAX. */
static const u8 *code_for(struct vcpu *c, u32 from)
{
    u64 key = jit_key(c);
    const u8 *code;
    struct jit_block *b;

    jit_jumps_select(c, key & JIT_KEY_MODE);
    heat_prefetch(c);
    code = from ? NULL : jit_jumps_find(c);
    if (code)
        return code;
    c->jit->counters.looked_up++;
    b = find(c, key);
    if (!b)
        return NULL;
    if (from && c->jit->link_epoch == c->jit->epoch)
        patch(c->jit, jit_link_at(c->jit, from), b);
    jit_found_add(c->jit, b);
    jit_jumps_add(c, b);
    return jit_block_code(b);
}

/* ---- running ---- */

static_assert((BUDGET + JIT_INSNS_MAX + LOOP_ALLOWANCE) * WINDOW_STEP < (s64)WINDOW_WALK, "or RSP might walk out of the guards");

static s64 whole_budget(const struct vcpu *c)
{
    return jit_stressed(c, STRESS_FLUSH | STRESS_SMC) ? JIT_STRESS_BUDGET : BUDGET;
}

static void budget_settle(struct vcpu *c)
{
    s64 left = __atomic_exchange_n(&c->budget, whole_budget(c), __ATOMIC_SEQ_CST);
    u64 ran = (u64)(whole_budget(c) - left) & (BUDGET_KICK - 1);

    c->retired += ran;
    c->jit->counters.retired += ran;
    window_heat(c, ran);
}

/* Used up means less than a block or a loop may ask for: what it did not use it gave back. */
void jit_budget_refill(struct vcpu *c)
{
    if (c->budget < JIT_INSNS_MAX + LOOP_ALLOWANCE)
        budget_settle(c);
}

void jit_kick(struct vcpu *c)
{
    if (__atomic_load_n(&c->budget, __ATOMIC_RELAXED) >= 0) /* lost if the vCPU counts just now: it looks again soon */
        __atomic_sub_fetch(&c->budget, BUDGET_KICK, __ATOMIC_RELAXED);
}

u32 jit_leave_by(struct vcpu *c, u32 link)
{
    const struct jit_link *l = jit_link_at(c->jit, link);

    c->s.gpr[RIP] = (c->page_base + l->offset) & c->lin_mask;
    __atomic_add_fetch(&c->budget, l->refund, __ATOMIC_RELAXED);
    return l->rel32 ? link : 0;
}

/* A block by the interpreter, and a note of what comes next. */
static void interpret(struct vcpu *c)
{
    u64 lin = jit_linear(c);
    const u8 *from = c->jit->refused;

    interp_block(c);
    if (from)
        jit_heat_went(c->jit, from, (lin ^ jit_linear(c)) & PAGE_MASK ? JIT_WENT_FAR : jit_linear(c) & ~PAGE_MASK);
}

/* Runs translated code until it comes back; an instruction by the interpreter where there can be none. */
static u32 run_some(struct vcpu *c, u32 from)
{
    const u8 *code;
    u32 link;

    if (jit_stressed(c, STRESS_FLUSH | STRESS_SMC) && jit_stress(c))
        return 0;
    if (!translatable(c)) {
        c->jit->counters.interpreted[JIT_BLOCK_MODE]++;
        interp_block(c);
        return 0;
    }
    if (unlikely(c->jit->watched) && jit_revise_watch(c, jit_key(c)))
        return 0;
    code = code_for(c, from);
    if (!code) {
        interpret(c);
        return 0;
    }
    window_answer(c);
    /* or the host's GS base would not be for its stack: see jit_stack.c */
    assert(!(c->jumps->key & JIT_KEY_WINDOW) || c->window_state == WINDOW_ON);
    c->jit->counters.entered++;
    c->page_base = jit_page_base(c);
    link = jit_enter(c, code);
    from = link ? jit_leave_by(c, link) : 0;
    c->jit->link_epoch = c->jit->epoch;
    if (link)
        jit_revise_left(c, link);
    jit_budget_refill(c);
    return from;
}

/* A function of its own: one that has a setjmp keeps nothing in registers. */
static __attribute__((noinline)) void blocks_run(struct vcpu *c)
{
    u32 link = 0;

    for (;;) {
        if (unlikely(__atomic_load_n(&c->attention, __ATOMIC_RELAXED))) {
            if (!interp_attend(c))
                return;
            link = 0;
            continue;
        }
        if (unlikely(c->s.activity != VCPU_ACTIVE))
            return;
        link = run_some(c, link);
    }
}

void jit_run(struct vcpu *c)
{
    if (__builtin_setjmp(c->fault_jump))
        interp_fault_caught(c);
    blocks_run(c);
    budget_settle(c);
}

/* ---- slow paths ---- */

/* The interpreter's form of a site's instruction; NULL: it goes on in the next page. Another processor may have made it so just now, and of
 * those that are illegal the translator does not know how long they are. */
static const struct insn *site_insn(struct vcpu *c, u32 site)
{
    struct jit *j = c->jit;
    struct jit_slow_insn *slot = &j->slow_insn[site % JIT_SLOW_INSNS];
    const struct jit_site *s = jit_site_at(j, site);
    const struct jit_block *b = jit_block_at(j, s->block);
    const u8 *bytes = b->crossing ? b->crossing->bytes : (const u8 *)((u64)b->hva & PAGE_MASK) + s->offset;
    u32 epoch = j->epoch;
    int avail = b->crossing ? JIT_CROSSING_BYTES : (int)MIN(PAGE_SIZE - s->offset, 15);
    int code_size = (int)(b->key & JIT_KEY_SIZE);

    if (slot->site == site && slot->epoch == epoch)
        return &slot->insn;
    vector_make_room(c); /* may forget the site, and all others */
    slot->site = 0;
    if (!decode_insn(c, bytes, avail, code_size, &slot->insn))
        return NULL;
    insn_place(&slot->insn, 0);
    slot->site = site;
    slot->epoch = epoch;
    return &slot->insn;
}

/* Code for RIP that is not in the jump table, where the run loop would find it at once: into the table. NULL: it has to look. Never raises. */
static const u8 *found_before(struct vcpu *c)
{
    u64 lin = jit_linear(c);
    const struct tlb_entry *t = interp_fetch_known(c, lin);
    const struct jit_found *f = t ? jit_found_ask(c->jit, tlb_hva(t, lin), c->jumps->key) : NULL;
    const u8 *code;

    if (!f)
        return NULL;
    code = c->jit->code->exec + f->code;
    __builtin_prefetch(code);
    c->jit->counters.found_before++;
    jit_jumps_add_code(c, tlb_hva(t, lin), code);
    return code;
}

const u8 *jit_look(struct vcpu *c, struct jit_cell *cell)
{
    u64 from = c->page_base + c->place;
    const u8 *code;

    if (__atomic_load_n(&c->attention, __ATOMIC_RELAXED) || c->trial || !jit_jumps_fresh(c) || jit_stressed(c, STRESS_FLUSH | STRESS_SMC))
        return NULL;
    code = found_before(c);
    if (!code)
        return NULL;
    if (cell)
        *cell = (struct jit_cell){.place = from, .code = code};
    c->page_base = jit_page_base(c);
    return code;
}

/* Behind an instruction that ends blocks: code to enter without the run loop, which would do no more; NULL: it has something to do. */
static const u8 *next_code(struct vcpu *c)
{
    const u8 *code;

    if (__atomic_load_n(&c->attention, __ATOMIC_RELAXED) || c->s.activity != VCPU_ACTIVE || c->trial || !translatable(c) ||
        (c->window_state == WINDOW_UNKNOWN && c->mmu_index == MMU_USER) || jit_stressed(c, STRESS_FLUSH | STRESS_SMC))
        return NULL;
    window_answer(c);
    jit_jumps_select(c, jit_key(c) & JIT_KEY_MODE);
    code = jit_jumps_find(c);
    if (!code)
        code = found_before(c);
    if (code)
        c->page_base = jit_page_base(c);
    return code;
}

/* As generated code does: a kick at this moment is lost, and looked at a little later. */
static void budget_add(struct vcpu *c, s64 more)
{
    __atomic_store_n(&c->budget, __atomic_load_n(&c->budget, __ATOMIC_RELAXED) + more, __ATOMIC_RELAXED);
}

/* Runs a site's instruction. While its handler runs, which may not come back, the instructions before it are paid for and no others.
 * Where to go on, or NULL: leave, RIP is right. */
static const u8 *site_run(struct vcpu *c, u32 site)
{
    const struct jit_site *s = jit_site_at(c->jit, site);
    const u8 *resume = c->jit->code->exec + s->resume;
    const struct insn *i;
    u32 epoch = c->jit->epoch;
    s64 unpaid = s->paid + 1;
    bool ext = s->ext, windows = s->windows;
    struct jit_touch touch;

    assert(!windows || window_stack_holds(c));
    jit_x87_settle(c);
    if (s->kind == JIT_SITE_EXT_LOAD) {
        ext_load(c);
        return resume;
    }
    c->s.gpr[RIP] = (c->page_base + s->offset) & c->lin_mask;
    i = site_insn(c, site);
    budget_add(c, unpaid);
    if (!i) {
        interp_block(c);
        return NULL;
    }
    if (i->ends_block)
        c->s.gpr[RIP] += i->len;
    c->jit->counters.slow[i->mnemonic][s->kind]++;
    c->insn = c->block_first = i;
    c->block_end = i + 2; /* a handler that wants the block left makes it i + 1 */
    jit_touch(c, i, &touch);
    i->fn(c, i);
    ext_settle(c);
    if (unlikely(touch.count) && c->jit->epoch == epoch) /* or the site is forgotten */
        jit_touched(c, site, &touch);
    c->insn = NULL;
    budget_add(c, -1);
    if (i->ends_block && !s->resume)
        return c->jit->epoch == epoch ? next_code(c) : NULL;
    if (windows && c->window_state != WINDOW_ON)
        c->block_end = i + 1; /* what it dropped is gone before other code runs */
    if (c->block_end != i + 2 || c->jit->epoch != epoch || __atomic_load_n(&c->attention, __ATOMIC_RELAXED)) {
        c->s.gpr[RIP] += i->ends_block ? 0 : i->len;
        if (code64(c))
            return NULL;
        c->s.gpr[RIP] &= 0xffffffff;
        return NULL;
    }
    budget_add(c, 1 - unpaid);
    if (ext)
        ext_load(c);
    return resume;
}

/* From generated code: all guest registers are in s.gpr and flags in cc. */
const u8 *jit_slow(struct vcpu *c, u32 site)
{
    const u8 *code = site_run(c, site);

    if (code)
        window_stack_settle(c);
    return code;
}

/* ---- life ---- */

void jit_flush(struct vcpu *c)
{
    jit_cache_flush(c);
    jit_jumps_flush(c);
}

void jit_engine_flush(struct vcpu *c)
{
    interp_flush(c);
    jit_flush(c);
}

static void code_written(void *ctx)
{
    struct vcpu_group *g = ctx;

    for (int n = 0; n < g->count; n++)
        vcpu_attend(g->vcpu[n], ATTN_CODE);
}

int jit_group_create(struct vcpu_group *g, struct err *e)
{
    g->config.mem->code_written = code_written;
    g->config.mem->code_written_ctx = g;
    return 0;
}

void jit_group_free(struct vcpu_group *g)
{
    g->config.mem->code_written = NULL;
}

int jit_create(struct vcpu *c, struct err *e)
{
    int r;

    c->budget = whole_budget(c);
    r = jit_cache_create(c, e);
    if (!r)
        r = jit_jumps_create(c, e);
    return r ? r : window_create(c, e);
}

void jit_free(struct vcpu *c)
{
    window_free(c);
    if (c->jit) {
        jit_counters_trace(c);
        jit_jumps_free(c);
        jit_cache_free(c);
    }
}

const struct engine jit_engine = {
    .name = "jit",
    .group_create = jit_group_create,
    .group_free = jit_group_free,
    .vcpu_create = jit_create,
    .vcpu_free = jit_free,
    .run = jit_run,
    .kick = jit_kick,
    .flush = jit_engine_flush,
    .code_changed = jit_jumps_code_written,
};
