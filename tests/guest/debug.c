/* Debugging: single steps over all kinds of instructions, code and data breakpoints of every length, RF, general
 * detect, I/O breakpoints, INT1; the shadows of MOV SS and STI. SDM vol. 3 ch. 17, §6.8.3, vol. 2 (STI, MOV). */
#include "guest.h"

#define TF 0x100ul
#define RF 0x10000ul
#define B0 1u
#define B1 2u
#define BD 0x2000u
#define BS 0x4000u
#define DR6_INIT 0xffff0ff0ul
enum { ON_EXEC = 0, ON_WRITE = 1, ON_IO = 2, ON_RW = 3 };

static struct {
    u64 rip, flags;
    u32 dr6;
} seen[64];
static int count;
static u64 watched[16] __attribute__((aligned(64)));

static u64 dr_read6(void) { u64 v; asm volatile("mov %%dr6, %0" : "=r"(v)); return v; }
static u64 dr_read7(void) { u64 v; asm volatile("mov %%dr7, %0" : "=r"(v)); return v; }
static void dr_write6(u64 v) { asm volatile("mov %0, %%dr6" : : "r"(v)); }
static void dr_write7(u64 v) { asm volatile("mov %0, %%dr7" : : "r"(v)); }

static void dr_set(int n, u64 at, int kind, int len)
{
    static const u8 lens[] = {0, 0, 1, 0, 3, 0, 0, 0, 2};

    switch (n) {
    case 0: asm volatile("mov %0, %%dr0" : : "r"(at)); break;
    case 1: asm volatile("mov %0, %%dr1" : : "r"(at)); break;
    case 2: asm volatile("mov %0, %%dr2" : : "r"(at)); break;
    default: asm volatile("mov %0, %%dr3" : : "r"(at)); break;
    }
    dr_write7((dr_read7() & ~(0xful << (16 + n * 4))) | 2ul << n * 2 | (u64)(kind | lens[len] << 2) << (16 + n * 4));
}

/* Every debug exception is noted; code breakpoints are passed with RF. */
static void on_debug(struct frame *f)
{
    if (count < 64) {
        seen[count].rip = f->rip;
        seen[count].flags = f->rflags;
        seen[count].dr6 = (u32)dr_read6();
    }
    count++;
    if (seen[count - 1].dr6 & 15)
        f->rflags |= RF;
    if (count >= 60)
        f->rflags &= ~TF;
    dr_write6(DR6_INIT);
}

static int run(const u8 *code, u64 flags, u64 rbx)
{
    struct frame f = frame_at(code, 0);

    f.rflags |= flags;
    f.rbx = rbx;
    f.rsi = (u64)watched;
    f.rdi = (u64)watched + 64;
    count = 0;
    dr_write6(DR6_INIT);
    return enter(&f);
}

/* The offsets at which debug exceptions came, and that all had these DR6 bits. */
static void steps(const char *name, const u8 *code, u64 flags, u32 bits, int n, const int *at)
{
    int got = run(code, flags, (u64)watched);
    bool ok = got == 3 && count == n;

    for (int i = 0; ok && i < n; i++)
        ok = seen[i].rip == (u64)code + (u64)at[i] && (seen[i].dr6 & 0xe00f) == bits;
    check(ok, "%s: %d debug exceptions, ended by vector %d", name, count, got);
    for (int i = 0; !ok && i < count && i < 10; i++)
        print("     at %lx DR6 %x\n", seen[i].rip - (u64)code, seen[i].dr6);
}
#define STEPS(name, code, flags, bits, ...)                                                                            \
    steps(name, code, flags, bits, sizeof((int[]){__VA_ARGS__}) / sizeof(int), (int[]){__VA_ARGS__})

CODE(64, nops, "nop; nop; nop; int3");
CODE(64, mov_ss, "mov %ss, %eax; mov %eax, %ss; nop; nop; int3");
CODE(64, popf_on, "push $0x102; popf; nop; nop; int3");
CODE(64, popf_off, "push $2; popf; nop; nop; int3");
CODE(64, iret_on,
     "mov %rsp, %rax; push $0x10; push %rax; push $0x102; push $8; lea 1f(%rip), %rax; push %rax; iretq; int3;"
     "1: nop; nop; int3");
CODE(64, rep_movs, "mov $3, %ecx; rep movsb; nop; int3");
CODE(64, rep_none, "xor %ecx, %ecx; rep movsb; nop; int3");
CODE(64, int_n, "int $0x90; nop; nop; int3");
CODE(64, halt, "hlt; nop; int3");
CODE(64, fault, "nop; ud2");
CODE(64, icebp, "nop; .byte 0xf1; nop; int3");
CODE(64, pushf_tf, "pushf; pop %rax; nop; int3");
CODE(64, branch, "jmp 1f; int3; 1: call 2f; jmp 3f; 2: ret; 3: nop; int3");
CODE(64, two_byte, "cpuid; rdtsc; nop; int3");
CODE(64, loop_back, "mov $3, %ecx; 1: nop; loop 1b; int3");
CODE(64, store1, "movb $1, (%rbx); nop; int3");
CODE(64, store8, "movq $1, (%rbx); nop; int3");
CODE(64, load8, "mov (%rbx), %rax; nop; int3");
CODE(64, rmw, "lock incl (%rbx); nop; int3");
CODE(64, push_watched, "mov %rsp, %rax; lea 8(%rbx), %rsp; push %rax; nop; mov %rax, %rsp; int3");
CODE(64, rep_stos, "mov %rbx, %rdi; mov $4, %ecx; xor %eax, %eax; rep stosb; nop; int3");
CODE(64, stack_load, "mov %ss, (%rbx); mov (%rbx), %ss; nop; nop; int3");
CODE(64, stack_load_icebp, "mov (%rbx), %ss; .byte 0xf1; nop; int3");
CODE(64, port_in, "mov $0x80, %edx; inb %dx, %al; nop; out %al, $0x80; nop; in $0x61, %al; int3");
CODE(64, vector_store, "pxor %xmm0, %xmm0; movups %xmm0, (%rbx); nop; int3");
CODE(64, x87_store, "fninit; fldz; fstpl (%rbx); nop; int3");

static void single_steps(void)
{
    STEPS("single steps", nops, TF, BS, 1, 2, 3);
    STEPS("MOV SS hides the step after it", mov_ss, TF, BS, 2, 5, 6);
    STEPS("POPF that sets TF: first step after the next instruction", popf_on, 0, BS, 7, 8);
    STEPS("POPF that clears TF still ends with a step", popf_off, TF, BS, 2, 3);
    STEPS("IRET that sets TF", iret_on, 0, BS, iret_on_end - iret_on - 2, iret_on_end - iret_on - 1);
    STEPS("REP MOVSB: a step after each element", rep_movs, TF, BS, 5, 5, 5, 7, 8);
    STEPS("REP MOVSB of none", rep_none, TF, BS, 2, 4, 5);
    on_interrupt(0x90, on_debug);
    run(int_n, TF, 0);
    on_interrupt(0x90, 0);
    check(count == 3 && seen[0].rip == (u64)int_n + 2 && seen[1].rip == (u64)int_n + 3 && seen[2].rip == (u64)int_n + 4,
          "INT n itself has no step, IRET's target has: %d", count);
    STEPS("HLT ends with its step", halt, TF, BS, 1, 2);
    check(run(fault, TF, 0) == 6 && count == 1 && caught.rflags & TF, "a fault has no step, its flags have TF");
    check(run(nops, 0, 0) == 3 && count == 0, "no steps without TF");
    run(pushf_tf, TF, 0);
    check(count == 3 && caught.rax & TF, "PUSHF shows TF");
    STEPS("jumps, calls, returns", branch, TF, BS, 3, 10, 8, 11, 12);
    STEPS("CPUID, RDTSC", two_byte, TF, BS, 2, 4, 5);
}

static void int1(void)
{
    run(icebp, 0, 0);
    check(count == 1 && seen[0].rip == (u64)icebp + 2 && !(seen[0].dr6 & (BS | 15)) && !(seen[0].flags & RF),
          "INT1: a trap, DR6 %x", seen[0].dr6);
    run(icebp, TF, 0);
    check(count >= 2 && seen[0].rip == (u64)icebp + 1 && seen[1].rip == (u64)icebp + 2, "INT1 while stepping: %d",
          count);
}

static void code_breakpoints(void)
{
    dr_set(0, (u64)nops + 1, ON_EXEC, 1);
    STEPS("code breakpoint: before the instruction", nops, 0, B0, 1);
    check(!(seen[0].flags & RF), "its frame has RF clear");
    count = 0;
    run(nops, RF, 0);
    check(count == 1, "RF counts for one instruction only");
    dr_set(1, (u64)nops + 1, ON_EXEC, 1);
    STEPS("two at one address", nops, 0, B0 | B1, 1);
    dr_write7(0x400);
    dr_set(0, (u64)nops, ON_EXEC, 1);
    run(nops, RF, 0);
    check(count == 0, "IRET with RF passes a breakpoint on its target");
    run(nops, TF, 0);
    check(count == 4 && seen[0].dr6 & B0 && !(seen[0].dr6 & BS) && seen[0].rip == (u64)nops && seen[1].dr6 & BS &&
              seen[1].rip == (u64)nops + 1, "breakpoint and single steps: %d", count);
    dr_set(0, (u64)loop_back + 5, ON_EXEC, 1);
    STEPS("in a loop, each time", loop_back, 0, B0, 5, 5, 5);
    dr_set(0, (u64)mov_ss + 4, ON_EXEC, 1);
    STEPS("behind MOV SS: hidden", mov_ss, 0, B0);
    dr_set(0, (u64)rep_movs + 5, ON_EXEC, 1);
    STEPS("on REP MOVSB: once", rep_movs, 0, B0, 5);
    dr_set(0, (u64)fault + 1, ON_EXEC, 1);
    check(run(fault, 0, 0) == 6 && count == 1, "on an instruction that faults: the breakpoint first");
    dr_write7(0x400);
    STEPS("DR7 clear: none", nops, 0, 0);
}

static void data_case(const char *name, const u8 *code, int kind, int len, int offset, int rbx, int n, int at)
{
    u64 where = (u64)watched;

    dr_write7(0x400);
    dr_set(0, where + (u64)offset, kind, len);
    run(code, 0, where + (u64)rbx);
    dr_write7(0x400);
    check(count == n && (!n || (seen[0].rip == (u64)code + (u64)at && (seen[0].dr6 & 0xe00f) == B0)),
          "%s: %d traps, at %lx DR6 %x", name, count, count ? seen[0].rip - (u64)code : 0, seen[0].dr6);
}

static void data_breakpoints(void)
{
    data_case("byte written", store1, ON_WRITE, 1, 0, 0, 1, 3);
    data_case("next byte written", store1, ON_WRITE, 1, 0, 1, 0, 0);
    data_case("byte in a watched word", store1, ON_WRITE, 2, 2, 3, 1, 3);
    data_case("byte in a watched doubleword", store1, ON_WRITE, 4, 4, 7, 1, 3);
    data_case("byte in a watched quadword", store1, ON_WRITE, 8, 8, 15, 1, 3);
    data_case("byte behind a watched quadword", store1, ON_WRITE, 8, 8, 16, 0, 0);
    data_case("quadword over a watched byte", store8, ON_WRITE, 1, 15, 8, 1, 7);
    data_case("unaligned quadword over it", store8, ON_WRITE, 1, 15, 12, 1, 7);
    data_case("read of a byte watched for writes", load8, ON_WRITE, 1, 0, 0, 0, 0);
    data_case("read of a byte watched for both", load8, ON_RW, 1, 0, 0, 1, 3);
    data_case("write of a byte watched for both", store1, ON_RW, 1, 0, 0, 1, 3);
    data_case("locked INC", rmw, ON_WRITE, 4, 0, 0, 1, 3);
    data_case("PUSH", push_watched, ON_WRITE, 8, 0, 0, 1, 8);
    data_case("SSE store", vector_store, ON_WRITE, 4, 12, 0, 1, 7);
    data_case("x87 store", x87_store, ON_WRITE, 1, 7, 0, 1, 6);
    data_case("MOV SS from watched memory: after the next instruction", stack_load, ON_RW, 2, 0, 0, 2, 2);
    check(count == 2 && seen[1].rip == (u64)stack_load + 5, "second trap at %lx", seen[1].rip - (u64)stack_load);
    watched[0] = 0x10;
    data_case("MOV SS from watched memory, INT1: one trap for both", stack_load_icebp, ON_RW, 2, 0, 0, 1, 3);
    data_case("data never fetched as code", nops, ON_RW, 1, 0, 0, 0, 0);
    dr_set(0, (u64)watched, ON_WRITE, 1);
    dr_set(3, (u64)watched + 4, ON_WRITE, 4);
    run(store8, TF, (u64)watched);
    dr_write7(0x400);
    check(count == 2 && (seen[0].dr6 & 0xe00f) == (BS | 1 | 8), "two hits and a step at once: DR6 %x", seen[0].dr6);
    dr_set(0, (u64)watched + 1, ON_WRITE, 1);
    run(rep_stos, 0, (u64)watched);
    dr_write7(0x400);
    check(count == 1 && (seen[0].rip == (u64)rep_stos + 10 || seen[0].rip == (u64)rep_stos + 12),
          "REP STOSB over a watched byte: %d traps, at %lx", count, seen[0].rip - (u64)rep_stos);
}

static void io_breakpoints(void)
{
    u64 cr4 = read_cr4();

    write_cr4(cr4 | 8);
    dr_set(0, 0x80, ON_IO, 1);
    STEPS("I/O breakpoint", port_in, 0, B0, 6, 9);
    dr_set(0, 0x60, ON_IO, 2);
    STEPS("I/O breakpoint of two ports", port_in, 0, B0, 12);
    dr_write7(0x400);
    write_cr4(cr4);
}

static void read_dr4(void *arg) { asm volatile("mov %%db4, %%rax" : : : "rax"); }
static void read_dr0(void *arg) { asm volatile("mov %%dr0, %%rax" : : : "rax"); }
static void write_dr7(void *arg) { asm volatile("mov %0, %%dr7" : : "r"(arg)); }
static void write_dr6(void *arg) { asm volatile("mov %0, %%dr6" : : "r"(arg)); }

static void registers(void)
{
    u64 cr4 = read_cr4();

    check(catch_fault(read_dr4, 0) == -1, "DR4 is DR6 without CR4.DE");
    write_cr4(cr4 | 8);
    check(catch_fault(read_dr4, 0) == 6, "#UD with it");
    write_cr4(cr4);
    check(catch_fault(write_dr7, (void *)0x100000400) == 13, "DR7 with an upper bit: #GP");
    check(catch_fault(write_dr6, (void *)0x100000000) == 13, "DR6 with an upper bit: #GP");
    dr_write6(0);
    check(dr_read6() == DR6_INIT, "DR6 of all zeros reads %lx", dr_read6());
    dr_write6(0xffffffff);
    check((dr_read6() & 0xffff1ff0) == (DR6_INIT & 0xffff1ff0) && (dr_read6() & 0xe00f) == 0xe00f,
          "DR6 of all ones: %lx", dr_read6());
    dr_write7(0);
    check(dr_read7() == 0x400, "DR7 bit 10 is one: %lx", dr_read7());
    check(catch_fault_user(read_dr0, 0) == 13, "DR0 in ring 3: #GP");
    dr_write6(DR6_INIT);
}

static void general_detect(void)
{
    on_interrupt(1, 0);
    dr_write6(DR6_INIT);
    dr_write7(0x2400);
    check(catch_fault(read_dr0, 0) == 1 && *(u8 *)caught.rip == 0x0f, "GD: a fault before MOV DR");
    check(dr_read7() == 0x400, "GD is clear in the handler: %lx", dr_read7());
    check(dr_read6() & BD, "DR6.BD: %lx", dr_read6());
    check(catch_fault_user(read_dr0, 0) == 13, "ring 3 with GD: #GP first");
    dr_write6(DR6_INIT);
    on_interrupt(1, on_debug);
}

/* Interrupt shadows. A self-IPI waits while IF is clear; where it comes in tells when interrupts were taken. */
CODE(64, sti_nop, "sti; nop; nop; nop; cli; int3");
CODE(64, sti_cli, "sti; cli; nop; nop; int3");
CODE(64, sti_sti, "sti; sti; nop; nop; cli; int3");
CODE(64, sti_hlt, "sti; hlt; nop; cli; int3");
CODE(64, popf_if, "push $0x202; popf; nop; nop; cli; int3");
CODE(64, sti_fault, "sti; ud2");
CODE(64, sti_ss, "mov %ss, %eax; sti; mov %eax, %ss; nop; nop; nop; cli; int3");
CODE(64, cr8_open, "sti; nop; xor %eax, %eax; mov %rax, %cr8; nop; nop; cli; int3");

static u64 came_at;
static int came;
static void on_ipi(struct frame *f)
{
    came++;
    came_at = f->rip;
    lapic_write(0xb0, 0);
}

static int interrupted(const u8 *code, u64 flags)
{
    came = 0;
    came_at = 0;
    lapic_write(0x300, 0x40091); /* to self */
    while (!(lapic_read(0x240) & 1 << 17)) /* IRR bit of vector 91 */
        ;
    return run(code, flags, 0);
}

static void shadows(void)
{
    on_interrupt(0x91, on_ipi);
    lapic_write(0xf0, 0x1ff);
    interrupted(sti_nop, 0);
    check(came == 1 && came_at == (u64)sti_nop + 2, "STI: interrupt after the next instruction, at %lx",
          came_at - (u64)sti_nop);
    interrupted(sti_sti, 0);
    check(came == 1 && came_at == (u64)sti_sti + 2, "STI STI: no second shadow, at %lx", came_at - (u64)sti_sti);
    interrupted(sti_hlt, 0);
    check(came == 1 && came_at == (u64)sti_hlt + 2, "STI HLT: HLT is reached and left, at %lx", came_at - (u64)sti_hlt);
    interrupted(popf_if, 0);
    check(came == 1 && came_at == (u64)popf_if + 6, "POPF: interrupt at once, at %lx", came_at - (u64)popf_if);
    interrupted(sti_ss, 0);
    check(came == 1 && (came_at == (u64)sti_ss + 5 || came_at == (u64)sti_ss + 6), "STI, MOV SS: at %lx",
          came_at - (u64)sti_ss);
    interrupted(sti_nop, TF);
    check(came == 1 && came_at <= (u64)sti_nop + 2 && count >= 4, "STI with TF: at %lx, %d steps",
          came_at - (u64)sti_nop, count);
    asm volatile("mov %0, %%cr8" : : "r"(15ul));
    interrupted(cr8_open, 0);
    check(came == 1 && came_at == (u64)cr8_open + (u64)(cr8_open_end - cr8_open) - 4, "MOV CR8 that opens: at %lx",
          came_at - (u64)cr8_open);
    check(interrupted(sti_cli, 0) == 3 && came == 0, "STI CLI lets nothing in");
    check(interrupted(sti_fault, 0) == 6, "a fault in STI's shadow");
    asm volatile("sti; nop; nop; cli");
    check(came >= 1, "the one that waited comes");
}

void guest_main(void)
{
    user_text_allow(true);
    tss.ist[0] = (u64)page_alloc() + 4096;
    idt_set(1, (void *)vector_table[1], 0x8e, 1); /* test code's stack may lie anywhere */
    on_interrupt(1, on_debug);
    single_steps();
    int1();
    code_breakpoints();
    data_breakpoints();
    io_breakpoints();
    registers();
    general_detect();
    shadows();
}
