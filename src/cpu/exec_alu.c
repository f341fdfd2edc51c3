/* Two-operand arithmetic and logic, and the one-operand INC, DEC, NEG, NOT. SDM vol. 2.
 *
 * The host computes results and flags: each handler runs the same instruction and keeps what LAHF and SETO say. Handlers are
 * made by macro for each operation, operand size and form (R register, M memory, I immediate; the destination first). */
#include "cpu/access.h"
#include "cpu/exec.h"

/* Runs `op src, dst` on the host with the guest's carry in CF, and collects the flags. dst may be memory. */
#define HOST_OP(c, prefix, op, dst_constraint, dst, src)                          \
    do {                                                                          \
        u16 flags_;                                                               \
        asm("btw $8, %[cc]\n\t" prefix op " %[s], %[d]\n\tlahf\n\tseto %%al"      \
            : [d] "+" dst_constraint(dst), "=&a"(flags_)                          \
            : [s] "r"(src), [cc] "m"((c)->cc)                                     \
            : "cc", "memory");                                                    \
        (c)->cc = flags_;                                                         \
    } while (0)

/* Without the carry on the way in: all but ADC and SBB. */
#define HOST_OP_NC(c, prefix, op, dst_constraint, dst, src)                       \
    do {                                                                          \
        u16 flags_;                                                               \
        asm(prefix op " %[s], %[d]\n\tlahf\n\tseto %%al"                          \
            : [d] "+" dst_constraint(dst), "=&a"(flags_)                          \
            : [s] "r"(src)                                                        \
            : "cc", "memory");                                                    \
        (c)->cc = flags_;                                                         \
    } while (0)

#define WRITE_u8(c, off, v) (REG8(c, off) = (v))
#define WRITE_u16(c, off, v) (REG16(c, off) = (v))
#define WRITE_u32(c, off, v) (REG64(c, off) = (v))
#define WRITE_u64(c, off, v) (REG64(c, off) = (v))
#define REG_u8 REG8
#define REG_u16 REG16
#define REG_u32 REG32
#define REG_u64 REG64

/* The forms of one operation at one size. HOST is HOST_OP or HOST_OP_NC. */
#define ALU_FORMS(name, op, HOST, T)                                                                             \
    static void name##_rr_##T(struct vcpu *c, const struct insn *i)                                              \
    {                                                                                                            \
        T d = REG_##T(c, i->reg), s = REG_##T(c, i->rm);                                                         \
        HOST(c, "", op, "r", d, s);                                                                              \
        WRITE_##T(c, i->reg, d);                                                                                 \
    }                                                                                                            \
    static void name##_ri_##T(struct vcpu *c, const struct insn *i)                                              \
    {                                                                                                            \
        T d = REG_##T(c, i->reg), s = (T)i->imm;                                                                 \
        HOST(c, "", op, "r", d, s);                                                                              \
        WRITE_##T(c, i->reg, d);                                                                                 \
    }                                                                                                            \
    static void name##_rm_##T(struct vcpu *c, const struct insn *i)                                              \
    {                                                                                                            \
        T s = (T)mem_read(c, insn_linear(c, i, sizeof(T), false), sizeof(T)), d = REG_##T(c, i->reg);            \
        HOST(c, "", op, "r", d, s);                                                                              \
        WRITE_##T(c, i->reg, d);                                                                                 \
    }                                                                                                            \
    static void name##_mr_##T(struct vcpu *c, const struct insn *i)                                              \
    {                                                                                                            \
        struct mem_rmw m;                                                                                        \
        T s = REG_##T(c, i->reg);                                                                                \
        mem_rmw_begin(c, insn_linear(c, i, sizeof(T), true), sizeof(T), &m);                                     \
        HOST(c, "", op, "m", *(T##_any *)m.p, s);                                                                      \
        mem_rmw_end(c, &m);                                                                                      \
    }                                                                                                            \
    static void name##_mi_##T(struct vcpu *c, const struct insn *i)                                              \
    {                                                                                                            \
        struct mem_rmw m;                                                                                        \
        T s = (T)i->imm;                                                                                         \
        mem_rmw_begin(c, insn_linear(c, i, sizeof(T), true), sizeof(T), &m);                                     \
        HOST(c, "", op, "m", *(T##_any *)m.p, s);                                                                      \
        mem_rmw_end(c, &m);                                                                                      \
    }                                                                                                            \
    static void name##_lock_mr_##T(struct vcpu *c, const struct insn *i)                                         \
    {                                                                                                            \
        struct mem_rmw m;                                                                                        \
        T s = REG_##T(c, i->reg);                                                                                \
        mem_rmw_begin(c, insn_linear(c, i, sizeof(T), true), sizeof(T), &m);                                     \
        HOST(c, "lock ", op, "m", *(T##_any *)m.p, s);                                                                 \
        mem_rmw_end(c, &m);                                                                                      \
    }                                                                                                            \
    static void name##_lock_mi_##T(struct vcpu *c, const struct insn *i)                                         \
    {                                                                                                            \
        struct mem_rmw m;                                                                                        \
        T s = (T)i->imm;                                                                                         \
        mem_rmw_begin(c, insn_linear(c, i, sizeof(T), true), sizeof(T), &m);                                     \
        HOST(c, "lock ", op, "m", *(T##_any *)m.p, s);                                                                 \
        mem_rmw_end(c, &m);                                                                                      \
    }

/* Operations that write no result: CMP, TEST. */
#define COMPARE_FORMS(name, op, T)                                                                               \
    static void name##_rr_##T(struct vcpu *c, const struct insn *i)                                              \
    {                                                                                                            \
        T d = REG_##T(c, i->reg), s = REG_##T(c, i->rm);                                                         \
        HOST_OP_NC(c, "", op, "r", d, s);                                                                        \
    }                                                                                                            \
    static void name##_ri_##T(struct vcpu *c, const struct insn *i)                                              \
    {                                                                                                            \
        T d = REG_##T(c, i->reg), s = (T)i->imm;                                                                 \
        HOST_OP_NC(c, "", op, "r", d, s);                                                                        \
    }                                                                                                            \
    static void name##_rm_##T(struct vcpu *c, const struct insn *i)                                              \
    {                                                                                                            \
        T s = (T)mem_read(c, insn_linear(c, i, sizeof(T), false), sizeof(T)), d = REG_##T(c, i->reg);            \
        HOST_OP_NC(c, "", op, "r", d, s);                                                                        \
    }                                                                                                            \
    static void name##_mr_##T(struct vcpu *c, const struct insn *i)                                              \
    {                                                                                                            \
        T d = (T)mem_read(c, insn_linear(c, i, sizeof(T), false), sizeof(T)), s = REG_##T(c, i->reg);            \
        HOST_OP_NC(c, "", op, "r", d, s);                                                                        \
    }                                                                                                            \
    static void name##_mi_##T(struct vcpu *c, const struct insn *i)                                              \
    {                                                                                                            \
        T d = (T)mem_read(c, insn_linear(c, i, sizeof(T), false), sizeof(T)), s = (T)i->imm;                     \
        HOST_OP_NC(c, "", op, "r", d, s);                                                                        \
    }

/* INC and DEC keep CF, NEG sets it, NOT keeps all flags. */
#define UNARY_FORMS(name, op, T)                                                                                 \
    static void name##_r_##T(struct vcpu *c, const struct insn *i)                                               \
    {                                                                                                            \
        T d = REG_##T(c, i->rm);                                                                                 \
        u16 flags;                                                                                               \
        asm("btw $8, %[cc]\n\t" op " %[d]\n\tlahf\n\tseto %%al"                                                  \
            : [d] "+r"(d), "=&a"(flags) : [cc] "m"(c->cc) : "cc");                                               \
        WRITE_##T(c, i->rm, d);                                                                                  \
        c->cc = flags;                                                                                           \
    }                                                                                                            \
    static void name##_m_##T(struct vcpu *c, const struct insn *i)                                               \
    {                                                                                                            \
        struct mem_rmw m;                                                                                        \
        u16 flags;                                                                                               \
        mem_rmw_begin(c, insn_linear(c, i, sizeof(T), true), sizeof(T), &m);                                     \
        if (i->lock)                                                                                             \
            asm("btw $8, %[cc]\n\tlock " op " %[d]\n\tlahf\n\tseto %%al"                                         \
                : [d] "+m"(*(T##_any *)m.p), "=&a"(flags) : [cc] "m"(c->cc) : "cc", "memory");                         \
        else                                                                                                     \
            asm("btw $8, %[cc]\n\t" op " %[d]\n\tlahf\n\tseto %%al"                                              \
                : [d] "+m"(*(T##_any *)m.p), "=&a"(flags) : [cc] "m"(c->cc) : "cc", "memory");                         \
        mem_rmw_end(c, &m);                                                                                      \
        c->cc = flags;                                                                                           \
    }

#define NOT_FORMS(T, suffix)                                                                                     \
    static void not_r_##T(struct vcpu *c, const struct insn *i)                                                  \
    {                                                                                                            \
        WRITE_##T(c, i->rm, (T)~REG_##T(c, i->rm));                                                              \
    }                                                                                                            \
    static void not_m_##T(struct vcpu *c, const struct insn *i)                                                  \
    {                                                                                                            \
        struct mem_rmw m;                                                                                        \
        mem_rmw_begin(c, insn_linear(c, i, sizeof(T), true), sizeof(T), &m);                                     \
        asm("lock not" suffix " %0" : "+m"(*(T##_any *)m.p) : : "memory");                                             \
        mem_rmw_end(c, &m);                                                                                      \
    }

#define SIZES(FORMS, name, op, ...)                                                                              \
    FORMS(name, op "b", ##__VA_ARGS__, u8)                                                                       \
    FORMS(name, op "w", ##__VA_ARGS__, u16)                                                                      \
    FORMS(name, op "l", ##__VA_ARGS__, u32)                                                                      \
    FORMS(name, op "q", ##__VA_ARGS__, u64)

SIZES(ALU_FORMS, add, "add", HOST_OP_NC)
SIZES(ALU_FORMS, or, "or", HOST_OP_NC)
SIZES(ALU_FORMS, adc, "adc", HOST_OP)
SIZES(ALU_FORMS, sbb, "sbb", HOST_OP)
SIZES(ALU_FORMS, and, "and", HOST_OP_NC)
SIZES(ALU_FORMS, sub, "sub", HOST_OP_NC)
SIZES(ALU_FORMS, xor, "xor", HOST_OP_NC)
SIZES(COMPARE_FORMS, cmp, "cmp")
SIZES(COMPARE_FORMS, test, "test")
SIZES(UNARY_FORMS, inc, "inc")
SIZES(UNARY_FORMS, dec, "dec")
SIZES(UNARY_FORMS, neg, "neg")
NOT_FORMS(u8, "b")
NOT_FORMS(u16, "w")
NOT_FORMS(u32, "l")
NOT_FORMS(u64, "q")

enum form { FORM_RR, FORM_RI, FORM_RM, FORM_MR, FORM_MI, FORM_LOCK_MR, FORM_LOCK_MI, FORMS };

#define BY_SIZE(f) {f##_u8, f##_u16, f##_u32, f##_u64}
#define ALU_ROW(name)                                                                                     \
    {BY_SIZE(name##_rr), BY_SIZE(name##_ri), BY_SIZE(name##_rm), BY_SIZE(name##_mr), BY_SIZE(name##_mi),  \
     BY_SIZE(name##_lock_mr), BY_SIZE(name##_lock_mi)}
#define COMPARE_ROW(name) \
    {BY_SIZE(name##_rr), BY_SIZE(name##_ri), BY_SIZE(name##_rm), BY_SIZE(name##_mr), BY_SIZE(name##_mi)}

static const struct {
    ZydisMnemonic mnemonic;
    insn_fn *fn[FORMS][4];
} binary[] = {
    {ZYDIS_MNEMONIC_ADD, ALU_ROW(add)}, {ZYDIS_MNEMONIC_OR, ALU_ROW(or)},   {ZYDIS_MNEMONIC_ADC, ALU_ROW(adc)},
    {ZYDIS_MNEMONIC_SBB, ALU_ROW(sbb)}, {ZYDIS_MNEMONIC_AND, ALU_ROW(and)}, {ZYDIS_MNEMONIC_SUB, ALU_ROW(sub)},
    {ZYDIS_MNEMONIC_XOR, ALU_ROW(xor)}, {ZYDIS_MNEMONIC_CMP, COMPARE_ROW(cmp)}, {ZYDIS_MNEMONIC_TEST, COMPARE_ROW(test)},
};

static const struct {
    ZydisMnemonic mnemonic;
    insn_fn *reg[4], *mem[4];
} unary[] = {
    {ZYDIS_MNEMONIC_INC, BY_SIZE(inc_r), BY_SIZE(inc_m)}, {ZYDIS_MNEMONIC_DEC, BY_SIZE(dec_r), BY_SIZE(dec_m)},
    {ZYDIS_MNEMONIC_NEG, BY_SIZE(neg_r), BY_SIZE(neg_m)}, {ZYDIS_MNEMONIC_NOT, BY_SIZE(not_r), BY_SIZE(not_m)},
};

/* Handlers take the destination register in `reg` and a register source in `rm`, whatever the encoding. */
static enum form form_of(struct insn *i, const struct insn_source *src)
{
    const ZydisDecodedOperand *dst = &src->op[0], *from = &src->op[1];

    if (dst->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        if (from->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
            return i->lock ? FORM_LOCK_MI : FORM_MI;
        i->reg = register_offset(from->reg.value);
        return i->lock ? FORM_LOCK_MR : FORM_MR;
    }
    i->reg = register_offset(dst->reg.value);
    if (from->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return FORM_RI;
    if (from->type == ZYDIS_OPERAND_TYPE_MEMORY)
        return FORM_RM;
    i->rm = register_offset(from->reg.value);
    return FORM_RR;
}

void choose_alu(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    int size = size_index(i->opsize);

    for (size_t n = 0; n < ARRAY_SIZE(binary); n++)
        if (binary[n].mnemonic == src->zi->mnemonic)
            i->fn = binary[n].fn[form_of(i, src)][size];
    for (size_t n = 0; n < ARRAY_SIZE(unary); n++) {
        if (unary[n].mnemonic != src->zi->mnemonic)
            continue;
        if (src->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER) /* 40+r in the opcode, or ModRM */
            i->rm = register_offset(src->op[0].reg.value);
        i->fn = i->mem ? unary[n].mem[size] : unary[n].reg[size];
    }
}
