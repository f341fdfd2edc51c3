/* Code that changes: by its own stores into the next instruction, through another mapping, across pages and lines, in
 * a loop, in every operand size, by string instructions, by a locked instruction; by another processor, with and
 * without a serializing instruction as the manual demands; code in a page that becomes data and code again. SDM vol. 3
 * §8.1.3, §11.6. */
#include "guest.h"

#define VA 0x40000000000ul
static u8 *page, *page2;

static void put(u8 *at, const u8 *bytes, u32 len)
{
    for (u32 n = 0; n < len; n++)
        at[n] = bytes[n];
}
#define PUT(at, ...) put(at, (const u8[]){__VA_ARGS__}, sizeof((u8[]){__VA_ARGS__}))

static u32 call(const u8 *code)
{
    u32 v;

    asm volatile("call *%1" : "=a"(v) : "r"(code) : "rcx", "rdx", "rsi", "rdi", "memory");
    return v;
}

/* The store's next instruction is what it changes: mov $1 to $2 before it runs. */
CODE(64, next_byte, "movb $2, 1f+1(%rip); 1: mov $1, %eax; ret");
CODE(64, next_word, "movw $0x202, 1f+1(%rip); 1: mov $1, %eax; ret");
CODE(64, next_long, "movl $0x2020202, 1f+1(%rip); 1: mov $1, %eax; ret");
CODE(64, next_quad,
     "movabs $0x9090c302020202b8, %rcx; mov %rcx, 1f(%rip); .balign 16; 1: mov $1, %eax; ret; nop; nop; nop");
CODE(64, next_locked, "movl $2, %ecx; lock xchg %ecx, 1f+1(%rip); 1: mov $1, %eax; ret");
CODE(64, next_stos, "lea 1f+1(%rip), %rdi; mov $2, %al; stosb; 1: mov $1, %eax; ret");
CODE(64, next_rep, "lea 1f+1(%rip), %rdi; mov $2, %al; mov $4, %ecx; rep stosb; 1: mov $1, %eax; ret");
CODE(64, next_opcode, "movb $0xc3, 1f(%rip); mov $7, %eax; 1: mov $1, %eax; ret");
CODE(64, next_far, "movb $2, 1f+1(%rip); nop; nop; nop; add $0, %ecx; test %ecx, %ecx; 1: mov $1, %eax; ret");
CODE(64, sse_store, "movl $2, %ecx; movd %ecx, %xmm0; movd %xmm0, 1f+1(%rip); 1: mov $1, %eax; ret");

static void next_instruction(void)
{
    check(call(next_byte) == 2, "a byte of the next instruction");
    check(call(next_word) == 0x202, "a word");
    check(call(next_long) == 0x2020202, "a doubleword");
    check(call(next_locked) == 2, "a locked exchange");
    check(call(next_stos) == 2, "STOSB");
    check(call(next_rep) == 0x2020202, "REP STOSB");
    check(call(next_opcode) == 7, "an opcode that becomes RET");
    check(call(next_far) == 2, "an instruction a little later");
    check(call(sse_store) == 2, "an SSE store");
    check((call(next_quad) & 0xffffffff) == 0x2020202, "a quadword");
}

static void loops(void)
{
    u32 sum = 0;
    bool right = true;

    PUT(page, 0xb8, 0, 0, 0, 0, 0xc3);
    for (u32 n = 0; n < 2000; n++) {
        *(volatile u32 *)(page + 1) = n;
        right &= call(page) == n;
    }
    check(right, "two thousand versions of one function");
    /* a loop that counts in its own immediate: mov $0, %eax; 1: incl 1b+… */
    PUT(page, 0xb9, 100, 0, 0, 0, /* mov $100, %ecx */
        0xff, 0x05, 1, 0, 0, 0,   /* incl the immediate */
        0xb8, 0, 0, 0, 0,         /* mov $0, %eax */
        0xff, 0xc9,               /* dec %ecx */
        0x75, 0xf1,               /* jnz -15 */
        0xc3);
    check(call(page) == 100, "a loop that counts in its own immediate: %u", call(page));
    for (u32 n = 0; n < 50; n++) {
        PUT(page, 0xb8, (u8)n, 0, 0, 0, 0xc3);
        sum += call(page);
        *(volatile u32 *)(page + 64) = n; /* another line, as data */
        sum += call(page);
    }
    check(sum == 50 * 49, "data beside code: %u", sum);
}

/* What code says when it has run often; of different answers some other number. */
static u32 hot_call(const u8 *code)
{
    u32 first = call(code);

    for (int n = 0; n < 300; n++)
        if (call(code) != first)
            return 0xbad;
    return first;
}

/* An instruction over two pages, either of which changes, in their bytes and in their mapping. */
static void crossing(u32 (*call)(const u8 *code))
{
    u8 *code = (u8 *)VA + 4096 - 3 - 2; /* a TEST before it leads to it */

    *pte_of(VA) = (u64)page | PTE_P | PTE_W;
    *pte_of(VA + 4096) = (u64)page2 | PTE_P | PTE_W;
    write_cr3(read_cr3());
    PUT(code, 0x85, 0xc0, 0xb8, 1, 0, 0, 0, 0xc3);
    check(call(code) == 1, "an instruction across pages");
    page[4094] = 2;
    check(call(code) == 2, "its first half changes");
    page2[0] = 3;
    check(call(code) == 0x30002, "its second half: %x", call(code));
    page2[2] = 0x90;
    page2[3] = 0xc3;
    check(call(code) == 0x30002, "what follows it");
    *pte_of(VA + 4096) = (u64)page | PTE_P | PTE_W;
    invlpg(VA + 4096);
    put(page, page2, 16);
    page[0] = 9;
    check(call(code) == 0x90002, "another second page");
    *pte_of(VA + 4096) = (u64)page2 | PTE_P | PTE_W;
    write_cr3(read_cr3());
    check(call(code) == 0x30002, "and the former one again");
    *pte_of(VA + 4096) = 0;
    invlpg(VA + 4096);
    check(catch_fault((void (*)(void *))(uintptr_t)code, NULL) == 14 && caught_cr2 == VA + 4096 && caught.rip == (u64)code + 2,
          "without a second page it faults there: %llx at %llx", (unsigned long long)caught_cr2, (unsigned long long)caught.rip);
}

/* Two mappings of one page, the program's and VA. */
static void aliases(void)
{
    bool right = true;

    *pte_of(VA) = (u64)page | PTE_P | PTE_W;
    invlpg(VA);
    PUT(page, 0xb8, 0, 0, 0, 0, 0xc3);
    for (u32 n = 0; n < 500; n++) {
        *(volatile u32 *)(n & 1 ? page + 1 : (u8 *)VA + 1) = n;
        right &= call(n & 2 ? page : (u8 *)VA) == n;
    }
    check(right, "written by one mapping, run by the other");
    *pte_of(VA) = (u64)page | PTE_P;
    invlpg(VA);
    page[1] = 77;
    check(call((u8 *)VA) == (499 & ~0xffu) + 77, "through a read-only mapping: %x", call((u8 *)VA));
    *pte_of(VA) = (u64)page2 | PTE_P | PTE_W;
    invlpg(VA);
    PUT(page2, 0xb8, 5, 0, 0, 0, 0xc3);
    check(call((u8 *)VA) == 5, "remapped");
    for (u32 n = 0; n < 4096; n++)
        page2[n] = 0;
    PUT(page2, 0xb8, 6, 0, 0, 0, 0xc3);
    check(call((u8 *)VA) == 6, "wiped and filled again");
}

/* Another processor runs what this one writes: told by a flag, it serializes with CPUID first. */
static volatile u32 wanted, told, answer, answered;
static void ap(int cpu)
{
    u32 r[4], last = 0;

    for (;;) {
        while (told == last)
            asm volatile("pause");
        last = told;
        cpuid(0, 0, r);
        answer = call(page);
        answered = last;
    }
}

static void cross(void)
{
    bool right = true;

    PUT(page, 0xb8, 0, 0, 0, 0, 0xc3);
    check(cpus_start(2, ap) == 2, "two processors");
    for (u32 n = 1; n <= 100 && right; n++) {
        wanted = n * 0x1010101;
        *(volatile u32 *)(page + 1) = wanted;
        told = n;
        for (u64 t0 = rdtsc(); answered != n && rdtsc() - t0 < 10000000000ul;)
            asm volatile("pause");
        right = answered == n && answer == wanted;
    }
    check(right, "code written by one processor and run by another: %x, wanted %x", answer, wanted);
    /* both run it while one byte changes back and forth: either version, never a mixture */
    u32 odd = 0;
    page[1] = 0x55;
    for (u32 n = 0; n < 500; n++) {
        told++;
        for (int k = 0; k < 20; k++) {
            *(volatile u8 *)(page + 1) = (u8)(k & 1 ? 0x55 : 0xaa);
            u32 v = call(page);
            odd += (v & 0xff) != (k & 1 ? 0x55u : 0xaau);
        }
        for (u64 t0 = rdtsc(); answered != told && rdtsc() - t0 < 10000000000ul;)
            asm volatile("pause");
        odd += answered != told || ((answer & 0xff) != 0x55 && (answer & 0xff) != 0xaa);
    }
    check(!odd, "both at once: %u wrong", odd);
}

void guest_main(void)
{
    page = page_alloc();
    page2 = page_alloc();
    next_instruction();
    loops();
    crossing(call);
    crossing(hot_call);
    aliases();
    cross();
}
