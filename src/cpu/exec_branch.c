/* Near control transfers: JMP, CALL, RET, Jcc, LOOP, JCXZ. SDM vol. 2. Far ones are in far_transfer.c.
 *
 * `imm` is the displacement of relative forms. The target is cut to the operand size and checked before anything changes. */
#include "cpu/access.h"
#include "cpu/exec.h"

static void jump_slow(struct vcpu *c, u64 target)
{
    if (code64(c)) {
        if ((u64)((s64)(target << 16) >> 16) != target)
            raise_gp0(c);
    } else if (target > c->s.seg_limit[SEG_CS]) {
        raise_gp0(c);
    }
    c->s.gpr[RIP] = target;
}

/* Goes to a target computed at the instruction's operand size. */
static inline void jump_to(struct vcpu *c, const struct insn *i, u64 target)
{
    if (i->opsize == 8 && likely((u64)((s64)(target << 16) >> 16) == target)) {
        c->s.gpr[RIP] = target;
        return;
    }
    jump_slow(c, i->opsize == 2 ? (u16)target : i->opsize == 4 ? (u32)target : target);
}

static void jmp_rel(struct vcpu *c, const struct insn *i)
{
    jump_to(c, i, c->s.gpr[RIP] + i->imm);
}

static u64 target_operand(struct vcpu *c, const struct insn *i)
{
    return i->mem ? mem_read(c, insn_linear(c, i, i->opsize, false), i->opsize) : reg_read(c, i->rm, i->opsize);
}

static void jmp_indirect(struct vcpu *c, const struct insn *i)
{
    jump_to(c, i, target_operand(c, i));
}

/* Pushes the return address and goes. When a 64-bit target is not canonical the return address has been stored, but RSP stays: as
 * processors do it. */
static void call_to(struct vcpu *c, const struct insn *i, u64 target)
{
    u64 back = c->s.gpr[RIP], sp = c->s.gpr[RSP] - i->opsize, lin = stack_linear(c, sp, i->opsize, true);

    mem_write(c, lin, i->opsize, back);
    jump_to(c, i, target);
    stack_set(c, sp);
}

static void call_rel(struct vcpu *c, const struct insn *i)
{
    call_to(c, i, c->s.gpr[RIP] + i->imm);
}

static void call_indirect(struct vcpu *c, const struct insn *i)
{
    call_to(c, i, target_operand(c, i));
}

static void ret(struct vcpu *c, const struct insn *i)
{
    u64 sp = c->s.gpr[RSP], target = mem_read(c, stack_linear(c, sp, i->opsize, false), i->opsize);

    jump_to(c, i, target);
    stack_set(c, sp + i->opsize + i->imm);
}

#define JCC(n)                                                      \
    static void jcc_##n(struct vcpu *c, const struct insn *i)       \
    {                                                               \
        if (condition(c, n))                                        \
            jump_to(c, i, c->s.gpr[RIP] + i->imm);                  \
    }
JCC(0) JCC(1) JCC(2) JCC(3) JCC(4) JCC(5) JCC(6) JCC(7) JCC(8) JCC(9) JCC(10) JCC(11) JCC(12) JCC(13) JCC(14) JCC(15)

static insn_fn *const jcc[16] = {jcc_0, jcc_1, jcc_2,  jcc_3,  jcc_4,  jcc_5,  jcc_6,  jcc_7,
                                 jcc_8, jcc_9, jcc_10, jcc_11, jcc_12, jcc_13, jcc_14, jcc_15};

static u64 counter(const struct vcpu *c, const struct insn *i)
{
    return reg_read(c, RCX * 8, i->addrsize);
}

/* `cond`: 0 LOOP, 1 LOOPE, 2 LOOPNE. The count changes only if the jump does not fault. */
static void loop(struct vcpu *c, const struct insn *i)
{
    u64 count = counter(c, i) - 1;
    bool zf = c->cc & FLAG_ZF << 8, more = reg_read(c, RCX * 8, i->addrsize) != 1;

    if (more && (i->cond == 0 || zf == (i->cond == 1)))
        jump_to(c, i, c->s.gpr[RIP] + i->imm);
    reg_write(c, RCX * 8, i->addrsize, count);
}

static void jcxz(struct vcpu *c, const struct insn *i)
{
    if (!counter(c, i))
        jump_to(c, i, c->s.gpr[RIP] + i->imm);
}

static void choose_jump_or_call(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    bool call = src->zi->mnemonic == ZYDIS_MNEMONIC_CALL;

    if (src->zi->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        choose_system(c, i, src);
    else if (src->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        i->fn = call ? call_rel : jmp_rel;
    else
        i->fn = call ? call_indirect : jmp_indirect;
}

void choose_branch(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    switch (src->zi->mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL: choose_jump_or_call(c, i, src); break;
    case ZYDIS_MNEMONIC_RET:
        if (src->zi->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
            choose_system(c, i, src);
        else
            i->fn = ret;
        break;
    case ZYDIS_MNEMONIC_LOOP: i->cond = 0; i->fn = loop; break;
    case ZYDIS_MNEMONIC_LOOPE: i->cond = 1; i->fn = loop; break;
    case ZYDIS_MNEMONIC_LOOPNE: i->cond = 2; i->fn = loop; break;
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ: i->fn = jcxz; break;
    default: i->fn = jcc[src->zi->opcode & 15]; break;
    }
    if (i->opsize == 1) /* short forms: Zydis may give the displacement's size */
        i->opsize = (u8)src->code_size;
}
