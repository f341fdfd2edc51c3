/* One TLB check for several accesses: a run of instructions that reach memory near the same address, by registers that differ from one
 * another by constants (fields of a structure, PUSH and POP and what lies between them).
 *
 * The first access of a run checks all bytes that any of them touches, to be in one page and with the strongest right that one of
 * them needs, and leaves a pointer to the lowest in T1, by which they all go. Nothing else in a run changes T1, and nothing in it leaves
 * translated code, so that the TLB is what it was.
 *
 * If the check fails (a miss, a page that is always slow, bytes in two pages) the instructions of the run are run by a second copy of
 * their code among the cold code, a detour, in which each checks for itself. So a miss fills its entry, and faults come where they
 * belong. Left out: windows (jit_slot.c), vector and x87 code, whose slow paths the host's faults have to find. */
#include "cpu/jit_emit.h"

#include "cpu/decode.h"
#include "cpu/jit_cache.h"

#define RANGE_MAX 256   /* bytes: the larger, the more often in two pages */
#define MOVED_MAX (s64)MIB(1)

/* What is known of registers: how far they are from where the base of the first access pointed then. */
struct bases {
    u32 known; /* bit n: guest register n */
    s64 at[16];
};

/* Where an instruction accesses memory. */
struct access {
    int guest; /* base register */
    s64 disp;
    u32 size;
    bool write;
};

static int guest_of(ZydisRegister r)
{
    return register_offset(r) / 8;
}

static bool is_gpr64(const ZydisDecodedOperand *op)
{
    return op->type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(op->reg.value) == ZYDIS_REGCLASS_GPR64;
}

static struct access on_stack(s64 disp, bool write)
{
    return (struct access){.guest = RSP, .disp = disp, .size = 8, .write = write};
}

/* Its only access to memory, if that is one that a run may have. */
static bool access_of(const struct jit_emit *e, const struct jit_insn *i, struct access *ret)
{
    switch (i->kind) {
    case JIT_PUSH: *ret = on_stack(-8, true); return !i->mem;
    case JIT_POP: *ret = on_stack(0, false); return true;
    case JIT_CALL: *ret = on_stack(-8, true); return e->x87_offset < 0; /* to note an x87 instruction takes T1 */
    case JIT_RET: *ret = on_stack(0, false); return e->x87_offset < 0;
    case JIT_SAME: break;
    default: return false;
    }
    if (!i->mem || i->host_faults || spares_of(e, i) > 1 || !window_base_alone(e, i, &i->mem->mem))
        return false;
    *ret = (struct access){.guest = guest_of(i->mem->mem.base), .disp = (s32)i->mem->mem.disp.value, .size = i->mem->size / 8,
                           .write = i->mem->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE};
    return true;
}

/* Whether it leaves T1 alone, without an access. */
static bool quiet(const struct jit_emit *e, const struct jit_insn *i)
{
    switch (i->kind) {
    case JIT_NOTHING: case JIT_JCC: return true; /* the latter in the middle of a block */
    case JIT_LEA: return lea_direct(e, i);
    case JIT_SAME: return !i->mem && !i->host_faults && spares_of(e, i) < 2;
    default: return false;
    }
}

/* ---- what becomes of bases ---- */

static void base_set(struct bases *b, int guest, bool known, s64 at)
{
    known = known && at <= MOVED_MAX && at >= -MOVED_MAX;
    b->known = (b->known & ~(1u << guest)) | (u32)known << guest;
    b->at[guest] = at;
}

static void base_move(struct bases *b, int guest, s64 by)
{
    base_set(b, guest, b->known >> guest & 1, b->at[guest] + by);
}

static void base_copy(struct bases *b, int to, int from, s64 by)
{
    base_set(b, to, b->known >> from & 1, b->at[from] + by);
}

/* A write to the first operand that keeps it known, or makes it so. */
static bool derived(const struct jit_emit *e, const struct jit_insn *i, struct bases *b)
{
    const ZydisDecodedOperand *to = &i->op[0], *from = &i->op[1];
    bool immediate = from->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    int guest;

    if (i->zi.operand_width != 64 || !is_gpr64(to))
        return false;
    guest = guest_of(to->reg.value);
    switch (i->zi.mnemonic) {
    case ZYDIS_MNEMONIC_INC: base_move(b, guest, 1); return true;
    case ZYDIS_MNEMONIC_DEC: base_move(b, guest, -1); return true;
    case ZYDIS_MNEMONIC_ADD: case ZYDIS_MNEMONIC_SUB:
        if (immediate)
            base_move(b, guest, i->zi.mnemonic == ZYDIS_MNEMONIC_ADD ? from->imm.value.s : -from->imm.value.s);
        return immediate;
    case ZYDIS_MNEMONIC_MOV:
        if (!is_gpr64(from))
            return false;
        base_copy(b, guest, guest_of(from->reg.value), 0);
        return true;
    case ZYDIS_MNEMONIC_LEA:
        if (!window_base_alone(e, i, &from->mem))
            return false;
        base_copy(b, guest, guest_of(from->mem.base), (s32)from->mem.disp.value);
        return true;
    default: return false;
    }
}

static void bases_after(const struct jit_emit *e, const struct jit_insn *i, struct bases *b)
{
    switch (i->kind) {
    case JIT_PUSH: base_move(b, RSP, -8); return;
    case JIT_POP:
        base_move(b, RSP, 8);
        base_set(b, guest_of(i->op[0].reg.value), false, 0);
        return;
    default: break;
    }
    if (!derived(e, i, b))
        b->known &= ~i->writes;
}

/* ---- runs ---- */

/* Takes an access into the run, unless its range would get too long. */
static bool widen(struct jit_share *s, const struct access *a, s64 at)
{
    s64 low = MIN(s->low, at), high = MAX(s->high, at + a->size);

    if (high - low > RANGE_MAX)
        return false;
    s->low = low;
    s->high = high;
    s->write |= a->write;
    return true;
}

/* The run that may begin at `i`. */
static struct jit_share plan(struct jit_emit *e, struct jit_insn *i)
{
    struct jit_share s = {.first = i};
    struct bases b = {.known = 0};
    struct access a;

    if (!access_of(e, i, &a))
        return s;
    base_set(&b, a.guest, true, 0);
    s.low = a.disp;
    s.high = a.disp;
    for (; i < e->insn + e->count; i++) {
        bool access = access_of(e, i, &a);

        if (access ? !(b.known >> a.guest & 1) || !widen(&s, &a, b.at[a.guest] + a.disp) : !quiet(e, i))
            break;
        i->place = (s32)(access ? b.at[a.guest] + a.disp : 0);
        i->shared = access;
        s.last = access ? i : s.last;
        s.count += access;
        bases_after(e, i, &b);
    }
    return s;
}

static void share_cancel(struct jit_emit *e, const struct jit_insn *from)
{
    for (; from < e->insn + e->count; from++)
        e->insn[from - e->insn].shared = false;
}

void share_before(struct jit_emit *e, struct jit_insn *i)
{
    if (e->windows || e->code_size != 8 || e->counter != X86_NONE || (e->share.last && i <= e->share.last))
        return;
    e->share = plan(e, i);
    if (e->share.count < 2) {
        share_cancel(e, i);
        e->share.last = NULL;
    }
}

bool share_follows(const struct jit_emit *e, const struct jit_insn *i)
{
    return share_has(e, i) && i != e->share.first;
}

struct x86_mem share_at(struct jit_emit *e, const struct jit_insn *i, int base)
{
    const struct jit_share *s = &e->share;

    u32 size = (u32)(s->high - s->low);

    if (i == s->first) {
        struct jit_detour *d = &e->detour[e->detours++];

        assert(e->detours <= ARRAY_SIZE(e->detour));
        *d = (struct jit_detour){.first = i, .last = s->last, .flags = e->flags & ~(u32)FLAGS_HOST, .recipe = e->recipe,
                                 .x87 = e->x87_offset, .write = s->write, .renamed = e->host == e->renamed};
        asm_rm(&e->hot, X86_LEA | X86_W, T1, X86_AT(base, (s32)s->low));
        d->jump = emit_tlb(e, size, s->write);
        d->victim = size <= JIT_VICTIM_SIZE ? asm_here(&e->hot) : NULL;
    }
    *jit_stub_new(e) = (struct jit_stub){.site = 0}; /* nobody's: it stays */
    return X86_AT(T1, i->place - (s32)s->low);
}

void share_after(struct jit_emit *e, const struct jit_insn *i)
{
    struct jit_detour *d;

    if (!share_has(e, i) || i != e->share.last)
        return;
    d = &e->detour[e->detours - 1];
    d->resume = asm_here(&e->hot);
    d->flags_after = e->flags;
}

/* ---- detours ---- */

/* The flags to where the code that a detour comes back to has them. */
static void flags_join(struct jit_emit *e, u32 want)
{
    if (want & FLAGS_MEMORY)
        flags_save_memory(e);
    if (want & FLAGS_HOST)
        flags_to_host(e);
    if (want & FLAGS_RAX && !(e->flags & FLAGS_RAX)) {
        if (want & FLAGS_HOST)
            flags_emit_save(&e->hot);
        else
            flags_to_rax(e);
    }
}

static void detour_body(struct jit_emit *e, const struct jit_detour *d)
{
    for (const struct jit_insn *i = d->first; i <= d->last; i++) {
        rename_for(e, i);
        if (i == e->pays && i != d->first)
            emit_budget_before(e, i);
        emit_insn(e, i);
    }
    if (d->last->kind >= JIT_JMP) /* the block ends */
        return;
    if (d->last->flags_needed_after)
        flags_join(e, d->flags_after);
    asm_jmp(&e->hot, d->resume);
}

/* Where the host's faults are looked for its code is not. */
static void sites_hide(struct jit_emit *e, u32 from)
{
    for (; from < e->j->site_count; from++)
        jit_site_at(e->j, from)->hot_len = 0;
}

static void detour(struct jit_emit *e, struct jit_detour *d)
{
    u32 stub = e->stubs, site = e->j->site_count;

    d->cold = e->hot.len;
    asm_link(&e->cold, d->jump, asm_here(&e->hot));
    if (d->victim)
        emit_victim(e, &e->hot, d->write, d->victim);
    e->host = d->renamed ? e->renamed : jit_host_register;
    e->flags = d->flags;
    e->recipe = d->recipe;
    e->x87_offset = d->x87;
    detour_body(e, d);
    sites_hide(e, site);
    for (; stub < e->stubs; stub++)
        e->stub[stub].in_cold = true;
}

void share_detours(struct jit_emit *e)
{
    emit_swap_regions(e);
    e->in_detour = true;
    for (u32 n = 0; n < e->detours; n++)
        detour(e, &e->detour[n]);
    e->in_detour = false;
    emit_swap_regions(e);
}
