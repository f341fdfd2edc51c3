/* x87, SSE and AVX state: #NM by TS and EM, pending x87 exceptions, #XM, alignment, faults of vector operands with
 * nothing half done, FXSAVE and XSAVE images and what they refuse, lazy switching, registers kept over interrupts
 * and device accesses. SDM vol. 1 ch. 8, 10, 13; vol. 3 §2.5, §6.15 (#NM, #MF, #XM); vol. 2. */
#include "guest.h"

enum { EAX, EBX, ECX, EDX };
#define VA 0x40000000000ul
#define IOAPIC_VERSION 0xfec00010ul

static u8 image[4096] __attribute__((aligned(4096))), image2[4096] __attribute__((aligned(4096)));
static u64 *pte, *pte_next;
static u8 *page, *page_next;
static u32 numbers[16] __attribute__((aligned(64))) = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

static void do_fld(void *arg) { asm volatile("fld1"); }
static void do_fninit(void *arg) { asm volatile("fninit"); }
static void do_fwait(void *arg) { asm volatile("fwait"); }
static void do_fnop(void *arg) { asm volatile("fnop"); }
static void do_mmx(void *arg) { asm volatile("pxor %mm0, %mm0"); }
static void do_emms(void *arg) { asm volatile("emms"); }
static void do_sse(void *arg) { asm volatile("xorps %xmm0, %xmm0"); }
static void do_pause(void *arg) { asm volatile("pause; sfence; prefetcht0 (%rsp)"); }
static void do_avx(void *arg) { asm volatile("vxorps %ymm0, %ymm0, %ymm0"); }
static void do_fxsave(void *arg) { asm volatile("fxsave64 (%0)" : : "r"(arg) : "memory"); }
static void do_fxrstor(void *arg) { asm volatile("fxrstor64 (%0)" : : "r"(arg) : "memory"); }
static void do_xsave(void *arg) { asm volatile("xsave64 (%0)" : : "r"(arg), "a"(7), "d"(0) : "memory"); }
static void do_xrstor(void *arg) { asm volatile("xrstor64 (%0)" : : "r"(arg), "a"(7), "d"(0) : "memory"); }
static void do_ldmxcsr(void *arg) { asm volatile("ldmxcsr (%0)" : : "r"(arg)); }
static void do_movaps(void *arg) { asm volatile("movaps (%0), %%xmm1" : : "r"(arg)); }
static void do_movups(void *arg) { asm volatile("movups (%0), %%xmm1" : : "r"(arg)); }
static void do_addps(void *arg) { asm volatile("addps (%0), %%xmm1" : : "r"(arg)); }
static void do_store(void *arg) { asm volatile("movups %%xmm1, (%0)" : : "r"(arg)); }
static void do_movntdq(void *arg) { asm volatile("movntdq %%xmm1, (%0)" : : "r"(arg)); }
static void do_vaddps(void *arg) { asm volatile("vaddps (%0), %%ymm1, %%ymm1" : : "r"(arg)); }
static void do_vmovaps(void *arg) { asm volatile("vmovaps (%0), %%ymm1" : : "r"(arg)); }
static void do_vstore(void *arg) { asm volatile("vmovups %%ymm1, (%0)" : : "r"(arg)); }
static void do_maskstore(void *arg) { asm volatile("vmaskmovps %%ymm1, %%ymm2, (%0)" : : "r"(arg)); }
static void do_maskload(void *arg) { asm volatile("vmaskmovps (%0), %%ymm2, %%ymm3" : : "r"(arg)); }
static void do_divps(void *arg) { asm volatile("xorps %xmm0, %xmm0; divps %xmm0, %xmm1"); }
static void do_fdiv(void *arg) { asm volatile("fldz; fld1; fdivp"); }

static void expect(const char *name, void (*fn)(void *), void *arg, int vector)
{
    int got = catch_fault(fn, arg);

    check(got == vector, "%s: vector %d (expected %d)", name, got, vector);
}

static u32 mxcsr_get(void) { u32 v; asm volatile("stmxcsr %0" : "=m"(v)); return v; }
static void mxcsr_set(u32 v) { asm volatile("ldmxcsr %0" : : "m"(v)); }
static void fcw_set(u16 v) { asm volatile("fldcw %0" : : "m"(v)); }
static u16 fsw_get(void) { u16 v; asm volatile("fnstsw %0" : "=a"(v)); return v; }

static void not_available(bool avx)
{
    u64 cr0 = read_cr0() & ~0xeul;

    write_cr0(cr0 | 0xa); /* MP, TS */
    expect("TS: x87", do_fld, 0, 7);
    expect("TS: FNINIT", do_fninit, 0, 7);
    expect("TS and MP: FWAIT", do_fwait, 0, 7);
    expect("TS: MMX", do_mmx, 0, 7);
    expect("TS: SSE", do_sse, 0, 7);
    expect("TS: FXSAVE", do_fxsave, image, 7);
    expect("TS: LDMXCSR", do_ldmxcsr, numbers, 7);
    expect("TS: PAUSE, SFENCE, PREFETCH are free", do_pause, 0, -1);
    if (avx) {
        expect("TS: AVX", do_avx, 0, 7);
        expect("TS: XSAVE", do_xsave, image, 7);
    }
    write_cr0(cr0 | 8);
    expect("TS without MP: FWAIT", do_fwait, 0, -1);
    write_cr0(cr0 | 4); /* EM */
    expect("EM: x87", do_fld, 0, 7);
    expect("EM: MMX", do_mmx, 0, 6);
    expect("EM: SSE", do_sse, 0, 6);
    expect("EM: FXSAVE", do_fxsave, image, 7);
    expect("EM without TS: FWAIT", do_fwait, 0, -1);
    if (avx)
        expect("EM: AVX does not care", do_avx, 0, -1);
    write_cr0(cr0 | 0x22);
    write_cr4(read_cr4() & ~0x200ul);
    expect("no OSFXSR: SSE", do_sse, 0, 6);
    expect("no OSFXSR: MMX", do_mmx, 0, -1);
    expect("no OSFXSR: EMMS", do_emms, 0, -1);
    write_cr4(read_cr4() | 0x200);
    if (!avx)
        return;
    write_cr4(read_cr4() & ~0x40000ul);
    expect("no OSXSAVE: AVX", do_avx, 0, 6);
    expect("no OSXSAVE: XSAVE", do_xsave, image, 6);
    write_cr4(read_cr4() | 0x40000);
    asm volatile("xsetbv" : : "c"(0), "a"(3), "d"(0));
    expect("no AVX in XCR0: AVX", do_avx, 0, 6);
    asm volatile("xsetbv" : : "c"(0), "a"(7), "d"(0));
}

/* An unmasked x87 exception waits for the next waiting instruction. */
static void pending(void)
{
    do_fninit(0);
    fcw_set(0x37b); /* zero divide unmasked */
    expect("x87 division by zero by itself", do_fdiv, 0, -1);
    check((fsw_get() & 0x8084) == 0x8084, "ES and B are set: FSW %x", fsw_get());
    expect("FNOP", do_fnop, 0, 16);
    check(caught.error == 0 && (fsw_get() & 0x8084) == 0x8084, "it stays pending");
    expect("FWAIT", do_fwait, 0, 16);
    expect("FLD", do_fld, 0, 16);
    expect("MMX", do_mmx, 0, 16);
    expect("EMMS", do_emms, 0, 16);
    expect("SSE does not look", do_sse, 0, -1);
    asm volatile("fnclex");
    expect("after FNCLEX", do_fwait, 0, -1);
    do_fdiv(0);
    asm volatile("fnstenv %0" : "=m"(image));
    check((*(u16 *)image & 4) == 0 && (*(u16 *)(image + 4) & 0x8084) == 0x8084, "FNSTENV stores it, CW %x",
          *(u16 *)image);
    asm volatile("fnclex; fninit");
    expect("after FNINIT", do_fwait, 0, -1);
}

static void simd_exceptions(void)
{
    u32 saved = mxcsr_get();

    asm volatile("movaps %0, %%xmm1" : : "m"(*(u8(*)[16])numbers));
    mxcsr_set(0x1f80);
    expect("masked SSE division by zero", do_divps, 0, -1);
    check(mxcsr_get() & 4, "MXCSR.ZE: %x", mxcsr_get());
    asm volatile("movaps %0, %%xmm1" : : "m"(*(u8(*)[16])numbers));
    mxcsr_set(0x1d00); /* zero divide and denormals unmasked */
    expect("unmasked", do_divps, 0, 19);
    check(mxcsr_get() & 6, "MXCSR flags: %x", mxcsr_get());
    write_cr4(read_cr4() & ~0x400ul);
    mxcsr_set(0x1d00);
    expect("without OSXMMEXCPT", do_divps, 0, 6);
    write_cr4(read_cr4() | 0x400);
    *(u32 *)image = 0x10000;
    expect("LDMXCSR of reserved bits", do_ldmxcsr, image, 13);
    mxcsr_set(saved);
}

static void alignment(bool avx)
{
    u8 *odd = (u8 *)numbers + 4;

    expect("MOVAPS unaligned", do_movaps, odd, 13);
    expect("ADDPS with an unaligned operand", do_addps, odd, 13);
    expect("MOVNTDQ unaligned", do_movntdq, odd, 13);
    expect("MOVUPS unaligned", do_movups, odd, -1);
    expect("FXSAVE unaligned", do_fxsave, image + 8, 13);
    expect("FXRSTOR unaligned", do_fxrstor, image + 8, 13);
    if (!avx)
        return;
    expect("VADDPS with an unaligned operand", do_vaddps, odd, -1);
    expect("VMOVAPS to YMM aligned to 16 only", do_vmovaps, (u8 *)numbers + 16, 13);
    expect("XSAVE aligned to 32 only", do_xsave, image + 32, 13);
    expect("XRSTOR aligned to 32 only", do_xrstor, image + 32, 13);
    expect("alignment comes before a page fault", do_movaps, (void *)(VA + 8), 13);
}

static void map(bool first, bool second)
{
    *pte = (u64)page | PTE_W | first;
    *pte_next = (u64)page_next | PTE_W | second;
    invlpg(VA);
    invlpg(VA + 4096);
}

static bool all_are(const u8 *p, u8 v, int n)
{
    while (n--)
        if (p[n] != v)
            return false;
    return true;
}

static void faults(bool avx)
{
    u8 *at = (u8 *)VA + 4096 - 8;

    for (int n = 0; n < 4096; n++)
        page[n] = page_next[n] = 0x11;
    map(true, true);
    asm volatile("movaps %0, %%xmm1" : : "m"(*(u8(*)[16])numbers));
    expect("store across pages", do_store, at, -1);
    check(*(u32 *)(page + 4088) == 1 && *(u32 *)page_next == 3, "both halves");
    for (int n = 0; n < 4096; n++)
        page[n] = page_next[n] = 0x11;
    map(true, false);
    expect("store into an absent second page", do_store, at, 14);
    check(caught_cr2 == VA + 4096 && caught.error == 2 && all_are(page, 0x11, 4096), "nothing is written: CR2 %lx",
          caught_cr2);
    map(false, true);
    expect("absent first page", do_store, at, 14);
    check(caught_cr2 == (u64)at && all_are(page_next, 0x11, 16), "CR2 %lx", caught_cr2);
    map(true, false);
    expect("load across", do_movups, at, 14);
    u32 kept[4];
    asm volatile("movups %%xmm1, %0" : "=m"(kept));
    check(kept[0] == 1 && kept[3] == 4, "the register is as it was");
    if (!avx)
        return;
    asm volatile("vmovaps %0, %%ymm1" : : "m"(*(u8(*)[32])numbers));
    at = (u8 *)VA + 4096 - 16;
    expect("AVX store into an absent second page", do_vstore, at, 14);
    check(all_are(page, 0x11, 4096), "nothing is written");
    static const u32 mask[8] __attribute__((aligned(32))) = {~0u, 0, ~0u, ~0u, 0, 0, 0, 0};
    asm volatile("vmovaps %0, %%ymm2" : : "m"(mask));
    expect("masked store, only elements of the present page", do_maskstore, at, -1);
    check(*(u32 *)(page + 4080) == 1 && page[4084] == 0x11 && *(u32 *)(page + 4092) == 4, "exactly those are written");
    expect("masked load", do_maskload, at, -1);
    static const u32 mask2[8] __attribute__((aligned(32))) = {~0u, 0, 0, 0, ~0u, 0, 0, 0};
    asm volatile("vmovaps %0, %%ymm2" : : "m"(mask2));
    *(u32 *)(page + 4080) = 0;
    expect("masked store with one in the absent page", do_maskstore, at, 14);
    check(*(u32 *)(page + 4080) == 0, "nothing is written");
    map(true, true);
}

static void images(bool xsave)
{
    u32 mask;

    do_fninit(0);
    asm volatile("fld1; fldpi");
    asm volatile("movaps %0, %%xmm7" : : "m"(*(u8(*)[16])numbers));
    do_fxsave(image);
    mask = *(u32 *)(image + 28);
    check(*(u16 *)image == 0x37f && image[4] == 0xc0 && (*(u16 *)(image + 2) >> 11 & 7) == 6, "FXSAVE: FCW %x tags %x",
          *(u16 *)image, image[4]);
    check(*(u32 *)(image + 160 + 7 * 16) == 1 && *(u16 *)(image + 40) == 0x4000, "registers: %x", *(u16 *)(image + 40));
    check(mask & 0x8000 || mask == 0, "MXCSR mask %x", mask);
    asm volatile("fninit; xorps %xmm7, %xmm7");
    do_fxrstor(image);
    u32 seven[4];
    asm volatile("movups %%xmm7, %0" : "=m"(seven));
    check(seven[3] == 4 && (fsw_get() >> 11 & 7) == 6, "FXRSTOR brings them back");
    *(u32 *)(image + 24) = 0x1ff80;
    expect("FXRSTOR with reserved MXCSR bits", do_fxrstor, image, 13);
    if (!xsave)
        return;
    for (int n = 0; n < 1024; n++)
        image[n] = 0;
    do_xsave(image);
    check((*(u64 *)(image + 512) & 3) == 3 && !*(u64 *)(image + 520), "XSAVE header: XSTATE_BV %lx",
          *(u64 *)(image + 512));
    *(u64 *)(image + 512) = 1;
    do_xrstor(image);
    asm volatile("movups %%xmm7, %0" : "=m"(seven));
    check(seven[3] == 0, "XRSTOR puts what the header omits into its initial state");
    *(u64 *)(image + 512) = 1ul << 40;
    expect("XRSTOR with unknown components", do_xrstor, image, 13);
    *(u64 *)(image + 512) = 3;
    *(u64 *)(image + 520) = 1;
    expect("XRSTOR with XCOMP_BV in standard format", do_xrstor, image, 13);
    *(u64 *)(image + 520) = 0;
    *(u64 *)(image + 528) = 1;
    expect("XRSTOR with reserved header bytes", do_xrstor, image, 13);
    *(u64 *)(image + 528) = 0;
    *(u32 *)(image + 24) = 0x1ff80;
    expect("XRSTOR with reserved MXCSR bits", do_xrstor, image, 13);
    *(u32 *)(image + 24) = 0x1f80;
    expect("XRSTOR", do_xrstor, image, -1);
}

static void xsave_faults(void)
{
    map(true, false);
    expect("XSAVE into an absent page", do_xsave, (void *)(VA + 4096 - 512), 14);
    expect("XRSTOR from it", do_xrstor, (void *)(VA + 4096 - 512), 14);
    map(true, true);
}

/* Two contexts that share the registers lazily, by #NM. */
static u8 *owner_image, *wanted_image;
static int switches;
static void on_nm(struct frame *f)
{
    asm volatile("clts");
    switches++;
    if (owner_image)
        asm volatile("fxsave64 (%0)" : : "r"(owner_image) : "memory");
    asm volatile("fxrstor64 (%0)" : : "r"(wanted_image) : "memory");
    owner_image = wanted_image;
}

static void lazy(void)
{
    u32 a, b;
    bool right = true;

    do_fninit(0);
    mxcsr_set(0x1f80);
    do_fxsave(image);
    do_fxsave(image2);
    on_interrupt(7, on_nm);
    for (u32 n = 0; n < 50; n++) {
        wanted_image = n & 1 ? image2 : image;
        write_cr0(read_cr0() | 8);
        asm volatile("movd %%xmm3, %0\n\tmovd %%xmm4, %1" : "=r"(a), "=r"(b));
        right &= n < 2 || (a == n - 2 && b == ~(n - 2));
        asm volatile("movd %0, %%xmm3\n\tmovd %1, %%xmm4" : : "r"(n), "r"(~n));
    }
    on_interrupt(7, 0);
    write_cr0(read_cr0() & ~8ul);
    check(right && switches == 50, "two contexts share the registers by #NM: %d switches", switches);
}

static volatile int ipis;
static void on_ipi(struct frame *f)
{
    ipis++;
    lapic_write(0xb0, 0);
}

/* Nothing that the monitor does meanwhile may show in the registers. */
static void kept(bool avx)
{
    static u8 before[32] __attribute__((aligned(32))), after[32] __attribute__((aligned(32)));
    bool right = true;

    on_interrupt(0x91, on_ipi);
    lapic_write(0xf0, 0x1ff);
    for (int n = 0; n < 32; n++)
        before[n] = (u8)(n * 7 + 1);
    for (int round = 0; round < 200; round++) {
        if (avx)
            asm volatile("vmovaps %0, %%ymm15" : : "m"(before));
        else
            asm volatile("movaps %0, %%xmm15" : : "m"(before));
        lapic_write(0x300, 0x40091);
        asm volatile("sti; nop; nop; cli");
        (void)*(volatile u32 *)IOAPIC_VERSION;
        inb(0x71);
        outb(0x80, 0);
        (void)rdtsc();
        if (avx)
            asm volatile("vmovaps %%ymm15, %0" : "=m"(after));
        else
            asm volatile("movaps %%xmm15, %0" : "=m"(after));
        for (int n = 0; n < (avx ? 32 : 16); n++)
            right &= before[n] == after[n];
    }
    check(right && ipis == 200, "vector registers survive interrupts, ports, devices: %d", ipis);
    u64 st;
    asm volatile("fninit; fldpi; inb $0x71, %%al; outb %%al, $0x80; fistpll %0" : "=m"(st) : : "al");
    check(st == 3, "and x87 registers");
}

static void device_operands(void)
{
    u32 got[4] = {0};

    *(volatile u32 *)0xfec00000 = 1;
    asm volatile("movd (%0), %%xmm5; movd %%xmm5, %1" : : "r"(IOAPIC_VERSION), "m"(got[0]) : "memory");
    check((got[0] >> 16 & 0xff) == 23, "SSE load from a device: %x", got[0]);
    *(volatile u32 *)0xfec00000 = 0x20;
    got[1] = 0x10077;
    asm volatile("movd %1, %%xmm5; movd %%xmm5, (%0)" : : "r"(IOAPIC_VERSION), "m"(got[1]) : "memory");
    check((*(volatile u32 *)IOAPIC_VERSION & 0x100ff) == 0x10077, "SSE store to a device");
    *(volatile u32 *)IOAPIC_VERSION = 0x10000;
    asm volatile("movups (%0), %%xmm5" : : "r"(0xfec00000ul));
    check(true, "a 16-byte load from a device ends");
}

void guest_main(void)
{
    bool xsave = feature(1, 0, ECX, 26), avx = feature(1, 0, ECX, 28);

    page = page_alloc();
    page_next = page_alloc();
    pte = pte_of(VA);
    pte_next = pte_of(VA + 4096);
    if (xsave) {
        write_cr4(read_cr4() | 0x40000);
        asm volatile("xsetbv" : : "c"(0), "a"(avx ? 7 : 3), "d"(0));
    }
    *(u32 *)numbers = 1;
    mxcsr_set(0x1f80);
    not_available(avx);
    pending();
    simd_exceptions();
    alignment(avx);
    faults(avx);
    images(xsave);
    if (xsave)
        xsave_faults();
    lazy();
    kept(avx);
    device_operands();
}
