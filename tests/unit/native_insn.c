/* One instruction on silicon: see native_insn.h.
 *
 * The page at NATIVE_CODE holds the instruction, then a jump back. All registers, RSP too, are the test's while it
 * runs; signals arrive on a stack of their own and make the code go on at the exit, which stores everything. */
#include "native_insn.h"

#include <asm/prctl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "cpu/xstate.h"

#define CODE_END 0x800 /* offset in the page where the instruction ends and the way back begins */
#define WAY_BACK64 0x900
#define SIGNAL_STACK_SIZE 131072
#define NATIVE_CS32 0x23 /* Linux' segment of 32-bit programs */

static struct native_fault fault;
static struct sigaction next_handler[65];
static u8 signal_stack[SIGNAL_STACK_SIZE];

/* What the assembly below loads and stores. */
struct native_registers {
    _Alignas(64) u8 xsave[4096]; /* as the host lays it out */
    u64 gpr[16];
    u64 rflags;
    u64 components;
};
struct native_registers native_registers, *native_st = &native_registers;
u64 native_host_rsp, native_target, native_rsp, native_rax;
u32 native_mxcsr = 0x1f80;
struct far_pointer {
    u32 offset;
    u16 selector;
} __attribute__((packed)) native_far;

void native_enter(u64 is_far);
void native_exit(void);

__asm__(
    ".text\n"
    ".globl native_enter, native_exit\n"
    "native_enter:\n"
    "  push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; pushfq\n"
    "  mov %rsp, native_host_rsp(%rip)\n"
    "  mov native_st(%rip), %rbx\n"
    "  mov 4096+136(%rbx), %eax; mov 4096+140(%rbx), %edx\n"
    "  xrstor64 (%rbx)\n"
    "  test %rdi, %rdi\n"
    "  pushq 4096+128(%rbx)\n"
    "  lea 4096(%rbx), %rax\n"
    "  jnz 1f\n"
    "  popfq\n"
    "  jmp native_load\n"
    "1: popfq\n"
    "  jmp native_load_far\n"
    "native_load:\n"
    "  mov 8(%rax), %rcx; mov 16(%rax), %rdx; mov 24(%rax), %rbx; mov 32(%rax), %rsp; mov 40(%rax), %rbp\n"
    "  mov 48(%rax), %rsi; mov 56(%rax), %rdi; mov 64(%rax), %r8; mov 72(%rax), %r9; mov 80(%rax), %r10\n"
    "  mov 88(%rax), %r11; mov 96(%rax), %r12; mov 104(%rax), %r13; mov 112(%rax), %r14; mov 120(%rax), %r15\n"
    "  mov (%rax), %rax\n"
    "  jmp *native_target(%rip)\n"
    "native_load_far:\n"
    "  mov 8(%rax), %rcx; mov 16(%rax), %rdx; mov 24(%rax), %rbx; mov 32(%rax), %rsp; mov 40(%rax), %rbp\n"
    "  mov 48(%rax), %rsi; mov 56(%rax), %rdi; mov 64(%rax), %r8; mov 72(%rax), %r9; mov 80(%rax), %r10\n"
    "  mov 88(%rax), %r11; mov 96(%rax), %r12; mov 104(%rax), %r13; mov 112(%rax), %r14; mov 120(%rax), %r15\n"
    "  mov (%rax), %rax\n"
    "  ljmp *native_far(%rip)\n"
    "native_exit:\n"
    "  mov %rsp, native_rsp(%rip)\n"
    "  mov %rax, native_rax(%rip)\n"
    "  mov native_host_rsp(%rip), %rsp\n"
    "  pushfq\n"
    "  mov native_st(%rip), %rax\n"
    "  popq 4096+128(%rax)\n"
    "  add $4096, %rax\n"
    "  mov %rcx, 8(%rax); mov %rdx, 16(%rax); mov %rbx, 24(%rax); mov %rbp, 40(%rax)\n"
    "  mov %rsi, 48(%rax); mov %rdi, 56(%rax); mov %r8, 64(%rax); mov %r9, 72(%rax); mov %r10, 80(%rax)\n"
    "  mov %r11, 88(%rax); mov %r12, 96(%rax); mov %r13, 104(%rax); mov %r14, 112(%rax); mov %r15, 120(%rax)\n"
    "  mov native_rsp(%rip), %rcx; mov %rcx, 32(%rax)\n"
    "  mov native_rax(%rip), %rcx; mov %rcx, (%rax)\n"
    "  mov 136(%rax), %ecx; mov 140(%rax), %edx; mov %rax, %rbx; mov %ecx, %eax\n"
    "  xsave64 -4096(%rbx)\n"
    "  fninit; ldmxcsr native_mxcsr(%rip); vzeroupper\n"
    "  popfq; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "  ret\n");
_Static_assert(offsetof(struct native_registers, gpr) == 4096 && offsetof(struct native_registers, components) == 4096 + 136,
               "the assembly knows these");

/* Components are where CPUID says; in a native_state where ext_components does. */
static void image_copy(struct native_state *st, bool to_host)
{
    u8 *host = native_registers.xsave;

    memcpy(to_host ? host : st->xsave, to_host ? st->xsave : host, XSAVE_EXTENDED);
    for (u32 n = XCOMP_AVX; n < XCOMP_COUNT; n++) {
        u32 size = ext_components[n].size, offset, c, d;
        u8 *ours = st->xsave + ext_components[n].offset;

        if (!(st->components >> n & 1))
            continue;
        __asm__("cpuid" : "=a"(size), "=b"(offset), "=c"(c), "=d"(d) : "a"(0xd), "c"(n));
        memcpy(to_host ? host + offset : ours, to_host ? ours : host + offset, size);
    }
}

static bool in_code_page(u64 pc)
{
    return pc - NATIVE_CODE < 4096;
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
    greg_t *gregs = ((ucontext_t *)context)->uc_mcontext.gregs;

    if (!in_code_page((u64)gregs[REG_RIP])) {
        if (next_handler[sig].sa_flags & SA_SIGINFO)
            next_handler[sig].sa_sigaction(sig, info, context);
        else
            signal(sig, SIG_DFL);
        return;
    }
    fault = (struct native_fault){(int)gregs[REG_TRAPNO], (u64)gregs[REG_ERR], (u64)info->si_addr};
    gregs[REG_RIP] = (greg_t)(uintptr_t)native_exit;
    gregs[REG_CSGSFS] = (gregs[REG_CSGSFS] & ~0xffffll) | 0x33;
}

static void put(u8 **at, const void *bytes, size_t n)
{
    memcpy(*at, bytes, n);
    *at += n;
}

/* The instruction ends at CODE_END, where a far jump leads from 32-bit code to WAY_BACK64, whence 64-bit code
 * leaves. For 64-bit instructions the byte at CODE_END is another: see native_run. */
static void way_back(void)
{
    void *exit = native_exit;
    u8 *at = (u8 *)NATIVE_CODE + WAY_BACK64;

    put(&at, (const u8[]){0xff, 0x25, 0, 0, 0, 0}, 6); /* jmp *[rip] */
    put(&at, &exit, 8);
}

void native_setup(void)
{
    stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof(signal_stack)};
    void *p = mmap((void *)NATIVE_CODE, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    if (p != (void *)NATIVE_CODE || sigaltstack(&stack, NULL))
        abort();
    way_back();
    __asm__ volatile("mov %0, %%ds; mov %0, %%es" : : "r"(0x2b)); /* 32-bit code needs them */
    if (syscall(SYS_arch_prctl, ARCH_SET_GS, NATIVE_GS_BASE))
        abort();
}

void native_signals(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    for (size_t n = 0; n < ARRAY_SIZE(signals); n++)
        sigaction(signals[n], &sa, &next_handler[signals[n]]);
}

bool native_has_32_bit(void)
{
    u16 selector = NATIVE_CS32;
    bool readable;

    __asm__("verr %1" : "=@ccz"(readable) : "r"(selector));
    return readable;
}

u64 native_address(int len)
{
    return NATIVE_CODE + CODE_END - (u64)len;
}

struct native_fault native_run(struct native_state *st, const u8 *bytes, int len, int bits)
{
    u8 *end = (u8 *)NATIVE_CODE + CODE_END;
    u32 way = (u32)(NATIVE_CODE + WAY_BACK64), rel = WAY_BACK64 - CODE_END - 5;

    memcpy(end - len, bytes, (size_t)len);
    if (bits == 32) {
        end[0] = 0xea; /* ljmp 0x33:way */
        memcpy(end + 1, &way, 4);
        memcpy(end + 5, (const u8[]){0x33, 0}, 2);
    } else {
        end[0] = 0xe9; /* jmp way */
        memcpy(end + 1, &rel, 4);
    }
    memset(native_registers.xsave, 0, sizeof(native_registers.xsave));
    image_copy(st, true);
    memcpy(native_registers.gpr, st->gpr, sizeof(st->gpr));
    native_registers.rflags = st->rflags;
    native_registers.components = st->components;
    native_target = native_address(len);
    native_far = (struct far_pointer){(u32)native_target, NATIVE_CS32};
    fault.vector = -1;
    native_enter(bits == 32);
    image_copy(st, false);
    memcpy(st->gpr, native_registers.gpr, sizeof(st->gpr));
    st->rflags = native_registers.rflags;
    return fault;
}
