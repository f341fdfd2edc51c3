/* Control registers, MSRs and the system instructions of 64-bit mode: what may be written where, SYSCALL and
 * SYSENTER and their returns, SWAPGS, FS and GS bases, UMIP, PCIDs and INVPCID, time stamps. SDM vol. 3 §2.5,
 * §4.10.4, §5.8.7, §5.8.8; vol. 2; vol. 4. AMD's processors differ at SYSRET: APM vol. 3. */
#include "guest.h"

enum { EAX, EBX, ECX, EDX };
enum { MSR_TSC = 0x10, MSR_SYSENTER_CS = 0x174, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP, MSR_PAT = 0x277 };
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_SFMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX 0xc0000103u
#define BAD_ADDRESS 0x800000000000ul
/* A GDT for the fast system calls: kernel code, data; user 32-bit code, data, 64-bit code, as SYSRET and SYSEXIT
 * want. */
enum { FAST = 0x60 };

static u64 value; /* of the write under test */
static u32 which;
static void set_cr0(void *arg) { write_cr0(value); }
static void set_cr3(void *arg) { write_cr3(value); }
static void set_cr4(void *arg) { write_cr4(value); }
static void set_msr(void *arg) { wrmsr(which, value); }
static void get_msr(void *arg) { rdmsr(which); }
static void set_xcr(void *arg) { asm volatile("xsetbv" : : "c"(which), "a"((u32)value), "d"((u32)(value >> 32))); }
static void get_xcr(void *arg) { asm volatile("xgetbv" : : "c"(which) : "eax", "edx"); }

static void expect(const char *name, void (*fn)(void *), u64 val, int vector)
{
    int got;

    value = val;
    got = catch_fault(fn, 0);
    check(got == vector, "%s (%lx): vector %d (expected %d)", name, val, got, vector);
}

static void expect_msr(const char *name, u32 msr, u64 val, int vector)
{
    which = msr;
    expect(name, set_msr, val, vector);
}

static void expect_user(const char *name, void (*fn)(void *), int vector)
{
    int got = catch_fault_user(fn, 0);

    check(got == vector, "ring 3 %s: vector %d (expected %d)", name, got, vector);
}

static void control_registers(void)
{
    u64 cr0 = read_cr0(), cr3 = read_cr3(), cr4 = read_cr4();

    expect("CR0 with an upper bit", set_cr0, cr0 | 1ul << 32, 13);
    expect("CR0 without PG in 64-bit mode", set_cr0, cr0 & ~0x80000000ul, 13);
    expect("CR0 with PG, without PE", set_cr0, cr0 & ~1ul, 13);
    expect("CR0 with NW, without CD", set_cr0, cr0 | 1 << 29, 13);
    expect("CR0 with both", set_cr0, cr0 | 3 << 29, -1);
    write_cr0(cr0);
    expect("CR0 with reserved low bits", set_cr0, cr0 | 0x40, -1);
    check(read_cr0() == cr0, "they are ignored, ET is one: %lx", read_cr0());
    write_cr0(cr0 & ~0x10ul);
    check(read_cr0() & 0x10, "ET cannot be cleared");
    expect("CR4 without PAE in 64-bit mode", set_cr4, cr4 & ~0x20ul, 13);
    expect("CR4 with reserved bit 15", set_cr4, cr4 | 1 << 15, 13);
    expect("CR4 with reserved bit 63", set_cr4, cr4 | 1ul << 63, 13);
    if (!feature(1, 0, ECX, 5))
        expect("CR4.VMXE without VMX", set_cr4, cr4 | 1 << 13, 13);
    if (!feature(7, 0, ECX, 16))
        expect("CR4.LA57 without it", set_cr4, cr4 | 1 << 12, 13);
    if (!feature(7, 0, ECX, 3))
        expect("CR4.PKE without it", set_cr4, cr4 | 1 << 22, 13);
    expect("CR3 with a bit beyond the address width", set_cr3, cr3 | 1ul << 60, 13);
    expect("CR3 with bit 63, no PCIDs", set_cr3, cr3 | 1ul << 63, 13);
    write_cr3(cr3 | 0x18);
    check(read_cr3() == (cr3 | 0x18), "CR3 keeps PWT and PCD: %lx", read_cr3());
    write_cr3(cr3);
}

static void efer(void)
{
    u64 was = rdmsr(MSR_EFER);

    check((was & 0x500) == 0x500, "EFER %lx: LME, LMA", was);
    expect_msr("EFER without LME while paging", MSR_EFER, was & ~0x100ul, 13);
    expect_msr("EFER with reserved bit 1", MSR_EFER, was | 2, 13);
    expect_msr("EFER with reserved bit 63", MSR_EFER, was | 1ul << 63, 13);
    wrmsr(MSR_EFER, was & ~0x400ul);
    check(rdmsr(MSR_EFER) == was, "LMA is read-only: %lx", rdmsr(MSR_EFER));
    wrmsr(MSR_EFER, was & ~0x800ul);
    check(!(rdmsr(MSR_EFER) & 0x800), "NXE can be cleared");
    wrmsr(MSR_EFER, was);
}

static void xcr0(void)
{
    u32 r[4];
    u64 all;

    if (!feature(1, 0, ECX, 26))
        return;
    cpuid(13, 0, r);
    all = (u64)r[EDX] << 32 | r[EAX];
    write_cr4(read_cr4() & ~0x40000ul);
    which = 0;
    expect("XSETBV without OSXSAVE", set_xcr, 1, 6);
    expect("XGETBV without OSXSAVE", get_xcr, 0, 6);
    check(!feature(1, 0, ECX, 27), "CPUID shows OSXSAVE clear");
    write_cr4(read_cr4() | 0x40000);
    check(feature(1, 0, ECX, 27), "and set");
    expect("XCR0 without x87", set_xcr, 2, 13);
    expect("XCR0 with AVX, without SSE", set_xcr, 5, 13);
    expect("XCR0 with all that CPUID shows", set_xcr, all, -1);
    expect("XCR0 with bit 62", set_xcr, all | 1ul << 62, 13);
    expect("XCR0 with an MPX bit alone", set_xcr, 0xb, 13);
    expect("XCR0 with one AVX-512 bit", set_xcr, 0x27, 13);
    which = 1;
    expect("XSETBV of register 1", set_xcr, 1, 13);
    which = 5;
    expect("XGETBV of register 5", get_xcr, 0, 13);
    which = 0;
    expect_user("XSETBV", set_xcr, 13);
    expect_user("XGETBV", get_xcr, -1);
    value = 3;
    set_xcr(0);
    cpuid(13, 0, r);
    check(r[EBX] == 576, "XSAVE area for x87 and SSE: %d bytes", r[EBX]);
    value = all;
    set_xcr(0);
    cpuid(13, 0, r);
    check(r[EBX] == r[ECX], "XSAVE area for all: %d bytes", r[EBX]);
}

static void msrs(void)
{
    u64 pat = rdmsr(MSR_PAT), tsc;
    static const u32 addresses[] = {MSR_SYSENTER_ESP, MSR_SYSENTER_EIP, MSR_LSTAR, MSR_CSTAR, MSR_FS_BASE, MSR_GS_BASE,
                                    MSR_KERNEL_GS_BASE};

    for (u32 n = 0; n < sizeof(addresses) / sizeof(addresses[0]); n++)
        expect_msr("not canonical", addresses[n], BAD_ADDRESS, 13);
    expect_msr("PAT of type 2", MSR_PAT, 2, 13);
    expect_msr("PAT of type 8", MSR_PAT, 8ul << 56, 13);
    expect_msr("PAT", MSR_PAT, pat, -1);
    expect_msr("TSC_AUX with an upper bit", MSR_TSC_AUX, 1ul << 32, 13);
    expect_msr("SFMASK with an upper bit", MSR_SFMASK, 1ul << 32, 13);
    expect_msr("unknown", 0x12345, 0, 13);
    expect_msr("read-only MTRR capabilities", 0xfe, 0, 13);
    which = 0x12345;
    expect("read of an unknown MSR", get_msr, 0, 13);
    which = MSR_TSC;
    expect_user("RDMSR", get_msr, 13);
    expect_user("WRMSR", set_msr, 13);
    tsc = rdtsc();
    wrmsr(MSR_TSC, 1000);
    check(rdtsc() < tsc || tsc < 1000000000, "the TSC can be set back: %lx", rdtsc());
    if (feature(7, 0, EBX, 1)) {
        check(rdmsr(0x3b) != 0, "and TSC_ADJUST shows by how much");
        wrmsr(0x3b, 0);
        check(rdtsc() >= tsc, "clearing it restores the TSC");
    }
    wrmsr(MSR_KERNEL_GS_BASE, 0xffff800000001000);
    check(rdmsr(MSR_KERNEL_GS_BASE) == 0xffff800000001000, "a canonical base is kept");
}

CODE(64, do_syscall, "syscall; int3");
CODE(64, at_lstar, "mov %cs, %edi; mov %ss, %esi; int3");
CODE(64, do_sysretq, "sysretq");
CODE(64, do_sysretl, "sysretl");
CODE(64, user_end, "mov %cs, %edi; mov %ss, %esi; int3");
CODE(32, user_end32, "mov %cs, %edi; mov %ss, %esi; inc %ebp; int3");
CODE(64, do_sysenter, "sysenter; int3");
CODE(64, do_sysexitq, ".byte 0x48; sysexit");
CODE(64, do_sysexitl, "sysexit");

static bool intel(void)
{
    u32 r[4];

    cpuid(0, 0, r);
    return r[EBX] == 0x756e6547;
}

static void fast_setup(void)
{
    gdt[FAST / 8] = 0x00af9b000000ffff;
    gdt[FAST / 8 + 1] = 0x00cf93000000ffff;
    gdt[FAST / 8 + 2] = 0x00cffb000000ffff;
    gdt[FAST / 8 + 3] = 0x00cff3000000ffff;
    gdt[FAST / 8 + 4] = 0x00affb000000ffff;
    wrmsr(MSR_STAR, (u64)FAST << 32 | (u64)(FAST + 16) << 48);
    wrmsr(MSR_LSTAR, (u64)at_lstar);
    wrmsr(MSR_SFMASK, 0x40400);
}

static void syscalls(void)
{
    struct frame f = frame_at(do_syscall, 3);
    int got;

    fast_setup();
    f.rflags = 0x240ed7 & ~0x100ul;
    check(enter(&f) == 3 && caught.rdi == FAST && caught.rsi == FAST + 8 && caught.cs == FAST, "SYSCALL: CS %lx SS %lx",
          caught.rdi, caught.rsi);
    check(caught.rcx == (u64)do_syscall + 2 && (caught.r11 & 0x240ed7) == (0x240ed7 & ~0x100ul) && caught.rsp == f.rsp,
          "RCX, R11: %lx", caught.r11);
    check((caught.rflags & 0x240ed7) == (0x200ad7 & ~0x100ul), "flags under the mask: %lx", caught.rflags);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~1ul);
    check(enter(&f) == 6, "without SCE: #UD");
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1);
    f = frame_at(do_sysretq, 0);
    f.rcx = (u64)user_end;
    f.r11 = 0x3f7fd7 & ~0x4100ul;
    check(enter(&f) == 3 && caught.cs == (FAST + 32 + 3) && caught.ss == (FAST + 24 + 3) && caught.rdi == FAST + 35,
          "SYSRETQ: CS %lx SS %lx", caught.cs, caught.ss);
    check((caught.rflags & 0x3e7ed7) == 0x3c3ed7, "flags from R11, RF and VM clear: %lx", caught.rflags);
    f = frame_at(do_sysretl, 0);
    f.rcx = (u64)user_end32 | 1ul << 32;
    f.r11 = 2;
    check(enter(&f) == 3 && caught.cs == (FAST + 16 + 3) && caught.ss == (FAST + 24 + 3) && (u32)caught.rbp == 1,
          "SYSRETL to 32-bit code: CS %lx", caught.cs);
    f = frame_at(do_sysretq, 0);
    f.rcx = BAD_ADDRESS;
    f.r11 = 2;
    got = enter(&f);
    if (intel())
        check(got == 13 && (caught.cs & 3) == 0, "SYSRETQ to a bad address: #GP in ring 0: %d", got);
    else
        check(got == 13, "SYSRETQ to a bad address: #GP, ring %d", (int)caught.cs & 3);
    f = frame_at(do_sysretq, 3);
    check(enter(&f) == 13, "SYSRET in ring 3: #GP");
}

/* TF counts as SYSCALL and SYSRET leave it. */
static void syscalls_stepped(void)
{
    struct frame f = frame_at(do_syscall, 3);

    f.rflags |= 0x100;
    wrmsr(MSR_SFMASK, 0x100);
    check(enter(&f) == 3 && !(caught.rflags & 0x100), "SYSCALL that masks TF: no step: vector %d", (int)caught.vector);
    wrmsr(MSR_SFMASK, 0);
    check(enter(&f) == 1 && caught.rip == (u64)at_lstar, "SYSCALL that does not: vector %d at %lx", (int)caught.vector,
          caught.rip);
    f = frame_at(do_sysretq, 0);
    f.rcx = (u64)user_end;
    f.r11 = 0x102;
    check(enter(&f) == 1 && caught.rip == (u64)user_end && caught.cs == FAST + 35,
          "SYSRET with TF: a step before the first instruction: vector %d at %lx", (int)caught.vector, caught.rip);
}

static void sysenters(void)
{
    struct frame f = frame_at(do_sysenter, 3);
    static u8 stack[4096] __attribute__((aligned(16)));

    if (!intel()) { /* AMD's have them in legacy mode alone */
        int got = enter(&f);

        check(got == 6 || got == 13 || got == 3, "SYSENTER in long mode, not Intel's: vector %d", got);
    }
    wrmsr(MSR_SYSENTER_CS, 0);
    check(enter(&f) == (intel() ? 13 : (int)caught.vector), "SYSENTER with CS 0: vector %d", (int)caught.vector);
    if (!intel())
        return;
    wrmsr(MSR_SYSENTER_CS, FAST);
    wrmsr(MSR_SYSENTER_EIP, (u64)at_lstar);
    wrmsr(MSR_SYSENTER_ESP, (u64)stack + 4000);
    f.rflags |= 0x200;
    check(enter(&f) == 3 && caught.rdi == FAST && caught.rsi == FAST + 8 && caught.rsp == (u64)stack + 4000 &&
              !(caught.rflags & 0x200), "SYSENTER: CS %lx SS %lx", caught.rdi, caught.rsi);
    f = frame_at(do_sysexitq, 0);
    f.rdx = (u64)user_end;
    f.rcx = 0x123450;
    check(enter(&f) == 3 && caught.cs == FAST + 35 && caught.ss == FAST + 43 && caught.rsp == 0x123450,
          "SYSEXITQ: CS %lx", caught.cs);
    f = frame_at(do_sysexitl, 0);
    f.rdx = (u64)user_end32;
    check(enter(&f) == 3 && caught.cs == FAST + 19 && (u32)caught.rbp == 1, "SYSEXIT to 32-bit code: CS %lx",
          caught.cs);
    f = frame_at(do_sysexitq, 0);
    f.rdx = BAD_ADDRESS;
    check(enter(&f) == 13, "SYSEXITQ to a bad address: #GP");
}

static void do_swapgs(void *arg) { asm volatile("swapgs"); }
static void do_wrfsbase(void *arg) { asm volatile("wrfsbase %0" : : "r"(value)); }
static void do_rdgsbase(void *arg) { asm volatile("rdgsbase %%rax" : : : "rax"); }

static void bases(void)
{
    struct frame f;
    u64 got;

    wrmsr(MSR_GS_BASE, 0x1000);
    wrmsr(MSR_KERNEL_GS_BASE, 0x2000);
    do_swapgs(0);
    check(rdmsr(MSR_GS_BASE) == 0x2000 && rdmsr(MSR_KERNEL_GS_BASE) == 0x1000, "SWAPGS");
    do_swapgs(0);
    expect_user("SWAPGS", do_swapgs, 13);
    wrmsr(MSR_FS_BASE, (u64)&which);
    which = 0xabcd;
    asm volatile("movl %%fs:0, %k0" : "=r"(got));
    check((u32)got == 0xabcd, "FS base counts");
    asm volatile("mov %0, %%fs" : : "r"(0x10));
    check(rdmsr(MSR_FS_BASE) == 0, "loading FS replaces its base");
    wrmsr(MSR_GS_BASE, 0x5000);
    asm volatile("mov %0, %%gs" : : "r"(0));
    check(rdmsr(MSR_GS_BASE) == 0 || !intel(), "a null selector: base %lx", rdmsr(MSR_GS_BASE));
    asm volatile("mov %0, %%gs" : : "r"(0x10));
    wrmsr(MSR_GS_BASE, 0x6000);
    f = frame_at(user_end, 3);
    enter(&f);
    asm volatile("mov %%gs, %k0" : "=r"(got));
    check((u16)got == 0 && rdmsr(MSR_GS_BASE) == 0x6000, "IRET to ring 3 drops GS %lx, not its base %lx", got,
          rdmsr(MSR_GS_BASE));
    if (!feature(7, 0, EBX, 0))
        return;
    write_cr4(read_cr4() & ~0x10000ul);
    expect("WRFSBASE without CR4.FSGSBASE", do_wrfsbase, 0, 6);
    expect_user("RDGSBASE without it", do_rdgsbase, 6);
    write_cr4(read_cr4() | 0x10000);
    expect("WRFSBASE", do_wrfsbase, 0x7fff12345678, -1);
    check(rdmsr(MSR_FS_BASE) == 0x7fff12345678, "base %lx", rdmsr(MSR_FS_BASE));
    expect("WRFSBASE, not canonical", do_wrfsbase, BAD_ADDRESS, 13);
    expect_user("RDGSBASE", do_rdgsbase, -1);
}

static u8 image[16];
static void do_sgdt(void *arg) { asm volatile("sgdt %0" : "=m"(image)); }
static void do_sidt(void *arg) { asm volatile("sidt %0" : "=m"(image)); }
static void do_sldt(void *arg) { asm volatile("sldt %%eax" : : : "rax"); }
static void do_str(void *arg) { asm volatile("str %%eax" : : : "rax"); }
static void do_smsw(void *arg) { asm volatile("smsw %%eax" : : : "rax"); }

static void umip(void)
{
    static void (*const all[])(void *) = {do_sgdt, do_sidt, do_sldt, do_str, do_smsw};
    bool quiet = true, loud = true;

    for (int n = 0; n < 5; n++)
        quiet &= catch_fault_user(all[n], 0) == -1;
    check(quiet, "SGDT, SIDT, SLDT, STR, SMSW work in ring 3");
    if (!feature(7, 0, ECX, 2))
        return;
    write_cr4(read_cr4() | 0x800);
    for (int n = 0; n < 5; n++)
        loud &= catch_fault_user(all[n], 0) == 13 && catch_fault(all[n], 0) == -1;
    check(loud, "but not with UMIP");
    write_cr4(read_cr4() & ~0x800ul);
}

static struct {
    u64 pcid, address;
} descriptor;
static void do_invpcid(void *arg) { asm volatile("invpcid %0, %1" : : "m"(descriptor), "r"(value)); }

#define VA 0x40000000000ul
static void pcids(void)
{
    u64 cr3 = read_cr3(), *pte = pte_of(VA);
    u8 *one = page_alloc(), *two = page_alloc();

    if (!feature(1, 0, ECX, 17))
        return;
    one[0] = 1;
    two[0] = 2;
    write_cr3(cr3 | 0x18);
    expect("CR4.PCIDE with CR3 bits 11:0", set_cr4, read_cr4() | 0x20000, 13);
    write_cr3(cr3);
    expect("CR4.PCIDE", set_cr4, read_cr4() | 0x20000, -1);
    write_cr3(cr3 | 5);
    check(read_cr3() == (cr3 | 5), "PCID 5: %lx", read_cr3());
    *pte = (u64)one | PTE_P;
    check(*(volatile u8 *)VA == 1, "a page in PCID 5");
    *pte = (u64)two | PTE_P;
    write_cr3(cr3 | 6);
    check(*(volatile u8 *)VA == 2, "PCID 6 has its own translation");
    write_cr3(cr3 | 5);
    check(*(volatile u8 *)VA == 2 && read_cr3() == (cr3 | 5), "a CR3 load without bit 63 drops the PCID's");
    expect("CR3 with bit 63", set_cr3, cr3 | 5 | 1ul << 63, -1);
    check(read_cr3() == (cr3 | 5), "bit 63 is not kept: %lx", read_cr3());
    if (feature(7, 0, EBX, 10)) {
        descriptor.address = VA;
        descriptor.pcid = 5;
        for (u64 type = 0; type < 4; type++) {
            *pte = (u64)(type & 1 ? two : one) | PTE_P;
            expect("INVPCID", do_invpcid, type, -1);
            check(*(volatile u8 *)VA == (type & 1 ? 2 : 1), "type %lu drops the translation", type);
        }
        expect("INVPCID of type 4", do_invpcid, 4, 13);
        descriptor.pcid = 0x1000;
        expect("INVPCID with reserved bits", do_invpcid, 0, 13);
        descriptor.pcid = 5;
        descriptor.address = BAD_ADDRESS;
        expect("INVPCID of a bad address", do_invpcid, 0, 13);
        expect("type 1 takes any address", do_invpcid, 1, -1);
        expect_user("INVPCID", do_invpcid, 13);
    }
    write_cr3(cr3);
    write_cr4(read_cr4() & ~0x20000ul);
    descriptor.pcid = 1;
    if (feature(7, 0, EBX, 10))
        expect("INVPCID of PCID 1 without CR4.PCIDE", do_invpcid, 1, 13);
}

static void do_rdtsc(void *arg) { rdtsc(); }
static void do_rdpmc(void *arg) { asm volatile("rdpmc" : : "c"(0x7777) : "eax", "edx"); }
static void do_invlpg(void *arg) { invlpg(BAD_ADDRESS); }
static void do_wbinvd(void *arg) { asm volatile("wbinvd"); }
static void do_clts(void *arg) { asm volatile("clts"); }
static void do_ltr(void *arg) { asm volatile("ltr %w0" : : "r"(0x50)); }
static void do_lgdt(void *arg) { asm volatile("lgdt %0" : : "m"(image)); }
static void do_rsm(void *arg) { asm volatile("rsm"); }
static void do_pusha(void *arg) { asm volatile(".byte 0x60"); }
static void do_into(void *arg) { asm volatile(".byte 0xce"); }
static void do_aam(void *arg) { asm volatile(".byte 0xd4, 0x0a"); }
static void do_far_call(void *arg) { asm volatile(".byte 0x9a, 0, 0, 0, 0, 8, 0"); }
static void do_push_es(void *arg) { asm volatile(".byte 0x06"); }
static void do_salc(void *arg) { asm volatile(".byte 0xd6"); }

static void others(void)
{
    static void (*const gone[])(void *) = {do_pusha, do_into, do_aam, do_far_call, do_push_es, do_salc, do_rsm};
    static void (*const private[])(void *) = {do_invlpg, do_wbinvd, do_clts, do_ltr, do_lgdt};
    bool all = true;

    for (u32 n = 0; n < sizeof(gone) / sizeof(gone[0]); n++)
        all &= catch_fault(gone[n], 0) == 6;
    check(all, "what 64-bit mode has not: #UD");
    for (u32 n = 0; n < sizeof(private) / sizeof(private[0]); n++)
        all &= catch_fault_user(private[n], 0) == 13;
    check(all, "what ring 3 may not: #GP");
    check(catch_fault(do_ltr, 0) == 13 && caught.error == 0x50, "LTR of a busy TSS: #GP(%lx)", caught.error);
    check(catch_fault(do_invlpg, 0) == -1, "INVLPG of a bad address does nothing");
    check(catch_fault(do_rdpmc, 0) == 13, "RDPMC of no counter: #GP");
    write_cr4(read_cr4() | 4);
    expect_user("RDTSC with CR4.TSD", do_rdtsc, 13);
    check(catch_fault(do_rdtsc, 0) == -1, "ring 0 may");
    write_cr4(read_cr4() & ~4ul);
    expect_user("RDTSC", do_rdtsc, -1);
    if (feature(0x80000001, 0, EDX, 27)) {
        u32 aux;

        wrmsr(MSR_TSC_AUX, 0x1234);
        asm volatile("rdtscp" : "=c"(aux) : : "eax", "edx");
        check(aux == 0x1234, "RDTSCP shows TSC_AUX");
    }
}

/* What firmware may hide of the processor; Intel's have it. */
static void misc_enable(void)
{
    enum { MSR_MISC_ENABLE = 0x1a0 };
    u64 was, efer = rdmsr(MSR_EFER);
    u32 r[4];

    which = MSR_MISC_ENABLE;
    if (!intel()) {
        expect("IA32_MISC_ENABLE, not Intel's", get_msr, 0, 13);
        return;
    }
    was = rdmsr(MSR_MISC_ENABLE);
    wrmsr(MSR_MISC_ENABLE, was & ~0x1800ul);
    check((rdmsr(MSR_MISC_ENABLE) & 0x1800) == 0x1800, "BTS and PEBS stay unavailable: %lx", rdmsr(MSR_MISC_ENABLE));
    wrmsr(MSR_MISC_ENABLE, was | 1 << 22);
    cpuid(0, 0, r);
    check(r[EAX] == 2, "limited CPUID: last leaf %x", r[EAX]);
    wrmsr(MSR_EFER, efer & ~0x800ul);
    wrmsr(MSR_MISC_ENABLE, was | 1ul << 34);
    check(!feature(0x80000001, 0, EDX, 20), "NX disabled: hidden");
    expect_msr("EFER.NXE then", MSR_EFER, efer | 0x800, 13);
    wrmsr(MSR_MISC_ENABLE, was);
    check(feature(0x80000001, 0, EDX, 20), "and back");
    wrmsr(MSR_EFER, efer);
}

void guest_main(void)
{
    user_text_allow(true);
    control_registers();
    efer();
    xcr0();
    msrs();
    syscalls();
    syscalls_stepped();
    sysenters();
    misc_enable();
    bases();
    umip();
    pcids();
    others();
}
