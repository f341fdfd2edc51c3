/* Extended state beyond single instructions' results: which control bits and features forbid what, exceptions and
 * their order, x87 environments in every format, reset values, images from hostile snapshots, memory that is not
 * RAM, and running out of room for stubs. The results themselves are checked against silicon in test_vector.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cpu/access.h"
#include "cpu/cpuid.h"
#include "cpu/decode.h"
#include "cpu/host_fault.h"
#include "cpu/vector.h"
#include "cpu/world.h"
#include "cpu/xstate.h"
#include "cpu_fixture.h"

#define DATA 0x80000u /* free RAM */
#define MMIO 0x1000000u

static struct cpu_fixture f;
static struct vcpu *c;

static int setup(void **unused)
{
    struct err e;

    cpu_fixture_create(&f, 1, "host");
    c = f.c;
    world_enter(c);
    return host_fault_setup(&e); /* in front of cmocka's handlers */
}

static int teardown(void **unused)
{
    world_leave(c);
    cpu_fixture_free(&f);
    return 0;
}

/* Executes one instruction at RIP; the vector it raised, or -1. */
static int run(const u8 *bytes)
{
    static struct insn i;
    int vector;

    vector_make_room(c);
    decode_insn(c, bytes, 15, c->code_size, &i);
    insn_place(&i, 0);
    c->insn = &i;
    c->s.gpr[RIP] += i.ends_block ? i.len : 0;
    vector = CAUGHT(c, i.fn(c, &i));
    ext_save(c);
    c->insn = NULL;
    c->s.gpr[RIP] += vector < 0 && !i.ends_block ? i.len : 0;
    return vector;
}
#define RUN(...) run((const u8[15]){__VA_ARGS__})

#define FNINIT 0xdb, 0xe3
#define FLD1 0xd9, 0xe8
#define FLDZ 0xd9, 0xee
#define FDIVP 0xde, 0xf9
#define FWAIT 0x9b
#define ADDPS 0x0f, 0x58, 0xc1
#define PADDB_MMX 0x0f, 0xfc, 0xc1
#define VADDPS_YMM 0xc5, 0xfc, 0x58, 0xc1
#define VADDPS_ZMM 0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc1
#define XSAVE_RBX 0x0f, 0xae, 0x23
#define FXSAVE_RBX 0x0f, 0xae, 0x03

/* Signals: cmocka takes them at the start of each test, after the setup. */
static void begin(void)
{
    struct err e;

    assert_int_equal(host_fault_setup(&e), 0);
    c->s.cr0 |= CR0_MP | CR0_NE;
    c->s.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    c->s.xcr0 = ext_host_components();
    c->s.gpr[RBX] = DATA;
    assert_int_equal(RUN(FNINIT), -1);
}

static bool host_has_avx512(void)
{
    return ext_host_components() >> XCOMP_HI16_ZMM & 1;
}

/* ---- control bits and features ---- */

struct control_case {
    u8 bytes[15];
    u64 cr0_set, cr4_clear, xcr0_clear;
    int vector;
};

static const struct control_case control_cases[] = {
    {{FLD1}, 0, 0, 0, -1}, {{FLD1}, CR0_EM, 0, 0, EXC_NM}, {{FLD1}, CR0_TS, 0, 0, EXC_NM},
    {{FLD1}, 0, CR4_OSFXSR, 0, -1},
    {{FWAIT}, CR0_TS, 0, 0, EXC_NM}, {{FWAIT}, CR0_EM, 0, 0, -1},
    {{PADDB_MMX}, 0, CR4_OSFXSR, 0, -1}, {{PADDB_MMX}, CR0_EM, 0, 0, EXC_UD}, {{PADDB_MMX}, CR0_TS, 0, 0, EXC_NM},
    {{PADDB_MMX}, CR0_EM | CR0_TS, 0, 0, EXC_UD},
    {{ADDPS}, 0, 0, 0, -1}, {{ADDPS}, CR0_EM, 0, 0, EXC_UD}, {{ADDPS}, CR0_TS, 0, 0, EXC_NM},
    {{ADDPS}, 0, CR4_OSFXSR, 0, EXC_UD}, {{ADDPS}, CR0_TS, CR4_OSFXSR, 0, EXC_UD}, {{ADDPS}, 0, CR4_OSXSAVE, 6, -1},
    {{VADDPS_YMM}, 0, 0, 0, -1}, {{VADDPS_YMM}, CR0_EM, 0, 0, -1}, {{VADDPS_YMM}, CR0_TS, 0, 0, EXC_NM},
    {{VADDPS_YMM}, 0, CR4_OSXSAVE, 0, EXC_UD}, {{VADDPS_YMM}, CR0_TS, 0, 4, EXC_UD}, {{VADDPS_YMM}, 0, CR4_OSFXSR, 0, -1},
    {{VADDPS_ZMM}, 0, 0, 0, -1}, {{VADDPS_ZMM}, CR0_TS, 0, 0, EXC_NM}, {{VADDPS_ZMM}, 0, 0, 0x80, EXC_UD},
    {{VADDPS_ZMM}, 0, 0, 0x20, EXC_UD},
    {{XSAVE_RBX}, CR0_EM, 0, 0, -1}, {{XSAVE_RBX}, CR0_TS, 0, 0, EXC_NM}, {{XSAVE_RBX}, CR0_TS, CR4_OSXSAVE, 0, EXC_UD},
    {{FXSAVE_RBX}, 0, CR4_OSFXSR, 0, -1}, {{FXSAVE_RBX}, CR0_EM, 0, 0, EXC_NM}, {{FXSAVE_RBX}, CR0_TS, 0, 0, EXC_NM},
};

static void control_bits_forbid(void **unused)
{
    cpu_long64(&f);
    begin();
    for (size_t n = 0; n < ARRAY_SIZE(control_cases); n++) {
        const struct control_case *k = &control_cases[n];
        u64 cr0 = c->s.cr0, cr4 = c->s.cr4, xcr0 = c->s.xcr0;
        int vector;

        if (k->bytes[0] == 0x62 && !host_has_avx512())
            continue;
        c->s.cr0 |= k->cr0_set;
        c->s.cr4 &= ~k->cr4_clear;
        c->s.xcr0 &= ~k->xcr0_clear;
        vector = run(k->bytes);
        if (vector != k->vector)
            fail_msg("case %zu: vector %d, not %d", n, vector, k->vector);
        c->s.cr0 = cr0;
        c->s.cr4 = cr4;
        c->s.xcr0 = xcr0;
    }
}

static void fwait_heeds_mp(void **unused)
{
    cpu_long64(&f);
    begin();
    c->s.cr0 = (c->s.cr0 & ~(u64)CR0_MP) | CR0_TS;
    assert_int_equal(RUN(FWAIT), -1);
    assert_int_equal(RUN(FLD1), EXC_NM);
}

static void features_forbid(void **unused)
{
    static const struct {
        u8 bytes[15];
        enum cpu_feature feature;
    } cases[] = {{{VADDPS_YMM}, FEAT_AVX}, {{ADDPS}, FEAT_SSE}, {{PADDB_MMX}, FEAT_MMX}, {{FXSAVE_RBX}, FEAT_FXSR},
                 {{XSAVE_RBX}, FEAT_XSAVE}, {{0xda, 0xc1}, FEAT_CMOV}, {{0x66, 0x0f, 0x38, 0xdc, 0xc1}, FEAT_AES},
                 {{0xdb, 0x0b}, FEAT_SSE3}, {{0x0f, 0xe0, 0xc1}, FEAT_SSE}};

    cpu_long64(&f);
    begin();
    for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
        u64 *word = &c->group->model->features[cases[n].feature / 64], bit = BIT(cases[n].feature % 64);

        if (!has(c, cases[n].feature))
            continue;
        assert_int_equal(run(cases[n].bytes), -1);
        *word &= ~bit;
        assert_int_equal(run(cases[n].bytes), EXC_UD);
        *word |= bit;
    }
}

/* VEX needs protected mode; elsewhere C5 with a register operand is no LDS either. */
static void vex_outside_protected_mode(void **unused)
{
    begin();
    assert_int_equal(c->code_size, 2);
    assert_int_equal(RUN(ADDPS), -1);
    assert_int_equal(RUN(VADDPS_YMM), EXC_UD);
    cpu_flat32(&f);
    begin();
    assert_int_equal(RUN(VADDPS_YMM), -1);
    cpu_v86(&f, 3);
    assert_int_equal(RUN(ADDPS), -1);
    assert_int_equal(RUN(VADDPS_YMM), EXC_UD);
}

/* ---- exceptions ---- */

static void ldmxcsr(u32 val)
{
    ram_put(&f, DATA, 4, val);
    assert_int_equal(RUN(0x0f, 0xae, 0x13), -1);
}

static void simd_exceptions(void **unused)
{
    cpu_long64(&f);
    begin();
    ldmxcsr(0x1f80 & ~0x200u); /* divide by zero unmasked */
    assert_int_equal(RUN(0x0f, 0x57, 0xc9), -1); /* xorps xmm1, xmm1 */
    assert_int_equal(RUN(0x66, 0x0f, 0x76, 0xc0), -1); /* pcmpeqd xmm0, xmm0 */
    assert_int_equal(RUN(0x0f, 0x5b, 0xc0), -1); /* cvtdq2ps xmm0, xmm0: -1.0 */
    assert_int_equal(RUN(0x0f, 0x5e, 0xc1), EXC_XM); /* divps xmm0, xmm1 */
    c->s.cr4 &= ~(u64)CR4_OSXMMEXCPT;
    assert_int_equal(RUN(0x0f, 0x5e, 0xc1), EXC_UD);
    assert_int_equal(RUN(0x0f, 0xae, 0x1b), -1); /* stmxcsr: the flag is set though nothing was divided */
    assert_int_equal(ram_get(&f, DATA, 4), (0x1f80 & ~0x200) | 4);
}

static void reserved_mxcsr_bits(void **unused)
{
    cpu_long64(&f);
    begin();
    ram_put(&f, DATA, 4, 0x1f80 | 1u << 31);
    assert_int_equal(RUN(0x0f, 0xae, 0x13), EXC_GP);
    assert_int_equal(RUN(FXSAVE_RBX), -1);
    ram_put(&f, DATA + 24, 4, 0xffffffff);
    assert_int_equal(RUN(0x0f, 0xae, 0x0b), EXC_GP); /* fxrstor */
}

static void fldcw(u16 val)
{
    ram_put(&f, DATA, 2, val);
    assert_int_equal(RUN(0xd9, 0x2b), -1);
}

/* 1 / 0 with the exception unmasked: pending, reported by the next instruction that waits. */
static void x87_divide_by_zero(void)
{
    assert_int_equal(RUN(FNINIT), -1);
    fldcw(0x37f & ~4);
    assert_int_equal(RUN(FLD1), -1);
    assert_int_equal(RUN(FLDZ), -1);
    c->s.gpr[RIP] = 0x1234;
    assert_int_equal(RUN(FDIVP), -1);
}

static void x87_exceptions_are_deferred(void **unused)
{
    cpu_long64(&f);
    begin();
    x87_divide_by_zero();
    assert_int_equal(RUN(0xdf, 0xe0), -1); /* fnstsw ax does not wait */
    assert_int_equal(c->s.gpr[RAX] & 0x80ff, 0x8084);
    assert_int_equal(RUN(FLD1), EXC_MF);
    assert_int_equal(RUN(FWAIT), EXC_MF);
    assert_int_equal(RUN(PADDB_MMX), EXC_MF);
    assert_int_equal(RUN(ADDPS), -1);
    assert_int_equal(c->s.fip, 0x1234);
    assert_int_equal(c->s.fop, 0x6f9);
    assert_int_equal(RUN(0xd9, 0x33), -1); /* fnstenv masks everything */
    assert_int_equal(RUN(FLD1), -1);
    assert_int_equal(ram_get(&f, DATA + 4, 2) & 0xff, 0x84);
    assert_int_equal(ram_get(&f, DATA + 12, 4), 0x1234);
    assert_int_equal(ram_get(&f, DATA + 18, 2), 0x6f9);
    x87_divide_by_zero();
    assert_int_equal(RUN(0xdb, 0xe2), -1); /* fnclex */
    assert_int_equal(RUN(FLD1), -1);
    x87_divide_by_zero();
    c->s.cr0 &= ~(u64)CR0_NE;
    assert_int_equal(RUN(FLD1), EXC_MF);
}

/* A pending exception comes before a fault of the operand, which for a non-waiting instruction is the only one. */
static void pending_exception_before_page_fault(void **unused)
{
    cpu_long64(&f);
    begin();
    x87_divide_by_zero();
    c->s.gpr[RBX] = 0x7fff00000000; /* not mapped */
    assert_int_equal(RUN(0xd9, 0x03), EXC_MF);  /* fld m32 */
    assert_int_equal(RUN(0xd9, 0x23), EXC_MF);  /* fldenv */
    assert_int_equal(RUN(0x0f, 0x6f, 0x03), EXC_MF); /* movq mm0, m64 */
    assert_int_equal(RUN(0xd9, 0x3b), EXC_PF);  /* fnstcw */
    assert_int_equal(RUN(0xd9, 0x33), EXC_PF);  /* fnstenv */
    assert_int_equal(RUN(0x0f, 0x10, 0x03), EXC_PF); /* movups */
}

static void alignment(void **unused)
{
    cpu_long64(&f);
    begin();
    c->s.gpr[RBX] = DATA + 8;
    assert_int_equal(RUN(0x0f, 0x28, 0x03), EXC_GP); /* movaps */
    assert_int_equal(RUN(0x0f, 0x10, 0x03), -1);     /* movups */
    assert_int_equal(RUN(FXSAVE_RBX), EXC_GP);
    c->s.gpr[RBX] = DATA + 16;
    assert_int_equal(RUN(XSAVE_RBX), EXC_GP);
    c->s.gpr[RBX] = DATA + 4096 - 8; /* across a page, by the slow way */
    assert_int_equal(RUN(0x0f, 0x28, 0x03), EXC_GP);
    assert_int_equal(RUN(0x0f, 0x10, 0x03), -1);
    cpu_user(&f);
    begin();
    c->s.cr0 |= CR0_AM;
    flags_load(c, flags_get(c) | FLAG_AC);
    c->s.gpr[RBX] = DATA + 2;
    assert_int_equal(RUN(0xd9, 0x03), EXC_AC); /* fld m32 */
    assert_int_equal(RUN(0x66, 0x0f, 0x6e, 0x03), EXC_AC); /* movd */
    c->s.gpr[RBX] = DATA + 4;
    assert_int_equal(RUN(0xd9, 0x03), -1);
}

static void segment_limits(void **unused)
{
    cpu_flat32(&f);
    begin();
    c->s.seg_limit[SEG_DS] = DATA + 15;
    vcpu_mode_update(c);
    assert_int_equal(RUN(0x0f, 0x10, 0x03), -1); /* movups */
    c->s.gpr[RBX] = DATA + 1;
    assert_int_equal(RUN(0x0f, 0x10, 0x03), EXC_GP);
    assert_int_equal(RUN(0x0f, 0x11, 0x03), EXC_GP);
    assert_int_equal(RUN(0xdd, 0x03), -1); /* fld m64 */
}

/* ---- x87 environments ---- */

/* FNSTENV, FLDENV back, and FNSTENV again must agree, and say the pointers as the format has them. */
static void environment(const u8 store[3], const u8 load[3], u32 size, u32 ip_at, u64 ip, u32 op_at, u64 fop)
{
    u64 image[4];

    x87_divide_by_zero();
    memset(image, 0, sizeof(image));
    assert_int_equal(run((const u8[15]){store[0], store[1], store[2]}), -1);
    for (u32 n = 0; n < size; n += 2)
        image[n / 8] |= ram_get(&f, DATA + n, 2) << n % 8 * 8;
    assert_int_equal(ram_get(&f, DATA + ip_at, 2), ip);
    if (op_at)
        assert_int_equal(ram_get(&f, DATA + op_at, 2) & 0xf7ff, fop);
    assert_int_equal(RUN(FNINIT), -1);
    assert_int_equal(run((const u8[15]){load[0], load[1], load[2]}), -1);
    assert_int_equal(RUN(FWAIT), EXC_MF); /* it is pending again */
    for (u32 n = 0; n < size; n += 2)
        ram_put(&f, DATA + n, 2, 0x5555);
    assert_int_equal(run((const u8[15]){store[0], store[1], store[2]}), -1);
    for (u32 n = 0; n < size; n += 2)
        assert_int_equal(ram_get(&f, DATA + n, 2), image[n / 8] >> n % 8 * 8 & 0xffff);
    assert_int_equal(ram_get(&f, DATA + size, 2), 0); /* and not a byte more */
}

static void protected_environments(void **unused)
{
    cpu_flat32(&f);
    begin();
    environment((const u8[]){0xd9, 0x33, 0}, (const u8[]){0xd9, 0x23, 0}, 28, 12, 0x1234, 18, 0x6f9);
    ram_put(&f, DATA + 14, 8, 0);
    environment((const u8[]){0x66, 0xd9, 0x33}, (const u8[]){0x66, 0xd9, 0x23}, 14, 6, 0x1234, 0, 0);
}

/* In real mode pointers are linear: CS base F0000 and IP 1234. */
static void real_environments(void **unused)
{
    begin();
    c->s.seg_base[SEG_DS] = DATA;
    c->s.gpr[RBX] = 0;
    c->s.seg_sel[SEG_CS] = 0xf000;
    vcpu_mode_update(c);
    environment((const u8[]){0xd9, 0x37, 0}, (const u8[]){0xd9, 0x27, 0}, 14, 6, 0x1234, 8, 0xf6f9); /* [bx] */
    ram_put(&f, DATA + 14, 8, 0);
    environment((const u8[]){0x66, 0xd9, 0x37}, (const u8[]){0x66, 0xd9, 0x27}, 28, 12, 0x1234, 16, 0xf6f9);
}

static void fnsave_and_frstor(void **unused)
{
    u64 st0;

    cpu_long64(&f);
    begin();
    assert_int_equal(RUN(FNINIT), -1);
    assert_int_equal(RUN(FLD1), -1);
    assert_int_equal(RUN(0xd9, 0xeb), -1); /* fldpi */
    assert_int_equal(RUN(0xdd, 0x33), -1); /* fnsave */
    st0 = ram_get(&f, DATA + 28, 8);
    assert_int_equal(st0, 0xc90fdaa22168c235);
    assert_int_equal(ram_get(&f, DATA + 8, 4), 0xffff0fff);
    assert_int_equal(*(u16 *)ext_area(c), 0x37f);
    assert_int_equal(ext_area(c)[4], 0); /* all empty */
    assert_int_equal(c->s.fip, 0);
    assert_int_equal(RUN(0xdd, 0x23), -1); /* frstor */
    assert_int_equal(*(u64 *)(ext_area(c) + 32), st0);
    assert_int_equal(ext_area(c)[4], 0xc0);
}

/* ---- the state as a whole ---- */

static void reset_values(void **unused)
{
    cpu_long64(&f);
    begin();
    assert_int_equal(RUN(0xd9, 0xeb), -1); /* fldpi */
    assert_int_equal(RUN(0x66, 0x0f, 0x76, 0xc0), -1); /* pcmpeqd xmm0, xmm0 */
    ext_reset(c, true);
    assert_int_equal(*(u16 *)ext_area(c), 0x37f);
    assert_int_equal(ext_area(c)[4], 0);
    assert_int_equal(ext_area(c)[160], 0xff); /* INIT leaves XMM0 */
    ext_reset(c, false);
    assert_int_equal(*(u16 *)ext_area(c), 0x40);
    assert_int_equal(ext_area(c)[4], 0xff);
    assert_int_equal(ext_area(c)[160], 0);
    assert_int_equal(*(u32 *)(ext_area(c) + 24), 0x1f80);
    assert_int_equal(c->s.fip, 0);
}

/* What a snapshot file may hold must not fault in our XRSTOR. */
static void hostile_images(void **unused)
{
    cpu_long64(&f);
    begin();
    for (int n = 0; n < 2000; n++) {
        u8 *area = ext_area(c);

        for (int at = 0; at < XSAVE_AREA_SIZE; at++)
            area[at] = n ? (u8)rand() : 0xff;
        assert_int_equal(RUN(0x0f, 0x57, 0xc0), -1); /* xorps xmm0, xmm0 */
        assert_int_equal(*(u64 *)(area + 160), 0);
    }
}

/* The host's area elsewhere than in s.xsave, as on hosts with another layout: a vCPU at an address that is no
 * multiple of 64. */
static void unaligned_image(void **unused)
{
#ifdef __SANITIZE_ADDRESS__
    skip(); /* `make san` has the sanitizer for undefined behaviour too, which forbids such an address */
#endif
    u8 *room = calloc(1, sizeof(struct vcpu) + 64);
    struct vcpu *other = (struct vcpu *)(((uintptr_t)room + 63) / 64 * 64 + 8);

    for (u64 n = 0; n < XSAVE_AREA_SIZE; n++)
        ((u8 *)other->s.xsave)[n] = (u8)(n * 7);
    *(u16 *)ext_area(other) = 0x37f;
    *(u16 *)(ext_area(other) + 2) = 0;
    *ext_xstate_bv(other) = ext_host_components();
    ext_load(other);
    ext_save(other);
    assert_int_equal(*ext_xstate_bv(other), ext_host_components());
    for (int n = 0; n < XCOMP_PKRU; n++)
        for (u32 at = MAX(ext_components[n].offset, 160); at < ext_components[n].offset + ext_components[n].size; at++)
            if (ext_host_components() >> n & 1 && n != XCOMP_X87)
                assert_int_equal(ext_area(other)[at], (u8)(at * 7));
    free(room);
}

/* Host addresses never reach the image. */
static void pointers_are_the_guests(void **unused)
{
    cpu_long64(&f);
    begin();
    assert_int_equal(RUN(FNINIT), -1);
    c->s.gpr[RIP] = 0x77665544;
    assert_int_equal(RUN(0xdd, 0x03), -1); /* fld m64 */
    assert_int_equal(*(u64 *)(ext_area(c) + 8), 0x77665544);
    assert_int_equal(*(u64 *)(ext_area(c) + 16), has(c, FEAT_FDP_EXCPTN_ONLY) ? 0 : DATA);
}

/* ---- memory that is no RAM, stores into code ---- */

static u64 device_data[8], device_writes;

static u64 device_read(void *ctx, u64 gpa, int size)
{
    u64 val = 0;

    memcpy(&val, (u8 *)device_data + (gpa & 63), (size_t)size);
    __asm__ volatile("pxor %%xmm0, %%xmm0; pxor %%xmm7, %%xmm7" : : : "xmm0", "xmm7"); /* devices use the host's registers */
    return val;
}

static void device_write(void *ctx, u64 gpa, int size, u64 val)
{
    memcpy((u8 *)device_data + (gpa & 63), &val, (size_t)size);
    device_writes++;
    __asm__ volatile("pxor %%xmm0, %%xmm0; pxor %%xmm7, %%xmm7" : : : "xmm0", "xmm7");
}

static void devices_as_operands(void **unused)
{
    cpu_flat32(&f);
    begin();
    c->group->config.bus.mmio_read = device_read;
    c->group->config.bus.mmio_write = device_write;
    for (int n = 0; n < 8; n++)
        device_data[n] = 0x1111111111111111u * (u64)(n + 1);
    c->s.gpr[RBX] = MMIO;
    assert_int_equal(RUN(0x66, 0x0f, 0x76, 0xff), -1); /* pcmpeqd xmm7, xmm7 */
    assert_int_equal(RUN(0x0f, 0x10, 0x43, 0x10), -1); /* movups xmm0, [ebx+16] */
    assert_int_equal(*(u64 *)(ext_area(c) + 160), 0x3333333333333333);
    assert_int_equal(*(u64 *)(ext_area(c) + 168), 0x4444444444444444);
    assert_int_equal(*(u64 *)(ext_area(c) + 160 + 7 * 16), ~0ull);
    assert_int_equal(RUN(0x0f, 0x11, 0x3b), -1); /* movups [ebx], xmm7 */
    assert_int_equal(device_data[0] & device_data[1], ~0ull);
    assert_int_equal(device_writes, 2);
    assert_int_equal(*(u64 *)(ext_area(c) + 160), 0x3333333333333333);
}

/* movups [ebx], xmm0 over the instruction behind it, in one block: nops become hlt-free INCs. */
static void stores_into_the_running_block(void **unused)
{
    static const u8 code[] = {0x0f, 0x11, 0x03, 0x90, 0x90, 0x90, 0x90};

    cpu_flat32(&f);
    begin();
    c->s.gpr[RBX] = DATA + 3;
    c->s.gpr[RAX] = 5;
    for (int n = 0; n < 16; n++)
        ext_area(c)[160 + n] = 0x40; /* inc eax */
    cpu_run_bytes(&f, DATA, code, sizeof(code));
    cpu_step(&f);
    cpu_step(&f);
    assert_int_equal(c->s.gpr[RAX], 7);
}

/* ---- room for stubs ---- */

static void stubs_are_forgotten_and_made_again(void **unused)
{
    cpu_long64(&f);
    begin();
    for (u32 n = 0; n < 70000; n++) { /* pshufd xmm0, xmm(n), imm: more than there is room for */
        u8 imm = (u8)n, from = (u8)(n >> 8 & 15);
        u32 *xmm = (u32 *)(ext_area(c) + 160);

        for (u32 k = 0; k < 4; k++)
            xmm[4 * from + k] = n * 4 + k;
        *ext_xstate_bv(c) |= BIT(XCOMP_SSE);
        assert_int_equal(RUN(0x66, (u8)(0x40 | from >> 3), 0x0f, 0x70, (u8)(0xc0 | (from & 7)), imm), -1);
        for (u32 k = 0; k < 4; k++)
            assert_int_equal(xmm[k], n * 4 + (imm >> 2 * k & 3));
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(control_bits_forbid), TEST(fwait_heeds_mp), TEST(features_forbid), TEST(vex_outside_protected_mode),
        TEST(simd_exceptions), TEST(reserved_mxcsr_bits), TEST(x87_exceptions_are_deferred),
        TEST(pending_exception_before_page_fault), TEST(alignment), TEST(segment_limits), TEST(protected_environments),
        TEST(real_environments), TEST(fnsave_and_frstor), TEST(reset_values), TEST(hostile_images), TEST(unaligned_image),
        TEST(pointers_are_the_guests), TEST(devices_as_operands), TEST(stores_into_the_running_block),
        TEST(stubs_are_forgotten_and_made_again)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
