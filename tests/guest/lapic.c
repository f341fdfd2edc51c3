/* The local APIC by itself: priorities, TPR, PPR and CR8, EOI, spurious vector, errors, the timer in its three
 * modes, NMIs and their blocking, waking from HLT, x2APIC mode. SDM vol. 3 ch. 11, §6.7. */
#include "guest.h"

enum {
    ID = 0x20,
    VERSION = 0x30,
    TPR = 0x80,
    PPR = 0xa0,
    EOI = 0xb0,
    LDR = 0xd0,
    DFR = 0xe0,
    SVR = 0xf0,
    ISR = 0x100,
    TMR = 0x180,
    IRR = 0x200,
    ESR = 0x280,
    ICR = 0x300,
    ICR_HIGH = 0x310,
    LVT_TIMER = 0x320,
    LVT_LINT0 = 0x350,
    LVT_ERROR = 0x370,
    INITIAL = 0x380,
    CURRENT = 0x390,
    DIVIDE = 0x3e0
};
enum { MSR_APIC_BASE = 0x1b, MSR_DEADLINE = 0x6e0, X2 = 0x800 };
#define SELF 0x40000u

static volatile int count;
static volatile u8 order[64], ppr[64], depth, deepest;
static volatile bool nest;

static bool bit(u32 bank, int vector)
{
    return lapic_read(bank + (u32)vector / 32 * 16) >> (vector & 31) & 1;
}

static void on_any(struct frame *f)
{
    if (++depth > deepest)
        deepest = depth;
    if (count < 64) {
        ppr[count] = (u8)lapic_read(PPR);
        order[count] = (u8)f->vector;
    }
    count++;
    if (nest) {
        if (f->vector == 0x51)
            lapic_write(ICR, SELF | 0x52); /* same class: must wait */
        if (f->vector == 0x52 || f->vector == 0x51)
            lapic_write(ICR, SELF | (f->vector == 0x51 ? 0x61 : 0x41));
        asm volatile("sti; nop; nop; cli");
    }
    lapic_write(EOI, 0);
    depth--;
}

static void window(void)
{
    asm volatile("sti; nop; nop; cli" : : : "memory");
}

static void clear(void)
{
    count = 0;
    deepest = 0;
    for (int n = 0; n < 64; n++)
        order[n] = 0;
}

static void priorities(void)
{
    static const u8 sent[] = {0x31, 0x52, 0x93, 0xa4, 0xf1, 0x91, 0x92, 0x20, 0x52, 0xfe};
    static const u8 expected[] = {0xfe, 0xf1, 0xa4, 0x93, 0x92, 0x91, 0x52, 0x31, 0x20};
    bool right = true;

    clear();
    for (u32 n = 0; n < sizeof(sent); n++)
        lapic_write(ICR, SELF | sent[n]);
    for (u32 n = 0; n < sizeof(sent); n++)
        right &= bit(IRR, sent[n]);
    check(right, "requests wait in the IRR");
    asm volatile("sti; .rept 20; nop; .endr; cli");
    for (u32 n = 0; n < sizeof(expected); n++)
        right &= order[n] == expected[n];
    check(right && count == sizeof(expected), "vectors come by priority: %d, %x %x %x", count, order[0], order[1],
          order[2]);
    check(ppr[0] == 0xf0 && ppr[2] == 0xa0 && ppr[8] == 0x20, "PPR is the class in service: %x", ppr[0]);
    clear();
    nest = true;
    lapic_write(ICR, SELF | 0x51);
    window();
    nest = false;
    check(count == 4 && order[0] == 0x51 && order[1] == 0x61 && order[2] == 0x52 && order[3] == 0x41,
          "a higher class nests, the same class waits: %x %x %x %x", order[0], order[1], order[2], order[3]);
}

static void task_priority(void)
{
    u64 cr8;

    clear();
    lapic_write(TPR, 0x50);
    asm volatile("mov %%cr8, %0" : "=r"(cr8));
    check(cr8 == 5 && lapic_read(PPR) == 0x50, "TPR shows in CR8 and PPR");
    lapic_write(ICR, SELF | 0x5f);
    lapic_write(ICR, SELF | 0x60);
    window();
    check(count == 1 && order[0] == 0x60, "the class of the TPR is held, the next is not");
    asm volatile("mov %0, %%cr8" : : "r"(4ul));
    window();
    check(count == 2 && order[1] == 0x5f && lapic_read(TPR) == 0x40, "CR8 lets it in");
    lapic_write(TPR, 0x4f);
    lapic_write(ICR, SELF | 0x4f);
    window();
    check(count == 2, "the subclass does not count");
    lapic_write(TPR, 0);
    window();
    check(count == 3, "it comes when the TPR falls");
}

static void write_cr8_16(void *arg) { asm volatile("mov %0, %%cr8" : : "r"(16ul)); }

static void in_service(void)
{
    clear();
    check(catch_fault(write_cr8_16, 0) == 13, "CR8 beyond 15: #GP");
    lapic_write(EOI, 0);
    check(!bit(ISR, 0x77), "EOI with nothing in service does nothing");
    lapic_write(ICR, SELF | 0x77);
    lapic_write(ICR, SELF | 0x77);
    window();
    window();
    check(count == 1, "two requests of one vector before it is taken are one");
    check(!bit(IRR, 0x77) && !bit(ISR, 0x77) && !bit(TMR, 0x77), "IRR, ISR, TMR clear after it");
}

static void errors(void)
{
    clear();
    lapic_write(ESR, 0);
    lapic_write(LVT_ERROR, 0x88);
    lapic_write(ICR, SELF | 0x05);
    window();
    lapic_write(ESR, 0);
    check((lapic_read(ESR) & 0x20) && count == 1 && order[0] == 0x88,
          "sending vector 5: ESR %x and the error interrupt", lapic_read(ESR));
    lapic_write(ESR, 0);
    check(lapic_read(ESR) == 0, "ESR is clear after the next write");
    (void)lapic_read(0x40);
    lapic_write(ESR, 0);
    check(lapic_read(ESR) & 0x80, "reading a reserved register: ESR %x", lapic_read(ESR));
    window();
    lapic_write(ESR, 0);
    lapic_write(LVT_ERROR, 0x10000);
}

static void disabled(void)
{
    lapic_write(LVT_ERROR, 0x88);
    lapic_write(SVR, 0x0ff);
    check(lapic_read(LVT_ERROR) & 0x10000, "software disable masks the LVT");
    lapic_write(LVT_ERROR, 0x88);
    check(lapic_read(LVT_ERROR) & 0x10000, "and keeps it masked");
    lapic_write(SVR, 0x1ff);
    check(lapic_read(LVT_ERROR) & 0x10000, "until it is written again");
    lapic_write(LVT_ERROR, 0x10000);
    check((lapic_read(VERSION) & 0xff) >= 0x10 && (lapic_read(VERSION) >> 16 & 0xff) >= 4, "version %x",
          lapic_read(VERSION));
}

static bool wait_for_count(int wanted)
{
    for (u64 end = rdtsc() + 10000000000; count < wanted && rdtsc() < end;) /* ten seconds: the host may be busy */
        asm volatile("sti; nop; cli");
    return count >= wanted;
}

static void timer(void)
{
    u32 now, later;

    clear();
    lapic_write(DIVIDE, 3);
    lapic_write(LVT_TIMER, 0x10000 | 0x99);
    lapic_write(INITIAL, 0xffffffff);
    now = lapic_read(CURRENT);
    later = lapic_read(CURRENT);
    check(now && later <= now, "the timer counts down: %x %x", now, later);
    lapic_write(INITIAL, 0);
    check(lapic_read(CURRENT) == 0, "an initial count of 0 stops it");
    lapic_write(INITIAL, 100);
    while (lapic_read(CURRENT))
        ;
    window();
    check(count == 0, "masked: no interrupt");
    lapic_write(LVT_TIMER, 0x99);
    window();
    check(count == 0, "unmasking after it ran out brings none");
    lapic_write(INITIAL, 1000);
    check(wait_for_count(1) && lapic_read(CURRENT) == 0, "one-shot");
    asm volatile("sti; .rept 50; nop; .endr; cli");
    check(count == 1, "once");
    lapic_write(LVT_TIMER, 0x20099);
    lapic_write(INITIAL, 20000);
    check(wait_for_count(6), "periodic: %d", count);
    lapic_write(INITIAL, 0);
    window();
    count = 0;
    for (int n = 0; n < 1000; n++)
        window();
    check(count == 0, "stopped");
    lapic_write(LVT_TIMER, 0x10000);
}

static void deadline(void)
{
    if (!feature(1, 0, 2, 24))
        return;
    clear();
    lapic_write(LVT_TIMER, 0x40000 | 0x9a);
    wrmsr(MSR_DEADLINE, rdtsc() + 1000000000000);
    check(rdmsr(MSR_DEADLINE) != 0, "TSC deadline armed");
    lapic_write(INITIAL, 5000);
    check(lapic_read(CURRENT) == 0, "the initial count is ignored in this mode");
    wrmsr(MSR_DEADLINE, 0);
    window();
    check(count == 0 && rdmsr(MSR_DEADLINE) == 0, "disarmed by 0");
    wrmsr(MSR_DEADLINE, rdtsc() + 200000);
    check(wait_for_count(1) && rdmsr(MSR_DEADLINE) == 0, "fires, and reads 0 then");
    wrmsr(MSR_DEADLINE, 1);
    check(wait_for_count(2), "a deadline in the past fires at once");
    lapic_write(LVT_TIMER, 0x99);
    wrmsr(MSR_DEADLINE, rdtsc() + 1000);
    check(rdmsr(MSR_DEADLINE) == 0, "outside the mode it reads 0");
    lapic_write(LVT_TIMER, 0x10000);
    window();
}

static volatile int nmis, nmi_depth, nmi_deepest;
static void on_nmi(struct frame *f)
{
    if (++nmi_depth > nmi_deepest)
        nmi_deepest = nmi_depth;
    nmis++;
    if (nmis == 1) {
        lapic_write(ICR, 0x4400);
        lapic_write(ICR, 0x4400); /* one is remembered, the next is lost */
        for (int n = 0; n < 10; n++)
            asm volatile("nop");
    }
    nmi_depth--;
}

static void on_nmi_iret(struct frame *f)
{
    nmis++;
    if (nmis > 1)
        return;
    lapic_write(ICR, 0x4400);
    /* any IRET opens, even one that stays in the handler */
    asm volatile(
        "mov %%rsp, %%rax\n\tpush $0x10\n\tpush %%rax\n\tpushf\n\tpush $8\n"
        "\tlea 1f(%%rip), %%rax\n\tpush %%rax\n\tiretq\n1:"
        :
        :
        : "rax", "memory");
    nmi_deepest = nmis;
}

static void nmi(void)
{
    on_interrupt(2, on_nmi);
    lapic_write(ICR_HIGH, 0);
    lapic_write(ICR, 0x4400);
    for (int n = 0; n < 100; n++)
        asm volatile("nop");
    check(nmis == 2 && nmi_deepest == 1, "NMIs wait for IRET, one is remembered: %d, depth %d", nmis, nmi_deepest);
    nmis = nmi_deepest = 0;
    on_interrupt(2, on_nmi_iret);
    lapic_write(ICR, 0x4400);
    for (int n = 0; n < 100; n++)
        asm volatile("nop");
    check(nmis == 2 && nmi_deepest == 2, "an IRET in the handler lets the next in: %d", nmi_deepest);
}

static void on_nmi_count(struct frame *f) { nmis++; }

static void halting(void)
{
    clear();
    nmis = 0;
    on_interrupt(2, on_nmi_count);
    lapic_write(LVT_TIMER, 0x9b);
    lapic_write(INITIAL, 100000);
    asm volatile("sti; hlt; cli");
    check(count == 1, "HLT waits for the timer");
    lapic_write(LVT_TIMER, 0x400); /* timer entries have no delivery mode: vector 0 is an error */
    lapic_write(LVT_TIMER, 0x10000);
    lapic_write(ICR, SELF | 0x9c);
    asm volatile("sti; hlt; cli");
    check(count == 2, "a request that waits ends HLT at once");
    for (int n = 0; n < 1000; n++) {
        lapic_write(LVT_TIMER, 0x9b);
        lapic_write(INITIAL, (u32)n * 7);
        if (n)
            asm volatile("sti; hlt; cli");
    }
    check(count == 1001, "a thousand short sleeps: %d", count);
    lapic_write(LVT_TIMER, 0x10000);
}

static void rd(void *msr) { rdmsr((u32)(u64)msr); }
static void wr_all(void *msr) { wrmsr((u32)(u64)msr, ~0ul); }
static void wr_base(void *val) { wrmsr(MSR_APIC_BASE, (u64)val); }

static void x2apic(void)
{
    u64 base = rdmsr(MSR_APIC_BASE);

    if (!feature(1, 0, 2, 21))
        return;
    check(catch_fault(rd, (void *)(X2 + 2)) == 13, "x2APIC MSRs in xAPIC mode: #GP");
    check(catch_fault(wr_base, (void *)((base | 0x400) & ~0x800ul)) == 13, "x2APIC bit without enable: #GP");
    check(catch_fault(wr_base, (void *)(base | 1ul << 60)) == 13, "base with a reserved bit: #GP");
    wrmsr(MSR_APIC_BASE, base | 0x400);
    clear();
    check(rdmsr(X2 + 2) == 0 && rdmsr(X2 + 0xd) == 1, "x2APIC: id %lx, logical id %lx", rdmsr(X2 + 2), rdmsr(X2 + 0xd));
    check(rdmsr(X2 + 0xf) == 0x1ff, "the SVR is kept: %lx", rdmsr(X2 + 0xf));
    wrmsr(X2 + 0x3f, 0x66);
    window();
    check(count == 1 && order[0] == 0x66, "SELF IPI register");
    wrmsr(X2 + 0x30, SELF | 0x67);
    window();
    check(count == 1, "without an EOI by MSR the next of the class waits");
    wrmsr(X2 + 0xb, 0);
    window();
    check(count == 2 && order[1] == 0x67, "and comes with it");
    wrmsr(X2 + 0xb, 0);
    wrmsr(X2 + 0x30, 1ul << 32 | 0x800 | 0x68); /* logical: cluster 0, member 0 */
    window();
    check(count == 3, "logical destination");
    wrmsr(X2 + 0xb, 0);
    check(catch_fault(wr_all, (void *)(X2 + 2)) == 13, "write of the id: #GP");
    check(catch_fault(wr_all, (void *)(X2 + 8)) == 13, "write of reserved TPR bits: #GP");
    check(catch_fault(wr_all, (void *)(X2 + 0xb)) == 13, "EOI of anything but 0: #GP");
    check(catch_fault(rd, (void *)(X2 + 0xb)) == 13, "read of EOI: #GP");
    check(catch_fault(rd, (void *)(X2 + 0x31)) == 13, "there is no ICR high: #GP");
    check(catch_fault(rd, (void *)(X2 + 0xe)) == 13, "nor a DFR: #GP");
    check(catch_fault(rd, (void *)(X2 + 0x3f)) == 13, "SELF IPI is write-only: #GP");
    check(catch_fault(wr_base, (void *)base) == 13, "x2APIC to xAPIC: #GP");
    wrmsr(MSR_APIC_BASE, base & ~0xc00ul);
    check(!feature(1, 0, 3, 9), "CPUID hides a disabled APIC");
    wrmsr(MSR_APIC_BASE, base);
    check(feature(1, 0, 3, 9) && lapic_read(SVR) == 0xff && lapic_read(TPR) == 0,
          "off and on: as after reset, SVR %x", lapic_read(SVR));
    lapic_write(SVR, 0x1ff);
}

static void moved(void)
{
    u64 base = rdmsr(MSR_APIC_BASE);
    volatile u32 *there = (volatile u32 *)(0xfee10000ul + VERSION);

    wrmsr(MSR_APIC_BASE, (base & 0xfff) | 0xfee10000);
    check(*there == (0x14 | (*there & ~0xffu)) && (*there & 0xff) >= 0x10, "the APIC page moves: version %x", *there);
    wrmsr(MSR_APIC_BASE, base);
    check((lapic_read(VERSION) & 0xf0) == 0x10, "and comes back");
}

/* x2APIC keeps interrupts by MSR: EOIs of the handler would go nowhere. */
static void on_any_x2(struct frame *f)
{
    if (rdmsr(MSR_APIC_BASE) & 0x400) {
        if (count < 64)
            order[count] = (u8)f->vector;
        count++;
    } else {
        on_any(f);
    }
}

void guest_main(void)
{
    for (int v = 0x20; v < 0xff; v++)
        on_interrupt(v, on_any_x2);
    lapic_write(SVR, 0x1ff);
    lapic_write(LVT_LINT0, 0x10000);
    priorities();
    task_priority();
    in_service();
    errors();
    disabled();
    timer();
    deadline();
    nmi();
    halting();
    x2apic();
    moved();
}
