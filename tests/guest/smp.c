/* Local APIC and other CPUs: start-up, IPIs, the timer, locked operations by all CPUs at once, TLB shootdown, code modified by
 * one CPU and run by another. SDM vol. 3 ch. 8, 11. */
#include "guest.h"

#define CPUS 4
#define ROUNDS 20000
#define VA 0x40000000000ul

static volatile int ready, go, done, ipis, timer_ticks, stage;
static volatile u64 counter __attribute__((aligned(64)));
static u8 crossing[8192] __attribute__((aligned(4096)));
static volatile u64 seen[CPUS];

static void eoi(void)
{
    lapic_write(0xb0, 0);
}

static void on_ipi(struct frame *f)
{
    __atomic_add_fetch(&ipis, 1, __ATOMIC_SEQ_CST);
    eoi();
}

static void on_timer(struct frame *f)
{
    timer_ticks++;
    eoi();
}

static void flush_va(struct frame *f)
{
    invlpg(VA);
    __atomic_add_fetch(&ipis, 1, __ATOMIC_SEQ_CST);
    eoi();
}

static void ap(int cpu)
{
    u64 *split = (u64 *)(crossing + 4096 - 4);

    lapic_write(0xf0, 0x1ff);
    asm volatile("sti");
    __atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
    while (!go)
        asm volatile("pause");
    for (int n = 0; n < ROUNDS; n++)
        __atomic_add_fetch(&counter, 1, __ATOMIC_SEQ_CST);
    for (int n = 0; n < 200; n++)
        asm volatile("lock incq %0" : "+m"(*split));
    __atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        while (stage != cpu)
            asm volatile("pause");
        seen[cpu] = *(volatile u64 *)VA;
        stage = 0;
    }
}

static void wait_for(volatile int *v, int want)
{
    for (u64 n = 0; n < 400000000 && *v < want; n++)
        asm volatile("pause");
}

static u64 ask(int cpu)
{
    stage = cpu;
    for (u64 n = 0; n < 400000000 && stage; n++)
        asm volatile("pause");
    return seen[cpu];
}

void guest_main(void)
{
    int cpus;
    u64 *split = (u64 *)(crossing + 4096 - 4);
    u64 *page1 = page_alloc(), *page2 = page_alloc(), *pte = pte_of(VA);

    *page1 = 111;
    *page2 = 222;
    *pte = (u64)page1 | PTE_P | PTE_W;
    on_interrupt(0x40, on_ipi);
    on_interrupt(0x41, on_timer);
    on_interrupt(0x42, flush_va);
    lapic_write(0xf0, 0x1ff);
    check(lapic_read(0x20) >> 24 == 0, "boot CPU has APIC id 0");
    cpus = cpus_start(CPUS, ap);
    check(cpus == CPUS, "%d CPUs started", cpus);
    wait_for(&ready, cpus - 1);
    go = 1;
    for (int n = 0; n < ROUNDS; n++)
        __atomic_add_fetch(&counter, 1, __ATOMIC_SEQ_CST);
    for (int n = 0; n < 200; n++)
        asm volatile("lock incq %0" : "+m"(*split));
    wait_for(&done, cpus - 1);
    check(counter == (u64)cpus * ROUNDS, "locked increments: %lu", counter);
    check(*split == (u64)cpus * 200, "locked increments across a page: %lu", *split);

    lapic_write(0x300, 0xc0040); /* all but self */
    wait_for(&ipis, cpus - 1);
    check(ipis == cpus - 1, "IPI to all others: %d", ipis);
    ipis = 0;
    asm volatile("sti");
    lapic_write(0x300, 0x80040); /* all */
    wait_for(&ipis, cpus);
    check(ipis == cpus, "IPI to all: %d", ipis);
    lapic_write(0x300, 0x40040); /* self */
    wait_for(&ipis, cpus + 1);
    check(ipis == cpus + 1, "IPI to self: %d", ipis);

    lapic_write(0x3e0, 3);
    lapic_write(0x320, 0x20041); /* periodic */
    lapic_write(0x380, 1000000);
    wait_for(&timer_ticks, 3);
    check(timer_ticks >= 3, "periodic timer ticks");
    lapic_write(0x320, 0x10041);
    lapic_write(0x380, 0); /* or it would go on, and expire once more as a one-shot timer */
    timer_ticks = 0;
    lapic_write(0x320, 0x41); /* one-shot */
    asm volatile("cli" : : : "memory"); /* or it might come between the look and the halt */
    lapic_write(0x380, 100000);
    while (!timer_ticks)
        asm volatile("sti; hlt; cli" : : : "memory");
    asm volatile("sti" : : : "memory");
    check(timer_ticks == 1 && lapic_read(0x390) == 0, "one-shot timer wakes HLT");

    for (int cpu = 1; cpu < cpus; cpu++)
        check(ask(cpu) == 111, "CPU %d sees the first page", cpu);
    ipis = 0;
    *pte = (u64)page2 | PTE_P | PTE_W;
    invlpg(VA);
    lapic_write(0x300, 0xc0042);
    wait_for(&ipis, cpus - 1);
    for (int cpu = 1; cpu < cpus; cpu++)
        check(ask(cpu) == 222, "CPU %d sees the second page after the shootdown", cpu);
}
