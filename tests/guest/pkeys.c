/* Protection keys for supervisor pages, where the model has them, and for user pages: RDPKRU and WRPKRU and what they refuse, CR4.PKE and CPUID, PKRU in the XSAVE images,
 * where a new PKRU counts at once. What the rights do to every kind of access is in permissions.c. SDM vol. 3 §4.6.2,
 * vol. 1 ch. 13, vol. 2. */
#include "guest.h"

enum { EAX, EBX, ECX, EDX };
enum { MSR_PKRS = 0x6e1 };
#define VA 0x40000000000ul
#define XCR0_PKRU (1ul << 9)

static u64 in_eax, in_ecx, in_edx;
static u32 out_eax, out_edx;
static u8 image[4096] __attribute__((aligned(64)));

static void do_wrpkru(void *arg) { asm volatile("wrpkru" : : "a"(in_eax), "c"(in_ecx), "d"(in_edx)); }
static void do_rdpkru(void *arg) { asm volatile("rdpkru" : "=a"(out_eax), "=d"(out_edx) : "c"(in_ecx), "d"(~0)); }
static void set_cr4(void *arg) { write_cr4((u64)arg); }
static void set_xcr0(void *arg) { asm volatile("xsetbv" : : "c"(0), "a"((u32)(u64)arg), "d"(0)); }
static void do_xsave(void *arg) { asm volatile("xsave64 %0" : "+m"(image) : "a"(XCR0_PKRU), "d"(0)); }
static void do_xrstor(void *arg) { asm volatile("xrstor64 %0" : : "m"(image), "a"(XCR0_PKRU), "d"(0)); }
static void do_read(void *arg) { (void)*(volatile u8 *)VA; }

static void expect(const char *name, void (*fn)(void *), void *arg, int vector)
{
    int got = catch_fault(fn, arg);

    check(got == vector, "%s: vector %d (expected %d)", name, got, vector);
}

static u32 pkru(void) { in_ecx = 0; do_rdpkru(0); return out_eax; }
static void pkru_set(u32 v) { in_eax = v; in_ecx = in_edx = 0; do_wrpkru(0); }

static void instructions(void)
{
    expect("RDPKRU without CR4.PKE", do_rdpkru, 0, 6);
    expect("WRPKRU without CR4.PKE", do_wrpkru, 0, 6);
    check(!feature(7, 0, ECX, 4), "CPUID shows OSPKE clear");
    write_cr4(read_cr4() | 1 << 22);
    check(feature(7, 0, ECX, 4), "and set with CR4.PKE");
    in_ecx = 1;
    expect("RDPKRU with ECX 1", do_rdpkru, 0, 13);
    expect("WRPKRU with ECX 1", do_wrpkru, 0, 13);
    in_ecx = 0;
    in_edx = 1;
    expect("WRPKRU with EDX 1", do_wrpkru, 0, 13);
    in_edx = 1ul << 32;
    in_ecx = 1ul << 32;
    in_eax = 0x1212345678;
    expect("upper halves do not count", do_wrpkru, 0, -1);
    do_rdpkru(0);
    check(out_eax == 0x12345678 && out_edx == 0, "RDPKRU: %x, EDX %x", out_eax, out_edx);
    in_ecx = in_edx = 0;
    in_eax = 0;
    check(catch_fault_user(do_wrpkru, 0) == -1 && catch_fault_user(do_rdpkru, 0) == -1 && out_eax == 0, "ring 3 may");
}

/* A write and an XRSTOR of PKRU count for the next access, cached translation or not. */
static void at_once(void)
{
    *pte_of(VA) = (u64)page_alloc() | PTE_P | PTE_W | PTE_U | 3ul << 59;
    pml4[VA >> 39 & 511] |= PTE_U;
    write_cr3(read_cr3());
    pkru_set(0);
    expect("key 3, nothing denied", do_read, 0, -1);
    pkru_set(1u << 6);
    expect("denied", do_read, 0, 14);
    check(caught.error == 0x21, "error %lx", caught.error);
    check(catch_fault_user(do_read, 0) == 14 && caught.error == 0x25, "and in ring 3: error %lx", caught.error);
    pkru_set(2u << 6 | ~(0xffu));
    expect("only writing is denied", do_read, 0, -1);
    pkru_set(1u << 6);
    write_cr4(read_cr4() & ~(1ul << 22));
    expect("without CR4.PKE keys do not count", do_read, 0, -1);
    write_cr4(read_cr4() | 1 << 22);
    expect("and count again", do_read, 0, 14);
}

static void images(void)
{
    u32 r[4];

    write_cr4(read_cr4() | 0x40000);
    cpuid(13, 0, r);
    check(r[EAX] >> 9 & 1, "XCR0 can hold PKRU");
    cpuid(13, 9, r);
    check(r[EAX] == 8 && r[EBX] == 2688 && !(r[ECX] & 1), "its place: %d bytes at %d", r[EAX], r[EBX]);
    expect("XCR0 with PKRU", set_xcr0, (void *)(XCR0_PKRU | 3), -1);
    cpuid(13, 0, r);
    check(r[EBX] == 2696, "the area grows to %d", r[EBX]);
    pkru_set(1u << 6);
    do_xsave(0);
    check(*(u32 *)(image + 2688) == 1u << 6 && *(u64 *)(image + 512) & XCR0_PKRU, "XSAVE stores it");
    pkru_set(0);
    do_read(0);
    do_xrstor(0);
    check(pkru() == 1u << 6, "XRSTOR loads it: %x", pkru());
    expect("it counts at once", do_read, 0, 14);
    *(u64 *)(image + 512) = 0;
    do_xrstor(0);
    check(pkru() == 0, "the initial state is 0");
    do_xsave(0);
    check(!(*(u64 *)(image + 512) & XCR0_PKRU), "XSTATE_BV is clear for it");
    *(u64 *)(image + 512) = XCR0_PKRU;
    *(u64 *)(image + 2688) = 0x5555555400000000ul | 0x30;
    do_xrstor(0);
    check(pkru() == 0x30, "bits 63:32 of the image are ignored: %x", pkru());
    set_xcr0((void *)3);
    pkru_set(0x70);
    expect("XRSTOR of it without its bit in XCR0", do_xrstor, 0, 13);
    *(u64 *)(image + 512) = 0;
    do_xrstor(0);
    check(pkru() == 0x70, "then XRSTOR leaves it: %x", pkru());
}

static u64 pkrs;
static void set_pkrs(void *arg) { wrmsr(MSR_PKRS, pkrs); }
static void do_write(void *arg) { *(volatile u8 *)VA = 0xc3; }
static void do_call(void *arg) { ((void (*)(void))VA)(); }

static void expect_pkrs(const char *name, u64 val, int read_error, int write_error)
{
    int read, write;

    wrmsr(MSR_PKRS, val);
    read = catch_fault(do_read, 0) < 0 ? -1 : (int)caught.error;
    write = catch_fault(do_write, 0) < 0 ? -1 : (int)caught.error;
    check(read == read_error && write == write_error, "%s: errors %x %x", name, read, write);
}

/* IA32_PKRS is for pages that an entry on the way says are supervisor's, and not for fetching. */
static void supervisor_keys(void)
{
    u8 *page = page_alloc();

    page[0] = 0xc3; /* ret */
    expect("CR4.PKS", set_cr4, (void *)(read_cr4() | 1 << 24), -1);
    pkrs = 1ul << 32;
    expect("IA32_PKRS with an upper bit", set_pkrs, 0, 13);
    *pte_of(VA) = (u64)page | PTE_P | PTE_W | 5ul << 59;
    write_cr3(read_cr3());
    expect_pkrs("key 5, nothing denied", (u32)~(3u << 10), -1, -1);
    expect_pkrs("access denied", 1u << 10, 0x21, 0x23);
    check(rdmsr(MSR_PKRS) == 1u << 10, "IA32_PKRS reads back");
    expect("fetching is not", do_call, 0, -1);
    expect_pkrs("writing denied", 2u << 10, -1, 0x23);
    write_cr0(read_cr0() & ~0x10000ul);
    expect_pkrs("writing denied, without CR0.WP", 2u << 10, -1, -1);
    write_cr0(read_cr0() | 0x10000);
    wrmsr(MSR_PKRS, 0);
    check(catch_fault_user(do_read, 0) == 14 && caught.error == 5, "ring 3: the page is not its own, error %lx",
          caught.error);
    *pte_of(VA) |= PTE_U;
    pml4[VA >> 39 & 511] |= PTE_U;
    write_cr3(read_cr3());
    expect_pkrs("a user page", 1u << 10, -1, -1);
    write_cr4(read_cr4() & ~(1ul << 24));
    *pte_of(VA) &= ~(u64)PTE_U;
    write_cr3(read_cr3());
    expect_pkrs("without CR4.PKS", 1u << 10, -1, -1);
    wrmsr(MSR_PKRS, 0);
}

void guest_main(void)
{
    user_text_allow(true);
    if (feature(7, 0, ECX, 31))
        supervisor_keys();
    else
        expect("IA32_PKRS without the feature", set_pkrs, 0, 13);
    if (!feature(7, 0, ECX, 3)) {
        expect("RDPKRU without the feature", do_rdpkru, 0, 6);
        expect("CR4.PKE without it", set_cr4, (void *)(read_cr4() | 1 << 22), 13);
        return;
    }
    instructions();
    at_once();
    images();
}
