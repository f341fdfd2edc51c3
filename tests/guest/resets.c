/* Every way to reset the board, one after the other: port CF9, the keyboard controller's pulse, port 92, the triple
 * fault. A battery keeps the count in CMOS RAM; each time the processor and the chips must be as after RESET, but for
 * RAM and the CMOS. SDM vol. 3 §9.1.1, table 9-1; data sheets of the PIIX3 and PIIX4. */
#include "chips.h"

#define STAGE 0x3e /* CMOS bytes that nothing else uses */
#define FAILED 0x3f
#define MAGIC 0x50

static u8 get(u8 reg) { outb(0x70, reg); return inb(0x71); }
static void set(u8 reg, u8 v) { outb(0x70, reg); outb(0x71, v); }

static u64 dr7_get(void) { u64 v; asm volatile("mov %%dr7, %0" : "=r"(v)); return v; }
static u64 dr0_get(void) { u64 v; asm volatile("mov %%dr0, %0" : "=r"(v)); return v; }

/* What a system leaves behind. */
static void make_a_mess(void)
{
    asm volatile("mov %0, %%dr0; mov %1, %%dr7" : : "r"(0x1234ul), "r"(0x401ul));
    wrmsr(0xc0000082, 0x1000);
    wrmsr(0xc0000102, 0x2000);
    wrmsr(0x174, 0x50);
    if (feature(1, 0, 2, 24))
        lapic_write(0x320, 0x40000 | 0x55);
    lapic_write(0xf0, 0x1aa);
    lapic_write(0x80, 0x33);
    lapic_write(0xd0, 0x7f000000);
    route(5, 0x66, 0);
    *(volatile u64 *)(HPET + 0x10) = 1;
    *(volatile u64 *)(HPET + 0x100) = 4;
    outw((u16)(pm_base() + 2), 0x20);
    outb(0x43, 0x34);
    outb(0x40, 0);
    outb(0x40, 1);
    set(0xb, get(0xb) | 0x40);
    asm volatile("fninit; fld1; fldpi");
}

static bool all_right;
static void expect(bool ok, const char *what, u64 v)
{
    if (!ok)
        print("     %s: %lx\n", what, v);
    all_right &= ok;
}

static void as_after_reset(void)
{
    u16 fsw;

    all_right = true;
    expect((dr7_get() & ~0ul) == 0x400 && dr0_get() == 0, "debug registers", dr7_get());
    expect(rdmsr(0xc0000082) == 0 && rdmsr(0xc0000102) == 0 && rdmsr(0x174) == 0, "MSRs", rdmsr(0xc0000082));
    expect((rdmsr(0x1b) & ~0x100ul) == 0xfee00800, "APIC base", rdmsr(0x1b));
    expect(lapic_read(0x80) == 0 && lapic_read(0xd0) == 0 && (lapic_read(0x320) & 0x10000), "local APIC",
           lapic_read(0x80));
    expect(ioapic_read(0x10 + 10) == 0x10000, "I/O APIC", ioapic_read(0x1a));
    expect(!(*(volatile u64 *)(HPET + 0x10) & 1) && !(*(volatile u64 *)(HPET + 0x100) & 4), "HPET",
           *(volatile u64 *)(HPET + 0x10));
    expect(inw((u16)(pm_base() + 2)) == 0, "ACPI enables", inw((u16)(pm_base() + 2)));
    expect(!(get(0xb) & 0x70), "RTC interrupt enables", get(0xb));
    asm volatile("fnstsw %0" : "=a"(fsw));
    expect(fsw == 0, "x87", fsw);
}

static void triple(void)
{
    static const struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) none = {0, 0};

    asm volatile("lidt %0; ud2" : : "m"(none));
}

static void reset_by(int stage)
{
    switch (stage) {
    case 0: outb(0xcf9, 2); outb(0xcf9, 6); break;
    case 1: outb(0x64, 0xfe); break;
    case 2: outb(0x92, 1); break;
    default: triple(); break;
    }
    for (u32 start = pm_timer(); pm_since(start) < PM_MS(2000);)
        ;
}

void guest_main(void)
{
    static const char *const names[] = {"port CF9", "the keyboard controller", "port 92", "a triple fault"};
    u8 stage = get(STAGE);

    if ((stage & 0xf0) != MAGIC) {
        stage = MAGIC;
        set(FAILED, 0);
    } else {
        as_after_reset();
        check(all_right, "after a reset by %s all is as after RESET", names[(stage - 1) & 3]);
        if (!all_right)
            set(FAILED, 1);
    }
    if (stage == MAGIC + 4) {
        set(STAGE, 0);
        check(!get(FAILED), "all four resets");
        return;
    }
    make_a_mess();
    set(STAGE, (u8)(stage + 1));
    reset_by(stage & 15);
    set(STAGE, 0);
    check(false, "%s does not reset", names[stage & 3]);
}
