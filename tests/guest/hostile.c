/* Nonsense: every port and device register written with everything in all sizes, PCI configuration space included,
 * and random instructions in ring 3 and ring 0. No answer is right or wrong: the machine must survive, and this
 * program with it. The numbers are the same in each run.
 *
 * Left alone are the ways to end the VM (debug-exit, reset, power management, keyboard controller commands, fast
 * reset), the console's data port, and what would let a device reset this processor: INIT messages. */
#include "guest.h"

#define LAPIC 0xfee00000ul
#define IOAPIC 0xfec00000ul
#define HPET 0xfed00000ul
#define SCRATCH 0x40000000000ul
#define ROUNDS_RING3 4000
#define ROUNDS_RING0 20000

static u64 seed = 0x9e3779b97f4a7c15;

static u64 random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* Mostly small, all ones, or single bits: what registers and lengths react to. */
static u64 odd_number(void)
{
    switch (random() & 7) {
    case 0: return 0;
    case 1: return ~0ul;
    case 2: return 1ul << (random() & 63);
    case 3: return random() & 0xff;
    default: return random();
    }
}

static bool spared(u32 port, u32 size)
{
    static const struct {
        u16 from, to;
    } list[] = {{0x64, 0x64},   {0x92, 0x92},   {0xb2, 0xb3},   {0xf4, 0xf7},
                {0x3f8, 0x3f8}, {0x501, 0x501}, {0x600, 0x63f}, {0xcf8, 0xcff}};

    for (u32 n = 0; n < sizeof(list) / sizeof(list[0]); n++)
        if (port <= list[n].to && port + size > list[n].from)
            return true;
    return port + size > 0x10000;
}

static void port_touch(u32 port, u32 size)
{
    u64 val = odd_number();

    switch (size) {
    case 1: outb((u16)port, (u8)val); inb((u16)port); break;
    case 2: outw((u16)port, (u16)val); inw((u16)port); break;
    default: outl((u16)port, (u32)val); inl((u16)port); break;
    }
}

/* The console's line and modem registers end up as anything. */
static void console_restore(void)
{
    outb(0x3fb, 3);
    outb(0x3f9, 0);
    outb(0x3fa, 0);
    outb(0x3fc, 3);
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
}

static void ports(void)
{
    for (u32 size = 1; size <= 4; size *= 2)
        for (u32 port = 0; port < 0x10000; port++)
            if (!spared(port, size))
                port_touch(port, size);
    for (int n = 0; n < 100000; n++) { /* the low ones, where chips are, again and again */
        u32 port = random() & 0x7ff, size = 1u << (random() % 3);

        if (!spared(port, size))
            port_touch(port, size);
    }
    console_restore();
    check(true, "every port, in all sizes");
}

static void memory_touch(u64 at, int size, u64 val)
{
    switch (size) {
    case 1: *(volatile u8 *)at = (u8)val; (void)*(volatile u8 *)at; break;
    case 2: *(volatile u16 *)at = (u16)val; (void)*(volatile u16 *)at; break;
    case 4: *(volatile u32 *)at = (u32)val; (void)*(volatile u32 *)at; break;
    default: *(volatile u64 *)at = val; (void)*(volatile u64 *)at; break;
    }
}

static void region(const char *name, u64 base, u64 bytes, int rounds)
{
    for (int n = 0; n < rounds; n++) {
        int size = 1 << (random() & 3);
        u64 at = base + random() % bytes;

        if (random() & 7)
            at &= ~(u64)(size - 1);
        if (at + 8 <= base + bytes)
            memory_touch(at, size, odd_number());
    }
    check(true, "%s at %lx", name, base);
}

/* Interrupt commands and vectors of the local APIC keep fixed delivery: INIT would end this program. */
static void lapic(void)
{
    u64 base = rdmsr(0x1b);

    for (int n = 0; n < 20000; n++) {
        u32 reg = (u32)random() & 0xff8, val = (u32)odd_number();
        int size = 1 << (random() & 3);

        if ((reg >= 0x2f8 && reg < 0x308) || (reg >= 0x318 && reg < 0x378)) {
            val &= ~0x700u;
            size = 4;
        }
        memory_touch(LAPIC + reg, size, val);
    }
    wrmsr(0x1b, base & ~0x800ul);
    wrmsr(0x1b, base);
    check(lapic_read(0xf0) == 0xff, "local APIC, and as after reset when switched off and on");
}

static void ioapic(void)
{
    for (int n = 0; n < 20000; n++) {
        u32 val = (u32)odd_number();

        *(volatile u32 *)IOAPIC = (u32)odd_number();
        if (random() & 3)
            *(volatile u32 *)(IOAPIC + 16) = val & ~0x700u;
        (void)*(volatile u32 *)(IOAPIC + 16);
        (void)*(volatile u64 *)(IOAPIC + (random() & 0xff8));
        *(volatile u32 *)(IOAPIC + 0x40) = val;
        *(volatile u8 *)(IOAPIC + 0x41 + (random() & 0xff)) = (u8)val;
    }
    for (u32 reg = 0x10; reg < 0x40; reg++) {
        *(volatile u32 *)IOAPIC = reg;
        *(volatile u32 *)(IOAPIC + 16) = reg & 1 ? 0 : 0x10000;
    }
    check(true, "I/O APIC");
}

static u32 config_read(u32 dev, u32 fn, u32 reg)
{
    outl(0xcf8, 0x80000000u | dev << 11 | fn << 8 | (reg & 0xfc));
    return inl(0xcfc);
}

static void config_write(u32 dev, u32 fn, u32 reg, u32 val)
{
    outl(0xcf8, 0x80000000u | dev << 11 | fn << 8 | (reg & 0xfc));
    outl(0xcfc, val);
}

/* One function: its BARs' contents first, then its configuration space; decoding is off meanwhile, and put back. */
static void function_touch(u32 dev, u32 fn)
{
    u32 bars[6], command = config_read(dev, fn, 4);

    config_write(dev, fn, 4,
                 (command & 0xffff) | 3); /* memory and ports, no bus master: nothing reaches this program */
    for (int n = 0; n < 6; n++) {
        u32 bar = bars[n] = config_read(dev, fn, (u32)(0x10 + n * 4));

        if (!(bar & 1) && bar & ~15u && (bar & ~15u) >= 0xc0000000)
            region("BAR", bar & ~15u, 0x4000, 5000);
    }
    for (int n = 0; n < 2000; n++) {
        u32 reg = (u32)random() & 0xff;

        if ((reg & 0xfc) == 4)
            continue;
        outl(0xcf8, 0x80000000u | dev << 11 | fn << 8 | (reg & 0xfc));
        if (random() & 1)
            outb((u16)(0xcfc + (reg & 3)), (u8)odd_number());
        else if (random() & 1)
            outw((u16)(0xcfc + (reg & 2)), (u16)odd_number());
        else
            outl(0xcfc, (u32)odd_number());
    }
    for (int n = 0; n < 6; n++)
        config_write(dev, fn, (u32)(0x10 + n * 4), bars[n]);
    config_write(dev, fn, 4, command & 0xffff);
    check(true, "PCI function %u.%u", dev, fn);
}

static void pci(void)
{
    for (u32 dev = 0; dev < 32; dev++)
        for (u32 fn = 0; fn < 8; fn++)
            if (config_read(dev, fn, 0) != ~0u && (config_read(dev, fn, 0) != 0x71138086))
                function_touch(dev, fn);
    for (int n = 0; n < 20000; n++) { /* addresses of no device, and the address register itself */
        outl(0xcf8, (u32)odd_number() | 0x00ff0000);
        inl(0xcfc);
        inb((u16)(0xcfc + (random() & 3)));
    }
    check(true, "PCI configuration space of no device");
}

/* A stream biased towards what has many forms: two- and three-byte opcodes, VEX, EVEX, prefixes. */
static void garbage(u8 *to, int bytes)
{
    static const u8 starts[][3] = {{0x0f}, {0x66, 0x0f}, {0xf2, 0x0f}, {0xf3, 0x0f}, {0xc5},       {0xc4},
                                   {0x62}, {0x0f, 0x38}, {0x0f, 0x3a}, {0x48},       {0x4c, 0x0f}, {0xf0},
                                   {0x66}, {0x67},       {0x8f},       {0xd9}};
    int n = 0;

    while (n < bytes) {
        const u8 *s = starts[random() % 16];

        for (int i = 0; random() & 1 && i < 3 && s[i] && n < bytes; i++)
            to[n++] = s[i];
        for (int i = (int)(random() % 6) + 1; i && n < bytes; i--)
            to[n++] = (u8)random();
    }
}

static u64 operand(void)
{
    switch (random() & 3) {
    case 0: return SCRATCH + (random() & 0x1fff);
    case 1: return odd_number();
    default: return SCRATCH + 0xf00 + (random() & 0x1ff);
    }
}

static struct frame random_frame(const void *code, int ring)
{
    struct frame f = frame_at(code, ring);
    u64 *reg = &f.r15;

    for (int n = 0; n < 15; n++)
        reg[n] = operand();
    f.rsp = SCRATCH + 0x800;
    return f;
}

static u32 seen[256];
static u8 *code_page;

static void scratch_map(u64 flags)
{
    for (u64 n = 0; n < 2; n++) {
        *pte_of(SCRATCH + n * 4096) = (u64)page_alloc() | flags;
        invlpg(SCRATCH + n * 4096);
    }
}

static void count_seen(const char *name, int rounds)
{
    u32 kinds = 0;

    for (int v = 0; v < 256; v++)
        kinds += seen[v] != 0;
    check(kinds >= 4, "%s: %d rounds, %u kinds of exceptions; #UD %u #GP %u #PF %u #DB %u timer %u", name, rounds,
          kinds, seen[6], seen[13], seen[14], seen[1], seen[0x40]);
    for (int v = 0; v < 256; v++)
        seen[v] = 0;
}

/* Ring 3 runs freely until something ends it, at the latest the timer. */
static void ring3(void)
{
    lapic_write(0xf0, 0x1ff);
    lapic_write(0x3e0, 3);
    for (int n = 0; n < ROUNDS_RING3; n++) {
        struct frame f = random_frame((void *)(SCRATCH + 0x2000 + (random() & 0xff)), 3);
        int got;

        garbage(code_page, 4096);
        f.rflags = 0x202 | (random() & 0x40dd5 & ~(random() & 7 ? 0x100ul : 0));
        lapic_write(0x320, 0x40);
        lapic_write(0x380, 30000);
        got = enter(&f);
        seen[got & 0xff]++;
        lapic_write(0x320, 0x10000);
        asm volatile("sti; nop; nop; cli"); /* one that came late */
    }
    count_seen("random code in ring 3", ROUNDS_RING3);
}

static void on_late_timer(struct frame *f)
{
    seen[0x40]++;
    lapic_write(0xb0, 0);
    if ((f->cs & 3) == 3) { /* ends the test code as an exception would */
        f->rip = 0x800000000000 - 1;
        f->rflags &= ~0x200ul;
    }
}

/* What ring 0 may not do here: stop, reach ports, change the tables and control registers that this program stands
 * on. */
static bool dangerous(const u8 *p)
{
    while (*p == 0x66 || *p == 0x67 || *p == 0xf2 || *p == 0xf3 || *p == 0x2e || *p == 0x36 || *p == 0x3e ||
           *p == 0x26 || *p == 0x64 || *p == 0x65 || *p == 0xf0 || (*p & 0xf0) == 0x40)
        p++;
    if (*p == 0x0f)
        return p[1] <= 1 || (p[1] & 0xfc) == 0x20 || p[1] == 0x30 || p[1] == 0x07 || p[1] == 0x35;
    return *p == 0xf4 || *p == 0xcf || (*p & 0xfc) == 0x6c || (*p & 0xf4) == 0xe4;
}

/* Ring 0 runs one instruction at a time, on a stack that its exceptions do not use. */
static void ring0(void)
{
    u8 *stack = page_alloc();
    u64 *low = pd;

    tss.ist[0] = (u64)stack + 4096;
    for (int v = 0; v < 256; v++)
        idt_set(v, (void *)vector_table[v], v == 3 ? 0xee : 0x8e, 1);
    for (int n = 0; n < 2048; n++) /* all memory but the program's */
        if (n < 1 || n > 5)
            low[n] &= ~1ul;
    write_cr3(read_cr3());
    for (int n = 0; n < ROUNDS_RING0; n++) {
        struct frame f = random_frame((void *)(SCRATCH + 0x2000), 0);

        do
            garbage(code_page, 32);
        while (dangerous(code_page));
        f.rflags = 0x102 | (random() & 0x40cd5);
        seen[enter(&f) & 0xff]++;
    }
    for (int n = 0; n < 2048; n++)
        low[n] |= 1;
    write_cr3(read_cr3());
    count_seen("random instructions in ring 0", ROUNDS_RING0);
}

static void vectors_on(void)
{
    u32 r[4];

    if (!feature(1, 0, 2, 26))
        return;
    write_cr4(read_cr4() | 0x40000);
    cpuid(13, 0, r);
    asm volatile("xsetbv" : : "c"(0), "a"(r[0] & 0xe7), "d"(0));
}

void guest_main(void)
{
    vectors_on();
    ports();
    region("VGA window", 0xa0000, 0x20000, 20000);
    region("BIOS area", 0xc0000, 0x40000, 20000);
    region("hole below the I/O APIC", 0xf0000000, 0x1000000, 5000);
    region("HPET", HPET, 0x400, 20000);
    region("beyond the HPET", HPET + 0x400, 0x10000, 5000);
    lapic();
    ioapic();
    pci();
    console_restore();
    code_page = page_alloc();
    scratch_map(PTE_P | PTE_W | PTE_U);
    *pte_of(SCRATCH + 0x2000) = (u64)code_page | PTE_P | PTE_U;
    pml4[SCRATCH >> 39 & 511] |= PTE_U;
    write_cr3(read_cr3());
    on_interrupt(0x40, on_late_timer);
    ring3();
    ring0();
    check(true, "still here");
}
