/* Memory operands of vector and x87 instructions: their shape, found at decode, and their execution when they do not
 * simply lie in one page of RAM: page crossings, devices, pages with decoded code, segments with limits, and masked
 * operands whose inactive elements must not fault. SDM vol. 2 ch. 2, the exception classes of VEX and EVEX
 * instructions; vol. 1 ch. 15 (fault suppression).
 *
 * The slow way reads what is accessed into a buffer that has the operand's offset within 64 bytes (so that the host
 * sees its alignment), runs the stub on the buffer, and writes back. Everything that will be written is probed
 * before the first write. */
#include <string.h>

#include "cpu/access.h"
#include "cpu/tlb.h"
#include "cpu/vector_op.h"
#include "cpu/xstate.h"

/* ---- at decode ---- */

const ZydisDecodedOperand *vector_memory_operand(const struct insn_source *src)
{
    for (int n = 0; n < src->zi->operand_count; n++)
        if (src->op[n].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return &src->op[n];
    return NULL;
}

static u8 broadcast_lanes(ZydisBroadcastMode mode)
{
    switch (mode) {
    case ZYDIS_BROADCAST_MODE_1_TO_2: return 2;
    case ZYDIS_BROADCAST_MODE_1_TO_4:
    case ZYDIS_BROADCAST_MODE_2_TO_4: return 4;
    case ZYDIS_BROADCAST_MODE_1_TO_8:
    case ZYDIS_BROADCAST_MODE_2_TO_8:
    case ZYDIS_BROADCAST_MODE_4_TO_8: return 8;
    case ZYDIS_BROADCAST_MODE_1_TO_16:
    case ZYDIS_BROADCAST_MODE_2_TO_16:
    case ZYDIS_BROADCAST_MODE_4_TO_16:
    case ZYDIS_BROADCAST_MODE_8_TO_16: return 16;
    case ZYDIS_BROADCAST_MODE_1_TO_32: return 32;
    case ZYDIS_BROADCAST_MODE_1_TO_64: return 64;
    default: return 0;
    }
}

/* Exception classes whose masked-off elements may fault all the same. */
static bool no_fault_suppression(ZydisExceptionClass class)
{
    switch (class) {
    case ZYDIS_EXCEPTION_CLASS_E1NF: case ZYDIS_EXCEPTION_CLASS_E2NF: case ZYDIS_EXCEPTION_CLASS_E3NF:
    case ZYDIS_EXCEPTION_CLASS_E4NF: case ZYDIS_EXCEPTION_CLASS_E5NF: case ZYDIS_EXCEPTION_CLASS_E6NF:
    case ZYDIS_EXCEPTION_CLASS_E9NF: case ZYDIS_EXCEPTION_CLASS_E10NF: case ZYDIS_EXCEPTION_CLASS_E11NF: return true;
    default: return false;
    }
}

/* Lanes of the result take more, or other, than their own element of the operand; Zydis has the wrong class. */
static bool lanes_mix(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_VDBPSADBW: case ZYDIS_MNEMONIC_VCVTNE2PS2BF16: case ZYDIS_MNEMONIC_VGF2P8AFFINEQB:
    case ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB: return true;
    default: return false;
    }
}

static bool is_packed(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_VCOMPRESSPD: case ZYDIS_MNEMONIC_VCOMPRESSPS: case ZYDIS_MNEMONIC_VPCOMPRESSB:
    case ZYDIS_MNEMONIC_VPCOMPRESSW: case ZYDIS_MNEMONIC_VPCOMPRESSD: case ZYDIS_MNEMONIC_VPCOMPRESSQ:
    case ZYDIS_MNEMONIC_VEXPANDPD: case ZYDIS_MNEMONIC_VEXPANDPS: case ZYDIS_MNEMONIC_VPEXPANDB:
    case ZYDIS_MNEMONIC_VPEXPANDW: case ZYDIS_MNEMONIC_VPEXPANDD: case ZYDIS_MNEMONIC_VPEXPANDQ: return true;
    default: return false;
    }
}

static void describe_opmask(struct vector_op *op, const ZydisDecodedInstruction *zi)
{
    bool whole = no_fault_suppression(zi->meta.exception_class) || lanes_mix(zi->mnemonic);

    if (zi->avx.mask.mode == ZYDIS_MASK_MODE_INVALID || zi->avx.mask.reg <= ZYDIS_REGISTER_K0 || (whole && !op->write))
        return;
    op->faults_whole = whole;
    op->mask = is_packed(zi->mnemonic) ? VM_PACKED : VM_OPMASK;
    op->mask_reg = (u8)(zi->avx.mask.reg - ZYDIS_REGISTER_K0);
    op->lanes = broadcast_lanes(zi->avx.broadcast.mode);
    if (op->lanes < op->elements)
        op->lanes = op->elements;
}

static void describe_signs(struct vector_op *op, const struct insn_source *src, ZydisOperandEncoding where,
                           u8 element_size)
{
    for (int n = 0; n < src->zi->operand_count; n++)
        if (src->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER && src->op[n].encoding == where)
            op->mask_reg = (u8)ZydisRegisterGetId(src->op[n].reg.value);
    op->mask = VM_SIGNS;
    op->element_size = element_size;
    op->elements = (u8)(op->size / element_size);
}

static void describe_mask(struct vector_op *op, const struct insn_source *src)
{
    switch (src->zi->mnemonic) {
    case ZYDIS_MNEMONIC_MASKMOVQ:
        describe_signs(op, src, ZYDIS_OPERAND_ENCODING_MODRM_RM, 1);
        op->mask = VM_SIGNS_MMX;
        break;
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU: describe_signs(op, src, ZYDIS_OPERAND_ENCODING_MODRM_RM, 1); break;
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VPMASKMOVD: describe_signs(op, src, ZYDIS_OPERAND_ENCODING_NDSNDD, 4); break;
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ: describe_signs(op, src, ZYDIS_OPERAND_ENCODING_NDSNDD, 8); break;
    default: describe_opmask(op, src->zi); break;
    }
}

/* Legacy SSE operands of 16 bytes must be aligned, but for those that exist to be unaligned; of VEX and EVEX only
 * those that exist to be aligned. */
static u8 required_alignment(const struct vector_op *op, const ZydisDecodedInstruction *zi)
{
    switch (zi->mnemonic) {
    case ZYDIS_MNEMONIC_MOVUPS: case ZYDIS_MNEMONIC_MOVUPD: case ZYDIS_MNEMONIC_MOVDQU: case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI: case ZYDIS_MNEMONIC_PCMPESTRM: case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM: case ZYDIS_MNEMONIC_MASKMOVDQU: return 0;
    default: break;
    }
    if (zi->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return op->size == 16 ? 16 : 0;
    switch (zi->meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_AVX1:
    case ZYDIS_EXCEPTION_CLASS_E1:
    case ZYDIS_EXCEPTION_CLASS_E1NF: return (u8)op->size;
    default: return 0;
    }
}

/* Exception class 11: alignment is not checked. */
static bool never_ac(ZydisExceptionClass class)
{
    return class == ZYDIS_EXCEPTION_CLASS_AVX11 || class == ZYDIS_EXCEPTION_CLASS_E11 || class == ZYDIS_EXCEPTION_CLASS_E11NF;
}

void vector_memory_describe(struct vector_op *op, const struct insn_source *src)
{
    const ZydisDecodedOperand *mem = vector_memory_operand(src);

    op->size = (u16)(mem->size / 8);
    op->read = !!(mem->actions & ZYDIS_OPERAND_ACTION_MASK_READ);
    op->write = !!(mem->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
    op->element_size = (u8)(mem->element_size / 8);
    op->elements = op->element_size ? (u8)(op->size / op->element_size) : 0;
    op->align = required_alignment(op, src->zi);
    op->never_ac = never_ac(src->zi->meta.exception_class);
    describe_mask(op, src);
    if (op->mask == VM_NONE) /* nothing else may tell stubs apart that are the same */
        op->element_size = op->elements = op->lanes = 0;
}

/* ---- at run time ---- */

/* MMn is the physical x87 register n; the image holds the registers in stack order, from the top in FSW. */
static void mmx_get(struct vcpu *c, int n, u8 out[8])
{
    u16 fsw;

    memcpy(&fsw, ext_area(c) + 2, 2);
    memcpy(out, ext_area(c) + 32 + 16 * ((n - (fsw >> 11 & 7)) & 7), 8);
}

static u64 signs(struct vcpu *c, const struct vector_op *op)
{
    u8 reg[64];
    u64 active = 0;

    if (op->mask == VM_SIGNS_MMX)
        mmx_get(c, op->mask_reg, reg);
    else
        ext_vector_get(c, op->mask_reg, reg);
    for (int n = 0; n < op->elements; n++)
        if (reg[(n + 1) * op->element_size - 1] & 0x80)
            active |= BIT(n);
    return active;
}

/* Bit n: element n of the memory operand is accessed. */
static u64 active_elements(struct vcpu *c, const struct vector_op *op)
{
    u64 mask, active = 0;

    ext_save(c);
    if (op->mask == VM_SIGNS || op->mask == VM_SIGNS_MMX)
        return signs(c, op);
    mask = ext_opmask_get(c, op->mask_reg);
    if (op->lanes < 64)
        mask &= BIT(op->lanes) - 1;
    if (op->mask == VM_PACKED) {
        int n = __builtin_popcountll(mask);

        return n == 64 ? ~0ull : BIT(n) - 1;
    }
    for (int n = 0; n < op->lanes; n++)
        if (mask >> n & 1)
            active |= BIT(n % op->elements);
    return active;
}

struct bounce {
    const struct insn *i;
    u64 active;    /* elements */
    u32 count, size;
    u64 ea;
    u8 *p;         /* the operand */
    _Alignas(64) u8 bytes[128];
};

static u64 element_linear(struct vcpu *c, const struct bounce *b, u32 n, bool write)
{
    return seg_linear(c, b->i->seg, (b->ea + n * b->size) & c->lin_mask, b->size, write);
}

static void bounce_read(struct vcpu *c, const struct bounce *b)
{
    for (u32 n = 0; n < b->count; n++)
        if (b->active >> n & 1)
            mem_read_bytes(c, element_linear(c, b, n, false), b->p + n * b->size, b->size);
}

/* Elements are in different places as far as segments and canonical addresses go, and those checks come before paging. */
static void check_elements(struct vcpu *c, const struct bounce *b, bool write)
{
    for (u32 n = 0; n < b->count; n++)
        if (b->active >> n & 1)
            mmu_check_canonical(c, element_linear(c, b, n, write), b->size);
}

static void bounce_probe(struct vcpu *c, const struct vector_op *op, const struct bounce *b)
{
    if (op->faults_whole)
        mem_probe_write(c, seg_linear(c, b->i->seg, b->ea, op->size, true), op->size, c->mmu_index);
    if (op->mask != VM_NONE)
        check_elements(c, b, true);
    for (u32 n = 0; n < b->count; n++)
        if (b->active >> n & 1)
            mem_probe_write(c, element_linear(c, b, n, true), b->size, c->mmu_index);
}

static void bounce_write(struct vcpu *c, const struct bounce *b)
{
    for (u32 n = 0; n < b->count; n++)
        if (b->active >> n & 1)
            mem_write_bytes(c, element_linear(c, b, n, true), b->p + n * b->size, b->size);
}

/* MASKMOVDQU and MASKMOVQ: the operand counts as a whole, whatever the mask. */
static bool byte_mask(const struct vector_op *op)
{
    return op->mask == VM_SIGNS_MMX || (op->mask == VM_SIGNS && op->element_size == 1);
}

/* The alignment that #AC asks for, where it is checked: of scalars their size. Of vectors the manual leaves it open, and processors ask for
 * none, nor of operands whose elements are all masked out; but of eight bytes for MASKMOVDQU and MASKMOVQ. */
static u32 checked_alignment(const struct vector_op *op, u64 active)
{
    if (byte_mask(op))
        return 8;
    if (op->never_ac || op->mask == VM_PACKED || op->mask == VM_SIGNS || !active)
        return 1;
    return op->size == 10 ? 8 : op->size <= 8 ? op->size : 1;
}

/* What comes before page faults: #GP of instructions that want alignment, then segments, then #AC. Stores find out about their segment when
 * they store: they have set flags in MXCSR by then, and those of the x87 may not store at all. */
static void check_operand(struct vcpu *c, const struct insn *i, const struct vector_op *op, const struct bounce *b)
{
    u64 gva = (c->lin_base[i->seg] + b->ea) & c->lin_mask;
    bool misaligned = c->mmu_index == MMU_ALIGN && gva & (checked_alignment(op, b->active) - 1) && !(op->x87 && op->write);

    if (op->align && b->active && gva & (op->align - 1u))
        raise_gp0(c);
    if (byte_mask(op) || (op->mask == VM_NONE && (!op->write || misaligned)))
        mmu_check_canonical(c, seg_linear(c, i->seg, b->ea, op->size, op->write), misaligned ? 1 : op->size);
    if (op->mask != VM_NONE && !byte_mask(op) && (!op->write || misaligned))
        check_elements(c, b, op->write);
    if (misaligned)
        raise_error(c, EXC_AC, 0);
}

static void bounce_setup(struct vcpu *c, const struct insn *i, const struct vector_op *op, struct bounce *b)
{
    u64 gva;

    b->i = i;
    b->ea = insn_ea(c, i);
    gva = (c->lin_base[i->seg] + b->ea) & c->lin_mask;
    b->p = b->bytes + (gva & 63);
    b->active = op->mask == VM_NONE ? 1 : active_elements(c, op);
    b->count = op->mask == VM_NONE ? 1 : op->elements;
    b->size = op->mask == VM_NONE ? op->size : op->element_size;
    check_operand(c, i, op, b);
}

/* Unmasked invalid operation, overflow and underflow leave the destination alone, so that it does not fault either. */
#define FSW_ES 0x80
#define FSW_NO_STORE 0x19

static bool x87_stored(struct vcpu *c, u32 fsw)
{
    u16 fcw;

    memcpy(&fcw, ext_area(c), 2);
    return !(fsw & FSW_ES && fsw & ~(u32)fcw & FSW_NO_STORE);
}

#define X87_IMAGE 160

static void x87_swap(struct vcpu *c, u8 image[X87_IMAGE])
{
    u8 *area = ext_area(c);

    for (int n = 0; n < X87_IMAGE; n++) {
        u8 byte = area[n];

        area[n] = image[n];
        image[n] = byte;
    }
}

/* Only the instruction's end tells whether it stores. If the operand faults then, the registers are as they were. */
static u32 x87_store_slow(struct vcpu *c, const struct vector_op *op, const struct bounce *b)
{
    u8 image[X87_IMAGE];
    u32 fsw;

    ext_save(c);
    memcpy(image, ext_area(c), sizeof(image));
    ext_load(c);
    fsw = op->run(b->p, c);
    ext_save(c);
    if (!x87_stored(c, fsw))
        return fsw;
    x87_swap(c, image);
    mem_check_alignment(c, element_linear(c, b, 0, true), MIN(b->size, 8u));
    bounce_probe(c, op, b);
    x87_swap(c, image);
    bounce_write(c, b);
    return fsw;
}

u32 vector_run_slow(struct vcpu *c, const struct insn *i, const struct vector_op *op)
{
    struct bounce b;
    u32 fsw;

    if (op->waits) { /* a pending x87 exception comes before faults of the operand */
        ext_load(c);
        vector_fwait(c)->run(NULL, c);
        ext_settle(c);
    }
    bounce_setup(c, i, op, &b);
    if (op->x87 && op->write)
        return x87_store_slow(c, op, &b);
    if (op->read)
        bounce_read(c, &b);
    ext_load(c);
    /* of a store this sets MXCSR flags at most, as it does on the hardware before the store faults */
    fsw = op->run(b.p, c);
    if (op->write) {
        ext_settle(c); /* the probe may raise */
        bounce_probe(c, op, &b);
        bounce_write(c, &b);
    }
    return fsw;
}
