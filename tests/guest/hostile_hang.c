/* Guests that never come to an end, one kind a processor: the VM process must still end when it is told to. */
#include "guest.h"

#define WINDOW 0x400000000000ul

/* One string instruction over 64 TiB of linear addresses, all of them a hole: interrupts off, for a year. */
static void strings(void)
{
    u64 *p3 = page_alloc(), *p2 = page_alloc(), n = 1ul << 46, to = WINDOW;

    for (u64 i = 0; i < 512; i++) {
        p2[i] = 0xd0000087;
        p3[i] = (u64)p2 | 7;
    }
    for (u64 i = 0; i < 128; i++)
        pml4[(WINDOW >> 39) + i] = (u64)p3 | 7;
    asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(0) : "memory");
}

static void spin(void)
{
    asm volatile("cli; 1: jmp 1b");
}

static void halt(void)
{
    asm volatile("1: cli; hlt; jmp 1b");
}

/* Code that is rewritten each time before it runs. */
static void rewrite(void)
{
    static u8 code[64] __attribute__((aligned(64)));

    for (u32 n = 0;; n++) {
        code[0] = 0xb8;
        *(volatile u32 *)(code + 1) = n;
        code[5] = 0xc3;
        ((void (*)(void))code)();
    }
}

/* Locked operations across two pages, which stop every other processor. */
static void split(void)
{
    static u8 two[2 * 4096] __attribute__((aligned(4096)));

    for (;;)
        asm volatile("lock incl (%0)" : : "r"(two + 4094) : "memory");
}

static void (*const kind[])(void) = {strings, spin, halt, rewrite, split};

static void start(int cpu)
{
    kind[cpu]();
}

void guest_main(void)
{
    print("hanging\n");
    cpus_start((int)(sizeof(kind) / sizeof(kind[0])), start);
    start(0);
}
