/* Hostile page tables: the input fills memory, chooses a paging mode, and makes accesses. The walk may find anything, but
 * it changes nothing except accessed and dirty bits in RAM, and what it finds stays inside guest memory.
 *
 * The input: control bits, CR3, then writes of table entries and accesses, mixed. */
#include "cpu_world.h"

#include "cpu/access.h"
#include "cpu/tlb.h"

#include <stdlib.h>
#include <string.h>

enum { ACCESSED_DIRTY = 0x60, INPUT_USED = 600 };

static u64 expected[WORLD_RAM / 8]; /* the RAM at 0, without the bits that walks have set */

static void control_set(struct vcpu *c, struct fuzz_input *in)
{
    u8 mode = (u8)take(in, 1), bits = (u8)take(in, 1);

    c->s.cr0 = CR0_PE | CR0_ET | (mode & 3 ? CR0_PG : 0) | (bits & 1 ? CR0_WP : 0);
    c->s.cr4 = ((mode & 3) > 1 ? CR4_PAE : 0) | (bits & 2 ? CR4_PSE : 0) | (bits & 4 ? CR4_SMEP : 0) |
               (bits & 8 ? CR4_SMAP : 0) | (bits & 16 ? CR4_PGE : 0);
    c->s.efer = ((mode & 3) == 3 ? EFER_LME | EFER_LMA : 0) | (bits & 32 ? EFER_NXE : 0);
    vcpu_mode_update(c);
}

static void cr3_set(struct vcpu *c, u64 cr3)
{
    if (__builtin_setjmp(c->fault_jump))
        c->delivering = -1;
    else
        mmu_load_cr3(c, cr3);
}

/* Nothing has changed but by the bits that a walk sets. */
static void compare(struct vcpu *c)
{
    const u64 *now = (const u64 *)guest_memory_ptr(vcpu_memory(c), 0, WORLD_RAM, false);
    u64 may_rise = ACCESSED_DIRTY | (long_mode(c) || c->s.cr4 & CR4_PAE ? 0 : (u64)ACCESSED_DIRTY << 32);

    for (u32 i = 0; i < ARRAY_SIZE(expected); i++)
        if (now[i] != expected[i] && (expected[i] & ~now[i] || now[i] & ~expected[i] & ~may_rise))
            abort();
    cpu_world_check();
}

static void entry_check(struct vcpu *c, const struct tlb_entry *t, u64 gva, enum mmu_access access)
{
    u64 tag = access == MMU_READ ? t->read : access == MMU_WRITE ? t->write : t->fetch, gpa;

    if (tag & TLB_INVALID || tlb_page(tag) != (gva & PAGE_MASK))
        abort();
    if (!mmu_translate_debug(c, gva, &gpa) || (gpa & PAGE_MASK) != tlb_gpa(c->tlb, t))
        abort();
    gpa &= PAGE_MASK;
    if (!(tag & TLB_MMIO) && t->page != guest_memory_ptr(vcpu_memory(c), gpa, PAGE_SIZE, false))
        abort();
    if (access == MMU_WRITE && !(tag & (TLB_MMIO | TLB_ROM)) && !guest_memory_writable(vcpu_memory(c), t->page))
        abort();
}

static void act_access(struct vcpu *c, struct fuzz_input *in)
{
    u8 how = (u8)take(in, 1);
    u64 gva = how & 0x80 ? take(in, 8) : take(in, 2) << 12;
    enum mmu_access access = how % 3;
    int mmu = how >> 2 & 3;

    if (!long_mode(c))
        gva = (u32)gva;
    if (__builtin_setjmp(c->fault_jump))
        c->delivering = -1;
    else
        entry_check(c, tlb_fill(c, gva, access, mmu), gva, access);
}

/* An entry, most often one that points into RAM. */
static void act_entry(struct vcpu *c, struct fuzz_input *in)
{
    u64 at = (take(in, 2) * 4) % (WORLD_RAM - 8), val;
    u8 how = (u8)take(in, 1);
    int size = how & 8 ? 4 : 8;

    val = how & 1 ? take(in, 8) : (take(in, 1) % 0x58) << 12 | take(in, 1) | (u64)(how >> 1 & 1) << 63 | (u64)(how >> 2 & 1) << 32;
    guest_memory_write(vcpu_memory(c), at, &val, (u64)size);
    memcpy((u8 *)expected + at, &val, (u64)size);
    if (how & 16)
        tlb_flush(c);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct fuzz_input in = {data, MIN(size, (size_t)INPUT_USED)};
    struct vcpu *c = cpu_world();

    memset(expected, 0, sizeof(expected));
    control_set(c, &in);
    cr3_set(c, take(&in, 2) << 5);
    for (int n = 0; in.left && n < 200; n++) {
        u8 op = (u8)take(&in, 1);

        if (op % 4 == 0)
            act_access(c, &in);
        else if (op == 0xff)
            cr3_set(c, take(&in, 8));
        else
            act_entry(c, &in);
    }
    compare(c);
    return 0;
}
