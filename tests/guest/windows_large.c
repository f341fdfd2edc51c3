/* Large pages of user memory as translated code reaches it: random accesses of ring 3 against a model, while page-directory entries
 * change between large pages and tables of small ones, move, lose rights and accessed and dirty bits, and are invalidated by any
 * address in them. Programs are written into large pages too, and overwritten. SDM vol. 3 §4.10.4. */
#include "windows.h"

#define REGIONS 4
#define REGION 0x200000ul
#define FRAMES 4 /* of 2 MiB */
#define FRAME(n) (0x2000000ul + (u64)(n) * REGION)
#define GIANT 0x80000000ul /* 1 GiB from there on is all memory, if the processor has such pages */
#define ROUNDS 40000
#define ROUNDS_QUICK 5000

static const u64 at[REGIONS] = {0x555555400000, 0x555555600000, 0x7fffffc00000, 0x20000000000};

static u64 *pde[REGIONS], *small[REGIONS], *pdpte;
static int faults, successes, large_successes;

static void space_make(void)
{
    for (int n = 0; n < REGIONS; n++) {
        u64 *t = table_entry(pml4, at[n] >> 39 & 511);

        t = table_entry(t, at[n] >> 30 & 511);
        pde[n] = &t[at[n] >> 21 & 511];
        small[n] = page_alloc();
    }
    if (feature(0x80000001, 0, 3, 26))
        *(pdpte = &((u64 *)(pml4[0] & ~0xffful))[GIANT >> 30]) = PTE_PS | PTE_P | PTE_W | PTE_U;
    write_cr3((u64)pml4);
}

static u64 rights(void)
{
    return PTE_U | (one_in(8) ? 0 : PTE_P) | (one_in(3) ? 0 : PTE_W);
}

static u64 inside(u64 start, u64 size)
{
    return start + random32() % size;
}

/* The entry was changed: one address of it is as good as another, and all is as good as that. */
static void invalidate(u64 start, u64 size)
{
    if (one_in(6))
        write_cr3((u64)pml4);
    else
        invlpg(inside(start, size));
}

static void region_change(void)
{
    int n = (int)(random32() % REGIONS);

    if (*pde[n] & PTE_PS && one_in(2)) {
        *pde[n] &= ~(u64)(one_in(3) ? PTE_W : one_in(2) ? PTE_D : PTE_A | PTE_D);
        invalidate(at[n], REGION);
    } else if (one_in(2)) {
        *pde[n] = FRAME(random32() % FRAMES) | PTE_PS | rights();
        write_cr3((u64)pml4); /* small pages may have been there */
    } else {
        u64 from = FRAME(random32() % FRAMES);
        bool was_large = *pde[n] & PTE_PS;

        for (u64 k = 0; k < 512; k++)
            small[n][k] = (one_in(20) ? FRAME(random32() % FRAMES) : from + k * 4096) | rights();
        *pde[n] = (u64)small[n] | PTE_P | PTE_W | PTE_U;
        invalidate(at[n], REGION);
        if (!was_large)
            write_cr3((u64)pml4);
    }
}

static void small_change(void)
{
    int n = (int)(random32() % REGIONS);
    u64 k = random32() % 512;

    if (*pde[n] & PTE_PS)
        return;
    small[n][k] = one_in(2) ? FRAME(random32() % FRAMES) + random32() % 512 * 4096 + rights() : small[n][k] & ~(u64)PTE_D;
    invlpg(at[n] + k * 4096 + random32() % 4096);
}

static void giant_change(void)
{
    if (!pdpte)
        return;
    *pdpte = PTE_PS | rights();
    invalidate(GIANT, 1ul << 30);
}

/* The entry that maps va, or NULL. */
static u64 *leaf_of(u64 va)
{
    for (int n = 0; n < REGIONS; n++)
        if (va - at[n] < REGION)
            return *pde[n] & PTE_PS || !(*pde[n] & PTE_P) ? pde[n] : &small[n][va >> 12 & 511];
    return va - GIANT < 1ul << 30 ? pdpte : 0;
}

/* Where it is for such an access, or NULL. */
static u64 *model(u64 va, bool write)
{
    u64 *leaf = leaf_of(va), want = PTE_P | PTE_U | (write ? PTE_W : 0), size;

    if (!leaf || (*leaf & want) != want)
        return 0;
    size = leaf == pdpte ? 1ul << 30 : *leaf & PTE_PS ? REGION : 4096;
    return (u64 *)((*leaf & 0xffffffff000ul & ~(size - 1)) + (va & (size - 1)));
}

static u64 somewhere(void)
{
    u64 offset = (one_in(2) ? random32() % 16 * 4096 * 31 : random32() % 512 * 4096) + random32() % 512 * 8;

    if (pdpte && one_in(6))
        return GIANT + FRAME(random32() % FRAMES) + offset % REGION;
    return at[random32() % REGIONS] + offset % REGION;
}

static void access_random(void)
{
    static const u8 *const codes[] = {do_read, do_write, do_add};
    int k = (int)(random32() % 3), vector;
    u64 va = somewhere(), *to = model(va, k > 0), *from = model(va, false), before = from ? *from : 0;
    struct frame f = frame_at(codes[k], 3);

    f.rbx = va;
    f.rax = (u64)random32() << 32 | random32();
    vector = enter(&f);
    if (!to) {
        faults++;
        must(vector == 14, "access %d at %lx: vector %d, not a page fault", k, va, vector);
        must(!from || *from == before, "access %d at %lx: faulted and wrote", k, va);
        return;
    }
    successes++;
    large_successes += !!(*leaf_of(va) & PTE_PS);
    must(vector == 3, "access %d at %lx: vector %d cr2 %lx; entry %lx", k, va, vector, caught_cr2, *leaf_of(va));
    must(*to == (k == 0 ? before : k == 1 ? f.rax : before + f.rax), "access %d at %lx: %lx there", k, va, *to);
    must(k || caught.rax == before, "access at %lx: %lx, not %lx", va, caught.rax, before);
    must(*leaf_of(va) & PTE_A && (!k || *leaf_of(va) & PTE_D), "access %d at %lx: entry %lx", k, va, *leaf_of(va));
}

static void program_random(void)
{
    u64 va = somewhere();

    if (model(va, true))
        programs_at(va, 3);
}

void guest_main(void)
{
    int rounds = command_line_is("quick") ? ROUNDS_QUICK : ROUNDS;

    random_start();
    user_text_allow(true);
    space_make();
    be_busy();
    for (int n = 0; n < rounds; n++) {
        if (one_in(12))
            region_change();
        if (one_in(6))
            small_change();
        if (one_in(60))
            giant_change();
        if (one_in(40))
            program_random();
        access_random();
    }
    print("%d accesses, %d of them in large pages, %d faults\n", successes, large_successes, faults);
    check(large_successes > rounds / 8 && faults > rounds / 10, "accesses and faults");
}
