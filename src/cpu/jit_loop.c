/* Loops of one block, in windows: the slots of the bases that it accesses by are looked up before the loop and held in RAX, T1 and
 * T2 while it runs, so that an access in the loop is one instruction.
 *
 * A base may be held if every round accesses by it and moves it by a constant at most: when it walks out of its slot an access
 * faults in the guards long before it could be beyond them, and the slow path comes back by code that looks all of them up again.
 * So displacements are small here. Left out: blocks in which anything else wants the registers that hold. */
#include "cpu/jit_emit.h"

#include "cpu/decode.h"
#include "cpu/window.h"

#define MOVES_MAX KIB(64)
#define DISP_MAX MIB(1)

static const int holders[LOOP_HOLDERS] = {X86_RAX, T1, T2};

int loop_holder(const struct jit_emit *e, int reg)
{
    for (int n = 0; n < e->held_count; n++)
        if (e->held[n] == reg)
            return holders[n];
    return X86_NONE;
}

static bool in_host(const ZydisDecodedOperand *op)
{
    u8 offset = register_offset(op->reg.value);

    return offset >= 16 * 8 || jit_host_register[offset / 8] != JIT_IN_MEMORY;
}

/* Whether it leaves the holders alone. */
static bool frugal(const struct jit_insn *i)
{
    if (i->kind == JIT_NOTHING)
        return true;
    if (i->kind == JIT_LEA)
        return lea_direct(i);
    if (i->kind != JIT_SAME || i->x87 || uses_high_byte(i) || (i->mem ? !i->window : i->host_faults && !i->window))
        return false;
    for (int n = 0; n < i->zi.operand_count; n++) {
        const ZydisDecodedOperand *op = &i->op[n];
        ZydisRegisterClass class = op->type == ZYDIS_OPERAND_TYPE_REGISTER ? ZydisRegisterGetClass(op->reg.value) : ZYDIS_REGCLASS_INVALID;

        if (class != ZYDIS_REGCLASS_GPR8 && class != ZYDIS_REGCLASS_GPR16 && class != ZYDIS_REGCLASS_GPR32 &&
            class != ZYDIS_REGCLASS_GPR64)
            continue;
        if (!in_host(op) || (op->encoding == ZYDIS_OPERAND_ENCODING_NONE && register_offset(op->reg.value) == RAX * 8))
            return false;
    }
    return true;
}

/* Whether the base of an operand, one of guest register `guest`, is moved by constants alone. */
static bool steady(const struct jit_emit *e, int guest)
{
    s64 moved = 0;

    for (int n = 0; n < e->count; n++)
        if (e->insn[n].writes >> guest & 1)
            moved += slot_moves(&e->insn[n], guest);
    return moved <= (s64)MOVES_MAX;
}

static bool hold(struct jit_emit *e, const struct jit_insn *i)
{
    const ZydisDecodedOperandMem *mem = &i->mem->mem;
    s64 disp = (s32)mem->disp.value;
    int guest, host;

    if (!window_base_alone(e, i, mem) || disp > (s64)DISP_MAX || disp < -(s64)DISP_MAX)
        return false;
    guest = register_offset(mem->base) / 8;
    host = jit_host_register[guest];
    if (guest == RSP || loop_holder(e, host) != X86_NONE)
        return true;
    if (e->held_count == LOOP_HOLDERS || !steady(e, guest))
        return false;
    e->held[e->held_count++] = host;
    return true;
}

/* Finds out whether the block is such a loop, and its bases. */
static bool plan(struct jit_emit *e)
{
    const struct jit_insn *last = &e->insn[e->count - 1];

    e->held_count = 0;
    if (!e->windows || e->code_size != 8 || !e->pays || e->c->trial || e->runs || last->kind != JIT_JCC ||
        jit_target(last) != e->insn[0].offset)
        return false;
    for (const struct jit_insn *i = e->insn; i < last; i++)
        if (!frugal(i) || stack_moves_far(i) || (i->mem && i->kind == JIT_SAME && !hold(e, i)))
            return false;
    return e->held_count;
}

void loop_look_up(struct jit_emit *e, struct x86_asm *a)
{
    for (int n = 0; n < e->held_count; n++)
        slot_look_up(a, e->held[n], holders[n]);
}

void loop_begin(struct jit_emit *e)
{
    e->loop = NULL;
    if (!plan(e) || e->flags & FLAGS_RAX) {
        e->held_count = 0;
        return;
    }
    loop_look_up(e, &e->hot);
    e->loop = asm_here(&e->hot);
}
