/* Four processors at one memory: every locked instruction, within a line, across lines and across pages, in sizes 1 to
 * 16; plain stores that must not tear; the store buffer's order; a lock taken by XCHG; MWAIT-less spinning with PAUSE.
 * SDM vol. 3 §8.1, §8.2. */
#include "guest.h"

#define CPUS 4
#define ROUNDS 400

static volatile int arrived, phase;
static u8 area[3 * 4096] __attribute__((aligned(4096)));
static volatile u64 errors[CPUS];

/* All meet before each phase. */
static void meet(int cpus)
{
    int mine = phase;

    if (__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST) == cpus) {
        arrived = 0;
        phase = mine + 1;
    } else {
        while (phase == mine)
            asm volatile("pause");
    }
}

/* Where an operand lies: inside a line, over two lines, over two pages. */
static u64 *const places[] = {(u64 *)(area + 64), (u64 *)(area + 128 - 3), (u64 *)(area + 4096 - 3)};
enum { PLACES = 3 };
/* Across pages each stops the world. */
static const int rounds_at[PLACES] = {ROUNDS, ROUNDS, ROUNDS / 10};
static const char *const place_names[] = {"in a line", "across lines", "across pages"};

static void adds(int cpu, u64 *p, int rounds)
{
    for (int n = 0; n < rounds; n++)
        switch (n & 7) {
        case 0: asm volatile("lock addq $3, %0" : "+m"(*p)); break;
        case 1: asm volatile("lock subq $1, %0" : "+m"(*p)); break;
        case 2: asm volatile("lock incq %0" : "+m"(*p)); break;
        case 3: asm volatile("lock decq %0" : "+m"(*p)); break;
        case 4: asm volatile("stc; lock adcq $1, %0" : "+m"(*p)); break;
        case 5: asm volatile("stc; lock sbbq $0, %0" : "+m"(*p)); break;
        case 6: { u64 v = 2; asm volatile("lock xaddq %0, %1" : "+r"(v), "+m"(*p)); break; }
        default: {
            u64 old = *p, seen;

            do {
                seen = old;
                asm volatile("lock cmpxchgq %2, %1" : "+a"(old), "+m"(*p) : "r"(old + 4));
            } while (old != seen);
        }
        }
}
/* What eight rounds add. */
enum { EIGHT = 3 - 1 + 1 - 1 + 2 - 1 + 2 + 4 };

/* Each processor has a bit; setting and clearing it must leave the others'. */
static void bits(int cpu, u64 *p, int rounds)
{
    u64 bit = (u64)cpu * 15;

    for (int n = 0; n < rounds; n++) {
        bool was, is;

        asm volatile("lock btsq %2, %1; setc %0" : "=q"(was), "+m"(*p) : "r"(bit));
        asm volatile("lock btrq %2, %1; setc %0" : "=q"(is), "+m"(*p) : "r"(bit));
        errors[cpu] += was || !is;
        asm volatile("lock btcq %2, %1; setc %0" : "=q"(was), "+m"(*p) : "r"(bit));
        asm volatile("lock btcq %2, %1; setc %0" : "=q"(is), "+m"(*p) : "r"(bit));
        errors[cpu] += was || !is;
        asm volatile("lock orq %1, %0" : "+m"(*p) : "r"(1ul << bit));
        asm volatile("lock xorq %1, %0" : "+m"(*p) : "r"(1ul << bit));
        asm volatile("lock orq %1, %0" : "+m"(*p) : "r"(1ul << bit));
        asm volatile("lock andq %1, %0" : "+m"(*p) : "r"(~(1ul << bit)));
    }
}

/* XCHG needs no prefix. The counter behind it is plain. */
static volatile u64 guarded;
static void lock(int cpu, u64 *p, int rounds)
{
    for (int n = 0; n < rounds / 10; n++) {
        u64 got = 1;

        for (;;) {
            asm volatile("xchg %0, %1" : "+r"(got), "+m"(*p));
            if (!got)
                break;
            asm volatile("pause");
        }
        guarded++;
        asm volatile("" : : : "memory");
        *(volatile u64 *)p = 0;
    }
}

static u64 pair[2] __attribute__((aligned(16)));
static void pairs(int cpu)
{
    for (int n = 0; n < ROUNDS; n++) {
        u64 lo = pair[0], hi = pair[1];
        bool done = false;

        while (!done)
            asm volatile("lock cmpxchg16b %1; setz %0"
                         : "=q"(done), "+m"(pair), "+a"(lo), "+d"(hi)
                         : "b"(lo + 1), "c"(hi - 1));
    }
}

/* Narrow neighbours: each processor adds to its own byte and word of one quadword. */
static void neighbours(int cpu, u64 *p, int rounds)
{
    for (int n = 0; n < rounds; n++) {
        asm volatile("lock incb (%0)" : : "r"((u8 *)p + cpu) : "memory");
        asm volatile("lock incw (%0)" : : "r"((u8 *)p + 8 + 2 * cpu) : "memory");
        asm volatile("lock incl (%0)" : : "r"((u8 *)p + 16 + 4 * cpu) : "memory");
    }
}

/* Plain aligned stores are whole: everybody sees one of the two values. */
static volatile u64 whole;
static void tearing(int cpu)
{
    for (int n = 0; n < ROUNDS * 4; n++) {
        u64 v;

        if (cpu < 2)
            whole = cpu ? 0x1111111111111111 : 0xeeeeeeeeeeeeeeee;
        v = whole;
        errors[cpu] += v != 0 && v != 0x1111111111111111 && v != 0xeeeeeeeeeeeeeeee;
    }
}

/* Stores become visible in program order, loads are not moved before older loads. */
static volatile u64 first, second;
static void order(int cpu)
{
    if (cpu == 0)
        for (u64 n = 1; n <= ROUNDS * 4; n++) {
            first = n;
            second = n;
        }
    else
        for (int n = 0; n < ROUNDS * 4; n++) {
            u64 b = second, a = first;

            errors[cpu] += a < b;
        }
}

/* With MFENCE, or with a locked instruction, of two processors that write one flag and read the other's, one sees it. */
static volatile u64 flag[2], saw[2];
static volatile int both;
static void fences(int cpu, int cpus)
{
    for (int n = 0; n < 25; n++) {
        meet(cpus);
        if (cpu < 2) {
            flag[cpu] = (u64)n + 1;
            if (n & 1)
                asm volatile("mfence" : : : "memory");
            else
                asm volatile("lock orl $0, (%%rsp)" : : : "memory");
            saw[cpu] = flag[!cpu];
        }
        meet(cpus);
        if (cpu == 0)
            both += saw[0] != (u64)n + 1 && saw[1] != (u64)n + 1;
    }
}

static volatile bool go;
static int total;

static void clear(void)
{
    for (u32 n = 0; n < sizeof(area); n++)
        area[n] = 0;
    for (int n = 0; n < CPUS; n++)
        errors[n] = 0;
}

static u64 error_count(void)
{
    u64 sum = 0;

    for (int n = 0; n < CPUS; n++)
        sum += errors[n];
    return sum;
}

static void work(int cpu)
{
    for (int n = 0; n < PLACES; n++) {
        meet(total);
        adds(cpu, places[n], rounds_at[n]);
        meet(total);
        if (cpu == 0) {
            check(*places[n] == (u64)total * (u64)(rounds_at[n] / 8) * EIGHT, "sums %s: %lu", place_names[n],
                  *places[n]);
            clear();
        }
        meet(total);
        bits(cpu, places[n], rounds_at[n]);
        meet(total);
        if (cpu == 0) {
            check(*places[n] == 0 && !error_count(), "bits %s: %lx, %lu errors", place_names[n], *places[n],
                  error_count());
            clear();
            guarded = 0;
        }
        meet(total);
        lock(cpu, places[n], rounds_at[n]);
        meet(total);
        if (cpu == 0) {
            check(guarded == (u64)total * (u64)(rounds_at[n] / 10), "a lock %s: %lu", place_names[n], guarded);
            clear();
        }
        meet(total);
        neighbours(cpu, places[n], rounds_at[n]);
        meet(total);
        if (cpu == 0) {
            u8 *p = (u8 *)places[n];
            bool right = true;

            for (int k = 0; k < total; k++)
                right &= p[k] == (u8)rounds_at[n] && *(u16 *)(p + 8 + 2 * k) == rounds_at[n] &&
                         *(u32 *)(p + 16 + 4 * k) == (u32)rounds_at[n];
            check(right, "neighbouring bytes, words and doublewords %s", place_names[n]);
            clear();
        }
    }
    meet(total);
    pairs(cpu);
    meet(total);
    if (cpu == 0)
        check(pair[0] == (u64)total * ROUNDS && pair[1] == -(u64)total * ROUNDS, "CMPXCHG16B: %lu", pair[0]);
    meet(total);
    tearing(cpu);
    meet(total);
    if (cpu == 0)
        check(!error_count(), "stores are whole: %lu", error_count());
    meet(total);
    order(cpu);
    meet(total);
    if (cpu == 0)
        check(!error_count(), "stores keep their order: %lu", error_count());
    meet(total);
    fences(cpu, total);
    if (cpu == 0)
        check(!both, "fences: %d times nobody saw the other", both);
}

static void ap(int cpu)
{
    while (!go)
        asm volatile("pause");
    work(cpu);
}

void guest_main(void)
{
    total = cpus_start(CPUS, ap);
    check(total == CPUS, "%d processors", total);
    go = true;
    work(0);
}
