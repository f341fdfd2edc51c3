/* Hot code is translated anew when it goes another way than at first; what comes of it is the same, wherever its entries have the flags. */
#include "cpu/jit.h"
#include "cpu/jit_cache.h"
#include "cpu_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define CODE_AT 0x50000u
#define FEW 1000u
#define MANY 16000000u

/* ECX rounds, each of which goes the second way if ESI is odd. */
static const u8 sums[] = {
    0x40, 0xf6, 0xc6, 0x01, /* 0: test sil, 1 */
    0x75, 0x09,             /*    jne 2f */
    0x48, 0x83, 0xc0, 0x03, /*    add rax, 3 */
    0xff, 0xc9,             /*    dec ecx */
    0x75, 0xf2,             /*    jne 0b */
    0xf4,                   /*    hlt */
    0x48, 0x83, 0xd0, 0x05, /* 2: adc rax, 5 */
    0xff, 0xc9,             /*    dec ecx */
    0x75, 0xe9,             /*    jne 0b */
    0xf4,                   /*    hlt */
};
/* The same with a carry from one round to the next. */
static const u8 carries[] = {
    0x48, 0x11, 0xd8,       /* 0: adc rax, rbx */
    0x40, 0xf6, 0xc6, 0x01, /*    test sil, 1 */
    0x75, 0x05,             /*    jne 2f */
    0xff, 0xc9,             /*    dec ecx */
    0x75, 0xf3,             /*    jne 0b */
    0xf4,                   /*    hlt */
    0xf9,                   /* 2: stc */
    0xff, 0xc9,             /*    dec ecx */
    0x75, 0xed,             /*    jne 0b */
    0xf4,                   /*    hlt */
};

static void load(struct cpu_fixture *f, const u8 *code, u64 size)
{
    cpu_fixture_create_with(f, 1, "", CPU_ENGINE_JIT);
    cpu_long64(f);
    assert_int_equal(guest_memory_write(f->mem, CODE_AT, code, size), 0);
}

static u64 run(struct cpu_fixture *f, u32 rounds, u32 way)
{
    struct vcpu *c = f->c;

    c->s.activity = VCPU_ACTIVE;
    c->s.gpr[RIP] = CODE_AT;
    c->s.gpr[RAX] = 0;
    c->s.gpr[RBX] = 7;
    c->s.gpr[RCX] = rounds;
    c->s.gpr[RSI] = way;
    c->cc = 0;
    jit_run(c);
    assert_int_equal(c->s.activity, VCPU_HALTED);
    assert_int_equal((u32)c->s.gpr[RCX], 0);
    return c->s.gpr[RAX];
}

static void goes_the_other_way(void **state)
{
    struct cpu_fixture f;

    load(&f, sums, sizeof(sums));
    assert_int_equal(run(&f, FEW, 0), 3 * FEW);
    assert_int_equal(f.c->jit->counters.revised, 0);
    assert_int_equal(run(&f, MANY, 1), 5ul * MANY);
    assert_true(f.c->jit->counters.revised > 0);
    assert_int_equal(run(&f, FEW, 0), 3 * FEW);
    assert_int_equal(run(&f, FEW, 1), 5 * FEW);
    cpu_fixture_free(&f);
}

static void entered_with_flags(void **state)
{
    struct cpu_fixture f;

    load(&f, carries, sizeof(carries));
    assert_int_equal(run(&f, FEW, 0), 7 * FEW);
    assert_int_equal(run(&f, MANY, 1), 7ul * MANY + MANY - 1);
    assert_true(f.c->jit->counters.revised > 0);
    assert_int_equal(run(&f, FEW, 0), 7 * FEW);
    assert_int_equal(run(&f, FEW, 1), 7 * FEW + FEW - 1);
    cpu_fixture_free(&f);
}

static void once(void **state)
{
    struct cpu_fixture f;
    u64 revised;

    load(&f, sums, sizeof(sums));
    run(&f, FEW, 0);
    run(&f, MANY, 1);
    revised = f.c->jit->counters.revised;
    run(&f, MANY, 0);
    run(&f, MANY, 1);
    run(&f, MANY, 0);
    assert_true(revised && f.c->jit->counters.revised <= revised + 2); /* there are no more blocks */
    cpu_fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(goes_the_other_way), cmocka_unit_test(entered_with_flags), cmocka_unit_test(once)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
