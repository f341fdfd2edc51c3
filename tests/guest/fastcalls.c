/* Corners of SYSCALL, SYSRET, SYSENTER and SYSEXIT in long mode: single steps over them, every flag masked, selectors
 * that no table holds, compatibility mode, ring 0 callers. What they do as such is in sysregs.c. SDM vol. 2, vol. 3
 * §5.8.7, §5.8.8. */
#include "guest.h"

#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_SFMASK 0xc0000084u
enum { MSR_SYSENTER_CS = 0x174, MSR_SYSENTER_ESP = 0x175, MSR_SYSENTER_EIP = 0x176 };
#define TF 0x100ul
#define RF 0x10000ul
enum { USER64 = 0x23, USER32 = 0x33 };

CODE(64, do_syscall, "syscall; int3");
CODE(64, kernel, "mov %cs, %edi; mov %ss, %esi; pushf; pop %rbp; int3");
CODE(64, do_sysretq, "sysretq");
CODE(64, do_sysretl, "sysretl");
CODE(64, user, "nop; nop; int3");
CODE(32, user32, "nop; nop; int3");
CODE(32, do_syscall32, "syscall; int3");
CODE(32, do_sysret32, "sysret; int3");
CODE(32, do_sysenter32, "sysenter; int3");
CODE(64, do_sysenter, "sysenter; int3");
CODE(64, do_sysexitq, ".byte 0x48; sysexit");

static u8 stack[4096] __attribute__((aligned(16)));
static bool is_intel;

/* A selector list that the fast calls like: 60 kernel code, 68 kernel data, 70 user code 32, 78 user data, 80 user
 * code 64, 88 user data again. */
enum { FAST = 0x60 };
static void setup(void)
{
    u32 r[4];

    cpuid(0, 0, r);
    is_intel = r[1] == 0x756e6547;
    gdt[FAST / 8] = gdt[1];
    gdt[FAST / 8 + 1] = gdt[2];
    gdt[FAST / 8 + 2] = gdt[6];
    gdt[FAST / 8 + 3] = gdt[5];
    gdt[FAST / 8 + 4] = gdt[4];
    gdt[FAST / 8 + 5] = gdt[5];
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1);
    wrmsr(MSR_STAR, (u64)FAST << 32 | (u64)(FAST + 8) << 48);
    wrmsr(MSR_LSTAR, (u64)kernel);
    wrmsr(MSR_SFMASK, 0x700);
    wrmsr(MSR_SYSENTER_CS, FAST);
    wrmsr(MSR_SYSENTER_EIP, (u64)kernel);
    wrmsr(MSR_SYSENTER_ESP, (u64)stack + sizeof(stack) - 64);
    user_text_allow(true);
    tss.ist[0] = (u64)page_alloc() + 4096;
    idt_set(1, (void *)vector_table[1], 0x8e, 1);
}

static void steps(void)
{
    struct frame f = frame_at(do_syscall, 3);

    f.rflags |= TF;
    check(enter(&f) == 3 && caught.cs == FAST && caught.r11 & TF && !(caught.rbp & TF),
          "SYSCALL with TF, which the mask clears: no step in the kernel: vector %lu", caught.vector);
    wrmsr(MSR_SFMASK, 0x600);
    check(enter(&f) == 1 && caught.cs == FAST && caught.rip == (u64)kernel,
          "not masked: a step at its target: vector %lu", caught.vector);
    wrmsr(MSR_SFMASK, 0x700);
    f = frame_at(do_sysretq, 0);
    f.rcx = (u64)user;
    f.r11 = TF | 2;
    check(enter(&f) == 1 && (caught.cs & 3) == 3 && caught.rip == (u64)user,
          "SYSRET that sets TF: a step before the program's first instruction: vector %lu at +%lx", caught.vector,
          caught.rip - (u64)user);
    f.r11 = RF | 2;
    check(enter(&f) == 3 && !(caught.rflags & RF), "SYSRET clears RF");
    f.rflags |= TF;
    f.r11 = 2;
    check(enter(&f) == 3, "SYSRET that clears TF: no step: vector %lu", caught.vector);
    if (!is_intel)
        return;
    f = frame_at(do_sysenter, 3);
    f.rflags |= TF;
    check(enter(&f) == 1 && caught.cs == FAST && caught.rip == (u64)kernel, "SYSENTER leaves TF: a step at its target");
}

static void flags(void)
{
    struct frame f = frame_at(do_syscall, 3);

    wrmsr(MSR_SFMASK, 0xffffffff);
    f.rflags = 0x40ed7 & ~(TF | 0x4000);
    check(enter(&f) == 3 && caught.rbp == 2, "SFMASK of all ones leaves flags %lx", caught.rbp);
    wrmsr(MSR_SFMASK, 0);
    f.rflags = 0x4ed7 & ~TF;
    check(enter(&f) == 3 && caught.rbp == f.rflags, "SFMASK of zero: flags %lx of %lx", caught.rbp, f.rflags);
    wrmsr(MSR_SFMASK, 0x700);
}

/* Selectors are computed, descriptors are not looked at. */
static void selectors(void)
{
    struct frame f = frame_at(do_syscall, 3);

    wrmsr(MSR_STAR, (u64)(FAST | 3) << 32 | (u64)(FAST + 8) << 48);
    check(enter(&f) == 3 && caught.rdi == FAST, "STAR's RPL does not count in CS: %lx", caught.rdi);
    wrmsr(MSR_STAR, 0xf000ul << 32 | (u64)(FAST + 8) << 48);
    check(enter(&f) == 3 && caught.rdi == 0xf000 && caught.rsi == 0xf008 && caught.ss == 0xf008,
          "CS and SS beyond the GDT: %lx %lx", caught.rdi, caught.rsi);
    wrmsr(MSR_STAR, (u64)FAST << 32 | 0xe000ul << 48);
    f = frame_at(do_sysretq, 0);
    f.rcx = (u64)user;
    f.r11 = 2;
    check(enter(&f) == 3 && caught.cs == 0xe013 && caught.ss == 0xe00b, "SYSRET's too: %lx %lx", caught.cs, caught.ss);
    wrmsr(MSR_STAR, (u64)FAST << 32 | (u64)(FAST + 8) << 48);
    f = frame_at(do_syscall, 0);
    f.r12 = 7;
    check(enter(&f) == 3 && caught.cs == FAST && caught.rcx == (u64)do_syscall + 2, "SYSCALL in ring 0");
    f = frame_at(do_sysretl, 0);
    f.rcx = 0xffffffff00000000ul | (u64)user32;
    f.r11 = 2;
    check(enter(&f) == 3 && caught.cs == ((FAST + 8) | 3) && caught.rip == (u64)user32 + 3, "SYSRETL cuts RCX: CS %lx",
          caught.cs);
}

static void compatibility(void)
{
    struct frame f = frame_at(do_syscall32, 3);
    int got;

    f.cs = USER32;
    got = enter(&f);
    check(got == (is_intel ? 6 : 3), "SYSCALL in compatibility mode: vector %d", got);
    f = frame_at(do_sysret32, 0);
    f.cs = 0x18;
    f.ss = 0x10;
    check(enter(&f) == 6, "SYSRET in compatibility mode: vector %lu", caught.vector);
    if (!is_intel)
        return;
    f = frame_at(do_sysenter32, 3);
    f.cs = USER32;
    check(enter(&f) == 3 && caught.cs == FAST && caught.rip == (u64)kernel_end &&
              caught.rsp == (u64)stack + sizeof(stack) - 64,
          "SYSENTER in compatibility mode goes to 64-bit code: CS %lx", caught.cs);
    wrmsr(MSR_SYSENTER_CS, FAST | 3);
    check(enter(&f) == 3 && caught.cs == FAST, "its RPL does not count: CS %lx", caught.cs);
    wrmsr(MSR_SYSENTER_CS, 3);
    check(enter(&f) == 13 && caught.error == 0, "nor makes it a selector that is not null");
    f = frame_at(do_sysexitq, 0);
    check(enter(&f) == 13 && caught.error == 0, "SYSEXIT with such a CS: #GP");
    wrmsr(MSR_SYSENTER_CS, FAST);
    f = frame_at(do_sysexitq, 3);
    check(enter(&f) == 13, "SYSEXIT in ring 3: #GP");
    f = frame_at(do_sysexitq, 0);
    f.rdx = (u64)user;
    f.rcx = 0x800000000000;
    check(enter(&f) == 13 && (caught.cs & 3) == 0, "SYSEXIT to a bad stack: #GP in ring 0");
}

void guest_main(void)
{
    setup();
    steps();
    flags();
    selectors();
    compatibility();
}
