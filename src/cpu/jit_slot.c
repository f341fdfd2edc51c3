/* What a look-up in the window table found, kept in RAX for the next operand with that base: it holds for the whole slot and its
 * guards, so it outlives small changes of the base. See cpu/window.h.
 *
 * RAX is otherwise where flags are saved, or lent to an instruction; either ends what is kept. The slot of RSP is elsewhere:
 * jit_stack.c. */
#include "cpu/jit_emit.h"

#include <stdlib.h>

#include "cpu/decode.h"
#include "cpu/window.h"

#define LOOK_AHEAD 64 /* instructions */
#define MOVED_MAX MIB(1) /* less than what the guards have beyond a displacement's reach */

void slot_forget(struct jit_emit *e)
{
    e->slot = X86_NONE;
}

void slot_look_up(struct x86_asm *a, int reg, int to)
{
    asm_rorx(a, to, reg, WINDOW_SHIFT, true);
    asm_rr(a, X86_MOVZX8, to, to);
    asm_rm(a, X86_LOAD | X86_W, to, (struct x86_mem){.base = HOST_VCPU, .index = to, .scale = 3,
                                                     .disp = VCPU_AT(window_table).disp});
}

/* Whether the flags can do without RAX; they are told to. */
static bool rax_free(struct jit_emit *e)
{
    if (e->rax_lent || e->flags == FLAGS_RAX || e->counter == X86_RAX)
        return false;
    e->flags &= ~(u32)FLAGS_RAX;
    return true;
}

/* The base register of an operand in a window, as a host register, or X86_NONE. */
static int base_of(const struct jit_emit *e, const struct jit_insn *i)
{
    return i->window && i->mem && (window_base_alone(e, i, &i->mem->mem) || window_base_small(e, i, &i->mem->mem)) ?
               e->host[register_offset(i->mem->mem.base) / 8] : X86_NONE;
}

static s64 constant(const struct jit_insn *i, int operand)
{
    return i->op[operand].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? llabs((long long)i->op[operand].imm.value.s) : (s64)GIB(2);
}

s64 slot_moves(const struct jit_insn *i, int guest)
{
    if (i->zi.operand_width != 64)
        return (s64)GIB(2);
    if (guest == RSP && (i->kind == JIT_PUSH || (i->kind == JIT_POP && register_offset(i->op[0].reg.value) != RSP * 8)))
        return 8;
    switch (i->zi.mnemonic) {
    case ZYDIS_MNEMONIC_ADD: case ZYDIS_MNEMONIC_SUB: return constant(i, 1);
    case ZYDIS_MNEMONIC_LEA:
        return i->op[1].mem.base == i->op[0].reg.value && i->op[1].mem.index == ZYDIS_REGISTER_NONE ?
                   llabs((long long)i->op[1].mem.disp.value) : (s64)GIB(2);
    case ZYDIS_MNEMONIC_AND: return i->op[1].imm.value.s < 0 ? constant(i, 1) : (s64)GIB(2); /* aligns */
    case ZYDIS_MNEMONIC_INC: case ZYDIS_MNEMONIC_DEC: return 1;
    default: return (s64)GIB(2);
    }
}

static int guest_of(const struct jit_emit *e, int host)
{
    for (int n = 0; n < 16; n++)
        if (e->host[n] == host)
            return n;
    return RZERO;
}

/* How many of the following operands have that base, before it becomes another. It looks at some of them. */
static int uses_ahead(const struct jit_emit *e, const struct jit_insn *i, int reg)
{
    int guest = guest_of(e, reg), uses = 0;

    for (const struct jit_insn *end = MIN(i + LOOK_AHEAD, e->insn + e->count); i < end; i++) {
        if (i > e->under_way && base_of(e, i) == reg)
            uses++;
        if (i->writes >> guest & 1 && slot_moves(i, guest) > (s64)KIB(64))
            break;
    }
    return uses;
}

bool slot_wants_rax(struct jit_emit *e)
{
    for (const struct jit_insn *i = e->insn; i < e->insn + e->count; i++) {
        int reg = base_of(e, i);

        e->under_way = i;
        if (reg != X86_NONE && reg != e->host[RSP] && uses_ahead(e, i, reg))
            return true;
    }
    return false;
}

int slot_of(struct jit_emit *e, const struct jit_insn *i, int reg)
{
    int ahead;

    if (reg != T1 && reg == e->slot)
        return X86_RAX;
    e->under_way = i;
    ahead = reg == T1 ? 0 : uses_ahead(e, i, reg);
    if (ahead && (e->slot == X86_NONE || ahead > uses_ahead(e, i, e->slot)) && rax_free(e)) {
        slot_look_up(&e->hot, reg, X86_RAX);
        e->slot = reg;
        e->slot_moved = 0;
        return X86_RAX;
    }
    slot_look_up(&e->hot, reg, T2);
    return T2;
}

/* Kinds of instructions that leave RAX alone unless they say otherwise. */
static bool keeps(const struct jit_insn *i)
{
    switch (i->kind) {
    case JIT_SAME: case JIT_NOTHING: case JIT_LEA: case JIT_PUSH: case JIT_POP: case JIT_LEAVE: case JIT_JCC: return true;
    default: return false;
    }
}

void slot_after(struct jit_emit *e, const struct jit_insn *i)
{
    int guest = guest_of(e, e->slot);

    if (e->slot == X86_NONE)
        return;
    if (i->writes >> guest & 1)
        e->slot_moved += slot_moves(i, guest);
    if (!keeps(i) || e->slot_moved > (s64)MOVED_MAX)
        slot_forget(e);
}
