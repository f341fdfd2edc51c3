/* Guest memory as instructions see it: linear addresses, through the TLB, at the current privilege.
 *
 * Everything here raises (#PF, #GP, #SS, #AC) before it changes anything. Multi-page writes probe every page first. */
#ifndef CPU_ACCESS_H
#define CPU_ACCESS_H
#include "cpu/exception.h"
#include "cpu/insn.h"
#include "cpu/segment.h"
#include "cpu/tlb.h"

static inline struct tlb_entry *tlb_entry(const struct vcpu *c, int mmu, u64 gva)
{
    return &c->tlb->set[mmu][(gva >> PAGE_SHIFT) & (TLB_ENTRIES - 1)];
}

/* Slow twins, for misses, page crossings, MMIO, code pages, watchpoints. `mmu` is the TLB set. */
u64 mem_read_slow(struct vcpu *c, u64 gva, int size, int mmu);
void mem_write_slow(struct vcpu *c, u64 gva, int size, u64 val, int mmu);

static inline u64 mem_read_as(struct vcpu *c, u64 gva, int size, int mmu)
{
    const struct tlb_entry *t = tlb_entry(c, mmu, gva);

    if (likely(((gva + (u64)size - 1) & PAGE_MASK) == t->read)) {
        const void *p = tlb_hva(t, gva);

        switch (size) {
        case 1: return *(const u8 *)p;
        case 2: return *(const u16_any *)p;
        case 4: return *(const u32_any *)p;
        default: return *(const u64_any *)p;
        }
    }
    return mem_read_slow(c, gva, size, mmu);
}

static inline void mem_write_as(struct vcpu *c, u64 gva, int size, u64 val, int mmu)
{
    const struct tlb_entry *t = tlb_entry(c, mmu, gva);

    if (likely(((gva + (u64)size - 1) & PAGE_MASK) == t->write)) {
        void *p = tlb_hva(t, gva);

        switch (size) {
        case 1: *(u8 *)p = (u8)val; break;
        case 2: *(u16_any *)p = (u16)val; break;
        case 4: *(u32_any *)p = (u32)val; break;
        default: *(u64_any *)p = val; break;
        }
        return;
    }
    mem_write_slow(c, gva, size, val, mmu);
}

/* At the instruction's privilege. Size 1, 2, 4 or 8, zero-extended. `gva` is linear. */
static inline u64 mem_read(struct vcpu *c, u64 gva, int size)
{
    return mem_read_as(c, gva, size, c->mmu_index);
}
static inline void mem_write(struct vcpu *c, u64 gva, int size, u64 val)
{
    mem_write_as(c, gva, size, val, c->mmu_index);
}

/* Implicit supervisor accesses: descriptor tables, TSS, interrupt stacks before CPL changes. SDM vol. 3 §4.6.1. */
static inline int mmu_system(const struct vcpu *c)
{
    return c->s.cr4 & CR4_SMAP ? MMU_SMAP : MMU_SUPERVISOR;
}
static inline u64 sys_read(struct vcpu *c, u64 gva, int size)
{
    return mem_read_as(c, gva, size, mmu_system(c));
}
static inline void sys_write(struct vcpu *c, u64 gva, int size, u64 val)
{
    mem_write_as(c, gva, size, val, mmu_system(c));
}

/* The TLB set for an access made at privilege `cpl`, whatever the current CPL. */
int mmu_set_for(const struct vcpu *c, int cpl);

/* Raise what an access would raise, and do nothing else. */
void mem_probe_read(struct vcpu *c, u64 gva, u32 size, int mmu);
void mem_probe_write(struct vcpu *c, u64 gva, u32 size, int mmu);

/* Raises #AC where alignment is checked and gva is no multiple of `size`, a power of two up to 8; for operands of several pieces. */
void mem_check_alignment_as(struct vcpu *c, u64 gva, u32 size, int mmu);
static inline void mem_check_alignment(struct vcpu *c, u64 gva, u32 size)
{
    mem_check_alignment_as(c, gva, size, c->mmu_index);
}

/* Any number of bytes up to a page; a write changes nothing if any of it faults. */
void mem_read_bytes(struct vcpu *c, u64 gva, void *buf, u32 size);
void mem_write_bytes(struct vcpu *c, u64 gva, const void *buf, u32 size);

/* Where [gva, gva+size) is in this process if all of it is in one page of plain RAM that may be accessed so without further
 * ado; else NULL (after raising, if the access faults). */
u8 *mem_direct(struct vcpu *c, u64 gva, u32 size, bool write);

/* Read-modify-write: returns where the operand is (its current bytes readable there, the page checked for writing): in guest
 * RAM, or a bounce buffer of the vCPU for page-crossing, MMIO and code pages. After storing, mem_rmw_end(). One at a time. */
struct mem_rmw {
    u8 *p;
    u64 gva;
    int size;
    bool slow, world_stopped;
    _Alignas(16) u64 bounce[2]; /* CMPXCHG16B wants it so */
};
void mem_rmw_begin_slow(struct vcpu *c, u64 gva, int size, struct mem_rmw *m);
void mem_rmw_end_slow(struct vcpu *c, struct mem_rmw *m);
static inline void mem_rmw_begin(struct vcpu *c, u64 gva, int size, struct mem_rmw *m)
{
    const struct tlb_entry *t = tlb_entry(c, c->mmu_index, gva);

    if (likely(((gva + (u64)size - 1) & PAGE_MASK) == t->write)) {
        m->p = tlb_hva(t, gva);
        m->slow = false;
    } else {
        mem_rmw_begin_slow(c, gva, size, m);
    }
}
static inline void mem_rmw_end(struct vcpu *c, struct mem_rmw *m)
{
    if (unlikely(m->slow))
        mem_rmw_end_slow(c, m);
}

/* Linear address of [offset, offset+size) in a segment, checked where the segment needs it. */
static inline u64 seg_linear(struct vcpu *c, int seg, u64 offset, u32 size, bool write)
{
    if (unlikely(c->seg_check >> seg & 1))
        segment_check(c, seg, offset, size, write);
    return (c->lin_base[seg] + offset) & c->lin_mask;
}

/* Linear address of the instruction's memory operand. */
static inline u64 insn_linear(struct vcpu *c, const struct insn *i, u32 size, bool write)
{
    return seg_linear(c, i->seg, insn_ea(c, i), size, write);
}

/* Stack. push/pop change RSP only after the access succeeded. Width as the stack segment says. */
static inline u64 stack_linear(struct vcpu *c, u64 sp, u32 size, bool write)
{
    return seg_linear(c, SEG_SS, sp & c->stack_mask, size, write);
}
static inline void stack_set(struct vcpu *c, u64 sp)
{
    if (likely(c->stack_mask == ~0ull))
        c->s.gpr[RSP] = sp;
    else if (c->stack_mask == 0xffffffff)
        c->s.gpr[RSP] = (u32)sp;
    else
        REG16(c, RSP * 8) = (u16)sp;
}
static inline void push(struct vcpu *c, int size, u64 val)
{
    u64 sp = c->s.gpr[RSP] - (u64)size;

    mem_write(c, stack_linear(c, sp, (u32)size, true), size, val);
    stack_set(c, sp);
}
static inline u64 pop(struct vcpu *c, int size)
{
    u64 val = mem_read(c, stack_linear(c, c->s.gpr[RSP], (u32)size, false), size);

    stack_set(c, c->s.gpr[RSP] + (u64)size);
    return val;
}

#endif
