/* Paging: walks the guest's page tables and fills the TLB. SDM vol. 3 ch. 4.
 *
 * 32-bit paging with PSE-36, PAE, and 4-level paging, with NX, WP, SMEP, SMAP and protection keys. Accessed and dirty
 * bits are set by compare-and-exchange in guest RAM, only for a translation that succeeds; if an entry changed
 * meanwhile, the walk starts again. Left out: 5-level paging, which no CPU model shows.
 * What a CR3 load keeps of other PCIDs: tlb_space.c. */
#include "base/trace.h"
#include "cpu/access.h"
#include "cpu/cpuid.h"
#include "cpu/debug_points.h"
#include "cpu/exception.h"
#include "cpu/lapic.h"
#include "cpu/lockstep.h"
#include "cpu/tlb.h"
#include "cpu/window.h"
#include "cpu/xstate.h"

#define PTE_P 1ull
#define PTE_W 2ull
#define PTE_U 4ull
#define PTE_A 0x20ull
#define PTE_D 0x40ull
#define PTE_PS 0x80ull
#define PTE_G 0x100ull
#define PTE_NX (1ull << 63)

enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16, PF_PK = 32 };

#define LEVELS_MAX 4

struct walk {
    u64 gpa;        /* of the 4 KiB page that holds the address */
    bool user, writable, nx, dirty;
    bool global;
    int shift;      /* log of the size of its page */
    u8 key; /* protection key */
    int levels;     /* entries passed, the leaf last */
    u8 *entry[LEVELS_MAX]; /* where they are; NULL: a PAE page-directory-pointer register */
    u64 value[LEVELS_MAX];
    int entry_size;
    bool present, reserved; /* how it ended */
};

static u64 gpa_mask(const struct vcpu *c)
{
    return (1ull << c->group->model->phys_bits) - 1;
}

/* What the address lines show: bit 20 is masked while the board's A20 gate is closed. */
static u64 address_lines(const struct vcpu *c, u64 gpa)
{
    return unlikely(__atomic_load_n(&c->group->a20_closed, __ATOMIC_SEQ_CST)) ? gpa & ~(u64)BIT(20) : gpa;
}

/* Reads a table entry. Tables outside RAM read as all ones, like a bus that nobody drives: reserved bits are set then. */
static u64 entry_read(struct vcpu *c, struct walk *w, u64 gpa)
{
    u8 *p = guest_memory_ptr(vcpu_memory(c), address_lines(c, gpa), (u64)w->entry_size, false);
    u64 v = ~0ull;

    if (p)
        v = w->entry_size == 8 ? __atomic_load_n((u64 *)p, __ATOMIC_RELAXED) : __atomic_load_n((u32 *)p, __ATOMIC_RELAXED);
    w->entry[w->levels] = p;
    w->value[w->levels++] = v;
    return v;
}

static void walk_permissions(struct walk *w, u64 entry)
{
    w->user &= !!(entry & PTE_U);
    w->writable &= !!(entry & PTE_W);
    w->nx |= w->entry_size == 8 && entry & PTE_NX;
}

/* The leaf was found: `shift` is the log of the page size. */
static void walk_leaf(const struct vcpu *c, struct walk *w, u64 entry, u64 base, int shift, u64 gva)
{
    w->dirty = entry & PTE_D;
    w->shift = shift;
    w->global = entry & PTE_G && c->s.cr4 & CR4_PGE;
    w->key = entry >> 59 & 15; /* counts in long mode alone */
    w->gpa = base | (gva & ((1ull << shift) - 1) & PAGE_MASK);
    w->present = true;
}

static void walk_32bit(struct vcpu *c, struct walk *w, u64 gva)
{
    u64 pde, pte;

    w->entry_size = 4;
    pde = entry_read(c, w, (c->s.cr3 & 0xfffff000) + (gva >> 22 & 0x3ff) * 4);
    if (!(pde & PTE_P))
        return;
    walk_permissions(w, pde);
    if (pde & PTE_PS && c->s.cr4 & CR4_PSE) {
        /* PSE-36: bits 20:13 are address bits 39:32 */
        u64 base = (pde & 0xffc00000) | (pde >> 13 & 0xff) << 32;

        w->reserved = pde & 1 << 21 || base & ~gpa_mask(c);
        walk_leaf(c, w, pde, base, 22, gva);
        return;
    }
    pte = entry_read(c, w, (pde & 0xfffff000) + (gva >> 12 & 0x3ff) * 4);
    if (!(pte & PTE_P))
        return;
    walk_permissions(w, pte);
    walk_leaf(c, w, pte, pte & 0xfffff000, 12, gva);
}

/* Address bits of a PAE or 4-level entry that must be zero. */
static u64 reserved_bits(const struct vcpu *c)
{
    return (0x000ffffffffff000 & ~gpa_mask(c)) | (c->s.efer & EFER_NXE ? 0 : PTE_NX);
}

/* From the page table at `table` for address bits [shift, shift+9) downwards; `shift` 39, 30 or 21 at first. */
static void walk_64bit_entries(struct vcpu *c, struct walk *w, u64 gva, u64 table, int shift)
{
    u64 reserved = reserved_bits(c);

    if (!long_mode(c))
        reserved |= 0x7ff0000000000000; /* PAE: bits 62:52 are not ignored */
    for (;; shift -= 9) {
        u64 entry = entry_read(c, w, table + (gva >> shift & 0x1ff) * 8);
        u64 base = entry & 0x000ffffffffff000;

        if (!(entry & PTE_P))
            return;
        walk_permissions(w, entry);
        if (entry & reserved)
            w->reserved = true;
        if (shift == 12) {
            walk_leaf(c, w, entry, base, shift, gva);
            return;
        }
        if (entry & PTE_PS) {
            if (shift == 39 || (shift == 30 && !has(c, FEAT_PDPE1GB)))
                w->reserved = true;
            else if (base & ((1ull << shift) - 1) & ~0x1000ull) /* bit 12 is PAT */
                w->reserved = true;
            walk_leaf(c, w, entry, base & ~((1ull << shift) - 1), shift, gva);
            return;
        }
        if (w->reserved)
            return;
        table = base;
    }
}

static void walk_pae(struct vcpu *c, struct walk *w, u64 gva)
{
    u64 pdpte = c->s.pdpte[gva >> 30 & 3];

    w->entry_size = 8;
    if (pdpte & PTE_P)
        walk_64bit_entries(c, w, gva, pdpte & 0x000ffffffffff000, 21);
}

static void walk_start(struct vcpu *c, struct walk *w, u64 gva)
{
    w->levels = 0;
    w->shift = PAGE_SHIFT;
    w->user = w->writable = true;
    w->nx = w->dirty = w->global = w->present = w->reserved = false;
    if (!(c->s.cr0 & CR0_PG)) {
        w->gpa = gva & 0xffffffff & PAGE_MASK;
        w->dirty = w->present = true;
    } else if (long_mode(c)) {
        w->entry_size = 8;
        walk_64bit_entries(c, w, gva, c->s.cr3 & 0x000ffffffffff000, 39);
    } else if (c->s.cr4 & CR4_PAE) {
        walk_pae(c, w, gva);
    } else {
        walk_32bit(c, w, gva);
    }
    w->gpa = address_lines(c, w->gpa);
}

/* Accesses that a page's key forbids, bits 1 << enum mmu_access; SDM vol. 3 §4.6.2. PKRU has the rights to user pages,
 * IA32_PKRS those to supervisor pages. Supervisor writes are forbidden only with CR0.WP. */
static u32 key_forbids(const struct vcpu *c, const struct walk *w, bool user_mode)
{
    u32 rights = (w->user ? c->s.pkru : c->s.pkrs) >> w->key * 2; /* AD, WD */

    if (!(c->s.cr4 & (w->user ? CR4_PKE : CR4_PKS)) || !long_mode(c))
        return 0;
    if (rights & 1)
        return 1u << MMU_READ | 1u << MMU_WRITE;
    return rights & 2 && (user_mode || c->s.cr0 & CR0_WP) ? 1u << MMU_WRITE : 0;
}

/* Which accesses the set `mmu` may make of a page found: bits 1 << enum mmu_access. */
static u32 walk_allows(const struct vcpu *c, const struct walk *w, int mmu)
{
    bool user_mode = mmu == MMU_USER || mmu == MMU_ALIGN;
    u32 allowed = 1 << MMU_READ | 1 << MMU_WRITE | 1 << MMU_FETCH;

    if (!(c->s.cr0 & CR0_PG))
        return allowed;
    if (w->nx)
        allowed &= ~(1u << MMU_FETCH);
    allowed &= ~key_forbids(c, w, user_mode);
    if (user_mode) {
        if (!w->user)
            return 0;
        if (!w->writable)
            allowed &= ~(1u << MMU_WRITE);
        return allowed;
    }
    if (!w->writable && c->s.cr0 & CR0_WP)
        allowed &= ~(1u << MMU_WRITE);
    if (w->user && c->s.cr4 & CR4_SMEP)
        allowed &= ~(1u << MMU_FETCH);
    if (w->user && mmu == MMU_SMAP)
        allowed &= 1u << MMU_FETCH;
    return allowed;
}

static bool entry_set(u8 *p, int size, u64 old, u64 bits)
{
    u64 old64 = old;
    u32 old32 = (u32)old;

    if (size == 8)
        return __atomic_compare_exchange_n((u64 *)p, &old64, old | bits, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return __atomic_compare_exchange_n((u32 *)p, &old32, (u32)(old | bits), false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* Sets accessed bits of all entries used, and the leaf's dirty bit for a write. False: an entry changed, walk again. */
static bool walk_mark(struct vcpu *c, struct walk *w, bool write)
{
    for (int n = 0; n < w->levels; n++) {
        u64 bits = n == w->levels - 1 && write ? PTE_A | PTE_D : PTE_A;

        if ((w->value[n] & bits) == bits)
            continue;
        w->dirty |= !!(bits & PTE_D);
        if (!guest_memory_writable(vcpu_memory(c), w->entry[n]))
            continue; /* tables in ROM keep their bits, and the write goes on */
        if (!entry_set(w->entry[n], w->entry_size, w->value[n], bits))
            return false;
        guest_memory_written(vcpu_memory(c), w->entry[n], (u64)w->entry_size);
    }
    return true;
}

static _Noreturn void walk_fault(struct vcpu *c, const struct walk *w, u64 gva, enum mmu_access access, int mmu)
{
    u32 error = w->present || w->reserved ? PF_P : 0;
    bool user_mode = mmu == MMU_USER || mmu == MMU_ALIGN;

    if (trace_on(MMU)) {
        ext_save(c);
        for (int n = 0; n < w->levels; n++)
            trace(MMU, "fault at %#llx: entry %d is %#llx%s", (unsigned long long)gva, n, (unsigned long long)w->value[n],
                  w->reserved && n == w->levels - 1 ? ", reserved bits" : "");
    }
    if (w->reserved)
        error |= PF_RSVD;
    if (access == MMU_WRITE)
        error |= PF_W;
    /* an implicit supervisor access at CPL 3 is made through a supervisor set */
    if (user_mode)
        error |= PF_U;
    if (w->present && !w->reserved && key_forbids(c, w, user_mode) >> access & 1)
        error |= PF_PK;
    if (access == MMU_FETCH && (c->s.cr4 & CR4_SMEP || (c->s.cr4 & CR4_PAE && c->s.efer & EFER_NXE)))
        error |= PF_I;
    if (mmu == MMU_USER && access != MMU_FETCH)
        window_miss(c, gva, access == MMU_WRITE);
    raise_page_fault(c, gva, error);
}

/* Stack accesses raise #SS where others raise #GP. The raise is rare, so the instruction is looked at again. */
static bool stack_access(struct vcpu *c, u64 gva)
{
    const struct insn *i = c->insn;

    if (!i)
        return false;
    switch (i->mnemonic) {
    case ZYDIS_MNEMONIC_PUSH: case ZYDIS_MNEMONIC_POP: case ZYDIS_MNEMONIC_CALL: case ZYDIS_MNEMONIC_RET:
    case ZYDIS_MNEMONIC_ENTER: case ZYDIS_MNEMONIC_LEAVE: case ZYDIS_MNEMONIC_PUSHFQ: case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_PUSHF: case ZYDIS_MNEMONIC_POPF: case ZYDIS_MNEMONIC_IRETQ: case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRET:
        return !i->mem || i->seg == SEG_SS || gva - (c->lin_base[i->seg] + insn_ea(c, i)) >= 64;
    default: return i->mem && i->seg == SEG_SS;
    }
}

static bool canonical_address(u64 gva)
{
    return (u64)((s64)(gva << 16) >> 16) == gva;
}

void mmu_check_canonical(struct vcpu *c, u64 gva, u32 size)
{
    if (!long_mode(c) || (canonical_address(gva) && canonical_address((gva + size - 1) & c->lin_mask)))
        return;
    if (c->delivering >= 0 || stack_access(c, gva))
        raise_error(c, EXC_SS, 0);
    raise_gp0(c);
}

/* Tag bits for what is at the page: RAM, ROM or a device. */
static u64 tag_kind(struct vcpu *c, struct tlb_entry *t, u64 gpa)
{
    const struct ram_region *r = guest_memory_find(vcpu_memory(c), gpa);

    if (!r || lapic_page(c, gpa)) {
        t->page = NULL;
        return TLB_MMIO;
    }
    t->page = r->hva + (gpa - r->gpa);
    return r->readonly ? TLB_ROM : 0;
}

static bool page_watched(const struct vcpu *c, u64 gva)
{
    for (int n = 0; n < 4; n++)
        if (c->s.dr[7] >> n * 2 & 3 && c->s.dr[7] >> (16 + n * 4) & 3 && !((c->s.dr[n] ^ gva) & PAGE_MASK))
            return true;
    return debug_page_watched(c, gva);
}

static struct tlb_entry *tlb_store(struct vcpu *c, const struct walk *w, u64 gva, u32 allowed, int mmu)
{
    struct tlb_entry *t = tlb_entry(c, mmu, gva);
    u64 page = gva & PAGE_MASK, kind;

    if (tlb_page(t->read) != page)
        tlb_victim_keep(c->tlb, mmu, t);
    tlb_origin(c->tlb, t)->gpa = w->gpa;
    kind = tag_kind(c, t, w->gpa);
    if (mmu == MMU_ALIGN)
        kind |= TLB_CHECK;
    if (page_watched(c, gva))
        kind |= TLB_WATCH;
    t->read = tlb_slow(page, allowed & 1 << MMU_READ ? kind & ~(u64)TLB_ROM : TLB_INVALID);
    t->fetch = tlb_slow(page, allowed & 1 << MMU_FETCH ? kind & TLB_MMIO : TLB_INVALID);
    if (!(kind & TLB_MMIO) && code_lines_any(vcpu_memory(c), t->page))
        kind |= TLB_CODE;
    if (c->trial && c->tlb == &c->trial->tlb)
        kind |= TLB_TRIAL;
    t->write = tlb_slow(page, allowed & 1 << MMU_WRITE && w->dirty ? kind : TLB_INVALID);
    tlb_entry_used(c->tlb, mmu, (u64)(t - c->tlb->set[mmu]), w->global);
    if (w->shift > PAGE_SHIFT)
        tlb_note_large(c->tlb, gva, w->shift);
    return t;
}

struct tlb_entry *tlb_fill(struct vcpu *c, u64 gva, enum mmu_access access, int mmu)
{
    struct walk w;
    u32 allowed;

    mmu_check_canonical(c, gva, 1);
    do {
        walk_start(c, &w, gva);
        if (w.reserved || !w.present)
            walk_fault(c, &w, gva, access, mmu);
        allowed = walk_allows(c, &w, mmu);
        if (!(allowed & 1u << access))
            walk_fault(c, &w, gva, access, mmu);
    } while (!walk_mark(c, &w, access == MMU_WRITE));
    return tlb_store(c, &w, gva, allowed, mmu);
}

/* What tlb_store would make a fast entry of. */
static struct mmu_page peeked(struct vcpu *c, const struct walk *w, u64 gva)
{
    struct mmu_page page = {.shift = (u8)w->shift};
    struct tlb_entry t;
    u32 allowed = walk_allows(c, w, MMU_USER);
    u64 kind = tag_kind(c, &t, w->gpa);

    if (kind & TLB_MMIO || !(allowed & 1 << MMU_READ) || page_watched(c, gva))
        return page;
    page.hva = t.page;
    page.write = allowed & 1 << MMU_WRITE && w->dirty && !kind && !code_lines_any(vcpu_memory(c), t.page);
    return page;
}

/* Whether a translation may be used without a change of its entries. */
static bool walk_settled(const struct walk *w)
{
    for (int n = 0; n < w->levels; n++)
        if (!(w->value[n] & PTE_A))
            return false;
    return w->present && !w->reserved && !w->global;
}

void mmu_peek(struct vcpu *c, u64 gva, int count, struct mmu_page *page)
{
    struct walk w = {.shift = PAGE_SHIFT};
    bool settled = false;

    for (int n = 0; n < count; n++, gva += PAGE_SIZE) {
        if (settled && w.shift > PAGE_SHIFT) {
            w.gpa = (w.gpa & ~((1ull << w.shift) - 1)) | (gva & ((1ull << w.shift) - 1));
            w.gpa = address_lines(c, w.gpa);
        } else {
            walk_start(c, &w, gva);
            settled = walk_settled(&w);
        }
        page[n] = settled ? peeked(c, &w, gva) : (struct mmu_page){.hva = NULL};
    }
}

bool mmu_translate_debug(struct vcpu *c, u64 gva, u64 *gpa)
{
    struct walk w;

    walk_start(c, &w, gva);
    if (!w.present || w.reserved)
        return false;
    *gpa = w.gpa | (gva & ~PAGE_MASK);
    return true;
}

void mmu_load_pdptes(struct vcpu *c, u64 cr3)
{
    u64 pdpte[4];

    for (int n = 0; n < 4; n++) {
        u8 *p = guest_memory_ptr(vcpu_memory(c), (cr3 & 0xffffffe0) + (u64)n * 8, 8, false);

        pdpte[n] = p ? __atomic_load_n((u64 *)p, __ATOMIC_RELAXED) : ~0ull;
        if (pdpte[n] & PTE_P && pdpte[n] & (0x1e6 | ~(gpa_mask(c) | 0xfff)))
            raise_gp0(c);
    }
    for (int n = 0; n < 4; n++)
        c->s.pdpte[n] = pdpte[n];
}

void mmu_load_pkru(struct vcpu *c, u32 pkru)
{
    bool changed = pkru != c->s.pkru;

    c->s.pkru = pkru;
    if (changed && c->s.cr4 & CR4_PKE)
        tlb_flush(c);
}

void mmu_load_cr3(struct vcpu *c, u64 cr3)
{
    bool pcids = c->s.cr4 & CR4_PCIDE;

    if (c->s.cr0 & CR0_PG && c->s.cr4 & CR4_PAE && !long_mode(c))
        mmu_load_pdptes(c, cr3);
    c->s.cr3 = cr3 & ~CR3_NO_FLUSH;
    if (trace_on(MMU))
        ext_save(c);
    trace(MMU, "vcpu %d: CR3 %#llx", c->index, (unsigned long long)cr3);
    tlb_space_load(c, pcids ? cr3 & CR3_PCID : 0, pcids && cr3 & CR3_NO_FLUSH);
    window_cr3_loaded(c, cr3 >> 63);
}
