/* When one instruction has several reasons to fault: which is reported. Fetching before decoding before executing; #UD
 * before privileges, privileges before operands; #NM before memory; NMI before interrupts; breakpoints before all. SDM
 * vol. 3 §6.9, table 6-2. */
#include "guest.h"

#define VA 0x40000000000ul
#define ABSENT 0x123456789000ul
#define BAD_ADDRESS 0x800000000000ul

CODE(64, lgdt_mem, "lgdt (%rbx); int3");
CODE(64, lidt_mem, "lidt (%rbx); int3");
CODE(64, lldt_mem, "lldt (%rbx); int3");
CODE(64, ltr_mem, "ltr (%rbx); int3");
CODE(64, lmsw_mem, "lmsw (%rbx); int3");
CODE(64, invpcid_mem, "invpcid (%rbx), %rax; int3");
CODE(64, invlpg_mem, "invlpg (%rbx); int3");
CODE(64, xsetbv_bad, "mov $77, %ecx; xsetbv; int3");
CODE(64, in_port, "inb $0x71, %al; int3");
CODE(64, ins_port, "mov $0x71, %edx; mov %rbx, %rdi; insb; int3");
CODE(64, hlt_lock, ".byte 0xf0; hlt");
CODE(64, cli_lock, ".byte 0xf0; cli");
CODE(64, mov_lock, ".byte 0xf0; mov %rax, (%rbx)");
CODE(64, cr_bad, ".byte 0x0f, 0x20, 0xc8"); /* MOV from CR1 */
CODE(64, dr_user, "mov %dr0, %rax");
CODE(64, fld_mem, "fldl (%rbx); int3");
CODE(64, sse_mem, "addps (%rbx), %xmm1; int3");
CODE(64, mmx_mem, "paddb (%rbx), %mm1; int3");
CODE(64, sgdt_mem, "sgdt (%rbx); int3");
CODE(64, smsw_mem, "smsw (%rbx); int3");
CODE(64, fxsave_mem, "fxsave (%rbx); int3");
CODE(64, cmpxchg16b_mem, "lock cmpxchg16b (%rbx); int3");
CODE(64, push_mem, "push (%rbx); int3");
CODE(64, div_mem, "xor %edx, %edx; divl (%rbx); int3");
CODE(64, far_jump, "ljmp *(%rbx); int3");
CODE(64, load_bad, "mov (%rbx), %es; int3");
CODE(64, quad, "mov (%rbx), %rax; int3");
CODE(64, rbp_quad, "mov (%rbp), %rax; int3");

static void expect(const char *name, const struct frame *f, int vector, u64 error)
{
    int got = enter(f);

    check(got == vector && caught.error == error, "%s: vector %d error %lx (expected %d, %lx)", name, got, caught.error,
          vector, error);
}

static struct frame at(const void *code, int ring, u64 rbx)
{
    struct frame f = frame_at(code, ring);

    f.rbx = f.rbp = rbx;
    return f;
}

#define EXPECT(name, code, ring, rbx, vector, error)                                                                   \
    do {                                                                                                               \
        struct frame start = at(code, ring, rbx);                                                                      \
                                                                                                                       \
        expect(name, &start, vector, error);                                                                           \
    } while (0)

/* In ring 3, with an operand that would fault: the privilege comes first, and #UD before that. */
static void privileges(void)
{
    EXPECT("LGDT in ring 3 of an absent operand", lgdt_mem, 3, ABSENT, 13, 0);
    EXPECT("LIDT", lidt_mem, 3, ABSENT, 13, 0);
    EXPECT("LLDT", lldt_mem, 3, ABSENT, 13, 0);
    EXPECT("LTR", ltr_mem, 3, ABSENT, 13, 0);
    EXPECT("LMSW", lmsw_mem, 3, ABSENT, 13, 0);
    EXPECT("INVLPG", invlpg_mem, 3, ABSENT, 13, 0);
    if (feature(7, 0, 1, 10))
        EXPECT("INVPCID", invpcid_mem, 3, ABSENT, 13, 0);
    EXPECT("IN without permission", in_port, 3, 0, 13, 0);
    EXPECT("INS without permission to an absent page", ins_port, 3, ABSENT, 13, 0);
    EXPECT("INS in ring 0 to an absent page", ins_port, 0, ABSENT, 14, 2);
    EXPECT("LOCK HLT in ring 3", hlt_lock, 3, 0, 6, 0);
    EXPECT("LOCK CLI in ring 3", cli_lock, 3, 0, 6, 0);
    EXPECT("LOCK MOV to an absent page", mov_lock, 0, ABSENT, 6, 0);
    EXPECT("MOV from CR1 in ring 3", cr_bad, 3, 0, 6, 0);
    EXPECT("MOV from DR0 in ring 3", dr_user, 3, 0, 13, 0);
    if (feature(7, 0, 2, 2)) {
        write_cr4(read_cr4() | 0x800);
        EXPECT("SGDT under UMIP to an absent page", sgdt_mem, 3, ABSENT, 13, 0);
        EXPECT("SMSW under UMIP to an absent page", smsw_mem, 3, ABSENT, 13, 0);
        write_cr4(read_cr4() & ~0x800ul);
        EXPECT("SGDT without UMIP to an absent page", sgdt_mem, 3, ABSENT, 14, 6);
    }
    if (feature(1, 0, 2, 26)) {
        EXPECT("XSETBV in ring 3 without OSXSAVE", xsetbv_bad, 3, 0, 6, 0);
        write_cr4(read_cr4() | 0x40000);
        EXPECT("XSETBV in ring 3", xsetbv_bad, 3, 0, 13, 0);
    }
}

static void units(void)
{
    u64 cr0 = read_cr0(), cr4 = read_cr4();

    write_cr0(cr0 | 8);
    EXPECT("TS: x87 load from an absent page", fld_mem, 0, ABSENT, 7, 0);
    EXPECT("TS: SSE from an unaligned absent address", sse_mem, 0, ABSENT + 1, 7, 0);
    EXPECT("TS: MMX from an absent page", mmx_mem, 0, ABSENT, 7, 0);
    EXPECT("TS: FXSAVE to a bad, unaligned address", fxsave_mem, 0, BAD_ADDRESS + 1, 7, 0);
    write_cr4(cr4 & ~0x200ul);
    EXPECT("TS without OSFXSR: SSE is undefined first", sse_mem, 0, ABSENT, 6, 0);
    write_cr4(cr4);
    write_cr0((cr0 & ~2ul) | 12);
    EXPECT("EM and TS: MMX is undefined first", mmx_mem, 0, ABSENT, 6, 0);
    EXPECT("EM and TS: x87 not available", fld_mem, 0, ABSENT, 7, 0);
    write_cr0(cr0);
    asm volatile("fninit; fldcw %0; fldz; fld1; fdivp" : : "m"((u16){0x37b}));
    EXPECT("x87 exception pending: before its operand", fld_mem, 0, ABSENT, 16, 0);
    EXPECT("x87 exception pending: MMX with an absent operand", mmx_mem, 0, ABSENT, 16, 0);
    EXPECT("x87 exception pending: SSE does not look", sse_mem, 0, ABSENT, 14, 0);
    asm volatile("fnclex; fninit");
}

static void operands(void)
{
    struct frame f;
    static u32 zero;
    static struct {
        u32 offset;
        u16 sel;
    } __attribute__((packed)) pointer = {0, 0xfff8};

    EXPECT("misaligned CMPXCHG16B of an absent page: alignment", cmpxchg16b_mem, 0, ABSENT + 8, 13, 0);
    EXPECT("SSE: alignment before the page", sse_mem, 0, ABSENT + 8, 13, 0);
    EXPECT("DIV by absent memory", div_mem, 0, ABSENT, 14, 0);
    EXPECT("DIV by zero in memory", div_mem, 0, (u64)&zero, 0, 0);
    EXPECT("far JMP through absent memory", far_jump, 0, ABSENT, 14, 0);
    EXPECT("far JMP to a bad selector", far_jump, 0, (u64)&pointer, 13, 0xfff8);
    EXPECT("MOV to ES of absent memory", load_bad, 0, ABSENT, 14, 0);
    EXPECT("not canonical", quad, 0, BAD_ADDRESS, 13, 0);
    EXPECT("the same by RBP", rbp_quad, 0, BAD_ADDRESS, 12, 0);
    f = at(push_mem, 0, ABSENT);
    f.rsp = BAD_ADDRESS;
    expect("PUSH of absent memory on a bad stack: reads first", &f, 14, 0);
    write_cr0(read_cr0() | 1 << 18);
    f = at(quad, 3, ABSENT + 1);
    f.rflags |= 0x40000;
    expect("AC: alignment before the page", &f, 17, 0);
    f.rbx = BAD_ADDRESS + 1;
    expect("AC: a bad address before alignment", &f, 13, 0);
    f.rbx = ABSENT;
    expect("AC: aligned, absent", &f, 14, 4);
    f = at(rbp_quad, 3, BAD_ADDRESS + 1);
    f.rflags |= 0x40000;
    expect("AC: a bad stack address before alignment", &f, 12, 0);
    write_cr0(read_cr0() & ~(1ul << 18));
}

/* At the end of a page, the next being absent. */
static u8 *page;
static void tail(const char *name, const u8 *bytes, u32 len, int vector, bool fetch)
{
    struct frame f = frame_at((void *)(VA + 4096 - len), 0);
    int got;

    for (u32 n = 0; n < len; n++)
        page[4096 - len + n] = bytes[n];
    got = enter(&f);
    check(got == vector && (!fetch || (caught_cr2 == VA + 4096 && caught.error == 0x10)) && caught.rip == f.rip,
          "%s: vector %d error %lx CR2 %lx at -%lx", name, got, caught.error, caught_cr2, VA + 4096 - caught.rip);
}
#define TAIL(name, vector, fetch, ...) tail(name, (const u8[]){__VA_ARGS__}, sizeof((u8[]){__VA_ARGS__}), vector, fetch)

static void fetches(void)
{
    page = page_alloc();
    *pte_of(VA) = (u64)page | PTE_P | PTE_W;
    *pte_of(VA + 4096) = 0;
    write_cr3(read_cr3());
    TAIL("UD2 that ends a page", 6, false, 0x0f, 0x0b);
    TAIL("0F alone: the page first", 14, true, 0x0f);
    TAIL("MOV whose immediate is absent", 14, true, 0xb8, 1, 2);
    TAIL("LOCK MOV, the rest absent", 14, true, 0xf0, 0x89);
    TAIL("LOCK HLT at the end", 6, false, 0xf0, 0xf4);
    TAIL("15 prefixes: too long, without the 16th byte", 13, false, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
         0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66);
    TAIL("14 prefixes: the 15th byte is absent", 14, true, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
         0x66, 0x66, 0x66, 0x66);
}

/* A breakpoint on the instruction comes before all its faults, the fetch's too. */
static int stops;
static void on_debug(struct frame *f)
{
    stops++;
    f->rflags |= 0x10000;
}

static void breakpoints(void)
{
    struct frame f = at(hlt_lock, 3, 0);

    on_interrupt(1, on_debug);
    asm volatile("mov %0, %%dr0; mov %1, %%dr7" : : "r"(hlt_lock), "r"(0x402ul));
    expect("breakpoint on an undefined instruction", &f, 6, 0);
    check(stops == 1, "stops %d", stops);
    f = frame_at((void *)ABSENT, 0);
    asm volatile("mov %0, %%dr0" : : "r"(ABSENT));
    stops = 0;
    expect("breakpoint on an absent page", &f, 14, 0x10);
    check(stops == 1, "stops %d", stops);
    asm volatile("mov %0, %%dr7" : : "r"(0x400ul));
    on_interrupt(1, 0);
}

/* Both wait when the NMI handler's IRET opens the gates. */
static volatile u8 order[4];
static volatile int count;
static void on_nmi(struct frame *f)
{
    order[count++ & 3] = 2;
    if (count > 1)
        return;
    lapic_write(0x300, 0x40091);
    lapic_write(0x310, 0);
    lapic_write(0x300, 0x4400);
    f->rflags |= 0x200;
}
static void on_interrupt91(struct frame *f)
{
    order[count++ & 3] = 0x91;
    lapic_write(0xb0, 0);
    f->rflags &= ~0x200ul;
}

static void nmi_first(void)
{
    on_interrupt(2, on_nmi);
    on_interrupt(0x91, on_interrupt91);
    lapic_write(0xf0, 0x1ff);
    lapic_write(0x310, 0);
    lapic_write(0x300, 0x4400);
    for (int n = 0; n < 100; n++)
        asm volatile("nop");
    asm volatile("cli");
    check(count == 3 && order[0] == 2 && order[1] == 2 && order[2] == 0x91, "NMI before an interrupt: %d: %x %x %x",
          count, order[0], order[1], order[2]);
}

void guest_main(void)
{
    user_text_allow(true);
    tss.ist[0] = (u64)page_alloc() + 4096;
    idt_set(12, (void *)vector_table[12], 0x8e, 1);
    idt_set(14, (void *)vector_table[14], 0x8e, 1);
    privileges();
    units();
    operands();
    fetches();
    breakpoints();
    nmi_first();
}
