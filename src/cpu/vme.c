/* Virtual interrupts: see vme.h. Only the 16-bit forms of PUSHF, POPF and IRET have them; with 32 bits V86 code below
 * IOPL 3 faults as without CR4.VME, for the monitor to see to. */
#include "cpu/vme.h"

#include "cpu/descriptor.h"

#define TSS_IO_MAP_BASE 102
#define REDIRECTION_MAP_BYTES 32

void vme_set_vif(struct vcpu *c, bool on)
{
    bool allowed = v86_mode(c) ? c->s.cr4 & CR4_VME : c->s.cr4 & CR4_PVI && c->s.cpl == 3;

    if (!allowed || (on && c->s.rflags & FLAG_VIP))
        raise_gp0(c);
    if (on)
        c->s.rflags |= FLAG_VIF;
    else
        c->s.rflags &= ~(u64)FLAG_VIF;
}

u16 vme_flags_seen(const struct vcpu *c)
{
    u64 flags = flags_get(c);

    return (u16)((flags & ~(u64)FLAG_IF) | FLAG_IOPL | (flags & FLAG_VIF ? FLAG_IF : 0));
}

void vme_flags_check(struct vcpu *c, u16 flags)
{
    if (flags & FLAG_TF || (flags & FLAG_IF && c->s.rflags & FLAG_VIP))
        raise_gp0(c);
}

void vme_flags_load(struct vcpu *c, u16 flags)
{
    u64 change = FLAGS_ARITH | FLAG_DF | FLAG_NT | FLAG_TF, old = flags_get(c) & ~(u64)(FLAG_VIF | FLAG_RF);

    flags_load(c, (old & ~change) | (flags & change) | (flags & FLAG_IF ? FLAG_VIF : 0));
}

/* The map lies below the I/O permission map; a set bit, or no TSS that could have one, means the protected-mode way. */
static bool redirected(struct vcpu *c, int vector)
{
    u64 tss = c->s.seg_base[SEG_TR];
    u32 limit = c->s.seg_limit[SEG_TR], at;

    if (!(attr_type(c->s.seg_attr[SEG_TR]) & 8) || limit < TSS_IO_MAP_BASE + 1)
        raise_gp0(c);
    at = (u32)sys_read(c, tss + TSS_IO_MAP_BASE, 2) - REDIRECTION_MAP_BYTES + (u32)vector / 8;
    if (at > limit) /* below the TSS's start, too */
        raise_gp0(c);
    return !(sys_read(c, tss + at, 1) >> (vector & 7) & 1);
}

bool vme_redirect(struct vcpu *c, int vector)
{
    bool virtual_if = iopl(c) < 3;
    struct stack st;
    u32 entry;

    if (!redirected(c, vector))
        return false;
    entry = (u32)sys_read(c, (u32)vector * 4, 4);
    stack_current(c, &st, 0);
    stack_reserve(c, &st, 3, 2);
    stack_put(c, &st, 2, virtual_if ? vme_flags_seen(c) : flags_get(c));
    stack_put(c, &st, 2, c->s.seg_sel[SEG_CS]);
    stack_put(c, &st, 2, c->s.gpr[RIP]);
    stack_set(c, st.sp);
    c->s.rflags &= ~(u64)(FLAG_TF | FLAG_RF | (virtual_if ? FLAG_VIF : FLAG_IF));
    c->s.gpr[RIP] = entry & 0xffff;
    segment_load_real(c, SEG_CS, (u16)(entry >> 16));
    c->s.pending_db &= ~(u64)DR6_BS; /* TF is clear: no single-step trap follows */
    return true;
}
