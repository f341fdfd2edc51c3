/* Segment registers: loading in every mode, access checks, the I/O permission map. */
#include "cpu_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct cpu_fixture f;
static struct vcpu *c;

static int setup(void **unused)
{
    cpu_fixture_create(&f, 1, "");
    c = f.c;
    cpu_flat32(&f);
    return 0;
}

static int teardown(void **unused)
{
    cpu_fixture_free(&f);
    return 0;
}

static void loads_set_the_accessed_bit(void **unused)
{
    descriptor_put(&f, SEL_FREE, 0x12345678, 0xfffff, ACCESS_DATA, 4);
    assert_no_fault(c, segment_load(c, SEG_DS, SEL_FREE));
    assert_int_equal(c->s.seg_base[SEG_DS], 0x12345678);
    assert_int_equal(c->s.seg_limit[SEG_DS], 0xfffff);
    assert_int_equal(access_byte(&f, SEL_FREE), ACCESS_DATA | 1);
    assert_int_equal(c->s.seg_attr[SEG_DS] & SEG_A, SEG_A);
}

static void granularity_scales_the_limit(void **unused)
{
    descriptor_put(&f, SEL_FREE, 0, 0x12345fff, ACCESS_DATA, 8);
    assert_no_fault(c, segment_load(c, SEG_ES, SEL_FREE));
    assert_int_equal(c->s.seg_limit[SEG_ES], 0x12345fff);
}

static void bad_selectors_raise(void **unused)
{
    u16 before = c->s.seg_sel[SEG_DS];

    assert_raises(c, EXC_GP, 0x100, segment_load(c, SEG_DS, 0x103)); /* behind the table */
    assert_raises(c, EXC_GP, 0x0c, segment_load(c, SEG_DS, 0x0c));   /* no LDT */
    descriptor_put(&f, SEL_FREE, 0, 0xffff, ACCESS_DATA & 0x7f, 0);
    assert_raises(c, EXC_NP, SEL_FREE, segment_load(c, SEG_DS, SEL_FREE));
    assert_raises(c, EXC_SS, SEL_FREE, segment_load(c, SEG_SS, SEL_FREE));
    descriptor_put(&f, SEL_FREE, 0, 0xffff, 0x98, 0); /* execute-only */
    assert_raises(c, EXC_GP, SEL_FREE, segment_load(c, SEG_DS, SEL_FREE));
    assert_raises(c, EXC_GP, SEL_TSS, segment_load(c, SEG_DS, SEL_TSS));
    assert_raises(c, EXC_GP, 0, segment_load(c, SEG_SS, 0));
    assert_raises(c, EXC_GP, SEL_DATA3 & ~3, segment_load(c, SEG_SS, SEL_DATA3));
    assert_raises(c, EXC_GP, SEL_CODE0, segment_load(c, SEG_SS, SEL_CODE0));
    assert_int_equal(c->s.seg_sel[SEG_DS], before);
}

static void privilege_counts(void **unused)
{
    cpu_user(&f);
    assert_raises(c, EXC_GP, SEL_DATA0, segment_load(c, SEG_DS, SEL_DATA0));
    assert_no_fault(c, segment_load(c, SEG_DS, SEL_CONFORMING | 3));
    assert_no_fault(c, segment_load(c, SEG_DS, 3)); /* null, with any RPL */
    assert_int_equal(c->s.seg_attr[SEG_DS] & SEG_P, 0);
    assert_raises(c, EXC_GP, 0, segment_check(c, SEG_DS, 0, 1, false));
}

static void ldt_selectors(void **unused)
{
    ram_put(&f, LDT_AT + 0x18, 8, ram_get(&f, GDT_AT + SEL_DATA0, 8));
    cpu_run_bytes(&f, 0x8000, "\x0f\x00\xd0", 3); /* LLDT AX: AX is 0, a null LDT */
    assert_raises(c, EXC_GP, 0x1c, segment_load(c, SEG_DS, 0x1c));
    c->s.gpr[RAX] = SEL_LDT;
    cpu_run_bytes(&f, 0x8000, "\x0f\x00\xd0", 3);
    assert_int_equal(c->s.seg_sel[SEG_LDTR], SEL_LDT);
    assert_no_fault(c, segment_load(c, SEG_DS, 0x1c));
    assert_raises(c, EXC_GP, 0x24, segment_load(c, SEG_DS, 0x24)); /* beyond its limit */
}

static void null_ss_in_64_bit_mode(void **unused)
{
    cpu_long64(&f);
    assert_no_fault(c, segment_load(c, SEG_SS, 0));
    assert_raises(c, EXC_GP, 0, segment_load(c, SEG_SS, 3));
    cpu_user(&f);
    assert_raises(c, EXC_GP, 0, segment_load(c, SEG_SS, 3));
}

static void limits(void **unused)
{
    descriptor_put(&f, SEL_FREE, 0x1000, 0xfff, ACCESS_DATA, 4);
    segment_load(c, SEG_DS, SEL_FREE);
    assert_no_fault(c, segment_check(c, SEG_DS, 0xffc, 4, true));
    assert_raises(c, EXC_GP, 0, segment_check(c, SEG_DS, 0xffd, 4, false));
    assert_raises(c, EXC_GP, 0, segment_check(c, SEG_DS, 0xffffffff, 4, false));
    segment_load(c, SEG_SS, SEL_FREE);
    assert_raises(c, EXC_SS, 0, segment_check(c, SEG_SS, 0x1000, 1, false));
}

static void expand_down(void **unused)
{
    descriptor_put(&f, SEL_FREE, 0, 0xfff, ACCESS_DATA | 4, 4);
    segment_load(c, SEG_DS, SEL_FREE);
    assert_raises(c, EXC_GP, 0, segment_check(c, SEG_DS, 0xfff, 1, false));
    assert_no_fault(c, segment_check(c, SEG_DS, 0x1000, 4, true));
    assert_no_fault(c, segment_check(c, SEG_DS, 0xfffffffc, 4, true));
    descriptor_put(&f, SEL_FREE, 0, 0xfff, ACCESS_DATA | 4, 0); /* upper bound of a 16-bit one */
    segment_load(c, SEG_DS, SEL_FREE);
    assert_no_fault(c, segment_check(c, SEG_DS, 0xfffe, 2, true));
    assert_raises(c, EXC_GP, 0, segment_check(c, SEG_DS, 0xffff, 2, true));
}

static void types(void **unused)
{
    descriptor_put(&f, SEL_FREE, 0, 0xffffffff, 0x90, 0xc); /* read-only */
    segment_load(c, SEG_DS, SEL_FREE);
    assert_no_fault(c, segment_check(c, SEG_DS, 0, 4, false));
    assert_raises(c, EXC_GP, 0, segment_check(c, SEG_DS, 0, 4, true));
    segment_load(c, SEG_ES, SEL_CODE0); /* readable code */
    assert_no_fault(c, segment_check(c, SEG_ES, 0, 4, false));
    assert_raises(c, EXC_GP, 0, segment_check(c, SEG_ES, 0, 4, true));
}

static void real_mode(void **unused)
{
    vcpu_group_reset(f.group);
    segment_load(c, SEG_DS, 0x1234);
    assert_int_equal(c->s.seg_base[SEG_DS], 0x12340);
    assert_no_fault(c, segment_check(c, SEG_DS, 0xfffe, 2, true));
    assert_raises(c, EXC_GP, 0, segment_check(c, SEG_DS, 0xffff, 2, true));
    c->s.seg_limit[SEG_DS] = 0xffffffff; /* unreal mode: the limit survives a load */
    segment_load(c, SEG_DS, 0x10);
    assert_no_fault(c, segment_check(c, SEG_DS, 0x123456, 2, true));
}

static void io_permissions(void **unused)
{
    assert_no_fault(c, io_permission_check(c, 0x80, 4)); /* CPL 0 */
    cpu_user(&f);
    ram_put(&f, TSS_AT + 102, 2, 0x68);
    assert_raises(c, EXC_GP, 0, io_permission_check(c, 0x80, 1)); /* the map is behind the limit */
    flags_load(c, FLAG_IOPL);
    assert_no_fault(c, io_permission_check(c, 0x80, 1));
    flags_load(c, 0);
    c->s.seg_limit[SEG_TR] = 0x200;
    for (u32 n = 0; n < 0x80; n++)
        ram_put(&f, TSS_AT + 0x68 + n, 1, 0xff);
    ram_put(&f, TSS_AT + 0x68 + 0x10, 1, 0x0f); /* 0x84 to 0x87 allowed */
    assert_no_fault(c, io_permission_check(c, 0x84, 4));
    assert_raises(c, EXC_GP, 0, io_permission_check(c, 0x83, 2));
    assert_raises(c, EXC_GP, 0, io_permission_check(c, 0x87, 2));
    assert_raises(c, EXC_GP, 0, io_permission_check(c, 0xffff, 1));
    cpu_v86(&f, 3);
    assert_raises(c, EXC_GP, 0, io_permission_check(c, 0x80, 1)); /* V86 asks the map whatever the IOPL */
    assert_no_fault(c, io_permission_check(c, 0x84, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(loads_set_the_accessed_bit),
        T(granularity_scales_the_limit),
        T(bad_selectors_raise),
        T(privilege_counts),
        T(ldt_selectors),
        T(null_ss_in_64_bit_mode),
        T(limits),
        T(expand_down),
        T(types),
        T(real_mode),
        T(io_permissions)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
