/* Stack instructions: PUSH, POP, PUSHA, POPA, PUSHF, POPF, ENTER, LEAVE. SDM vol. 2. Segment registers: exec_system.c. */
#include "cpu/access.h"
#include "cpu/exec.h"
#include "cpu/vme.h"

static void push_r64(struct vcpu *c, const struct insn *i)
{
    push(c, 8, REG64(c, i->reg));
}

static void pop_r64(struct vcpu *c, const struct insn *i)
{
    u64 val = pop(c, 8); /* POP RSP: the value wins over the increment */

    REG64(c, i->reg) = val;
}

static void push_r(struct vcpu *c, const struct insn *i)
{
    push(c, i->opsize, reg_read(c, i->reg, i->opsize));
}

static void pop_r(struct vcpu *c, const struct insn *i)
{
    u64 val = pop(c, i->opsize);

    reg_write(c, i->reg, i->opsize, val);
}

static void push_imm(struct vcpu *c, const struct insn *i)
{
    push(c, i->opsize, i->imm);
}

static void push_m(struct vcpu *c, const struct insn *i)
{
    push(c, i->opsize, mem_read(c, insn_linear(c, i, i->opsize, false), i->opsize));
}

/* The address is computed with RSP already incremented; RSP goes back if the store faults. */
static void pop_m(struct vcpu *c, const struct insn *i)
{
    u64 old = c->s.gpr[RSP], val = mem_read(c, stack_linear(c, old, i->opsize, false), i->opsize), lin, new;

    stack_set(c, old + i->opsize);
    new = c->s.gpr[RSP];
    lin = insn_ea(c, i);
    c->s.gpr[RSP] = old;
    mem_write(c, seg_linear(c, i->seg, lin, i->opsize, true), i->opsize, val);
    c->s.gpr[RSP] = new;
}

/* A fault leaves what was stored before it: as processors do it. */
static void pusha(struct vcpu *c, const struct insn *i)
{
    u64 sp = c->s.gpr[RSP], size = i->opsize;

    for (u64 n = 0; n < 8; n++)
        mem_write(c, stack_linear(c, sp - (n + 1) * size, (u32)size, true), (int)size,
                  reg_read(c, (int)n * 8, (int)size));
    stack_set(c, sp - 8 * size);
}

static void popa(struct vcpu *c, const struct insn *i)
{
    u64 sp = c->s.gpr[RSP], size = i->opsize;

    for (u64 n = 0; n < 8; n++) { /* a fault leaves those that were read before: as processors do it */
        u64 val = mem_read(c, stack_linear(c, sp + n * size, (u32)size, false), (int)size);

        if (7 - n != RSP)
            reg_write(c, (int)(7 - n) * 8, (int)size, val);
    }
    stack_set(c, sp + 8 * size);
}

/* In virtual-8086 mode PUSHF and POPF need IOPL 3. */
static void check_v86_iopl(struct vcpu *c)
{
    if (v86_mode(c) && iopl(c) < 3)
        raise_gp0(c);
}

static void pushf(struct vcpu *c, const struct insn *i)
{
    if (i->opsize == 2 && vme_virtual_if(c)) {
        push(c, 2, vme_flags_seen(c));
        return;
    }
    check_v86_iopl(c);
    push(c, i->opsize, flags_get(c) & ~(u64)(FLAG_VM | FLAG_RF));
}

static void popf_virtual(struct vcpu *c)
{
    u16 flags = (u16)mem_read(c, stack_linear(c, c->s.gpr[RSP], 2, false), 2);

    vme_flags_check(c, flags);
    stack_set(c, c->s.gpr[RSP] + 2);
    vme_flags_load(c, flags);
}

static void popf(struct vcpu *c, const struct insn *i)
{
    u64 change = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID, flags;

    if (i->opsize == 2 && vme_virtual_if(c)) {
        popf_virtual(c);
        return;
    }
    check_v86_iopl(c);
    if (c->s.cpl == 0)
        change |= FLAG_IOPL;
    if (c->s.cpl <= iopl(c))
        change |= FLAG_IF;
    if (i->opsize == 2)
        change &= 0xffff;
    flags = pop(c, i->opsize);
    flags_load(c, ((flags_get(c) & ~change) | (flags & change)) & ~(u64)FLAG_RF);
}

/* One display pointer of ENTER's nesting: from the old frame to the new. */
static void enter_copy(struct vcpu *c, const struct insn *i, u64 *bp, u64 *sp)
{
    u64 val;

    *bp -= i->opsize;
    *sp -= i->opsize;
    val = mem_read(c, stack_linear(c, *bp, i->opsize, false), i->opsize);
    mem_write(c, stack_linear(c, *sp, i->opsize, true), i->opsize, val);
}

/* RSP and RBP change only at the end: pushes go by a copy, so a fault on the way leaves nothing but memory below the stack. */
static void enter(struct vcpu *c, const struct insn *i)
{
    int level = i->disp & 31;
    u64 sp = c->s.gpr[RSP] - i->opsize, bp = c->s.gpr[RBP], frame = sp;

    mem_write(c, stack_linear(c, sp, i->opsize, true), i->opsize, bp);
    for (int n = 1; n < level; n++)
        enter_copy(c, i, &bp, &sp);
    if (level) {
        sp -= i->opsize;
        mem_write(c, stack_linear(c, sp, i->opsize, true), i->opsize, frame);
    }
    sp -= (u16)i->imm;
    mem_check_alignment(c, stack_linear(c, sp, 1, true), i->opsize);
    mem_probe_write(c, stack_linear(c, sp, 1, true), 1, c->mmu_index);
    reg_write(c, RBP * 8, i->opsize, frame);
    stack_set(c, sp);
}

static void leave(struct vcpu *c, const struct insn *i)
{
    u64 frame = c->s.gpr[RBP], bp = mem_read(c, stack_linear(c, frame, i->opsize, false), i->opsize);

    stack_set(c, frame + i->opsize);
    reg_write(c, RBP * 8, i->opsize, bp);
}

static bool segment_operand(const struct insn_source *src)
{
    return src->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
           ZydisRegisterGetClass(src->op[0].reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

static void choose_push_pop(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    bool is_push = src->zi->mnemonic == ZYDIS_MNEMONIC_PUSH;

    if (segment_operand(src)) {
        choose_system(c, i, src);
        return;
    }
    if (src->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        i->fn = push_imm;
    } else if (i->mem) {
        i->fn = is_push ? push_m : pop_m;
    } else {
        i->reg = register_offset(src->op[0].reg.value); /* in the opcode or in ModRM */
        if (i->opsize == 8)
            i->fn = is_push ? push_r64 : pop_r64;
        else
            i->fn = is_push ? push_r : pop_r;
    }
}

void choose_stack(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    switch (src->zi->mnemonic) {
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD: i->fn = pusha; break;
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD: i->fn = popa; break;
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ: i->fn = pushf; break;
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ: i->fn = popf; break;
    case ZYDIS_MNEMONIC_ENTER: i->fn = enter; break;
    case ZYDIS_MNEMONIC_LEAVE: i->fn = leave; break;
    default: choose_push_pop(c, i, src); break;
    }
}
