/* An exception while another is being delivered: which pairs make a double fault, and what is reported for those that
 * do not: vector, error code with EXT, return address, CR2. All ways in which delivery fails: gates absent, of a wrong
 * type, beyond the limit, in an absent page, with a bad target; stacks absent or not canonical. SDM vol. 3 §6.13,
 * §6.15 (interrupt 8), tables 6-4 and 6-5. */
#include "guest.h"

CODE(64, ud, "ud2");
CODE(64, de, "xor %ecx, %ecx; div %ecx");
CODE(64, nm, "fld1");
CODE(64, np, "mov $0x60, %eax; mov %eax, %es");
CODE(64, ss, "mov (%rbp), %al");
CODE(64, gp, "mov (%rbx), %al");
CODE(64, pf, "mov (%rsi), %al");
CODE(64, bp, "int3");
CODE(64, db, ".byte 0xf1");
CODE(64, software, "int $0x90");
CODE(64, mf, "fldz; fld1; fdivp; fwait");

enum kind { BENIGN, CONTRIBUTORY, PAGE };
static const struct first {
    const char *name;
    const u8 *code;
    int vector, rip; /* where the first is reported, from the code's start */
    enum kind kind;
    bool external; /* EXT in the error codes of what follows */
} firsts[] = {
    {"#DE", de, 0, 2, CONTRIBUTORY, true},  {"#DB by INT1", db, 1, 0, BENIGN, true},
    {"#BP", bp, 3, 0, BENIGN, false},       {"#UD", ud, 6, 0, BENIGN, true},
    {"#NM", nm, 7, 0, BENIGN, true},        {"#NP", np, 11, 5, CONTRIBUTORY, true},
    {"#SS", ss, 12, 0, CONTRIBUTORY, true}, {"#GP", gp, 13, 0, CONTRIBUTORY, true},
    {"#PF", pf, 14, 0, PAGE, true},         {"INT 90", software, 0x90, 0, BENIGN, false},
    {"#MF", mf, 16, 6, BENIGN, true},
};
#define BAD_ADDRESS 0x800000000000ul
#define ABSENT 0x123456789000ul

enum failure {
    NOT_PRESENT,
    WRONG_TYPE,
    NULL_TARGET,
    DATA_TARGET,
    BAD_STACK,
    ABSENT_STACK,
    ABSENT_GATE,
    BEYOND_LIMIT,
    FAILURES
};
static const char *const failure_names[] = {"gate not present",       "gate of a wrong type", "gate to no segment",
                                            "gate to data",           "stack not canonical",  "stack absent",
                                            "gate in an absent page", "gate beyond the limit"};

/* The library's table is used but for the last two failures, which need one of their own. */
static struct {
    u64 low, high;
} *idt;
static struct {
    u16 limit;
    u64 base;
} __attribute__((packed)) library_idtr, idtr;
static u8 *table; /* two pages, the first of which is absent at times; vectors 0 to 31 straddle them */
#define TABLE 0x60000000000ul

static void gate_ist(int v, int ist)
{
    idt[v].low = (idt[v].low & ~(7ul << 32)) | (u64)ist << 32;
}

static void gates_restore(void)
{
    for (int v = 0; v < 256; v++)
        idt_set(v, (void *)vector_table[v], v == 3 ? 0xee : 0x8e, 0);
    for (int v = 8; v < 15; v++)
        gate_ist(v, 1); /* a good stack wherever the first one failed */
    asm volatile("lidt %0" : : "m"(library_idtr));
}

/* Breaks the delivery of `vector`; returns the second exception's vector, its error code in *error, CR2 in *cr2. */
static int fail(enum failure how, int vector, u64 *error, u64 *cr2)
{
    *error = (u64)vector * 8 + 2;
    switch (how) {
    case NOT_PRESENT: idt[vector].low &= ~(1ul << 47); return 11;
    case WRONG_TYPE: idt[vector].low ^= 0x8ul << 40; return 13;
    case NULL_TARGET:
        idt[vector].low &= ~0xffff0000ul;
        *error = 0;
        return 13;
    case DATA_TARGET:
        idt[vector].low = (idt[vector].low & ~0xffff0000ul) | 0x10 << 16;
        *error = 0x10;
        return 13;
    case BAD_STACK:
        gate_ist(vector, 2);
        tss.ist[1] = BAD_ADDRESS + 0x100;
        *error = 0;
        return 12;
    case ABSENT_STACK:
        gate_ist(vector, 2);
        tss.ist[1] = ABSENT + 0x800;
        *error = 2;
        return 14;
    case ABSENT_GATE: /* gates 8 and 11 to 14 must stay reachable: only lower ones can be absent, see below */
        *error = 0;
        return 14;
    default: return 13;
    }
}

static bool within(u64 val, u64 from, u64 size) { return val >= from && val - from < size; }

static void pair(const struct first *f, enum failure how)
{
    u64 error, cr2 = 0, rip = (u64)f->code + (u64)f->rip;
    int second, got;
    struct frame start = frame_at(f->code, 0);
    bool page_second, both;

    second = fail(how, f->vector, &error, &cr2);
    page_second = second == 14;
    if (!page_second && !(error == 0 && how == BAD_STACK))
        error |= f->external;
    else if (how == BAD_STACK)
        error = f->external;
    both = (f->kind == CONTRIBUTORY && !page_second) || f->kind == PAGE;
    start.rbx = start.rbp = BAD_ADDRESS;
    start.rsi = 0x23456789000;
    asm volatile("fninit");
    if (f->vector == 7)
        write_cr0(read_cr0() | 8);
    if (f->vector == 16)
        asm volatile("fldcw %0" : : "m"((u16){0x37b}));
    got = enter(&start);
    asm volatile("clts; fnclex");
    gates_restore();
    if (both)
        check(got == 8 && caught.error == 0, "%s, %s: double fault: vector %d error %lx", f->name, failure_names[how],
              got, caught.error);
    else
        check(got == second && caught.error == error && caught.rip == rip &&
                  (how != ABSENT_STACK || within(caught_cr2, ABSENT, 4096)),
              "%s, %s: vector %d error %lx at +%lx (expected %d, %lx, +%d)", f->name, failure_names[how], got,
              caught.error, caught.rip - (u64)f->code, second, error, f->rip);
}

/* An IDT whose first 128 bytes (vectors 0 to 7) lie in an absent page; and one that ends before vector 90. */
static void tables(void)
{
    u64 *pte = pte_of(TABLE);
    struct frame start = frame_at(ud, 0);

    table = page_alloc();
    *pte_of(TABLE + 4096) = (u64)table | PTE_P | PTE_W;
    *pte = 0;
    invlpg(TABLE);
    invlpg(TABLE + 4096);
    for (int n = 0; n < 256 - 8; n++)
        ((u64 *)table)[n * 2] = idt[n + 8].low, ((u64 *)table)[n * 2 + 1] = idt[n + 8].high;
    idtr.limit = 4095;
    idtr.base = TABLE + 4096 - 8 * 16;
    asm volatile("lidt %0" : : "m"(idtr));
    check(enter(&start) == 14 && caught.error == 0 && caught_cr2 == idtr.base + 6 * 16 && caught.rip == (u64)ud,
          "#UD, gate in an absent page: vector %lu error %lx CR2 %lx", caught.vector, caught.error, caught_cr2);
    start = frame_at(de, 0);
    check(enter(&start) == 14 && caught.error == 0 && caught_cr2 == idtr.base,
          "#DE then #PF is no double fault: vector %lu", caught.vector);
    idtr.limit = 0x90 * 16 - 1;
    asm volatile("lidt %0" : : "m"(idtr));
    start = frame_at(software, 0);
    check(enter(&start) == 13 && caught.error == 0x90 * 8 + 2, "INT 90 beyond the limit: vector %lu error %lx",
          caught.vector, caught.error);
    idtr.limit = 0x90 * 16 + 14;
    asm volatile("lidt %0" : : "m"(idtr));
    check(enter(&start) == 13 && caught.error == 0x90 * 8 + 2, "by one byte: vector %lu error %lx", caught.vector,
          caught.error);
    asm volatile("lidt %0" : : "m"(library_idtr));
}

/* Rights are checked for INT n and INT3, not for exceptions nor INT1; an absent gate of too low a DPL is #GP first. */
static void privileges(void)
{
    struct frame f = frame_at(software, 3);

    user_text_allow(true);
    check(enter(&f) == 13 && caught.error == 0x90 * 8 + 2 && caught.rip == (u64)software,
          "INT 90 in ring 3 through DPL 0");
    idt[0x90].low &= ~(1ul << 47);
    check(enter(&f) == 13 && caught.error == 0x90 * 8 + 2, "and absent: still #GP");
    idt[0x90].low |= 3ul << 45;
    check(enter(&f) == 11 && caught.error == 0x90 * 8 + 2, "DPL 3 and absent: #NP");
    f = frame_at(db, 3);
    check(enter(&f) == 1 && caught.rip == (u64)db + 1 && (caught.cs & 3) == 3, "INT1 in ring 3 through DPL 0");
    f = frame_at(bp, 3);
    idt[3].low &= ~(3ul << 45);
    check(enter(&f) == 13 && caught.error == 3 * 8 + 2 && caught.rip == (u64)bp, "INT3 in ring 3 through DPL 0");
    gates_restore();
}

/* Interrupts are benign: what fails is reported with EXT, and the interrupted program's address. */
CODE(64, wait_interrupt, "sti; nop; nop; nop; nop; cli; int3");
static void nmi_to_self(void *arg)
{
    lapic_write(0x310, 0);
    lapic_write(0x300, 0x4400);
    for (int n = 0; n < 100; n++)
        asm volatile("nop");
}

static void interrupts(void)
{
    struct frame f = frame_at(wait_interrupt, 0);

    lapic_write(0xf0, 0x1ff);
    idt[0x91].low &= ~(1ul << 47);
    lapic_write(0x300, 0x40091);
    while (!(lapic_read(0x240) >> 17 & 1))
        ;
    check(enter(&f) == 11 && caught.error == 0x91 * 8 + 3 && caught.rip == (u64)wait_interrupt + 2,
          "interrupt, gate not present: vector %lu error %lx", caught.vector, caught.error);
    lapic_write(0xb0, 0);
    gates_restore();
    idt[2].low &= ~(1ul << 47);
    check(catch_fault(nmi_to_self, 0) == 11 && caught.error == 2 * 8 + 3, "NMI, gate not present: vector %lu error %lx",
          caught.vector, caught.error);
    gates_restore();
}

void guest_main(void)
{
    asm volatile("sidt %0" : "=m"(library_idtr));
    idt = (void *)library_idtr.base;
    tss.ist[0] = (u64)page_alloc() + 4096;
    gdt[12] = 0x00cf13000000ffff; /* 60: data, not present */
    gates_restore();
    for (u32 n = 0; n < sizeof(firsts) / sizeof(firsts[0]); n++)
        for (int how = 0; how < ABSENT_GATE; how++)
            pair(&firsts[n], (enum failure)how);
    tables();
    privileges();
    interrupts();
}
