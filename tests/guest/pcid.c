/* Process-context identifiers: what must be gone from the TLB after MOV to CR3, INVPCID of every type, INVLPG and
 * changes of CR4, in the current address space and in others, for global pages and others; what INVPCID and MOV to CR3
 * refuse. A processor may always forget more than it must, so nothing here asks whether an entry stayed. Then two address
 * spaces with other code and data at the same addresses, entered in turn without flushing. SDM vol. 3 §4.10, vol. 2. */
#include "guest.h"

enum { EAX, EBX, ECX, EDX };
#define VA 0x40000000000ul
#define VA2 0x40000001000ul
#define CR4_PGE 0x80ul
#define CR4_PCIDE 0x20000ul
#define NO_FLUSH (1ul << 63)
#define BAD_ADDRESS 0x800000000000ul

static struct {
    u64 pcid, address;
} operand;
static u64 type, cr3;
static u64 *pte, *pte2;
static u8 *one, *two;

static void do_invpcid(void *arg) { asm volatile("invpcid %0, %1" : : "m"(operand), "r"(type) : "memory"); }
static void set_cr3(void *arg) { write_cr3((u64)arg); }

static int invpcid(u64 t, u64 pcid, u64 address)
{
    type = t;
    operand.pcid = pcid;
    operand.address = address;
    return catch_fault(do_invpcid, 0);
}

static void expect(const char *name, int got, int vector)
{
    check(got == vector, "%s: vector %d (expected %d)", name, got, vector);
}

static void enter_space(u64 pcid) { write_cr3(cr3 | pcid | NO_FLUSH); }
static u8 seen(void) { return *(volatile u8 *)VA; }

/* Both pages show `one` and are in the TLB as those of this PCID. */
static void cache(u64 pcid, u64 flags)
{
    *pte = (u64)one | PTE_P | flags;
    *pte2 = (u64)one | PTE_P | flags;
    write_cr3(cr3 | pcid); /* flushes */
    invlpg(VA);
    invlpg(VA2);
    (void)seen();
    (void)*(volatile u8 *)VA2;
}

static void remap(u64 flags)
{
    *pte = *pte2 = (u64)two | PTE_P | flags;
}

static void now_shows_two(const char *name)
{
    u8 a = seen(), b = *(volatile u8 *)VA2;

    check(a == 2 && b == 2, "%s: pages %d %d", name, a, b);
}

static void moves_to_cr3(void)
{
    cache(5, 0);
    enter_space(6);
    remap(0);
    write_cr3(cr3 | 5);
    now_shows_two("CR3 without bit 63 drops the PCID that it enters");
    cache(0, 0);
    remap(0);
    write_cr3(cr3);
    now_shows_two("PCID 0 likewise");
    enter_space(7);
    check(read_cr3() == (cr3 | 7), "bit 63 does not read back: %lx", read_cr3());
    expect("CR3 with bit 62", catch_fault(set_cr3, (void *)(cr3 | 1ul << 62)), 13);
    enter_space(0xfff);
    check(read_cr3() == (cr3 | 0xfff), "PCID FFF");
}

static void by_invpcid(void)
{
    static const char *const names[] = {"one address", "one PCID", "all and globals", "all but globals"};

    for (u64 t = 0; t < 4; t++) {
        cache(5, 0);
        remap(0);
        invpcid(t, 5, VA);
        if (t == 0)
            invpcid(t, 5, VA2);
        now_shows_two(names[t]);
        cache(5, 0);
        enter_space(6);
        remap(0);
        invpcid(t, 5, VA);
        if (t == 0)
            invpcid(t, 5, VA2);
        enter_space(5);
        now_shows_two("of another PCID");
    }
    cache(5, PTE_G);
    enter_space(6);
    remap(PTE_G);
    invpcid(2, 0, 0);
    now_shows_two("type 2 drops global pages");
    enter_space(5);
    now_shows_two("in every PCID");
}

static void by_invlpg(void)
{
    cache(5, PTE_G);
    enter_space(6);
    remap(PTE_G);
    invlpg(VA);
    invlpg(VA2);
    now_shows_two("INVLPG drops a global page, whichever the PCID");
    enter_space(5);
    now_shows_two("in all");
}

static void by_cr4(void)
{
    cache(5, PTE_G);
    remap(PTE_G);
    write_cr4(read_cr4() ^ CR4_PGE);
    now_shows_two("CR4.PGE cleared");
    cache(5, 0);
    enter_space(6);
    remap(0);
    write_cr4(read_cr4() ^ CR4_PGE);
    enter_space(5);
    now_shows_two("CR4.PGE set, other PCIDs");
    cache(5, 0);
    enter_space(0);
    remap(0);
    write_cr4(read_cr4() & ~CR4_PCIDE);
    write_cr4(read_cr4() | CR4_PCIDE);
    enter_space(5);
    now_shows_two("CR4.PCIDE cleared and set, other PCIDs");
    enter_space(5);
    write_cr4(read_cr4() & ~CR4_PCIDE);
    check(read_cr3() == (cr3 | 5), "CR3 keeps its low bits without PCIDE: %lx", read_cr3());
    expect("CR3 with bit 63 without PCIDE", catch_fault(set_cr3, (void *)(cr3 | NO_FLUSH)), 13);
    write_cr3(cr3);
    write_cr4(read_cr4() | CR4_PCIDE);
}

static void refusals(void)
{
    for (u64 t = 0; t < 4; t++) {
        expect("reserved bits of the descriptor", invpcid(t, 0x1000, 0), 13);
        expect("the topmost", invpcid(t, 1ul << 63, 0), 13);
        expect("none", invpcid(t, 0, 0), -1);
    }
    expect("type 4", invpcid(4, 0, 0), 13);
    expect("type 2^32", invpcid(1ul << 32, 0, 0), 13);
    expect("a bad address, type 0", invpcid(0, 0, BAD_ADDRESS), 13);
    expect("a bad address, type 1", invpcid(1, 0, BAD_ADDRESS), -1);
    write_cr3(cr3);
    write_cr4(read_cr4() & ~CR4_PCIDE);
    expect("PCID 1 without PCIDE, type 0", invpcid(0, 1, VA), 13);
    expect("PCID 1 without PCIDE, type 1", invpcid(1, 1, 0), 13);
    expect("PCID 1 without PCIDE, type 2", invpcid(2, 1, 0), -1);
    expect("PCID 0 without PCIDE, type 0", invpcid(0, 0, VA), -1);
}

/* ---- two address spaces ---- */

#define SPACE_VA 0x50000000000ul /* its PML4 entry is the one that they do not share */
#define SPACE_DATA (SPACE_VA + 0x1000)
#define CALLS 100 /* so often that a translator takes it for worth its while */
enum { FIRST = 5, SECOND = 6, THIRD = 9 };

static u64 space_cr3[2]; /* with its PCID */
static u64 *space_pte[2]; /* of SPACE_VA; that of SPACE_DATA follows */

/* Page tables that differ from ours in what is at SPACE_VA. */
static void space_make(int n, u64 pcid)
{
    u64 *top = page_alloc(), *table = page_alloc();

    for (int i = 0; i < 512; i++)
        top[i] = pml4[i];
    top[SPACE_VA >> 39 & 511] = (u64)table | PTE_P | PTE_W;
    for (int level = 0; level < 2; level++) {
        u64 *next = page_alloc();

        table[0] = (u64)next | PTE_P | PTE_W;
        table = next;
    }
    space_pte[n] = table;
    space_cr3[n] = (u64)top | pcid;
}

/* MOV EAX, value; RET */
static void function_write(u8 *at, u32 value)
{
    volatile u8 *to = at;

    to[0] = 0xb8;
    for (int n = 0; n < 4; n++)
        to[n + 1] = (u8)(value >> 8 * n);
    to[5] = 0xc3;
}

static void space_show(int n, u8 *code, u8 *data)
{
    space_pte[n][0] = (u64)code | PTE_P | PTE_W;
    space_pte[n][1] = (u64)data | PTE_P | PTE_W;
}

static void space_enter(int n) { write_cr3(space_cr3[n] | NO_FLUSH); }

/* In space n the function says `value`, and the data too. */
static void space_says(const char *name, int n, u32 value)
{
    u32 wrong = 0, got = 0, data = 0;

    space_enter(n);
    for (int i = 0; i < CALLS; i++) {
        got = ((u32(*)(void))SPACE_VA)();
        data = *(volatile u32 *)SPACE_DATA;
        wrong += got != value || data != value;
    }
    check(!wrong, "%s, space %d: %u wrong, at last %u and %u (expected %u)", name, n, wrong, got, data, value);
}

static u8 *filled(u32 value, bool code)
{
    u8 *page = page_alloc();

    if (code)
        function_write(page, value);
    else
        *(u32 *)page = value;
    return page;
}

/* The other space's tables change while it is not current, and it is told so by INVPCID. */
static void space_changes_elsewhere(u64 t)
{
    u32 value = 100 + (u32)t;

    space_says("before", 0, 1);
    space_says("before", 1, 2);
    space_show(0, filled(value, true), filled(value, false));
    invpcid(t, FIRST, SPACE_VA);
    if (t == 0)
        invpcid(t, FIRST, SPACE_DATA);
    space_says("after INVPCID from elsewhere", 0, value);
    space_says("after INVPCID from elsewhere", 1, 2);
    write_cr3(cr3);
}

static void spaces_show_one_and_two(void)
{
    space_show(0, filled(1, true), filled(1, false));
    space_show(1, filled(2, true), filled(2, false));
    write_cr3(space_cr3[0]);
    write_cr3(space_cr3[1]);
}

/* Code is written through another space than the one that runs it, which had it in its TLB as plain data before. */
static void space_writes_code(void)
{
    u8 *page = filled(1, true);

    space_show(0, page, filled(1, false));
    space_show(1, filled(2, true), page);
    write_cr3(space_cr3[1]);
    *(volatile u8 *)(SPACE_DATA + 0x800) = 1; /* may be written from now on */
    write_cr3(space_cr3[0]);
    space_says("what is data elsewhere", 0, 1);
    space_enter(1);
    function_write((u8 *)SPACE_DATA, 77);
    space_enter(0);
    *(volatile u32 *)SPACE_DATA = 77;
    space_says("code that was written from elsewhere", 0, 77);
}

static void spaces(void)
{
    space_make(0, FIRST);
    space_make(1, SECOND);
    for (u64 t = 0; t < 4; t++) {
        spaces_show_one_and_two();
        for (int n = 0; n < 4; n++) {
            space_says("in turn", 0, 1);
            space_says("in turn", 1, 2);
        }
        space_changes_elsewhere(t);
    }
    spaces_show_one_and_two();
    space_says("the first", 0, 1);
    space_enter(1);
    space_show(0, filled(3, true), filled(3, false));
    write_cr3(space_cr3[0]); /* flushes */
    space_enter(1);
    space_says("loaded with a flush, and left", 0, 3);
    for (u64 pcid = THIRD; pcid < THIRD + 20; pcid++) /* more than any TLB of ours keeps */
        write_cr3(cr3 | pcid | NO_FLUSH);
    space_says("after many others", 0, 3);
    space_says("after many others", 1, 2);
    space_writes_code();
    write_cr3(cr3);
}

void guest_main(void)
{
    if (!feature(1, 0, ECX, 17) || !feature(7, 0, EBX, 10)) {
        expect("INVPCID without the feature", invpcid(0, 0, 0), 6);
        return;
    }
    cr3 = read_cr3();
    pte = pte_of(VA);
    pte2 = pte_of(VA2);
    one = page_alloc();
    two = page_alloc();
    one[0] = 1;
    two[0] = 2;
    write_cr4(read_cr4() | CR4_PGE | CR4_PCIDE);
    moves_to_cr3();
    by_invpcid();
    by_invlpg();
    by_cr4();
    refusals();
    write_cr4(read_cr4() | CR4_PCIDE);
    spaces();
}
