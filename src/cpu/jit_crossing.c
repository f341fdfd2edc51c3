/* Blocks of one instruction that goes on in the next page: see jit_crossing.h.
 *
 * What such a block says depends on two mappings. So nothing links to its code: links lead to its gate, which asks the jump table,
 * and the jump table is emptied when either mapping changes. */
#include "cpu/jit_crossing.h"

#include "cpu/access.h"
#include "cpu/interp.h"
#include "cpu/jit_segment.h"

u64 jit_crossing_linear(const struct vcpu *c)
{
    return ((jit_linear(c) & PAGE_MASK) + PAGE_SIZE) & c->lin_mask;
}

static bool in_segment(const struct vcpu *c, u32 len)
{
    return c->code_size == 8 || c->s.gpr[RIP] + len - 1 <= jit_rip_last(c);
}

/* The TLB entry of the page behind RIP's, if it is there and of RAM. */
static struct tlb_entry *next_page(struct vcpu *c)
{
    u64 lin = jit_crossing_linear(c);
    struct tlb_entry *t = tlb_entry(c, c->s.cpl == 3 ? MMU_USER : MMU_SUPERVISOR, lin);

    return t->fetch == lin ? t : NULL;
}

static u32 version_of(struct vcpu *c, const u8 *hva, const u32 **now)
{
    *now = &vcpu_memory(c)->code_version[backing_page(vcpu_memory(c), hva)];
    return __atomic_load_n(*now, __ATOMIC_SEQ_CST);
}

bool jit_crossing_scan(struct jit_emit *e, const u8 *hva)
{
    u32 room = PAGE_SIZE - ((u64)hva & ~PAGE_MASK);
    struct tlb_entry *t = next_page(e->c);
    struct jit_crossing *k;

    if (!t || e->end < PAGE_SIZE)
        return false;
    interp_code_mark(e->c, t->page, 15 - MIN(room, 14)); /* before its bytes are read */
    k = jit_crossing_new(e->j);
    k->page = t->page;
    k->version = version_of(e->c, t->page, &k->version_now);
    for (u32 n = 0; n < JIT_CROSSING_BYTES; n++)
        k->bytes[n] = n < room ? hva[n] : t->page[n - room];
    e->b->crossing = k;
    if (!jit_scan_one(e, (u16)((u64)hva & ~PAGE_MASK), k->bytes) || e->b->bytes <= room)
        return false;
    k->len = (u8)e->b->bytes;
    return in_segment(e->c, k->len);
}

bool jit_crossing_stale(const struct jit_crossing *k)
{
    return k->version != __atomic_load_n(k->version_now, __ATOMIC_RELAXED);
}

bool jit_crossing_holds(struct vcpu *c, const struct jit_crossing *k)
{
    struct tlb_entry *t = next_page(c);

    return t && t->page == k->page && in_segment(c, k->len);
}

bool jit_crossing_global(struct vcpu *c)
{
    struct tlb_entry *next = next_page(c);

    return next && tlb_origin(c->tlb, next)->global;
}
