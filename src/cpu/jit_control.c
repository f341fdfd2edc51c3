/* How translated blocks begin and end: the instruction budget, jumps, calls and returns, the way out to the interpreter and to
 * the run loop.
 *
 * A block does not know where in linear memory it is: RIP is vcpu.page_base, the address of its page, plus offsets that are
 * known. Jumps within the page leave page_base alone and are linked to their target's code; all others set it and look the
 * target up in the vCPU's jump table. */
#include "cpu/jit.h"
#include "cpu/jit_crossing.h"
#include "cpu/jit_emit.h"
#include "cpu/jit_segment.h"
#include "cpu/jit_x87.h"
#include "cpu/jit_jumps.h"

#include "cpu/decode.h"

static u32 address_width(const struct jit_emit *e)
{
    return e->code_size == 8 ? X86_W : 0;
}

static int address_size(const struct jit_emit *e)
{
    return e->code_size == 8 ? 8 : 4;
}

/* page_base + offset to a register. A jump as far as can be, from the end of its page, has an offset that needs two displacements. */
static void emit_rip(struct x86_asm *a, int reg, s64 offset, u32 wide)
{
    s32 first = offset == (s32)offset ? (s32)offset : (s32)(offset / 2);

    asm_rm(a, X86_LOAD | X86_W, reg, VCPU_AT(page_base));
    if (offset || !wide)
        asm_rm(a, X86_LEA | wide, reg, X86_AT(reg, first));
    if (offset != first)
        asm_rm(a, X86_LEA | wide, reg, X86_AT(reg, (s32)(offset - first)));
}

/* What the x87's opcode and data pointer would be after `i`; see jit_x87.h. */
static u32 x87_note_of(const struct jit_insn *i)
{
    u32 fop = (i->zi.opcode & 7u) << 8 | i->bytes[i->zi.raw.modrm.offset];
    u32 seg = i->mem ? (u32)(i->mem->mem.segment - ZYDIS_REGISTER_ES) : 0;

    return X87_NOTED | fop | (i->mem ? X87_NOTED_OPERAND | seg << X87_NOTED_SEG_SHIFT : 0);
}

static const struct jit_insn *insn_at(const struct jit_emit *e, s32 offset)
{
    const struct jit_insn *i = e->insn;

    while (i->offset != offset)
        i++;
    return i;
}

/* The x87 pointers, which the host's registers have wrong. */
static void emit_x87_note(struct jit_emit *e, struct x86_asm *a, s32 offset)
{
    if (offset < 0)
        return;
    asm_rm(a, 0xc7, 0, VCPU_AT(x87_note)); /* mov dword, imm32 */
    asm_u32(a, x87_note_of(insn_at(e, offset)));
    emit_rip(a, T1, offset, address_width(e));
    asm_rm(a, X86_STORE | X86_W, T1, VCPU_AT(s.fip));
    asm_rm(a, X86_MOVZX16, T1, VCPU_AT(s.seg_sel[SEG_CS]));
    asm_rm(a, X86_STORE | X86_66, T1, VCPU_AT(s.fcs));
}

void x87_settle(struct jit_emit *e)
{
    emit_x87_note(e, &e->hot, e->x87_offset);
    e->x87_offset = -1;
}

struct jit_exit *exit_new(struct jit_emit *e, enum jit_exit_kind kind, s64 offset, u32 jump)
{
    struct jit_exit *x = &e->exit[e->exits++];

    assert(e->exits <= ARRAY_SIZE(e->exit));
    *x = (struct jit_exit){.kind = (u8)kind, .flags = (u8)e->flags, .renamed = e->host == e->renamed, .recipe = e->recipe, .offset = offset,
                           .from = e->hot.code + jump, .x87 = -1,
                           .exec = e->hot.exec + jump, .set = (u8)((e->b->key & JIT_KEY_SET) >> JIT_KEY_SET_SHIFT)};
    return x;
}

/* ---- entry ---- */

static void budget_take(struct jit_emit *e, bool keep_carry)
{
    if (keep_carry) {
        budget_take_keeping_carry(e, &e->hot, e->count);
        return;
    }
    asm_rm(&e->hot, (e->count <= INT8_MAX ? 0x83 : 0x81) | X86_W, 5, VCPU_AT(budget)); /* sub */
    if (e->count <= INT8_MAX)
        asm_byte(&e->hot, (u8)e->count);
    else
        asm_u32(&e->hot, (u32)e->count);
}

/* One subtraction a block: when it goes below zero somebody wants attention, or has to be given a chance to. */
static void emit_budget(struct jit_emit *e, const struct jit_insn *again)
{
    s64 offset = again ? again->offset + again->zi.length : e->insn[0].offset;
    bool keep_carry = again && again->keeps_carry;
    u32 jump;

    if (keep_carry)
        flags_to_host(e);
    if (e->counter != X86_NONE) {
        jump = loop_pay(e, keep_carry);
    } else {
        budget_take(e, keep_carry);
        jump = asm_jcc(&e->hot, X86_S, NULL);
    }
    exit_new(e, EXIT_BUDGET, offset, jump)->again = again;
    if (!keep_carry)
        flags_clobber(e);
}

/* The guest's extended registers, before the first instruction that uses them. */
static void emit_ext_check(struct jit_emit *e)
{
    u32 site = jit_site_new(e, &e->insn[0], JIT_SITE_EXT_LOAD);

    asm_rm(&e->hot, 0x80, 7, VCPU_AT(ext_live)); /* cmp byte, 0 */
    asm_byte(&e->hot, 0);
    *jit_stub_new(e) = (struct jit_stub){.site = site, .jump = asm_jcc(&e->hot, X86_E, NULL), .flags = FLAGS_RAX, .x87 = -1};
    jit_site_done(e, jit_site_at(e->j, site));
}

/* Of a loop, flags in RAX if they are needed. */
static void emit_allowance(struct jit_emit *e)
{
    struct jit_exit *x = exit_new(e, EXIT_BUDGET, e->insn[0].offset, loop_take(e));

    x->flags = x->flags ? x->flags : FLAGS_HOST;
}

/* To 8 bytes of memory, flags as they are; T1 changes. */
static void emit_add(struct x86_asm *a, struct x86_mem mem, s32 more)
{
    asm_rm(a, X86_LOAD | X86_W, T1, mem);
    asm_rm(a, X86_LEA | X86_W, T1, X86_AT(T1, more));
    asm_rm(a, X86_STORE | X86_W, T1, mem);
}

/* For the profile; leaves flags alone. */
static void emit_count(struct jit_emit *e)
{
    if (!e->runs)
        return;
    asm_mov_imm64(&e->hot, T2, (u64)e->runs);
    emit_add(&e->hot, X86_AT(T2, 0), 1);
}

/* The budget is seen to later: from here on the flags are in EFLAGS, if they are needed. */
static void emit_entry_unpaid(struct jit_emit *e)
{
    bool needed = e->insn[0].flags_needed, asks = e->counter != X86_NONE;

    e->b->entry = asm_here(&e->hot);
    e->flags = needed ? FLAGS_RAX : 0;
    if (e->b->ext || (asks && needed))
        flags_emit_save(&e->hot);
    e->b->entry_saved = asm_here(&e->hot);
    if (e->b->ext)
        emit_ext_check(e);
    if (asks)
        emit_allowance(e);
    if (needed)
        flags_to_host(e);
    if (e->b->ext && !asks)
        e->b->entry_ext = asm_here(&e->hot);
    else if (!e->b->ext && !asks)
        e->b->entry = asm_here(&e->hot);
    emit_count(e);
}

void emit_entry(struct jit_emit *e)
{
    e->b->entry_ext = NULL;
    if (e->pays) {
        emit_entry_unpaid(e);
        return;
    }
    e->b->entry = asm_here(&e->hot);
    e->flags = FLAGS_HOST;
    flags_save(e);
    e->b->entry_saved = asm_here(&e->hot);
    emit_count(e);
    if (e->b->ext)
        emit_ext_check(e);
}

void emit_budget_before(struct jit_emit *e, const struct jit_insn *i)
{
    emit_budget(e, i);
}

/* ---- ways out ---- */

/* To the code of the jump table's entry in T2, whose address is in T1. */
static void emit_to_entry(struct x86_asm *a)
{
    asm_ri(a, X86_AND | X86_W, T1, (s32)PAGE_MASK);
    asm_rm(a, X86_STORE | X86_W, T1, VCPU_AT(page_base));
    asm_rm(a, 0xff, 4, X86_AT(T2, offsetof(struct jit_jump, code))); /* jmp [] */
}

/* To the linear address in T1, flags in RAX: looks into the jump table, and sets page_base. Returns the way out where it is not there. */
static struct jit_exit *emit_jump_table(struct jit_emit *e)
{
    struct x86_asm *a = &e->hot;
    struct jit_exit *miss;

    jit_emit_look_up(a);
    miss = exit_new(e, EXIT_MISS, 0, asm_jcc(a, X86_NE, NULL));
    emit_to_entry(a);
    return miss;
}

static struct jit_exit *emit_jump_to_t1(struct jit_emit *e)
{
    flags_to_rax(e);
    flags_clobber(e);
    return emit_jump_table(e);
}

bool in_page(const struct jit_emit *e, s64 offset)
{
    return offset >= (s64)e->first && offset < (s64)e->end;
}

/* Where its cell knows the way page_base has only to be moved. */
static void emit_by_cell(struct jit_emit *e, s64 offset)
{
    const struct jit_cell *cell = jit_cell_new(e->c);
    struct x86_mem at = X86_AT(HOST_VCPU, (s32)((u64)cell - (u64)&e->c->s));
    struct x86_asm *a = &e->hot;

    static_assert(!offsetof(struct jit_cell, place), "as emitted");
    flags_to_rax(e);
    flags_clobber(e);
    asm_rm(a, X86_LOAD | X86_W, T1, VCPU_AT(page_base));
    asm_rm(a, X86_ADD | X86_W, T1, VCPU_AT(place));
    asm_rm(a, X86_CMP | X86_W, T1, at);
    exit_new(e, EXIT_CELL, offset, asm_jcc(a, X86_NE, NULL))->cell = cell;
    asm_rm(a, 0x81 | X86_W, 0, VCPU_AT(page_base)); /* add */
    asm_u32(a, (u32)(offset & (s64)PAGE_MASK));
    at.disp += (s32)offsetof(struct jit_cell, code);
    asm_rm(a, 0xff, 4, at); /* jmp [] */
}

static void emit_far(struct jit_emit *e, s64 offset)
{
    if (e->segmented) {
        segment_far(e, NULL, offset);
        return;
    }
    if (e->code_size == 8 && offset == (s32)offset) {
        emit_by_cell(e, offset);
        return;
    }
    flags_to_rax(e);
    emit_rip(&e->hot, T1, offset, address_width(e));
    emit_jump_to_t1(e);
}

void emit_goto(struct jit_emit *e, s64 offset)
{
    rename_end(e);
    if (!in_page(e, offset)) {
        emit_far(e, offset);
        return;
    }
    if (!(e->flags & (FLAGS_HOST | FLAGS_RAX)))
        flags_to_host(e);
    exit_new(e, EXIT_LINK, offset, asm_jmp(&e->hot, NULL));
}

void emit_goto_in_set(struct jit_emit *e, s64 offset, int set)
{
    if (!(e->flags & (FLAGS_HOST | FLAGS_RAX)))
        flags_to_host(e);
    exit_new(e, EXIT_LINK, offset, asm_jmp(&e->hot, NULL))->set = (u8)set;
}

s64 jit_target(const struct jit_insn *i)
{
    return i->offset + i->zi.length + (s64)i->op[0].imm.value.s;
}

bool is_jump(const struct jit_insn *i)
{
    return i->kind == JIT_JMP || i->kind == JIT_JCC;
}

/* Behind the block's last instruction, or a jump that ends it. */
static void emit_onward(struct jit_emit *e, s64 offset)
{
    x87_settle(e);
    if (!e->loop || offset != e->insn[0].offset) {
        emit_goto(e, offset);
        return;
    }
    rename_begin(e);
    if (e->insn[0].flags_needed || !e->pays)
        flags_to_host(e);
    asm_jmp(&e->hot, e->loop);
}

void emit_jmp(struct jit_emit *e, const struct jit_insn *i)
{
    emit_onward(e, jit_target(i));
}

/* A jump the other way leaves where the block follows it. */
static struct jit_exit *exit_by_jcc(struct jit_emit *e, const struct jit_insn *i)
{
    s64 to = i->taken ? i->offset + i->zi.length : jit_target(i);
    struct jit_exit *x = exit_new(e, in_page(e, to) ? EXIT_LINK : EXIT_FAR, to, asm_jcc(&e->hot, (i->zi.opcode & 15) ^ i->taken, NULL));

    x->insn = i->taken ? NULL : i;
    return x;
}

/* A way out of the middle of the block. */
static void emit_side_exit(struct jit_emit *e, const struct jit_insn *i)
{
    struct jit_exit *x;

    flags_to_host(e);
    x = exit_by_jcc(e, i);
    x->unused = (u16)(e->insn + e->count - 1 - i);
    x->x87 = e->x87_offset;
}

/* The next round, or out of the loop. */
static void emit_loop_jcc(struct jit_emit *e, const struct jit_insn *i)
{
    bool back = jit_target(i) == e->insn[0].offset;

    asm_jcc(&e->hot, (i->zi.opcode & 15) ^ !back, e->loop);
    loop_give_back(e, &e->hot);
    emit_goto(e, back ? i->offset + i->zi.length : jit_target(i));
}

void emit_jcc(struct jit_emit *e, const struct jit_insn *i)
{
    if (i < e->insn + e->count - 1) {
        emit_side_exit(e, i);
        return;
    }
    x87_settle(e);
    flags_to_host(e);
    if (e->loop) {
        emit_loop_jcc(e, i);
    } else {
        exit_by_jcc(e, i);
        emit_goto(e, i->offset + i->zi.length);
    }
}

void emit_fall_through(struct jit_emit *e, u32 offset)
{
    emit_onward(e, offset);
}

void access_done(struct jit_emit *e)
{
    jit_site_ends(e, jit_site_at(e->j, e->stub[e->stubs - 1].site));
}

/* Pushes the address behind the instruction. */
static void emit_push_return(struct jit_emit *e, const struct jit_insn *i)
{
    int sp = e->host[RSP], size = address_size(e);
    struct x86_mem at = emit_based(e, i, sp, -size, (u32)size, true);
    int spare = emit_spare(e, &at);

    emit_rip(&e->hot, spare, i->offset + i->zi.length, address_width(e));
    asm_rm(&e->hot, X86_STORE | address_width(e), spare, at);
    access_done(e);
    asm_rm(&e->hot, X86_LEA | address_width(e), sp, X86_AT(sp, -size));
}

void emit_call(struct jit_emit *e, const struct jit_insn *i)
{
    x87_settle(e);
    emit_push_return(e, i);
    emit_goto(e, jit_target(i));
}

void emit_target(struct jit_emit *e, const struct jit_insn *i, int size)
{
    u32 load = zero_extending_load(size);
    int guest;

    if (i->mem) {
        asm_rm(&e->hot, load, T1, emit_memory(e, i, &i->mem->mem, (u32)size, false));
        access_done(e);
        return;
    }
    guest = register_offset(i->op[0].reg.value) / 8;
    if (e->host[guest] == JIT_IN_MEMORY)
        asm_rm(&e->hot, load, T1, GPR_AT(guest));
    else
        asm_rr(&e->hot, load, T1, e->host[guest]);
}

/* The slow path of an indirect jump: that of its operand, or one that only a bad target finds. */
static u32 target_site(struct jit_emit *e, const struct jit_insn *i)
{
    u32 site = i->mem ? e->stub[e->stubs - 1].site : 0;

    return site ? site : jit_site_new(e, i, JIT_SITE_INSN);
}

void emit_jmp_indirect(struct jit_emit *e, const struct jit_insn *i)
{
    x87_settle(e);
    emit_target(e, i, address_size(e));
    emit_jump_to_t1(e)->site = target_site(e, i);
}

/* The target is looked up before anything is pushed: a call to an address that is not canonical faults without. What is not in the table goes
 * the slow path. */
void emit_call_indirect(struct jit_emit *e, const struct jit_insn *i)
{
    struct x86_asm *a = &e->hot;
    struct jit_exit *miss;

    x87_settle(e);
    emit_target(e, i, address_size(e));
    flags_to_rax(e);
    flags_clobber(e);
    jit_emit_look_up(a);
    miss = exit_new(e, EXIT_CALL, 0, asm_jcc(a, X86_NE, NULL));
    miss->site = target_site(e, i);
    miss->back = asm_here(a);
    asm_rm(a, X86_STORE | X86_W, T2, VCPU_AT(scratch));
    emit_push_return(e, i);
    asm_rm(a, X86_LOAD | X86_W, T2, VCPU_AT(scratch));
    asm_rm(a, X86_LOAD | X86_W, T1, X86_AT(T2, offsetof(struct jit_jump, rip)));
    emit_to_entry(a);
}

void emit_return(struct jit_emit *e, const struct jit_insn *i)
{
    int sp = e->host[RSP], size = address_size(e);
    s32 more = i->zi.raw.imm[0].size ? (s32)(i->op[0].imm.value.u & 0xffff) : 0;
    struct jit_exit *miss;
    struct x86_mem at;
    u32 site;

    x87_settle(e);
    at = emit_based(e, i, sp, 0, (u32)size, false);
    site = e->stub[e->stubs - 1].site;
    if (!site) /* but its target may be one that faults */
        site = jit_site_new(e, i, JIT_SITE_INSN);
    asm_rm(&e->hot, X86_LOAD | address_width(e), T1, at);
    access_done(e);
    asm_rm(&e->hot, X86_LEA | address_width(e), sp, X86_AT(sp, size + more));
    miss = emit_jump_to_t1(e);
    miss->site = site;
    miss->popped = size + more;
}

/* mov r12d, imm32: T2 */
static void emit_t2(struct x86_asm *a, u32 val)
{
    asm_code(a, 0x41, 0xbc);
    asm_u32(a, val);
}

void emit_slow(struct x86_asm *a, const struct jit_emit *e, u32 site, u32 flags, const struct jit_recipe *recipe)
{
    flags_store(a, e, flags, recipe);
    rename_restore(e, a);
    emit_t2(a, site);
    asm_jmp(a, jit_slow_thunk(e->j));
}

void emit_interpret(struct jit_emit *e, const struct jit_insn *i, bool leave)
{
    u32 site = jit_site_new(e, i, JIT_SITE_LEFT);

    x87_settle(e);
    emit_slow(&e->hot, e, site, e->flags, &e->recipe);
    if (leave)
        return;
    jit_site_done(e, jit_site_at(e->j, site));
    e->flags = FLAGS_HOST | FLAGS_RAX | FLAGS_MEMORY;
}

/* ---- cold code ---- */

/* The slow path comes back with the flags in RAX, where the code behind the instruction has a slot. */
static void cold_resume(struct jit_emit *e, struct jit_site *site, const struct jit_stub *s)
{
    const u8 *hot = e->j->code->exec + site->resume;

    site->resume = jit_code_offset(e->j, asm_here(&e->cold));
    rename_again(e, &e->cold);
    if (s->in_loop)
        loop_resume(e, &e->cold, 0); /* the next round asks for an allowance, and whether there is any */
    if (s->slot)
        slot_look_up(&e->cold, s->slot - 1, X86_RAX);
    asm_jmp(&e->cold, hot);
}

void emit_victim(struct jit_emit *e, struct x86_asm *a, bool write, const u8 *found)
{
    asm_call(a, jit_victim_thunk(e->j, (int)(e->b->key & JIT_KEY_SET) >> JIT_KEY_SET_SHIFT, write));
    asm_jcc(a, X86_BE, found);
}

static void cold_stub(struct jit_emit *e, struct jit_stub *s)
{
    struct jit_site *site = jit_site_at(e->j, s->site);

    s->cold = e->cold.len;
    if (!s->site)
        return;
    e->host = s->renamed ? e->renamed : jit_host_register;
    if (s->jump)
        asm_link(s->in_cold ? &e->cold : &e->hot, s->jump, asm_here(&e->cold));
    if (s->victim)
        emit_victim(e, &e->cold, s->write, (s->in_cold ? e->cold.exec : e->hot.exec) + s->victim);
    if (s->beyond)
        asm_link(&e->hot, s->beyond, asm_here(&e->cold));
    site->stub = jit_code_offset(e->j, asm_here(&e->cold)); /* T1 and T2 may be anything where the host has faulted */
    emit_x87_note(e, &e->cold, s->x87);
    if (s->in_loop)
        loop_give_back(e, &e->cold);
    emit_slow(&e->cold, e, s->site, s->flags, &s->recipe);
    if ((s->slot || s->in_loop || s->renamed) && site->resume)
        cold_resume(e, site, s);
}

void emit_swap_regions(struct jit_emit *e)
{
    struct x86_asm hot = e->hot;

    e->hot = e->cold;
    e->cold = hot;
}

static void link_here(struct jit_emit *e, const struct jit_exit *x)
{
    s64 distance = asm_here(&e->hot) - (x->exec + 4);

    *(u32_any *)x->from = (u32)(s32)distance;
}

/* Out with the number of a link, the flags in one of the three places at least, or dead. */
static void cold_by_link(struct jit_emit *e, const struct jit_link *l, u32 flags)
{
    enum jit_exit_flags where = flags & FLAGS_MEMORY ? LEAVE_MEMORY : flags & FLAGS_RAX ? LEAVE_RAX : LEAVE_HOST;

    emit_t2(&e->hot, jit_link_new(e->j, l));
    asm_jmp(&e->hot, jit_exit_thunk(e->j, where));
}

static void cold_link(struct jit_emit *e, const struct jit_exit *x)
{
    const u8 *jump = x->renamed || x->unused ? e->hot.exec + asm_jmp(&e->hot, NULL) : x->exec; /* the latter came straight here */
    struct jit_link l = {.block = jit_block_number(e->j, e->b), .rel32 = jit_code_offset(e->j, jump), .offset = (u16)x->offset,
                         .set = x->set, .flags_saved = x->flags & FLAGS_RAX};

    cold_by_link(e, &l, x->flags);
}

void cold_unlinked(struct jit_emit *e, enum jit_exit_flags flags)
{
    asm_rr(&e->hot, X86_XOR, T2, T2);
    asm_jmp(&e->hot, jit_exit_thunk(e->j, flags));
}

static void cold_budget(struct jit_emit *e, const struct jit_exit *x)
{
    struct jit_link l = {.block = jit_block_number(e->j, e->b), .offset = (u16)x->offset};
    u32 flags = x->flags;

    if (e->counter != X86_NONE && x->again)
        loop_renew(e, &e->hot, x->again->keeps_carry, x->exec + 4);
    else if (e->counter != X86_NONE)
        loop_untake(&e->hot);
    if (x->again) {
        emit_same(e, x->again);
        flags = FLAGS_HOST;
    }
    if (!(flags & (FLAGS_HOST | FLAGS_RAX | FLAGS_MEMORY))) {
        flags_store(&e->hot, e, flags, &e->recipe);
        flags = FLAGS_MEMORY;
    }
    rename_end(e);
    if (x->again || e->counter == X86_NONE)
        l.refund = (u16)(e->count - (x->again ? (int)(x->again - e->insn) + 1 : 0)); /* what was not run is not paid for */
    cold_by_link(e, &l, flags);
}

/* A target that is not canonical is the jump's own fault, which the slow path raises, as if nothing had happened yet. */
static void cold_not_canonical(struct jit_emit *e, const struct jit_exit *x)
{
    int sp = e->host[RSP];
    u32 canonical;

    asm_rr(&e->hot, X86_LOAD | X86_W, T2, T1);
    asm_rr(&e->hot, 0xc1 | X86_W, 4, T2); /* shl */
    asm_byte(&e->hot, 16);
    asm_rr(&e->hot, 0xc1 | X86_W, 7, T2); /* sar */
    asm_byte(&e->hot, 16);
    asm_rr(&e->hot, X86_CMP | X86_W, T2, T1);
    canonical = asm_jcc(&e->hot, X86_E, NULL);
    if (x->popped)
        asm_rm(&e->hot, X86_LEA | X86_W, sp, X86_AT(sp, -x->popped));
    emit_slow(&e->hot, e, x->site, FLAGS_RAX, NULL);
    asm_link(&e->hot, canonical, asm_here(&e->hot));
}

/* The target may be in the other entry of the pair. */
static void cold_miss(struct jit_emit *e, const struct jit_exit *x)
{
    if (e->segmented) {
        segment_miss(e, x);
        return;
    }
    asm_ri(&e->hot, X86_XOR | X86_W, T2, sizeof(struct jit_jump));
    asm_rm(&e->hot, X86_CMP | X86_W, T1, X86_AT(T2, offsetof(struct jit_jump, rip)));
    asm_jcc(&e->hot, X86_E, e->j->jump);
    if (x->site && e->code_size == 8)
        cold_not_canonical(e, x);
    asm_rr(&e->hot, X86_XOR, T2, T2);
    asm_jmp(&e->hot, e->j->look);
}

static void cold_cell(struct jit_emit *e, const struct jit_exit *x)
{
    emit_rip(&e->hot, T1, x->offset, X86_W);
    asm_rm(&e->hot, X86_LEA | X86_W, T2, X86_AT(HOST_VCPU, (s32)((u64)x->cell - (u64)&e->c->s)));
    asm_jmp(&e->hot, e->j->cell);
}

/* What a way out of the middle of the block owes, flags as they are: x87 pointers, and budget for what was not run. */
static void cold_side_exit(struct jit_emit *e, const struct jit_exit *x)
{
    struct x86_asm *a = &e->hot;

    e->given_back = true;
    emit_x87_note(e, a, x->x87);
    if (e->counter == X86_NONE) {
        emit_add(a, VCPU_AT(budget), x->unused);
    } else {
        asm_rm(a, X86_LEA | X86_W, e->counter, X86_AT(e->counter, x->unused));
        loop_give_back(e, a);
    }
    if (!e->runs)
        return;
    asm_mov_imm64(a, T2, (u64)(e->runs + 1));
    emit_add(a, X86_AT(T2, 0), x->unused);
}

static void cold_call(struct jit_emit *e, const struct jit_exit *x)
{
    asm_ri(&e->hot, X86_XOR | X86_W, T2, sizeof(struct jit_jump));
    asm_rm(&e->hot, X86_CMP | X86_W, T1, X86_AT(T2, offsetof(struct jit_jump, rip)));
    asm_jcc(&e->hot, X86_E, x->back);
    emit_slow(&e->hot, e, x->site, FLAGS_RAX, NULL);
}

static void cold_exit(struct jit_emit *e, const struct jit_exit *x)
{
    link_here(e, x);
    e->flags = x->flags;
    e->recipe = x->recipe;
    e->host = x->renamed ? e->renamed : jit_host_register;
    e->given_back = false;
    if (x->kind != EXIT_BUDGET)
        rename_end(e);
    if (x->unused)
        cold_side_exit(e, x);
    switch (x->kind) {
    case EXIT_LINK: cold_link(e, x); break;
    case EXIT_FAR: e->segmented ? segment_far(e, x->insn, x->offset) : emit_far(e, x->offset); break;
    case EXIT_BUDGET: cold_budget(e, x); break;
    case EXIT_CELL: cold_cell(e, x); break;
    case EXIT_CALL: cold_call(e, x); break;
    default: cold_miss(e, x); break;
    }
}

/* Where links to a block lead that only the jump table may lead to. */
static void cold_gate(struct jit_emit *e)
{
    e->b->crossing->code = e->b->entry_saved;
    e->b->entry_ext = NULL;
    e->b->entry = asm_here(&e->hot);
    e->flags = FLAGS_HOST;
    flags_save(e);
    e->b->entry_saved = asm_here(&e->hot);
    emit_far(e, e->insn[0].offset);
}

void emit_cold(struct jit_emit *e)
{
    for (u32 n = 0; n < e->stubs; n++)
        cold_stub(e, &e->stub[n]);
    stack_emit_cold(e);
    e->host = jit_host_register;
    emit_swap_regions(e); /* so that the emitters above can be used */
    if (e->b->crossing)
        cold_gate(e);
    for (u32 n = 0; n < e->exits; n++) {
        e->exit[n].cold = e->hot.len;
        cold_exit(e, &e->exit[n]);
    }
    emit_swap_regions(e);
}
