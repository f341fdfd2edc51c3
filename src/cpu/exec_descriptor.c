/* Descriptor tables and what programs may ask about selectors: LGDT, SGDT, LIDT, SIDT, LLDT, SLDT, LTR, STR, LAR,
 * LSL, VERR, VERW, ARPL. SDM vol. 2; vol. 3 §2.4, §5.10. */
#include "cpu/descriptor.h"
#include "cpu/exec_system.h"

/* CR4.UMIP keeps these registers' contents from user code. */
static void umip_check(struct vcpu *c)
{
    if (c->s.cr4 & CR4_UMIP && c->s.cpl)
        raise_gp0(c);
}

/* Selector instructions exist in protected mode only. */
static void protected_mode_check(struct vcpu *c)
{
    if (!protected_mode(c) || v86_mode(c))
        raise_ud(c);
}

static u16 selector_operand(struct vcpu *c, const struct insn *i)
{
    return i->mem ? (u16)mem_read(c, insn_linear(c, i, 2, false), 2) : REG16(c, i->rm);
}

static void selector_store(struct vcpu *c, const struct insn *i, u16 sel)
{
    if (i->mem)
        mem_write(c, insn_linear(c, i, 2, true), 2, sel);
    else
        reg_write(c, i->rm, i->opsize, sel);
}

static void table_load(struct vcpu *c, const struct insn *i, u64 *base, u16 *limit)
{
    int size = code64(c) ? 8 : 4;
    u64 at, val;
    u16 lim;

    cpl0_check(c);
    at = insn_linear(c, i, 2 + (u32)size, false);
    lim = (u16)mem_read(c, at, 2);
    val = mem_read(c, (at + 2) & c->lin_mask, size);
    if (!canonical(val))
        raise_gp0(c);
    *base = i->opsize == 2 ? val & 0xffffff : val;
    *limit = lim;
}

static void table_store(struct vcpu *c, const struct insn *i, u64 base, u16 limit)
{
    u32 size = code64(c) ? 8 : 4;
    u8 image[10];

    umip_check(c);
    image[0] = (u8)limit;
    image[1] = (u8)(limit >> 8);
    for (u32 n = 0; n < size; n++)
        image[2 + n] = (u8)(base >> n * 8);
    mem_write_bytes(c, insn_linear(c, i, 2 + size, true), image, 2 + size);
}

static void lgdt(struct vcpu *c, const struct insn *i)
{
    table_load(c, i, &c->s.gdtr_base, &c->s.gdtr_limit);
}

static void lidt(struct vcpu *c, const struct insn *i)
{
    table_load(c, i, &c->s.idtr_base, &c->s.idtr_limit);
}

static void sgdt(struct vcpu *c, const struct insn *i)
{
    table_store(c, i, c->s.gdtr_base, c->s.gdtr_limit);
}

static void sidt(struct vcpu *c, const struct insn *i)
{
    table_store(c, i, c->s.idtr_base, c->s.idtr_limit);
}

static void sldt(struct vcpu *c, const struct insn *i)
{
    protected_mode_check(c);
    umip_check(c);
    selector_store(c, i, c->s.seg_sel[SEG_LDTR]);
}

static void str(struct vcpu *c, const struct insn *i)
{
    protected_mode_check(c);
    umip_check(c);
    selector_store(c, i, c->s.seg_sel[SEG_TR]);
}

/* A system descriptor for LDTR or TR: in the GDT, of a type in the set `types` (bit n: type n), present. */
static void system_descriptor_read(struct vcpu *c, u16 sel, u32 types, struct descriptor *d)
{
    u32 error = selector_error(sel);

    if (sel & 4 || !descriptor_read(c, sel, d) || d->attr & SEG_S || !(types >> attr_type(d->attr) & 1))
        raise_error(c, EXC_GP, error);
    if (!(d->attr & SEG_P))
        raise_error(c, EXC_NP, error);
    if (!descriptor_read_upper(c, d))
        raise_error(c, EXC_GP, error);
    if (!canonical(d->base))
        raise_error(c, EXC_GP, error);
}

static void lldt(struct vcpu *c, const struct insn *i)
{
    struct descriptor d;
    u16 sel;

    protected_mode_check(c);
    cpl0_check(c);
    sel = selector_operand(c, i);
    if (selector_null(sel)) {
        segment_set_null(c, SEG_LDTR, sel);
        return;
    }
    system_descriptor_read(c, sel, 1u << SYS_LDT, &d);
    segment_set(c, SEG_LDTR, sel, &d);
}

static void ltr(struct vcpu *c, const struct insn *i)
{
    struct descriptor d;
    u16 sel;

    protected_mode_check(c);
    cpl0_check(c);
    sel = selector_operand(c, i);
    if (selector_null(sel))
        raise_gp0(c);
    system_descriptor_read(c, sel, 1u << SYS_TSS32 | (long_mode(c) ? 0 : 1u << SYS_TSS16), &d);
    descriptor_set_busy(c, d.gva, true);
    d.attr |= SYS_TSS_BUSY_BIT;
    segment_set(c, SEG_TR, sel, &d);
}

static void zf_set(struct vcpu *c, bool zf)
{
    u64 flags = flags_get(c);

    cc_set(c, zf ? flags | FLAG_ZF : flags & ~(u64)FLAG_ZF);
}

/* The rule of LAR, LSL, VERR and VERW: whether the segment is visible at this privilege. */
static bool selector_visible(struct vcpu *c, u16 sel, struct descriptor *d)
{
    int dpl;

    if (selector_null(sel) || !descriptor_read(c, sel, d))
        return false;
    dpl = attr_dpl(d->attr);
    return attr_is_conforming(d->attr) || (dpl >= c->s.cpl && dpl >= (sel & 3));
}

/* System types that LAR and LSL know: SDM vol. 2, tables of LAR and LSL. */
#define LSL_TYPES (1u << SYS_TSS16 | 1u << SYS_LDT | 1u << SYS_TSS16_BUSY | 1u << SYS_TSS32 | 1u << SYS_TSS32_BUSY)
#define LSL_TYPES_64 (1u << SYS_LDT | 1u << SYS_TSS32 | 1u << SYS_TSS32_BUSY)
#define LAR_TYPES (LSL_TYPES | 1u << SYS_CALL16 | 1u << SYS_TASK_GATE | 1u << SYS_CALL32)
#define LAR_TYPES_64 (LSL_TYPES_64 | 1u << SYS_CALL32)

static bool type_known(const struct vcpu *c, u16 attr, u32 types, u32 types64)
{
    return attr & SEG_S || (long_mode(c) ? types64 : types) >> attr_type(attr) & 1;
}

static void lar(struct vcpu *c, const struct insn *i)
{
    struct descriptor d;
    bool ok;

    protected_mode_check(c);
    ok = selector_visible(c, selector_operand(c, i), &d) && type_known(c, d.attr, LAR_TYPES, LAR_TYPES_64);
    if (ok)
        reg_write(c, i->reg, i->opsize, d.raw >> 32 & 0x00ffff00);
    zf_set(c, ok);
}

static void lsl(struct vcpu *c, const struct insn *i)
{
    struct descriptor d;
    bool ok;

    protected_mode_check(c);
    ok = selector_visible(c, selector_operand(c, i), &d) && type_known(c, d.attr, LSL_TYPES, LSL_TYPES_64);
    if (ok)
        reg_write(c, i->reg, i->opsize, d.limit);
    zf_set(c, ok);
}

static void verr(struct vcpu *c, const struct insn *i)
{
    struct descriptor d;

    protected_mode_check(c);
    zf_set(c, selector_visible(c, selector_operand(c, i), &d) && attr_is_readable(d.attr));
}

static void verw(struct vcpu *c, const struct insn *i)
{
    struct descriptor d;

    protected_mode_check(c);
    zf_set(c, selector_visible(c, selector_operand(c, i), &d) && attr_is_writable_data(d.attr));
}

/* Raises the RPL of the destination to the source's. Segment and page must be writable only if that changes something: so
 * today's processors do it. */
static void arpl(struct vcpu *c, const struct insn *i)
{
    u16 rpl = REG16(c, i->reg) & 3, sel, raised;

    protected_mode_check(c);
    if (i->mem) {
        sel = (u16)mem_read(c, insn_linear(c, i, 2, false), 2);
    } else {
        sel = REG16(c, i->rm);
    }
    raised = (u16)((sel & ~3) | rpl);
    if ((sel & 3) < rpl) {
        if (i->mem)
            mem_write(c, insn_linear(c, i, 2, true), 2, raised); /* only now: it may lie where only reading is allowed */
        else
            REG16(c, i->rm) = raised;
    }
    zf_set(c, (sel & 3) < rpl);
}

const struct system_insn descriptor_insns[] = {
    {ZYDIS_MNEMONIC_LGDT, FEAT_ALWAYS, lgdt}, {ZYDIS_MNEMONIC_LIDT, FEAT_ALWAYS, lidt},
    {ZYDIS_MNEMONIC_SGDT, FEAT_ALWAYS, sgdt}, {ZYDIS_MNEMONIC_SIDT, FEAT_ALWAYS, sidt},
    {ZYDIS_MNEMONIC_LLDT, FEAT_ALWAYS, lldt}, {ZYDIS_MNEMONIC_SLDT, FEAT_ALWAYS, sldt},
    {ZYDIS_MNEMONIC_LTR, FEAT_ALWAYS, ltr},   {ZYDIS_MNEMONIC_STR, FEAT_ALWAYS, str},
    {ZYDIS_MNEMONIC_LAR, FEAT_ALWAYS, lar},   {ZYDIS_MNEMONIC_LSL, FEAT_ALWAYS, lsl},
    {ZYDIS_MNEMONIC_VERR, FEAT_ALWAYS, verr}, {ZYDIS_MNEMONIC_VERW, FEAT_ALWAYS, verw},
    {ZYDIS_MNEMONIC_ARPL, FEAT_ALWAYS, arpl}, {0},
};
