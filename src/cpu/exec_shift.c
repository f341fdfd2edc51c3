/* Shifts and rotates, by the host's own instructions, flags included (those that the manual leaves undefined too). A count of
 * zero changes no flag: the handlers load the guest's flags first, so that the host keeps them. SDM vol. 2 SAL/SAR/SHL/SHR,
 * RCL/RCR/ROL/ROR, SHLD, SHRD, and BMI2's flagless forms. */
#include "cpu/access.h"
#include "cpu/cpuid.h"
#include "cpu/exec.h"

/* Puts the guest's flags into the host's: AH for SAHF, and OF by an addition that overflows exactly when bit 0 of AL is set. */
#define LOAD_FLAGS "add $0x7f, %%al\n\tsahf\n\t"
#define KEEP_FLAGS "\n\tlahf\n\tseto %%al"

#define SHIFT_SIZE(op, T, s)                                                                              \
    static void op##_##T(u16 *cc, void *p, u8 count)                                                      \
    {                                                                                                     \
        T v = *(T##_any *)p;                                                                                    \
        u16 flags = *cc;                                                                                  \
        asm(LOAD_FLAGS #op s " %%cl, %[v]" KEEP_FLAGS : [v] "+r"(v), "+a"(flags) : "c"(count) : "cc");    \
        *(T##_any *)p = v;                                                                                      \
        *cc = flags;                                                                                      \
    }
#define SHIFT(op) SHIFT_SIZE(op, u8, "b") SHIFT_SIZE(op, u16, "w") SHIFT_SIZE(op, u32, "l") SHIFT_SIZE(op, u64, "q")

SHIFT(rol)
SHIFT(ror)
SHIFT(rcl)
SHIFT(rcr)
SHIFT(shl)
SHIFT(shr)
SHIFT(sar)

/* Rotations of a register by an immediate count above one: what becomes of OF is for hosts to choose, and those of Intel choose otherwise than
 * for counts in CL and for memory. The last two places go by an immediate form, which leaves the flags of the whole. */
#define ROTATE_SIZE(op, T, s)                                                                             \
    static void op##_imm_##T(u16 *cc, void *p, u8 count)                                                  \
    {                                                                                                     \
        T v = *(T##_any *)p;                                                                              \
        u16 flags = *cc;                                                                                  \
        u8 first = (u8)((count & (sizeof(T) == 8 ? 63 : 31)) - 2);                                        \
        asm(#op s " %%cl, %[v]\n\t" LOAD_FLAGS #op s " $2, %[v]" KEEP_FLAGS                               \
            : [v] "+r"(v), "+a"(flags) : "c"(first) : "cc");                                              \
        *(T##_any *)p = v;                                                                                \
        *cc = flags;                                                                                      \
    }
#define ROTATE(op) ROTATE_SIZE(op, u8, "b") ROTATE_SIZE(op, u16, "w") ROTATE_SIZE(op, u32, "l") ROTATE_SIZE(op, u64, "q")
ROTATE(rol)
ROTATE(ror)

typedef void shift_fn(u16 *cc, void *p, u8 count);
#define ROW(op) {op##_u8, op##_u16, op##_u32, op##_u64}
static shift_fn *const shifts[9][4] = {ROW(rol), ROW(ror), ROW(rcl),     ROW(rcr),    ROW(shl),
                                       ROW(shr), ROW(sar), ROW(rol_imm), ROW(ror_imm)};
enum { ROTATE_BY_IMMEDIATE = 7 };

/* `cond` names the operation (index in shifts), `rep` says where the count is. */
enum { COUNT_IMM = 1, COUNT_CL = 2 };

static u8 count_of(const struct vcpu *c, const struct insn *i)
{
    return i->rep == COUNT_CL ? REG8(c, RCX * 8) : (u8)i->imm;
}

static void shift_r(struct vcpu *c, const struct insn *i)
{
    u64 v = reg_read(c, i->rm, i->opsize);

    shifts[i->cond][size_index(i->opsize)](&c->cc, &v, count_of(c, i));
    reg_write(c, i->rm, i->opsize, v);
}

static void shift_m(struct vcpu *c, const struct insn *i)
{
    struct mem_rmw m;

    mem_rmw_begin(c, insn_linear(c, i, i->opsize, true), i->opsize, &m);
    shifts[i->cond][size_index(i->opsize)](&c->cc, m.p, count_of(c, i));
    mem_rmw_end(c, &m);
}

/* The common case by itself: 32- and 64-bit registers shifted by an immediate that is not zero. */
#define FAST_SHIFT(op, T, width, WRITE)                                                                     \
    static void op##_fast_##T(struct vcpu *c, const struct insn *i)                                       \
    {                                                                                                     \
        T v = *(T *)((char *)c->s.gpr + i->rm);                                                           \
        u16 flags = c->cc;                                                                                \
        asm(#op width " %%cl, %[v]" KEEP_FLAGS : [v] "+r"(v), "+a"(flags) : "c"((u8)i->imm) : "cc");          \
        WRITE(c, i->rm) = v;                                                                              \
        c->cc = flags;                                                                                    \
    }
FAST_SHIFT(shl, u32, "l", REG64)
FAST_SHIFT(shl, u64, "q", REG64)
FAST_SHIFT(shr, u32, "l", REG64)
FAST_SHIFT(shr, u64, "q", REG64)
FAST_SHIFT(sar, u32, "l", REG64)
FAST_SHIFT(sar, u64, "q", REG64)
static insn_fn *const fast_shift[3][2] = {
    {shl_fast_u32, shl_fast_u64}, {shr_fast_u32, shr_fast_u64}, {sar_fast_u32, sar_fast_u64}};

#define DOUBLE_SHIFT(op)                                                                                  \
    static void op(u16 *cc, int size, void *p, u64 fill, u8 count)                                        \
    {                                                                                                     \
        u64 v = size == 2 ? *(u16_any *)p : size == 4 ? *(u32_any *)p : *(u64_any *)p;                                \
        u16 flags = *cc;                                                                                  \
        switch (size) {                                                                                   \
        case 2: asm(LOAD_FLAGS #op "w %%cl, %w[f], %w[v]" KEEP_FLAGS                                      \
                    : [v] "+r"(v), "+a"(flags) : [f] "r"(fill), "c"(count) : "cc");                       \
            *(u16_any *)p = (u16)v;                                                                           \
            break;                                                                                        \
        case 4: asm(LOAD_FLAGS #op "l %%cl, %k[f], %k[v]" KEEP_FLAGS                                      \
                    : [v] "+r"(v), "+a"(flags) : [f] "r"(fill), "c"(count) : "cc");                       \
            *(u32_any *)p = (u32)v;                                                                           \
            break;                                                                                        \
        default: asm(LOAD_FLAGS #op "q %%cl, %q[f], %q[v]" KEEP_FLAGS                                     \
                     : [v] "+r"(v), "+a"(flags) : [f] "r"(fill), "c"(count) : "cc");                      \
            *(u64_any *)p = v;                                                                                \
            break;                                                                                        \
        }                                                                                                 \
        *cc = flags;                                                                                      \
    }
DOUBLE_SHIFT(shld)
DOUBLE_SHIFT(shrd)

static void double_shift(struct vcpu *c, const struct insn *i, void *p)
{
    (i->cond ? shrd : shld)(&c->cc, i->opsize, p, REG64(c, i->reg), count_of(c, i));
}

static void double_shift_r(struct vcpu *c, const struct insn *i)
{
    u64 v = reg_read(c, i->rm, i->opsize);

    double_shift(c, i, &v);
    reg_write(c, i->rm, i->opsize, v);
}

static void double_shift_m(struct vcpu *c, const struct insn *i)
{
    struct mem_rmw m;

    mem_rmw_begin(c, insn_linear(c, i, i->opsize, true), i->opsize, &m);
    double_shift(c, i, m.p);
    mem_rmw_end(c, &m);
}

/* BMI2 shifts: count in vvvv, no flags. `cond`: 0 SHLX, 1 SHRX, 2 SARX. */
static void shift_x(struct vcpu *c, const struct insn *i)
{
    u64 v = i->mem ? mem_read(c, insn_linear(c, i, i->opsize, false), i->opsize) : reg_read(c, i->rm, i->opsize);
    int count = REG8(c, i->vvvv) & (i->opsize * 8 - 1);

    if (i->cond == 0)
        v <<= count;
    else if (i->cond == 1)
        v >>= count;
    else
        v = i->opsize == 8 ? (u64)((s64)v >> count) : (u32)((s32)v >> count);
    reg_write(c, i->reg, i->opsize, v);
}

static void rorx(struct vcpu *c, const struct insn *i)
{
    u64 v = i->mem ? mem_read(c, insn_linear(c, i, i->opsize, false), i->opsize) : reg_read(c, i->rm, i->opsize);
    int bits = i->opsize * 8, count = (int)i->imm & (bits - 1);

    reg_write(c, i->reg, i->opsize, count ? v >> count | v << (bits - count) : v);
}

static int operation(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_ROL: return 0;
    case ZYDIS_MNEMONIC_ROR: return 1;
    case ZYDIS_MNEMONIC_RCL: return 2;
    case ZYDIS_MNEMONIC_RCR: return 3;
    case ZYDIS_MNEMONIC_SHR: return 5;
    case ZYDIS_MNEMONIC_SAR: return 6;
    default: return 4;
    }
}

static void choose_plain_shift(struct insn *i, const struct insn_source *src)
{
    const ZydisDecodedOperand *count = &src->op[1];
    u64 mask = i->opsize == 8 ? 63 : 31;

    i->cond = (u8)operation(src->zi->mnemonic);
    i->rep = count->type == ZYDIS_OPERAND_TYPE_REGISTER ? COUNT_CL : COUNT_IMM;
    if (count->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        i->imm = count->imm.value.u; /* the form by 1 has it implied */
    i->fn = i->mem ? shift_m : shift_r;
    if (!i->mem && i->rep == COUNT_IMM && i->opsize >= 4 && i->cond >= 4 && i->imm & mask)
        i->fn = fast_shift[i->cond - 4][i->opsize == 8];
    if (!i->mem && i->rep == COUNT_IMM && i->cond < 2 && (i->imm & mask) > 1)
        i->cond += ROTATE_BY_IMMEDIATE;
}

void choose_shift(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    switch (src->zi->mnemonic) {
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
        i->cond = src->zi->mnemonic == ZYDIS_MNEMONIC_SHRD;
        i->rep = src->op[2].type == ZYDIS_OPERAND_TYPE_REGISTER ? COUNT_CL : COUNT_IMM;
        i->fn = i->mem ? double_shift_m : double_shift_r;
        return;
    case ZYDIS_MNEMONIC_SHLX: i->cond = 0; break;
    case ZYDIS_MNEMONIC_SHRX: i->cond = 1; break;
    case ZYDIS_MNEMONIC_SARX: i->cond = 2; break;
    case ZYDIS_MNEMONIC_RORX: i->fn = has(c, FEAT_BMI2) ? rorx : NULL; return;
    default: choose_plain_shift(i, src); return;
    }
    i->fn = has(c, FEAT_BMI2) ? shift_x : NULL;
}
