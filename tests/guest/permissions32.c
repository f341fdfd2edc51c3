/* Rights in 32-bit and PAE paging, case by random case against the manual's rules (permissions.h): pages of 4 KiB, 4
 * MiB (PSE, PSE-36) and 2 MiB; P, R/W, U/S, NX and reserved bits at every level; CR0.WP, SMEP, SMAP with and without
 * AC, EFER.NXE; reads, writes and fetches of both privileges. Each case accesses twice with nothing invalidated
 * between. SDM vol. 3 §4.3, §4.4, §4.6 to §4.8. */
#include "guest32.h"
#include "permissions.h"

#define DATA_AT 0x1005000u /* physical; not used by the program */
#define VA (0x40000000u + DATA_AT)
#define CASES 15000
#define EFER 0xc0000080u
#define PS 0x80u

CODE(32, do_read, "mov %ds:(%ebx), %al; int3");
CODE(32, do_write, "mov %al, %ds:(%ebx); int3");
CODE(32, do_fetch, "jmp *%ebx");

static const u8 *const codes[] = {do_read, do_write, do_fetch};
#define USER_CODE_VA 0x50000000u
static bool has_pse, has_pse36, has_nx, has_smep, has_smap, has_wp;
static int phys_bits = 32;
static bool pae;
static void *table[3]; /* from the top */
static int cases[2][6], wrong[2][6]; /* large, small */
static u8 *user_code;

static u32 shift_of(int level) { return pae ? 30 - 9 * (u32)level : 22 - 10 * (u32)level; }
static u32 slot_of(int level, u32 va) { return va >> shift_of(level) & (pae ? (level ? 511 : 3) : 1023); }
static int leaf_level(void) { return pae ? 2 : 1; }

static u64 entry_get(int level, u32 va)
{
    return pae ? ((u64 *)table[level])[slot_of(level, va)] : ((u32 *)table[level])[slot_of(level, va)];
}

static void entry_set(int level, u32 va, u64 e)
{
    if (pae)
        ((u64 *)table[level])[slot_of(level, va)] = e;
    else
        ((u32 *)table[level])[slot_of(level, va)] = (u32)e;
}

/* The program's 64 MiB one to one as supervisor memory by small pages; a page of code for ring 3. Tables below stay
 * fixed but for those of VA. */
static void identity(void)
{
    void *keep[3] = {table[0], table[1], table[2]};

    table[0] = page_alloc();
    if (pae)
        table[1] = page_alloc();
    if (pae)
        entry_set(0, 0, (u32)table[1] | 1);
    for (u32 va = 0; va < 0x4000000; va += 4096) {
        if (!(va & ((1u << shift_of(leaf_level() - 1)) - 1))) {
            table[leaf_level()] = page_alloc();
            entry_set(leaf_level() - 1, va, (u32)table[leaf_level()] | 3);
        }
        entry_set(leaf_level(), va, va | 3);
    }
    keep[0] = table[0];
    if (pae) {
        table[1] = page_alloc();
        entry_set(0, VA, (u32)table[1] | 1);
        keep[1] = table[1];
    }
    table[leaf_level()] = page_alloc();
    entry_set(leaf_level() - 1, USER_CODE_VA, (u32)table[leaf_level()] | 7);
    entry_set(leaf_level(), USER_CODE_VA, (u32)user_code | 5);
    keep[leaf_level()] = page_alloc();
    for (int n = 0; n < 3; n++)
        table[n] = keep[n];
}

static u64 large_entry(u64 *reserved)
{
    u64 e = (DATA_AT & (pae ? ~0x1fffffu : ~0x3fffffu)) | PS | (one_in(2) ? 0x1000 : 0);

    if (pae)
        *reserved |= 0x1fe000;
    else
        *reserved |= has_pse36 ? 1u << 21 | (0x1fe000u & ~((1u << (phys_bits - 32 + 13)) - 1)) : 0x3fe000u;
    return e;
}

static u64 entry_random(int level, int leaf, u64 *reserved)
{
    u64 e = random32() & 0xe18; /* PWT, PCD, 11:9 */

    e |= random32() & (ENTRY_A | ENTRY_D);
    e |= (one_in(24) ? 0 : ENTRY_P) | (one_in(4) ? 0 : ENTRY_W) | (one_in(4) ? 0 : ENTRY_U);
    *reserved = 0;
    if (pae) {
        *reserved = 0x7ff0000000000000 | (0x000ffffffffff000 & ~((1ull << phys_bits) - 1));
        *reserved |= has_nx && rdmsr(EFER) & 0x800 ? 0 : ENTRY_NX;
        e |= has_nx && one_in(5) ? ENTRY_NX : 0;
    }
    if (level == leaf && leaf < leaf_level())
        e |= large_entry(reserved);
    else
        e |= level == leaf ? DATA_AT | (one_in(2) ? 0x80 : 0) /* PAT */ : (u32)table[level + 1];
    if (*reserved && one_in(40))
        for (u32 bit = random32() & 63, n = 0; n < 64; n++, bit = (bit + 1) & 63)
            if (*reserved >> bit & 1) {
                e |= 1ull << bit;
                break;
            }
    return e;
}

static void translation_random(struct translation *t)
{
    int leaf = leaf_level() - (int)((pae || has_pse) && one_in(2)), first = pae;

    *t = (struct translation){.levels = leaf + 1};
    if (pae) { /* the pointer registers are loaded: always there */
        t->entry[0] = entry_get(0, VA);
        t->no_rights[0] = true;
    }
    for (int n = first; n <= leaf; n++) {
        t->entry[n] = entry_random(n, leaf, &t->reserved[n]);
        entry_set(n, VA, t->entry[n]);
    }
}

static void controls_random(struct controls *c)
{
    *c = (struct controls){.wp = has_wp && one_in(2), .smep = has_smep && one_in(2), .smap = has_smap && one_in(2),
                           .nxe = pae && has_nx && !one_in(8), .ac = one_in(2)};
    write_cr0((read_cr0() & ~0x10000u) | (u32)c->wp << 16);
    if (has_nx && pae)
        wrmsr(EFER, (rdmsr(EFER) & ~0x800ull) | (u32)c->nxe << 11);
    if (has_smep || has_smap)
        write_cr4((read_cr4() & ~0x300000u) | (u32)c->smep << 20 | (u32)c->smap << 21);
}

static int access_make(const struct access *a, const struct controls *c)
{
    struct frame f = frame_at(a->user ? (u8 *)USER_CODE_VA + a->kind * 16 : codes[a->kind], a->user ? 3 : 0);

    f.ebx = VA;
    f.eax = 0xcc;
    if (c->ac && !a->user)
        f.eflags |= 0x40000;
    return enter(&f);
}

static bool entries_right(struct translation *t, bool fault)
{
    for (int n = 0; n < t->levels; n++) {
        u64 may = fault && n < t->levels - 1 ? ENTRY_A : 0, now = entry_get(n, VA);

        if ((now & ~may) != (t->entry[n] & ~may) || t->entry[n] & ~now)
            return false;
        t->entry[n] = now;
    }
    return true;
}

static void case_print(const struct translation *t, const struct controls *c, const struct access *a, int vector,
                       u32 error)
{
    print("     %s %s, WP %d SMEP %d SMAP %d AC %d NXE %d: expected vector %d error %x, got %u error %x CR2 %x\n",
          a->user ? "user" : "supervisor",
          a->kind == READ    ? "read"
          : a->kind == WRITE ? "write"
                             : "fetch",
          c->wp, c->smep, c->smap, c->ac, c->nxe, vector, error, caught.vector, caught.error, caught_cr2);
    for (int n = 0; n < t->levels; n++)
        print("     entry %x %x, was to be %x %x\n", (u32)(entry_get(n, VA) >> 32), (u32)entry_get(n, VA),
              (u32)(t->entry[n] >> 32), (u32)t->entry[n]);
}

static void access_check(struct translation *t, const struct controls *c)
{
    const struct access a = {(enum access_kind)(random32() % 3), one_in(2)};
    int small = t->levels - 1 == leaf_level(), column = a.kind + a.user * 3;
    u32 error;
    int vector = access_expected(t, c, &a, &error), got;
    bool ok;

    if (vector < 0)
        access_marks(t, &a);
    got = access_make(&a, c);
    ok = vector < 0 ? got == 3 : got == 14 && caught.error == error && caught_cr2 == VA;
    ok &= entries_right(t, vector >= 0);
    cases[small][column]++;
    if (ok)
        return;
    if (++wrong[small][column] <= 2)
        case_print(t, c, &a, vector, error);
    for (int n = 0; n < t->levels; n++)
        t->entry[n] = entry_get(n, VA);
}

static void random_cases(const char *paging)
{
    static const char *const kinds[] = {"supervisor read", "supervisor write", "supervisor fetch",
                                        "user read",       "user write",       "user fetch"};

    fill(cases, 0, sizeof(cases));
    fill(wrong, 0, sizeof(wrong));
    for (int n = 0; n < CASES; n++) {
        struct translation t;
        struct controls c;

        controls_random(&c);
        translation_random(&t);
        invlpg(VA);
        access_check(&t, &c);
        access_check(&t, &c);
    }
    for (int small = 0; small < 2; small++)
        for (int k = 0; k < 6; k++)
            if (small || pae || has_pse)
                check(cases[small][k] && !wrong[small][k], "%s, %s page, %s: %d cases, %d wrong", paging,
                      small ? "small" : "large", kinds[k], cases[small][k], wrong[small][k]);
}

static void run(const char *paging)
{
    identity();
    write_cr3((u32)table[0]);
    write_cr0(read_cr0() | 0x80000000);
    random_cases(paging);
    write_cr0(read_cr0() & 0x7fffffff);
}

static void features_find(void)
{
    u32 r[4];

    has_wp = true; /* from the 486 on */
    has_pse = feature(1, 0, 3, 3);
    has_pse36 = feature(1, 0, 3, 17);
    has_nx = feature(0x80000001, 0, 3, 20);
    has_smep = feature(7, 0, 1, 7);
    has_smap = feature(7, 0, 1, 20);
    if (feature(1, 0, 3, 6))
        phys_bits = 36;
    cpuid(0x80000000, 0, r);
    if (r[0] >= 0x80000008 && r[0] >> 31) {
        cpuid(0x80000008, 0, r);
        phys_bits = (int)(r[0] & 0xff);
    }
}

void guest_main(void)
{
    features_find();
    user_code = page_alloc();
    for (u32 n = 0; n < 3; n++)
        copy(user_code + n * 16, codes[n], 16);
    *(u8 *)DATA_AT = 0xcc;
    if (has_pse)
        write_cr4(read_cr4() | 0x10);
    if (phys_bits > 40)
        phys_bits = 40; /* the most that PSE-36 reaches */
    run("32-bit");
    if (!feature(1, 0, 3, 6))
        return;
    features_find();
    pae = true;
    write_cr4((read_cr4() & ~0x300000u) | 0x20);
    run("PAE");
}
