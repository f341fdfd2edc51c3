/* Fitting state to instructions: see operands.h. */
#include "operands.h"

#include <string.h>

#include "cpu/decode.h"
#include "random_state.h"

#define STACK_TOP (DATA_VA + 0x1800)

/* ---- pieces ---- */

static ZydisRegisterClass class_of(const ZydisDecodedOperand *op)
{
    return op->type == ZYDIS_OPERAND_TYPE_REGISTER ? ZydisRegisterGetClass(op->reg.value) : ZYDIS_REGCLASS_INVALID;
}

static bool is_gpr(const ZydisDecodedOperand *op)
{
    switch (class_of(op)) {
    case ZYDIS_REGCLASS_GPR8: case ZYDIS_REGCLASS_GPR16: case ZYDIS_REGCLASS_GPR32: case ZYDIS_REGCLASS_GPR64: return true;
    default: return false;
    }
}

static bool is_memory(const ZydisDecodedOperand *op)
{
    return op->type == ZYDIS_OPERAND_TYPE_MEMORY;
}

/* Sets `size` bytes of the register that r is part of. */
static void gpr_set(struct insn_case *c, ZydisRegister r, u64 val, u32 size)
{
    u8 at = register_offset(r);

    if (at < 16 * 8)
        memcpy((u8 *)c->s.gpr + at, &val, MIN(size, 8u - at % 8));
}

static u64 segment_base(const struct insn_case *c, int seg)
{
    if (c->code_size != 8)
        return layout_base(c->s.sel[seg]);
    return seg == SEG_FS ? c->s.fs_base : seg == SEG_GS ? c->s.gs_base : 0;
}

static void redecode(struct insn_case *c, struct decoded *d)
{
    case_decode(c, d);
    assert(d->valid);
}

/* Writes to the data pages as they will be; what lies outside is dropped. */
static void plant(struct insn_case *c, u64 va, const void *from, u64 size)
{
    if (va >= DATA_VA && va < DATA_VA + DATA_WRITABLE)
        memcpy(c->data + (va - DATA_VA), from, MIN(size, DATA_VA + DATA_WRITABLE - va));
}

static void plant_value(struct insn_case *c, u64 va, u64 val, u64 size)
{
    plant(c, va, &val, size);
}

static void plant_lanes(struct insn_case *c, struct rng *r, u64 va, u64 size)
{
    for (u64 n = 0; n < size; n += 8)
        plant_value(c, va + n, random_lanes(r), 8);
}

/* An address for an operand of `size` bytes: mostly within the pages and aligned, or not; now and then over an edge. */
static u64 data_address(const struct insn_case *c, struct rng *r, u64 size)
{
    u64 over = below(r, size + 8);

    switch (below(r, 40)) {
    case 0: return DATA_VA + 0x1000 - over;
    case 1: return DATA_VA + 0x1000 - over;
    case 2: return DATA_VA - over;
    case 3: return DATA_VA + DATA_WRITABLE - over;
    case 4: return DATA_VA + DATA_SIZE - over;
    case 5: return DATA_VA + DATA_WRITABLE + (below(r, 0xf00) & ~63ull);
    case 6: return DATA_VA + DATA_SIZE + below(r, 0x1000);
    case 7:
        if (one_in(r, 4))
            return c->code_size == 8 ? 0x800000000000 - over : 0xffffffff - over;
        return CODE_VA + below(r, 0x1000);
    case 8:
        if (c->code_size == 8 && one_in(r, 2))
            return one_in(r, 2) ? rnd(r) : 0xffff800000000000 - over;
        return rnd(r) & 0xffffffff;
    case 9: case 10: case 11: case 12: case 13: return DATA_VA + 0x1200 + below(r, 0xc00);
    default: return DATA_VA + 0x1200 + (below(r, 0xc00) & ~63ull);
    }
}

static u64 code_address(struct rng *r)
{
    return CODE_VA + below(r, CODE_SIZE);
}

/* Offset in CS where control may go. */
static u64 code_target(const struct insn_case *c, struct rng *r)
{
    if (one_in(r, 16))
        return random_integer(r);
    return code_address(r) - (c->code_size == 8 ? 0 : layout_base(c->s.sel[SEG_CS]));
}

/* ---- memory operands ---- */

static bool is_vector_index(ZydisRegister r)
{
    return ZydisRegisterGetClass(r) >= ZYDIS_REGCLASS_XMM;
}

/* Indices of gathers and scatters, all over the registers: XMM to ZMM. */
static void small_indices(struct insn_case *c, struct rng *r, u64 components)
{
    memcpy(c->s.xsave + 512, &components, 8);
    for (int n = 160; n < 416; n += 8) {
        u64 val = below(r, 512) << 32 | below(r, 512);

        if (one_in(r, 8))
            val = rnd(r);
        memcpy(c->s.xsave + n, &val, 8);
    }
    for (int n = 576; n < XSAVE_AREA_SIZE - 64; n += 8)
        if (n < 1088 || n >= 1152) {
            u64 val = below(r, 512) << (n & 8 ? 32 : 0) | below(r, 512);

            memcpy(c->s.xsave + n, &val, 8);
        }
}

/* Puts `val` into the displacement's bytes. */
static void displacement_set(struct insn_case *c, struct decoded *d, u64 val)
{
    memcpy(c->bytes + d->zi.raw.disp.offset, &val, d->zi.raw.disp.size / 8);
    redecode(c, d);
}

/* Makes operand n point at `target` by choosing registers and displacement. */
static void aim_modrm(struct insn_case *c, struct decoded *d, int n, struct rng *r, u64 target, u64 components)
{
    const ZydisDecodedOperand *m = &d->op[n];
    u32 width = d->zi.address_width / 8u;
    ZydisRegister base = m->mem.base, index = m->mem.index;
    bool rip = base == ZYDIS_REGISTER_RIP || base == ZYDIS_REGISTER_EIP;
    u64 ea = target - segment_base(c, (int)(m->mem.segment - ZYDIS_REGISTER_ES)), steps = below(r, 8);

    if (index != ZYDIS_REGISTER_NONE && is_vector_index(index)) {
        small_indices(c, r, components);
        steps = 0;
    } else if (index != ZYDIS_REGISTER_NONE) {
        if (one_in(r, 4))
            steps = random_integer(r);
        gpr_set(c, index, steps, width);
    }
    if (d->zi.raw.disp.size && rip)
        displacement_set(c, d, ea - (c->s.rip + d->zi.length));
    else if (d->zi.raw.disp.size && base == ZYDIS_REGISTER_NONE)
        displacement_set(c, d, ea - steps * m->mem.scale);
    if (base == ZYDIS_REGISTER_NONE || rip)
        return;
    ea -= (u64)m->mem.disp.value;
    gpr_set(c, base, base == index ? ea / (1u + m->mem.scale) : ea - steps * m->mem.scale, width);
}

/* Where operand n is, and how many bytes deserve a say in what they hold. */
static u64 aim(struct insn_case *c, struct decoded *d, int n, struct rng *r, u64 components)
{
    const ZydisDecodedOperand *m = &d->op[n];
    u64 size = MAX(m->size / 8u, 1u), target = data_address(c, r, size);
    bool stack = m->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT && m->mem.base >= ZYDIS_REGISTER_SP &&
                 ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, m->mem.base) == ZYDIS_REGISTER_RSP;

    if (stack)
        return 0;
    if (m->encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64)
        displacement_set(c, d, target - segment_base(c, (int)(m->mem.segment - ZYDIS_REGISTER_ES)));
    else if (m->encoding == ZYDIS_OPERAND_ENCODING_NONE) /* strings, XLAT, MASKMOV */
        gpr_set(c, m->mem.base, target - segment_base(c, (int)(m->mem.segment - ZYDIS_REGISTER_ES)), d->zi.address_width / 8u);
    else
        aim_modrm(c, d, n, r, target, components);
    plant_lanes(c, r, target - 16, MIN(size, 512u) + 48);
    return target;
}

/* ---- stacks and far pointers ---- */

static u64 stack_linear(const struct insn_case *c)
{
    u64 sp = c->s.gpr[RSP];

    if (c->code_size == 8)
        return sp;
    if (c->s.sel[SEG_SS] & 4 && !layout_ldt[c->s.sel[SEG_SS] >> 3].big)
        sp &= 0xffff;
    return (u32)(layout_base(c->s.sel[SEG_SS]) + sp);
}

static void stack_set(struct insn_case *c, struct rng *r)
{
    u64 at = STACK_TOP + (below(r, 64) << 3);

    if (one_in(r, 8))
        at += below(r, 8);
    if (one_in(r, 12))
        at = data_address(c, r, 32);
    c->s.gpr[RSP] = at - (c->code_size == 8 ? 0 : layout_base(c->s.sel[SEG_SS]));
    if (c->code_size != 8)
        c->s.gpr[RSP] &= 0xffffffff;
}

/* A code selector with an offset that fits it. */
static u16 far_target(struct rng *r, u64 *offset)
{
    static const u16 code[] = {SEL_CODE32, SEL_CODE64, SEL_CODE32, LDT_SELECTOR(LDT_CODE16), LDT_SELECTOR(LDT_CODE32),
                               LDT_SELECTOR(LDT_CODE_CONFORMING), LDT_SELECTOR(LDT_CODE_EXECUTE)};
    u16 sel = one_in(r, 4) ? layout_selector(rnd(r)) : code[below(r, ARRAY_SIZE(code))];

    *offset = one_in(r, 16) ? random_integer(r) : code_address(r) - layout_base(sel);
    return sel;
}

static u16 stack_selector(struct rng *r)
{
    return one_in(r, 2) ? SEL_DATA : layout_selector(rnd(r));
}

/* What RET, RETF and IRET find. No trap flag in it: the trap would come after the instruction that it returns to. */
static void plant_return(struct insn_case *c, struct rng *r, u32 word, bool interrupt)
{
    u64 at = stack_linear(c), offset;
    u16 sel = far_target(r, &offset);
    u64 flags = rnd(r) & ~(u64)FLAG_TF, sp = STACK_TOP;

    plant_value(c, at, offset, word);
    plant_value(c, at + word, sel, word);
    at += 2 * word;
    if (interrupt) {
        if (!one_in(r, 4))
            flags &= ~(u64)FLAG_NT;
        plant_value(c, at, flags, word);
        at += word;
    }
    plant_value(c, at, sp, word);
    plant_value(c, at + word, stack_selector(r), word);
}

static void plant_far_pointer(struct insn_case *c, struct rng *r, u64 at, u32 word, bool code)
{
    u64 offset = random_integer(r);
    u16 sel = code ? far_target(r, &offset) : layout_selector(rnd(r));

    plant_value(c, at, offset, word);
    plant_value(c, at + word, sel, 2);
}

static void direct_far_pointer(struct insn_case *c, struct decoded *d, struct rng *r)
{
    u64 offset;
    u16 sel = far_target(r, &offset);

    memcpy(c->bytes + d->zi.raw.imm[0].offset, &offset, d->zi.raw.imm[0].size / 8);
    memcpy(c->bytes + d->zi.raw.imm[1].offset, &sel, 2);
    redecode(c, d);
}

/* ---- what single instructions want ---- */

static void relative_target(struct insn_case *c, struct decoded *d, struct rng *r)
{
    u64 val = code_target(c, r) - (c->s.rip + d->zi.length);

    if (d->zi.raw.imm[0].size < 16 || one_in(r, 4))
        return;
    memcpy(c->bytes + d->zi.raw.imm[0].offset, &val, d->zi.raw.imm[0].size / 8);
    redecode(c, d);
}

static void branch(struct insn_case *c, struct decoded *d, struct rng *r, u64 target)
{
    const ZydisDecodedOperand *op = &d->op[0];
    bool far = d->zi.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
    u32 word = d->zi.operand_width / 8u;

    if (op->type == ZYDIS_OPERAND_TYPE_POINTER)
        direct_far_pointer(c, d, r);
    else if (op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        relative_target(c, d, r);
    else if (is_memory(op) && far)
        plant_far_pointer(c, r, target, word, true);
    else if (is_memory(op))
        plant_value(c, target, code_target(c, r), word);
    else if (is_gpr(op))
        gpr_set(c, op->reg.value, code_target(c, r), 8);
}

/* Makes the comparison succeed half of the time. */
static void compare_exchange(struct insn_case *c, const struct decoded *d, struct rng *r, u64 target)
{
    bool wide = d->zi.mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B || d->zi.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B;
    u64 size = d->op[0].size / 8u / (wide ? 2 : 1);

    if (one_in(r, 2))
        return;
    if (is_memory(&d->op[0])) {
        plant_value(c, target, c->s.gpr[RAX], size);
        if (wide)
            plant_value(c, target + size, c->s.gpr[RDX], size);
    } else if (register_offset(d->op[0].reg.value) < 16 * 8) {
        gpr_set(c, d->op[0].reg.value, c->s.gpr[RAX], (u32)size);
    }
}

/* Quotients that fit. */
static void divide(struct insn_case *c, const struct decoded *d, struct rng *r)
{
    if (one_in(r, 3))
        return;
    c->s.gpr[RDX] = d->zi.mnemonic == ZYDIS_MNEMONIC_IDIV && one_in(r, 2) ? ~0ull : below(r, 4);
    if (d->op[0].size == 8)
        gpr_set(c, ZYDIS_REGISTER_AH, c->s.gpr[RDX], 1);
}

static void selector_operand(struct insn_case *c, const struct decoded *d, struct rng *r, u64 target)
{
    u16 sel = layout_selector(rnd(r));

    plant_value(c, target, sel, 2);
    for (int n = 0; n < d->zi.operand_count_visible; n++)
        if (is_gpr(&d->op[n]))
            gpr_set(c, d->op[n].reg.value, sel, one_in(r, 2) ? 2 : 8);
}

/* An XSAVE image; a wrong header now and then, but for bits 8 to 23, where hosts have components that no CPU model shows. */
static void plant_image(struct insn_case *c, struct rng *r, u64 target, u64 components)
{
    _Alignas(64) u8 image[XSAVE_AREA_SIZE];

    random_xsave(r, components, image);
    if (one_in(r, 8))
        image[one_in(r, 2) ? 512 : 515 + below(r, 61)] |= (u8)(1 << below(r, 8));
    if (one_in(r, 3)) /* the compacted format */
        image[527] = 0x80, image[520] = image[512] | (u8)(rnd(r) & components);
    plant(c, target, image, sizeof(image));
}

static void save_area(struct insn_case *c, const struct decoded *d, struct rng *r, u64 target, u64 components)
{
    c->s.gpr[RAX] &= components;
    c->s.gpr[RDX] = 0;
    if (one_in(r, 3))
        c->s.gpr[RAX] = components;
    if (!one_in(r, 8))
        plant_image(c, r, target, components);
}

static void x87_environment(struct insn_case *c, struct rng *r, u64 target)
{
    _Alignas(64) u8 image[XSAVE_AREA_SIZE];

    if (one_in(r, 4))
        return;
    random_xsave(r, 0, image);
    plant(c, target, image, 4); /* control word, status word: the 16-bit form wants them side by side, the other's is near enough */
    plant(c, target + 4, image + 2, 2);
}

static void mxcsr(struct insn_case *c, struct rng *r, u64 target)
{
    if (!one_in(r, 8))
        plant_value(c, target, rnd(r) & 0xffff, 4);
}

static void bit_offset(struct insn_case *c, const struct decoded *d, struct rng *r)
{
    if (is_memory(&d->op[0]) && is_gpr(&d->op[1]) && !one_in(r, 4))
        gpr_set(c, d->op[1].reg.value, below(r, 4096) - 2048, 8);
}

static void string_lengths(struct insn_case *c, struct rng *r)
{
    if (!one_in(r, 4))
        c->s.gpr[RAX] = below(r, 40) - 20, c->s.gpr[RDX] = below(r, 40) - 20;
}

static void frame_pointer(struct insn_case *c, struct rng *r)
{
    c->s.gpr[RBP] = data_address(c, r, 64) - (c->code_size == 8 ? 0 : layout_base(c->s.sel[SEG_SS]));
}

/* By mnemonic; `target` is where the last explicit memory operand is. */
static void special(struct insn_case *c, struct decoded *d, struct rng *r, u64 target, u64 components)
{
    u32 word = d->zi.operand_width / 8u;

    switch (d->zi.mnemonic) {
    case ZYDIS_MNEMONIC_CMPXCHG: case ZYDIS_MNEMONIC_CMPXCHG8B: case ZYDIS_MNEMONIC_CMPXCHG16B:
        compare_exchange(c, d, r, target);
        break;
    case ZYDIS_MNEMONIC_DIV: case ZYDIS_MNEMONIC_IDIV: divide(c, d, r); break;
    case ZYDIS_MNEMONIC_BT: case ZYDIS_MNEMONIC_BTC: case ZYDIS_MNEMONIC_BTR: case ZYDIS_MNEMONIC_BTS: bit_offset(c, d, r); break;
    case ZYDIS_MNEMONIC_ENTER: case ZYDIS_MNEMONIC_LEAVE: frame_pointer(c, r); break;
    case ZYDIS_MNEMONIC_RET: plant_return(c, r, word, false); break;
    case ZYDIS_MNEMONIC_IRET: case ZYDIS_MNEMONIC_IRETD: case ZYDIS_MNEMONIC_IRETQ: plant_return(c, r, word, true); break;
    case ZYDIS_MNEMONIC_POPF: case ZYDIS_MNEMONIC_POPFD: case ZYDIS_MNEMONIC_POPFQ:
        plant_value(c, stack_linear(c), rnd(r) & ~(u64)FLAG_TF, word);
        break;
    case ZYDIS_MNEMONIC_POP: plant_value(c, stack_linear(c), layout_selector(rnd(r)), 2); break;
    case ZYDIS_MNEMONIC_LDS: case ZYDIS_MNEMONIC_LES: case ZYDIS_MNEMONIC_LSS: case ZYDIS_MNEMONIC_LFS: case ZYDIS_MNEMONIC_LGS:
        plant_far_pointer(c, r, target, word, false);
        break;
    case ZYDIS_MNEMONIC_LAR: case ZYDIS_MNEMONIC_LSL: case ZYDIS_MNEMONIC_VERR: case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_ARPL: selector_operand(c, d, r, target); break;
    case ZYDIS_MNEMONIC_XSAVE: case ZYDIS_MNEMONIC_XSAVE64: case ZYDIS_MNEMONIC_XSAVEC: case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT: case ZYDIS_MNEMONIC_XSAVEOPT64: case ZYDIS_MNEMONIC_XRSTOR: case ZYDIS_MNEMONIC_XRSTOR64:
        save_area(c, d, r, target, components);
        break;
    case ZYDIS_MNEMONIC_FXRSTOR: case ZYDIS_MNEMONIC_FXRSTOR64:
        if (!one_in(r, 8))
            plant_image(c, r, target, components);
        break;
    case ZYDIS_MNEMONIC_FLDENV: case ZYDIS_MNEMONIC_FRSTOR: case ZYDIS_MNEMONIC_FLDCW: x87_environment(c, r, target); break;
    case ZYDIS_MNEMONIC_LDMXCSR: case ZYDIS_MNEMONIC_VLDMXCSR: mxcsr(c, r, target); break;
    case ZYDIS_MNEMONIC_XGETBV: c->s.gpr[RCX] = below(r, 3); break;
    case ZYDIS_MNEMONIC_CPUID: c->s.gpr[RAX] = below(r, 32); break;
    case ZYDIS_MNEMONIC_WRFSBASE: case ZYDIS_MNEMONIC_WRGSBASE:
        if (!one_in(r, 8))
            gpr_set(c, d->op[0].reg.value, DATA_VA + below(r, 4096), 8);
        break;
    case ZYDIS_MNEMONIC_PCMPESTRI: case ZYDIS_MNEMONIC_PCMPESTRM: case ZYDIS_MNEMONIC_VPCMPESTRI: case ZYDIS_MNEMONIC_VPCMPESTRM:
        string_lengths(c, r);
        break;
    default: break;
    }
}

static bool repeats(const struct decoded *d)
{
    return d->zi.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE);
}

static void loads_selector(struct insn_case *c, const struct decoded *d, struct rng *r, u64 target)
{
    if (d->zi.mnemonic == ZYDIS_MNEMONIC_MOV && class_of(&d->op[0]) == ZYDIS_REGCLASS_SEGMENT)
        selector_operand(c, d, r, target);
}

void operands_fit(struct insn_case *c, struct decoded *d, struct rng *r, u64 components)
{
    u64 target = 0;

    stack_set(c, r);
    if (repeats(d) || d->zi.meta.category == ZYDIS_CATEGORY_COND_BR)
        gpr_set(c, ZYDIS_REGISTER_RCX, below(r, 40), d->zi.address_width / 8u);
    for (int n = 0; n < d->zi.operand_count; n++)
        if (is_memory(&d->op[n])) {
            u64 at = aim(c, d, n, r, components);

            target = at ? at : target;
        }
    if (d->zi.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE && d->zi.mnemonic != ZYDIS_MNEMONIC_RET)
        branch(c, d, r, target);
    loads_selector(c, d, r, target);
    special(c, d, r, target, components);
}
