/* The local APIC's registers as the guest reaches them: memory-mapped (xAPIC), or as MSRs (x2APIC), and the
 * IA32_APIC_BASE MSR that chooses. Registers are numbered as in x2APIC: the offset in the page divided by 16. SDM
 * vol. 3 §11.4, §11.6.1, §11.12. */
#include "cpu/apic_bus.h"
#include "cpu/lapic_state.h"

enum {
    REG_ID = 0x02, REG_VERSION = 0x03, REG_TPR = 0x08, REG_APR = 0x09, REG_PPR = 0x0a, REG_EOI = 0x0b, REG_RRD = 0x0c,
    REG_LDR = 0x0d, REG_DFR = 0x0e, REG_SVR = 0x0f, REG_ISR = 0x10, REG_TMR = 0x18, REG_IRR = 0x20, REG_ESR = 0x28,
    REG_ICR = 0x30, REG_ICR_HIGH = 0x31, REG_LVT = 0x32, REG_LVT_LAST = REG_LVT + LVT_COUNT - 1, REG_INITIAL = 0x38,
    REG_CURRENT = 0x39, REG_DIVIDE = 0x3e, REG_SELF_IPI = 0x3f,
};
enum { MSR_APIC_BASE = 0x1b, MSR_TSC_DEADLINE = 0x6e0, MSR_X2APIC = 0x800, MSR_X2APIC_LAST = 0x8ff };
enum {
    ICR_LOGICAL = 0x800, ICR_ASSERT = 0x4000, ICR_LEVEL = 0x8000, ICR_SHORTHAND_SHIFT = 18,
    ICR_WRITABLE = 0xccfff & ~0x1000,
};
enum { TO_DEST, TO_SELF, TO_ALL, TO_OTHERS };

#define VERSION (0x14 | (LVT_COUNT - 1) << 16)
#define SVR_WRITABLE 0x3ffu
#define DIVIDE_WRITABLE 0xbu

/* What each LVT entry holds beside read-only bits. */
static const u32 lvt_writable[LVT_COUNT] = {
    [LVT_TIMER] = LVT_VECTOR | LVT_MASKED | LVT_TIMER_MODE,
    [LVT_THERMAL] = LVT_VECTOR | 0x700 | LVT_MASKED,
    [LVT_PERF] = LVT_VECTOR | 0x700 | LVT_MASKED,
    [LVT_LINT0] = LVT_VECTOR | 0x700 | 0xa000 | LVT_MASKED,
    [LVT_LINT1] = LVT_VECTOR | 0x700 | 0xa000 | LVT_MASKED,
    [LVT_ERROR] = LVT_VECTOR | LVT_MASKED,
};
#define LVT_READ_ONLY 0x5000u /* delivery status, remote IRR */

static u32 logical_id(const struct vcpu *c)
{
    return x2apic(c) ? c->apic_id >> 4 << 16 | 1u << (c->apic_id & 15) : reg_load(&c->lapic->s.ldr);
}

/* False: no such register, or write-only. */
static bool register_read(struct vcpu *c, u32 reg, u32 *ret)
{
    const struct lapic_state *s = &c->lapic->s;

    switch (reg) {
    case REG_ID: *ret = x2apic(c) ? c->apic_id : lapic_id(c) << 24; break;
    case REG_VERSION: *ret = VERSION; break;
    case REG_TPR: *ret = s->tpr; break;
    case REG_PPR: *ret = lapic_priority(c); break;
    case REG_LDR: *ret = logical_id(c); break;
    case REG_SVR: *ret = s->svr; break;
    case REG_ISR ... REG_ISR + 7: *ret = s->isr[reg - REG_ISR]; break;
    case REG_TMR ... REG_TMR + 7: *ret = reg_load(&s->tmr[reg - REG_TMR]); break;
    case REG_IRR ... REG_IRR + 7: *ret = reg_load(&s->irr[reg - REG_IRR]); break;
    case REG_ESR: *ret = s->esr; break;
    case REG_ICR: *ret = s->icr_low; break;
    case REG_LVT ... REG_LVT_LAST: *ret = s->lvt[reg - REG_LVT]; break;
    case REG_INITIAL: *ret = s->timer_initial; break;
    case REG_CURRENT: *ret = lapic_timer_current(c); break;
    case REG_DIVIDE: *ret = s->timer_divide; break;
    default: return false;
    }
    return true;
}

/* Registers that only xAPIC has. */
static bool xapic_register_read(struct vcpu *c, u32 reg, u32 *ret)
{
    const struct lapic_state *s = &c->lapic->s;

    switch (reg) {
    case REG_APR: case REG_RRD: case REG_EOI: *ret = 0; return true;
    case REG_DFR: *ret = s->dfr; return true;
    case REG_ICR_HIGH: *ret = s->icr_high; return true;
    default: return register_read(c, reg, ret);
    }
}

/* Who a shorthand means, one bit a vCPU. */
static u32 shorthand_targets(const struct vcpu *c, int shorthand)
{
    u32 all = (u32)((1ull << c->group->count) - 1), self = 1u << c->index;

    return shorthand == TO_SELF ? self : shorthand == TO_ALL ? all : all & ~self;
}

static void ipi_send(struct vcpu *c, u32 icr, u32 dest)
{
    int shorthand = icr >> ICR_SHORTHAND_SHIFT & 3;
    const struct apic_message msg = {
        .dest = dest, .vector = icr & 0xff, .delivery = icr >> 8 & 7, .logical = icr & ICR_LOGICAL,
        .wide = x2apic(c),
        .deassert = (icr & (ICR_ASSERT | ICR_LEVEL)) == ICR_LEVEL};

    lapic_trace(c, "vcpu %d: IPI 0x%05x to 0x%x", c->index, icr, dest);
    if (msg.delivery <= APIC_LOWEST && msg.vector < 16)
        lapic_error(c, ESR_SEND_ILLEGAL);
    else if (msg.delivery == APIC_EXTINT || msg.delivery == APIC_RESERVED)
        return;
    else if (shorthand == TO_DEST)
        apic_bus_send(c->group, &msg);
    else
        apic_bus_deliver(c->group, shorthand_targets(c, shorthand), &msg);
}

static void svr_write(struct vcpu *c, u32 val)
{
    struct lapic_state *s = &c->lapic->s;

    reg_store(&s->svr, val & SVR_WRITABLE);
    if (val & SVR_ENABLE)
        return;
    /* disabling by software masks the whole local vector table, §11.4.7.2 */
    lapic_timer_lvt_write(c, s->lvt[LVT_TIMER] | LVT_MASKED);
    for (int i = LVT_TIMER + 1; i < LVT_COUNT; i++)
        reg_store(&s->lvt[i], s->lvt[i] | LVT_MASKED);
}

/* The bits of an entry that can be set: without the TSC deadline feature its mode bit is reserved. */
static u32 lvt_mask(const struct vcpu *c, int entry)
{
    u32 mask = lvt_writable[entry];

    return entry == LVT_TIMER && !has(c, FEAT_TSC_DEADLINE) ? mask & ~(u32)LVT_TIMER_TSC_DEADLINE : mask;
}

static void lvt_write(struct vcpu *c, int entry, u32 val)
{
    struct lapic_state *s = &c->lapic->s;

    val &= lvt_mask(c, entry);
    if (!(s->svr & SVR_ENABLE))
        val |= LVT_MASKED;
    if (entry == LVT_TIMER)
        lapic_timer_lvt_write(c, val);
    else
        reg_store(&s->lvt[entry], val);
    lapic_reconsider(c); /* LINT0 may let a waiting PIC through now */
}

/* False: no such register, or read-only. Reserved bits of `val` are cut off. */
static bool register_write(struct vcpu *c, u32 reg, u32 val)
{
    struct lapic_state *s = &c->lapic->s;

    switch (reg) {
    case REG_TPR:
        reg_store(&s->tpr, val & 0xff);
        lapic_reconsider(c);
        break;
    case REG_EOI: lapic_eoi(c); break;
    case REG_SVR: svr_write(c, val); break;
    case REG_ESR: s->esr = __atomic_exchange_n(&s->esr_collected, 0, __ATOMIC_SEQ_CST); break;
    case REG_LVT ... REG_LVT_LAST: lvt_write(c, (int)(reg - REG_LVT), val); break;
    case REG_INITIAL: lapic_timer_initial_write(c, val); break;
    case REG_DIVIDE: lapic_timer_divide_write(c, val & DIVIDE_WRITABLE); break;
    default: return false;
    }
    return true;
}

static bool xapic_register_write(struct vcpu *c, u32 reg, u32 val)
{
    struct lapic_state *s = &c->lapic->s;

    switch (reg) {
    case REG_ID: __atomic_store_n(&s->xapic_id, (u8)(val >> 24), __ATOMIC_RELAXED); return true;
    case REG_VERSION: case REG_APR: case REG_PPR: case REG_RRD: case REG_CURRENT:
    case REG_ISR ... REG_IRR + 7: return true; /* read-only: ignored */
    case REG_LDR: reg_store(&s->ldr, val & 0xff000000u); return true;
    case REG_DFR: reg_store(&s->dfr, val | 0x0fffffff); return true;
    case REG_ICR:
        s->icr_low = val & ICR_WRITABLE;
        ipi_send(c, s->icr_low, s->icr_high >> 24);
        return true;
    case REG_ICR_HIGH: s->icr_high = val & 0xff000000u; return true;
    default: return register_write(c, reg, val);
    }
}

static bool mmio_mode(const struct vcpu *c)
{
    return apic_enabled(c) && !x2apic(c);
}

u32 lapic_mmio_read(struct vcpu *c, u32 offset, int size)
{
    u32 val = 0;

    if (!mmio_mode(c))
        return UINT32_MAX;
    if (!xapic_register_read(c, offset >> 4, &val))
        lapic_error(c, ESR_ILLEGAL_REGISTER);
    return offset & 12 ? 0 : val >> (8 * (offset & 3));
}

void lapic_mmio_write(struct vcpu *c, u32 offset, int size, u32 val)
{
    if (!mmio_mode(c) || size != 4 || offset & 15) {
        lapic_trace(c, "vcpu %d: %d-byte write at 0x%x ignored", c->index, size, offset);
        return;
    }
    if (!xapic_register_write(c, offset >> 4, val))
        lapic_error(c, ESR_ILLEGAL_REGISTER);
}

/* Bits that may be set in a 32-bit x2APIC register; the rest raises #GP. */
static u32 x2apic_writable(const struct vcpu *c, u32 reg)
{
    switch (reg) {
    case REG_TPR: case REG_SELF_IPI: return 0xff;
    case REG_SVR: return SVR_WRITABLE;
    case REG_LVT ... REG_LVT_LAST: return lvt_mask(c, (int)(reg - REG_LVT)) | LVT_READ_ONLY;
    case REG_INITIAL: return UINT32_MAX;
    case REG_DIVIDE: return DIVIDE_WRITABLE;
    default: return 0; /* EOI and ESR take only zero */
    }
}

static bool x2apic_icr_write(struct vcpu *c, u64 val)
{
    if (val & UINT32_MAX & ~(u64)(ICR_WRITABLE | 0x1000))
        return false;
    c->lapic->s.icr_low = (u32)val & ICR_WRITABLE;
    c->lapic->s.icr_high = (u32)(val >> 32);
    ipi_send(c, c->lapic->s.icr_low, c->lapic->s.icr_high);
    return true;
}

static bool x2apic_write(struct vcpu *c, u32 reg, u64 val)
{
    if (reg == REG_ICR)
        return x2apic_icr_write(c, val);
    if (val & ~(u64)x2apic_writable(c, reg))
        return false;
    if (reg != REG_SELF_IPI)
        return register_write(c, reg, (u32)val);
    ipi_send(c, (u32)val | TO_SELF << ICR_SHORTHAND_SHIFT, 0);
    return true;
}

static bool x2apic_read(struct vcpu *c, u32 reg, u64 *ret)
{
    u32 low;

    if (!register_read(c, reg, &low))
        return false;
    *ret = reg == REG_ICR ? (u64)c->lapic->s.icr_high << 32 | low : low;
    return true;
}

/* Disabled, xAPIC, x2APIC: from x2APIC only to disabled, to x2APIC only from xAPIC. SDM figure 11-27. */
static bool base_transition_allowed(u64 from, u64 to)
{
    bool on = to & APIC_BASE_ENABLE, x2 = to & APIC_BASE_X2APIC;

    if (x2 && !on)
        return false;
    if (from & APIC_BASE_X2APIC)
        return x2 || !on;
    return !x2 || from & APIC_BASE_ENABLE;
}

/* Coming back from disabled, the APIC is as after RESET. */
static bool apic_base_write(struct vcpu *c, u64 val)
{
    u64 from = c->s.msr_apic_base;
    u64 allowed = (((1ull << c->group->model->phys_bits) - 1) & PAGE_MASK) | APIC_BASE_BSP | APIC_BASE_ENABLE;

    if (has(c, FEAT_X2APIC))
        allowed |= APIC_BASE_X2APIC;
    if (!has(c, FEAT_APIC) || val & ~allowed || !base_transition_allowed(from, val))
        return false;
    lapic_trace(c, "vcpu %d: APIC base 0x%llx", c->index, (unsigned long long)val);
    if (val & ~from & APIC_BASE_X2APIC || from & ~val & APIC_BASE_ENABLE)
        lapic_id_reset(c);
    __atomic_store_n(&c->s.msr_apic_base, val, __ATOMIC_RELAXED);
    if (from & APIC_BASE_ENABLE && !(val & APIC_BASE_ENABLE))
        lapic_registers_reset(c);
    lapic_reconsider(c);
    return true;
}

bool lapic_msr_read(struct vcpu *c, u32 msr, u64 *ret)
{
    if (msr == MSR_APIC_BASE && has(c, FEAT_APIC)) {
        *ret = c->s.msr_apic_base;
        return true;
    }
    if (msr == MSR_TSC_DEADLINE && has(c, FEAT_TSC_DEADLINE)) {
        *ret = lapic_timer_tsc_deadline_read(c);
        return true;
    }
    return msr >= MSR_X2APIC && msr <= MSR_X2APIC_LAST && x2apic(c) && x2apic_read(c, msr - MSR_X2APIC, ret);
}

bool lapic_msr_write(struct vcpu *c, u32 msr, u64 val)
{
    if (msr == MSR_APIC_BASE)
        return apic_base_write(c, val);
    if (msr == MSR_TSC_DEADLINE && has(c, FEAT_TSC_DEADLINE)) {
        lapic_timer_tsc_deadline_write(c, val);
        return true;
    }
    return msr >= MSR_X2APIC && msr <= MSR_X2APIC_LAST && x2apic(c) && x2apic_write(c, msr - MSR_X2APIC, val);
}
