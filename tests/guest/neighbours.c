/* Pages whose numbers agree in many low bits, so that they share a place in any small TLB, used in turn: they must drive each other out
 * without anybody noticing. What changes for one of them while another has its place (where it leads, whether it may be written,
 * code that is overwritten through it) must hold at the next access. SDM vol. 3 §4.10. */
#include "guest.h"

#define BASE 0x60000000000ul
#define STRIDE (1ul << 30) /* same low bits of the page number, up to 2^18 entries */
#define PAGES 5
#define ROUNDS 100 /* so many that a translator takes it for worth its while */
#define CR0_WP 0x10000ul

static u64 *pte[PAGES];
static u8 *page[PAGES], *other[PAGES];

static volatile u64 *at(int n) { return (volatile u64 *)(BASE + (u64)n * STRIDE); }

/* All accesses are by these, which are hot after the first rounds. */
static __attribute__((noinline)) u64 get(int n) { return *at(n); }
static __attribute__((noinline)) void put(int n, u64 word, u64 value) { at(n)[word] = value; }

static void show(int n, u8 *what, u64 flags)
{
    *pte[n] = (u64)what | PTE_P | flags;
    invlpg((u64)at(n));
}

/* Reads all in turn, many times; page n has `base` + n. */
static void all_say(const char *name, u64 base)
{
    u64 wrong = 0;

    for (int round = 0; round < ROUNDS; round++)
        for (int n = 0; n < PAGES; n++)
            wrong += get(n) != base + (u64)n;
    check(!wrong, "%s: %lu reads wrong", name, wrong);
}

static void writes(void)
{
    u64 wrong = 0;

    for (u64 round = 0; round < ROUNDS; round++) {
        for (int n = 0; n < PAGES; n++)
            put(n, 1 + round, round << 8 | (u64)n);
        for (int n = 0; n < PAGES; n++)
            wrong += ((u64 *)page[n])[1 + round] != (round << 8 | (u64)n);
    }
    check(!wrong, "writes in turn: %lu went elsewhere", wrong);
}

/* Each in turn leads elsewhere, while another was used last. */
static void remapped(void)
{
    for (int n = 0; n < PAGES; n++) {
        *(u64 *)other[n] = 200 + (u64)n;
        (void)get((n + 1) % PAGES);
        show(n, other[n], PTE_W);
        check(get(n) == 200 + (u64)n, "page %d, remapped, shows %lu", n, get(n));
    }
    all_say("after remapping", 200);
    for (int n = 0; n < PAGES; n++)
        *pte[n] = (u64)page[n] | PTE_P | PTE_W;
    write_cr3(read_cr3());
    all_say("after a flush", 100);
}

static int written;
static void write_it(void *arg)
{
    put(written, 0, 100 + (u64)written);
}

static void read_only(void)
{
    write_cr0(read_cr0() | CR0_WP);
    for (written = 0; written < PAGES; written++) {
        for (int round = 0; round < ROUNDS; round++) {
            put(written, 0, 100 + (u64)written);
            (void)get((written + 1) % PAGES);
        }
        show(written, page[written], 0);
        (void)get((written + 1) % PAGES);
        check(catch_fault(write_it, 0) == 14, "page %d is read-only and takes a write", written);
        check(get(written) == 100 + (u64)written, "and reads %lu", get(written));
        show(written, page[written], PTE_W);
        check(catch_fault(write_it, 0) == -1, "page %d is writable again and faults", written);
    }
}

/* MOV EAX, value; RET, written and overwritten through pages whose place another has each time: the first run of the code must be noticed
 * by writes through all of them. */
static void code_behind(void)
{
    u32 wrong = 0;

    for (u64 round = 0; round < ROUNDS; round++) {
        u8 *code = page_alloc();

        for (int n = 0; n < PAGES; n++)
            show(n, code, PTE_W);
        put(0, 0, 0xc300000000b8 | (round & 0xff) << 8);
        for (int n = 1; n < PAGES; n++)
            put(n, 8, 0);
        for (int n = 0; n < PAGES; n++) {
            for (int call = 0; call < 20; call++)
                wrong += ((u32(*)(void))code)() != ((round + (u64)n) & 0xff);
            put(n, 0, 0xc300000000b8 | ((round + (u64)n + 1) & 0xff) << 8);
            wrong += ((u32(*)(void))code)() != ((round + (u64)n + 1) & 0xff);
        }
    }
    check(!wrong, "code overwritten through other pages: %u calls wrong", wrong);
}

void guest_main(void)
{
    for (int n = 0; n < PAGES; n++) {
        page[n] = page_alloc();
        other[n] = page_alloc();
        *(u64 *)page[n] = 100 + (u64)n;
        pte[n] = pte_of((u64)at(n));
        show(n, page[n], PTE_W);
    }
    all_say("at first", 100);
    writes();
    remapped();
    read_only();
    code_behind();
}
