/* Paging in long mode: permissions by level, NX, WP, SMEP, SMAP, accessed and dirty bits, reserved bits, TLB invalidation.
 * SDM vol. 3 ch. 4. */
#include "guest.h"

#define VA 0x40000000000ul

static void do_read(void *arg) { (void)*(volatile u8 *)arg; }
static void do_write(void *arg) { *(volatile u8 *)arg = 1; }
static void do_fetch(void *arg) { ((void (*)(void))arg)(); }

static u64 *pte;
static u8 *page;

enum { R, W, X };

static void set(u64 flags)
{
    *pte = (u64)page | flags;
    invlpg(VA);
}

static void expect(const char *name, int access, bool user, int vector, u64 error)
{
    static void (*const fns[])(void *) = {do_read, do_write, do_fetch};
    int got;

    page[0] = 0xc3;
    got = (user ? catch_fault_user : catch_fault)(fns[access], (void *)VA);
    check(got == vector && (vector < 0 || caught.error == error), "%s: vector %d error %lx (expected %d %lx)", name, got,
          got < 0 ? 0 : caught.error, vector, error);
}

static void smep_smap(void)
{
    user_text_allow(false); /* else SMEP and SMAP would be about this program too */
    if (feature(7, 0, 1, 7)) {
        write_cr4(read_cr4() | 1 << 20);
        set(PTE_P | PTE_W | PTE_U);
        expect("SMEP: fetch from a user page", X, false, 14, 0x11);
        set(PTE_P | PTE_W);
        expect("SMEP: fetch from a supervisor page", X, false, -1, 0);
        write_cr4(read_cr4() & ~(1ul << 20));
    }
    if (feature(7, 0, 1, 20)) {
        set(PTE_P | PTE_W | PTE_U);
        write_cr4(read_cr4() | 1 << 21);
        expect("SMAP: read of a user page", R, false, 14, 1);
        expect("SMAP: write of a user page", W, false, 14, 3);
        asm volatile("stac");
        expect("SMAP with AC: read of a user page", R, false, -1, 0);
        asm volatile("clac");
        write_cr4(read_cr4() & ~(1ul << 21));
    }
}

static void accessed_dirty(void)
{
    set(PTE_P | PTE_W);
    (void)*(volatile u8 *)VA;
    check((*pte & (PTE_A | PTE_D)) == PTE_A, "a read sets A only: %lx", *pte);
    *(volatile u8 *)VA = 1;
    check((*pte & (PTE_A | PTE_D)) == (PTE_A | PTE_D), "a write sets D: %lx", *pte);
    *pte &= ~(u64)(PTE_A | PTE_D);
    invlpg(VA);
    *(volatile u8 *)VA = 1;
    check((*pte & (PTE_A | PTE_D)) == (PTE_A | PTE_D), "and again after INVLPG: %lx", *pte);
    set(PTE_P);
    write_cr0(read_cr0() | 0x10000);
    expect("WP: write of a read-only page", W, false, 14, 3);
    check(!(*pte & PTE_D), "a refused write leaves D clear");
}

static void tlb_flushes(void)
{
    u8 *other = page_alloc();

    page[0] = 1;
    other[0] = 2;
    set(PTE_P | PTE_W);
    check(*(volatile u8 *)VA == 1, "first page seen");
    *pte = (u64)other | PTE_P | PTE_W;
    invlpg(VA);
    check(*(volatile u8 *)VA == 2, "INVLPG shows the new page");
    *pte = (u64)page | PTE_P | PTE_W;
    write_cr3(read_cr3());
    check(*(volatile u8 *)VA == 1, "a CR3 load shows the new page");
}

static void code_moves(void)
{
    static const u8 one[] = {0xb8, 1, 0, 0, 0, 0xc3}, two[] = {0xb8, 2, 0, 0, 0, 0xc3};
    u8 *other = page_alloc();
    int (*fn)(void) = (int (*)(void))VA;

    for (u32 n = 0; n < sizeof(one); n++) {
        page[n] = one[n];
        other[n] = two[n];
    }
    set(PTE_P | PTE_W);
    check(fn() == 1, "code runs");
    page[1] = 3;
    check(fn() == 3, "code modified through another mapping runs modified");
    ((volatile u8 *)VA)[1] = 4;
    check(fn() == 4, "code modified through its own mapping runs modified");
    *pte = (u64)other | PTE_P | PTE_W;
    invlpg(VA);
    check(fn() == 2, "remapped code runs");
}

void guest_main(void)
{
    u64 saved;

    user_text_allow(true);
    page = page_alloc();
    pte = pte_of(VA);
    pml4[VA >> 39 & 511] |= PTE_U;
    write_cr3(read_cr3());

    set(0);
    expect("not present: read", R, false, 14, 0);
    expect("not present: write", W, false, 14, 2);
    expect("not present: user read", R, true, 14, 4);
    expect("not present: user write", W, true, 14, 6);
    set(PTE_P | PTE_W);
    expect("supervisor page: read", R, false, -1, 0);
    expect("supervisor page: user read", R, true, 14, 5);
    expect("supervisor page: user write", W, true, 14, 7);
    expect("supervisor page: user fetch", X, true, 14, 0x15);
    set(PTE_P | PTE_U);
    expect("read-only user page: user read", R, true, -1, 0);
    expect("read-only user page: user write", W, true, 14, 7);
    write_cr0(read_cr0() & ~0x10000ul);
    invlpg(VA);
    expect("read-only page without WP: write", W, false, -1, 0);
    write_cr0(read_cr0() | 0x10000);
    invlpg(VA);
    expect("read-only page with WP: write", W, false, 14, 3);
    set(PTE_P | PTE_W | PTE_U | PTE_NX);
    expect("NX page: fetch", X, false, 14, 0x11);
    expect("NX page: user fetch", X, true, 14, 0x15);
    expect("NX page: user read", R, true, -1, 0);
    set(PTE_P | PTE_W | PTE_U | 1ul << 51);
    expect("reserved bit: read", R, false, 14, 9);
    expect("reserved bit: user write", W, true, 14, 15);
    set(PTE_P | PTE_W | PTE_U);
    saved = pml4[VA >> 39 & 511];
    pml4[VA >> 39 & 511] = saved & ~(u64)PTE_W;
    invlpg(VA);
    expect("read-only at the top: user write", W, true, 14, 7);
    pml4[VA >> 39 & 511] = saved & ~(u64)PTE_U;
    invlpg(VA);
    expect("supervisor at the top: user read", R, true, 14, 5);
    pml4[VA >> 39 & 511] = saved | PTE_PS;
    invlpg(VA);
    expect("PS in the PML4 is reserved", R, false, 14, 9);
    pml4[VA >> 39 & 511] = saved;
    invlpg(VA);
    smep_smap();
    accessed_dirty();
    tlb_flushes();
    code_moves();
}
