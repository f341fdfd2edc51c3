/* The rest of the system instructions, and choose_system, which finds the handler for all of them: MSRs, CPUID, time
 * stamps, random numbers, FS and GS bases, STAC and CLAC, cache lines. SDM vol. 2.
 *
 * Not in any CPU model, so #UD: MONITOR and MWAIT, RSM outside SMM, VMX, SVM, SGX, SMX. */
#include "cpu/exec_system.h"

#include <sched.h>

#include "cpu/descriptor.h"
#include "cpu/msr.h"
#include "cpu/vcpu_trace.h"
#include "cpu/xstate.h"

static void rdmsr(struct vcpu *c, const struct insn *i)
{
    u32 msr = (u32)c->s.gpr[RCX];
    u64 val;

    cpl0_check(c);
    if (!msr_read(c, msr, &val))
        raise_gp0(c);
    c->s.gpr[RAX] = (u32)val;
    c->s.gpr[RDX] = val >> 32;
}

static void wrmsr(struct vcpu *c, const struct insn *i)
{
    cpl0_check(c);
    if (!msr_write(c, (u32)c->s.gpr[RCX], c->s.gpr[RDX] << 32 | (u32)c->s.gpr[RAX]))
        raise_gp0(c);
}

static void exec_cpuid(struct vcpu *c, const struct insn *i)
{
    u32 out[4];

    cpuid(c, (u32)c->s.gpr[RAX], (u32)c->s.gpr[RCX], out);
    c->s.gpr[RAX] = out[0];
    c->s.gpr[RBX] = out[1];
    c->s.gpr[RCX] = out[2];
    c->s.gpr[RDX] = out[3];
}

static void tsd_check(struct vcpu *c)
{
    if (c->s.cr4 & CR4_TSD)
        cpl0_check(c);
}

static void rdtsc(struct vcpu *c, const struct insn *i)
{
    u64 tsc;

    tsd_check(c);
    tsc = tsc_read(c);
    c->s.gpr[RAX] = (u32)tsc;
    c->s.gpr[RDX] = tsc >> 32;
}

static void rdtscp(struct vcpu *c, const struct insn *i)
{
    rdtsc(c, i);
    c->s.gpr[RCX] = (u32)c->s.msr_tsc_aux;
}

static void rdpid(struct vcpu *c, const struct insn *i)
{
    reg_write(c, i->rm, code64(c) ? 8 : 4, c->s.msr_tsc_aux);
}

/* There are no performance counters, so every counter number is wrong. */
static void rdpmc(struct vcpu *c, const struct insn *i)
{
    raise_gp0(c);
}

/* The host's own generator; CF says whether it had a number. */
static void random_result(struct vcpu *c, const struct insn *i, u64 val, bool ok)
{
    reg_write(c, i->rm, i->opsize, ok ? val : 0);
    cc_set(c, ok ? FLAG_CF : 0);
}

static void rdrand(struct vcpu *c, const struct insn *i)
{
    u64 val;
    bool ok;

    __asm__ volatile("rdrand %0" : "=r"(val), "=@ccc"(ok));
    random_result(c, i, val, ok);
}

static void rdseed(struct vcpu *c, const struct insn *i)
{
    u64 val;
    bool ok;

    __asm__ volatile("rdseed %0" : "=r"(val), "=@ccc"(ok));
    random_result(c, i, val, ok);
}

static void swapgs(struct vcpu *c, const struct insn *i)
{
    u64 base = c->s.seg_base[SEG_GS];

    if (!code64(c))
        raise_ud(c);
    cpl0_check(c);
    segment_base_set(c, SEG_GS, c->s.msr_kernel_gs_base);
    c->s.msr_kernel_gs_base = base;
}

static void fsgsbase_check(struct vcpu *c)
{
    if (!code64(c) || !(c->s.cr4 & CR4_FSGSBASE))
        raise_ud(c);
}

/* A 16-bit operand size means nothing to these instructions. */
static int base_size(const struct insn *i)
{
    return i->opsize == 8 ? 8 : 4;
}

static void base_write(struct vcpu *c, const struct insn *i, int seg)
{
    u64 base = reg_read(c, i->rm, base_size(i));

    fsgsbase_check(c);
    if (!canonical(base))
        raise_gp0(c);
    segment_base_set(c, seg, base);
}

static void rdfsbase(struct vcpu *c, const struct insn *i)
{
    fsgsbase_check(c);
    reg_write(c, i->rm, base_size(i), c->s.seg_base[SEG_FS]);
}

static void rdgsbase(struct vcpu *c, const struct insn *i)
{
    fsgsbase_check(c);
    reg_write(c, i->rm, base_size(i), c->s.seg_base[SEG_GS]);
}

static void wrfsbase(struct vcpu *c, const struct insn *i)
{
    base_write(c, i, SEG_FS);
}

static void wrgsbase(struct vcpu *c, const struct insn *i)
{
    base_write(c, i, SEG_GS);
}

static void ac_set(struct vcpu *c, bool on)
{
    if (c->s.cpl)
        raise_ud(c);
    c->s.rflags = on ? c->s.rflags | FLAG_AC : c->s.rflags & ~(u64)FLAG_AC;
    c->mmu_index =
        (u8)mmu_set_for(c, 0); /* all that depends on AC at CPL 0: kernels do this around every user access */
}

static void stac(struct vcpu *c, const struct insn *i)
{
    ac_set(c, true);
}

static void clac(struct vcpu *c, const struct insn *i)
{
    ac_set(c, false);
}

/* Lines need no flushing, but the address is checked as a load's. */
static void line_flush(struct vcpu *c, const struct insn *i)
{
    mem_probe_read(c, insn_linear(c, i, 1, false), 1, c->mmu_index);
}

/* A vCPU that has paused so often waits for another, which may be waiting for this host CPU. */
#define PAUSES_TO_YIELD 256

static void pause(struct vcpu *c, const struct insn *i)
{
    __asm__ volatile("pause");
    if (c->group->count == 1 || ++c->pauses % PAUSES_TO_YIELD)
        return;
    ext_save(c);
    sched_yield();
}

static void serialize(struct vcpu *c, const struct insn *i)
{
}

static const struct system_insn other_insns[] = {
    {ZYDIS_MNEMONIC_RDMSR, FEAT_MSR, rdmsr},
    {ZYDIS_MNEMONIC_WRMSR, FEAT_MSR, wrmsr},
    {ZYDIS_MNEMONIC_CPUID, FEAT_ALWAYS, exec_cpuid},
    {ZYDIS_MNEMONIC_RDTSC, FEAT_TSC, rdtsc},
    {ZYDIS_MNEMONIC_RDTSCP, FEAT_RDTSCP, rdtscp},
    {ZYDIS_MNEMONIC_RDPID, FEAT_RDPID, rdpid},
    {ZYDIS_MNEMONIC_RDPMC, FEAT_CMOV, rdpmc},
    {ZYDIS_MNEMONIC_RDRAND, FEAT_RDRAND, rdrand},
    {ZYDIS_MNEMONIC_RDSEED, FEAT_RDSEED, rdseed},
    {ZYDIS_MNEMONIC_SWAPGS, FEAT_LM, swapgs},
    {ZYDIS_MNEMONIC_RDFSBASE, FEAT_FSGSBASE, rdfsbase},
    {ZYDIS_MNEMONIC_RDGSBASE, FEAT_FSGSBASE, rdgsbase},
    {ZYDIS_MNEMONIC_WRFSBASE, FEAT_FSGSBASE, wrfsbase},
    {ZYDIS_MNEMONIC_WRGSBASE, FEAT_FSGSBASE, wrgsbase},
    {ZYDIS_MNEMONIC_STAC, FEAT_SMAP, stac},
    {ZYDIS_MNEMONIC_CLAC, FEAT_SMAP, clac},
    {ZYDIS_MNEMONIC_CLFLUSH, FEAT_CLFSH, line_flush},
    {ZYDIS_MNEMONIC_CLFLUSHOPT, FEAT_CLFLUSHOPT, line_flush},
    {ZYDIS_MNEMONIC_CLWB, FEAT_CLWB, line_flush},
    {ZYDIS_MNEMONIC_PAUSE, FEAT_ALWAYS, pause},
    {ZYDIS_MNEMONIC_SERIALIZE, FEAT_SERIALIZE, serialize},
    {0},
};

static bool table_choose(struct vcpu *c, struct insn *i, const struct system_insn *table)
{
    for (; table->mnemonic; table++)
        if (table->mnemonic == i->mnemonic) {
            i->fn = table->feature == FEAT_ALWAYS || has(c, table->feature) ? table->fn : NULL;
            return true;
        }
    return false;
}

static bool moves_segment(const struct insn_source *src)
{
    for (int n = 0; n < 2; n++)
        if (src->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(src->op[n].reg.value) == ZYDIS_REGCLASS_SEGMENT)
            return true;
    return false;
}

void choose_system(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    static const struct system_insn *const tables[] = {other_insns, descriptor_insns, control_insns, transfer_insns};

    switch (src->zi->mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
        if (moves_segment(src))
            choose_segment(c, i, src);
        else
            choose_control_debug(c, i, src);
        return;
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_POP:
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS:
        choose_segment(c, i, src);
        return;
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_RET:
        choose_far(c, i, src);
        return;
    default:
        break;
    }
    for (size_t n = 0; n < ARRAY_SIZE(tables); n++)
        if (table_choose(c, i, tables[n]))
            return;
}
