/* Jumps, calls and returns to other pages, so often that a translator remembers where they lead, while that changes: other pages
 * are mapped, code is overwritten, the same code runs at two addresses and in two address spaces, return addresses are
 * not those of the call. SDM vol. 3 §4.10, §8.1.3. */
#include "guest.h"

#define VA 0x40000000000ul
#define VA2 0x40000200000ul
#define ROUNDS 60
#define CR4_PCIDE 0x20000ul
#define NO_FLUSH (1ul << 63)
enum { ECX = 2 };

static u8 *first, *second, *third;
static u64 root[2];

static void put(u8 *at, const u8 *bytes, u32 len)
{
    for (u32 n = 0; n < len; n++)
        at[n] = bytes[n];
}
#define PUT(at, ...) put(at, (const u8[]){__VA_ARGS__}, sizeof((u8[]){__VA_ARGS__}))

/* ---- ways to the next page ---- */

enum { CALL = 0x000, JMP = 0x100, JCC = 0x200, CALL_INDIRECT = 0x300, JMP_INDIRECT = 0x400, FALL = 0xfff };
static const struct way {
    const char *name;
    u32 at;
} ways[] = {{"CALL", CALL}, {"JMP", JMP}, {"JE", JCC}, {"CALL indirect", CALL_INDIRECT}, {"JMP indirect", JMP_INDIRECT},
            {"running on", FALL}};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

static u32 rel(u32 from)
{
    return 4096 - from;
}

static void write_ways(void)
{
    u32 d = rel(CALL + 5);

    PUT(first + CALL, 0xe8, (u8)d, (u8)(d >> 8), 0, 0, 0xc3);
    d = rel(JMP + 5);
    PUT(first + JMP, 0xe9, (u8)d, (u8)(d >> 8), 0, 0);
    d = rel(JCC + 8);
    PUT(first + JCC, 0x31, 0xc0, 0x0f, 0x84, (u8)d, (u8)(d >> 8), 0, 0);
    d = rel(CALL_INDIRECT + 7);
    PUT(first + CALL_INDIRECT, 0x48, 0x8d, 0x05, (u8)d, (u8)(d >> 8), 0, 0, 0xff, 0xd0, 0xc3); /* lea rax, [rip + …]; call rax */
    d = rel(JMP_INDIRECT + 7);
    PUT(first + JMP_INDIRECT, 0x48, 0x8d, 0x05, (u8)d, (u8)(d >> 8), 0, 0, 0xff, 0xe0);
    first[FALL] = 0x90;
}

static void write_answer(u8 *page, u8 answer)
{
    PUT(page, 0xb8, answer, 0, 0, 0, 0xc3); /* mov eax, imm32; ret */
}

static u32 call(u64 code)
{
    u32 v;

    asm volatile("call *%1" : "=a"(v) : "r"(code) : "rcx", "rdx", "rsi", "rdi", "memory");
    return v;
}

/* What code at `va` says, the same each time, or some other number. */
static u32 answer(u64 va, u32 at)
{
    u32 one = call(va + at);

    for (int n = 0; n < ROUNDS; n++)
        if (call(va + at) != one)
            return 0xbad;
    return one;
}

static void map(u64 va, u8 *page)
{
    *pte_of(va) = page ? (u64)page | PTE_P | PTE_W : 0;
    invlpg(va);
}

static void begin(void)
{
    map(VA, first);
    map(VA + 4096, second);
    write_ways();
    write_answer(second, 2);
    write_answer(third, 3);
}

static void expect(const struct way *w, const char *when, u32 got, u32 want)
{
    if (got != want)
        check(false, "%s, %s: %u (expected %u)", w->name, when, got, want);
}

static void remapped(const struct way *w)
{
    expect(w, "at first", answer(VA, w->at), 2);
    map(VA + 4096, third);
    expect(w, "another page is there", answer(VA, w->at), 3);
    *pte_of(VA + 4096) = (u64)second | PTE_P | PTE_W;
    write_cr3(read_cr3());
    expect(w, "the first is back", answer(VA, w->at), 2);
    for (u32 n = 0; n < ROUNDS; n++) {
        map(VA + 4096, n & 1 ? second : third);
        expect(w, "in turn", call(VA + w->at), n & 1 ? 2 : 3);
    }
    map(VA + 4096, NULL);
    check(catch_fault((void (*)(void *))(VA + w->at), NULL) == 14 && caught_cr2 == VA + 4096, "%s to where nothing is", w->name);
    map(VA + 4096, second);
}

static void overwritten(const struct way *w)
{
    for (u8 n = 4; n < 20; n++) {
        write_answer(second, n);
        expect(w, "overwritten", answer(VA, w->at), n);
    }
    write_answer(second, 2);
}

/* The same page, before two others. */
static void twice(const struct way *w)
{
    map(VA2, first);
    map(VA2 + 4096, third);
    expect(w, "here", answer(VA, w->at), 2);
    expect(w, "there", answer(VA2, w->at), 3);
    for (u32 n = 0; n < ROUNDS; n++) {
        expect(w, "here again", call(VA + w->at), 2);
        expect(w, "there again", call(VA2 + w->at), 3);
    }
    map(VA2, NULL);
    map(VA2 + 4096, NULL);
}

/* ---- two address spaces ---- */

/* The other space has tables of its own for VA. */
static void spaces_create(void)
{
    u64 *top = page_alloc(), *t = top;

    for (int n = 0; n < 512; n++)
        top[n] = pml4[n];
    for (int shift = 39; shift > 12; shift -= 9) {
        u64 *next = page_alloc();

        t[VA >> shift & 511] = (u64)next | PTE_P | PTE_W;
        t = next;
    }
    t[VA >> 12 & 511] = (u64)first | PTE_P | PTE_W;
    t[(VA >> 12 & 511) + 1] = (u64)third | PTE_P | PTE_W;
    root[0] = (u64)pml4;
    root[1] = (u64)top;
}

static void spaces(const struct way *w, u64 keep)
{
    expect(w, "in one space", answer(VA, w->at), 2);
    write_cr3(root[1]);
    expect(w, "in the other", answer(VA, w->at), 3);
    for (u32 n = 0; n < ROUNDS; n++) {
        write_cr3(root[n & 1] | (n > 2 ? keep : 0));
        expect(w, "in two spaces", call(VA + w->at), n & 1 ? 3 : 2);
    }
    write_cr3(root[0]);
}

static void spaces_kept(const struct way *w)
{
    if (!feature(1, 0, ECX, 17))
        return;
    write_cr4(read_cr4() | CR4_PCIDE);
    root[0] |= 1;
    root[1] |= 2;
    spaces(w, NO_FLUSH);
    root[0] &= ~1ul;
    root[1] &= ~2ul;
    write_cr3(root[0]);
    write_cr4(read_cr4() & ~CR4_PCIDE);
}

/* ---- returns ---- */

static u8 *callers[2]; /* pages with the same CALL and other code behind it */
static u32 turn;

static void swap_caller(void)
{
    map(VA, callers[++turn & 1]);
}

static void overwrite_caller(void)
{
    u8 *p = callers[turn & 1];

    p[16 + 1] = (u8)++turn;
}

static void __attribute__((naked)) return_later(void)
{
    asm("addq $5, (%rsp); ret");
}

static void __attribute__((naked)) return_two_levels(void)
{
    asm("add $8, %rsp; mov $77, %eax; ret");
}

/* At 0 of each: sub rsp, 8; mov eax, fn; call rax, in front of 16; then mov eax, n; add rsp, 8; ret. */
static u32 by_caller(void (*fn)(void))
{
    u32 f = (u32)(u64)fn;

    for (int n = 0; n < 2; n++) {
        u8 *p = callers[n];

        PUT(p, 0x48, 0x83, 0xec, 0x08, 0x90, 0xb8, (u8)f, (u8)(f >> 8), (u8)(f >> 16), (u8)(f >> 24), 0x0f, 0x1f, 0x40, 0x00, 0xff, 0xd0);
        PUT(p + 16, 0xb8, (u8)(n + 1), 0, 0, 0, 0x48, 0x83, 0xc4, 0x08, 0xc3);
    }
    map(VA, callers[turn & 1]);
    return call(VA);
}

static void returns(void)
{
    u32 wrong = 0;

    by_caller(swap_caller);
    for (u32 n = 0; n < ROUNDS; n++)
        wrong += call(VA) != (turn & 1) + 1;
    check(!wrong, "the page that a call returns to is another by then: %u times wrong", wrong);
    by_caller(overwrite_caller);
    for (u32 n = 0; n < ROUNDS; n++) {
        map(VA, callers[turn & 1]);
        wrong += call(VA) != (u8)turn;
    }
    check(!wrong, "the code that a call returns to was overwritten: %u times wrong", wrong);
    map(VA, callers[0]);
    by_caller(return_later);
    for (u32 n = 0; n < ROUNDS; n++)
        wrong += call(VA) != (u32)(u64)return_later;
    check(!wrong, "a return to behind the next instruction: %u times wrong", wrong);
}

/* Two levels are left at once: add rsp, 8 twice. */
static void left_at_once(void)
{
    u32 wrong = 0;

    for (u32 n = 0; n < ROUNDS; n++) {
        u32 v;

        asm volatile("call 1f\n jmp 2f\n 1: call *%1\n mov $1, %%eax\n ret\n 2:" : "=a"(v) : "r"(return_two_levels) : "memory");
        wrong += v != 77;
    }
    check(!wrong, "a return past a caller: %u times wrong", wrong);
}

/* ---- targets that are not canonical: the jump's own fault, as if it had done nothing ---- */

CODE(64, bad_ret, "pushq (%rdi); 1: ret");
CODE(64, bad_jmp, "mov 8(%rdi), %rax; jmp *(%rdi)");
CODE(64, bad_jmp_register, "mov (%rdi), %rax; 1: jmp *%rax");
CODE(64, bad_call, "mov 8(%rdi), %rax; call *(%rdi)");
CODE(64, bad_call_register, "mov (%rdi), %rax; call *%rax");

static const struct bad {
    const char *name;
    u8 *code;
    u32 offset; /* of the jump */
} bad[] = {{"RET", bad_ret, 2}, {"JMP", bad_jmp, 4}, {"JMP by register", bad_jmp_register, 3}, {"CALL", bad_call, 4},
           {"CALL by register", bad_call_register, 3}};

static void jump_bad(void *arg)
{
    static const u64 target[2] = {0x800000000000};

    ((void (*)(const u64 *))arg)(target);
}

static void not_canonical(const struct bad *b)
{
    u64 sp = 0;
    u32 wrong = 0;

    for (int n = 0; n < ROUNDS; n++) {
        int vector = catch_fault(jump_bad, b->code);

        wrong += vector != 13 || caught.rip != (u64)b->code + b->offset || (sp && caught.rsp != sp);
        sp = caught.rsp;
    }
    check(!wrong, "%s to an address that is not canonical: %u times wrong", b->name, wrong);
}

void guest_main(void)
{
    first = page_alloc();
    second = page_alloc();
    third = page_alloc();
    callers[0] = page_alloc();
    callers[1] = page_alloc();
    begin();
    spaces_create();
    for (u32 n = 0; n < WAYS; n++) {
        begin();
        remapped(&ways[n]);
        overwritten(&ways[n]);
        twice(&ways[n]);
        spaces(&ways[n], 0);
        spaces_kept(&ways[n]);
    }
    returns();
    left_at_once();
    for (u32 n = 0; n < sizeof(bad) / sizeof(bad[0]); n++)
        not_canonical(&bad[n]);
    check(true, "jumps to other pages");
}
