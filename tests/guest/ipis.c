/* Interrupts between processors: physical and logical destinations, flat and cluster models, broadcasts, shorthands,
 * lowest priority, NMI, INIT and start-up; the same in x2APIC mode. SDM vol. 3 §11.6, §11.12, §9.4. */
#include "guest.h"

#define CPUS 4
enum {
    ID = 0x20,
    TPR = 0x80,
    EOI = 0xb0,
    LDR = 0xd0,
    DFR = 0xe0,
    SVR = 0xf0,
    ESR = 0x280,
    ICR = 0x300,
    ICR_HIGH = 0x310
};
enum { MSR_APIC_BASE = 0x1b, X2 = 0x800 };
enum { LOGICAL = 0x800, LOWEST = 0x100, NMI = 0x400, INIT = 0x500, STARTUP = 0x600, ASSERT = 0x4000, LEVEL = 0x8000 };
enum { SELF = 0x40000, ALL = 0x80000, OTHERS = 0xc0000 };
#define START_PAGE 0x9000
#define VECTOR 0x71

static volatile int ready;
static volatile u32 hits[CPUS], nmis[CPUS];
static void (*volatile job[CPUS])(int cpu);
static volatile u32 tpr_wanted[CPUS];
static bool x2;

static u32 cpu_id(void)
{
    return rdmsr(MSR_APIC_BASE) & 0x400 ? (u32)rdmsr(X2 + 2) : lapic_read(ID) >> 24;
}

static void eoi(void)
{
    if (rdmsr(MSR_APIC_BASE) & 0x400)
        wrmsr(X2 + 0xb, 0);
    else
        lapic_write(EOI, 0);
}

static void on_ipi(struct frame *f)
{
    __atomic_add_fetch(&hits[cpu_id()], 1, __ATOMIC_SEQ_CST);
    eoi();
}

static void on_nmi(struct frame *f)
{
    __atomic_add_fetch(&nmis[cpu_id()], 1, __ATOMIC_SEQ_CST);
}

static void ap(int cpu)
{
    lapic_write(SVR, 0x1ff);
    __atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
    asm volatile("sti");
    for (;;) {
        asm volatile("pause");
        if (job[cpu]) {
            job[cpu](cpu);
            job[cpu] = 0;
        }
    }
}

static bool wait_until(bool (*held)(void))
{
    for (u64 t0 = rdtsc(); rdtsc() - t0 < 10000000000ul;)
        if (held())
            return true;
    return false;
}

static int running = CPUS; /* the first ones take part */
static bool jobs_done(void)
{
    for (int n = 1; n < running; n++)
        if (job[n])
            return false;
    return true;
}

static void on_all(void (*fn)(int cpu))
{
    for (int n = 1; n < running; n++)
        job[n] = fn;
    fn(0);
    wait_until(jobs_done);
}

static void send(u32 dest, u32 low)
{
    if (x2) {
        wrmsr(X2 + 0x30, (u64)dest << 32 | low);
        return;
    }
    lapic_write(ICR_HIGH, dest << 24);
    lapic_write(ICR, low);
}

static u32 mask_of(volatile u32 *counts)
{
    u32 mask = 0;

    for (int n = 0; n < CPUS; n++)
        mask |= (u32)!!counts[n] << n;
    return mask;
}

static u32 total(volatile u32 *counts)
{
    u32 sum = 0;

    for (int n = 0; n < CPUS; n++)
        sum += counts[n];
    return sum;
}

static u32 bits(u32 mask)
{
    u32 n = 0;

    for (; mask; mask &= mask - 1)
        n++;
    return n;
}

static u32 expected_mask;
static volatile u32 *expected_in;
static bool all_came(void) { return (mask_of(expected_in) & expected_mask) == expected_mask; }
static void nothing(int cpu) { }

/* Everything that went out before has arrived when every processor has done a job since: interrupts come first. */
static void expect(const char *name, u32 dest, u32 low, u32 cpus)
{
    volatile u32 *counts = (low & 0x700) == NMI ? nmis : hits;
    u32 got;

    for (int n = 0; n < CPUS; n++)
        hits[n] = nmis[n] = 0;
    asm volatile("sti");
    send(dest, low);
    expected_mask = cpus;
    expected_in = counts;
    wait_until(all_came);
    on_all(nothing);
    asm volatile("cli");
    got = mask_of(counts);
    check(got == cpus && total(hits) + total(nmis) == bits(cpus), "%s: processors %x (expected %x)", name, got,
          cpus);
}

static void physical(void)
{
    for (u32 n = 0; n < CPUS; n++)
        expect("physical", n, VECTOR | ASSERT, 1u << n);
    expect("physical, to nobody", 0x55, VECTOR | ASSERT, 0);
    expect("physical broadcast", x2 ? ~0u : 0xff, VECTOR | ASSERT, 15);
    expect("NMI", 2, NMI | ASSERT, 4);
    expect("NMI broadcast by shorthand", 0, NMI | ASSERT | OTHERS, 14);
    expect("to self", 0, VECTOR | ASSERT | SELF, 1);
    expect("to all", 0, VECTOR | ASSERT | ALL, 15);
    expect("to others", 0, VECTOR | ASSERT | OTHERS, 14);
    expect("shorthands ignore the destination", 2, VECTOR | ASSERT | SELF | LOGICAL, 1);
    expect("without the assert bit", 1, VECTOR, 2);
}

static void set_flat(int cpu)
{
    lapic_write(DFR, 0xffffffff);
    lapic_write(LDR, 1u << (24 + cpu));
}

static void set_clusters(int cpu)
{
    lapic_write(DFR, 0x0fffffff);
    lapic_write(LDR, (cpu < 2 ? 0x10u : 0x20u) << 24 | 1u << (24 + (cpu & 1)));
}

static void logical(void)
{
    on_all(set_flat);
    check(lapic_read(DFR) == 0xffffffff && lapic_read(LDR) == 0x1000000, "flat: DFR %x LDR %x", lapic_read(DFR),
          lapic_read(LDR));
    expect("logical flat, one", 4, VECTOR | ASSERT | LOGICAL, 4);
    expect("logical flat, two", 0xa, VECTOR | ASSERT | LOGICAL, 0xa);
    expect("logical flat, all", 0xff, VECTOR | ASSERT | LOGICAL, 15);
    expect("logical flat, none", 0xf0, VECTOR | ASSERT | LOGICAL, 0);
    expect("logical NMI", 2, NMI | ASSERT | LOGICAL, 2);
    on_all(set_clusters);
    check(lapic_read(DFR) == 0x0fffffff, "clusters: DFR %x", lapic_read(DFR));
    expect("cluster 1, member 2", 0x12, VECTOR | ASSERT | LOGICAL, 2);
    expect("cluster 2, both", 0x23, VECTOR | ASSERT | LOGICAL, 0xc);
    expect("cluster 2, members that are not there", 0x2c, VECTOR | ASSERT | LOGICAL, 0);
    expect("cluster 3", 0x3f, VECTOR | ASSERT | LOGICAL, 0);
    expect("all clusters, member 1", 0xf1, VECTOR | ASSERT | LOGICAL, 5);
    expect("all clusters, all members", 0xff, VECTOR | ASSERT | LOGICAL, 15);
    on_all(set_flat);
}

static void set_tpr(int cpu) { lapic_write(TPR, tpr_wanted[cpu]); }
static bool one_came(void) { return total(hits) >= 1; }

static void lowest_case(const char *name, u32 t0, u32 t1, u32 t2, u32 t3, u32 dest, u32 allowed)
{
    tpr_wanted[0] = t0;
    tpr_wanted[1] = t1;
    tpr_wanted[2] = t2;
    tpr_wanted[3] = t3;
    on_all(set_tpr);
    for (int n = 0; n < CPUS; n++)
        hits[n] = 0;
    asm volatile("sti");
    send(dest, VECTOR | ASSERT | LOGICAL | LOWEST);
    wait_until(one_came);
    on_all(nothing);
    asm volatile("cli");
    check(total(hits) == 1 && (mask_of(hits) & ~allowed) == 0, "lowest priority, %s: processors %x", name,
          mask_of(hits));
}

static void lowest(void)
{
    lowest_case("equal", 0, 0, 0, 0, 0xf, 0xf);
    lowest_case("the third is lowest", 0x30, 0x20, 0x10, 0x40, 0xf, 4);
    lowest_case("the first is", 0x10, 0x20, 0x30, 0x40, 0xf, 1);
    lowest_case("among those addressed", 0x10, 0x30, 0x20, 0x40, 0xa, 2);
    for (int n = 0; n < CPUS; n++)
        tpr_wanted[n] = 0;
    on_all(set_tpr);
}

static void svr_off(int cpu) { if (cpu == 3) lapic_write(SVR, 0xff); }
static void svr_on(int cpu) { if (cpu == 3) lapic_write(SVR, 0x1ff); }

static void disabled(void)
{
    on_all(svr_off);
    expect("disabled by software: no fixed interrupt", 3, VECTOR | ASSERT, 0);
    expect("broadcasts pass it by", 0xff, VECTOR | ASSERT, 7);
    expect("NMIs come", 3, NMI | ASSERT, 8);
    on_all(svr_on);
    expect("and back", 3, VECTOR | ASSERT, 8);
}

static void send_errors(void)
{
    lapic_write(ESR, 0);
    send(1, 5 | ASSERT);
    lapic_write(ESR, 0);
    check(lapic_read(ESR) == 0x20, "an illegal vector sent: ESR %x", lapic_read(ESR));
    lapic_write(ESR, 0);
    check(lapic_read(ESR) == 0, "written again, ESR is clear");
    send(1, VECTOR | ASSERT);
    check(!(lapic_read(ICR) & 0x1000), "delivery status is idle: %x", lapic_read(ICR));
    send(0x77, 0x7feff & ~0x1000u); /* reserved delivery mode: nothing happens */
    on_all(nothing);
}

/* Where a processor comes out of INIT: notes some registers, counts, halts. */
CODE(16, start16,
     "mov %edx, %cs:0x100; mov %eax, %cs:0x104; mov %cs, %cs:0x108; mov %cr0, %eax; mov %eax, %cs:0x10c;"
     "mov %esp, %cs:0x110; mov %ds, %cs:0x114; pushfl; popl %cs:0x118; lock incl %cs:0x11c; 1: hlt; jmp 1b");
struct start_notes {
    u32 edx, eax, cs, cr0, esp, ds, eflags, count;
};
static volatile struct start_notes *notes = (void *)(START_PAGE + 0x100);
static bool started_once(void) { return notes->count >= 1; }
static bool started_twice(void) { return notes->count >= 2; }

static void copy_start(void)
{
    for (u8 *p = start16; p < start16_end; p++)
        ((volatile u8 *)START_PAGE)[p - start16] = *p;
}

static void restart(void)
{
    u32 r[4];

    copy_start();
    notes->count = 0;
    send(3, STARTUP | ASSERT | START_PAGE >> 12);
    on_all(nothing);
    expect("a start-up message to a running processor does nothing", 3, VECTOR | ASSERT, 8);
    check(notes->count == 0, "it was not started");
    send(3, INIT | LEVEL); /* de-assert */
    expect("nor does INIT's de-assertion", 3, VECTOR | ASSERT, 8);
    running = 3;
    send(3, INIT | ASSERT | LEVEL);
    expect("after INIT it takes no interrupt", 3, VECTOR | ASSERT, 0);
    check(notes->count == 0, "and waits");
    send(3, STARTUP | ASSERT | START_PAGE >> 12);
    check(wait_until(started_once), "start-up starts it");
    cpuid(1, 0, r);
    check(notes->cs == START_PAGE >> 4 && notes->edx == r[0] && notes->eax == 0, "CS %x EDX %x EAX %x", notes->cs,
          notes->edx, notes->eax);
    check((notes->cr0 & 0x9fffffff) == 0x10 && notes->esp == 0 && notes->ds == 0 && notes->eflags == 2,
          "CR0 %x ESP %x DS %x EFLAGS %x", notes->cr0, notes->esp, notes->ds, notes->eflags);
    send(3, STARTUP | ASSERT | START_PAGE >> 12);
    for (int n = 0; n < 5; n++)
        on_all(nothing);
    check(notes->count == 1, "a second start-up message is ignored: %d", notes->count);
    send(3, INIT | ASSERT | LEVEL);
    send(3, STARTUP | ASSERT | START_PAGE >> 12);
    check(wait_until(started_twice), "INIT and start-up without a pause between");
}

static void x2_on(int cpu) { wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 0x400); }
static volatile u32 ldrs[CPUS];
static void read_ldr(int cpu) { ldrs[cpu] = (u32)rdmsr(X2 + 0xd); }

static void x2apic(void)
{
    on_all(x2_on);
    x2 = true;
    on_all(read_ldr);
    check(ldrs[0] == 1 && ldrs[1] == 2 && ldrs[2] == 4, "logical ids %x %x %x", ldrs[0], ldrs[1], ldrs[2]);
    for (u32 n = 0; n < 3; n++)
        expect("x2APIC physical", n, VECTOR | ASSERT, 1u << n);
    expect("x2APIC, to nobody", 0x1000, VECTOR | ASSERT, 0);
    expect("x2APIC: FF is an id like others", 0xff, VECTOR | ASSERT, 0);
    expect("x2APIC broadcast", ~0u, VECTOR | ASSERT, 7);
    expect("x2APIC logical", 6, VECTOR | ASSERT | LOGICAL, 6);
    expect("x2APIC logical, another cluster", 1u << 16 | 6, VECTOR | ASSERT | LOGICAL, 0);
    expect("x2APIC logical broadcast", ~0u, VECTOR | ASSERT | LOGICAL, 7);
    expect("x2APIC NMI", 1, NMI | ASSERT, 2);
    expect("x2APIC to others", 0, VECTOR | ASSERT | OTHERS, 6);
    check(rdmsr(X2 + 0x30) == (VECTOR | ASSERT | OTHERS), "the ICR reads back: %lx", rdmsr(X2 + 0x30));
}

void guest_main(void)
{
    int cpus;

    on_interrupt(VECTOR, on_ipi);
    on_interrupt(2, on_nmi);
    lapic_write(SVR, 0x1ff);
    cpus = cpus_start(CPUS, ap);
    check(cpus == CPUS, "%d processors", cpus);
    if (cpus != CPUS)
        return;
    while (ready < CPUS - 1)
        ;
    physical();
    logical();
    lowest();
    disabled();
    send_errors();
    restart();
    if (feature(1, 0, 2, 21))
        x2apic();
}
