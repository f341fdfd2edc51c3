/* Decimal arithmetic, and BOUND: instructions that 64-bit mode lacks, so the host cannot run them. SDM vol. 2. */
#include "cpu/access.h"
#include "cpu/exec.h"

static bool flag(const struct vcpu *c, u16 f)
{
    return c->cc >> 8 & f;
}

/* SF, ZF and PF of AL; CF and AF as given; OF cleared. */
static void result_flags(struct vcpu *c, bool cf, bool af)
{
    u8 al = REG8(c, RAX * 8);
    u16 f = (u16)((al & 0x80) | (al ? 0 : FLAG_ZF) | (__builtin_parity(al) ? 0 : FLAG_PF));

    c->cc = (u16)((f | (cf ? FLAG_CF : 0) | (af ? FLAG_AF : 0)) << 8);
}

static void daa_das(struct vcpu *c, int sign)
{
    u8 al = REG8(c, RAX * 8), old = al;
    bool cf = flag(c, FLAG_CF), af = (al & 15) > 9 || flag(c, FLAG_AF), carry = false;

    if (af) {
        carry = cf || (sign > 0 ? al + 6 > 0xff : al < 6);
        al = (u8)(al + sign * 6);
    }
    if (old > 0x99 || cf) {
        al = (u8)(al + sign * 0x60);
        carry = true;
    }
    REG8(c, RAX * 8) = al;
    result_flags(c, carry, af);
}

static void daa(struct vcpu *c, const struct insn *i)
{
    daa_das(c, 1);
}

static void das(struct vcpu *c, const struct insn *i)
{
    daa_das(c, -1);
}

static void aaa(struct vcpu *c, const struct insn *i)
{
    bool adjust = (REG8(c, RAX * 8) & 15) > 9 || flag(c, FLAG_AF);

    if (adjust)
        REG16(c, RAX * 8) = (u16)(REG16(c, RAX * 8) + 0x106);
    REG8(c, RAX * 8) &= 15;
    result_flags(c, adjust, adjust);
}

static void aas(struct vcpu *c, const struct insn *i)
{
    bool adjust = (REG8(c, RAX * 8) & 15) > 9 || flag(c, FLAG_AF);

    if (adjust)
        REG16(c, RAX * 8) = (u16)(REG16(c, RAX * 8) - 0x106);
    REG8(c, RAX * 8) &= 15;
    result_flags(c, adjust, adjust);
}

static void aam(struct vcpu *c, const struct insn *i)
{
    u8 base = (u8)i->imm, al = REG8(c, RAX * 8);

    if (!base)
        raise_fault(c, EXC_DE);
    REG16(c, RAX * 8) = (u16)(al / base << 8 | al % base);
    result_flags(c, false, false);
}

static void aad(struct vcpu *c, const struct insn *i)
{
    u8 al = REG8(c, RAX * 8), tens = (u8)(REG8(c, RAX * 8 + 1) * (u8)i->imm);
    u16 flags;

    /* the undefined flags too are those of the addition */
    asm("add %[tens], %[al]\n\tlahf\n\tseto %%al" : "=&a"(flags), [al] "+&c"(al) : [tens] "d"(tens) : "cc");
    REG16(c, RAX * 8) = al;
    c->cc = flags;
}

static s64 signed_value(u64 v, int size)
{
    return size == 2 ? (s16)v : (s32)v;
}

static void bound(struct vcpu *c, const struct insn *i)
{
    u64 lin = insn_linear(c, i, i->opsize * 2u, false);
    s64 low = signed_value(mem_read(c, lin, i->opsize), i->opsize);
    s64 index = signed_value(REG64(c, i->reg), i->opsize);

    /* below the low bound the high one is not read */
    if (index < low || index > signed_value(mem_read(c, (lin + i->opsize) & c->lin_mask, i->opsize), i->opsize))
        raise_fault(c, EXC_BR);
}

void choose_bcd(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    switch (src->zi->mnemonic) {
    case ZYDIS_MNEMONIC_DAA: i->fn = daa; break;
    case ZYDIS_MNEMONIC_DAS: i->fn = das; break;
    case ZYDIS_MNEMONIC_AAA: i->fn = aaa; break;
    case ZYDIS_MNEMONIC_AAS: i->fn = aas; break;
    case ZYDIS_MNEMONIC_AAM: i->fn = aam; break;
    case ZYDIS_MNEMONIC_AAD: i->fn = aad; break;
    default: i->fn = bound; break;
    }
}
