/* Paging outside long mode: 32-bit paging with and without PSE and PSE-36, PAE with its pointer registers and NX;
 * permissions, error codes, WP, accessed and dirty bits, global pages. SDM vol. 3 §4.3, §4.4, §4.6, §4.7, §4.8,
 * §4.10. */
#include "guest32.h"

enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80, G = 0x100 };
#define NX (1ull << 63)
#define VA 0x40000000u /* not used by the program, which lies below 64 MiB */
enum { CR4_PSE = 0x10, CR4_PAE = 0x20, CR4_PGE = 0x80, CR4_SMEP = 1 << 20, CR0_WP = 1 << 16 };
#define CR0_PG 0x80000000u
#define MSR_EFER 0xc0000080u

CODE(32, do_read, "mov (%ebx), %al; int3");
CODE(32, do_write, "mov %al, (%ebx); int3");
CODE(32, do_fetch, "jmp *%ebx");
CODE(32, arpl_same, "xor %eax, %eax; arpl %ax, (%ebx); int3");
CODE(32, arpl_raise, "mov $3, %eax; arpl %ax, (%ebx); int3");
CODE(32, read_cross, "mov (%ebx), %eax; int3");

static u32 *directory, *table;
static u8 *page, *other;

static void expect(const char *name, const u8 *code, int ring, int vector, u32 error)
{
    struct frame f = frame_at(code, ring);
    int got;

    f.ebx = VA;
    f.eax = 0xcc; /* what is written there must run as INT3 */
    got = enter(&f);
    check(got == vector && (vector != 14 || (caught.error == error && caught_cr2 == VA)),
          "%s: vector %d error %x CR2 %x (expected %d, %x)", name, got, caught.error, caught_cr2, vector, error);
}

/* The program itself: 64 MiB one to one, user, by 4 KiB pages. */
static void identity32(u32 *dir)
{
    for (u32 n = 0; n < 16; n++) {
        u32 *t = page_alloc();

        for (u32 i = 0; i < 1024; i++)
            t[i] = (n << 22 | i << 12) | P | W | U;
        dir[n] = (u32)t | P | W | U;
    }
}

static void set32(u32 pde_flags, u32 pte_flags)
{
    directory[VA >> 22] = (u32)table | pde_flags;
    table[0] = (u32)page | pte_flags;
    invlpg(VA);
}

static void permissions32(void)
{
    set32(P | W | U, 0);
    expect("not present: read", do_read, 0, 14, 0);
    expect("not present: write", do_write, 0, 14, 2);
    expect("not present: user read", do_read, 3, 14, 4);
    expect("not present: user write", do_write, 3, 14, 6);
    expect("not present: user fetch", do_fetch, 3, 14, 4);
    set32(0, P | W | U);
    expect("directory entry not present", do_read, 0, 14, 0);
    set32(P | W | U, P | W | U);
    expect("user page: user write", do_write, 3, 3, 0);
    expect("user page: user fetch", do_fetch, 3, 3, 0);
    set32(P | W | U, P | W);
    expect("supervisor page: user read", do_read, 3, 14, 5);
    expect("supervisor page: user write", do_write, 3, 14, 7);
    expect("supervisor page: write", do_write, 0, 3, 0);
    set32(P | W, P | W | U);
    expect("supervisor directory entry: user read", do_read, 3, 14, 5);
    set32(P | W | U, P | U);
    expect("read-only page: user read", do_read, 3, 3, 0);
    expect("read-only page: user write", do_write, 3, 14, 7);
    expect("read-only page: ARPL that need not write", arpl_same, 3, 3, 0);
    expect("read-only page: ARPL that writes", arpl_raise, 3, 14, 7);
    expect("read-only page, no WP: write", do_write, 0, 3, 0);
    set32(P | U, P | W | U);
    expect("read-only directory entry: user write", do_write, 3, 14, 7);
    write_cr0(read_cr0() | CR0_WP);
    expect("read-only directory entry, WP: write", do_write, 0, 14, 3);
    set32(P | W | U, P);
    expect("read-only page, WP: write", do_write, 0, 14, 3);
    write_cr0(read_cr0() & ~(u32)CR0_WP);
}

static void marks32(void)
{
    set32(P | W, P | W);
    (void)*(volatile u8 *)VA;
    check((directory[VA >> 22] & (A | D)) == A && (table[0] & (A | D)) == A, "a read sets A in both: %x %x",
          directory[VA >> 22] & 0xfff, table[0] & 0xfff);
    *(volatile u8 *)VA = 0xcc;
    check((table[0] & (A | D)) == (A | D) && !(directory[VA >> 22] & D), "a write sets D in the leaf alone");
    set32(P | W, 0);
    expect("fault", do_read, 0, 14, 0);
    check(!(table[0] & A), "a fault marks no leaf");
}

static void large32(void)
{
    u32 cr4 = read_cr4();

    directory[VA >> 22] = 0x400000 | P | W | U | PS; /* without PSE, a page table at 4 MiB */
    *(u32 *)0x400000 = (u32)page | P | W | U;
    write_cr4(cr4 & ~(u32)CR4_PSE);
    write_cr3(read_cr3());
    check(*(volatile u8 *)VA == 0xcc, "without CR4.PSE, PS is ignored");
    write_cr4(cr4 | CR4_PSE);
    *(u32 *)0x4321a0 = 0x600df00d;
    check(*(volatile u32 *)(VA + 0x321a0) == 0x600df00d, "4 MiB page");
    check((directory[VA >> 22] & (A | D)) == A, "A in the directory entry: %x", directory[VA >> 22]);
    *(volatile u32 *)(VA + 0x321a4) = 1;
    check((directory[VA >> 22] & (A | D)) == (A | D) && *(u32 *)0x4321a4 == 1, "D in the directory entry");
    directory[VA >> 22] = 0x400000 | P | W | U | PS | 1 << 21;
    invlpg(VA);
    expect("4 MiB page with bit 21: reserved", do_read, 0, 14, 9);
    expect("the same, user write", do_write, 3, 14, 15);
    if (feature(1, 0, 3, 17)) {
        directory[VA >> 22] = 0x400000 | P | W | PS | 1 << 13; /* physical 4 GiB + 4 MiB: not RAM here */
        invlpg(VA);
        *(u32 *)0x400000 = 0x1111;
        *(volatile u32 *)VA = 0x2222;
        check(*(u32 *)0x400000 == 0x1111, "PSE-36 reaches beyond 4 GiB");
    }
    directory[VA >> 22] = 0x400000 | P | PS;
    write_cr4(cr4);
}

static void global32(void)
{
    u32 cr4 = read_cr4();

    page[0] = 1;
    other[0] = 2;
    write_cr4(cr4 | CR4_PGE);
    set32(P | W, P | W | G);
    check(*(volatile u8 *)VA == 1, "global page read");
    table[0] = (u32)other | P | W | G;
    invlpg(VA);
    check(*(volatile u8 *)VA == 2, "INVLPG drops a global page");
    table[0] = (u32)page | P | W | G;
    write_cr4(cr4);
    check(*(volatile u8 *)VA == 1, "a change of CR4.PGE drops global pages");
    table[0] = (u32)other | P | W;
    write_cr3(read_cr3());
    check(*(volatile u8 *)VA == 2, "a CR3 load drops the others");
}

static void crossing(void)
{
    struct frame f = frame_at(read_cross, 0);

    set32(P | W | U, P | W | U);
    table[1] = 0;
    invlpg(VA + 4096);
    f.ebx = VA + 4094;
    check(enter(&f) == 14 && caught_cr2 == VA + 4096, "a read across pages faults at the second: CR2 %x", caught_cr2);
}

static void paging_32bit(void)
{
    directory = page_alloc();
    table = page_alloc();
    identity32(directory);
    write_cr3((u32)directory);
    write_cr0(read_cr0() | CR0_PG);
    check(read_cr0() & CR0_PG, "32-bit paging on");
    permissions32();
    marks32();
    if (feature(1, 0, 3, 3))
        large32();
    if (feature(1, 0, 3, 13))
        global32();
    crossing();
    write_cr0(read_cr0() & ~CR0_PG);
    check(!(read_cr0() & CR0_PG), "and off");
}

static u64 pdpt[4] __attribute__((aligned(32)));
static u64 *pae_directory, *pae_table;

static void set_pae(u64 pde_flags, u64 pte_flags)
{
    pae_directory[0] = (u32)pae_table | pde_flags;
    pae_table[0] = (u32)page | pte_flags;
    invlpg(VA);
}

static void load_cr3(void *cr3)
{
    write_cr3((u32)cr3);
}

static void set_cr0(void *cr0)
{
    write_cr0((u32)cr0);
}

/* SDM vol. 3 §4.4.1: the pointers are registers, loaded with CR3, and #GP for reserved bits. */
static void pointers(void)
{
    u64 saved = pdpt[2];

    pdpt[2] = saved | W;
    check(catch_fault(load_cr3, pdpt) == 13, "CR3 with a reserved bit in a pointer: #GP");
    pdpt[2] = saved | 1ull << 62;
    check(catch_fault(load_cr3, pdpt) == 13, "CR3 with a pointer beyond the address width: #GP");
    pdpt[2] = W; /* not present: not checked */
    check(catch_fault(load_cr3, pdpt) == -1, "absent pointers are not checked");
    pdpt[2] = saved;
    load_cr3(pdpt);
    pdpt[1] = 0;
    invlpg(VA);
    set_pae(P | W, P | W);
    check(*(volatile u8 *)VA == page[0], "a pointer changed in memory counts from the next CR3 load");
    load_cr3(pdpt);
    expect("then it is absent", do_read, 0, 14, 0);
    pdpt[1] = (u32)pae_directory | P;
    load_cr3(pdpt);
}

static void permissions_pae(void)
{
    set_pae(P | W | U, 0);
    expect("not present", do_read, 3, 14, 4);
    set_pae(P | W | U, P | U);
    expect("read-only: user write", do_write, 3, 14, 7);
    set_pae(P | U, P | W | U);
    expect("read-only directory entry: user write", do_write, 3, 14, 7);
    set_pae(P | W, P | W | U);
    expect("supervisor directory entry: user read", do_read, 3, 14, 5);
    set_pae(P | W | U, P | W | U | 1ull << 52);
    expect("bit 52 is reserved", do_read, 0, 14, 9);
    set_pae(P | W | U | 1ull << 62, P | W | U);
    expect("bit 62 of a directory entry is reserved", do_write, 3, 14, 15);
    set_pae(P | W | U, P | W | U | NX);
    expect("NX without EFER.NXE is reserved", do_read, 0, 14, 9);
    set_pae(P | W | U, P | W | U);
    expect("user write", do_write, 3, 3, 0);
    check((pae_table[0] & (A | D)) == (A | D) && (pae_directory[0] & (A | D)) == A, "A and D");
    pae_directory[0] = 0x600000 | P | W | U | PS;
    invlpg(VA);
    *(u32 *)0x612340 = 0x1234567;
    check(*(volatile u32 *)(VA + 0x12340) == 0x1234567, "2 MiB page, CR4.PSE or not");
    pae_directory[0] = 0x600000 | P | W | U | PS | 1 << 13;
    invlpg(VA);
    expect("2 MiB page with bit 13: reserved", do_read, 0, 14, 9);
}

static void nx_pae(void)
{
    if (!feature(0x80000001, 0, 3, 20))
        return;
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 0x800);
    set_pae(P | W | U, P | W | U | NX);
    expect("NX page: read", do_read, 3, 3, 0);
    expect("NX page: fetch", do_fetch, 0, 14, 0x11);
    expect("NX page: user fetch", do_fetch, 3, 14, 0x15);
    set_pae(P | W | U | NX, P | W | U);
    expect("NX directory entry: user fetch", do_fetch, 3, 14, 0x15);
    set_pae(P | W | U, P | W);
    expect("supervisor page: user fetch", do_fetch, 3, 14, 0x15);
    set_pae(P | W | U, 0);
    expect("absent page: user fetch", do_fetch, 3, 14, 0x14);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~0x800ull);
    expect("absent page without NXE: user fetch", do_fetch, 3, 14, 4);
}

static void paging_pae(void)
{
    pae_directory = page_alloc();
    pae_table = page_alloc();
    for (u32 n = 0; n < 4; n++)
        pdpt[n] = (u32)page_alloc() | P;
    for (u32 n = 0; n < 32; n++)
        ((u64 *)((u32)pdpt[0] & ~0xfffu))[n] = (u64)n << 21 | P | W | U | PS;
    pdpt[VA >> 30] = (u32)pae_directory | P;
    write_cr4(read_cr4() | CR4_PAE);
    write_cr3((u32)pdpt);
    pdpt[3] |= W;
    check(catch_fault(set_cr0, (void *)(read_cr0() | CR0_PG)) == 13, "CR0.PG with a bad pointer: #GP");
    pdpt[3] &= ~(u64)W;
    write_cr0(read_cr0() | CR0_PG);
    check(read_cr0() & CR0_PG, "PAE paging on");
    permissions_pae();
    pointers();
    nx_pae();
    write_cr0(read_cr0() & ~CR0_PG);
    write_cr4(read_cr4() & ~(u32)CR4_PAE);
}

void guest_main(void)
{
    page = page_alloc();
    page[0] = 0xcc;
    other = page_alloc();
    paging_32bit();
    if (feature(1, 0, 3, 6))
        paging_pae();
}
