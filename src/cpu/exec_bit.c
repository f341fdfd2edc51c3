/* Bit tests, scans and counts, CRC32, BMI1, BMI2's extract and deposit, ADX. SDM vol. 2. */
#include "cpu/access.h"
#include "cpu/cpuid.h"
#include "cpu/exec.h"

static u64 operand(struct vcpu *c, const struct insn *i)
{
    return i->mem ? mem_read(c, insn_linear(c, i, i->opsize, false), i->opsize) : reg_read(c, i->rm, i->opsize);
}

/* BT, BTS, BTR, BTC: `cond` 0 to 3. Flags other than CF stay (OF, SF, AF, PF undefined, ZF kept by the manual). */
static u64 bit_change(u64 val, u64 bit, int op)
{
    switch (op) {
    case 1: return val | bit;
    case 2: return val & ~bit;
    case 3: return val ^ bit;
    default: return val;
    }
}

static void carry_set(struct vcpu *c, bool carry)
{
    c->cc = (u16)((c->cc & ~(FLAG_CF << 8)) | (carry ? FLAG_CF << 8 : 0));
}

static u64 bit_index(const struct vcpu *c, const struct insn *i)
{
    return i->rep ? reg_read(c, i->reg, i->opsize) : i->imm;
}

static void bt_r(struct vcpu *c, const struct insn *i)
{
    u64 bit = 1ull << (bit_index(c, i) & (u64)(i->opsize * 8 - 1)), val = reg_read(c, i->rm, i->opsize);

    if (i->cond)
        reg_write(c, i->rm, i->opsize, bit_change(val, bit, i->cond));
    carry_set(c, val & bit);
}

/* With a register index the bit string reaches as far as the index says, in both directions. */
static u64 bit_linear(struct vcpu *c, const struct insn *i, bool write)
{
    u64 ea = insn_ea(c, i);

    if (i->rep) {
        int shift = 64 - i->opsize * 8;
        s64 index = (s64)(REG64(c, i->reg) << shift) >> shift;

        ea += (u64)((index >> (i->opsize == 8 ? 6 : i->opsize == 4 ? 5 : 4)) * i->opsize);
        if (i->addrsize != 8)
            ea = i->addrsize == 4 ? (u32)ea : (u16)ea;
    }
    return seg_linear(c, i->seg, ea, i->opsize, write);
}

static void bt_m(struct vcpu *c, const struct insn *i)
{
    u64 val = mem_read(c, bit_linear(c, i, false), i->opsize);

    carry_set(c, val >> (bit_index(c, i) & (u64)(i->opsize * 8 - 1)) & 1);
}

/* BTS, BTR, BTC by the host, on a bit within the operand: the carry. */
#define BIT_HOST(T, s, w)                                                                                          \
    static bool bit_host_##T(void *p, u64 bit, int op)                                                             \
    {                                                                                                              \
        T##_any *m = p;                                                                                            \
        bool carry;                                                                                                \
        switch (op) {                                                                                              \
        case 1: asm("lock bts" s " %" w "[b], %[m]" : [m] "+m"(*m), "=@ccc"(carry) : [b] "r"(bit) : "memory"); break; \
        case 2: asm("lock btr" s " %" w "[b], %[m]" : [m] "+m"(*m), "=@ccc"(carry) : [b] "r"(bit) : "memory"); break; \
        default: asm("lock btc" s " %" w "[b], %[m]" : [m] "+m"(*m), "=@ccc"(carry) : [b] "r"(bit) : "memory"); break; \
        }                                                                                                          \
        return carry;                                                                                              \
    }
BIT_HOST(u16, "w", "w")
BIT_HOST(u32, "l", "k")
BIT_HOST(u64, "q", "q")

static void bt_change_m(struct vcpu *c, const struct insn *i)
{
    struct mem_rmw m;
    u64 bit = bit_index(c, i) & (u64)(i->opsize * 8 - 1);
    bool carry;

    mem_rmw_begin(c, bit_linear(c, i, true), i->opsize, &m);
    if (i->opsize == 2)
        carry = bit_host_u16(m.p, bit, i->cond);
    else if (i->opsize == 4)
        carry = bit_host_u32(m.p, bit, i->cond);
    else
        carry = bit_host_u64(m.p, bit, i->cond);
    mem_rmw_end(c, &m);
    carry_set(c, carry);
}

/* Runs a host instruction reg <- source at 16, 32 or 64 bits with the guest's flags before, and takes the flags after. */
#define HOST_SCAN(name, op)                                                                               \
    static void name(struct vcpu *c, const struct insn *i)                                                \
    {                                                                                                     \
        u64 s = operand(c, i), d = REG64(c, i->reg);                                                      \
        u16 flags = c->cc;                                                                                \
        switch (i->opsize) {                                                                              \
        case 2: asm("add $0x7f, %%al\n\tsahf\n\t" op "w %w[s], %w[d]\n\tlahf\n\tseto %%al"                \
                    : [d] "+r"(d), "+a"(flags) : [s] "r"(s) : "cc"); break;                               \
        case 4: asm("add $0x7f, %%al\n\tsahf\n\t" op "l %k[s], %k[d]\n\tlahf\n\tseto %%al"                \
                    : [d] "+r"(d), "+a"(flags) : [s] "r"(s) : "cc"); break;                               \
        default: asm("add $0x7f, %%al\n\tsahf\n\t" op "q %q[s], %q[d]\n\tlahf\n\tseto %%al"               \
                     : [d] "+r"(d), "+a"(flags) : [s] "r"(s) : "cc"); break;                              \
        }                                                                                                 \
        c->cc = flags;                                                                                    \
        reg_write(c, i->reg, i->opsize, d);                                                               \
    }

HOST_SCAN(tzcnt, "tzcnt")
HOST_SCAN(lzcnt, "lzcnt")
HOST_SCAN(popcnt, "popcnt")

/* BSF and BSR leave the destination alone when the source is zero, its upper half too: so the host decides on 64 bits. */
#define HOST_BSX(name, op)                                                                                \
    static void name(struct vcpu *c, const struct insn *i)                                                \
    {                                                                                                     \
        u64 s = operand(c, i), d = 0;                                                                     \
        u16 flags = c->cc;                                                                                \
        asm("add $0x7f, %%al\n\tsahf\n\t" op "q %q[s], %q[d]\n\tlahf\n\tseto %%al"                        \
            : [d] "+r"(d), "+a"(flags) : [s] "r"(s) : "cc");                                              \
        c->cc = flags;                                                                                    \
        if (s)                                                                                            \
            reg_write(c, i->reg, i->opsize, d);                                                           \
    }
HOST_BSX(bsf, "bsf")
HOST_BSX(bsr, "bsr")

/* BMI1 and BMI2 on 32 or 64 bits. Inline code for the host's instruction, flags kept as it leaves them. */
#define HOST_BMI(name, op, order)                                                                         \
    static void name(struct vcpu *c, const struct insn *i)                                                \
    {                                                                                                     \
        u64 s = operand(c, i), v = REG64(c, i->vvvv), d;                                                  \
        u16 flags = c->cc;                                                                                \
        if (i->opsize == 4)                                                                               \
            asm("add $0x7f, %%al\n\tsahf\n\t" op " " order("%k[s]", "%k[v]") ", %k[d]\n\tlahf\n\tseto %%al" \
                : [d] "=&r"(d), "+a"(flags) : [s] "r"(s), [v] "r"(v) : "cc");                             \
        else                                                                                              \
            asm("add $0x7f, %%al\n\tsahf\n\t" op " " order("%q[s]", "%q[v]") ", %q[d]\n\tlahf\n\tseto %%al" \
                : [d] "=&r"(d), "+a"(flags) : [s] "r"(s), [v] "r"(v) : "cc");                             \
        c->cc = flags;                                                                                    \
        reg_write(c, DESTINATION(i), i->opsize, d);                                                       \
    }
#define SOURCE_ONLY(s, v) s
#define SOURCE_VVVV(s, v) s ", " v
#define VVVV_SOURCE(s, v) v ", " s

#define DESTINATION(i) (i)->reg
HOST_BMI(andn, "andn", SOURCE_VVVV)
HOST_BMI(bextr, "bextr", VVVV_SOURCE)
HOST_BMI(bzhi, "bzhi", VVVV_SOURCE)
HOST_BMI(pdep, "pdep", SOURCE_VVVV)
HOST_BMI(pext, "pext", SOURCE_VVVV)
#undef DESTINATION
#define DESTINATION(i) (i)->vvvv
HOST_BMI(blsi, "blsi", SOURCE_ONLY)
HOST_BMI(blsr, "blsr", SOURCE_ONLY)
HOST_BMI(blsmsk, "blsmsk", SOURCE_ONLY)

/* ADCX adds with CF, ADOX with OF; each leaves the other flags. `cond` says which. */
static void adx(struct vcpu *c, const struct insn *i)
{
    u16 mask = i->cond ? 1 : FLAG_CF << 8;
    u64 a = reg_read(c, i->reg, i->opsize), b = operand(c, i);
    u128 sum = (u128)a + b + !!(c->cc & mask);
    bool carry = sum >> i->opsize * 8 & 1;

    c->cc = (u16)((c->cc & ~mask) | (carry ? mask : 0));
    reg_write(c, i->reg, i->opsize, (u64)sum);
}

/* CRC32: the source's size is in `cond`, the destination is 32 bits, or 64 with the upper half cleared. */
static void crc32(struct vcpu *c, const struct insn *i)
{
    u64 s = i->mem ? mem_read(c, insn_linear(c, i, i->cond, false), i->cond) : reg_read(c, i->rm, i->cond);
    u64 d = REG32(c, i->reg);

    switch (i->cond) {
    case 1: asm("crc32b %b[s], %k[d]" : [d] "+r"(d) : [s] "r"(s)); break;
    case 2: asm("crc32w %w[s], %k[d]" : [d] "+r"(d) : [s] "r"(s)); break;
    case 4: asm("crc32l %k[s], %k[d]" : [d] "+r"(d) : [s] "r"(s)); break;
    default: asm("crc32q %q[s], %q[d]" : [d] "+r"(d) : [s] "r"(s)); break;
    }
    REG64(c, i->reg) = (u32)d;
}

static const struct {
    ZydisMnemonic mnemonic;
    insn_fn *fn;
    int feature, alternative; /* without the feature: the older instruction of the same encoding, or -1 for #UD */
} counts[] = {
    {ZYDIS_MNEMONIC_BSF, bsf, -1, -1},
    {ZYDIS_MNEMONIC_BSR, bsr, -1, -1},
    {ZYDIS_MNEMONIC_TZCNT, tzcnt, FEAT_BMI1, ZYDIS_MNEMONIC_BSF},
    {ZYDIS_MNEMONIC_LZCNT, lzcnt, FEAT_ABM, ZYDIS_MNEMONIC_BSR},
    {ZYDIS_MNEMONIC_POPCNT, popcnt, FEAT_POPCNT, -1},
    {ZYDIS_MNEMONIC_ANDN, andn, FEAT_BMI1, -1},
    {ZYDIS_MNEMONIC_BEXTR, bextr, FEAT_BMI1, -1},
    {ZYDIS_MNEMONIC_BLSI, blsi, FEAT_BMI1, -1},
    {ZYDIS_MNEMONIC_BLSR, blsr, FEAT_BMI1, -1},
    {ZYDIS_MNEMONIC_BLSMSK, blsmsk, FEAT_BMI1, -1},
    {ZYDIS_MNEMONIC_BZHI, bzhi, FEAT_BMI2, -1},
    {ZYDIS_MNEMONIC_PDEP, pdep, FEAT_BMI2, -1},
    {ZYDIS_MNEMONIC_PEXT, pext, FEAT_BMI2, -1},
    {ZYDIS_MNEMONIC_ADCX, adx, FEAT_ADX, -1},
    {ZYDIS_MNEMONIC_ADOX, adx, FEAT_ADX, -1},
    {ZYDIS_MNEMONIC_CRC32, crc32, FEAT_SSE42, -1},
};

static insn_fn *count_handler(const struct vcpu *c, ZydisMnemonic m)
{
    for (size_t n = 0; n < ARRAY_SIZE(counts); n++) {
        if (counts[n].mnemonic != m)
            continue;
        if (counts[n].feature < 0 || has(c, (enum cpu_feature)counts[n].feature))
            return counts[n].fn;
        return counts[n].alternative < 0 ? NULL : count_handler(c, (ZydisMnemonic)counts[n].alternative);
    }
    return NULL;
}

static void choose_bt(struct insn *i, const struct insn_source *src)
{
    switch (src->zi->mnemonic) {
    case ZYDIS_MNEMONIC_BT: i->cond = 0; break;
    case ZYDIS_MNEMONIC_BTS: i->cond = 1; break;
    case ZYDIS_MNEMONIC_BTR: i->cond = 2; break;
    default: i->cond = 3; break;
    }
    i->rep = src->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER; /* the index is in a register */
    i->fn = !i->mem ? bt_r : i->cond ? bt_change_m : bt_m;
}

void choose_bit(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    switch (src->zi->mnemonic) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC: choose_bt(i, src); return;
    case ZYDIS_MNEMONIC_ADOX: i->cond = 1; break;
    case ZYDIS_MNEMONIC_CRC32:
        i->cond = (u8)(src->op[1].size / 8);
        break;
    default: break;
    }
    if (src->zi->mnemonic == ZYDIS_MNEMONIC_BEXTR && src->zi->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
        return; /* AMD's TBM form */
    i->fn = count_handler(c, src->zi->mnemonic);
}
