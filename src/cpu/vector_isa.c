/* Which instructions the vector unit executes, by the ISA set that Zydis names, and the CPUID features that show
 * them. SDM vol. 2, each instruction's "CPUID feature flag" column; vol. 1 §15.2 for AVX-512 and its vector lengths.
 *
 * Left out, and so #UD: what no CPU model shows (3DNow!, XOP, FMA4, SSE4A, VP2INTERSECT, Xeon Phi's sets, XSAVES). */
#include "cpu/vector_op.h"

#define ISA1(set, class, f) {ZYDIS_ISA_SET_##set, class, {FEAT_##f, FEAT_##f, FEAT_##f}}
#define ISA2(set, class, f, g) {ZYDIS_ISA_SET_##set, class, {FEAT_##f, FEAT_##g, FEAT_##g}}
#define ISA3(set, class, f, g, h) {ZYDIS_ISA_SET_##set, class, {FEAT_##f, FEAT_##g, FEAT_##h}}

/* The three vector lengths of an AVX-512 set, the shorter ones under AVX512VL. */
#define EVEX_SET(set, f)                                                                    \
    ISA2(set##_512, VC_AVX512, AVX512F, f), ISA3(set##_256, VC_AVX512, AVX512F, f, AVX512VL), \
    ISA3(set##_128, VC_AVX512, AVX512F, f, AVX512VL)
#define EVEX_ONE(set, f) ISA2(set, VC_AVX512, AVX512F, f)

static const struct vector_isa isa_sets[] = {
    ISA1(X87, VC_X87, FPU), ISA2(FCMOV, VC_X87, FPU, CMOV), ISA2(PPRO, VC_X87, FPU, CMOV),
    ISA2(SSE3X87, VC_X87, FPU, SSE3),
    ISA1(PENTIUMMMX, VC_MMX, MMX),
    ISA1(SSE, VC_SSE, SSE), ISA1(SSEMXCSR, VC_SSE, SSE), ISA1(SSE2, VC_SSE, SSE2), ISA1(SSE2MMX, VC_MMX, SSE2),
    ISA1(SSE3, VC_SSE, SSE3), ISA1(SSSE3, VC_SSE, SSSE3), ISA1(SSSE3MMX, VC_MMX, SSSE3), ISA1(SSE4, VC_SSE, SSE41),
    ISA1(SSE42, VC_SSE, SSE42), ISA1(AES, VC_SSE, AES), ISA1(PCLMULQDQ, VC_SSE, PCLMULQDQ), ISA1(SHA, VC_SSE, SHA),
    ISA1(GFNI, VC_SSE, GFNI),
    ISA1(FXSAVE, VC_X87_CONTROL, FXSR), ISA1(FXSAVE64, VC_X87_CONTROL, FXSR),
    ISA1(XSAVE, VC_XSAVE, XSAVE), ISA1(XSAVEOPT, VC_XSAVE, XSAVEOPT), ISA1(XSAVEC, VC_XSAVE, XSAVEC),
    ISA1(AVX, VC_AVX, AVX), ISA1(AVX2, VC_AVX, AVX2), ISA1(AVX2GATHER, VC_AVX, AVX2), ISA2(AVXAES, VC_AVX, AVX, AES),
    ISA2(AVX_GFNI, VC_AVX, AVX, GFNI), ISA2(VAES, VC_AVX, AVX, VAES), ISA2(VPCLMULQDQ, VC_AVX, AVX, VPCLMULQDQ),
    ISA2(FMA, VC_AVX, AVX, FMA), ISA2(F16C, VC_AVX, AVX, F16C), ISA2(AVX_VNNI, VC_AVX, AVX2, AVX_VNNI),
    EVEX_SET(AVX512F, AVX512F), EVEX_ONE(AVX512F_128N, AVX512F), EVEX_ONE(AVX512F_SCALAR, AVX512F),
    EVEX_ONE(AVX512F_KOP, AVX512F),
    EVEX_SET(AVX512BW, AVX512BW), EVEX_ONE(AVX512BW_128N, AVX512BW), EVEX_ONE(AVX512BW_KOP, AVX512BW),
    EVEX_SET(AVX512DQ, AVX512DQ), EVEX_ONE(AVX512DQ_128N, AVX512DQ), EVEX_ONE(AVX512DQ_SCALAR, AVX512DQ),
    EVEX_ONE(AVX512DQ_KOP, AVX512DQ),
    EVEX_SET(AVX512CD, AVX512CD),
    EVEX_SET(AVX512_FP16, AVX512_FP16), EVEX_ONE(AVX512_FP16_128N, AVX512_FP16),
    EVEX_ONE(AVX512_FP16_SCALAR, AVX512_FP16),
    EVEX_SET(AVX512_BF16, AVX512_BF16), EVEX_SET(AVX512_BITALG, AVX512_BITALG), EVEX_SET(AVX512_GFNI, GFNI),
    EVEX_SET(AVX512_IFMA, AVX512_IFMA), EVEX_SET(AVX512_VAES, VAES), EVEX_SET(AVX512_VBMI, AVX512_VBMI),
    EVEX_SET(AVX512_VBMI2, AVX512_VBMI2), EVEX_SET(AVX512_VNNI, AVX512_VNNI),
    EVEX_SET(AVX512_VPCLMULQDQ, VPCLMULQDQ), EVEX_SET(AVX512_VPOPCNTDQ, AVX512_VPOPCNTDQ),
};

/* In the sets above, but no work on extended registers, or not the user's. */
static bool elsewhere(const ZydisDecodedInstruction *zi)
{
    switch (zi->mnemonic) {
    case ZYDIS_MNEMONIC_MOVNTI: case ZYDIS_MNEMONIC_SFENCE: case ZYDIS_MNEMONIC_LFENCE: case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_PAUSE: case ZYDIS_MNEMONIC_CRC32: case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_XSETBV: return true;
    default: return zi->meta.isa_set == ZYDIS_ISA_SET_PPRO && zi->meta.isa_ext != ZYDIS_ISA_EXT_X87;
    }
}

const struct vector_isa *vector_isa_find(const struct insn_source *src)
{
    if (elsewhere(src->zi))
        return NULL;
    for (size_t n = 0; n < ARRAY_SIZE(isa_sets); n++)
        if (isa_sets[n].set == src->zi->meta.isa_set)
            return &isa_sets[n];
    return NULL;
}

static bool uses_class(const struct insn_source *src, ZydisRegisterClass class)
{
    for (int n = 0; n < src->zi->operand_count; n++)
        if (src->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(src->op[n].reg.value) == class)
            return true;
    return false;
}

/* Instructions on MMX registers that came with SSE; Zydis counts them to MMX. SDM vol. 1 §10.4.4, §10.4.6. */
static bool mmx_of_sse(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_MASKMOVQ: case ZYDIS_MNEMONIC_MOVNTQ: case ZYDIS_MNEMONIC_PAVGB: case ZYDIS_MNEMONIC_PAVGW:
    case ZYDIS_MNEMONIC_PEXTRW: case ZYDIS_MNEMONIC_PINSRW: case ZYDIS_MNEMONIC_PMAXSW: case ZYDIS_MNEMONIC_PMAXUB:
    case ZYDIS_MNEMONIC_PMINSW: case ZYDIS_MNEMONIC_PMINUB: case ZYDIS_MNEMONIC_PMOVMSKB: case ZYDIS_MNEMONIC_PMULHUW:
    case ZYDIS_MNEMONIC_PSADBW: case ZYDIS_MNEMONIC_PSHUFW: return true;
    default: return false;
    }
}

bool vector_isa_shown(struct vcpu *c, const struct vector_isa *isa, const struct insn_source *src)
{
    for (size_t n = 0; n < ARRAY_SIZE(isa->feature); n++)
        if (!has(c, isa->feature[n]))
            return false;
    if (isa->set == ZYDIS_ISA_SET_PENTIUMMMX && mmx_of_sse(src->zi->mnemonic))
        return has(c, FEAT_SSE);
    if (isa->set == ZYDIS_ISA_SET_AVX && src->zi->mnemonic == ZYDIS_MNEMONIC_VPCLMULQDQ)
        return has(c, FEAT_PCLMULQDQ);
    return true;
}

static bool x87_control(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_FNINIT: case ZYDIS_MNEMONIC_FNCLEX: case ZYDIS_MNEMONIC_FLDCW: case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTSW: case ZYDIS_MNEMONIC_FLDENV: case ZYDIS_MNEMONIC_FNSTENV: case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR: case ZYDIS_MNEMONIC_FDISI8087_NOP: case ZYDIS_MNEMONIC_FENI8087_NOP:
    case ZYDIS_MNEMONIC_FSETPM287_NOP: return true;
    default: return false;
    }
}

/* By opcode, as Zydis counts one form of FISTTP to SSE3. */
static bool is_x87(const ZydisDecodedInstruction *zi)
{
    return zi->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && zi->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT;
}

/* Instructions on MMX registers alone do not ask CR4.OSFXSR, whatever set they came with. */
enum vector_class vector_class_of(const struct vector_isa *isa, const struct insn_source *src)
{
    if (is_x87(src->zi)) {
        if (src->zi->mnemonic == ZYDIS_MNEMONIC_FWAIT)
            return VC_FWAIT;
        return x87_control(src->zi->mnemonic) ? VC_X87_CONTROL : VC_X87;
    }
    switch (isa->class) {
    case VC_MMX:
    case VC_SSE:
        if (uses_class(src, ZYDIS_REGCLASS_XMM))
            return VC_SSE;
        return uses_class(src, ZYDIS_REGCLASS_MMX) ? VC_MMX : isa->class;
    default: return isa->class;
    }
}
