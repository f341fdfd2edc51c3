/* What segmented code depends on besides its bytes: see jit_segment.c. */
#include "cpu/descriptor.h"
#include "cpu/jit_cache.h"
#include "cpu/jit_segment.h"

/* Whether all that remains to be checked of an access is the limit. */
static bool limit_alone(const struct vcpu *c, int seg, bool write)
{
    u16 attr = c->s.seg_attr[seg];

    if (!(attr & SEG_P) || (attr & (SEG_S | SEG_CODE | SEG_E)) == (SEG_S | SEG_E))
        return false;
    if (!protected_mode(c) || v86_mode(c))
        return true;
    return write ? attr_is_writable_data(attr) : attr_is_readable(attr);
}

/* Whether segment_load_real() would leave attributes as they are. */
static bool loads_keep(const struct vcpu *c)
{
    static const u8 segments[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    u16 want = SEG_P | SEG_S | SEG_W | SEG_A, kept = SEG_DB | SEG_G;

    if (v86_mode(c)) {
        want |= SEG_DPL;
        kept = 0;
    } else if (protected_mode(c)) {
        return false;
    }
    for (size_t n = 0; n < ARRAY_SIZE(segments); n++)
        if ((c->s.seg_attr[segments[n]] & ~kept) != want)
            return false;
    return true;
}

/* In virtual-8086 mode, for that: only what was loaded from outside may have other limits. */
static bool limits_kept(const struct vcpu *c)
{
    const u32 *limit = c->s.seg_limit;

    return !v86_mode(c) || (limit[SEG_ES] == 0xffff && limit[SEG_DS] == 0xffff && limit[SEG_FS] == 0xffff && limit[SEG_GS] == 0xffff);
}

static u64 handled_segments(const struct vcpu *c)
{
    u64 bits = limit_alone(c, SEG_CS, true) ? 0 : JIT_KEY_HANDLER_CS_WRITE;

    for (int seg = 0; seg < 6; seg++)
        if (!limit_alone(c, seg, seg != SEG_CS))
            bits |= 1ull << (JIT_KEY_HANDLER_SHIFT + seg);
    return bits;
}

/* What is the same at all RIPs, and rarely changes. */
static u64 key_of_segments(const struct vcpu *c)
{
    u64 key = JIT_KEY_SEGMENTED | handled_segments(c);

    if (c->stack_mask == 0xffff)
        key |= JIT_KEY_STACK16;
    return loads_keep(c) ? key | JIT_KEY_REAL : key;
}

static u64 key_kept(const struct vcpu *c)
{
    const u64_any *attr = (const u64_any *)c->s.seg_attr;
    u64 mode = (c->s.cr0 & CR0_PE) | (c->s.rflags & FLAG_VM) | c->stack_mask << 32;
    struct jit *j = c->jit;

    static_assert(sizeof(c->s.seg_attr) == sizeof(j->segment_attr), "all of them");
    if (unlikely(attr[0] != j->segment_attr[0] || attr[1] != j->segment_attr[1] || mode != j->segment_mode || !j->segment_key)) {
        j->segment_key = key_of_segments(c);
        j->segment_attr[0] = attr[0];
        j->segment_attr[1] = attr[1];
        j->segment_mode = mode;
    }
    return limits_kept(c) ? j->segment_key : j->segment_key & ~(u64)JIT_KEY_REAL;
}

u64 jit_segment_key(const struct vcpu *c)
{
    s64 start = (s64)c->s.gpr[RIP] - (s64)(jit_linear(c) & ~PAGE_MASK), behind = (s64)jit_rip_last(c) + 1 - start;
    u64 key = key_kept(c);

    if (start < 0)
        key |= (u64)-start << JIT_KEY_BEFORE_SHIFT;
    if (behind < (s64)PAGE_SIZE)
        key |= (PAGE_SIZE - (u64)behind) << JIT_KEY_BEHIND_SHIFT;
    return key;
}
