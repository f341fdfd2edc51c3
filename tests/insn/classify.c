/* Kinds of instructions: see classify.h. */
#include "classify.h"

#include "cpu/decode.h"

#define BITS(r) (1u << (r))

void case_decode(const struct insn_case *c, struct decoded *d)
{
    d->valid = ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder_for(c->code_size), c->bytes, INSN_MAX, &d->zi, d->op));
}

/* No CPU model shows these; natively some end the process, or enter a hypervisor. */
static bool hidden(const ZydisDecodedInstruction *zi)
{
    switch (zi->meta.isa_ext) {
    case ZYDIS_ISA_EXT_AMD3DNOW: case ZYDIS_ISA_EXT_AMD_INVLPGB: case ZYDIS_ISA_EXT_AMX_BF16: case ZYDIS_ISA_EXT_AMX_INT8:
    case ZYDIS_ISA_EXT_AMX_TILE: case ZYDIS_ISA_EXT_CLZERO: case ZYDIS_ISA_EXT_ENQCMD: case ZYDIS_ISA_EXT_FMA4:
    case ZYDIS_ISA_EXT_HRESET: case ZYDIS_ISA_EXT_KEYLOCKER: case ZYDIS_ISA_EXT_KEYLOCKER_WIDE: case ZYDIS_ISA_EXT_MCOMMIT:
    case ZYDIS_ISA_EXT_MONITORX: case ZYDIS_ISA_EXT_MOVDIR: case ZYDIS_ISA_EXT_PADLOCK: case ZYDIS_ISA_EXT_PCONFIG:
    case ZYDIS_ISA_EXT_PKU: case ZYDIS_ISA_EXT_PT: case ZYDIS_ISA_EXT_RDPRU: case ZYDIS_ISA_EXT_RTM: case ZYDIS_ISA_EXT_SGX:
    case ZYDIS_ISA_EXT_SGX_ENCLV: case ZYDIS_ISA_EXT_SMX: case ZYDIS_ISA_EXT_SNP: case ZYDIS_ISA_EXT_SSE4A:
    case ZYDIS_ISA_EXT_SVM: case ZYDIS_ISA_EXT_TBM: case ZYDIS_ISA_EXT_TDX: case ZYDIS_ISA_EXT_TSX_LDTRK:
    case ZYDIS_ISA_EXT_UINTR: case ZYDIS_ISA_EXT_VMFUNC: case ZYDIS_ISA_EXT_VTX: case ZYDIS_ISA_EXT_WAITPKG:
    case ZYDIS_ISA_EXT_XOP: case ZYDIS_ISA_EXT_XSAVES: return true;
    default: return zi->mnemonic == ZYDIS_MNEMONIC_VP2INTERSECTD || zi->mnemonic == ZYDIS_MNEMONIC_VP2INTERSECTQ;
    }
}

/* VMCALL and its like with prefixes that make them illegal: a hypervisor beneath the host may see them first. */
static bool calls_hypervisor(const struct insn_case *c)
{
    for (int n = 0; n + 2 < INSN_MAX; n++)
        if (c->bytes[n] == 0x0f && c->bytes[n + 1] == 0x01)
            return c->bytes[n + 2] >= 0xc0;
    return false;
}

enum insn_class insn_classify(const struct insn_case *c, const struct decoded *d)
{
    if (!d->valid)
        return calls_hypervisor(c) ? INSN_HIDDEN : INSN_COMPARE;
    switch (d->zi.mnemonic) {
    case ZYDIS_MNEMONIC_SYSCALL: case ZYDIS_MNEMONIC_SYSENTER: return INSN_NEVER;
    case ZYDIS_MNEMONIC_INT: return d->op[0].imm.value.u == 0x80 ? INSN_NEVER : INSN_COMPARE;
    case ZYDIS_MNEMONIC_SGDT: case ZYDIS_MNEMONIC_SIDT: case ZYDIS_MNEMONIC_SLDT: case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_SMSW: return INSN_EMULATED;
    default: return hidden(&d->zi) ? INSN_HIDDEN : INSN_COMPARE;
    }
}

static u32 destination(const struct decoded *d)
{
    u8 at = register_offset(d->op[0].reg.value);

    return at < 16 * 8 ? BITS(at / 8) : 0;
}

u32 insn_own_values(const struct decoded *d)
{
    if (!d->valid)
        return 0;
    switch (d->zi.mnemonic) {
    case ZYDIS_MNEMONIC_RDTSC: case ZYDIS_MNEMONIC_XGETBV: return BITS(RAX) | BITS(RDX);
    case ZYDIS_MNEMONIC_RDTSCP: return BITS(RAX) | BITS(RDX) | BITS(RCX);
    case ZYDIS_MNEMONIC_CPUID: return BITS(RAX) | BITS(RBX) | BITS(RCX) | BITS(RDX);
    case ZYDIS_MNEMONIC_RDRAND: case ZYDIS_MNEMONIC_RDSEED: case ZYDIS_MNEMONIC_RDPID: return destination(d);
    default: return 0;
    }
}
