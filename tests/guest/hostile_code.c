/* Code everywhere: instructions all over memory are run, as 64-bit and as 32-bit code, rewritten and run
 * again, through ever new addresses, on two processors. What an engine remembers of code must not grow with it: run-guest
 * looks at the VM process' memory afterwards. */
#include "guest.h"

#define FIRST 0x1000000ul
#define END 0x3c00000ul
#define STEP 256
#define ALIAS 0x40000000000ul
#define ROUNDS 2

typedef u32 code_fn(u32 x);

/* mov eax, edi; add eax, imm32; ret, after a few instructions that differ from place to place. */
static void code_put(u64 at, u32 n)
{
    u8 *p = (u8 *)at;

    for (u32 i = 0; i < n % 24; i++)
        *p++ = 0x90;
    *p++ = 0x89;
    *p++ = 0xf8;
    *p++ = 0x05;
    *(volatile u32 *)p = n;
    p += 4;
    *p = 0xc3;
}

static bool run_all(u64 shift, u32 n)
{
    bool right = true;

    for (u64 at = FIRST; at < END; at += STEP)
        right &= ((code_fn *)(at + shift))(1) == (u32)(at / STEP) + n + 1;
    return right;
}

static void put_all(u32 n)
{
    for (u64 at = FIRST; at < END; at += STEP)
        code_put(at, (u32)(at / STEP) + n);
}

/* The same memory again elsewhere, in 2 MiB pages. */
static void alias(u64 gva)
{
    u64 *p3 = page_alloc(), *p2 = page_alloc();

    pml4[gva >> 39 & 511] = (u64)p3 | 7;
    p3[gva >> 30 & 511] = (u64)p2 | 7;
    for (u64 n = 0; n < 32; n++)
        p2[n] = n << 21 | 0x87;
}

static volatile bool other_right = true, other_done;

static void other(int cpu)
{
    other_right &= run_all(0, 0);
    other_done = true;
}

void guest_main(void)
{
    put_all(0);
    check(cpus_start(2, other) == 2, "another processor");
    check(run_all(0, 0), "code all over memory");
    while (!other_done)
        asm volatile("pause");
    check(other_right, "and on the other processor");
    for (u32 n = 1; n <= ROUNDS; n++) {
        put_all(n);
        alias(ALIAS * n);
        check(run_all(0, n) && run_all(ALIAS * n, n), "rewritten, and through other addresses, round %u", n);
    }
}
