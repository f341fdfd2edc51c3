/* Guest memory accesses off the fast path: TLB misses, page crossings, devices, pages with decoded code, watchpoints,
 * alignment checks, and read-modify-write. See access.h. */
#include "cpu/access.h"

#include "base/trace.h"
#include "cpu/debug_points.h"
#include "cpu/descriptor.h"
#include "cpu/engine.h"
#include "cpu/interp.h"
#include "cpu/lapic.h"
#include "cpu/lockstep.h"
#include "cpu/world.h"
#include "cpu/xstate.h"

static u64 entry_tag(const struct tlb_entry *t, enum mmu_access access)
{
    return access == MMU_READ ? t->read : access == MMU_WRITE ? t->write : t->fetch;
}

/* The entry that allows the access to gva's page, filling or raising. */
static struct tlb_entry *tlb_get(struct vcpu *c, u64 gva, enum mmu_access access, int mmu)
{
    struct tlb_entry *t = tlb_entry(c, mmu, gva);
    u64 tag = entry_tag(t, access);

    if (!(tag & TLB_INVALID) && tlb_page(tag) == (gva & PAGE_MASK))
        return t;
    return tlb_fill(c, gva, access, mmu);
}

/* A non-canonical address comes before #AC. */
void mem_check_alignment_as(struct vcpu *c, u64 gva, u32 size, int mmu)
{
    if (mmu != MMU_ALIGN || size > 8 || !(gva & (size - 1)))
        return;
    mmu_check_canonical(c, gva, 1);
    raise_error(c, EXC_AC, 0);
}

/* Data breakpoints: a trap after the instruction. DR7 R/W field: 1 writes, 3 reads and writes. SDM vol. 3 §17.2. */
static void check_breakpoints(struct vcpu *c, u64 gva, u32 size, bool write)
{
    for (int n = 0; n < 4; n++) {
        u64 kind = c->s.dr[7] >> (16 + n * 4) & 3, len = (c->s.dr[7] >> (18 + n * 4) & 3);
        u64 bytes = len == 2 ? 8 : len + 1, at = c->s.dr[n] & ~(bytes - 1);

        if (!(c->s.dr[7] >> n * 2 & 3) || !(kind == 3 || (kind == 1 && write)))
            continue;
        if (gva < at + bytes && at < gva + size) {
            c->s.pending_db |= 1ull << n;
            __atomic_or_fetch(&c->attention, ATTN_STEP, __ATOMIC_SEQ_CST);
            c->block_end = c->insn ? c->insn + 1 : c->block_end;
        }
    }
}

/* An access to a page that the guest or a debugger watches. */
static void check_watch(struct vcpu *c, u64 gva, u32 size, bool write)
{
    check_breakpoints(c, gva, size, write);
    debug_watch_check(c, gva, size, write ? DEBUG_WRITE : DEBUG_READ);
}

static u64 device_read(struct vcpu *c, u64 gpa, int size)
{
    if (unlikely(trial_running(c)))
        raise_fault(c, FAULT_TRIAL);
    if (lapic_page(c, gpa))
        return lapic_mmio_read(c, (u32)(gpa & ~PAGE_MASK), size);
    ext_save(c);
    return c->group->config.bus.mmio_read(c->group->config.bus.ctx, gpa, size);
}

static void device_write(struct vcpu *c, u64 gpa, int size, u64 val)
{
    if (unlikely(trial_running(c)))
        raise_fault(c, FAULT_TRIAL);
    if (lapic_page(c, gpa)) {
        lapic_mmio_write(c, (u32)(gpa & ~PAGE_MASK), size, (u32)val);
        return;
    }
    ext_save(c);
    c->group->config.bus.mmio_write(c->group->config.bus.ctx, gpa, size, val);
}

static u64 ram_read(const u8 *p, int size)
{
    switch (size) {
    case 1: return *p;
    case 2: return *(const u16_any *)p;
    case 4: return *(const u32_any *)p;
    default: return *(const u64_any *)p;
    }
}

static void ram_write(u8 *p, int size, u64 val)
{
    switch (size) {
    case 1: *p = (u8)val; break;
    case 2: *(u16_any *)p = (u16)val; break;
    case 4: *(u32_any *)p = (u32)val; break;
    default: *(u64_any *)p = val; break;
    }
}

/* RAM in a page that may hold decoded code was written. */
static void code_written(struct vcpu *c, struct tlb_entry *t, const u8 *p, u32 size)
{
    if (guest_memory_written(vcpu_memory(c), p, size)) {
        if (c->insn)
            c->block_end = c->insn + 1; /* the running block may be the one: look it up again after this instruction */
        if (c->group->engine->code_changed && c->group->count > 1 && !c->world_stopped) {
            world_stop(c->group, c); /* others leave what they run, and find ATTN_CODE before they enter anything again */
            world_go(c->group, c);
        }
    }
    if (!code_lines_any(vcpu_memory(c), p))
        t->write = tlb_slow(tlb_page(t->write), t->write & ~PAGE_MASK & ~(u64)TLB_CODE);
}

/* In a trial: a write of RAM is noted first; decoded code is left alone. */
static void note_trial(struct vcpu *c, u64 tag, u8 *p, u32 size)
{
    if (!(tag & TLB_TRIAL))
        return;
    if (tag & TLB_CODE)
        raise_fault(c, FAULT_TRIAL);
    trial_note(c, p, size);
}

/* One access within a page. */
static u64 read_in_page(struct vcpu *c, u64 gva, int size, int mmu)
{
    struct tlb_entry *t = tlb_get(c, gva, MMU_READ, mmu);
    u64 tag = t->read;

    if (tag & TLB_WATCH)
        check_watch(c, gva, (u32)size, false);
    if (tag & TLB_MMIO)
        return device_read(c, tlb_gpa(c->tlb, t) | (gva & ~PAGE_MASK), size);
    return ram_read(tlb_hva(t, gva), size);
}

static void write_in_page(struct vcpu *c, u64 gva, int size, u64 val, int mmu)
{
    struct tlb_entry *t = tlb_get(c, gva, MMU_WRITE, mmu);
    u64 tag = t->write;

    if (tag & TLB_WATCH)
        check_watch(c, gva, (u32)size, true);
    if (tag & TLB_MMIO) {
        device_write(c, tlb_gpa(c->tlb, t) | (gva & ~PAGE_MASK), size, val);
    } else if (!(tag & TLB_ROM)) {
        note_trial(c, tag, tlb_hva(t, gva), (u32)size);
        ram_write(tlb_hva(t, gva), size, val);
        if (tag & TLB_CODE)
            code_written(c, t, tlb_hva(t, gva), (u32)size);
    }
}

static bool crosses_page(u64 gva, u32 size)
{
    return (gva & ~PAGE_MASK) + size > PAGE_SIZE;
}

u64 mem_read_slow(struct vcpu *c, u64 gva, int size, int mmu)
{
    u64 val = 0;

    mem_check_alignment_as(c, gva, (u32)size, mmu);
    if (!crosses_page(gva, (u32)size))
        return read_in_page(c, gva, size, mmu);
    mem_probe_read(c, gva, (u32)size, mmu);
    for (int n = 0; n < size; n++)
        val |= read_in_page(c, (gva + (u64)n) & c->lin_mask, 1, mmu) << n * 8;
    return val;
}

void mem_write_slow(struct vcpu *c, u64 gva, int size, u64 val, int mmu)
{
    mem_check_alignment_as(c, gva, (u32)size, mmu);
    if (!crosses_page(gva, (u32)size)) {
        write_in_page(c, gva, size, val, mmu);
        return;
    }
    mem_probe_write(c, gva, (u32)size, mmu);
    for (int n = 0; n < size; n++)
        write_in_page(c, (gva + (u64)n) & c->lin_mask, 1, val >> n * 8, mmu);
}

int mmu_set_for(const struct vcpu *c, int cpl)
{
    if (cpl == 3)
        return c->s.cr0 & CR0_AM && c->s.rflags & FLAG_AC ? MMU_ALIGN : MMU_USER;
    return c->s.cr4 & CR4_SMAP && !(c->s.rflags & FLAG_AC) ? MMU_SMAP : MMU_SUPERVISOR;
}

static void mem_probe(struct vcpu *c, u64 gva, u32 size, enum mmu_access access, int mmu)
{
    if (crosses_page(gva, size)) /* the end comes before what paging says of the start */
        mmu_check_canonical(c, gva, size);
    tlb_get(c, gva, access, mmu);
    if (crosses_page(gva, size))
        tlb_get(c, (gva + size - 1) & c->lin_mask & PAGE_MASK, access, mmu);
}

void mem_probe_read(struct vcpu *c, u64 gva, u32 size, int mmu)
{
    mem_probe(c, gva, size, MMU_READ, mmu);
}

void mem_probe_write(struct vcpu *c, u64 gva, u32 size, int mmu)
{
    mem_probe(c, gva, size, MMU_WRITE, mmu);
}

/* The widest piece that does not cross a page: devices see naturally sized accesses. */
static int piece_size(u64 gva, u32 left)
{
    for (int n = 8; n > 1; n /= 2)
        if (left >= (u32)n && !crosses_page(gva, (u32)n))
            return n;
    return 1;
}

void mem_read_bytes(struct vcpu *c, u64 gva, void *buf, u32 size)
{
    u8 *out = buf;

    mem_probe_read(c, gva, size, c->mmu_index);
    while (size) {
        int n = piece_size(gva, size);
        u64 val = read_in_page(c, gva, n, c->mmu_index);

        ram_write(out, n, val);
        out += n;
        gva = (gva + (u64)n) & c->lin_mask;
        size -= (u32)n;
    }
}

void mem_write_bytes(struct vcpu *c, u64 gva, const void *buf, u32 size)
{
    const u8 *in = buf;

    mem_probe_write(c, gva, size, c->mmu_index);
    while (size) {
        int n = piece_size(gva, size);

        write_in_page(c, gva, n, ram_read(in, n), c->mmu_index);
        in += n;
        gva = (gva + (u64)n) & c->lin_mask;
        size -= (u32)n;
    }
}

u8 *mem_direct(struct vcpu *c, u64 gva, u32 size, bool write)
{
    enum mmu_access access = write ? MMU_WRITE : MMU_READ;
    struct tlb_entry *t;

    if (crosses_page(gva, size)) {
        mem_probe(c, gva, size, access, c->mmu_index);
        return NULL;
    }
    t = tlb_get(c, gva, access, c->mmu_index);
    /* alignment checks are by operand size, which the vector unit knows better: #GP there, not #AC */
    if (entry_tag(t, access) & ~PAGE_MASK & ~(u64)TLB_CHECK)
        return NULL;
    return tlb_hva(t, gva);
}

static bool locked_insn(const struct vcpu *c)
{
    return c->insn && (c->insn->lock || c->insn->mnemonic == ZYDIS_MNEMONIC_XCHG);
}

void mem_rmw_begin_slow(struct vcpu *c, u64 gva, int size, struct mem_rmw *m)
{
    struct tlb_entry *t;

    mem_check_alignment_as(c, gva, (u32)size, c->mmu_index);
    m->gva = gva;
    m->size = size;
    m->slow = true;
    m->world_stopped = false;
    mem_probe_write(c, gva, (u32)size, c->mmu_index);
    t = tlb_get(c, gva, MMU_WRITE, c->mmu_index);
    if (!crosses_page(gva, (u32)size) && !(t->write & (TLB_MMIO | TLB_ROM))) {
        m->p = tlb_hva(t, gva);
        note_trial(c, t->write, m->p, (u32)size);
        return;
    }
    /* a locked operation on two pages is made atomic by stopping everybody else; pages are probed again, as others ran */
    if (crosses_page(gva, (u32)size) && locked_insn(c) && c->group->count > 1) {
        world_stop(c->group, c);
        c->world_stopped = true; /* a raise lets the world go again */
        mem_probe_write(c, gva, (u32)size, c->mmu_index);
        m->world_stopped = true;
    }
    m->p = (u8 *)m->bounce;
    for (int n = 0; n < size;) {
        int piece = piece_size(gva + (u64)n, (u32)(size - n));

        ram_write(m->p + n, piece, read_in_page(c, (gva + (u64)n) & c->lin_mask, piece, c->mmu_index));
        n += piece;
    }
}

void mem_rmw_end_slow(struct vcpu *c, struct mem_rmw *m)
{
    struct tlb_entry *t;

    if (m->p == (u8 *)m->bounce) {
        mem_write_bytes(c, m->gva, m->bounce, (u32)m->size);
        if (m->world_stopped) {
            c->world_stopped = false;
            world_go(c->group, c);
        }
        return;
    }
    t = tlb_entry(c, c->mmu_index, m->gva);
    if (t->write & TLB_WATCH) {
        check_watch(c, m->gva, (u32)m->size, true);
        debug_watch_check(c, m->gva, (u32)m->size, DEBUG_READ);
    }
    if (t->write & TLB_CODE)
        code_written(c, t, m->p, (u32)m->size);
}
