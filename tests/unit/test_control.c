/* Control, debug and extended control registers, tables, selector queries, and their rules, as instructions. */
#include "cpu_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "cpu/cpuid.h"

#define HANDLER 0x9000u

static struct cpu_fixture f;
static struct vcpu *c;

/* Every exception goes to HANDLER + its vector. */
static void handlers_put(u16 sel)
{
    for (int n = 0; n < 32; n++)
        idt_put(&f, n, sel, HANDLER + (u32)n, ACCESS_INTR32);
}

static int setup(void **unused)
{
    cpu_fixture_create(&f, 1, "");
    c = f.c;
    cpu_flat32(&f);
    handlers_put(SEL_CODE0);
    return 0;
}

static int teardown(void **unused)
{
    cpu_fixture_free(&f);
    return 0;
}

/* Runs one instruction; the exception that it raised, or -1. The next one runs again where this one did. */
static int run(const char *bytes, u32 len)
{
    u64 sp = c->s.gpr[RSP];
    int vector = -1;

    cpu_run_bytes(&f, 0x8000, bytes, len);
    if (c->s.gpr[RIP] - HANDLER < 32) {
        vector = (int)(c->s.gpr[RIP] - HANDLER);
        c->s.gpr[RSP] = sp;
    }
    return vector;
}
#define RUN(bytes) run(bytes, sizeof(bytes) - 1)

#define MOV_CR0_EAX "\x0f\x22\xc0"
#define MOV_CR3_EAX "\x0f\x22\xd8"
#define MOV_CR4_EAX "\x0f\x22\xe0"
#define MOV_EAX_CR0 "\x0f\x20\xc0"

static int mov_to(const char *bytes, u64 val)
{
    c->s.gpr[RAX] = val;
    return run(bytes, 3);
}

static void cr0_rules(void **unused)
{
    assert_int_equal(mov_to(MOV_CR0_EAX, CR0_PG), EXC_GP);
    assert_int_equal(mov_to(MOV_CR0_EAX, CR0_PE | CR0_NW), EXC_GP);
    assert_int_equal(mov_to(MOV_CR0_EAX, CR0_PE | CR0_TS | 0x40), -1); /* reserved bits are ignored */
    assert_int_equal(c->s.cr0, CR0_PE | CR0_TS | CR0_ET);
    assert_int_equal(RUN("\x0f\x06"), -1); /* CLTS */
    assert_int_equal(RUN(MOV_EAX_CR0), -1);
    assert_int_equal(c->s.gpr[RAX], CR0_PE | CR0_ET);
}

static void lmsw_cannot_clear_pe(void **unused)
{
    c->s.gpr[RAX] = CR0_MP;
    assert_int_equal(RUN("\x0f\x01\xf0"), -1);
    assert_int_equal(c->s.cr0 & 0xf, CR0_PE | CR0_MP);
}

static void long_mode_is_entered_and_left(void **unused)
{
    cpu_long64(&f); /* for its page tables */
    cpu_flat32(&f);
    handlers_put(SEL_CODE0);
    c->s.cr3 = PAGES_AT;
    c->s.efer = EFER_LME;
    assert_int_equal(mov_to(MOV_CR0_EAX, c->s.cr0 | CR0_PG), EXC_GP); /* without PAE */
    c->s.cr4 = CR4_PAE;
    assert_int_equal(mov_to(MOV_CR0_EAX, c->s.cr0 | CR0_PG), -1);
    assert_int_equal(c->s.efer, EFER_LME | EFER_LMA);
    assert_int_equal(c->code_size, 4);
    handlers_put(SEL_CODE64);
    assert_no_fault(c, far_jump(c, SEL_CODE64, 0x8000, 4));
    assert_int_equal(mov_to(MOV_CR0_EAX, c->s.cr0 & ~(u64)CR0_PG), EXC_GP); /* 64-bit code cannot */
    assert_int_equal(mov_to(MOV_CR4_EAX, 0), EXC_GP);                       /* nor clear PAE */
    assert_no_fault(c, far_jump(c, SEL_CODE0, 0x8000, 4));
    assert_int_equal(mov_to(MOV_CR0_EAX, c->s.cr0 & ~(u64)CR0_PG), -1);
    assert_int_equal(c->s.efer, EFER_LME);
}

static void cr4_and_pcid_rules(void **unused)
{
    assert_int_equal(mov_to(MOV_CR4_EAX, CR4_LA57), EXC_GP);
    assert_int_equal(mov_to(MOV_CR4_EAX, BIT(13)), EXC_GP); /* VMXE */
    assert_int_equal(mov_to(MOV_CR4_EAX, CR4_PCIDE), EXC_GP); /* outside long mode */
    cpu_long64(&f);
    handlers_put(SEL_CODE64);
    c->s.cr3 |= 5;
    assert_int_equal(mov_to(MOV_CR4_EAX, CR4_PAE | CR4_PCIDE), EXC_GP); /* CR3[11:0] is not 0 */
    c->s.cr3 &= ~5ull;
    assert_int_equal(mov_to(MOV_CR3_EAX, BIT(63) | PAGES_AT), EXC_GP);
    assert_int_equal(mov_to(MOV_CR4_EAX, CR4_PAE | CR4_PCIDE), -1);
    assert_int_equal(mov_to(MOV_CR3_EAX, BIT(63) | PAGES_AT | 7), -1);
    assert_int_equal(c->s.cr3, PAGES_AT | 7);
    assert_int_equal(mov_to(MOV_CR3_EAX, BIT(60) | PAGES_AT), EXC_GP);
    assert_int_equal(mov_to(MOV_CR0_EAX, c->s.cr0 | BIT(32)), EXC_GP);
}

static void user_code_may_not(void **unused)
{
    static const struct {
        const char *bytes;
        u32 len;
    } privileged[] = {{MOV_CR0_EAX, 3},    {MOV_EAX_CR0, 3},    {"\x0f\x21\xc0", 3}, {"\x0f\x06", 2},
                      {"\xf4", 1},         {"\x0f\x32", 2},     {"\x0f\x30", 2},     {"\x0f\x01\x10", 3},
                      {"\x0f\x00\xd0", 3}, {"\x0f\x00\xd8", 3}, {"\x0f\x01\x38", 3}, {"\x0f\x08", 2},
                      {"\x0f\x09", 2},     {"\x0f\x01\xf0", 3}};

    c->s.gpr[RAX] = 0;
    for (size_t n = 0; n < ARRAY_SIZE(privileged); n++) {
        cpu_user(&f);
        assert_int_equal(run(privileged[n].bytes, privileged[n].len), EXC_GP);
        assert_int_equal(c->s.activity, VCPU_ACTIVE);
    }
}

static void umip(void **unused)
{
    c->s.gpr[RAX] = 0x7000;
    cpu_user(&f);
    assert_int_equal(RUN("\x0f\x01\x00"), -1); /* SGDT [EAX] */
    assert_int_equal(ram_get(&f, 0x7000, 2), GDT_LIMIT);
    assert_int_equal(ram_get(&f, 0x7002, 4), GDT_AT);
    c->s.cr4 |= CR4_UMIP;
    assert_int_equal(RUN("\x0f\x01\x00"), EXC_GP);
    cpu_user(&f);
    assert_int_equal(RUN("\x0f\x01\xe0"), EXC_GP); /* SMSW EAX */
    cpu_user(&f);
    assert_int_equal(RUN("\x0f\x00\xc8"), EXC_GP); /* STR EAX */
}

static void tables(void **unused)
{
    ram_put(&f, 0x7000, 2, 0x1234);
    ram_put(&f, 0x7002, 4, 0xaabbccdd);
    c->s.gpr[RAX] = 0x7000;
    assert_int_equal(RUN("\x0f\x01\x18"), -1); /* LIDT */
    assert_int_equal(c->s.idtr_base, 0xaabbccdd);
    assert_int_equal(c->s.idtr_limit, 0x1234);
    assert_int_equal(RUN("\x66\x0f\x01\x18"), -1); /* 16-bit operands: 24 bits of base */
    assert_int_equal(c->s.idtr_base, 0xbbccdd);
}

static void ltr_marks_busy(void **unused)
{
    c->s.gpr[RAX] = SEL_TSS2;
    assert_int_equal(RUN("\x0f\x00\xd8"), -1);
    assert_int_equal(c->s.seg_sel[SEG_TR], SEL_TSS2);
    assert_int_equal(access_byte(&f, SEL_TSS2), ACCESS_TSS32 | SYS_TSS_BUSY_BIT);
    assert_int_equal(RUN("\x0f\x00\xd8"), EXC_GP); /* busy */
    c->s.gpr[RAX] = 0;
    assert_int_equal(RUN("\x0f\x00\xd8"), EXC_GP);
}

static bool zf(void)
{
    return flags_get(c) & FLAG_ZF;
}

static void selector_queries(void **unused)
{
    c->s.gpr[RCX] = SEL_CODE0;
    assert_int_equal(RUN("\x0f\x02\xc1"), -1); /* LAR EAX, ECX */
    assert_true(zf());
    assert_int_equal(c->s.gpr[RAX] & 0xf0ff00, 0xc09b00 & 0xf0fe00);
    assert_int_equal(RUN("\x0f\x03\xc1"), -1); /* LSL */
    assert_int_equal(c->s.gpr[RAX], 0xffffffff);
    assert_int_equal(RUN("\x0f\x00\xe1"), -1); /* VERR CX */
    assert_true(zf());
    assert_int_equal(RUN("\x0f\x00\xe9"), -1); /* VERW CX */
    assert_false(zf());
    c->s.gpr[RCX] = 0;
    c->s.gpr[RAX] = 42;
    assert_int_equal(RUN("\x0f\x03\xc1"), -1);
    assert_false(zf());
    assert_int_equal(c->s.gpr[RAX], 42);
    c->s.gpr[RCX] = 0x20;
    c->s.gpr[RAX] = 3;
    assert_int_equal(RUN("\x63\xc1"), -1); /* ARPL CX, AX */
    assert_true(zf());
    assert_int_equal(c->s.gpr[RCX], 0x23);
    c->s.gpr[RCX] = SEL_CODE0;
    cpu_user(&f);
    assert_int_equal(RUN("\x0f\x02\xc1"), -1);
    assert_false(zf()); /* not for CPL 3 to see */
}

static void debug_registers(void **unused)
{
    c->s.gpr[RAX] = 0xffffffff;
    assert_int_equal(RUN("\x0f\x23\xf8"), -1); /* MOV DR7, EAX: sets GD */
    assert_int_equal(c->s.dr[7], 0xffff27ff);
    assert_int_equal(RUN("\x0f\x21\xf0"), EXC_DB); /* MOV EAX, DR6 */
    assert_int_equal(c->s.dr[6] & DR6_BD, DR6_BD);
    assert_int_equal(c->s.dr[7] & 0x2000, 0);
    c->s.dr[7] = 0x400;
    assert_int_equal(RUN("\x0f\x21\xe0"), -1); /* DR4 is DR6 */
    assert_int_equal(c->s.gpr[RAX], c->s.dr[6]);
    c->s.cr4 |= CR4_DE;
    assert_int_equal(RUN("\x0f\x21\xe0"), EXC_UD);
    c->s.gpr[RAX] = 0;
    assert_int_equal(RUN("\x0f\x23\xf0"), -1);
    assert_int_equal(c->s.dr[6], 0xffff0ff0);
}

static void xcr0_rules(void **unused)
{
    u64 best = f.group->model->xcr0_mask;

    if (!best)
        skip();
    c->s.gpr[RAX] = 3;
    c->s.gpr[RCX] = c->s.gpr[RDX] = 0;
    assert_int_equal(RUN("\x0f\x01\xd1"), EXC_UD);
    c->s.cr4 |= CR4_OSXSAVE;
    assert_int_equal(RUN("\x0f\x01\xd1"), -1);
    assert_int_equal(c->s.xcr0, 3);
    c->s.gpr[RAX] = 2;
    assert_int_equal(RUN("\x0f\x01\xd1"), EXC_GP);
    c->s.gpr[RAX] = 5;
    assert_int_equal(RUN("\x0f\x01\xd1"), EXC_GP);
    c->s.gpr[RAX] = 0x27;
    assert_int_equal(RUN("\x0f\x01\xd1"), EXC_GP);
    c->s.gpr[RAX] = 0x100 | 3; /* processor trace is XSS's */
    assert_int_equal(RUN("\x0f\x01\xd1"), EXC_GP);
    c->s.gpr[RAX] = 0x200 | 3; /* PKRU */
    assert_int_equal(RUN("\x0f\x01\xd1"), best & 0x200 ? -1 : EXC_GP);
    c->s.gpr[RAX] = best;
    assert_int_equal(RUN("\x0f\x01\xd1"), -1);
    assert_int_equal(RUN("\x0f\x01\xd0"), -1); /* XGETBV */
    assert_int_equal(c->s.gpr[RAX], best);
}

static void ss_load_shadows(void **unused)
{
    c->s.gpr[RAX] = SEL_DATA0;
    assert_int_equal(RUN("\x8e\xd0"), -1); /* MOV SS, AX */
    assert_true(c->s.int_shadow && c->s.debug_shadow);
    assert_int_equal(RUN("\x90"), -1);
    assert_false(c->s.int_shadow || c->s.debug_shadow);
}

static void push_and_pop_of_segments(void **unused)
{
    u64 sp = c->s.gpr[RSP];

    ram_put(&f, sp - 4, 4, 0xaaaaaaaa);
    assert_int_equal(RUN("\x06"), -1); /* PUSH ES */
    assert_int_equal(c->s.gpr[RSP], sp - 4);
    assert_int_equal(ram_get(&f, sp - 4, 4), 0xaaaa0000 | SEL_DATA0);
    assert_int_equal(RUN("\x0f\xa1"), -1); /* POP FS */
    assert_int_equal(c->s.gpr[RSP], sp);
    ram_put(&f, sp, 4, SEL_CODE3 | 4);
    assert_int_equal(RUN("\x1f"), EXC_GP); /* POP DS of a bad one leaves ESP alone */
    assert_int_equal(c->s.gpr[RSP], sp);
}

static void hlt_halts(void **unused)
{
    assert_int_equal(RUN("\xf4"), -1);
    assert_int_equal(c->s.activity, VCPU_HALTED);
    assert_int_equal(c->s.gpr[RIP], 0x8001);
}

static void bases_in_64_bit_mode(void **unused)
{
    cpu_long64(&f);
    handlers_put(SEL_CODE64);
    c->s.gpr[RAX] = 0x7f0012345678;
    assert_int_equal(RUN("\xf3\x48\x0f\xae\xd0"), EXC_UD); /* WRFSBASE without CR4.FSGSBASE */
    c->s.cr4 |= CR4_FSGSBASE;
    assert_int_equal(RUN("\xf3\x48\x0f\xae\xd0"), -1);
    assert_true(c->s.seg_base[SEG_FS] == 0x7f0012345678);
    assert_int_equal(RUN("\xf3\x0f\xae\xc1"), -1); /* RDFSBASE ECX */
    assert_int_equal(c->s.gpr[RCX], 0x12345678);
    c->s.gpr[RAX] = BIT(47);
    assert_int_equal(RUN("\xf3\x48\x0f\xae\xd8"), EXC_GP);
    c->s.msr_kernel_gs_base = 0x1000;
    assert_int_equal(RUN("\x0f\x01\xf8"), -1); /* SWAPGS */
    assert_int_equal(c->s.seg_base[SEG_GS], 0x1000);
    assert_int_equal(c->lin_base[SEG_GS], 0x1000);
}

static void smap_flags(void **unused)
{
    assert_int_equal(RUN("\x0f\x01\xcb"), -1); /* STAC */
    assert_int_equal(c->s.rflags & FLAG_AC, FLAG_AC);
    assert_int_equal(RUN("\x0f\x01\xca"), -1);
    assert_int_equal(c->s.rflags & FLAG_AC, 0);
    cpu_user(&f);
    assert_int_equal(RUN("\x0f\x01\xcb"), EXC_UD);
}

static void invpcid_rules(void **unused)
{
    cpu_long64(&f);
    handlers_put(SEL_CODE64);
    c->s.gpr[RBX] = 0x7000;
    ram_put(&f, 0x7000, 8, 1);
    ram_put(&f, 0x7008, 8, 0x8000);
    c->s.gpr[RAX] = 0;
    assert_int_equal(RUN("\x66\x0f\x38\x82\x03"), EXC_GP); /* a PCID without CR4.PCIDE */
    ram_put(&f, 0x7000, 8, 0);
    assert_int_equal(RUN("\x66\x0f\x38\x82\x03"), -1);
    c->s.gpr[RAX] = 4;
    assert_int_equal(RUN("\x66\x0f\x38\x82\x03"), EXC_GP);
}

static void never_there(void **unused)
{
    assert_int_equal(RUN("\x0f\x01\xc8"), EXC_UD); /* MONITOR */
    assert_int_equal(RUN("\x0f\x01\xc9"), EXC_UD); /* MWAIT */
    assert_int_equal(RUN("\x0f\x0b"), EXC_UD);
    assert_int_equal(RUN("\x0f\xb9\xc0"), EXC_UD);
    assert_int_equal(RUN("\x0f\xff\xc0"), EXC_UD);
    assert_int_equal(RUN("\x0f\xaa"), EXC_UD);     /* RSM */
    assert_int_equal(RUN("\x0f\x01\xc1"), EXC_UD); /* VMCALL */
    assert_int_equal(RUN("\x8e\xc8"), EXC_UD);     /* MOV CS, AX */
}

static void selector_instructions_need_protected_mode(void **unused)
{
    cpu_v86(&f, 3);
    cpu_run_bytes(&f, 0x1000 + 0x8000, "\x0f\x00\xc0", 3); /* SLDT AX */
    assert_int_equal(c->s.gpr[RIP], HANDLER + EXC_UD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(cr0_rules),
        T(lmsw_cannot_clear_pe),
        T(long_mode_is_entered_and_left),
        T(cr4_and_pcid_rules),
        T(user_code_may_not),
        T(umip),
        T(tables),
        T(ltr_marks_busy),
        T(selector_queries),
        T(debug_registers),
        T(xcr0_rules),
        T(ss_load_shadows),
        T(push_and_pop_of_segments),
        T(hlt_halts),
        T(bases_in_64_bit_mode),
        T(smap_flags),
        T(invpcid_rules),
        T(never_there),
        T(selector_instructions_need_protected_mode)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
