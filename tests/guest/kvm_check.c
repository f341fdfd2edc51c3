/* kvm_check NEED…: whether this host's /dev/kvm has what a guest under test needs, found out by a few instructions on a
 * bare VM, without skerry. Exit status 0, or 77 (skip) with a sentence. Hardware has all of it; a KVM that is software
 * may not, and then what fails in a guest is not ours.
 *
 * The VM: identity-mapped 64-bit mode, one 2 MiB page for everybody, an IDT whose gates print their vector to a port.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

enum {
    SKIP = 77,
    MEMORY = 1 << 20,
    GDT = 0x2000,
    IDT = 0x3000,
    HANDLERS = 0x4000,
    TSS = 0x6000,
    CODE = 0x8000,
    KERNEL = 0x8800,
    STACK = 0xa000,
    TABLES = 0x10000,
    DATA = 0x20000,
    PORT_VECTOR = 0xf4,
    PORT_DONE = 0xf5,
    SHOWN = 0x534b59,
};
enum { FLAG_TF = 0x100 };

static struct {
    int vm, vcpu;
    uint8_t *memory;
    struct kvm_run *run;
    size_t run_size;
} kvm;

static void put64(uint64_t at, uint64_t val)
{
    memcpy(kvm.memory + at, &val, 8);
}

static uint64_t get64(uint64_t at)
{
    uint64_t val;

    memcpy(&val, kvm.memory + at, 8);
    return val;
}

static void tables_fill(void)
{
    put64(TABLES, (TABLES + 0x1000) | 7);
    put64(TABLES + 0x1000, (TABLES + 0x2000) | 7);
    put64(TABLES + 0x2000, 0x87);
    put64(GDT + 0x08, 0x00af9b000000ffff);
    put64(GDT + 0x10, 0x00cf93000000ffff);
    put64(GDT + 0x18, 0x00cff3000000ffff);
    put64(GDT + 0x20, 0x00affb000000ffff);
    put64(TSS + 4, STACK - 0x1000);
    for (uint64_t n = 0; n < 256; n++) {
        uint64_t handler = HANDLERS + 16 * n;
        const uint8_t code[] = {0xb0, (uint8_t)n, 0xe6, PORT_VECTOR, 0xf4}; /* mov al, n; out PORT_VECTOR, al; hlt */

        memcpy(kvm.memory + handler, code, sizeof(code));
        put64(IDT + 16 * n, (handler & 0xffff) | 8ull << 16 | 0xeeull << 40 | handler >> 16 << 48);
    }
}

/* CPUID leaf 1 shows SHOWN in EAX and no feature; nothing else is shown but 64-bit mode. */
static int cpuid_set(void)
{
    struct {
        struct kvm_cpuid2 head;
        struct kvm_cpuid_entry2 entry[2];
    } list = {
        .head.nent = 2,
        .entry = {{.function = 1, .eax = SHOWN}, {.function = 0x80000001, .edx = 1u << 29 | 1u << 20 | 1u << 11}}};

    return ioctl(kvm.vcpu, KVM_SET_CPUID2, &list);
}

static const char *set_up(void)
{
    struct kvm_userspace_memory_region region = {.memory_size = MEMORY};
    int dev = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (dev < 0)
        return errno == ENOENT ? "this host has no /dev/kvm" : "no permission for /dev/kvm";
    kvm.vm = ioctl(dev, KVM_CREATE_VM, 0);
    kvm.memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    region.userspace_addr = (uintptr_t)kvm.memory;
    if (kvm.vm < 0 || kvm.memory == MAP_FAILED || ioctl(kvm.vm, KVM_SET_USER_MEMORY_REGION, &region))
        return "/dev/kvm makes no VM";
    ioctl(kvm.vm, KVM_SET_TSS_ADDR, 0xfeffd000ul);
    kvm.vcpu = ioctl(kvm.vm, KVM_CREATE_VCPU, 0);
    kvm.run_size = (size_t)ioctl(dev, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (kvm.vcpu < 0)
        return "/dev/kvm makes no vCPU";
    kvm.run = mmap(NULL, kvm.run_size, PROT_READ | PROT_WRITE, MAP_SHARED, kvm.vcpu, 0);
    if (kvm.run == MAP_FAILED || cpuid_set())
        return "/dev/kvm makes no vCPU";
    tables_fill();
    return NULL;
}

/* The registers as every check begins. */
static void start(const uint8_t *code, size_t len, int ring, struct kvm_regs *regs)
{
    const struct kvm_segment data = {.limit = ~0u,
                                     .selector = ring ? 0x1b : 0x10,
                                     .type = 3,
                                     .present = 1,
                                     .db = 1,
                                     .s = 1,
                                     .g = 1,
                                     .dpl = (uint8_t)ring};
    struct kvm_sregs s;

    memcpy(kvm.memory + CODE, code, len);
    ioctl(kvm.vcpu, KVM_GET_SREGS, &s);
    s.ds = s.es = s.ss = s.fs = s.gs = s.cs = data;
    s.cs.selector = ring ? 0x23 : 8;
    s.cs.type = 11;
    s.cs.l = 1;
    s.cs.db = 0;
    s.tr = (struct kvm_segment){.base = TSS, .limit = 0x67, .selector = 0x28, .type = 11, .present = 1};
    s.ldt = (struct kvm_segment){.unusable = 1};
    s.gdt = (struct kvm_dtable){.base = GDT, .limit = 0x3f};
    s.idt = (struct kvm_dtable){.base = IDT, .limit = 0xfff};
    s.cr0 = 0x80010033;
    s.cr3 = TABLES;
    s.cr4 = 0x620;
    s.efer = 0xd01;
    ioctl(kvm.vcpu, KVM_SET_SREGS, &s);
    *regs = (struct kvm_regs){.rip = CODE, .rsp = STACK, .rdi = DATA, .rflags = 2 | (ring ? 0x3000u : 0)};
}

/* The vector that it ends with, -1: another exit, which is in kvm.run. */
static int go(struct kvm_regs *regs)
{
    int vector = -1;

    ioctl(kvm.vcpu, KVM_SET_REGS, regs);
    if (ioctl(kvm.vcpu, KVM_RUN, 0) < 0)
        return -1;
    if (kvm.run->exit_reason == KVM_EXIT_IO && kvm.run->io.port == PORT_VECTOR)
        vector = *((uint8_t *)kvm.run + kvm.run->io.data_offset);
    ioctl(kvm.vcpu, KVM_GET_REGS, regs);
    return vector;
}

static bool cpuid_shown(void)
{
    static const uint8_t code[] = {0xb8, 1,    0,    0,    0,
                                   0x31, 0xc9, 0x0f, 0xa2, 0xf4}; /* mov eax, 1; xor ecx, ecx; cpuid; hlt */
    struct kvm_regs regs;

    start(code, sizeof(code), 0, &regs);
    go(&regs);
    return regs.rax == SHOWN && !regs.rcx;
}

static bool user_int(void)
{
    static const uint8_t code[] = {0xcd, 0x80}; /* int 80h */
    struct kvm_regs regs;

    start(code, sizeof(code), 3, &regs);
    return go(&regs) == 0x80;
}

/* SYSCALL enters ring 0 at LSTAR. */
static bool syscall_enters(void)
{
    static const uint8_t code[] = {0x0f, 0x05};                          /* syscall */
    static const uint8_t kernel[] = {0x8c, 0xc8, 0xe6, PORT_DONE, 0xf4}; /* mov eax, cs; out PORT_DONE, al; hlt */
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry[2];
    } list = {
        .head.nmsrs = 2,
        .entry = {{.index = 0xc0000081, .data = 8ull << 32 | 0x13ull << 48}, {.index = 0xc0000082, .data = KERNEL}}};
    struct kvm_regs regs;

    memcpy(kvm.memory + KERNEL, kernel, sizeof(kernel));
    ioctl(kvm.vcpu, KVM_SET_MSRS, &list);
    start(code, sizeof(code), 3, &regs);
    go(&regs);
    return (regs.rax & 0xffff) == 8;
}

/* STI, a dozen NOPs, CLI: whoever waits for an interrupt window is told of this one. */
static bool window(void)
{
    static const uint8_t code[] = {0xfb, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90,
                                   0x90, 0x90, 0x90, 0x90, 0x90, 0xfa, 0xf4};
    struct kvm_regs regs;

    start(code, sizeof(code), 0, &regs);
    kvm.run->request_interrupt_window = 1;
    go(&regs);
    kvm.run->request_interrupt_window = 0;
    return kvm.run->exit_reason == KVM_EXIT_IRQ_WINDOW_OPEN;
}

/* MOV SS holds back the step that TF asks for until the next instruction is done. */
static bool step_shadow(void)
{
    static const uint8_t code[] = {0x8e, 0xd0, 0x90, 0x90, 0xf4}; /* mov ss, eax; nop; nop; hlt */
    struct kvm_regs regs;

    start(code, sizeof(code), 0, &regs);
    regs.rax = 0x10;
    regs.rflags |= FLAG_TF;
    return go(&regs) == 1 && get64(regs.rsp) == CODE + 3;
}

/* A data breakpoint on what is written. */
static bool watch(void)
{
    static const uint8_t code[] = {0x88, 0x07, 0x90, 0xf4}; /* mov [rdi], al; nop; hlt */
    struct kvm_debugregs debug = {.db = {DATA}, .dr6 = 0xffff0ff0, .dr7 = 0x00010402};
    struct kvm_regs regs;
    int vector;

    start(code, sizeof(code), 0, &regs);
    ioctl(kvm.vcpu, KVM_SET_DEBUGREGS, &debug);
    vector = go(&regs);
    debug.dr7 = 0x400;
    ioctl(kvm.vcpu, KVM_SET_DEBUGREGS, &debug);
    return vector == 1;
}

/* WRMSR of an address that 48-bit paging knows not raises #GP: not where the host's CPU has 57 bits. */
static bool canonical(void)
{
    /* mov ecx, LSTAR; xor eax, eax; mov edx, 8000h; wrmsr; hlt */
    static const uint8_t code[] = {0xb9, 0x82, 0, 0, 0xc0, 0x31, 0xc0, 0xba, 0, 0x80, 0, 0, 0x0f, 0x30, 0xf4};
    struct kvm_regs regs;

    start(code, sizeof(code), 0, &regs);
    return go(&regs) == 13;
}

/* MOV to CR0 with a bit above the 32nd raises #GP. */
static bool cr_upper(void)
{
    /* mov rax, cr0; bts rax, 32; mov cr0, rax; hlt */
    static const uint8_t code[] = {0x0f, 0x20, 0xc0, 0x48, 0x0f, 0xba, 0xe8, 0x20, 0x0f, 0x22, 0xc0, 0xf4};
    struct kvm_regs regs;

    start(code, sizeof(code), 0, &regs);
    return go(&regs) == 13;
}

#define ROUNDS 20000

/* At least 100 million instructions a second. */
static bool fast(void)
{
    static const uint8_t code[] = {0xff, 0xc9, 0x75, 0xfc, 0xf4}; /* 1: dec ecx; jnz 1b; hlt */
    struct kvm_regs regs;
    struct timespec from, to;

    start(code, sizeof(code), 0, &regs);
    regs.rcx = ROUNDS;
    clock_gettime(CLOCK_MONOTONIC, &from);
    go(&regs);
    clock_gettime(CLOCK_MONOTONIC, &to);
    return (to.tv_sec - from.tv_sec) * 1000000000 + to.tv_nsec - from.tv_nsec < ROUNDS * 2 * 10;
}

static const struct {
    const char *need;
    bool (*fulfilled)(void);
    const char *otherwise;
} checks[] = {
    {"cpuid", cpuid_shown, "CPUID shows the host's processor"},
    {"user-int", user_int, "INT n in ring 3 does not reach its handler"},
    {"syscall", syscall_enters, "SYSCALL stays in ring 3"},
    {"window", window, "interrupts miss a short stretch with IF set"},
    {"step-shadow", step_shadow, "MOV SS does not hold back a single step"},
    {"watch", watch, "data breakpoints do not trap"},
    {"canonical", canonical, "WRMSR takes addresses beyond 48 bits"},
    {"cr-upper", cr_upper, "MOV to CR0 ignores its upper half"},
    {"fast", fast, "it is slower than 100 MIPS"},
};

int main(int argc, char **argv)
{
    const char *trouble = set_up();

    if (trouble) {
        printf("skipped: %s\n", trouble);
        return SKIP;
    }
    for (int n = 1; n < argc; n++) {
        bool known = false;

        for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
            if (strcmp(argv[n], checks[i].need))
                continue;
            known = true;
            if (!checks[i].fulfilled()) {
                printf("skipped: this host's /dev/kvm: %s\n", checks[i].otherwise);
                return SKIP;
            }
        }
        if (!known) {
            fprintf(stderr, "kvm_check: no need '%s'\n", argv[n]);
            return 2;
        }
    }
    return 0;
}
