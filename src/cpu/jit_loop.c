/* Loops of one block: what every round needs is found before the loop and held in RAX, T1 and T2 while it runs.
 * The jump back may be the block's last instruction, either way of it, or that instruction may just be in front of the first one.
 *
 * In windows, what is to be added to the operands' addresses, so that an access in the loop is one instruction. An operand may be
 * held if a round moves it by a small constant at most: with one register that moves, and one that does not, which is added to
 * what is held. Such an operand may walk out of its slot into the guards, but not through them: the budget limits the rounds
 * until control is in C, which enters the loop anew. In the guards it faults, and the slow path comes back by code that looks
 * all of them up again. Left out: loops with an operand that cannot be held, or in which something else wants the registers.
 *
 * And an allowance: instructions that are taken from the budget at once and counted down in a register, because a subtraction from
 * memory in each round would be what takes longest. Every way out gives back what is left: the allowance is the budget's again
 * before anybody looks. */
#include "cpu/jit_emit.h"

#include "cpu/decode.h"
#include "cpu/window.h"

#define MOVES_MAX WINDOW_STEP /* bytes in a round */
#define DISP_MAX (s64)(GIB(2) - KIB(4))

static const int holders[LOOP_HOLDERS] = {X86_RAX, T1, T2};

/* ---- operands ---- */

/* In the loop. */
static int host_of(const struct jit_emit *e, ZydisRegister r)
{
    return r == ZYDIS_REGISTER_NONE ? X86_NONE : e->renamed[register_offset(r) / 8];
}

/* The operand of `i` by host registers; false: it has not got its registers in the host's, or is of another kind. */
static bool operand_of(const struct jit_emit *e, const struct jit_insn *i, struct jit_held *h)
{
    const ZydisDecodedOperandMem *mem = &i->mem->mem;
    bool no_base = i->zi.raw.sib.offset && i->zi.raw.modrm.mod == 0 && i->zi.raw.sib.base == 5;
    s64 disp = no_base ? (s64)i->zi.raw.disp.value : (s64)(s32)mem->disp.value;

    *h = (struct jit_held){.page = mem->base == ZYDIS_REGISTER_RIP, .at = {.base = X86_NONE, .index = X86_NONE}};
    if (e->code_size != 8 || i->zi.address_width != 64 || i->zi.raw.prefix_count > 2 || mem->segment == ZYDIS_REGISTER_FS ||
        mem->segment == ZYDIS_REGISTER_GS)
        return false;
    disp += h->page ? i->offset + i->zi.length : 0;
    h->at.disp = (s32)disp;
    if (disp > DISP_MAX || disp < -DISP_MAX)
        return false;
    if (!h->page && !no_base)
        h->at.base = host_of(e, mem->base);
    h->at.index = host_of(e, mem->index);
    h->small = i->small_index && h->at.base != X86_NONE;
    h->at.scale = mem->index == ZYDIS_REGISTER_NONE ? 0 : __builtin_ctz(mem->scale | 0x100);
    return (h->page || no_base || mem->base == ZYDIS_REGISTER_NONE || h->at.base != X86_NONE) &&
           (mem->index == ZYDIS_REGISTER_NONE || h->at.index != X86_NONE);
}

static bool same_registers(const struct jit_held *a, const struct jit_held *b)
{
    return a->page == b->page && a->small == b->small && a->at.base == b->at.base && a->at.index == b->at.index && a->at.scale == b->at.scale;
}

/* By how much a round moves what a host register has; 0: the loop does not write it. */
static s64 round_moves(const struct jit_emit *e, int host)
{
    s64 moved = 0;

    for (int guest = 0; host != X86_NONE && guest < 16; guest++)
        for (int n = 0; e->renamed[guest] == host && n < e->count; n++)
            if (e->insn[n].writes >> guest & 1)
                moved += MAX(slot_moves(&e->insn[n], guest), 1);
    return moved;
}

/* What of the operand's address is held: the part that stays. */
static bool part_chosen(const struct jit_emit *e, struct jit_held *h)
{
    s64 base = round_moves(e, h->at.base), index = round_moves(e, h->at.index) << h->at.scale;

    if (h->small) {
        h->part = HELD_BASE;
        return !base;
    }
    if (h->at.base != X86_NONE && h->at.index != X86_NONE)
        h->part = !base ? HELD_BASE : HELD_INDEX;
    else
        h->part = h->page || h->at.base == X86_NONE ? HELD_BASE : HELD_SLOT;
    return (!base || !index) && base <= MOVES_MAX && index <= MOVES_MAX;
}

static bool hold(struct jit_emit *e, const struct jit_insn *i)
{
    struct jit_held h;

    if (!operand_of(e, i, &h))
        return false;
    if (h.at.base == e->renamed[RSP] && h.at.index == X86_NONE)
        return true; /* by GS */
    for (int n = 0; n < e->held_count; n++)
        if (same_registers(&h, &e->held[n]))
            return true;
    if (e->held_count >= LOOP_HOLDERS - h.page || !part_chosen(e, &h)) /* the page's address needs another register for a moment */
        return false;
    e->held[e->held_count++] = h;
    return true;
}

bool loop_operand(const struct jit_emit *e, const struct jit_insn *i, struct x86_mem *ret_at)
{
    struct jit_held h;

    if (!e->held_count)
        return false;
    operand_of(e, i, &h);
    for (int n = 0; n < e->held_count; n++) {
        if (!same_registers(&h, &e->held[n]))
            continue;
        *ret_at = h.at;
        if (e->held[n].part == HELD_BASE)
            ret_at->base = holders[n];
        else
            ret_at->index = holders[n];
        if (e->held[n].part == HELD_INDEX)
            ret_at->scale = 0;
        return true;
    }
    return false;
}

static void look_up(struct x86_asm *a, const struct jit_held *h, int to)
{
    struct x86_mem at = h->at;
    struct x86_mem more = {.base = to, .index = X86_NONE};

    if (h->page) {
        asm_rm(a, X86_LOAD | X86_W, to, VCPU_AT(page_base));
        at.base = to;
    }
    if (h->small)
        at.index = X86_NONE;
    asm_rm(a, X86_LEA | X86_W, to, at);
    slot_look_up(a, to, to);
    if (h->part == HELD_SLOT)
        return;
    more.index = h->part == HELD_BASE ? h->at.base : h->at.index;
    more.scale = h->part == HELD_BASE ? 0 : h->at.scale;
    if (h->page) {
        asm_rm(a, X86_LOAD | X86_W, T2, VCPU_AT(page_base)); /* what T2 holds comes later */
        more.index = T2;
    }
    if (more.index != X86_NONE)
        asm_rm(a, X86_LEA | X86_W, to, more);
}

/* ---- which loops ---- */

static bool is_gpr(ZydisRegister r)
{
    ZydisRegisterClass class = ZydisRegisterGetClass(r);

    return class == ZYDIS_REGCLASS_GPR8 || class == ZYDIS_REGCLASS_GPR16 || class == ZYDIS_REGCLASS_GPR32 ||
           class == ZYDIS_REGCLASS_GPR64;
}

/* Whether it leaves RAX alone, and T1 and T2 too if `all`. */
static bool frugal(const struct jit_emit *e, const struct jit_insn *i, bool all)
{
    if (i->kind == JIT_NOTHING || i->kind == JIT_JCC) /* the latter: a way out */
        return true;
    if (i->kind == JIT_LEA)
        return !all || lea_direct(e, i);
    if (i->kind != JIT_SAME || borrows_rax(i) || i->x87 || uses_high_byte(i) || (i->mem ? !i->window : i->host_faults && !i->window))
        return false;
    for (int n = 0; n < i->zi.operand_count; n++) {
        const ZydisDecodedOperand *op = &i->op[n];

        if (all && op->type == ZYDIS_OPERAND_TYPE_REGISTER && is_gpr(op->reg.value) && host_of(e, op->reg.value) == JIT_IN_MEMORY)
            return false;
    }
    return true;
}

/* Behind what a round does, but for the jump back. */
static const struct jit_insn *body_end(const struct jit_emit *e)
{
    const struct jit_insn *last = &e->insn[e->count - 1];

    return is_jump(last) ? last : last + 1;
}

static bool all_frugal(const struct jit_emit *e, bool all)
{
    for (const struct jit_insn *i = e->insn; i < body_end(e); i++)
        if (!frugal(e, i, all) || stack_moves_far(i))
            return false;
    return true;
}

static bool all_held(struct jit_emit *e)
{
    for (const struct jit_insn *i = e->insn; i < body_end(e); i++)
        if (i->mem && i->kind == JIT_SAME && !is_prefetch(i) && !hold(e, i))
            return false;
    for (struct jit_insn *i = e->insn; i < body_end(e); i++)
        if (i->kind == JIT_SAME && is_prefetch(i) && !hold(e, i))
            i->kind = JIT_NOTHING;
    return true;
}

static bool is_loop(const struct jit_emit *e)
{
    return e->pays && loop_of_one(e);
}

static void choose(struct jit_emit *e)
{
    if (all_frugal(e, true) && all_held(e)) {
        if (e->held_count < LOOP_HOLDERS)
            e->counter = holders[e->held_count];
        return;
    }
    e->held_count = 0;
    if (all_frugal(e, false) && !slot_wants_rax(e))
        e->counter = X86_RAX;
}

void loop_plan(struct jit_emit *e)
{
    e->loop = NULL;
    e->held_count = 0;
    e->counter = X86_NONE;
    if (!is_loop(e))
        return;
    e->host = e->renamed;
    choose(e);
    e->host = jit_host_register;
}

void loop_begin(struct jit_emit *e)
{
    u32 start;

    if (!e->held_count && e->counter == X86_NONE && !(e->renames && loop_of_one(e)))
        return;
    loop_resume(e, &e->hot, LOOP_ALLOWANCE);
    if (e->pays) {
        e->loop = asm_here(&e->hot);
        return;
    }
    start = asm_jmp(&e->hot, NULL);
    e->loop = asm_here(&e->hot); /* with the flags in EFLAGS; the entry leaves them in RAX */
    flags_emit_save(&e->hot);
    asm_link(&e->hot, start, asm_here(&e->hot));
}

void loop_resume(const struct jit_emit *e, struct x86_asm *a, u32 allowance)
{
    for (int n = 0; n < e->held_count; n++)
        look_up(a, &e->held[n], holders[n]);
    if (e->counter == X86_NONE)
        return;
    asm_rr(a, 0xc7, 0, e->counter); /* mov, imm32 */
    asm_u32(a, allowance);
}

/* ---- the allowance ---- */

static void budget_immediate(struct x86_asm *a, int extension, u32 val)
{
    asm_rm(a, 0x81 | X86_W, extension, VCPU_AT(budget));
    asm_u32(a, val);
}

u32 loop_take(struct jit_emit *e)
{
    budget_immediate(&e->hot, 5, LOOP_ALLOWANCE); /* sub */
    return asm_jcc(&e->hot, X86_S, NULL);
}

void loop_untake(struct x86_asm *a)
{
    budget_immediate(a, 0, LOOP_ALLOWANCE); /* add */
}

/* LEA leaves all flags alone, DEC the carry. */
static void subtract_keeping_carry(struct x86_asm *a, int reg, s32 less)
{
    if (less > 1)
        asm_rm(a, X86_LEA | X86_W, reg, X86_AT(reg, 1 - less));
    asm_rr(a, 0xff | X86_W, 1, reg); /* dec */
}

u32 loop_pay(struct jit_emit *e, bool keep_carry)
{
    if (keep_carry)
        subtract_keeping_carry(&e->hot, e->counter, e->count);
    else
        asm_ri(&e->hot, X86_SUB | X86_W, e->counter, e->count);
    return asm_jcc(&e->hot, X86_S, NULL);
}

void budget_take_keeping_carry(const struct jit_emit *e, struct x86_asm *a, s32 less)
{
    bool held = e->held_count || e->counter != X86_NONE;

    if (held)
        asm_rm(a, X86_STORE | X86_W, T2, VCPU_AT(scratch));
    asm_rm(a, X86_LOAD | X86_W, T2, VCPU_AT(budget));
    subtract_keeping_carry(a, T2, less);
    asm_rm(a, X86_STORE | X86_W, T2, VCPU_AT(budget));
    if (held)
        asm_rm(a, X86_LOAD | X86_W, T2, VCPU_AT(scratch));
}

void loop_renew(const struct jit_emit *e, struct x86_asm *a, bool keep_carry, const u8 *back)
{
    asm_rm(a, X86_LEA | X86_W, e->counter, X86_AT(e->counter, LOOP_ALLOWANCE));
    if (keep_carry)
        budget_take_keeping_carry(e, a, LOOP_ALLOWANCE);
    else
        budget_immediate(a, 5, LOOP_ALLOWANCE);
    asm_jcc(a, X86_NS, back);
    loop_give_back(e, a);
}

void loop_give_back(const struct jit_emit *e, struct x86_asm *a)
{
    int spare = e->counter == T2 ? T1 : T2;

    if (e->counter == X86_NONE)
        return;
    asm_rm(a, X86_LOAD | X86_W, spare, VCPU_AT(budget));
    asm_rm(a, X86_LEA | X86_W, spare, (struct x86_mem){.base = spare, .index = e->counter});
    asm_rm(a, X86_STORE | X86_W, spare, VCPU_AT(budget));
}
