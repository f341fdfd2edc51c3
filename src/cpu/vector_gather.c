/* Gathers and scatters, element by element: SDM vol. 2 VGATHERDPS …, VPSCATTERDD …
 *
 * Every element that is done is recorded in the destination and the mask before the next is tried, so a fault leaves
 * them as the manual says: elements below the faulting one complete, and a restart goes on from there. They work on
 * the image in s.xsave: no host instruction could redirect each element's address. */
#include <string.h>

#include "cpu/access.h"
#include "cpu/vector_op.h"
#include "cpu/xstate.h"

/* Kept in insn.imm. */
struct gather {
    u8 data, index, mask; /* register numbers; mask: a vector register in the VEX form, else an opmask register */
    u8 data_size, index_size, count;
    u8 evex;
    u8 length; /* vector length, bytes */
};
_Static_assert(sizeof(struct gather) == sizeof(u64), "kept in insn.imm");

static struct gather gather_of(const struct insn *i)
{
    struct gather g;

    memcpy(&g, &i->imm, sizeof(g));
    return g;
}

static u64 element_get(const u8 *vector, int n, int size)
{
    u64 val = 0;

    memcpy(&val, vector + n * size, (size_t)size);
    return val;
}

/* Linear address of element n; its index is signed. */
static u64 gather_linear(struct vcpu *c, const struct insn *i, const struct gather *g, const u8 *index, int n,
                         bool write)
{
    u64 val = element_get(index, n, g->index_size);
    u64 ea = (u64)(s64)i->disp + REG64(c, i->base) + ((g->index_size == 4 ? (u64)(s32)val : val) << i->scale);

    if (i->addrsize == 4)
        ea = (u32)ea;
    return seg_linear(c, i->seg, ea, g->data_size, write);
}

/* The VEX form's mask: the top bit of each element. */
static u64 vector_mask_bits(struct vcpu *c, const struct gather *g)
{
    u8 reg[64];
    u64 bits = 0;

    ext_vector_get(c, g->mask, reg);
    for (int n = 0; n < g->count; n++)
        if (reg[(n + 1) * g->data_size - 1] & 0x80)
            bits |= BIT(n);
    return bits;
}

static u64 mask_get(struct vcpu *c, const struct gather *g)
{
    return g->evex ? ext_opmask_get(c, g->mask) & (BIT(g->count) - 1) : vector_mask_bits(c, g);
}

/* Elements still to do. */
static void mask_set(struct vcpu *c, const struct gather *g, u64 bits)
{
    u8 reg[64];

    if (g->evex) {
        ext_opmask_set(c, g->mask, (ext_opmask_get(c, g->mask) & ~(BIT(g->count) - 1)) | bits);
        return;
    }
    ext_vector_get(c, g->mask, reg);
    for (int n = 0; n < g->count; n++)
        memset(reg + n * g->data_size, bits >> n & 1 ? 0xff : 0, g->data_size);
    ext_vector_set(c, g->mask, reg);
}

/* The VEX form first makes every element of the mask all ones or zero, those that it will not use too. */
static void mask_normalize(struct vcpu *c, const struct gather *g)
{
    u8 reg[64];

    ext_vector_get(c, g->mask, reg);
    for (int n = 0; n < g->length; n += g->data_size)
        memset(reg + n, reg[n + g->data_size - 1] & 0x80 ? 0xff : 0, g->data_size);
    memset(reg + g->length, 0, (size_t)(64 - g->length));
    ext_vector_set(c, g->mask, reg);
}

static void mask_clear(struct vcpu *c, const struct gather *g)
{
    static const u8 zero[64];

    if (g->evex)
        ext_opmask_set(c, g->mask, 0);
    else
        ext_vector_set(c, g->mask, zero);
}

static void gather_check(struct vcpu *c, const struct gather *g)
{
    vector_check(c, g->evex ? VC_AVX512 : VC_AVX);
    ext_save(c);
}

/* The destination with zeros from byte `len`: beyond the vector with the first element, beyond the elements at the
 * end. */
static void data_set(struct vcpu *c, const struct gather *g, u8 data[64], int len)
{
    memset(data + len, 0, (size_t)(64 - len));
    ext_vector_set(c, g->data, data);
}

/* The alignment of elements is not checked. */
static int element_mmu(const struct vcpu *c)
{
    return c->mmu_index == MMU_ALIGN ? MMU_USER : c->mmu_index;
}

static void exec_gather(struct vcpu *c, const struct insn *i)
{
    struct gather g = gather_of(i);
    u8 data[64], index[64];
    u64 todo;

    gather_check(c, &g);
    ext_vector_get(c, g.data, data);
    ext_vector_get(c, g.index, index);
    todo = mask_get(c, &g);
    if (!g.evex)
        mask_normalize(c, &g);
    for (int n = 0; n < g.count; n++) {
        u64 val;

        if (!(todo >> n & 1))
            continue;
        val = mem_read_as(c, gather_linear(c, i, &g, index, n, false), g.data_size, element_mmu(c));
        memcpy(data + n * g.data_size, &val, g.data_size);
        todo &= ~BIT(n);
        data_set(c, &g, data, g.length);
        mask_set(c, &g, todo);
    }
    data_set(c, &g, data, g.count * g.data_size);
    mask_clear(c, &g);
}

static void exec_scatter(struct vcpu *c, const struct insn *i)
{
    struct gather g = gather_of(i);
    u8 data[64], index[64];
    u64 todo;

    gather_check(c, &g);
    ext_vector_get(c, g.data, data);
    ext_vector_get(c, g.index, index);
    todo = mask_get(c, &g);
    for (int n = 0; n < g.count; n++) {
        if (!(todo >> n & 1))
            continue;
        mem_write_as(c, gather_linear(c, i, &g, index, n, true), g.data_size, element_get(data, n, g.data_size), element_mmu(c));
        todo &= ~BIT(n);
        mask_set(c, &g, todo);
    }
    mask_clear(c, &g);
}

static bool doubleword_index(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_VGATHERDPD: case ZYDIS_MNEMONIC_VGATHERDPS: case ZYDIS_MNEMONIC_VPGATHERDD:
    case ZYDIS_MNEMONIC_VPGATHERDQ: case ZYDIS_MNEMONIC_VSCATTERDPD: case ZYDIS_MNEMONIC_VSCATTERDPS:
    case ZYDIS_MNEMONIC_VPSCATTERDD: case ZYDIS_MNEMONIC_VPSCATTERDQ: return true;
    default: return false;
    }
}

static void registers_find(struct gather *g, const struct insn_source *src)
{
    for (int n = 0; n < src->zi->operand_count; n++) {
        const ZydisDecodedOperand *op = &src->op[n];

        if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        if (op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)
            g->data = (u8)ZydisRegisterGetId(op->reg.value);
        else if (op->encoding == ZYDIS_OPERAND_ENCODING_MASK || op->encoding == ZYDIS_OPERAND_ENCODING_NDSNDD)
            g->mask = (u8)ZydisRegisterGetId(op->reg.value);
    }
}

void choose_gather(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    const ZydisDecodedOperand *mem = vector_memory_operand(src);
    struct gather g = {.evex = src->zi->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX};
    int widest;

    registers_find(&g, src);
    g.index = (u8)ZydisRegisterGetId(mem->mem.index);
    g.data_size = (u8)(mem->element_size / 8);
    g.index_size = doubleword_index(src->zi->mnemonic) ? 4 : 8;
    widest = MAX(g.data_size, g.index_size);
    g.length = (u8)(src->zi->avx.vector_length / 8);
    g.count = (u8)(g.length / widest);
    memcpy(&i->imm, &g, sizeof(g));
    i->index = RZERO * 8;
    i->fn = mem->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE ? exec_scatter : exec_gather;
}
