/* MSRs: which exist, what may be written, and what writing does. */
#include "cpu_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "cpu/msr.h"

#define EFER 0xc0000080u

static struct cpu_fixture f;
static struct vcpu *c;

static int setup(void **unused)
{
    cpu_fixture_create(&f, 1, "x86-64-v2");
    c = f.c;
    cpu_flat32(&f);
    return 0;
}

static int teardown(void **unused)
{
    cpu_fixture_free(&f);
    return 0;
}

static u64 get(u32 msr)
{
    u64 val = 0xbad;

    assert_true(msr_read(c, msr, &val));
    return val;
}

static void keeps(u32 msr, u64 val)
{
    assert_true(msr_write(c, msr, val));
    assert_true(get(msr) == val);
}

static void unknown_ones_fault(void **unused)
{
    u64 val = 42;

    assert_false(msr_read(c, 0xdeadbeef, &val));
    assert_int_equal(val, 42);
    assert_false(msr_write(c, 0xdeadbeef, 0));
    assert_false(msr_read(c, 0x38f, &val)); /* performance counters */
    assert_false(msr_read(c, 0x480, &val)); /* VMX */
    assert_false(msr_read(c, 0x122, &val)); /* TSX */
}

static void stored_ones(void **unused)
{
    keeps(0xc0000081, 0x0023001000000000); /* STAR */
    keeps(0xc0000082, 0xffffffff81000000); /* LSTAR */
    keeps(0x174, 0x10);
    keeps(0xc0000103, 7);
    keeps(0x48, 1);
    assert_false(msr_write(c, 0xc0000082, 0x8000000000000000));
    assert_false(msr_write(c, 0xc0000103, 1ull << 32));
    assert_false(msr_write(c, 0x48, 8));
    assert_false(msr_write(c, 0x10a, 0)); /* read-only */
    assert_int_equal(get(0x10a) & 1, 1);
}

static void efer_rules(void **unused)
{
    assert_false(msr_write(c, EFER, 0x1000)); /* SVME */
    keeps(EFER, EFER_SCE | EFER_NXE | EFER_LME);
    assert_true(msr_write(c, EFER, EFER_LME | EFER_LMA)); /* LMA is read-only, and ignored */
    assert_int_equal(get(EFER), EFER_LME);
    cpu_long64(&f);
    assert_false(msr_write(c, EFER, EFER_SCE)); /* LME while paging */
    assert_int_equal(get(EFER), EFER_SCE | EFER_LME | EFER_LMA);
}

static void segment_bases(void **unused)
{
    keeps(0xc0000100, 0xffff888000000000);
    keeps(0xc0000101, 0x7f0000001000);
    assert_true(c->lin_base[SEG_FS] == 0xffff888000000000);
    assert_false(msr_write(c, 0xc0000101, 0x800000000000));
}

static void tsc_and_adjust_move_together(void **unused)
{
    clock_set(&f.clock, 5000);
    assert_true(msr_write(c, 0x10, 1000000));
    assert_int_equal(get(0x10), 1000000);
    assert_int_equal(get(0x3b), 1000000 - 5000);
    assert_true(msr_write(c, 0x3b, 0));
    assert_int_equal(get(0x10), 5000);
    clock_set(&f.clock, 6000);
    assert_int_equal(tsc_read(c), 6000);
}

static void mtrrs(void **unused)
{
    assert_int_equal(get(0xfe), 0x508);
    keeps(0x200, 0x80000000 | 6);
    keeps(0x201, 0x3fff80000800);
    keeps(0x26f, 0x0606060606060606);
    keeps(0x2ff, 0xc06);
    assert_false(msr_write(c, 0x200, 2));
    assert_false(msr_write(c, 0x201, 1ull << 50));
    assert_false(msr_write(c, 0x250, 7));
    assert_false(msr_write(c, 0x2ff, 0x100));
    assert_false(msr_read(c, 0x210, &(u64){0}));
}

static void firmware_leaves_memory_write_back(void **unused)
{
    mtrr_firmware_setup(c);
    assert_int_equal(get(0x2ff), 0xc06);
    assert_true(get(0x250) == 0x0606060606060606);
    assert_int_equal(get(0x259), 0);
    assert_true(get(0x268) == 0x0505050505050505);
}

static void pat(void **unused)
{
    assert_true(get(0x277) == 0x0007040600070406);
    keeps(0x277, 0x0407050600070106);
    assert_false(msr_write(c, 0x277, 2));
    assert_false(msr_write(c, 0x277, 0x0800000000000000));
}

static void models_lack_what_they_lack(void **unused)
{
    u64 val;

    cpu_fixture_free(&f);
    cpu_fixture_create(&f, 1, "pentium");
    c = f.c;
    assert_true(msr_read(c, 0x10, &val));
    assert_false(msr_read(c, EFER, &val));
    assert_false(msr_write(c, EFER, 0));
    assert_false(msr_read(c, 0xc0000100, &val));
    assert_false(msr_read(c, 0x277, &val));
    assert_false(msr_read(c, 0x174, &val));
}

/* Whatever the number, reading and writing must do no worse than fault. */
static void all_numbers_are_safe(void **unused)
{
    static const u32 from[] = {0, 0x40000000, 0xc0000000, 0xc0010000};

    for (size_t n = 0; n < ARRAY_SIZE(from); n++)
        for (u32 msr = from[n]; msr < from[n] + 0x2000; msr++) {
            u64 val;

            msr_read(c, msr, &val);
            msr_write(c, msr, 0x123456789abcdef0ull * (msr + 1));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(unknown_ones_fault),
        T(stored_ones),
        T(efer_rules),
        T(segment_bases),
        T(tsc_and_adjust_move_together),
        T(mtrrs),
        T(firmware_leaves_memory_write_back),
        T(pat),
        T(models_lack_what_they_lack),
        T(all_numbers_are_safe)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
