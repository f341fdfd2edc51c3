/* Interrupt, trap and 16-bit gates in protected mode: what they do to the flags and the stack, rights and targets that
 * they refuse, inner stacks and everything that can be wrong with them, pairs with #TS that make double faults. The
 * inner ring is 1, so that ring 0's stack is left to report. SDM vol. 3 §6.11, §6.12, §6.13, §6.15; vol. 2 INT n. */
#include "guest32.h"

enum {
    RING1_CODE = 0x40, RING1_DATA = 0x48, CONFORMING = 0x50, ABSENT_CODE = 0x58, SHORT_CODE = 0x60, TEST_SS = 0x68,
    SMALL_STACK = 0x70,
};
enum { INT16 = 0x86, TRAP16 = 0x87, INT32 = 0x8e, TRAP32 = 0x8f, DPL3 = 0x60 };
enum { TF = 0x100, IF = 0x200, NT = 0x4000, RF = 0x10000 };

CODE(32, software, "int $0x90; int3");
CODE(32, undefined, "ud2");
CODE(32, protection, "mov $0xfff8, %eax; mov %eax, %es; int3");
CODE(
    32, at_32,
    "pushf; pop %eax; mov %cs, %ebx; mov %ss, %ecx; mov %esp, %edx; mov %ss:(%esp), %esi; mov %ss:4(%esp), %edi; int3");
CODE(16, at_16, "pushfl; popl %eax; mov %cs, %ebx; mov %ss, %ecx; mov %esp, %edx; mov %ss:(%esp), %esi; int3");
CODE(32, inner, "mov %ss:(%esp), %eax; mov %ss:4(%esp), %ebx; mov %ss:8(%esp), %ecx; mov %ss:12(%esp), %edx;"
                "mov %ss:16(%esp), %esi; mov %esp, %edi; mov %cs, %ebp; int3");
CODE(32, inner_error, "mov %ss:(%esp), %eax; mov %ss:4(%esp), %ebx; mov %ss:8(%esp), %ecx; mov %esp, %edi; int3");

static u8 stack1[4096] __attribute__((aligned(16)));

static void expect(const char *name, const struct frame *f, int vector, u32 error)
{
    int got = enter(f);

    check(got == vector && caught.error == error, "%s: vector %d error %x (expected %d, %x)", name, got, caught.error,
          vector, error);
}

static void gate_set(int v, u16 sel, const void *target, u8 access)
{
    idt[v] = gate(sel, (u32)target, access, 0);
}

static void setup(void)
{
    gdt_set(RING1_CODE, 0, 0xfffff, 0xbb, 12);
    gdt_set(RING1_DATA, 0, 0xfffff, 0xb3, 12);
    gdt_set(CONFORMING, 0, 0xfffff, 0x9f, 12);
    gdt_set(ABSENT_CODE, 0, 0xfffff, 0x1b, 12);
    gdt_set(SHORT_CODE, 0, 0xfff, 0x9b, 4);
    gdt_set(SMALL_STACK, (u32)stack1, 0xff, 0xb3, 4);
    tss.ss1 = RING1_DATA | 1;
    tss.esp1 = (u32)stack1 + sizeof(stack1) - 16;
}

static void flags(void)
{
    static const struct {
        const char *name;
        u8 type;
        bool clears_if;
    } types[] = {{"interrupt gate", INT32, true}, {"trap gate", TRAP32, false}, {"16-bit interrupt gate", INT16, true},
                 {"16-bit trap gate", TRAP16, false}};
    struct frame f = frame_at(software, 0);

    f.eflags = 0x24ed7 & ~(u32)(TF | 0x20000);
    for (u32 n = 0; n < 4; n++) {
        bool wide = n < 2;

        gate_set(0x90, wide ? CODE32 : CODE16, wide ? at_32 : at_16, types[n].type);
        if (!wide) /* 16 bits of offset: a code segment with its base there */
            gdt_set(SHORT_CODE, (u32)at_16, 0xfff, 0x9b, 0), gate_set(0x90, SHORT_CODE, 0, types[n].type);
        expect(types[n].name, &f, 3, 0);
        check(!!(caught.eax & IF) == !types[n].clears_if && !(caught.eax & (TF | NT | RF)), "flags %x", caught.eax);
        if (wide)
            check(caught.edx == f.esp - 12 && caught.esi == (u32)software + 2 && caught.edi == CODE32,
                  "frame of doublewords at %x", caught.edx);
        else
            check(caught.edx == f.esp - 6 && (caught.esi & 0xffff) == (((u32)software + 2) & 0xffff) &&
                      caught.esi >> 16 == CODE32,
                  "frame of words at %x", caught.edx);
    }
    gdt_set(SHORT_CODE, 0, 0xfff, 0x9b, 4);
    f = frame_at(software, 0);
    f.eflags |= TF;
    gate_set(0x90, CODE32, at_32, TRAP32);
    expect("TF does not get into the handler", &f, 3, 0);
    check(!(caught.eax & TF), "flags %x", caught.eax);
}

static void rights(void)
{
    struct frame user = frame_at(software, 3), kernel = frame_at(software, 0);

    gate_set(0x90, CODE32, at_32, INT32);
    expect("INT 90 in ring 3 through DPL 0", &user, 13, 0x90 * 8 + 2);
    gate_set(0x90, CODE32, at_32, INT32 & ~0x80);
    expect("and absent", &user, 13, 0x90 * 8 + 2);
    gate_set(0x90, CODE32, at_32, (INT32 | DPL3) & ~0x80);
    expect("DPL 3, absent", &user, 11, 0x90 * 8 + 2);
    gate_set(0x90, 0, at_32, INT32);
    expect("to no segment", &kernel, 13, 0);
    gate_set(0x90, 0xfff0, at_32, INT32);
    expect("beyond the GDT", &kernel, 13, 0xfff0);
    gate_set(0x90, 0x14, at_32, INT32);
    expect("in an LDT that is not there", &kernel, 13, 0x14);
    gate_set(0x90, DATA32, at_32, INT32);
    expect("to data", &kernel, 13, DATA32);
    gate_set(0x90, TSS_SEL, at_32, INT32);
    expect("to a system segment", &kernel, 13, TSS_SEL);
    gate_set(0x90, ABSENT_CODE, at_32, INT32);
    expect("to an absent segment", &kernel, 11, ABSENT_CODE);
    gate_set(0x90, USER_CODE, at_32, INT32);
    expect("outwards", &kernel, 13, USER_CODE & ~3);
    gate_set(0x90, RING1_CODE | 3, at_32, INT32 | DPL3);
    expect("the gate's RPL does not count", &user, 3, 0);
    gate_set(0x90, SHORT_CODE, (void *)0x1000, INT32);
    expect("beyond the segment's limit", &kernel, 13, 0);
    gate_set(0x90, CODE32, at_32, 0x8c);
    expect("a call gate in the IDT", &kernel, 13, 0x90 * 8 + 2);
    gate_set(0x90, CODE32, at_32, 0x82);
    expect("an LDT in the IDT", &kernel, 13, 0x90 * 8 + 2);
    gate_set(0x90, CODE32, at_32, 0x9e);
    expect("a code segment in the IDT", &kernel, 13, 0x90 * 8 + 2);
    gate_set(0x90, CONFORMING, at_32, INT32 | DPL3);
    expect("conforming code from ring 3", &user, 3, 0);
    check((caught.ebx & 0xffff) == (CONFORMING | 3) && (caught.ecx & 0xffff) == USER_DATA &&
              caught.edx == user.esp - 12,
          "stays in ring 3 on its stack: CS %x SS %x", caught.ebx, caught.ecx);
}

static void inner_stacks(void)
{
    struct frame f = frame_at(software, 3);
    u32 ss = tss.ss1, esp = tss.esp1;

    gate_set(0x90, RING1_CODE, inner, INT32 | DPL3);
    f.eflags |= IF | 1;
    expect("from ring 3 to ring 1", &f, 3, 0);
    check(caught.eax == (u32)software + 2 && (caught.ebx & 0xffff) == USER_CODE && caught.ecx == f.eflags &&
              caught.edx == f.esp && (caught.esi & 0xffff) == USER_DATA && caught.edi == esp - 20 &&
              (caught.ebp & 0xffff) == (RING1_CODE | 1),
          "frame %x %x %x %x %x at %x", caught.eax, caught.ebx, caught.ecx, caught.edx, caught.esi, caught.edi);
    gate_set(13, RING1_CODE, inner_error, INT32);
    f = frame_at(protection, 3);
    expect("an exception with its error code", &f, 3, 0);
    check(caught.eax == 0xfff8 && caught.ebx == (u32)protection + 5 && caught.edi == esp - 24, "error %x EIP %x",
          caught.eax, caught.ebx);
    gate_set(13, CODE32, (void *)vector_table[13], INT32);
    f = frame_at(software, 3);
    tss.ss1 = 0;
    expect("no stack segment", &f, 10, 0);
    tss.ss1 = RING1_DATA;
    expect("its RPL is not the ring", &f, 10, RING1_DATA);
    tss.ss1 = USER_DATA;
    expect("a stack of ring 3", &f, 10, USER_DATA & ~3);
    tss.ss1 = DATA32 | 1;
    expect("a stack of ring 0", &f, 10, DATA32);
    tss.ss1 = RING1_CODE | 1;
    expect("a code segment", &f, 10, RING1_CODE);
    tss.ss1 = 0xfff1;
    expect("beyond the GDT", &f, 10, 0xfff0);
    gdt_set(TEST_SS, 0, 0xfffff, 0xb1, 12);
    tss.ss1 = TEST_SS | 1;
    expect("read-only", &f, 10, TEST_SS);
    gdt_set(TEST_SS, 0, 0xfffff, 0x33, 12);
    expect("absent", &f, 12, TEST_SS);
    tss.ss1 = SMALL_STACK | 1;
    tss.esp1 = 16;
    expect("no room", &f, 12, SMALL_STACK);
    tss.esp1 = 20;
    expect("just enough", &f, 3, 0);
    f = frame_at(undefined, 3);
    gate_set(6, RING1_CODE, inner, INT32);
    tss.ss1 = 0xfff1;
    expect("by an exception: EXT is set", &f, 10, 0xfff1);
    tss.ss1 = SMALL_STACK | 1;
    tss.esp1 = 8;
    expect("no room, EXT is set", &f, 12, SMALL_STACK | 1);
    gate_set(6, CODE32, (void *)vector_table[6], INT32);
    tss.ss1 = 0;
    gate_set(13, RING1_CODE, inner_error, INT32);
    f = frame_at(protection, 3);
    expect("#GP, then #TS: a double fault", &f, 8, 0);
    gate_set(13, CODE32, (void *)vector_table[13], INT32);
    tss.ss1 = ss;
    tss.esp1 = esp;
}

/* On the present stack, in ring 1, with too little room: #SS(0), reported on ring 0's stack. */
static void same_ring(void)
{
    struct frame f = frame_at(software, 0);

    f.cs = RING1_CODE | 1;
    f.ss = SMALL_STACK | 1;
    f.ds = f.es = 0;
    f.esp = 8;
    gate_set(0x90, RING1_CODE, inner, INT32 | DPL3);
    expect("no room on the same stack", &f, 12, 0);
    check(caught.eip == (u32)software && caught.esp == 8, "nothing was pushed: ESP %x", caught.esp);
    f.esp = 0;
    expect("from 0, it wraps beyond the limit", &f, 12, 0);
    f.esp = 12;
    f.eip = (u32)software;
    expect("just enough", &f, 3, 0);
    check(caught.edi == 0, "ESP %x", caught.edi);
}

/* A TSS whose limit ends before ring 1's stack. */
static void short_tss(void)
{
    struct frame f = frame_at(software, 3);
    u64 saved = gdt[TSS_SEL / 8];

    gate_set(0x90, RING1_CODE, inner, INT32 | DPL3);
    gdt[TSS_SEL / 8] = descriptor((u32)&tss, 0x0b, 0x89, 0);
    asm volatile("ltr %w0" : : "r"(TSS_SEL));
    expect("ring 1's stack beyond the TSS", &f, 10, TSS_SEL);
    gdt[TSS_SEL / 8] = descriptor((u32)&tss, 0x10, 0x89, 0);
    asm volatile("ltr %w0" : : "r"(TSS_SEL));
    expect("all but its last byte", &f, 10, TSS_SEL);
    gdt[TSS_SEL / 8] = descriptor((u32)&tss, 0x11, 0x89, 0);
    asm volatile("ltr %w0" : : "r"(TSS_SEL));
    expect("just all of it", &f, 3, 0);
    gdt[TSS_SEL / 8] = (saved & ~(2ull << 40));
    asm volatile("ltr %w0" : : "r"(TSS_SEL));
    expect("the whole TSS again", &f, 3, 0);
}

void guest_main(void)
{
    setup();
    flags();
    rights();
    inner_stacks();
    same_ring();
    short_tss();
}
