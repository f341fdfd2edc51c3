/* A guest's vector or x87 instruction as a function of host code: the same instruction, its memory operand [rdi],
 * its general registers in scratch ones. SDM vol. 2 ch. 2.
 *
 *   u32 stub(void *mem, struct vcpu *c)      RDI, RSI; RSI stays as it is up to the instruction (host_fault.c uses it)
 *     flags from c->cc                       if it reads them
 *     general registers from c->s.gpr        an explicit one as RAX, implicit ones as themselves
 *     the instruction                        always in 64-bit mode
 *     general registers to c->s.gpr
 *     flags to c->cc                         if it writes them
 *     fnstsw ax                              x87: did it cause an unmasked exception?
 *     ret
 *
 * A stub touches neither the stack nor any other register, so a fault inside can leave it from any point. */
#include "cpu/vector_op.h"
#include "jit/x86_asm.h"

/* What of the instruction's operands is encoded where. */
struct operands {
    bool mem;          /* ModRM.rm is memory */
    bool reg_is_gpr;   /* ModRM.reg is a general register */
    bool rm_is_gpr;
    bool is4;          /* a register number in the immediate */
    bool narrow;       /* outside 64-bit mode REX.W-like bits are ignored for this instruction */
};

static bool is_gpr(ZydisRegister r)
{
    ZydisRegisterClass class = ZydisRegisterGetClass(r);

    return class == ZYDIS_REGCLASS_GPR64 || class == ZYDIS_REGCLASS_GPR32 || class == ZYDIS_REGCLASS_GPR16 ||
           class == ZYDIS_REGCLASS_GPR8;
}

static int gpr_number(ZydisRegister r)
{
    return ZydisRegisterGetId(r) & 15;
}

static bool is_explicit(const ZydisDecodedOperand *op)
{
    return op->encoding != ZYDIS_OPERAND_ENCODING_NONE;
}

static struct operands operands_of(const struct insn_source *src)
{
    struct operands o = {.mem = src->zi->raw.modrm.mod != 3 && src->zi->attributes & ZYDIS_ATTRIB_HAS_MODRM};

    for (int n = 0; n < src->zi->operand_count; n++) {
        const ZydisDecodedOperand *op = &src->op[n];

        if (op->encoding == ZYDIS_OPERAND_ENCODING_IS4)
            o.is4 = true;
        if (op->type != ZYDIS_OPERAND_TYPE_REGISTER || !is_gpr(op->reg.value) || !is_explicit(op))
            continue;
        if (op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)
            o.reg_is_gpr = true;
        else
            o.rm_is_gpr = true;
    }
    return o;
}

static u8 stub_modrm(const struct insn_source *src, const struct operands *o)
{
    u8 reg = o->reg_is_gpr ? X86_RAX : src->zi->raw.modrm.reg;

    if (o->mem)
        return (u8)(reg << 3 | X86_RDI);
    return (u8)(0xc0 | reg << 3 | (o->rm_is_gpr ? X86_RAX : src->zi->raw.modrm.rm));
}

static void emit_legacy_map(struct x86_asm *a, ZydisOpcodeMap map)
{
    if (map == ZYDIS_OPCODE_MAP_DEFAULT)
        return;
    asm_byte(a, 0x0f);
    if (map == ZYDIS_OPCODE_MAP_0F38)
        asm_byte(a, 0x38);
    else if (map == ZYDIS_OPCODE_MAP_0F3A)
        asm_byte(a, 0x3a);
}

static void emit_legacy(struct x86_asm *a, const struct insn_source *src, const struct operands *o)
{
    const ZydisDecodedInstruction *zi = src->zi;
    bool x87 = zi->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT, has_rex = zi->attributes & ZYDIS_ATTRIB_HAS_REX && !x87;
    u8 rex = has_rex ? (u8)(zi->raw.rex.W << 3 | zi->raw.rex.R << 2 | zi->raw.rex.B) : 0;

    if (o->mem || o->rm_is_gpr)
        rex &= (u8)~1;
    if (o->reg_is_gpr)
        rex &= (u8)~4;
    for (int n = 0; n < zi->raw.prefix_count; n++)
        if (zi->raw.prefixes[n].type == ZYDIS_PREFIX_TYPE_MANDATORY)
            asm_byte(a, zi->raw.prefixes[n].value);
    if (rex)
        asm_byte(a, 0x40 | rex);
    emit_legacy_map(a, zi->opcode_map);
    asm_byte(a, zi->opcode);
}

/* VEX and EVEX hold register extensions inverted: a set bit means registers 0 to 7. Outside 64-bit mode the bits that
 * would name registers 8 and up are ignored (those that are not, are set, or it would be LES, LDS or BOUND). */
static void emit_vex(struct x86_asm *a, const struct insn_source *src, const struct operands *o)
{
    const u8 *from = src->bytes + src->zi->raw.vex.offset;
    bool narrow = src->code_size != 8;
    u8 rxb = (u8)((o->reg_is_gpr ? 0x80 : 0) | (o->mem ? 0x60 : 0) | (o->rm_is_gpr ? 0x20 : 0) | (narrow ? 0xe0 : 0));

    if (src->zi->raw.vex.size == 2) {
        asm_code(a, 0xc5, (u8)(from[1] | (rxb & 0x80) | (narrow ? 0x40 : 0)));
    } else {
        u8 last = (u8)(from[2] | (narrow ? 0x40 : 0));

        asm_code(a, 0xc4, from[1] | rxb, o->narrow ? last & 0x7f : last);
    }
    asm_byte(a, src->zi->opcode);
}

static void emit_evex(struct x86_asm *a, const struct insn_source *src, const struct operands *o)
{
    const u8 *from = src->bytes + src->zi->raw.evex.offset;
    bool narrow = src->code_size != 8;
    u8 p0 = from[1], p1 = from[2], p2 = from[3];

    if (o->mem || o->rm_is_gpr)
        p0 |= 0x60;
    if (o->reg_is_gpr)
        p0 |= 0x90;
    if (narrow) {
        p0 |= 0xf0;
        p1 |= 0x40;
        p2 |= 0x08;
    }
    asm_code(a, 0x62, p0, o->narrow ? p1 & 0x7f : p1, p2, src->zi->opcode);
}

/* Instructions with a general register or its place in memory as operand, whose W bit means 64 bits of it: outside
 * 64-bit mode it means nothing. */
static bool ignores_w(const struct insn_source *src)
{
    if (src->code_size == 8)
        return false;
    switch (src->zi->mnemonic) {
    case ZYDIS_MNEMONIC_VMOVD: case ZYDIS_MNEMONIC_VPEXTRD: case ZYDIS_MNEMONIC_VPINSRD: case ZYDIS_MNEMONIC_VCVTSI2SD:
    case ZYDIS_MNEMONIC_VCVTSI2SS: case ZYDIS_MNEMONIC_VCVTSI2SH: case ZYDIS_MNEMONIC_VCVTUSI2SD:
    case ZYDIS_MNEMONIC_VCVTUSI2SS: case ZYDIS_MNEMONIC_VCVTUSI2SH: case ZYDIS_MNEMONIC_VPCMPESTRI:
    case ZYDIS_MNEMONIC_VPCMPESTRM: case ZYDIS_MNEMONIC_VCVTSD2SI: case ZYDIS_MNEMONIC_VCVTSS2SI:
    case ZYDIS_MNEMONIC_VCVTSH2SI: case ZYDIS_MNEMONIC_VCVTTSD2SI: case ZYDIS_MNEMONIC_VCVTTSS2SI:
    case ZYDIS_MNEMONIC_VCVTTSH2SI: case ZYDIS_MNEMONIC_VCVTSD2USI: case ZYDIS_MNEMONIC_VCVTSS2USI:
    case ZYDIS_MNEMONIC_VCVTSH2USI: case ZYDIS_MNEMONIC_VCVTTSD2USI: case ZYDIS_MNEMONIC_VCVTTSS2USI:
    case ZYDIS_MNEMONIC_VCVTTSH2USI: case ZYDIS_MNEMONIC_VPBROADCASTD: return true;
    default: return false;
    }
}

static void emit_immediate(struct x86_asm *a, const struct insn_source *src, const struct operands *o)
{
    const ZydisDecodedInstruction *zi = src->zi;

    for (int n = 0; n < 2; n++) {
        if (!zi->raw.imm[n].size)
            continue;
        assert(zi->raw.imm[n].size == 8);
        asm_byte(a, src->bytes[zi->raw.imm[n].offset] & (o->is4 && src->code_size != 8 ? 0x7f : 0xff));
    }
}

static void emit_instruction(struct x86_asm *a, const struct insn_source *src)
{
    struct operands o = operands_of(src);

    o.narrow = ignores_w(src);
    switch (src->zi->encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_VEX: emit_vex(a, src, &o); break;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX: emit_evex(a, src, &o); break;
    default: emit_legacy(a, src, &o); break;
    }
    if (src->zi->attributes & ZYDIS_ATTRIB_HAS_MODRM)
        asm_byte(a, stub_modrm(src, &o));
    emit_immediate(a, src, &o);
}

/* VZEROUPPER and VZEROALL outside 64-bit mode leave registers 8 to 15 alone. */
static bool emit_vzero_narrow(struct x86_asm *a, const struct insn_source *src)
{
    bool all = src->zi->mnemonic == ZYDIS_MNEMONIC_VZEROALL;

    if (src->code_size == 8 || (!all && src->zi->mnemonic != ZYDIS_MNEMONIC_VZEROUPPER))
        return false;
    for (int n = 0; n < 8; n++) {
        u8 both = (u8)(0xc0 | n << 3 | n);

        if (all)
            asm_code(a, 0xc5, (u8)(0x81 | (15 - n) << 3), 0xef, both); /* vpxor xmm, xmm, xmm */
        else
            asm_code(a, 0xc5, 0xf8, 0x28, both); /* vmovaps xmm, xmm */
    }
    return true;
}

/* ---- around the instruction ---- */

#define CC_OFFSET ((s32)offsetof(struct vcpu, cc))
#define GPR_OFFSET(n) ((s32)(offsetof(struct vcpu, s.gpr) + (u32)(n)*8))

static void emit_flags_in(struct x86_asm *a)
{
    asm_load(a, X86_RAX, X86_RSI, CC_OFFSET, 2);
    asm_code(a, 0x04, 0x7f); /* add al, 0x7f: overflows iff AL is 1 */
    asm_byte(a, 0x9e);       /* sahf */
}

static void emit_flags_out(struct x86_asm *a)
{
    asm_byte(a, 0x9f);             /* lahf */
    asm_code(a, 0x0f, 0x90, 0xc0); /* seto al */
    asm_store(a, X86_RAX, X86_RSI, CC_OFFSET, 2);
}

static bool reads_flags(const struct insn_source *src)
{
    return src->zi->cpu_flags && src->zi->cpu_flags->tested & FLAGS_ARITH;
}

static bool writes_flags(const struct insn_source *src)
{
    const ZydisAccessedFlags *f = src->zi->cpu_flags;

    return f && (f->modified | f->set_0 | f->set_1 | f->undefined) & FLAGS_ARITH;
}

/* General registers in and out. An implicit register stands in itself. */
static void emit_gprs(struct x86_asm *a, const struct insn_source *src, bool out)
{
    ZydisOperandActions wanted = out ? ZYDIS_OPERAND_ACTION_MASK_WRITE : ZYDIS_OPERAND_ACTION_MASK_READ;

    for (int n = 0; n < src->zi->operand_count; n++) {
        const ZydisDecodedOperand *op = &src->op[n];
        int guest, host, size;

        if (op->type != ZYDIS_OPERAND_TYPE_REGISTER || !is_gpr(op->reg.value) || !(op->actions & wanted))
            continue;
        guest = gpr_number(op->reg.value);
        host = is_explicit(op) ? X86_RAX : guest;
        size = out && op->size == 16 ? 2 : 8; /* a 32-bit result has cleared the host register's upper half too */
        if (out)
            asm_store(a, host, X86_RSI, GPR_OFFSET(guest), size);
        else
            asm_load(a, host, X86_RSI, GPR_OFFSET(guest), size);
    }
}

/* At most one explicit general register; implicit ones that a stub may use. */
static bool gprs_can_be_mapped(const struct insn_source *src)
{
    int explicit_count = 0;

    for (int n = 0; n < src->zi->operand_count; n++) {
        const ZydisDecodedOperand *op = &src->op[n];

        if (op->type != ZYDIS_OPERAND_TYPE_REGISTER || !is_gpr(op->reg.value))
            continue;
        if (!is_explicit(op) && gpr_number(op->reg.value) > X86_RDX)
            return false;
        if (is_explicit(op) && op->encoding != ZYDIS_OPERAND_ENCODING_MODRM_REG &&
            op->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
            return false;
        explicit_count += is_explicit(op);
    }
    return explicit_count <= 1;
}

bool vector_encode(struct x86_asm *a, const struct insn_source *src, enum vector_class class)
{
    if (!gprs_can_be_mapped(src))
        return false;
    if (reads_flags(src) || (class == VC_X87 && writes_flags(src)))
        emit_flags_in(a);
    emit_gprs(a, src, false);
    if (!emit_vzero_narrow(a, src))
        emit_instruction(a, src);
    emit_gprs(a, src, true);
    if (writes_flags(src))
        emit_flags_out(a);
    if (class == VC_X87)
        asm_code(a, 0xdf, 0xe0); /* fnstsw ax */
    asm_ret(a);
    return true;
}
