/* Flag instructions: CLC, STC, CMC, CLD, STD, CLI, STI, LAHF, SAHF, SALC. SDM vol. 2. */
#include "cpu/access.h"
#include "cpu/cpuid.h"
#include "cpu/exec.h"
#include "cpu/vme.h"

static void clc(struct vcpu *c, const struct insn *i)
{
    c->cc &= (u16) ~(FLAG_CF << 8);
}

static void stc(struct vcpu *c, const struct insn *i)
{
    c->cc |= FLAG_CF << 8;
}

static void cmc(struct vcpu *c, const struct insn *i)
{
    c->cc ^= FLAG_CF << 8;
}

static void cld(struct vcpu *c, const struct insn *i)
{
    c->s.rflags &= ~(u64)FLAG_DF;
}

static void std_(struct vcpu *c, const struct insn *i)
{
    c->s.rflags |= FLAG_DF;
}

/* Outside its I/O privilege a program has VIF, or nothing. */
static bool may_change_if(const struct vcpu *c)
{
    return !protected_mode(c) || c->s.cpl <= iopl(c);
}

static void cli(struct vcpu *c, const struct insn *i)
{
    if (may_change_if(c))
        c->s.rflags &= ~(u64)FLAG_IF;
    else
        vme_set_vif(c, false);
}

/* Interrupts stay out for one more instruction if they were off. */
static void sti(struct vcpu *c, const struct insn *i)
{
    if (!may_change_if(c)) {
        vme_set_vif(c, true);
        return;
    }
    if (c->s.rflags & FLAG_IF)
        return;
    c->s.rflags |= FLAG_IF;
    c->s.int_shadow = true;
    __atomic_or_fetch(&c->attention, c->event_held ? ATTN_STEP | ATTN_EVENT : ATTN_STEP, __ATOMIC_RELAXED);
}

static void lahf(struct vcpu *c, const struct insn *i)
{
    REG8(c, RAX * 8 + 1) = (u8)(flags_get(c));
}

static void sahf(struct vcpu *c, const struct insn *i)
{
    c->cc = (u16)((c->cc & 1) | (REG8(c, RAX * 8 + 1) & 0xd5) << 8);
}

static void salc(struct vcpu *c, const struct insn *i)
{
    REG8(c, RAX * 8) = c->cc & FLAG_CF << 8 ? 0xff : 0;
}

void choose_flags(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    bool lahf64 = src->code_size != 8 || has(c, FEAT_LAHF64);

    switch (src->zi->mnemonic) {
    case ZYDIS_MNEMONIC_CLC: i->fn = clc; break;
    case ZYDIS_MNEMONIC_STC: i->fn = stc; break;
    case ZYDIS_MNEMONIC_CMC: i->fn = cmc; break;
    case ZYDIS_MNEMONIC_CLD: i->fn = cld; break;
    case ZYDIS_MNEMONIC_STD: i->fn = std_; break;
    case ZYDIS_MNEMONIC_CLI: i->fn = cli; break;
    case ZYDIS_MNEMONIC_STI: i->fn = sti; break;
    case ZYDIS_MNEMONIC_LAHF: i->fn = lahf64 ? lahf : NULL; break;
    case ZYDIS_MNEMONIC_SAHF: i->fn = lahf64 ? sahf : NULL; break;
    default: i->fn = salc; break;
    }
}
