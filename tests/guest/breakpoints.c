/* Corners of debugging: enable bits, sticky and cleared bits of DR6, lengths and overlaps, string and port
 * instructions, code breakpoints with RF after faults, the blocking by MOV SS followed by INT n, INT3, INT1, SYSCALL
 * or a fault, general detect and RF. SDM vol. 3 ch. 17, §6.8.3. */
#include "guest.h"

#define TF 0x100ul
#define RF 0x10000ul
enum { ON_EXEC = 0, ON_WRITE = 1, ON_IO = 2, ON_RW = 3 };
enum { B0 = 1, B1 = 2, B2 = 4, B3 = 8, BD = 0x2000, BS = 0x4000 };
#define DR6_INIT 0xffff0ff0ul
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_SFMASK 0xc0000084u

static struct {
    u64 rip, flags, cs;
    u32 dr6;
} seen[16];
static int count;
static u64 watched[16] __attribute__((aligned(64)));
static u16 ss_value __attribute__((aligned(64))) = 0x10;

static u64 dr6_get(void) { u64 v; asm volatile("mov %%dr6, %0" : "=r"(v)); return v; }
static u64 dr7_get(void) { u64 v; asm volatile("mov %%dr7, %0" : "=r"(v)); return v; }
static void dr6_set(u64 v) { asm volatile("mov %0, %%dr6" : : "r"(v)); }
static void dr7_set(u64 v) { asm volatile("mov %0, %%dr7" : : "r"(v)); }

static void on_debug(struct frame *f)
{
    if (count < 16) {
        seen[count].rip = f->rip;
        seen[count].flags = f->rflags;
        seen[count].cs = f->cs;
        seen[count].dr6 = (u32)dr6_get();
    }
    count++;
    if (dr6_get() & 15)
        f->rflags |= RF;
    if (count > 12)
        f->rflags &= ~TF;
    dr6_set(DR6_INIT);
}

static void address_set(int n, u64 at)
{
    switch (n) {
    case 0: asm volatile("mov %0, %%dr0" : : "r"(at)); break;
    case 1: asm volatile("mov %0, %%dr1" : : "r"(at)); break;
    case 2: asm volatile("mov %0, %%dr2" : : "r"(at)); break;
    default: asm volatile("mov %0, %%dr3" : : "r"(at)); break;
    }
}

/* Length 1, 2, 4 or 8; enabled globally. */
static void point(int n, u64 at, int kind, int len)
{
    u64 code = len == 8 ? 2 : len == 4 ? 3 : len == 2 ? 1 : 0;

    address_set(n, at);
    dr7_set((dr7_get() & ~(0xful << (16 + n * 4))) | 2ul << n * 2 | ((u64)kind | code << 2) << (16 + n * 4));
}

static int run_at(const u8 *code, int ring, u64 flags)
{
    struct frame f = frame_at(code, ring);
    int got;

    f.rflags |= flags;
    f.rbx = (u64)watched;
    f.rsi = (u64)watched;
    f.rdi = (u64)watched + 64;
    f.r12 = (u64)&ss_value;
    f.rdx = 0x80;
    count = 0;
    dr6_set(DR6_INIT);
    got = enter(&f);
    dr7_set(0x400);
    return got;
}

CODE(64, store, "movb $1, (%rbx); nop; int3");
CODE(64, load, "movb (%rbx), %al; nop; int3");
CODE(64, outs, "outsb; nop; int3");
CODE(64, ins, "insb; nop; int3");
CODE(64, rep_ins, "mov $3, %ecx; rep insb; nop; int3");
CODE(64, in_word, "mov $0x7f, %edx; inw %dx, %ax; nop; int3");
CODE(64, in_byte, "inb %dx, %al; nop; int3");
CODE(64, cmps, "cmpsb; nop; int3");
CODE(64, xchg, "xchg %al, (%rbx); nop; int3");
CODE(64, cmpxchg_fails, "mov $77, %eax; lock cmpxchg %ecx, (%rbx); nop; int3");
CODE(64, call_mem, "call *(%rbx); int3");
CODE(64, fault_read, "mov 0x10000(%rbx), %al; int3");
CODE(64, mov_ss_int, "mov (%r12), %ss; int $0x90; nop; int3");
CODE(64, mov_ss_int3, "mov (%r12), %ss; int3");
CODE(64, mov_ss_ud, "mov (%r12), %ss; ud2");
CODE(64, mov_ss_syscall, "mov (%r12), %ss; syscall");
CODE(64, mov_ss_icebp, "mov (%r12), %ss; .byte 0xf1; nop; int3");
CODE(64, mov_ss_mov_ss, "mov (%r12), %ss; mov (%r12), %ss; nop; nop; int3");
CODE(64, kernel, "nop; int3");
CODE(64, absent, "nop; mov (%r13), %al; nop; int3");
CODE(64, read_dr, "mov %dr0, %rax; int3");

static void registers(void)
{
    bool all = true;

    for (int n = 0; n < 8; n++) { /* L0, G0, … G3 */
        dr7_set(0x400 | 1ul << n);
        all &= dr7_get() == (0x400 | 1ul << n);
    }
    check(all, "DR7's enable bits are kept");
    dr7_set(0x700);
    check(dr7_get() == 0x700, "LE and GE too: %lx", dr7_get());
    dr7_set(0xffff0000 | 0xd800);
    check((dr7_get() & ~0x800ul) == 0xffff0400, "RTM-less DR7 has bits 15:14 and 12:11 fixed: %lx", dr7_get());
    dr7_set(0x400);
    for (int n = 0; n < 4; n++)
        address_set(n, 0xffff800000000000 + (u64)n);
    u64 d0, d3;
    asm volatile("mov %%dr0, %0; mov %%dr3, %1" : "=r"(d0), "=r"(d3));
    check(d0 == 0xffff800000000000 && d3 == 0xffff800000000003, "addresses are whole");
    address_set(1, (u64)store);
    dr7_set(0x404); /* L1 */
    run_at(store, 0, 0);
    check(count == 1 && seen[0].dr6 & B1, "local enable alone works: %d", count);
    check(dr7_get() == 0x400, "DR7 %lx", dr7_get());
}

static void dr6_bits(void)
{
    point(0, (u64)watched, ON_WRITE, 1);
    count = 0;
    on_interrupt(1, 0);
    dr6_set(DR6_INIT | BS | B3);
    struct frame f = frame_at(store, 0);
    f.rbx = (u64)watched;
    int got = enter(&f);
    check(got == 1 && dr6_get() & B0 && dr6_get() & BS && !(dr6_get() & B3), "B3 to B0 are replaced, BS sticks: %lx",
          dr6_get());
    dr7_set(0x400);
    dr6_set(DR6_INIT);
    on_interrupt(1, on_debug);
    point(0, (u64)watched, ON_WRITE, 8);
    point(2, (u64)watched + 0, ON_RW, 1);
    run_at(store, 0, 0);
    check(count == 1 && (seen[0].dr6 & 15) == (B0 | B2), "two that match at once: %x", seen[0].dr6);
    point(0, (u64)watched, ON_WRITE, 1);
    run_at(store, 0, TF);
    check(count >= 1 && (seen[0].dr6 & (BS | 15)) == (BS | B0), "with a step: %x", seen[0].dr6);
    check(run_at(store, 3, 0) == 3 && count == 0, "none enabled: none");
}

static void one(const char *name, const u8 *code, u64 at, int kind, int len, int n, u32 rip)
{
    point(0, at, kind, len);
    run_at(code, 0, 0);
    check(count == n && (!n || seen[0].rip == (u64)code + rip), "%s: %d, at +%lx DR6 %x", name, count,
          count ? seen[0].rip - (u64)code : 0, seen[0].dr6);
}

static void kinds(void)
{
    u64 w = (u64)watched, cr4 = read_cr4();

    one("unaligned address of a doubleword: low bits do not count", store, w + 3, ON_WRITE, 4, 1, 3);
    one("quadword, address in its middle", store, w + 5, ON_WRITE, 8, 1, 3);
    one("OUTSB reads", outs, w, ON_RW, 1, 1, 1);
    one("INSB writes", ins, w + 64, ON_WRITE, 1, 1, 1);
    one("REP INSB, the second element", rep_ins, w + 65, ON_WRITE, 1, 1, 5);
    one("CMPSB reads its second operand", cmps, w + 64, ON_RW, 1, 1, 1);
    one("XCHG", xchg, w, ON_WRITE, 1, 1, 2);
    one("CMPXCHG that fails writes all the same", cmpxchg_fails, w, ON_WRITE, 1, 1, 9);
    watched[0] = (u64)call_mem + 2;
    one("CALL through memory", call_mem, w, ON_RW, 8, 1, 2);
    one("a load that faults elsewhere", fault_read, w, ON_RW, 1, 0, 0);
    write_cr4(cr4 | 8);
    one("IN of a byte", in_byte, 0x80, ON_IO, 1, 1, 1);
    one("IN of a word over the port", in_word, 0x80, ON_IO, 1, 1, 7);
    one("IN next to two ports", in_byte, 0x82, ON_IO, 2, 0, 0);
    one("INSB from the port", ins, 0x80, ON_IO, 1, 1, 1);
    one("REP INSB from the port: each element", rep_ins, 0x80, ON_IO, 4, 3, 5);
    write_cr4(cr4);
    one("without CR4.DE there are no port breakpoints", in_byte, 0x80, ON_IO, 1, 0, 0);
}

/* The trap of MOV SS waits for the next instruction, whatever that is. SDM vol. 3 §6.8.3. */
static u64 software_rip;
static void on_software(struct frame *f) { software_rip = f->rip; }

static void after_mov_ss(void)
{
    u64 at = (u64)&ss_value;
    int got;

    on_interrupt(0x90, on_software);
    point(0, at, ON_RW, 2);
    got = run_at(mov_ss_int, 0, 0);
    check(got == 3 && count == 1 && seen[0].dr6 & B0 && seen[0].rip == vector_table[0x90],
          "INT n behind it: the trap comes at the handler's first instruction: %d at %lx", count, seen[0].rip);
    point(0, at, ON_RW, 2);
    got = run_at(mov_ss_int3, 0, 0);
    check(got == 3 && count == 1 && seen[0].rip == vector_table[3], "INT3 behind it: %d at %lx", count, seen[0].rip);
    point(0, at, ON_RW, 2);
    got = run_at(mov_ss_ud, 0, 0);
    check(got == 6 && count <= 1, "a fault behind it: vector %d, %d traps", got, count);
    point(0, at, ON_RW, 2);
    got = run_at(mov_ss_icebp, 0, 0);
    check(got == 3 && count >= 1, "INT1 behind it: vector %d, %d traps", got, count);
    point(0, at, ON_RW, 2);
    got = run_at(mov_ss_mov_ss, 0, 0);
    check(got == 3 && count >= 1 && seen[count - 1].rip - (u64)mov_ss_mov_ss - 8 <= 1,
          "two of them: %d, the last at +%lx", count, seen[count - 1].rip - (u64)mov_ss_mov_ss);
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 1);
    wrmsr(MSR_STAR, 8ul << 32 | 0x1bul << 48);
    wrmsr(MSR_LSTAR, (u64)kernel);
    wrmsr(MSR_SFMASK, 0x700);
    ss_value = 0x2b;
    point(0, at, ON_RW, 2);
    got = run_at(mov_ss_syscall, 3, 0);
    check(got == 3 && count == 1 && seen[0].rip == (u64)kernel && seen[0].cs == 8,
          "SYSCALL behind it: the trap comes in the kernel: %d at %lx CS %lx", count, seen[0].rip, seen[0].cs);
    ss_value = 0x10;
}

/* A fault's frame has RF set: its restart does not meet the breakpoint again. */
static u64 *pte;
static int faults;
static bool rf_in_frame;
static void on_page_fault(struct frame *f)
{
    faults++;
    rf_in_frame = f->rflags & RF;
    *pte |= PTE_P;
    invlpg(0x40000000000);
}

static void resume(void)
{
    struct frame f = frame_at(absent, 0);

    pte = pte_of(0x40000000000);
    *pte = (u64)page_alloc() | PTE_W;
    invlpg(0x40000000000);
    on_interrupt(14, on_page_fault);
    point(0, (u64)absent + 1, ON_EXEC, 1);
    f.r13 = 0x40000000000;
    count = 0;
    dr6_set(DR6_INIT);
    check(enter(&f) == 3 && count == 1 && faults == 1 && rf_in_frame,
          "breakpoint, then a page fault, then neither: %d %d", count, faults);
    on_interrupt(14, 0);
    dr7_set(0x400);
    on_interrupt(1, 0);
    dr7_set(0x2400);
    check(catch_fault((void (*)(void *))read_dr, 0) == 1 && dr6_get() & BD && caught.rflags & RF,
          "general detect is a fault: its frame has RF set");
    dr6_set(DR6_INIT);
    on_interrupt(1, on_debug);
    dr7_set(0x400);
}

void guest_main(void)
{
    user_text_allow(true);
    tss.ist[0] = (u64)page_alloc() + 4096;
    idt_set(1, (void *)vector_table[1], 0x8e, 1);
    on_interrupt(1, on_debug);
    registers();
    dr6_bits();
    kinds();
    after_mov_ss();
    resume();
}
