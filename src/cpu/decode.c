/* From instruction bytes to struct insn: Zydis decodes, this file fills in the operands that most instructions have, and a
 * table by mnemonic names the function that chooses the handler. */
#include "cpu/decode.h"

#include <string.h>

#include "base/trace.h"
#include "cpu/cpuid.h"
#include "cpu/decode_cache.h"
#include "cpu/exception.h"
#include "cpu/exec.h"
#include "cpu/illegal_length.h"
#include "cpu/segment.h"
#include "cpu/vector.h"
#include "cpu/xstate.h"

static ZydisDecoder decoders[3];

static void decoder_init(ZydisDecoder *d, ZydisMachineMode mode, ZydisStackWidth width)
{
    ZydisDecoderInit(d, mode, width);
    /* not in any CPU model: their encodings are the NOPs that they were before */
    ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
    ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
    ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
}

void decode_setup(void)
{
    decoder_init(&decoders[0], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
    decoder_init(&decoders[1], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    decoder_init(&decoders[2], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
}

const ZydisDecoder *decoder_for(int code_size)
{
    return &decoders[code_size == 8 ? 2 : code_size == 4 ? 1 : 0];
}

#define ALL_SIXTEEN 0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120
const u8 register_offsets[ZYDIS_REGISTER_MAX_VALUE + 1] = {
    [ZYDIS_REGISTER_NONE] = RZERO * 8,
    [ZYDIS_REGISTER_AL] = 0, 8, 16, 24,
    [ZYDIS_REGISTER_AH] = 1, 9, 17, 25,
    [ZYDIS_REGISTER_SPL] = 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120,
    [ZYDIS_REGISTER_AX] = ALL_SIXTEEN,
    [ZYDIS_REGISTER_EAX] = ALL_SIXTEEN,
    [ZYDIS_REGISTER_RAX] = ALL_SIXTEEN,
    [ZYDIS_REGISTER_R15 + 1 ... ZYDIS_REGISTER_EIP - 1] = RZERO * 8,
    [ZYDIS_REGISTER_EIP] = RIP * 8, RIP * 8,
    [ZYDIS_REGISTER_RIP + 1 ... ZYDIS_REGISTER_MAX_VALUE] = RZERO * 8,
};
static_assert(ZYDIS_REGISTER_R15 - ZYDIS_REGISTER_AL == 67 && ZYDIS_REGISTER_RIP == ZYDIS_REGISTER_EIP + 1, "that order");

static int segment_number(ZydisRegister r)
{
    return r >= ZYDIS_REGISTER_ES && r <= ZYDIS_REGISTER_GS ? (int)(r - ZYDIS_REGISTER_ES) : SEG_DS;
}

/* Registers that are numbers rather than places in gpr[]. */
static u8 register_operand(ZydisRegister r)
{
    switch (ZydisRegisterGetClass(r)) {
    case ZYDIS_REGCLASS_SEGMENT:
    case ZYDIS_REGCLASS_CONTROL:
    case ZYDIS_REGCLASS_DEBUG: return (u8)ZydisRegisterGetId(r);
    default: return register_offset(r);
    }
}

static void memory_operand(struct insn *i, const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *op)
{
    i->mem = op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM;
    i->seg = (u8)segment_number(op->mem.segment);
    i->base = register_offset(op->mem.base);
    i->index = register_offset(op->mem.index);
    i->scale = op->mem.scale == 8 ? 3 : op->mem.scale == 4 ? 2 : op->mem.scale == 2 ? 1 : 0;
    i->disp = (s32)op->mem.disp.value;
    if (zi->raw.sib.offset && zi->raw.modrm.mod == 0 && zi->raw.sib.base == 5) {
        /* no base but a displacement, whatever REX.B says; Zydis 4.0 takes R13D for one */
        i->base = RZERO * 8;
        i->disp = (s32)zi->raw.disp.value;
    }
    if (op->encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64) /* MOV AL, moffs: the offset may have 64 bits */
        i->imm = op->mem.disp.value & (i->addrsize == 8 ? ~0ull : i->addrsize == 4 ? 0xffffffff : 0xffff);
}

static void operand_fill(struct insn *i, const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *op,
                         bool second_immediate)
{
    switch (op->type) {
    case ZYDIS_OPERAND_TYPE_MEMORY:
        if (op->encoding != ZYDIS_OPERAND_ENCODING_NONE || op->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN)
            memory_operand(i, zi, op);
        break;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        if (second_immediate)
            i->disp = (s32)op->imm.value.u;
        else
            i->imm = op->imm.value.u;
        break;
    case ZYDIS_OPERAND_TYPE_POINTER:
        i->imm = op->ptr.offset;
        i->disp = op->ptr.segment;
        break;
    case ZYDIS_OPERAND_TYPE_REGISTER:
        switch (op->encoding) {
        case ZYDIS_OPERAND_ENCODING_MODRM_REG:
        case ZYDIS_OPERAND_ENCODING_OPCODE: i->reg = register_operand(op->reg.value); break;
        case ZYDIS_OPERAND_ENCODING_MODRM_RM: i->rm = register_operand(op->reg.value); break;
        case ZYDIS_OPERAND_ENCODING_NDSNDD: i->vvvv = register_operand(op->reg.value); break;
        default: break;
        }
        break;
    default: break;
    }
}

/* The source segment of string instructions: the override if there is one. */
u8 string_segment(const ZydisDecodedInstruction *zi)
{
    static const struct {
        ZydisInstructionAttributes attr;
        u8 seg;
    } overrides[] = {
        {ZYDIS_ATTRIB_HAS_SEGMENT_CS, SEG_CS}, {ZYDIS_ATTRIB_HAS_SEGMENT_SS, SEG_SS}, {ZYDIS_ATTRIB_HAS_SEGMENT_DS, SEG_DS},
        {ZYDIS_ATTRIB_HAS_SEGMENT_ES, SEG_ES}, {ZYDIS_ATTRIB_HAS_SEGMENT_FS, SEG_FS}, {ZYDIS_ATTRIB_HAS_SEGMENT_GS, SEG_GS}};

    for (size_t n = 0; n < ARRAY_SIZE(overrides); n++)
        if (zi->attributes & overrides[n].attr)
            return overrides[n].seg;
    return SEG_DS;
}

/* Loads a segment, control or debug register. */
static bool writes_special_register(const struct insn_source *src)
{
    for (int n = 0; n < src->zi->operand_count; n++) {
        const ZydisDecodedOperand *op = &src->op[n];

        if (op->type != ZYDIS_OPERAND_TYPE_REGISTER || !(op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        switch (ZydisRegisterGetClass(op->reg.value)) {
        case ZYDIS_REGCLASS_SEGMENT:
        case ZYDIS_REGCLASS_CONTROL:
        case ZYDIS_REGCLASS_DEBUG: return true;
        default: break;
        }
    }
    return false;
}

/* Whether the instruction ends a block: it changes RIP, the mode, the mapping, or what may interrupt. */
static bool ends_block(const struct insn_source *src)
{
    switch (src->zi->meta.category) {
    case ZYDIS_CATEGORY_COND_BR: case ZYDIS_CATEGORY_UNCOND_BR: case ZYDIS_CATEGORY_CALL: case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_INTERRUPT: case ZYDIS_CATEGORY_SYSCALL: case ZYDIS_CATEGORY_SYSRET: case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_IO: case ZYDIS_CATEGORY_IOSTRINGOP: return true;
    default: break;
    }
    switch (src->zi->mnemonic) {
    case ZYDIS_MNEMONIC_STI: case ZYDIS_MNEMONIC_POPF: case ZYDIS_MNEMONIC_POPFD: case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_STAC: case ZYDIS_MNEMONIC_CLAC: case ZYDIS_MNEMONIC_CPUID: case ZYDIS_MNEMONIC_SERIALIZE:
    case ZYDIS_MNEMONIC_LSS: case ZYDIS_MNEMONIC_LDS: case ZYDIS_MNEMONIC_LES: case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS: case ZYDIS_MNEMONIC_HLT: case ZYDIS_MNEMONIC_XSETBV: return true;
    default: return writes_special_register(src);
    }
}

static void insn_fill(struct insn *i, const struct insn_source *src)
{
    const ZydisDecodedInstruction *zi = src->zi;

    *i = (struct insn){.len = zi->length, .opsize = (u8)(zi->operand_width / 8), .addrsize = (u8)(zi->address_width / 8),
                       .base = RZERO * 8, .index = RZERO * 8, .mnemonic = (u16)zi->mnemonic,
                       .lock = !!(zi->attributes & ZYDIS_ATTRIB_HAS_LOCK)};
    if (zi->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY && i->opsize == 2)
        i->opsize = 4; /* VEX instructions on general registers have 32 bits in 16-bit code too */
    i->seg = string_segment(zi);
    for (int n = 0; n < zi->operand_count; n++)
        operand_fill(i, zi, &src->op[n], n && src->op[n - 1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE);
    i->ends_block = ends_block(src);
    if (zi->attributes & ZYDIS_ATTRIB_HAS_REP || zi->attributes & ZYDIS_ATTRIB_HAS_REPE)
        i->rep = 0xf3;
    else if (zi->attributes & ZYDIS_ATTRIB_HAS_REPNE)
        i->rep = 0xf2;
}

static void exec_ud(struct vcpu *c, const struct insn *i)
{
    raise_ud(c);
}

static void exec_gp(struct vcpu *c, const struct insn *i)
{
    raise_gp0(c);
}

static int illegal(struct insn *ret, insn_fn *fn)
{
    *ret = (struct insn){.fn = fn, .len = 1, .base = RZERO * 8, .index = RZERO * 8, .mnemonic = ZYDIS_MNEMONIC_UD2};
    return 1;
}

/* The fetch of what would belong to an illegal instruction may fault before #UD, and it may be too long. */
static int undecodable(const u8 *bytes, int avail, int code_size, struct insn *ret)
{
    int len = illegal_length(bytes, avail, code_size);

    if (len > avail && avail < 15)
        return 0;
    return illegal(ret, len > 15 ? exec_gp : exec_ud);
}

static void choose(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    insn_choose_fn *fn = choose_general(src->zi->mnemonic);
    ZydisISAExt ext = src->zi->meta.isa_ext;

    if (ext == ZYDIS_ISA_EXT_KNC || ext == ZYDIS_ISA_EXT_KNCE || ext == ZYDIS_ISA_EXT_KNCV)
        i->fn = exec_ud; /* Knights Corner's encodings: no other processor has them */
    else if (fn)
        fn(c, i, src);
    else if (vector_insn(src))
        choose_vector(c, i, src);
    else
        choose_system(c, i, src);
    if (i->fn)
        return;
    trace(STUB, "no handler for %s", ZydisMnemonicGetString(src->zi->mnemonic));
    i->fn = exec_ud;
}

/* Outside 64-bit mode VCVTUSI2SS and VCVTUSI2SD ignore W, with embedded rounding too; Zydis 4.0 refuses that. Puts the same instruction with W
 * clear into `out`. */
static bool evex_without_w(const u8 *bytes, int avail, int code_size, u8 out[15])
{
    int n = 0;

    while (n < avail && (bytes[n] == 0x66 || bytes[n] == 0x67 || (bytes[n] & 0xe7) == 0x26 || (bytes[n] & 0xfe) == 0x64))
        n++; /* prefixes that are legal */
    if (n >= avail || bytes[n] != 0x62)
        return false;
    if (code_size == 8 || avail < n + 5 || bytes[n + 1] < 0xc0 || bytes[n + 4] != 0x7b || !(bytes[n + 2] & 0x80))
        return false;
    memcpy(out, bytes, (size_t)MIN(avail, 15));
    out[n + 2] &= 0x7f;
    return true;
}

/* What cannot be found in the cache. */
static int decode_anew(struct vcpu *c, const u8 *bytes, int avail, int code_size, struct insn *ret)
{
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecodedInstruction zi;
    struct insn_source src = {.zi = &zi, .op = op, .bytes = bytes, .code_size = code_size};
    const ZydisDecoder *d = decoder_for(code_size);
    ZyanStatus status;
    u8 again[15];

    ext_save(c);
    status = ZydisDecoderDecodeFull(d, bytes, (ZyanUSize)avail, &zi, op);
    if (ZYAN_FAILED(status) && evex_without_w(bytes, avail, code_size, again)) {
        src.bytes = again;
        status = ZydisDecoderDecodeFull(d, again, (ZyanUSize)avail, &zi, op);
    }
    if (status == ZYDIS_STATUS_NO_MORE_DATA && !illegal_at_once(bytes, avail, code_size))
        return avail < 15 ? 0 : illegal(ret, exec_gp);
    if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
        return illegal(ret, exec_gp);
    if (ZYAN_FAILED(status))
        return undecodable(bytes, avail, code_size, ret);
    insn_fill(ret, &src);
    choose(c, ret, &src);
    if (avail >= 15 && src.bytes == bytes)
        decode_cache_keep(c->decoded, &src, ret);
    return zi.length;
}

/* The bytes are the guest's, which may change them meanwhile: they are read once, or what is kept of one instruction might be found for another. */
int decode_insn(struct vcpu *c, const u8 *bytes, int avail, int code_size, struct insn *ret)
{
    u8 copy[15];

    if (avail < 15) {
        for (int n = 0; n < avail; n++)
            copy[n] = *(const volatile u8 *)(bytes + n);
        return decode_anew(c, copy, avail, code_size, ret);
    }
    *(u64_any *)copy = *(const volatile u64_any *)bytes;
    *(u64_any *)(copy + 7) = *(const volatile u64_any *)(bytes + 7);
    return decode_cache_find(c->decoded, copy, code_size, ret) ? ret->len : decode_anew(c, copy, 15, code_size, ret);
}
