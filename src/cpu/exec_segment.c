/* Instructions that move segment registers: MOV, PUSH, POP, LDS, LES, LFS, LGS, LSS. SDM vol. 2.
 *
 * Loading SS holds off interrupts and debug traps until the next instruction is done, so that it can load RSP. */
#include "cpu/access.h"
#include "cpu/exec_system.h"
#include "cpu/segment.h"

static void ss_shadow(struct vcpu *c)
{
    c->s.int_shadow = c->s.debug_shadow = true;
    __atomic_or_fetch(&c->attention, ATTN_STEP, __ATOMIC_RELAXED);
}

static void mov_from_seg(struct vcpu *c, const struct insn *i)
{
    if (i->mem)
        mem_write(c, insn_linear(c, i, 2, true), 2, c->s.seg_sel[i->reg]);
    else
        reg_write(c, i->rm, i->opsize, c->s.seg_sel[i->reg]);
}

static void mov_to_seg(struct vcpu *c, const struct insn *i)
{
    u16 sel = i->mem ? (u16)mem_read(c, insn_linear(c, i, 2, false), 2) : REG16(c, i->rm);

    segment_load(c, i->reg, sel);
    if (i->reg == SEG_SS)
        ss_shadow(c);
}

/* With a 32-bit operand size processors write only the selector and leave the slot's upper half alone. */
static void push_seg(struct vcpu *c, const struct insn *i)
{
    u64 sp = c->s.gpr[RSP] - i->opsize;
    int size = i->opsize == 4 ? 2 : i->opsize;

    mem_write(c, stack_linear(c, sp, (u32)size, true), size, c->s.seg_sel[i->reg]);
    stack_set(c, sp);
}

static void pop_seg(struct vcpu *c, const struct insn *i)
{
    u64 sp = c->s.gpr[RSP], mask = c->stack_mask;
    u16 sel = (u16)mem_read(c, stack_linear(c, sp, 2, false), 2);

    segment_load(c, i->reg, sel);
    /* the old stack's width counts, should this have been POP SS */
    if (mask == 0xffff)
        REG16(c, RSP * 8) = (u16)(sp + i->opsize);
    else
        c->s.gpr[RSP] = (sp + i->opsize) & mask;
    if (i->reg == SEG_SS)
        ss_shadow(c);
}

static u8 segment_of(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_LDS:
        return SEG_DS;
    case ZYDIS_MNEMONIC_LES:
        return SEG_ES;
    case ZYDIS_MNEMONIC_LFS:
        return SEG_FS;
    case ZYDIS_MNEMONIC_LGS:
        return SEG_GS;
    default:
        return SEG_SS;
    }
}

static void load_far_pointer(struct vcpu *c, const struct insn *i)
{
    u64 ea = insn_ea(c, i);
    u64 offset = mem_read(c, seg_linear(c, i->seg, ea, i->opsize, false), i->opsize);
    u64 upper = ea + i->opsize;
    u16 sel;

    if (i->addrsize != 8)
        upper = i->addrsize == 4 ? (u32)upper : (u16)upper;
    sel = (u16)mem_read(c, seg_linear(c, i->seg, upper, 2, false), 2);
    segment_load(c, segment_of(i->mnemonic), sel);
    reg_write(c, i->reg, i->opsize, offset);
}

static bool is_segment(const ZydisDecodedOperand *op)
{
    return op->type == ZYDIS_OPERAND_TYPE_REGISTER && op->reg.value >= ZYDIS_REGISTER_ES &&
           op->reg.value <= ZYDIS_REGISTER_GS;
}

static void choose_segment_mov(struct insn *i, const struct insn_source *src)
{
    const ZydisDecodedOperand *op = src->op;

    if (is_segment(&op[0])) {
        i->reg = (u8)(op[0].reg.value - ZYDIS_REGISTER_ES);
        i->fn = i->reg == SEG_CS ? NULL : mov_to_seg;
    } else if (is_segment(&op[1])) {
        i->reg = (u8)(op[1].reg.value - ZYDIS_REGISTER_ES);
        i->fn = mov_from_seg;
    }
}

void choose_segment(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    switch (src->zi->mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
        choose_segment_mov(i, src);
        break;
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_POP:
        i->reg = (u8)(src->op[0].reg.value - ZYDIS_REGISTER_ES);
        i->fn = src->zi->mnemonic == ZYDIS_MNEMONIC_PUSH ? push_seg : i->reg == SEG_CS ? NULL : pop_seg;
        break;
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS:
        i->fn = load_far_pointer;
        break;
    default:
        break;
    }
}
