/* State images: FXSAVE, XSAVE, XSAVEOPT and XSAVEC in all their forms, which bytes they write and which they leave,
 * the init and compacted formats, what XRSTOR initializes, XINUSE by XGETBV, what each refuses. SDM vol. 1 §10.5, ch.
 * 13; vol. 2. */
#include "guest.h"

enum { EAX, EBX, ECX, EDX };
enum { X87 = 1, SSE = 2, AVX = 4 };
#define COMPACTED (1ul << 63)
#define VA 0x40000000000ul

static u8 image[8192] __attribute__((aligned(4096)));
static u32 numbers[16] __attribute__((aligned(64))) = {1, 2, 3, 4, 5, 6, 7, 8};
static u64 all; /* XCR0 */

enum form { DO_XSAVE, DO_XSAVEOPT, DO_XSAVEC, DO_XRSTOR };
static struct {
    enum form form;
    u64 mask;
    void *at;
} op;

static void do_op(void *arg)
{
    u32 lo = (u32)op.mask, hi = (u32)(op.mask >> 32);

    switch (op.form) {
    case DO_XSAVE: asm volatile("xsave64 (%0)" : : "r"(op.at), "a"(lo), "d"(hi) : "memory"); break;
    case DO_XSAVEOPT: asm volatile("xsaveopt64 (%0)" : : "r"(op.at), "a"(lo), "d"(hi) : "memory"); break;
    case DO_XSAVEC: asm volatile("xsavec64 (%0)" : : "r"(op.at), "a"(lo), "d"(hi) : "memory"); break;
    default: asm volatile("xrstor64 (%0)" : : "r"(op.at), "a"(lo), "d"(hi) : "memory"); break;
    }
}

static int run(enum form form, u64 mask, void *at)
{
    op.form = form;
    op.mask = mask;
    op.at = at;
    return catch_fault(do_op, 0);
}

static void expect(const char *name, int got, int vector)
{
    check(got == vector, "%s: vector %d (expected %d)", name, got, vector);
}

static void fill_image(u8 v)
{
    for (u32 n = 0; n < sizeof(image); n++)
        image[n] = v;
}

static bool all_are(u32 from, u32 to, u8 v)
{
    while (from < to)
        if (image[from++] != v)
            return false;
    return true;
}

static u64 bv(void) { return *(u64 *)(image + 512); }
static u64 xcomp(void) { return *(u64 *)(image + 520); }
static u64 xinuse(void)
{
    u32 lo, hi;

    asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(1));
    return lo | (u64)hi << 32;
}

/* Every component has something in it, or nothing. */
static void registers(bool filled)
{
    asm volatile("fninit");
    for (u32 n = 0; n < 1024; n++)
        image[n] = 0;
    *(u32 *)(image + 24) = 0x1f80; /* loaded, XSTATE_BV or not */
    run(DO_XRSTOR, all, image); /* all initial */
    if (!filled)
        return;
    asm volatile("fld1; vmovaps %0, %%ymm3; vmovaps %0, %%ymm13" : : "m"(*(u8(*)[32])numbers));
}

static u32 offset_of(u32 component)
{
    u32 r[4];

    cpuid(13, component, r);
    return r[EBX];
}

static void in_use(void)
{
    if (!feature(13, 1, EAX, 2))
        return;
    registers(false);
    check(!(xinuse() & ~(u64)SSE), "XINUSE, all initial: %lx", xinuse());
    asm volatile("fld1");
    check(xinuse() & X87, "x87 in use: %lx", xinuse());
    asm volatile("fninit; movaps %0, %%xmm7" : : "m"(*(u8(*)[16])numbers));
    check((xinuse() & (SSE | AVX)) == SSE, "SSE in use: %lx", xinuse());
    asm volatile("vmovaps %0, %%ymm7" : : "m"(*(u8(*)[32])numbers));
    check(xinuse() & AVX, "AVX in use: %lx", xinuse());
    asm volatile("vzeroall");
    asm volatile("ldmxcsr %0" : : "m"((u32){0x1f00}));
    asm volatile("ldmxcsr %0" : : "m"((u32){0x1f80}));
}

static void standard(void)
{
    u32 ymm = offset_of(2);

    registers(true);
    fill_image(0xaa);
    *(u64 *)(image + 512) = 0;
    expect("XSAVE of all", run(DO_XSAVE, ~0ul, image), -1);
    check((bv() & 7) == 7 && !(bv() & ~all), "XSTATE_BV %lx of XCR0 %lx", bv(), all);
    check(all_are(520, 576, 0xaa) && all_are(416, 512, 0xaa),
          "nothing else of the header, nor bytes 416 to 511, is written");
    check(*(u32 *)(image + ymm + 3 * 16) == 5, "upper halves of YMM: %x", *(u32 *)(image + ymm + 3 * 16));
    fill_image(0xaa);
    *(u64 *)(image + 512) = 0x70;
    expect("XSAVE of SSE", run(DO_XSAVE, SSE, image), -1);
    check(all_are(0, 24, 0xaa) && all_are(32, 160, 0xaa) && !all_are(160, 416, 0xaa) && *(u32 *)(image + 24) == 0x1f80,
          "writes MXCSR and XMM alone");
    check(bv() == (0x70 | SSE), "and its bit of XSTATE_BV: %lx", bv());
    fill_image(0xaa);
    expect("XSAVE of AVX", run(DO_XSAVE, AVX, image), -1);
    check(all_are(0, 24, 0xaa) && all_are(32, 512, 0xaa) && *(u32 *)(image + 24) == 0x1f80 &&
              *(u32 *)(image + ymm + 48) == 5,
          "writes MXCSR too");
    fill_image(0xaa);
    expect("XSAVE of nothing", run(DO_XSAVE, 0, image), -1);
    check(all_are(0, 512, 0xaa) && all_are(520, 1024, 0xaa), "writes nothing but the header's first word");
    registers(false);
    fill_image(0xaa);
    expect("XSAVE of initial state", run(DO_XSAVE, AVX, image), -1);
    check(!(bv() & AVX) && all_are(ymm, ymm + 256, 0), "writes it, with XSTATE_BV clear: %lx", bv());
}

static void optimized(void)
{
    u32 ymm = offset_of(2);

    if (!feature(13, 1, EAX, 0))
        return;
    registers(false);
    fill_image(0xaa);
    expect("XSAVEOPT of initial state", run(DO_XSAVEOPT, X87 | AVX, image), -1);
    check(!(bv() & (X87 | AVX)) && all_are(ymm, ymm + 256, 0xaa) && all_are(0, 24, 0xaa) && all_are(32, 160, 0xaa),
          "leaves it unwritten: XSTATE_BV %lx", bv());
    check(*(u32 *)(image + 24) == 0x1f80, "but for MXCSR, as AVX was asked for: %x", *(u32 *)(image + 24));
}

static void compacted(void)
{
    if (!feature(13, 1, EAX, 1))
        return;
    registers(true);
    fill_image(0xaa);
    expect("XSAVEC of x87 and AVX", run(DO_XSAVEC, X87 | AVX, image), -1);
    check(bv() == (X87 | AVX) && xcomp() == (COMPACTED | X87 | AVX), "header %lx %lx", bv(), xcomp());
    check(all_are(528, 576, 0xaa) && all_are(24, 32, 0xaa) && all_are(160, 512, 0xaa),
          "neither MXCSR nor XMM are written");
    check(*(u32 *)(image + 576 + 48) == 5, "AVX comes first behind the header: %x", *(u32 *)(image + 576 + 48));
    asm volatile("vzeroall; fninit");
    for (u32 n = 528; n < 576; n++)
        image[n] = 0;
    expect("XRSTOR of it", run(DO_XRSTOR, X87 | AVX, image), -1);
    fill_image(0);
    run(DO_XSAVE, all, image);
    check(*(u32 *)(image + offset_of(2) + 48) == 5 && bv() & X87, "brings both back");
    registers(false);
    fill_image(0xaa);
    expect("XSAVEC of initial state", run(DO_XSAVEC, X87 | AVX, image), -1);
    check(bv() == 0 && xcomp() == (COMPACTED | X87 | AVX) && all_are(576, 1024, 0xaa), "writes the header alone: %lx",
          bv());
    asm volatile("ldmxcsr %0" : : "m"((u32){0x1f00}));
    expect("XSAVEC of SSE, initial but for MXCSR", run(DO_XSAVEC, SSE, image), -1);
    check(bv() == SSE && *(u32 *)(image + 24) == 0x1f00, "is not initial: %lx", bv());
    asm volatile("ldmxcsr %0" : : "m"((u32){0x1f80}));
}

static u32 mxcsr(void) { u32 v; asm volatile("stmxcsr %0" : "=m"(v)); return v; }

static void restoring(void)
{
    registers(true);
    fill_image(0);
    run(DO_XSAVE, all, image);
    *(u32 *)(image + 24) = 0x1f00;
    *(u64 *)(image + 512) = 0;
    expect("XRSTOR of SSE, XSTATE_BV clear", run(DO_XRSTOR, SSE, image), -1);
    check(mxcsr() == 0x1f00, "the standard form loads MXCSR all the same: %x", mxcsr());
    *(u32 *)(image + 24) = 0x1f80;
    expect("XRSTOR of AVX", run(DO_XRSTOR, AVX, image), -1);
    check(mxcsr() == 0x1f80, "and with AVX alone: %x", mxcsr());
    *(u32 *)(image + 24) = 0x10000;
    expect("XRSTOR of x87 with bad MXCSR bits", run(DO_XRSTOR, X87, image), -1);
    expect("XRSTOR of AVX with bad MXCSR bits", run(DO_XRSTOR, AVX, image), 13);
    *(u32 *)(image + 24) = 0x1f80;
    if (!feature(13, 1, EAX, 1))
        return;
    *(u64 *)(image + 520) = COMPACTED | SSE;
    *(u32 *)(image + 24) = 0x1f00;
    expect("compacted, SSE initial", run(DO_XRSTOR, SSE, image), -1);
    check(mxcsr() == 0x1f80, "initializes MXCSR: %x", mxcsr());
    *(u64 *)(image + 512) = AVX;
    expect("XSTATE_BV beyond XCOMP_BV", run(DO_XRSTOR, SSE, image), 13);
    *(u64 *)(image + 512) = 0;
    *(u64 *)(image + 520) = COMPACTED | 1ul << 62;
    expect("XCOMP_BV beyond XCR0", run(DO_XRSTOR, SSE, image), 13);
    *(u64 *)(image + 520) = COMPACTED | SSE;
    *(u64 *)(image + 560) = 1;
    expect("compacted, the header's reserved bytes", run(DO_XRSTOR, SSE, image), 13);
    *(u64 *)(image + 520) = 0;
    expect("standard, bytes beyond 24 of the header", run(DO_XRSTOR, SSE, image), -1);
    *(u64 *)(image + 560) = 0;
    *(u64 *)(image + 528) = 1;
    expect("standard, the third quadword", run(DO_XRSTOR, SSE, image), 13);
}

CODE(64, lock_xsave, ".byte 0xf0; xsave (%rbx)");
CODE(64, xsave_register, ".byte 0x0f, 0xae, 0xe0");
CODE(64, xsetbv_user, "xor %ecx, %ecx; xor %edx, %edx; mov $3, %eax; xsetbv; int3");
static void do_xgetbv(void *arg) { asm volatile("xgetbv" : : "c"(arg) : "eax", "edx"); }
static void do_xsetbv(void *arg) { asm volatile("xsetbv" : : "c"(0), "a"((u32)(u64)arg), "d"((u32)((u64)arg >> 32))); }

static void refusals(void)
{
    struct frame f = frame_at(lock_xsave, 0);

    f.rbx = (u64)image;
    check(enter(&f) == 6, "LOCK XSAVE: vector %lu", caught.vector);
    f.rip = (u64)xsave_register;
    check(enter(&f) == 6, "XSAVE of a register: vector %lu", caught.vector);
    for (int form = DO_XSAVE; form <= DO_XRSTOR; form++) {
        if ((form == DO_XSAVEOPT && !feature(13, 1, EAX, 0)) || (form == DO_XSAVEC && !feature(13, 1, EAX, 1)))
            continue;
        expect("aligned to 32", run((enum form)form, 1, image + 32), 13);
        expect("an absent page", run((enum form)form, 1, (void *)VA), 14);
        expect("a bad address", run((enum form)form, 1, (void *)0x800000000000), 13);
        write_cr0(read_cr0() | 8);
        expect("TS", run((enum form)form, 1, image + 32), 7);
        write_cr0(read_cr0() & ~8ul);
        write_cr4(read_cr4() & ~0x40000ul);
        expect("without OSXSAVE", run((enum form)form, 1, image + 32), 6);
        write_cr4(read_cr4() | 0x40000);
    }
    expect("XGETBV of register 2", catch_fault(do_xgetbv, (void *)2), 13);
    expect("XGETBV ignores RCX's upper half", catch_fault(do_xgetbv, (void *)(1ul << 32)), -1);
    expect("XCR0 of zero", catch_fault(do_xsetbv, 0), 13);
    expect("XCR0 with bit 63", catch_fault(do_xsetbv, (void *)(all | 1ul << 63)), 13);
    expect("XCR0 with AVX, without SSE", catch_fault(do_xsetbv, (void *)(u64)(X87 | AVX)), 13);
    user_text_allow(true);
    f = frame_at(xsetbv_user, 3);
    check(enter(&f) == 13, "XSETBV in ring 3: vector %lu", caught.vector);
    user_text_allow(false);
}

/* In 32-bit code only the first eight registers are saved and restored. */
CODE(32, save32, "mov $7, %eax; xor %edx, %edx; xsave (%ebx); int3");
CODE(32, restore32, "mov $7, %eax; xor %edx, %edx; xrstor (%ebx); int3");
static void compatibility(void)
{
    struct frame f = frame_at(save32, 0);
    u32 ymm = offset_of(2), thirteen;

    f.cs = 0x18;
    asm volatile("mov %0, %%ds" : : "r"(0x10)); /* ring 3 was left with a null one */
    f.rbx = (u64)image;
    registers(true);
    fill_image(0xaa);
    *(u64 *)(image + 512) = 0;
    check(enter(&f) == 3 && *(u32 *)(image + 160 + 48) == 1 && all_are(160 + 128, 416, 0xaa) &&
              all_are(ymm + 128, ymm + 256, 0xaa),
          "XSAVE in compatibility mode stores eight registers");
    fill_image(0);
    *(u32 *)(image + 24) = 0x1f80;
    f.rip = (u64)restore32;
    asm volatile("vmovaps %0, %%ymm3; vmovaps %0, %%ymm13" : : "m"(*(u8(*)[32])numbers));
    check(enter(&f) == 3, "XRSTOR in compatibility mode: vector %lu", caught.vector);
    asm volatile("vmovd %%xmm13, %0" : "=r"(thirteen));
    check(thirteen == 1, "leaves the others: %x", thirteen);
    asm volatile("vmovd %%xmm3, %0" : "=r"(thirteen));
    check(thirteen == 0, "and initializes the eight: %x", thirteen);
}

void guest_main(void)
{
    u32 r[4];

    if (!feature(1, 0, ECX, 26) || !feature(1, 0, ECX, 28)) {
        expect("XSAVE without the feature", run(DO_XSAVE, 1, image), 6);
        return;
    }
    write_cr4(read_cr4() | 0x40000);
    cpuid(13, 0, r);
    all = r[EAX] & 0xe7;
    do_xsetbv((void *)all);
    in_use();
    standard();
    optimized();
    compacted();
    restoring();
    refusals();
    compatibility();
}
