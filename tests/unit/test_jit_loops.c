/* Translated loops of several blocks count as many instructions as the interpreter does: whichever way out they take, late, and wherever it is. What a
 * guest can see of such loops the guest `loops` checks. */
#include "cpu_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "cpu/engine.h"

#define CODE 0x50000u
#define DATA 0x60000u
#define ROUNDS 15000 /* in which the budget is used up more than once */
#define NEVER 0

/* RCX counts down. Where it is R8 there is a detour in the first block, where it is R9 in the second, where it is R10 the loop is left there. */
extern const u8 in_registers[], in_registers_end[], in_memory[], in_memory_end[];
asm(".pushsection .rodata\n"
    "in_registers:\n"
    "1: lea (%rax, %rcx), %rax; cmp %r8, %rcx; jne 2f; inc %rsi; nop; jmp 2f\n"
    "nop\n"
    "2: xor %rcx, %rdx; cmp %r9, %rcx; jne 3f; inc %rsi; jmp 3f\n"
    "nop\n"
    "3: cmp %r10, %rcx; jne 4f; hlt\n"
    "4: dec %rcx; jne 1b; hlt\n"
    "in_registers_end:\n"
    "in_memory:\n"
    "1: add %rcx, (%rbx); cmp %r8, %rcx; jne 2f; inc %rsi; nop; jmp 2f\n"
    "nop\n"
    "2: xor (%rbx), %rdx; cmp %r9, %rcx; jne 3f; inc %rsi; jmp 3f\n"
    "nop\n"
    "3: mov %rdx, 8(%rbx); cmp %r10, %rcx; jne 4f; hlt\n"
    "4: dec %rcx; jne 1b; hlt\n"
    "in_memory_end:\n"
    ".popsection");

static struct cpu_fixture interpreter, translator;

static int setup(void **unused)
{
    cpu_fixture_create(&interpreter, 1, "");
    cpu_fixture_create_with(&translator, 1, "", CPU_ENGINE_JIT);
    cpu_long64(&interpreter);
    cpu_long64(&translator);
    return 0;
}

static int teardown(void **unused)
{
    cpu_fixture_free(&interpreter);
    cpu_fixture_free(&translator);
    return 0;
}

/* To its HLT; returns how many instructions. */
static u64 run(struct cpu_fixture *f, const u64 *special)
{
    struct vcpu *c = f->c;
    u64 before = c->retired;

    memset(c->s.gpr, 0, sizeof(u64) * 16);
    c->s.gpr[RBX] = DATA;
    c->s.gpr[RCX] = ROUNDS;
    c->s.gpr[R8] = special[0];
    c->s.gpr[R9] = special[1];
    c->s.gpr[R10] = special[2];
    c->s.gpr[RIP] = CODE;
    c->s.activity = VCPU_ACTIVE;
    f->group->engine->run(c);
    vcpu_state_sync(c);
    return c->retired - before;
}

static void both(const u64 *special)
{
    u64 want = run(&interpreter, special);

    assert_int_equal(run(&translator, special), want);
    assert_memory_equal(translator.c->s.gpr, interpreter.c->s.gpr, sizeof(u64) * 16);
    assert_int_equal(translator.c->s.gpr[RIP], interpreter.c->s.gpr[RIP]);
}

static void counted(const u8 *code, const u8 *end)
{
    static const u64 detours[] = {NEVER, 1, 7000, ROUNDS - 8}, leaves[] = {NEVER, 1, 5000, 10000};

    assert_int_equal(guest_memory_write(interpreter.mem, CODE, code, (u64)(end - code)), 0);
    assert_int_equal(guest_memory_write(translator.mem, CODE, code, (u64)(end - code)), 0);
    for (u32 first = 0; first < ARRAY_SIZE(detours); first++)
        for (u32 second = 0; second < ARRAY_SIZE(detours); second++)
            for (u32 leave = 0; leave < ARRAY_SIZE(leaves); leave++)
                both((const u64[]){detours[first], detours[second], leaves[leave]});
}

static void loops_in_registers(void **unused)
{
    counted(in_registers, in_registers_end);
}

static void loops_in_memory(void **unused)
{
    counted(in_memory, in_memory_end);
}

#define WITH_BOTH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {WITH_BOTH(loops_in_registers), WITH_BOTH(loops_in_memory)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
