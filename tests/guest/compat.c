/* Legacy code around long mode: compatibility mode in 32 and 16 bits, 64-bit call gates from both, far transfers and
 * IRET between code sizes, null stacks, and leaving long mode for 32-bit protected mode and coming back. SDM vol. 3
 * §5.8.3.1, §6.14, §9.8.5; vol. 2. */
#include "guest.h"

enum {
    CODE64_SEL = 0x08,
    DATA_SEL = 0x10,
    CODE32_SEL = 0x18,
    USER64 = 0x23,
    USER_DATA = 0x2b,
    USER32 = 0x33,
    USER16 = 0x63,
    GATE_SEL = 0x70,
    BASED_SEL = 0x80,
    LIMITED_SEL = 0x88,
    BAD_LD_SEL = 0x90,
    RING1_SEL = 0x98
};

CODE(32, legacy32, "mov $0x12345678, %eax; push %eax; pusha; popa; pop %ecx; inc %ecx; mov %cs, %edx; int3");
CODE(32, wrap32, "mov $0xfffffff0, %ebx; mov 0x20(%ebx), %eax; int3");
CODE(32, upper_halves, "mov $-1, %eax; mov %eax, %ecx; int3");
CODE(32, based, "mov %ds:0, %eax; mov %fs:4, %ecx; int3");
CODE(32, limited, "mov %fs:(%ebx), %al; int3");
CODE(32, old32, "mov $0x79, %al; add $0x35, %al; daa; mov $63, %bl; push %es; pop %es; into; int3");
CODE(32, call_gate32, "lcall $0x73, $0; mov %cs, %edx; int3");
CODE(32, to_64, "ljmp $0x23, $to_64_target");
CODE(64, to_64_target, "mov %cs, %edx; mov $-1, %rax; int3");
CODE(16, legacy16, "mov $0x1234, %ax; push %ax; pop %cx; mov %cs, %dx; int3");
CODE(64, gate_target, "mov %cs, %edi; mov %ss, %esi; mov %rsp, %rbp; mov 16(%rsp), %r8; mov 24(%rsp), %r9; lretq");
CODE(64, gate_end, "mov %cs, %edi; mov %ss, %esi; mov %rsp, %rbp; int3");
CODE(64, call_gate64, "lcall *(%rbx); mov %cs, %edx; int3");
CODE(64, jump_far, "rex.w ljmp *(%rbx)");
CODE(64, jump_far32, "ljmp *(%rbx)");
CODE(64, ret_far, "lretq");
CODE(64, ret_far32, "lret");
CODE(64, iret64, "iretq");
CODE(64, iret32, "iret");
CODE(64, end64, "mov %cs, %edx; mov %ss, %esi; int3");
CODE(32, end32, "mov %cs, %edx; int3");
CODE(64, load_ss, "mov %eax, %ss; int3");

static struct {
    u64 offset;
    u16 sel;
} __attribute__((packed)) far64;
static struct {
    u32 offset;
    u16 sel;
} __attribute__((packed)) far32;
static u32 low_data[4] = {0x11111111, 0x22222222, 0x33333333, 0x44444444};

static u64 descriptor(u32 base, u32 limit, u8 access, u8 flags)
{
    return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 | (u64)(limit >> 16 & 15) << 48 |
           (u64)flags << 52 | (u64)(base >> 24) << 56;
}

static void gate_set(u16 sel, const void *target, u8 access)
{
    u64 a = (u64)target;

    gdt[GATE_SEL / 8] = (a & 0xffff) | (u64)sel << 16 | (u64)access << 40 | (a >> 16 & 0xffff) << 48;
    gdt[GATE_SEL / 8 + 1] = a >> 32;
}

static struct frame frame32(const void *code)
{
    struct frame f = frame_at(code, 3);

    f.cs = USER32;
    return f;
}

static void expect(const char *name, const struct frame *f, int vector, u64 error)
{
    int got = enter(f);

    check(got == vector && caught.error == error, "%s: vector %d error %lx (expected %d, %lx)", name, got, caught.error,
          vector, error);
}

static void set_data(u16 ds, u16 fs)
{
    asm volatile("mov %0, %%ds; mov %0, %%es; mov %1, %%fs" : : "r"((u32)ds), "r"((u32)fs));
}

static void compatibility(void)
{
    struct frame f = frame32(legacy32);

    set_data(USER_DATA, USER_DATA);
    expect("32-bit code in compatibility mode", &f, 3, 0);
    check((u32)caught.rcx == 0x12345679 && (u16)caught.rdx == USER32 && caught.rsp == f.rsp, "PUSHA, short INC");
    f = frame32(wrap32);
    low_data[0] = 0x11111111;
    *(volatile u32 *)0x10 = 0x77777777;
    *pte_of(0) |= PTE_U;
    invlpg(0);
    expect("addresses wrap at 4 GiB", &f, 3, 0);
    check((u32)caught.rax == 0x77777777, "%lx", caught.rax);
    f = frame32(upper_halves);
    f.r8 = 0x8888888888888888;
    expect("registers", &f, 3, 0);
    check(caught.rax >> 32 == 0 && caught.r8 == 0x8888888888888888, "R8 survives compatibility mode: %lx", caught.r8);
    gdt[BASED_SEL / 8] = descriptor((u32)(u64)low_data, 15, 0xf3, 4);
    set_data(BASED_SEL | 3, BASED_SEL | 3);
    f = frame32(based);
    expect("segment bases count", &f, 3, 0);
    check((u32)caught.rax == 0x11111111 && (u32)caught.rcx == 0x22222222, "%lx %lx", caught.rax, caught.rcx);
    f = frame32(limited);
    f.rbx = 16;
    expect("and limits", &f, 13, 0);
    set_data(USER_DATA, 0);
    f.rbx = 0;
    expect("and null selectors", &f, 13, 0);
    set_data(USER_DATA, USER_DATA);
    f = frame32(old32);
    expect("DAA, INTO", &f, 3, 0);
    gdt[USER16 / 8] = descriptor((u32)(u64)legacy16, 0xffff, 0xfb, 0);
    f = frame_at(0, 3);
    f.cs = USER16;
    expect("16-bit code in compatibility mode", &f, 3, 0);
    check((u16)caught.rcx == 0x1234 && (u16)caught.rdx == USER16 && caught.rip == (u64)(legacy16_end - legacy16),
          "IP %lx", caught.rip);
    f = frame32(to_64);
    expect("JMP from 32-bit to 64-bit code", &f, 3, 0);
    check((u16)caught.rdx == USER64 && caught.rax == ~0ul, "CS %lx RAX %lx", caught.rdx, caught.rax);
}

static void call_gates(void)
{
    struct frame f = frame_at(call_gate64, 3);

    far32.sel = GATE_SEL | 3;
    f.rbx = (u64)&far32;
    gate_set(CODE64_SEL, gate_end, 0xec);
    expect("call gate from 64-bit ring 3", &f, 3, 0);
    check(caught.rdi == CODE64_SEL && caught.rsi == 0 && caught.rbp == tss.rsp[0] - 32,
          "CS %lx, null SS %lx, stack of the TSS", caught.rdi, caught.rsi);
    u64 *s = (u64 *)caught.rbp;
    check(s[0] == (u64)call_gate64 + 2 && (u16)s[1] == USER64 && s[2] == f.rsp && (u16)s[3] == USER_DATA,
          "the frame of four quadwords");
    gate_set(CODE64_SEL, gate_target, 0xec);
    expect("and back", &f, 3, 0);
    check((u16)caught.rdx == USER64 && caught.rsp == f.rsp && caught.cs == USER64, "in ring 3");
    f = frame32(call_gate32);
    expect("from 32-bit code and back", &f, 3, 0);
    check((u16)caught.rdx == USER32 && caught.rsp == f.rsp, "CS %lx", caught.rdx);
    f = frame_at(call_gate64, 3);
    f.rbx = (u64)&far32;
    gate_set(CODE64_SEL, gate_end, 0x8c);
    expect("gate of DPL 0", &f, 13, GATE_SEL);
    gate_set(CODE64_SEL, gate_end, 0x6c);
    expect("gate not present", &f, 11, GATE_SEL);
    gate_set(CODE32_SEL, gate_end, 0xec);
    expect("gate to 32-bit code", &f, 13, CODE32_SEL);
    gate_set(DATA_SEL, gate_end, 0xec);
    expect("gate to data", &f, 13, DATA_SEL);
    gate_set(CODE64_SEL, (void *)0x800000000000, 0xec);
    expect("gate to a bad address", &f, 13, 0);
    gate_set(CODE64_SEL, gate_end, 0xec);
    gdt[GATE_SEL / 8 + 1] |= 0x1ul << 40;
    expect("gate with a type in its upper half", &f, 13, GATE_SEL);
    gate_set(CODE64_SEL, gate_end, 0xe4);
    expect("16-bit gate", &f, 13, GATE_SEL);
    gate_set(CODE64_SEL, gate_end, 0xe5);
    expect("task gate", &f, 13, GATE_SEL);
}

static void far_transfers(void)
{
    struct frame f = frame_at(jump_far, 0);
    u64 *s;

    far64.offset = (u64)end64;
    far64.sel = CODE64_SEL;
    f.rbx = (u64)&far64;
    expect("JMP m16:64", &f, 3, 0);
    far64.offset = 0x800000000000;
    expect("to a bad address", &f, 13, 0);
    gdt[BAD_LD_SEL / 8] = descriptor(0, 0xfffff, 0x9b, 14);
    far64.sel = BAD_LD_SEL;
    far64.offset = (u64)end64;
    expect("to a segment with both L and D", &f, 13, BAD_LD_SEL);
    f = frame_at(jump_far32, 3);
    f.rbx = (u64)&far32;
    far32.offset = (u32)(u64)end32;
    far32.sel = USER32;
    expect("JMP m16:32 to 32-bit code", &f, 3, 0);
    check((u16)caught.rdx == USER32, "CS %lx", caught.rdx);
    f = frame_at(ret_far, 0);
    s = (u64 *)(f.rsp -= 64);
    s[0] = (u64)end32;
    s[1] = USER32;
    s[2] = 0x1234567890;
    s[3] = USER_DATA;
    expect("RETQ to 32-bit ring 3", &f, 3, 0);
    check(caught.cs == USER32 && caught.rsp == 0x34567890, "RSP is cut: %lx", caught.rsp);
    s[1] = USER64;
    s[0] = (u64)end64;
    s[3] = 3;
    expect("RETQ to 64-bit ring 3 with a null stack", &f, 13, 0);
}

static void irets(void)
{
    struct frame f = frame_at(iret64, 0);
    u64 *s = (u64 *)(f.rsp -= 64);
    static u8 other[256] __attribute__((aligned(16)));

    s[0] = (u64)end64;
    s[1] = CODE64_SEL;
    s[2] = 2;
    s[3] = (u64)other + 200;
    s[4] = DATA_SEL;
    expect("IRETQ in ring 0 pops a stack", &f, 3, 0);
    check(caught.rsp == (u64)other + 200, "RSP %lx", caught.rsp);
    s[4] = 0;
    expect("IRETQ in ring 0 to a null stack", &f, 3, 0);
    check((u16)caught.rsi == 0, "SS %lx", caught.rsi);
    s[1] = USER64;
    s[4] = 3;
    expect("IRETQ to ring 3 with a null stack", &f, 13, 0);
    s[4] = DATA_SEL;
    expect("IRETQ to ring 3 with a stack of ring 0", &f, 13, DATA_SEL);
    s[4] = USER_DATA;
    s[0] = 0x800000000000;
    expect("IRETQ to a bad address", &f, 13, 0);
    check((caught.cs & 3) == 0 || (caught.cs & 3) == 3, "raised in ring %d", (int)caught.cs & 3);
    s[0] = (u64)end64;
    s[1] = CODE32_SEL;
    s[4] = 0;
    s[0] = (u64)end32;
    expect("IRETQ to 32-bit ring 0 with a null stack", &f, 13, 0);
    s[1] = USER64;
    s[0] = (u64)end64;
    s[2] = 0x4002;
    s[4] = USER_DATA;
    expect("IRETQ that sets NT", &f, 3, 0);
    check(caught.rflags & 0x4000, "flags %lx", caught.rflags);
    f.rflags |= 0x4000;
    expect("IRET with NT set: no task to return to", &f, 13, 0);
    f = frame_at(iret32, 0);
    ((u32 *)(f.rsp -= 64))[0] = (u32)(u64)end64;
    ((u32 *)f.rsp)[1] = USER64;
    ((u32 *)f.rsp)[2] = 2;
    ((u32 *)f.rsp)[3] = 0x5000;
    ((u32 *)f.rsp)[4] = USER_DATA;
    expect("IRET of doublewords in 64-bit mode", &f, 3, 0);
    check(caught.rsp == 0x5000, "RSP %lx", caught.rsp);
    f = frame_at(load_ss, 0);
    f.rax = 0;
    expect("null SS in 64-bit ring 0", &f, 3, 0);
    f.rax = 3;
    expect("null SS with RPL 3 in ring 0", &f, 13, 0);
    f = frame_at(load_ss, 3);
    f.rax = 3;
    expect("null SS in ring 3", &f, 13, 0);
}

/* Out of long mode and back. Counts in protected mode without paging; SIDT-sized tables stay valid as no interrupt
 * comes. */
extern u32 rounds_done, efer_outside;
void leave_and_return(u32 rounds);
asm(".pushsection .text\n.code64\n"
    "leave_and_return: push %rbx; push %rbp; mov %rsp, kept_rsp(%rip)\n"
    "1: push $0x18; lea 2f(%rip), %rax; push %rax; lretq\n"
    ".code32\n"
    "2: mov $0x10, %eax; mov %eax, %ss; mov %eax, %ds\n"
    "mov %cr0, %eax; and $0x7fffffff, %eax; mov %eax, %cr0\n"
    "mov $0xc0000080, %ecx; rdmsr; mov %eax, efer_outside; and $~0x100, %eax; wrmsr\n"
    "incl rounds_done; pusha; popa; aam\n"
    "mov %cr4, %eax; and $~0x20, %eax; mov %eax, %cr4; or $0x20, %eax; mov %eax, %cr4\n"
    "mov $0xc0000080, %ecx; rdmsr; or $0x100, %eax; wrmsr\n"
    "mov %cr0, %eax; or $0x80000000, %eax; mov %eax, %cr0\n"
    "mov %cr0, %eax; ljmp $0x08, $3f\n"
    ".code64\n"
    "3: mov kept_rsp(%rip), %rsp; dec %edi; jnz 1b\n"
    "pop %rbp; pop %rbx; ret\n"
    ".popsection\n"
    ".pushsection .data\n.balign 8\nkept_rsp: .quad 0\nrounds_done: .long 0\nefer_outside: .long 0\n.popsection");

static void round_trips(void)
{
    leave_and_return(1);
    check(rounds_done == 1 && !(efer_outside & 0x400), "out of long mode and back: EFER %x outside", efer_outside);
    leave_and_return(200);
    check(rounds_done == 201, "two hundred times more");
    check(rdmsr(0xc0000080) & 0x400, "LMA is set again");
}

void guest_main(void)
{
    user_text_allow(true);
    compatibility();
    call_gates();
    far_transfers();
    irets();
    set_data(DATA_SEL, 0);
    round_trips();
}
