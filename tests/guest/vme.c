/* Virtual interrupts: V86 code whose IF is VIF (CR4.VME), software interrupts that the TSS's redirection map sends to the
 * 8086 program's own vectors, and CLI and STI of ring 3 (CR4.PVI). SDM vol. 3 §20.3, §20.4. */
#include "guest32.h"

enum { CF = 1, TF = 0x100, IF = 0x200, DF = 0x400, IOPL3 = 0x3000, RF = 0x10000, VM = 0x20000, VIF = 0x80000, VIP = 0x100000 };
enum { VME = 1, PVI = 2 };
#define CODE_AT 0x10000 /* segment 0x1000 */
#define HANDLER_AT 0x400 /* in the same segment */

CODE(16, do_cli, "cli; int3");
CODE(16, do_sti, "sti; int3");
CODE(16, do_pushf, "pushf; pop %ax; int3");
CODE(16, do_pushfd, "pushfl; pop %eax; int3");
CODE(16, do_popf, "push %ax; popf; int3");
CODE(16, do_popfd, "push %eax; popfl; int3");
CODE(16, do_iret, "push %ax; push %cs; push $1f - do_iret; iretw; int3; 1: int3");
CODE(16, do_iretd, "pushl %eax; pushl $0x1000; pushl $1f - do_iretd; iretl; int3; 1: int3");
CODE(16, do_int, "int $0x40; int3");
CODE(16, do_int_cd3, "int $0x40; .byte 0xcd, 3; int3"); /* the two-byte form may be redirected, the one-byte form not */
CODE(16, handler, "pop %bx; pop %cx; pop %dx; push %dx; push %cx; push %bx; pushf; pop %si; iretw");
CODE(16, do_into, "mov $0x7f, %al; inc %al; into; int3");
CODE(32, ring3_cli, "cli; pushf; pop %eax; int3");
CODE(32, ring3_sti, "sti; pushf; pop %eax; int3");
CODE(32, ring3_popf, "push %eax; popf; pushf; pop %eax; int3");

static struct frame v86(const u8 *code, const u8 *end, u32 eflags)
{
    copy((void *)CODE_AT, code, (u32)(end - code));
    return (struct frame){.cs = CODE_AT >> 4, .eip = 0, .eflags = eflags | VM | 2, .ss = 0x2000, .esp = 0x8000,
                          .v86_ds = 0x3000, .v86_es = 0x3000, .v86_fs = 0x3000, .v86_gs = 0x3000};
}

static void expect(const char *name, const u8 *code, const u8 *end, u32 eflags, u32 eax, int vector, u32 at, u32 after)
{
    struct frame f = v86(code, end, eflags);
    int got;

    f.eax = eax;
    got = enter(&f);
    check(got == vector && caught.eip == at && (vector != 13 || !caught.error), "%s, flags %x: vector %d at %x (expected %d at %x)",
          name, eflags, got, caught.eip, vector, at);
    check((caught.eflags & ~(RF | 2u)) == (after | VM), "   flags after it: %x (expected %x)", caught.eflags, after);
}
#define EXPECT(code, eflags, eax, vector, at, after) expect(#code, code, code##_end, eflags, eax, vector, at, after)
#define AX (caught.eax & 0xffff)

static void interrupt_flag(void)
{
    EXPECT(do_cli, VIF | IF, 0, 3, 2, IF);
    EXPECT(do_sti, IF, 0, 3, 2, IF | VIF);
    EXPECT(do_sti, 0x2000, 0, 3, 2, 0x2000 | VIF);
    EXPECT(do_sti, VIP, 0, 13, 0, VIP);
    EXPECT(do_cli, VIP | VIF, 0, 3, 2, VIP);
    EXPECT(do_cli, IOPL3 | VIF, 0, 3, 2, IOPL3 | VIF);
    EXPECT(do_sti, IOPL3 | VIP, 0, 3, 2, IOPL3 | VIP | IF);
}

static void pushf_popf(void)
{
    EXPECT(do_pushf, VIF, 0, 3, 3, VIF);
    check(AX == (IOPL3 | IF | 2), "PUSHF shows VIF as IF, and IOPL 3: %x", AX);
    EXPECT(do_pushf, IF, 0, 3, 3, IF);
    check(AX == (IOPL3 | 2), "PUSHF hides IF: %x", AX);
    EXPECT(do_pushfd, VIF, 0, 13, 0, VIF);
    EXPECT(do_pushf, IOPL3 | VIF, 0, 3, 3, IOPL3 | VIF);
    check(AX == (IOPL3 | 2), "with IOPL 3 PUSHF shows IF itself: %x", AX);
    EXPECT(do_popf, 0, IF | DF | CF, 3, 3, VIF | DF | CF);
    EXPECT(do_popf, IF | VIF | DF, IOPL3, 3, 3, IF);
    EXPECT(do_popf, 0, TF, 13, 1, 0);
    check((u16)caught.esp == 0x7ffe, "the refused POPF pops nothing: %x", (u16)caught.esp);
    EXPECT(do_popf, VIP, IF, 13, 1, VIP);
    EXPECT(do_popf, VIP | VIF, CF, 3, 3, VIP | CF);
    EXPECT(do_popfd, 0, CF, 13, 2, 0);
}

static void iret(void)
{
    EXPECT(do_iret, 0, IF | CF, 3, 8, VIF | CF);
    EXPECT(do_iret, VIF, DF, 3, 8, DF);
    EXPECT(do_iret, 0, TF, 13, 5, 0);
    EXPECT(do_iret, VIP, IF, 13, 5, VIP);
    EXPECT(do_iret, IOPL3, IF, 3, 8, IOPL3 | IF);
    EXPECT(do_iretd, 0, CF, 13, 14, 0);
}

static void redirect(int vector, bool to_program)
{
    u8 bit = (u8)(1 << (vector & 7));

    if (to_program)
        tss.map[vector / 8] &= (u8)~bit;
    else
        tss.map[vector / 8] |= bit;
}

static void interrupts(void)
{
    u64 saved = idt[0x40];

    idt[0x40] = gate(CODE32, vector_table[0x40], 0xee, 0);
    ((volatile u32 *)0)[0x40] = (CODE_AT >> 4) << 16 | HANDLER_AT;
    copy((void *)(CODE_AT + HANDLER_AT), handler, (u32)(handler_end - handler));
    redirect(0x40, false);
    EXPECT(do_int, 0, 0, 13, 0, 0);
    EXPECT(do_int, IOPL3, 0, 0x40, 2, IOPL3);
    redirect(0x40, true);
    EXPECT(do_int, VIF | CF, 0, 3, 3, VIF | CF);
    check((u16)caught.edx == (IOPL3 | IF | CF | 2) && (u16)caught.ecx == 0x1000 && (u16)caught.ebx == 2,
          "the frame shows VIF as IF, and IOPL 3: %x %x:%x", (u16)caught.edx, (u16)caught.ecx, (u16)caught.ebx);
    check((u16)caught.esi == (IOPL3 | CF | 2), "VIF is clear in the handler: %x", (u16)caught.esi);
    EXPECT(do_int, IF, 0, 3, 3, IF);
    EXPECT(do_int, IOPL3 | IF, 0, 3, 3, IOPL3 | IF);
    check((u16)caught.edx == (IOPL3 | IF | 2) && (u16)caught.esi == (IOPL3 | 2), "with IOPL 3 it is IF: %x, %x",
          (u16)caught.edx, (u16)caught.esi);
    redirect(3, true);
    ((volatile u32 *)0)[3] = (CODE_AT >> 4) << 16 | HANDLER_AT;
    EXPECT(do_int_cd3, 0, 0, 3, 5, 0);
    redirect(3, false);
    EXPECT(do_int_cd3, 0, 0, 13, 2, 0);
    EXPECT(do_into, 0, 0, 4, 5, 0x890); /* never redirected */
    idt[0x40] = saved;
}

/* Interrupt redirection needs its map within the TSS. */
static void map_limits(void)
{
    u32 map = offsetof(struct tss32, map);

    tss.iomap = (u16)(map + 32);
    redirect(0x40, true);
    gdt_set(TSS_SEL, (u32)&tss, map + 8, 0x89, 0); /* the byte of vector 40 is the last one */
    asm volatile("ltr %w0" : : "r"(TSS_SEL));
    EXPECT(do_int, 0, 0, 3, 3, 0);
    gdt_set(TSS_SEL, (u32)&tss, map + 7, 0x89, 0);
    asm volatile("ltr %w0" : : "r"(TSS_SEL));
    EXPECT(do_int, 0, 0, 13, 0, 0);
    gdt_set(TSS_SEL, (u32)&tss, sizeof(tss) - 1, 0x89, 0);
    asm volatile("ltr %w0" : : "r"(TSS_SEL));
    tss.iomap = 8; /* the map would begin below the TSS */
    EXPECT(do_int, 0, 0, 13, 0, 0);
    tss.iomap = (u16)(map + 32);
}

/* The stack of the 8086 program faults as its own pushes would. */
static void redirection_stack(void)
{
    struct frame f = v86(do_int, do_int_end, 0);

    f.esp = 3;
    check(enter(&f) == 12 && caught.eip == 0 && (u16)caught.esp == 3, "no room on the stack: #SS at %x", caught.eip);
    f.esp = 2;
    copy((void *)(CODE_AT + HANDLER_AT), (u8[]){0xcc}, 1);
    check(enter(&f) == 3 && caught.eip == HANDLER_AT + 1 && (u16)caught.esp == 0xfffc, "SP wraps: %x at %x",
          (u16)caught.esp, caught.eip);
    copy((void *)(CODE_AT + HANDLER_AT), handler, 1);
}

static void ring3(const char *name, const u8 *code, u32 eflags, u32 eax, int vector, u32 flags)
{
    struct frame f = frame_at(code, 3);
    int got;

    f.eflags |= eflags;
    f.eax = eax;
    got = enter(&f);
    check(got == vector && (caught.eflags & (VIP | VIF | IF | IOPL3)) == flags, "%s, flags %x: vector %d flags %x", name,
          eflags, got, caught.eflags);
}

static void protected_mode(void)
{
    ring3("CLI of ring 3 without PVI", ring3_cli, VIF, 0, 13, VIF);
    write_cr4(read_cr4() | PVI);
    ring3("CLI", ring3_cli, VIF | IF, 0, 3, IF);
    ring3("STI", ring3_sti, 0, 0, 3, VIF);
    check(caught.eax & VIF && !(caught.eax & IF), "PUSHF shows VIF in its own place: %x", caught.eax);
    ring3("STI with an interrupt pending", ring3_sti, VIP, 0, 13, VIP);
    ring3("STI with IOPL 3", ring3_sti, IOPL3, 0, 3, IOPL3 | IF);
    ring3("POPF leaves IF and VIF alone", ring3_popf, IF, VIF, 3, IF);
    write_cr4(read_cr4() & ~PVI);
}

void guest_main(void)
{
    check(feature(1, 0, 3, 1), "CPUID shows VME");
    idt[4] = gate(CODE32, vector_table[4], 0xee, 0);
    tss.iomap = offsetof(struct tss32, map) + 32;
    write_cr4(read_cr4() | VME);
    interrupt_flag();
    pushf_popf();
    iret();
    interrupts();
    map_limits();
    redirection_stack();
    write_cr4(read_cr4() & ~VME);
    EXPECT(do_sti, 0, 0, 13, 0, 0);
    protected_mode();
}
