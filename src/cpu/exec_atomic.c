/* CMPXCHG, CMPXCHG8B, CMPXCHG16B, XADD. SDM vol. 2.
 *
 * Always done as the host's locked instruction, which is also right without LOCK. CMPXCHG writes its destination in every case, as
 * the processor does. */
#include "cpu/access.h"
#include "cpu/cpuid.h"
#include "cpu/exec.h"

#define HOST_CMPXCHG(T, s, w)                                                                              \
    static u64 cmpxchg_##T(u16 *cc, void *p, u64 expected, u64 val)                                        \
    {                                                                                                      \
        u16 flags;                                                                                         \
        u64 old;                                                                                           \
        asm("lock cmpxchg" s " %" w "[val], %[m]\n\tmov %%rax, %[old]\n\tlahf\n\tseto %%al"                \
            : [m] "+m"(*(T##_any *)p), "+a"(expected), [old] "=&r"(old) : [val] "r"(val) : "cc", "memory");      \
        flags = (u16)expected;                                                                             \
        *cc = flags;                                                                                       \
        return old;                                                                                        \
    }
HOST_CMPXCHG(u8, "b", "b")
HOST_CMPXCHG(u16, "w", "w")
HOST_CMPXCHG(u32, "l", "k")
HOST_CMPXCHG(u64, "q", "q")

typedef u64 cmpxchg_fn(u16 *cc, void *p, u64 expected, u64 val);
static cmpxchg_fn *const cmpxchg_host[4] = {cmpxchg_u8, cmpxchg_u16, cmpxchg_u32, cmpxchg_u64};

/* When the comparison fails the accumulator takes the old value; a 32-bit accumulator then clears its upper half. */
static void accumulator_update(struct vcpu *c, const struct insn *i, u64 old)
{
    if (!(c->cc & FLAG_ZF << 8))
        reg_write(c, RAX * 8, i->opsize, old);
}

static void cmpxchg_m(struct vcpu *c, const struct insn *i)
{
    struct mem_rmw m;
    u64 old;

    mem_rmw_begin(c, insn_linear(c, i, i->opsize, true), i->opsize, &m);
    old = cmpxchg_host[size_index(i->opsize)](&c->cc, m.p, c->s.gpr[RAX], reg_read(c, i->reg, i->opsize));
    mem_rmw_end(c, &m);
    accumulator_update(c, i, old);
}

/* A register destination that does not match keeps its upper half too. */
static void cmpxchg_r(struct vcpu *c, const struct insn *i)
{
    u64 val = reg_read(c, i->rm, i->opsize), old;

    old = cmpxchg_host[size_index(i->opsize)](&c->cc, &val, c->s.gpr[RAX], reg_read(c, i->reg, i->opsize));
    if (c->cc & FLAG_ZF << 8)
        reg_write(c, i->rm, i->opsize, val);
    accumulator_update(c, i, old);
}

static void zf_set(struct vcpu *c, bool zf)
{
    c->cc = (u16)((c->cc & ~(FLAG_ZF << 8)) | (zf ? FLAG_ZF << 8 : 0));
}

static void cmpxchg8b(struct vcpu *c, const struct insn *i)
{
    u64 old = (u64)REG32(c, RDX * 8) << 32 | REG32(c, RAX * 8), val = (u64)REG32(c, RCX * 8) << 32 | REG32(c, RBX * 8);
    struct mem_rmw m;
    u8 same;

    mem_rmw_begin(c, insn_linear(c, i, 8, true), 8, &m);
    asm("lock cmpxchgq %[val], %[m]\n\tsete %[same]"
        : [m] "+m"(*(u64_any *)m.p), "+a"(old), [same] "=q"(same) : [val] "r"(val) : "cc", "memory");
    mem_rmw_end(c, &m);
    if (!same) {
        c->s.gpr[RAX] = (u32)old;
        c->s.gpr[RDX] = old >> 32;
    }
    zf_set(c, same);
}

static void cmpxchg16b(struct vcpu *c, const struct insn *i)
{
    u64 lo = c->s.gpr[RAX], hi = c->s.gpr[RDX], lin = insn_linear(c, i, 16, true);
    struct mem_rmw m;
    u8 same;

    if (lin & 15)
        raise_gp0(c);
    mem_rmw_begin(c, lin, 16, &m);
    asm("lock cmpxchg16b %[m]\n\tsete %[same]"
        : [m] "+m"(*(u128 *)m.p), "+a"(lo), "+d"(hi), [same] "=q"(same)
        : "b"(c->s.gpr[RBX]), "c"(c->s.gpr[RCX])
        : "cc", "memory");
    mem_rmw_end(c, &m);
    c->s.gpr[RAX] = lo;
    c->s.gpr[RDX] = hi;
    zf_set(c, same);
}

#define HOST_XADD(T, s, w)                                                                      \
    static u64 xadd_##T(u16 *cc, void *p, u64 val)                                              \
    {                                                                                           \
        u16 flags;                                                                              \
        asm("lock xadd" s " %" w "[val], %[m]\n\tlahf\n\tseto %%al"                             \
            : [m] "+m"(*(T##_any *)p), "=&a"(flags), [val] "+r"(val) : : "cc", "memory");             \
        *cc = flags;                                                                            \
        return val;                                                                             \
    }
HOST_XADD(u8, "b", "b")
HOST_XADD(u16, "w", "w")
HOST_XADD(u32, "l", "k")
HOST_XADD(u64, "q", "q")

typedef u64 xadd_fn(u16 *cc, void *p, u64 val);
static xadd_fn *const xadd_host[4] = {xadd_u8, xadd_u16, xadd_u32, xadd_u64};

static void xadd_m(struct vcpu *c, const struct insn *i)
{
    struct mem_rmw m;
    u64 old;

    mem_rmw_begin(c, insn_linear(c, i, i->opsize, true), i->opsize, &m);
    old = xadd_host[size_index(i->opsize)](&c->cc, m.p, reg_read(c, i->reg, i->opsize));
    mem_rmw_end(c, &m);
    reg_write(c, i->reg, i->opsize, old);
}

static void xadd_r(struct vcpu *c, const struct insn *i)
{
    u64 val = reg_read(c, i->rm, i->opsize), old;

    old = xadd_host[size_index(i->opsize)](&c->cc, &val, reg_read(c, i->reg, i->opsize));
    reg_write(c, i->reg, i->opsize, old);
    reg_write(c, i->rm, i->opsize, val); /* last: both may be one register */
}

void choose_atomic(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    switch (src->zi->mnemonic) {
    case ZYDIS_MNEMONIC_CMPXCHG: i->fn = i->mem ? cmpxchg_m : cmpxchg_r; break;
    case ZYDIS_MNEMONIC_CMPXCHG8B: i->fn = has(c, FEAT_CX8) ? cmpxchg8b : NULL; break;
    case ZYDIS_MNEMONIC_CMPXCHG16B: i->fn = has(c, FEAT_CX16) ? cmpxchg16b : NULL; break;
    default: i->fn = i->mem ? xadd_m : xadd_r; break;
    }
}
