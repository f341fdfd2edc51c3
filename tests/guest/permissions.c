/* Rights in 4-level paging, case by random case against the manual's rules (permissions.h): pages of 4 KiB, 2 MiB and
 * 1 GiB; P, R/W, U/S, NX, reserved bits and protection keys at every level; CR0.WP, SMEP, SMAP with and without AC,
 * EFER.NXE, PKRU; reads, writes and fetches of both privileges. Error code, CR2, accessed and dirty flags are
 * compared; each case accesses twice with nothing invalidated between. Then implicit supervisor accesses, which no
 * program makes by address. SDM vol. 3 ch. 4. */
#include "guest.h"
#include "permissions.h"

#define DATA_AT 0x1005000ul            /* physical; not used by the program */
#define VA (0x40c00000000ul + DATA_AT) /* so that every page size leads there */
#define USER_CODE_VA 0x50000000000ul
#define CASES 30000
#define EFER 0xc0000080u

CODE(64, do_read, "mov (%rbx), %al; int3");
CODE(64, do_write, "mov %al, (%rbx); int3");
CODE(64, do_fetch, "jmp *%rbx");
CODE(64, do_load_ds, "mov %eax, %ds; int3");

static const u8 *const codes[] = {do_read, do_write, do_fetch};
static u64 *table[LEVELS]; /* from the top */
static u64 *slot[LEVELS];
static bool has_smep, has_smap, has_pku, has_1g;
static int phys_bits;
static int cases[3][6], wrong[3][6];

/* The program itself stays supervisor memory: ring 3 has a copy of the three pieces. */
static u8 *user_code;

static void setup(void)
{
    u32 r[4];

    cpuid(0x80000008, 0, r);
    phys_bits = r[0] & 0xff;
    has_smep = feature(7, 0, 1, 7);
    has_smap = feature(7, 0, 1, 20);
    has_pku = feature(7, 0, 2, 3);
    has_1g = feature(0x80000001, 0, 3, 26);
    table[0] = pml4;
    for (int n = 1; n < LEVELS; n++)
        table[n] = page_alloc();
    for (int n = 0; n < LEVELS; n++)
        slot[n] = &table[n][VA >> (39 - 9 * n) & 511];
    user_code = page_alloc();
    for (int n = 0; n < 3; n++)
        for (int k = 0; k < 16; k++)
            user_code[n * 16 + k] = codes[n][k];
    for (int k = 0; k < 16; k++)
        user_code[3 * 16 + k] = do_load_ds[k];
    *pte_of(USER_CODE_VA) = (u64)user_code | PTE_P | PTE_U;
    pml4[USER_CODE_VA >> 39 & 511] |= PTE_U;
    write_cr3(read_cr3());
    *(u8 *)DATA_AT = 0xcc;
}

static u64 random64(void)
{
    return (u64)random32() << 32 | random32();
}

static u64 entry_random(int level, int leaf, u64 *reserved)
{
    static const u64 page_base[] = {0, 0, DATA_AT & ~0x1ffffful, DATA_AT};
    u64 address = level == leaf ? page_base[level] : (u64)table[level + 1];
    u64 ignored = random64() & 0x07f0000000000e18; /* PWT, PCD, 11:9, 58:52 */
    u64 e = address | ignored | (random64() & (ENTRY_A | ENTRY_D | 0x7800000000000000));

    *reserved = (0x000ffffffffff000ul & ~((1ul << phys_bits) - 1)) | (rdmsr(EFER) & 0x800 ? 0 : ENTRY_NX);
    e |=
        (one_in(24) ? 0 : ENTRY_P) | (one_in(4) ? 0 : ENTRY_W) | (one_in(4) ? 0 : ENTRY_U) | (one_in(5) ? ENTRY_NX : 0);
    if (level == leaf && leaf < 3)
        e |= PTE_PS | (one_in(2) ? 0x1000 : 0) /* PAT */;
    if (level == leaf && leaf == 3)
        e |= one_in(2) ? 0x80 : 0; /* PAT */
    if (level == 0)
        *reserved |= PTE_PS;
    else if (level == leaf && leaf < 3)
        *reserved |= leaf == 1 ? 0x3fffe000 : 0x1fe000;
    if (one_in(40)) /* one of the reserved bits */
        for (int bit = (int)(random32() & 63), n = 0; n < 64; n++, bit = (bit + 1) & 63)
            if (*reserved >> bit & 1) {
                e |= 1ul << bit;
                break;
            }
    return e;
}

static void translation_random(struct translation *t)
{
    int leaf = (int)(random32() % 3) + 1;

    if (leaf == 1 && !has_1g)
        leaf = 2;
    *t = (struct translation){.levels = leaf + 1};
    for (int n = 0; n <= leaf; n++)
        *slot[n] = t->entry[n] = entry_random(n, leaf, &t->reserved[n]);
}

static void pkru_write(u32 v)
{
    asm volatile("wrpkru" : : "a"(v), "c"(0), "d"(0));
}

static void controls_random(struct controls *c)
{
    u64 cr4 = read_cr4() & ~0x700000ul;

    *c = (struct controls){.wp = one_in(2),
                           .smep = has_smep && one_in(2),
                           .smap = has_smap && one_in(2),
                           .nxe = !one_in(8),
                           .pke = has_pku && one_in(2),
                           .ac = one_in(2),
                           .pkru = random32() & random32()};
    write_cr0((read_cr0() & ~0x10000ul) | (u64)c->wp << 16);
    wrmsr(EFER, (rdmsr(EFER) & ~0x800ul) | (u64)c->nxe << 11);
    write_cr4(cr4 | (u64)c->smep << 20 | (u64)c->smap << 21 | (u64)c->pke << 22);
    if (c->pke)
        pkru_write(c->pkru);
}

/* SMAP looks at AC in ring 0; in ring 3 it would be about alignment. */
static int access_make(const struct access *a, const struct controls *c)
{
    struct frame f = frame_at(a->user ? (u8 *)USER_CODE_VA + a->kind * 16 : codes[a->kind], a->user ? 3 : 0);

    f.rbx = VA;
    f.rax = 0xcc;
    if (c->ac && !a->user)
        f.rflags |= 0x40000;
    return enter(&f);
}

/* A fault may leave accessed flags set above the leaf, and nothing else. */
static bool entries_right(struct translation *t, bool fault)
{
    for (int n = 0; n < t->levels; n++) {
        u64 may = fault && n < t->levels - 1 ? ENTRY_A : 0;

        if ((*slot[n] & ~may) != (t->entry[n] & ~may) || t->entry[n] & ~*slot[n])
            return false;
        t->entry[n] = *slot[n];
    }
    return true;
}

static void case_print(const struct translation *t, const struct controls *c, const struct access *a, int vector,
                       u32 error)
{
    print(
        "     %s %s, WP %d SMEP %d SMAP %d AC %d NXE %d PKE %d PKRU %x: expected vector %d error %x, got %lu error %lx CR2 "
        "%lx\n",
        a->user ? "user" : "supervisor",
        a->kind == READ    ? "read"
        : a->kind == WRITE ? "write"
                           : "fetch",
        c->wp, c->smep, c->smap, c->ac, c->nxe, c->pke, c->pkru, vector, error, caught.vector, caught.error,
        caught_cr2);
    for (int n = 0; n < t->levels; n++)
        print("     entry %lx, was to be %lx\n", *slot[n], t->entry[n]);
}

static void access_check(struct translation *t, const struct controls *c)
{
    const struct access a = {(enum access_kind)(random32() % 3), one_in(2)};
    int *bad = &wrong[t->levels - 2][a.kind + a.user * 3];
    u32 error;
    int vector = access_expected(t, c, &a, &error), got;
    bool ok;

    if (vector < 0)
        access_marks(t, &a);
    got = access_make(&a, c);
    ok = vector < 0 ? got == 3 : got == 14 && caught.error == error && caught_cr2 == VA;
    ok &= entries_right(t, vector >= 0);
    cases[t->levels - 2][a.kind + a.user * 3]++;
    if (ok)
        return;
    (*bad)++;
    if (*bad <= 2)
        case_print(t, c, &a, vector, error);
    for (int n = 0; n < t->levels; n++)
        t->entry[n] = *slot[n];
}

static void random_cases(void)
{
    static const char *const sizes[] = {"1 GiB", "2 MiB", "4 KiB"};
    static const char *const kinds[] = {"supervisor read", "supervisor write", "supervisor fetch",
                                        "user read",       "user write",       "user fetch"};

    for (int n = 0; n < CASES; n++) {
        struct translation t;
        struct controls c;

        controls_random(&c);
        translation_random(&t);
        invlpg(VA);
        access_check(&t, &c);
        access_check(&t, &c);
    }
    for (int size = has_1g ? 0 : 1; size < 3; size++)
        for (int kind = 0; kind < 6; kind++)
            check(cases[size][kind] && !wrong[size][kind], "%s page, %s: %d cases, %d wrong", sizes[size], kinds[kind],
                  cases[size][kind], wrong[size][kind]);
}

/* Simple controls, and the data page mapped with these flags at every level. */
static void plain(u64 cr4, u64 flags)
{
    write_cr4((read_cr4() & ~0x700000ul) | cr4);
    write_cr0(read_cr0() | 0x10000);
    wrmsr(EFER, rdmsr(EFER) | 0x800);
    for (int n = 0; n < 3; n++)
        *slot[n] = (u64)table[n + 1] | 7;
    *slot[3] = DATA_AT | flags;
    invlpg(VA);
}

/* An LDT in a user page: the processor reads it as supervisor, whoever loads the selector, and AC does not help. */
static void implicit_accesses(void)
{
    struct frame user = frame_at((u8 *)USER_CODE_VA + 3 * 16, 3), kernel = frame_at(do_load_ds, 0);

    user.rax = kernel.rax = 0xf; /* LDT entry 1, RPL 3 */
    kernel.rflags |= 0x40000;
    plain(0, 7);
    ((u64 *)DATA_AT)[1] = 0x00cff2000000ffff; /* not accessed yet */
    gdt[12] = 23 | (VA & 0xffffff) << 16 | 0x82ull << 40 | (VA >> 24 & 0xff) << 56;
    gdt[13] = VA >> 32;
    asm volatile("lldt %w0" : : "r"(0x60));
    *slot[3] &= ~(u64)PTE_U;
    invlpg(VA);
    check(enter(&user) == 3, "ring 3 loads a selector of an LDT in a supervisor page");
    check(((u64 *)DATA_AT)[1] >> 40 & 1, "its accessed bit is set");
    plain(0, PTE_P);
    ((u64 *)DATA_AT)[1] = 0x00cff2000000ffff;
    check(enter(&user) == 14 && caught.error == 3 && caught_cr2 == VA + 8 + (caught_cr2 & 7) && (caught.cs & 3) == 3,
          "in a read-only page: setting it is a supervisor write: error %lx CR2 %lx", caught.error, caught_cr2);
    plain(0, 0);
    check(enter(&user) == 14 && caught.error == 0, "in an absent page: error %lx", caught.error);
    if (!has_smap)
        return;
    plain(1 << 21, 7);
    ((u64 *)DATA_AT)[1] = 0x00cff3000000ffff;
    check(enter(&user) == 14 && caught.error == 1, "in a user page under SMAP, from ring 3: error %lx", caught.error);
    check(enter(&kernel) == 14 && caught.error == 1, "from ring 0 with AC: error %lx", caught.error);
    plain(0, 7);
    check(enter(&user) == 3, "without SMAP");
    if (!has_pku)
        return;
    plain(1 << 22, 7 | 5ul << 59);
    pkru_write(1u << 10);
    check(enter(&user) == 14 && caught.error == 0x21, "its key denies access: error %lx", caught.error);
    pkru_write(2u << 10);
    check(enter(&user) == 3, "its key denies writing: reading goes on: error %lx", caught.error);
    pkru_write(0);
}

void guest_main(void)
{
    setup();
    random_cases();
    implicit_accesses();
    plain(0, 0);
    asm volatile("lldt %w0" : : "r"(0));
}
