/* Control and debug registers and the instructions that command the processor: MOV CR, MOV DR, LMSW, SMSW, CLTS,
 * XSETBV, XGETBV, RDPKRU, WRPKRU, INVLPG, INVPCID, INVD, WBINVD, HLT. SDM vol. 2; vol. 3 §2.5, §4.1.1, §4.10.4, §9.8.5,
 * §17.2. */
#include "cpu/descriptor.h"
#include "cpu/exec_system.h"
#include "cpu/lapic.h"
#include "cpu/vcpu_trace.h"
#include "cpu/window.h"

#define CR0_WRITABLE (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
#define DR6_FIXED 0xffff0ff0ull
#define DR6_WRITABLE 0xe00full
#define DR7_FIXED 0x400ull
#define DR7_WRITABLE 0xffff23ffull
#define DR7_GD 0x2000ull

void cpl0_check(struct vcpu *c)
{
    if (c->s.cpl)
        raise_gp0(c);
}

/* PAE paging, where the page-directory pointers are registers. */
static bool pae_paging(u64 cr0, u64 cr4, u64 efer)
{
    return cr0 & CR0_PG && cr4 & CR4_PAE && !(efer & EFER_LME);
}

/* Raises #GP(0) for switches of CR0.PG that IA-32e mode, PCIDs or the segments forbid. */
static void paging_switch_check(struct vcpu *c, u64 cr0)
{
    bool bad;

    if (!((cr0 ^ c->s.cr0) & CR0_PG))
        return;
    if (!(cr0 & CR0_PG))
        bad = code64(c) || c->s.cr4 & CR4_PCIDE;
    else
        bad = c->s.efer & EFER_LME &&
              (!(c->s.cr4 & CR4_PAE) || c->s.seg_attr[SEG_CS] & SEG_L || !(attr_type(c->s.seg_attr[SEG_TR]) & 8));
    if (bad)
        raise_gp0(c);
}

static void cr0_write(struct vcpu *c, u64 val)
{
    u64 changed;

    if (val >> 32 || (val & CR0_PG && !(val & CR0_PE)) || (val & CR0_NW && !(val & CR0_CD)))
        raise_gp0(c);
    val = (val & CR0_WRITABLE) | CR0_ET;
    changed = val ^ c->s.cr0;
    paging_switch_check(c, val);
    if (changed & (CR0_PG | CR0_CD | CR0_NW) && pae_paging(val, c->s.cr4, c->s.efer))
        mmu_load_pdptes(c, c->s.cr3);
    c->s.cr0 = val;
    if (changed & CR0_PG && c->s.efer & EFER_LME)
        c->s.efer ^= EFER_LMA;
    if (changed & (CR0_PE | CR0_PG))
        vcpu_trace(c, CPU, "vcpu %d: CR0 %#llx EFER %#llx", c->index, (unsigned long long)val,
                   (unsigned long long)c->s.efer);
    if (changed & (CR0_PE | CR0_PG | CR0_WP))
        tlb_flush(c);
    vcpu_mode_update(c);
}

static void cr3_write(struct vcpu *c, u64 val)
{
    u64 reserved = ~((1ull << c->group->model->phys_bits) - 1);

    if (c->s.cr4 & CR4_PCIDE)
        reserved &= ~CR3_NO_FLUSH;
    if (long_mode(c) && val & reserved)
        raise_gp0(c);
    mmu_load_cr3(c, val);
    vcpu_mode_update(c);
}

static void cr4_check(struct vcpu *c, u64 val)
{
    u64 set = val & ~c->s.cr4;

    if (val & ~c->group->model->cr4_mask || (long_mode(c) && !(val & CR4_PAE)))
        raise_gp0(c);
    if (set & CR4_PCIDE && (!long_mode(c) || c->s.cr3 & CR3_PCID))
        raise_gp0(c);
}

static void cr4_write(struct vcpu *c, u64 val)
{
    u64 changed = val ^ c->s.cr4;

    cr4_check(c, val);
    if (changed & (CR4_PAE | CR4_PSE | CR4_PGE | CR4_SMEP) && pae_paging(c->s.cr0, val, c->s.efer))
        mmu_load_pdptes(c, c->s.cr3);
    c->s.cr4 = val;
    if (changed & (CR4_PAE | CR4_PSE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP | CR4_PKE | CR4_PKS))
        tlb_flush(c);
    vcpu_mode_update(c);
}

static void cr8_write(struct vcpu *c, u64 val)
{
    if (val > 15)
        raise_gp0(c);
    ext_save(c);
    lapic_cr8_write(c, val);
}

static u64 cr8_read(struct vcpu *c)
{
    ext_save(c);
    return lapic_cr8_read(c);
}

u64 control_register_read(struct vcpu *c, int n)
{
    switch (n) {
    case 0:
        return c->s.cr0;
    case 2:
        return c->s.cr2;
    case 3:
        return c->s.cr3;
    case 4:
        return c->s.cr4;
    default:
        return cr8_read(c);
    }
}

void control_register_write(struct vcpu *c, int n, u64 val)
{
    switch (n) {
    case 0:
        cr0_write(c, val);
        break;
    case 2:
        c->s.cr2 = val;
        break;
    case 3:
        cr3_write(c, val);
        break;
    case 4:
        cr4_write(c, val);
        break;
    default:
        cr8_write(c, val);
        break;
    }
}

static void mov_from_cr(struct vcpu *c, const struct insn *i)
{
    cpl0_check(c);
    reg_write(c, i->rm, code64(c) ? 8 : 4, control_register_read(c, i->reg));
}

static void mov_to_cr(struct vcpu *c, const struct insn *i)
{
    cpl0_check(c);
    control_register_write(c, i->reg, code64(c) ? REG64(c, i->rm) : REG32(c, i->rm));
}

/* DR4 and DR5 are other names of DR6 and DR7, until CR4.DE takes them away. DR7.GD traps every access. */
static int debug_register(struct vcpu *c, const struct insn *i)
{
    int n = i->reg;

    if (n == 4 || n == 5) {
        if (c->s.cr4 & CR4_DE)
            raise_ud(c);
        n += 2;
    }
    cpl0_check(c);
    if (c->s.dr[7] & DR7_GD) {
        c->s.dr[6] |= DR6_BD;
        c->s.rflags |= FLAG_RF; /* a fault that is no breakpoint pushes RF set: SDM vol. 3 §17.3.1.1 */
        raise_fault(c, EXC_DB);
    }
    return n;
}

static void mov_from_dr(struct vcpu *c, const struct insn *i)
{
    int n = debug_register(c, i);

    reg_write(c, i->rm, code64(c) ? 8 : 4, c->s.dr[n]);
}

void debug_register_load(struct vcpu *c, int n, u64 val)
{
    if (n >= 6 && val >> 32)
        raise_gp0(c);
    if (n == 6)
        val = (val & DR6_WRITABLE) | DR6_FIXED;
    else if (n == 7)
        val = (val & DR7_WRITABLE) | DR7_FIXED;
    c->s.dr[n] = val;
    tlb_flush(c); /* TLB entries know whether their page is watched */
    vcpu_mode_update(c);
    __atomic_or_fetch(&c->attention, ATTN_STEP, __ATOMIC_RELAXED);
}

static void mov_to_dr(struct vcpu *c, const struct insn *i)
{
    u64 val = code64(c) ? REG64(c, i->rm) : REG32(c, i->rm);
    int n = debug_register(c, i);

    debug_register_load(c, n, val);
}

static void lmsw(struct vcpu *c, const struct insn *i)
{
    u64 val;

    cpl0_check(c);
    val = i->mem ? mem_read(c, insn_linear(c, i, 2, false), 2) : REG16(c, i->rm);
    /* PE can be set so, not cleared */
    cr0_write(c, (c->s.cr0 & ~(u64)(CR0_MP | CR0_EM | CR0_TS)) | (val & (CR0_PE | CR0_MP | CR0_EM | CR0_TS)));
}

static void smsw(struct vcpu *c, const struct insn *i)
{
    if (c->s.cr4 & CR4_UMIP)
        cpl0_check(c);
    if (i->mem)
        mem_write(c, insn_linear(c, i, 2, true), 2, c->s.cr0);
    else
        reg_write(c, i->rm, i->opsize, c->s.cr0);
}

static void clts(struct vcpu *c, const struct insn *i)
{
    cpl0_check(c);
    c->s.cr0 &= ~(u64)CR0_TS;
    vcpu_mode_update(c);
}

static void osxsave_check(struct vcpu *c)
{
    if (!(c->s.cr4 & CR4_OSXSAVE))
        raise_ud(c);
}

bool xcr0_valid(const struct vcpu *c, u64 val)
{
    u64 avx512 = BIT(XCOMP_OPMASK) | BIT(XCOMP_ZMM_HI256) | BIT(XCOMP_HI16_ZMM);

    if (val & ~c->group->model->xcr0_mask || !(val & BIT(XCOMP_X87)) ||
        (val & BIT(XCOMP_AVX) && !(val & BIT(XCOMP_SSE))))
        return false;
    return !(val & avx512) || ((val & avx512) == avx512 && val & BIT(XCOMP_AVX));
}

static void xsetbv(struct vcpu *c, const struct insn *i)
{
    u64 val = c->s.gpr[RDX] << 32 | (u32)c->s.gpr[RAX];

    osxsave_check(c);
    cpl0_check(c);
    if ((u32)c->s.gpr[RCX] || !xcr0_valid(c, val))
        raise_gp0(c);
    ext_save(c); /* what is live was loaded under the old mask */
    c->s.xcr0 = val;
    vcpu_mode_update(c);
}

static void xgetbv(struct vcpu *c, const struct insn *i)
{
    u32 which = (u32)c->s.gpr[RCX];
    u64 val;

    osxsave_check(c);
    if (which > 1 || (which == 1 && !has(c, FEAT_XGETBV1)))
        raise_gp0(c);
    val = which ? ext_in_use(c) & c->s.xcr0 : c->s.xcr0;
    c->s.gpr[RAX] = (u32)val;
    c->s.gpr[RDX] = val >> 32;
}

/* Both in every ring; SDM vol. 2. */
static void pkru_check(struct vcpu *c, u32 zero)
{
    if (!(c->s.cr4 & CR4_PKE))
        raise_ud(c);
    if (zero)
        raise_gp0(c);
}

static void rdpkru(struct vcpu *c, const struct insn *i)
{
    pkru_check(c, (u32)c->s.gpr[RCX]);
    c->s.gpr[RAX] = c->s.pkru;
    c->s.gpr[RDX] = 0;
}

static void wrpkru(struct vcpu *c, const struct insn *i)
{
    pkru_check(c, (u32)c->s.gpr[RCX] | (u32)c->s.gpr[RDX]);
    mmu_load_pkru(c, (u32)c->s.gpr[RAX]);
}

static void invlpg(struct vcpu *c, const struct insn *i)
{
    u64 gva = (c->lin_base[i->seg] + insn_ea(c, i)) & c->lin_mask; /* no segment checks, and no fault */

    cpl0_check(c);
    if (canonical(gva))
        tlb_flush_page(c, gva);
}

/* One address of a PCID, all of it, everything, everything but global pages. */
static void pcid_invalidate(struct vcpu *c, u64 type, u32 pcid, u64 gva)
{
    bool loaded = pcid == (c->s.cr4 & CR4_PCIDE ? c->s.cr3 & CR3_PCID : 0);

    if (type >= 2) {
        tlb_flush(c);
    } else if (loaded && type == 0) {
        tlb_flush_page(c, gva);
    } else {
        window_drop_pcid(c, pcid);
        tlb_space_drop(c->tlb, pcid);
        if (loaded)
            tlb_flush_local(c);
    }
}

static void invpcid(struct vcpu *c, const struct insn *i)
{
    u64 type = code64(c) ? REG64(c, i->reg) : REG32(c, i->reg), pcid, gva, at;

    cpl0_check(c);
    at = insn_linear(c, i, 16, false);
    mem_probe_read(c, at, 16, c->mmu_index);
    pcid = mem_read(c, at, 8);
    gva = mem_read(c, (at + 8) & c->lin_mask, 8);
    if (type > 3 || pcid > CR3_PCID)
        raise_gp0(c);
    if (type <= 1 && pcid && !(c->s.cr4 & CR4_PCIDE))
        raise_gp0(c);
    if (type == 0 && !canonical(gva))
        raise_gp0(c);
    pcid_invalidate(c, type, (u32)pcid, gva);
}

/* INVD, WBINVD: there are no caches to write back. */
static void cache_flush(struct vcpu *c, const struct insn *i)
{
    cpl0_check(c);
}

static void hlt(struct vcpu *c, const struct insn *i)
{
    cpl0_check(c);
    c->s.activity = VCPU_HALTED;
}

void choose_control_debug(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    const ZydisDecodedOperand *op = src->op;
    ZydisRegisterClass to = ZydisRegisterGetClass(op[0].reg.value), from = ZydisRegisterGetClass(op[1].reg.value);

    if (to == ZYDIS_REGCLASS_CONTROL)
        i->fn = mov_to_cr;
    else if (from == ZYDIS_REGCLASS_CONTROL)
        i->fn = mov_from_cr;
    else if (to == ZYDIS_REGCLASS_DEBUG)
        i->fn = mov_to_dr;
    else if (from == ZYDIS_REGCLASS_DEBUG)
        i->fn = mov_from_dr;
}

const struct system_insn control_insns[] = {
    {ZYDIS_MNEMONIC_LMSW, FEAT_ALWAYS, lmsw},
    {ZYDIS_MNEMONIC_SMSW, FEAT_ALWAYS, smsw},
    {ZYDIS_MNEMONIC_CLTS, FEAT_ALWAYS, clts},
    {ZYDIS_MNEMONIC_XSETBV, FEAT_XSAVE, xsetbv},
    {ZYDIS_MNEMONIC_XGETBV, FEAT_XSAVE, xgetbv},
    {ZYDIS_MNEMONIC_RDPKRU, FEAT_PKU, rdpkru},
    {ZYDIS_MNEMONIC_WRPKRU, FEAT_PKU, wrpkru},
    {ZYDIS_MNEMONIC_INVLPG, FEAT_ALWAYS, invlpg},
    {ZYDIS_MNEMONIC_INVPCID, FEAT_INVPCID, invpcid},
    {ZYDIS_MNEMONIC_INVD, FEAT_ALWAYS, cache_flush},
    {ZYDIS_MNEMONIC_WBINVD, FEAT_ALWAYS, cache_flush},
    {ZYDIS_MNEMONIC_HLT, FEAT_ALWAYS, hlt},
    {0},
};
