/* Data movement: MOV and its extending forms, LEA, XCHG, CMOVcc, SETcc, BSWAP, MOVBE, XLAT. SDM vol. 2. */
#include "cpu/access.h"
#include "cpu/cpuid.h"
#include "cpu/exec.h"

#define WRITE_u8(c, off, v) (REG8(c, off) = (v))
#define WRITE_u16(c, off, v) (REG16(c, off) = (v))
#define WRITE_u32(c, off, v) (REG64(c, off) = (u32)(v))
#define WRITE_u64(c, off, v) (REG64(c, off) = (v))
#define REG_u8 REG8
#define REG_u16 REG16
#define REG_u32 REG32
#define REG_u64 REG64

#define MOV_FORMS(T)                                                                                    \
    static void mov_rr_##T(struct vcpu *c, const struct insn *i)                                        \
    {                                                                                                   \
        WRITE_##T(c, i->reg, REG_##T(c, i->rm));                                                        \
    }                                                                                                   \
    static void mov_ri_##T(struct vcpu *c, const struct insn *i)                                        \
    {                                                                                                   \
        WRITE_##T(c, i->reg, (T)i->imm);                                                                \
    }                                                                                                   \
    static void mov_rm_##T(struct vcpu *c, const struct insn *i)                                        \
    {                                                                                                   \
        WRITE_##T(c, i->reg, (T)mem_read(c, insn_linear(c, i, sizeof(T), false), sizeof(T)));           \
    }                                                                                                   \
    static void mov_mr_##T(struct vcpu *c, const struct insn *i)                                        \
    {                                                                                                   \
        mem_write(c, insn_linear(c, i, sizeof(T), true), sizeof(T), REG_##T(c, i->reg));                \
    }                                                                                                   \
    static void mov_mi_##T(struct vcpu *c, const struct insn *i)                                        \
    {                                                                                                   \
        mem_write(c, insn_linear(c, i, sizeof(T), true), sizeof(T), (T)i->imm);                         \
    }                                                                                                   \
    /* MOV with a full-size offset: it is in imm */                                                     \
    static void mov_from_offset_##T(struct vcpu *c, const struct insn *i)                               \
    {                                                                                                   \
        WRITE_##T(c, i->reg, (T)mem_read(c, seg_linear(c, i->seg, i->imm, sizeof(T), false), sizeof(T))); \
    }                                                                                                   \
    static void mov_to_offset_##T(struct vcpu *c, const struct insn *i)                                 \
    {                                                                                                   \
        mem_write(c, seg_linear(c, i->seg, i->imm, sizeof(T), true), sizeof(T), REG_##T(c, i->reg));    \
    }                                                                                                   \
    static void xchg_rr_##T(struct vcpu *c, const struct insn *i)                                       \
    {                                                                                                   \
        T a = REG_##T(c, i->reg), b = REG_##T(c, i->rm);                                                \
        WRITE_##T(c, i->reg, b);                                                                        \
        WRITE_##T(c, i->rm, a);                                                                         \
    }                                                                                                   \
    static void xchg_mr_##T(struct vcpu *c, const struct insn *i)                                       \
    {                                                                                                   \
        struct mem_rmw m;                                                                               \
        T val = REG_##T(c, i->reg);                                                                     \
        mem_rmw_begin(c, insn_linear(c, i, sizeof(T), true), sizeof(T), &m);                            \
        asm("xchg %[v], %[m]" : [m] "+m"(*(T##_any *)m.p), [v] "+q"(val) : : "memory");                 \
        mem_rmw_end(c, &m);                                                                             \
        WRITE_##T(c, i->reg, val);                                                                      \
    }

MOV_FORMS(u8)
MOV_FORMS(u16)
MOV_FORMS(u32)
MOV_FORMS(u64)

#define BY_SIZE(f) {f##_u8, f##_u16, f##_u32, f##_u64}
static insn_fn *const mov_rr[4] = BY_SIZE(mov_rr), *const mov_ri[4] = BY_SIZE(mov_ri), *const mov_rm[4] = BY_SIZE(mov_rm),
                      *const mov_mr[4] = BY_SIZE(mov_mr), *const mov_mi[4] = BY_SIZE(mov_mi),
                      *const mov_from_offset[4] = BY_SIZE(mov_from_offset), *const mov_to_offset[4] = BY_SIZE(mov_to_offset),
                      *const xchg_rr[4] = BY_SIZE(xchg_rr), *const xchg_mr[4] = BY_SIZE(xchg_mr);

/* MOVZX, MOVSX, MOVSXD: from a type to a register of a type. */
#define EXTEND(name, FROM, READ, TO)                                                                    \
    static void name##_r(struct vcpu *c, const struct insn *i)                                          \
    {                                                                                                   \
        WRITE_##TO(c, i->reg, (TO)(FROM)READ(c, i->rm));                                                \
    }                                                                                                   \
    static void name##_m(struct vcpu *c, const struct insn *i)                                          \
    {                                                                                                   \
        WRITE_##TO(c, i->reg, (TO)(FROM)mem_read(c, insn_linear(c, i, sizeof(FROM), false), sizeof(FROM))); \
    }

EXTEND(movzx_8_16, u8, REG8, u16)
EXTEND(movzx_8_32, u8, REG8, u32)
EXTEND(movzx_8_64, u8, REG8, u64)
EXTEND(movzx_16_16, u16, REG16, u16)
EXTEND(movzx_16_32, u16, REG16, u32)
EXTEND(movzx_16_64, u16, REG16, u64)
EXTEND(movsx_8_16, s8, REG8, u16)
EXTEND(movsx_8_32, s8, REG8, u32)
EXTEND(movsx_8_64, s8, REG8, u64)
EXTEND(movsx_16_16, s16, REG16, u16)
EXTEND(movsx_16_32, s16, REG16, u32)
EXTEND(movsx_16_64, s16, REG16, u64)
EXTEND(movsxd_16_16, u16, REG16, u16) /* reads no more than it keeps */
EXTEND(movsxd_32_32, s32, REG32, u32)
EXTEND(movsxd_32_64, s32, REG32, u64)

/* [is memory][destination size index 1–3] */
static insn_fn *const movzx_8[2][4] = {{NULL, movzx_8_16_r, movzx_8_32_r, movzx_8_64_r}, {NULL, movzx_8_16_m, movzx_8_32_m, movzx_8_64_m}};
static insn_fn *const movzx_16[2][4] = {{NULL, movzx_16_16_r, movzx_16_32_r, movzx_16_64_r},
                                        {NULL, movzx_16_16_m, movzx_16_32_m, movzx_16_64_m}};
static insn_fn *const movsx_8[2][4] = {{NULL, movsx_8_16_r, movsx_8_32_r, movsx_8_64_r}, {NULL, movsx_8_16_m, movsx_8_32_m, movsx_8_64_m}};
static insn_fn *const movsx_16[2][4] = {{NULL, movsx_16_16_r, movsx_16_32_r, movsx_16_64_r},
                                        {NULL, movsx_16_16_m, movsx_16_32_m, movsx_16_64_m}};
static insn_fn *const movsxd[2][4] = {{NULL, movsxd_16_16_r, movsxd_32_32_r, movsxd_32_64_r},
                                      {NULL, movsxd_16_16_m, movsxd_32_32_m, movsxd_32_64_m}};

static void lea_16(struct vcpu *c, const struct insn *i)
{
    REG16(c, i->reg) = (u16)insn_ea(c, i);
}

static void lea_32(struct vcpu *c, const struct insn *i)
{
    REG64(c, i->reg) = (u32)insn_ea(c, i);
}

static void lea_64(struct vcpu *c, const struct insn *i)
{
    REG64(c, i->reg) = insn_ea(c, i);
}

static void cmov_r(struct vcpu *c, const struct insn *i)
{
    int from = condition(c, i->cond) ? i->rm : i->reg;

    /* a 32-bit form clears the upper half whether it moves or not */
    reg_write(c, i->reg, i->opsize, reg_read(c, from, i->opsize));
}

static void cmov_m(struct vcpu *c, const struct insn *i)
{
    u64 val = mem_read(c, insn_linear(c, i, i->opsize, false), i->opsize);

    reg_write(c, i->reg, i->opsize, condition(c, i->cond) ? val : reg_read(c, i->reg, i->opsize));
}

static void setcc_r(struct vcpu *c, const struct insn *i)
{
    REG8(c, i->rm) = condition(c, i->cond);
}

static void setcc_m(struct vcpu *c, const struct insn *i)
{
    mem_write(c, insn_linear(c, i, 1, true), 1, condition(c, i->cond));
}

static u64 swap_bytes(u64 val, int size)
{
    return __builtin_bswap64(val) >> (64 - size * 8);
}

static void bswap(struct vcpu *c, const struct insn *i)
{
    if (i->opsize == 2) /* undefined by the manual; processors clear the register */
        REG16(c, i->reg) = 0;
    else
        reg_write(c, i->reg, i->opsize, swap_bytes(REG64(c, i->reg), i->opsize));
}

static void movbe_load(struct vcpu *c, const struct insn *i)
{
    reg_write(c, i->reg, i->opsize, swap_bytes(mem_read(c, insn_linear(c, i, i->opsize, false), i->opsize), i->opsize));
}

static void movbe_store(struct vcpu *c, const struct insn *i)
{
    mem_write(c, insn_linear(c, i, i->opsize, true), i->opsize, swap_bytes(REG64(c, i->reg), i->opsize));
}

static void xlat(struct vcpu *c, const struct insn *i)
{
    u64 ea = c->s.gpr[RBX] + REG8(c, RAX * 8);

    if (i->addrsize != 8)
        ea = i->addrsize == 4 ? (u32)ea : (u16)ea;
    REG8(c, RAX * 8) = (u8)mem_read(c, seg_linear(c, i->seg, ea, 1, false), 1);
}

static void choose_plain_mov(struct insn *i, const struct insn_source *src)
{
    const ZydisDecodedOperand *dst = &src->op[0], *from = &src->op[1];
    int size = size_index(i->opsize);

    if (dst->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        if (from->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
            i->fn = mov_mi[size];
            return;
        }
        i->reg = register_offset(from->reg.value);
        i->fn = dst->encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64 ? mov_to_offset[size] : mov_mr[size];
        return;
    }
    i->reg = register_offset(dst->reg.value);
    if (from->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        i->fn = mov_ri[size];
    } else if (from->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        i->fn = from->encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64 ? mov_from_offset[size] : mov_rm[size];
    } else {
        i->rm = register_offset(from->reg.value);
        i->fn = mov_rr[size];
    }
}

/* MOV with a segment, control or debug register belongs to the system group. */
static bool special_mov(const struct insn_source *src)
{
    for (int n = 0; n < 2; n++) {
        ZydisRegisterClass rc;

        if (src->op[n].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        rc = ZydisRegisterGetClass(src->op[n].reg.value);
        if (rc == ZYDIS_REGCLASS_SEGMENT || rc == ZYDIS_REGCLASS_CONTROL || rc == ZYDIS_REGCLASS_DEBUG)
            return true;
    }
    return false;
}

static void choose_xchg(struct insn *i, const struct insn_source *src)
{
    int size = size_index(i->opsize);

    if (i->mem) {
        const ZydisDecodedOperand *reg = src->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER ? &src->op[0] : &src->op[1];

        i->reg = register_offset(reg->reg.value);
        i->fn = xchg_mr[size];
        return;
    }
    i->reg = register_offset(src->op[0].reg.value);
    i->rm = register_offset(src->op[1].reg.value);
    i->fn = xchg_rr[size];
}

static void choose_extend(struct insn *i, const struct insn_source *src)
{
    int to = size_index(src->op[0].size / 8), from = src->op[1].size / 8;

    if (src->zi->mnemonic == ZYDIS_MNEMONIC_MOVZX)
        i->fn = from == 1 ? movzx_8[i->mem][to] : movzx_16[i->mem][to];
    else if (src->zi->mnemonic == ZYDIS_MNEMONIC_MOVSX)
        i->fn = from == 1 ? movsx_8[i->mem][to] : movsx_16[i->mem][to];
    else
        i->fn = movsxd[i->mem][to];
}

static void choose_movbe(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    if (has(c, FEAT_MOVBE))
        i->fn = src->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER ? movbe_load : movbe_store;
}

void choose_mov(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    switch (src->zi->mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
        if (special_mov(src))
            choose_system(c, i, src);
        else
            choose_plain_mov(i, src);
        return;
    case ZYDIS_MNEMONIC_MOVNTI:
        if (has(c, FEAT_SSE2))
            i->fn = mov_mr[size_index(i->opsize == 8 ? 8 : 4)]; /* 32 bits in 16-bit code too */
        return;
    case ZYDIS_MNEMONIC_LEA:
        i->fn = i->opsize == 8 ? lea_64 : i->opsize == 4 ? lea_32 : lea_16;
        return;
    case ZYDIS_MNEMONIC_XCHG: choose_xchg(i, src); return;
    case ZYDIS_MNEMONIC_BSWAP: i->fn = bswap; return;
    case ZYDIS_MNEMONIC_XLAT: i->fn = xlat; return;
    case ZYDIS_MNEMONIC_MOVBE: choose_movbe(c, i, src); return;
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD: choose_extend(i, src); return;
    default: break;
    }
    i->cond = src->zi->opcode & 15;
    if (src->zi->meta.category == ZYDIS_CATEGORY_CMOV)
        i->fn = !has(c, FEAT_CMOV) ? NULL : i->mem ? cmov_m : cmov_r;
    else
        i->fn = i->mem ? setcc_m : setcc_r;
}

static void cbw(struct vcpu *c, const struct insn *i)
{
    REG16(c, RAX * 8) = (u16)(s8)REG8(c, RAX * 8);
}

static void cwde(struct vcpu *c, const struct insn *i)
{
    c->s.gpr[RAX] = (u32)(s16)REG16(c, RAX * 8);
}

static void cdqe(struct vcpu *c, const struct insn *i)
{
    c->s.gpr[RAX] = (u64)(s32)REG32(c, RAX * 8);
}

static void cwd(struct vcpu *c, const struct insn *i)
{
    REG16(c, RDX * 8) = (u16)((s16)REG16(c, RAX * 8) >> 15);
}

static void cdq(struct vcpu *c, const struct insn *i)
{
    c->s.gpr[RDX] = (u32)((s32)REG32(c, RAX * 8) >> 31);
}

static void cqo(struct vcpu *c, const struct insn *i)
{
    c->s.gpr[RDX] = (u64)((s64)c->s.gpr[RAX] >> 63);
}

void choose_convert(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    switch (src->zi->mnemonic) {
    case ZYDIS_MNEMONIC_CBW: i->fn = cbw; break;
    case ZYDIS_MNEMONIC_CWDE: i->fn = cwde; break;
    case ZYDIS_MNEMONIC_CDQE: i->fn = cdqe; break;
    case ZYDIS_MNEMONIC_CWD: i->fn = cwd; break;
    case ZYDIS_MNEMONIC_CDQ: i->fn = cdq; break;
    default: i->fn = cqo; break;
    }
}
