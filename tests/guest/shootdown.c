/* Sixteen processors: page tables changed under their feet and invalidated by IPI, write protection as for copy on
 * write, the accessed and dirty flags of a page that all use, interrupts while all wait for one another. SDM vol. 3
 * §4.10.5, §8. */
#include "guest.h"

#define CPUS 16
#define VA 0x40000000000ul
#define ROUNDS 30
enum { EOI = 0xb0, ICR = 0x300, OTHERS = 0xc0000 };

static volatile int ready, acks;
static volatile u64 generation; /* raised by the boot processor when the page has changed */
static volatile u32 wrong[CPUS], looks[CPUS];
static volatile bool stop;
static u64 *pte;
static u64 *pages[2];



static void on_flush(struct frame *f)
{
    invlpg(VA);
    __atomic_add_fetch(&acks, 1, __ATOMIC_SEQ_CST);
    lapic_write(EOI, 0);
}

/* After the flush that belongs to generation g, the page shows g at least. */
static void ap(int cpu)
{
    lapic_write(0xf0, 0x1ff);
    asm volatile("sti");
    __atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
    while (!stop) {
        u64 before = generation, saw = *(volatile u64 *)VA;

        wrong[cpu] += saw < before;
        if (!(++looks[cpu] % 100)) /* sixteen that spin would keep a small host busy */
            asm volatile("cli; cmpb $0, %0; jne 1f; sti; hlt; 1: sti" : : "m"(stop));
    }
    __atomic_sub_fetch(&ready, 1, __ATOMIC_SEQ_CST);
}

static bool wait(volatile int *v, int wanted)
{
    for (u64 t0 = rdtsc(); rdtsc() - t0 < 20000000000ul;) {
        if (*v == wanted)
            return true;
        asm volatile("sti; pause; cli");
    }
    return *v == wanted;
}

static bool flush_all(int others)
{
    acks = 0;
    invlpg(VA);
    lapic_write(ICR, OTHERS | 0x4070);
    return wait(&acks, others);
}

static void remapping(int others)
{
    bool answered = true;
    u32 bad = 0, least = ~0u;

    for (u64 n = 1; n <= ROUNDS && answered; n++) {
        *pages[n & 1] = n;
        *pte = (u64)pages[n & 1] | PTE_P | PTE_W;
        answered = flush_all(others);
        generation = n;
    }
    for (int cpu = 1; cpu <= others; cpu++) {
        bad += wrong[cpu];
        least = looks[cpu] < least ? looks[cpu] : least;
    }
    check(answered, "every processor answered each time");
    check(!bad, "none saw an old page after its flush: %u", bad);
    check(least > 0, "all looked: %u times at least", least);
}

static volatile u64 faults;
static void on_page_fault(struct frame *f)
{
    faults++;
    *pte |= PTE_W;
    invlpg(VA);
}

/* Write protection: after the flush nobody's write gets through unseen. */
static volatile u64 sum;
static void writer(struct frame *f)
{
    __atomic_add_fetch((u64 *)VA, 1, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&acks, 1, __ATOMIC_SEQ_CST);
    lapic_write(EOI, 0);
}

static void protecting(int others)
{
    u64 before;
    bool answered;

    on_interrupt(0x71, writer);
    on_interrupt(14, on_page_fault);
    *pte = (u64)pages[0] | PTE_P | PTE_W;
    *pages[0] = 1ul << 40; /* not less than any generation */
    flush_all(others);
    for (int round = 0; round < 3; round++) {
        faults = 0;
        *pte = (u64)pages[0] | PTE_P;
        flush_all(others);
        before = *pages[0];
        acks = 0;
        lapic_write(ICR, OTHERS | 0x4071);
        answered = wait(&acks, others);
        check(answered && *pages[0] == before + (u64)others && faults >= 1 && *pte & PTE_D,
              "write-protected: %lu faults, %lu writes arrived", faults, *pages[0] - before);
    }
}

void guest_main(void)
{
    int cpus;

    pte = pte_of(VA);
    pages[0] = page_alloc();
    pages[1] = page_alloc();
    *pte = (u64)pages[0] | PTE_P | PTE_W;
    on_interrupt(0x70, on_flush);
    lapic_write(0xf0, 0x1ff);
    cpus = cpus_start(CPUS, ap);
    check(cpus == CPUS, "%d processors", cpus);
    check(wait(&ready, cpus - 1), "all run");
    remapping(cpus - 1);
    protecting(cpus - 1);
    stop = true;
    lapic_write(ICR, OTHERS | 0x4070);
    check(wait(&ready, 0), "all stop");
}
