/* Far JMP, CALL and RET, IRET, software interrupts, and the fast system calls SYSCALL/SYSRET and SYSENTER/SYSEXIT
 * with their fixed flat segments. SDM vol. 2; vol. 3 §5.8.7, §5.8.8. */
#include "cpu/descriptor.h"
#include "cpu/exec_system.h"

static void far_jump_direct(struct vcpu *c, const struct insn *i)
{
    far_jump(c, (u16)i->disp, i->imm, i->opsize);
}

static void far_call_direct(struct vcpu *c, const struct insn *i)
{
    far_call(c, (u16)i->disp, i->imm, i->opsize);
}

/* Reads m16:16, m16:32 or m16:64. */
static u16 far_pointer_read(struct vcpu *c, const struct insn *i, u64 *offset)
{
    u64 at = insn_linear(c, i, i->opsize + 2u, false);

    *offset = mem_read(c, at, i->opsize);
    return (u16)mem_read(c, (at + i->opsize) & c->lin_mask, 2);
}

static void far_jump_memory(struct vcpu *c, const struct insn *i)
{
    u64 offset;
    u16 sel = far_pointer_read(c, i, &offset);

    far_jump(c, sel, offset, i->opsize);
}

static void far_call_memory(struct vcpu *c, const struct insn *i)
{
    u64 offset;
    u16 sel = far_pointer_read(c, i, &offset);

    far_call(c, sel, offset, i->opsize);
}

static void far_ret(struct vcpu *c, const struct insn *i)
{
    far_return(c, i->opsize, (u16)i->imm); /* imm is 0 for the form without */
}

static void iret(struct vcpu *c, const struct insn *i)
{
    interrupt_return(c, i->opsize);
}

static void int_n(struct vcpu *c, const struct insn *i)
{
    software_interrupt(c, (u8)i->imm);
}

static void int3(struct vcpu *c, const struct insn *i)
{
    exception_deliver(c, EVENT_SOFTWARE, EXC_BP, false, 0);
}

/* Breakpoints that MOV SS held back belong to this #DB. */
static void int1(struct vcpu *c, const struct insn *i)
{
    c->s.dr[6] |= c->s.pending_db & DR6_BREAKPOINTS;
    c->s.pending_db = 0;
    exception_deliver(c, EVENT_ICEBP, EXC_DB, false, 0);
}

static void into(struct vcpu *c, const struct insn *i)
{
    if (flags_get(c) & FLAG_OF)
        exception_deliver(c, EVENT_SOFTWARE, EXC_OF, false, 0);
}

/* The flat segments that fast system calls load without looking at descriptors. `code`: SEG_L or SEG_DB. */
static void flat_segments_set(struct vcpu *c, u16 cs, u16 ss, int cpl, u16 code)
{
    struct descriptor d = {.limit = 0xffffffff};
    u16 common = (u16)(SEG_P | SEG_S | SEG_A | SEG_G | cpl << SEG_DPL_SHIFT);

    d.attr = (u16)(common | SEG_CODE | SEG_R | code);
    segment_set(c, SEG_CS, cs, &d);
    d.attr = common | SEG_W | SEG_DB;
    segment_set(c, SEG_SS, ss, &d);
    c->s.cpl = (u8)cpl;
}

/* Intel's is for 64-bit mode alone; AMD's also works in compatibility mode, where Linux' vDSO uses it. */
static void syscall_check(struct vcpu *c)
{
    if (!(c->s.efer & EFER_SCE) || !long_mode(c) || (!code64(c) && !c->group->model->amd))
        raise_ud(c);
}

/* Both look at TF when they are done: a kernel whose mask clears TF is not stepped into, and a program that is resumed
 * with TF traps before its first instruction. */
static void step_by_new_flags(struct vcpu *c)
{
    c->s.pending_db &= ~(u64)DR6_BS;
    if (c->s.rflags & FLAG_TF)
        c->s.pending_db |= DR6_BS;
}

static void syscall(struct vcpu *c, const struct insn *i)
{
    u16 cs = c->s.msr_star >> 32 & 0xfffc;
    u64 flags, target;

    syscall_check(c);
    flags = flags_get(c) & ~(u64)FLAG_RF;
    target = code64(c) ? c->s.msr_lstar : c->s.msr_cstar;
    c->s.gpr[RCX] = c->s.gpr[RIP];
    c->s.gpr[R11] = flags;
    c->s.gpr[RIP] = target;
    flat_segments_set(c, cs, (u16)(cs + 8), 0, SEG_L);
    flags_load(c, flags & ~c->s.msr_sfmask);
    step_by_new_flags(c);
    vcpu_mode_update(c);
}

static void sysret(struct vcpu *c, const struct insn *i)
{
    u16 base = (u16)(c->s.msr_star >> 48);
    bool to64 = i->opsize == 8;

    if (!(c->s.efer & EFER_SCE) || !code64(c))
        raise_ud(c);
    /* AMD's fault in ring 3, at the fetch */
    if (c->s.cpl || (to64 && !canonical(c->s.gpr[RCX]) && !c->group->model->amd))
        raise_gp0(c);
    c->s.gpr[RIP] = to64 ? c->s.gpr[RCX] : (u32)c->s.gpr[RCX];
    flat_segments_set(c, (u16)((base + (to64 ? 16 : 0)) | 3), (u16)((base + 8) | 3), 3, to64 ? SEG_L : SEG_DB);
    flags_load(c, c->s.gpr[R11] & 0x3c7fd7);
    step_by_new_flags(c);
    vcpu_mode_update(c);
}

/* AMD's have SYSENTER and SYSEXIT in legacy mode alone. */
static void fast_call_check(struct vcpu *c)
{
    if (long_mode(c) && c->group->model->amd)
        raise_ud(c);
}

static void sysenter(struct vcpu *c, const struct insn *i)
{
    u16 cs = c->s.msr_sysenter_cs & 0xfffc;
    u64 cut = long_mode(c) ? ~0ull : 0xffffffff;

    fast_call_check(c);
    if (!protected_mode(c) || !cs)
        raise_gp0(c);
    flat_segments_set(c, cs, (u16)(cs + 8), 0, long_mode(c) ? SEG_L : SEG_DB);
    c->s.gpr[RSP] = c->s.msr_sysenter_esp & cut;
    c->s.gpr[RIP] = c->s.msr_sysenter_eip & cut;
    flags_load(c, flags_get(c) & ~(u64)(FLAG_VM | FLAG_IF | FLAG_RF));
    vcpu_mode_update(c);
}

static void sysexit(struct vcpu *c, const struct insn *i)
{
    u16 cs = c->s.msr_sysenter_cs & 0xfffc;
    bool to64 = i->opsize == 8;
    u64 cut = to64 ? ~0ull : 0xffffffff;

    fast_call_check(c);
    if (!protected_mode(c) || !cs || c->s.cpl)
        raise_gp0(c);
    if (to64 && (!canonical(c->s.gpr[RCX]) || !canonical(c->s.gpr[RDX])))
        raise_gp0(c);
    c->s.gpr[RSP] = c->s.gpr[RCX] & cut;
    c->s.gpr[RIP] = c->s.gpr[RDX] & cut;
    flat_segments_set(c, (u16)((cs + (to64 ? 32 : 16)) | 3), (u16)((cs + (to64 ? 40 : 24)) | 3), 3,
                      to64 ? SEG_L : SEG_DB);
    vcpu_mode_update(c);
}

void choose_far(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    bool direct = src->op[0].type == ZYDIS_OPERAND_TYPE_POINTER;

    switch (src->zi->mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
        i->fn = direct ? far_jump_direct : far_jump_memory;
        break;
    case ZYDIS_MNEMONIC_CALL:
        i->fn = direct ? far_call_direct : far_call_memory;
        break;
    default:
        i->fn = far_ret;
        break;
    }
}

const struct system_insn transfer_insns[] = {
    {ZYDIS_MNEMONIC_IRET, FEAT_ALWAYS, iret},      {ZYDIS_MNEMONIC_IRETD, FEAT_ALWAYS, iret},
    {ZYDIS_MNEMONIC_IRETQ, FEAT_ALWAYS, iret},     {ZYDIS_MNEMONIC_INT, FEAT_ALWAYS, int_n},
    {ZYDIS_MNEMONIC_INT3, FEAT_ALWAYS, int3},      {ZYDIS_MNEMONIC_INT1, FEAT_ALWAYS, int1},
    {ZYDIS_MNEMONIC_INTO, FEAT_ALWAYS, into},      {ZYDIS_MNEMONIC_SYSCALL, FEAT_SYSCALL, syscall},
    {ZYDIS_MNEMONIC_SYSRET, FEAT_SYSCALL, sysret}, {ZYDIS_MNEMONIC_SYSENTER, FEAT_SEP, sysenter},
    {ZYDIS_MNEMONIC_SYSEXIT, FEAT_SEP, sysexit},   {0},
};
