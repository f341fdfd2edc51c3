/* Multiplication and division. The host multiplies and sets the flags; division checks for overflow before the host divides,
 * so that #DE is the guest's. SDM vol. 2 MUL, IMUL, DIV, IDIV, MULX. */
#include "cpu/access.h"
#include "cpu/cpuid.h"
#include "cpu/exec.h"

static u64 operand(struct vcpu *c, const struct insn *i)
{
    return i->mem ? mem_read(c, insn_linear(c, i, i->opsize, false), i->opsize) : reg_read(c, i->rm, i->opsize);
}

/* One-operand forms. Outputs: low and high half of the product, and the flags as LAHF; SETO leave them. */
#define WIDE(op, T, w, lo, hi, src, flags)                                                 \
    asm(op " %" w "[s]\n\tmov %" w "[a], %" w "[l]\n\tlahf\n\tseto %%al"                   \
        : [a] "+a"(flags), "+d"(hi), [l] "=&r"(lo)                                         \
        : [s] "r"((T)(src))                                                                \
        : "cc")

static void mul_8(struct vcpu *c, const struct insn *i)
{
    u64 a = REG8(c, RAX * 8), product, s = operand(c, i);

    asm("mulb %b[s]\n\tmov %w[a], %w[p]\n\tlahf\n\tseto %%al" : [a] "+a"(a), [p] "=&r"(product) : [s] "r"(s) : "cc");
    REG16(c, RAX * 8) = (u16)product;
    c->cc = (u16)a;
}

static void imul_8(struct vcpu *c, const struct insn *i)
{
    u64 a = REG8(c, RAX * 8), product, s = operand(c, i);

    asm("imulb %b[s]\n\tmov %w[a], %w[p]\n\tlahf\n\tseto %%al" : [a] "+a"(a), [p] "=&r"(product) : [s] "r"(s) : "cc");
    REG16(c, RAX * 8) = (u16)product;
    c->cc = (u16)a;
}

#define WIDE_MUL(name, op)                                                                 \
    static void name(struct vcpu *c, const struct insn *i)                                 \
    {                                                                                      \
        u64 a = c->s.gpr[RAX], hi = 0, lo = 0, s = operand(c, i);                          \
                                                                                           \
        switch (i->opsize) {                                                               \
        case 2: WIDE(op "w", u16, "w", lo, hi, s, a); break;                               \
        case 4: WIDE(op "l", u32, "k", lo, hi, s, a); break;                               \
        default: WIDE(op "q", u64, "q", lo, hi, s, a); break;                              \
        }                                                                                  \
        reg_write(c, RAX * 8, i->opsize, lo);                                              \
        reg_write(c, RDX * 8, i->opsize, hi);                                              \
        c->cc = (u16)a;                                                                    \
    }

WIDE_MUL(mul, "mul")
WIDE_MUL(imul, "imul")

/* Two- and three-operand IMUL. */
static u64 imul_host(struct vcpu *c, int size, u64 a, u64 b)
{
    u16 flags;

    switch (size) {
    case 2: asm("imulw %w[b], %w[a]\n\tlahf\n\tseto %%al" : [a] "+r"(a), "=&a"(flags) : [b] "r"(b) : "cc"); break;
    case 4: asm("imull %k[b], %k[a]\n\tlahf\n\tseto %%al" : [a] "+r"(a), "=&a"(flags) : [b] "r"(b) : "cc"); break;
    default: asm("imulq %q[b], %q[a]\n\tlahf\n\tseto %%al" : [a] "+r"(a), "=&a"(flags) : [b] "r"(b) : "cc"); break;
    }
    c->cc = flags;
    return a;
}

static void imul_2(struct vcpu *c, const struct insn *i)
{
    u64 s = operand(c, i);

    reg_write(c, i->reg, i->opsize, imul_host(c, i->opsize, REG64(c, i->reg), s));
}

static void imul_3(struct vcpu *c, const struct insn *i)
{
    u64 s = operand(c, i);

    reg_write(c, i->reg, i->opsize, imul_host(c, i->opsize, s, i->imm));
}

static _Noreturn void divide_error(struct vcpu *c)
{
    raise_fault(c, EXC_DE);
}

/* The dividend rDX:rAX, or AX. */
static u128 dividend(const struct vcpu *c, int size)
{
    switch (size) {
    case 1: return REG16(c, RAX * 8);
    case 2: return (u32)REG16(c, RDX * 8) << 16 | REG16(c, RAX * 8);
    case 4: return (u64)REG32(c, RDX * 8) << 32 | REG32(c, RAX * 8);
    default: return (u128)c->s.gpr[RDX] << 64 | c->s.gpr[RAX];
    }
}

static void quotient_write(struct vcpu *c, int size, u64 quotient, u64 remainder)
{
    if (size == 1) {
        REG16(c, RAX * 8) = (u16)((remainder & 0xff) << 8 | (quotient & 0xff));
        return;
    }
    reg_write(c, RAX * 8, size, quotient);
    reg_write(c, RDX * 8, size, remainder);
}

static void div_(struct vcpu *c, const struct insn *i)
{
    u64 d = operand(c, i), quotient, remainder;
    u128 n = dividend(c, i->opsize);

    if (!d || (n >> i->opsize * 8) >= d)
        divide_error(c);
    if (i->opsize == 8) {
        asm("divq %[d]" : "=a"(quotient), "=d"(remainder) : [d] "r"(d), "a"((u64)n), "d"((u64)(n >> 64)) : "cc");
    } else {
        quotient = (u64)n / d;
        remainder = (u64)n % d;
    }
    quotient_write(c, i->opsize, quotient, remainder);
}

static s64 sign_extend(u64 v, int size)
{
    int shift = 64 - size * 8;

    return (s64)(v << shift) >> shift;
}

/* |v| as unsigned, also of the smallest value. */
static u128 magnitude(s128 v)
{
    return v < 0 ? -(u128)v : (u128)v;
}

static void idiv(struct vcpu *c, const struct insn *i)
{
    int bits = i->opsize * 8;
    s64 d = sign_extend(operand(c, i), i->opsize);
    s128 n = (s128)(dividend(c, i->opsize) << (128 - 2 * bits)) >> (128 - 2 * bits);
    u128 limit = (u128)1 << (bits - 1);
    u64 quotient, remainder, divisor = (u64)magnitude(d);
    bool negative = (n < 0) != (d < 0);

    /* the quotient of the magnitudes fits the half-size register with its sign: then the host can divide */
    if (!d || magnitude(n) >> bits >= divisor)
        divide_error(c);
    asm("divq %[d]" : "=a"(quotient), "=d"(remainder)
        : [d] "r"(divisor), "a"((u64)magnitude(n)), "d"((u64)(magnitude(n) >> 64)) : "cc");
    if (quotient > (u64)(limit - !negative))
        divide_error(c);
    quotient_write(c, i->opsize, negative ? -quotient : quotient, n < 0 ? -remainder : remainder);
}

static void mulx(struct vcpu *c, const struct insn *i)
{
    u64 s = operand(c, i);
    u128 product = (u128)reg_read(c, RDX * 8, i->opsize) * s;

    /* the high half last: it wins when both go to one register */
    reg_write(c, i->vvvv, i->opsize, (u64)product);
    reg_write(c, i->reg, i->opsize, (u64)(product >> i->opsize * 8));
}

static bool visible_operands(const struct insn_source *src, int n)
{
    return src->zi->operand_count_visible == n;
}

void choose_muldiv(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    switch (src->zi->mnemonic) {
    case ZYDIS_MNEMONIC_MUL: i->fn = i->opsize == 1 ? mul_8 : mul; break;
    case ZYDIS_MNEMONIC_DIV: i->fn = div_; break;
    case ZYDIS_MNEMONIC_IDIV: i->fn = idiv; break;
    case ZYDIS_MNEMONIC_MULX: i->fn = has(c, FEAT_BMI2) ? mulx : NULL; break;
    default:
        if (visible_operands(src, 1))
            i->fn = i->opsize == 1 ? imul_8 : imul;
        else
            i->fn = visible_operands(src, 2) ? imul_2 : imul_3;
        break;
    }
}
