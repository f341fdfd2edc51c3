/* Hardware task switches: by JMP, CALL, IRET and gates, 16- and 32-bit, and their faults before and after the
 * switch. */
#include "cpu_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct cpu_fixture f;
static struct vcpu *c;

/* A task at EIP 0xa000 with its own stack. */
static void tss32_fill(u32 at)
{
    static const u16 segs[] = {SEL_DATA0, SEL_CODE0, SEL_DATA0, SEL_DATA0, SEL_DATA0, SEL_DATA0};

    ram_put(&f, at + 0x20, 4, 0xa000);
    ram_put(&f, at + 0x24, 4, FLAG_CF);
    for (u32 n = 0; n < 8; n++)
        ram_put(&f, at + 0x28 + n * 4, 4, 0x1000 + n);
    ram_put(&f, at + 0x28 + RSP * 4, 4, STACK3_AT);
    for (u32 n = 0; n < 6; n++)
        ram_put(&f, at + 0x48 + n * 4, 4, segs[n]);
}

static int setup(void **unused)
{
    cpu_fixture_create(&f, 1, "");
    c = f.c;
    cpu_flat32(&f);
    tss32_fill(TSS2_AT);
    return 0;
}

static int teardown(void **unused)
{
    cpu_fixture_free(&f);
    return 0;
}

static void jump_saves_and_loads(void **unused)
{
    c->s.gpr[RBX] = 0xb0b0b0b0;
    flags_load(c, FLAG_ZF | FLAG_IF);
    assert_no_fault(c, far_jump(c, SEL_TSS2, 0, 4));
    assert_int_equal(c->s.gpr[RIP], 0xa000);
    assert_int_equal(c->s.gpr[RBX], 0x1003);
    assert_int_equal(c->s.gpr[RSP], STACK3_AT);
    assert_int_equal(flags_get(c), FLAG_CF | FLAG_1);
    assert_int_equal(c->s.seg_sel[SEG_TR], SEL_TSS2);
    assert_int_equal(c->s.cr0 & CR0_TS, CR0_TS);
    assert_int_equal(access_byte(&f, SEL_TSS), ACCESS_TSS32);
    assert_int_equal(access_byte(&f, SEL_TSS2), ACCESS_TSS32 | SYS_TSS_BUSY_BIT);
    assert_int_equal(ram_get(&f, TSS_AT + 0x20, 4), 0x8000);
    assert_int_equal(ram_get(&f, TSS_AT + 0x24, 4), FLAG_ZF | FLAG_IF | FLAG_1);
    assert_int_equal(ram_get(&f, TSS_AT + 0x28 + RBX * 4, 4), 0xb0b0b0b0);
    assert_int_equal(ram_get(&f, TSS_AT + 0x4c, 2), SEL_CODE0);
}

static void call_links_and_iret_goes_back(void **unused)
{
    assert_no_fault(c, far_call(c, SEL_TSS2, 0, 4));
    assert_int_equal(ram_get(&f, TSS2_AT, 2), SEL_TSS);
    assert_int_equal(access_byte(&f, SEL_TSS), ACCESS_TSS32 | SYS_TSS_BUSY_BIT);
    assert_int_equal(flags_get(c) & FLAG_NT, FLAG_NT);
    c->s.gpr[RIP] = 0xa001;
    assert_no_fault(c, interrupt_return(c, 4));
    assert_int_equal(c->s.seg_sel[SEG_TR], SEL_TSS);
    assert_int_equal(c->s.gpr[RIP], 0x8000);
    assert_int_equal(access_byte(&f, SEL_TSS2), ACCESS_TSS32);
    assert_int_equal(ram_get(&f, TSS2_AT + 0x20, 4), 0xa001);
    assert_int_equal(ram_get(&f, TSS2_AT + 0x24, 4) & FLAG_NT, 0);
}

static void task_gate_pushes_error_code(void **unused)
{
    gate_put(&f, IDT_AT + EXC_GP * 8, SEL_TSS2, 0, ACCESS_TASK_GATE, 0);
    cpu_run_bytes(&f, 0x8000, "\xea\x00\x00\x00\x00\x10\x00", 7); /* JMP to a data segment */
    assert_int_equal(c->s.gpr[RIP], 0xa000);
    assert_int_equal(c->s.gpr[RSP], STACK3_AT - 4);
    assert_int_equal(ram_get(&f, STACK3_AT - 4, 4), SEL_DATA0);
    assert_int_equal(ram_get(&f, TSS_AT + 0x20, 4), 0x8000);
    assert_int_equal(ram_get(&f, TSS_AT + 0x24, 4) & FLAG_RF, FLAG_RF);
    assert_int_equal(c->delivering, -1);
}

static void task_gate_in_gdt(void **unused)
{
    gate_put(&f, GDT_AT + SEL_GATE, SEL_TSS2, 0, ACCESS_TASK_GATE, 0);
    assert_no_fault(c, far_jump(c, SEL_GATE, 0, 4));
    assert_int_equal(c->s.seg_sel[SEG_TR], SEL_TSS2);
}

static void errors_before_the_switch(void **unused)
{
    assert_raises(c, EXC_GP, SEL_TSS, far_jump(c, SEL_TSS, 0, 4)); /* busy */
    descriptor_put(&f, SEL_TSS2, TSS2_AT, 0x66, ACCESS_TSS32, 0);
    assert_raises(c, EXC_TS, SEL_TSS2, far_jump(c, SEL_TSS2, 0, 4));
    descriptor_put(&f, SEL_TSS2, TSS2_AT, 0x67, ACCESS_TSS32 & 0x7f, 0);
    assert_raises(c, EXC_NP, SEL_TSS2, far_jump(c, SEL_TSS2, 0, 4));
    flags_load(c, FLAG_NT);
    ram_put(&f, TSS_AT, 2, SEL_DATA0);
    assert_raises(c, EXC_TS, SEL_DATA0, interrupt_return(c, 4));
    ram_put(&f, TSS_AT, 2, SEL_TSS2); /* not busy */
    assert_raises(c, EXC_TS, SEL_TSS2, interrupt_return(c, 4));
    assert_int_equal(c->s.seg_sel[SEG_TR], SEL_TSS);
    assert_int_equal(c->s.gpr[RIP], 0x8000);
    cpu_user(&f);
    flags_load(c, 0);
    descriptor_put(&f, SEL_TSS2, TSS2_AT, 0x67, ACCESS_TSS32, 0);
    assert_raises(c, EXC_GP, SEL_TSS2, far_jump(c, SEL_TSS2, 0, 4)); /* DPL */
}

static void errors_after_the_switch(void **unused)
{
    ram_put(&f, TSS2_AT + 0x54, 4, SEL_CODE0 + 4); /* DS: an LDT selector without an LDT */
    assert_raises(c, EXC_TS, SEL_CODE0 + 4, far_jump(c, SEL_TSS2, 0, 4));
    assert_int_equal(c->s.seg_sel[SEG_TR], SEL_TSS2);
    assert_int_equal(c->s.gpr[RIP], 0xa000);
    assert_int_equal(c->s.seg_attr[SEG_DS] & SEG_P, 0);
    assert_int_equal(c->s.seg_attr[SEG_CS] & SEG_P, SEG_P);
}

static void fault_after_the_switch_is_the_new_tasks(void **unused)
{
    ram_put(&f, TSS2_AT + 0x54, 4, SEL_CODE0 + 4);
    idt_put(&f, EXC_TS, SEL_CODE0, 0xc000, ACCESS_INTR32);
    cpu_run_bytes(&f, 0x8000, "\xea\x00\x00\x00\x00\x38\x00", 7); /* JMP TSS2 */
    assert_int_equal(c->s.gpr[RIP], 0xc000);
    assert_int_equal(c->s.gpr[RSP], STACK3_AT - 16);
    assert_int_equal(ram_get(&f, STACK3_AT - 16, 4), SEL_CODE0 + 4);
    assert_int_equal(ram_get(&f, STACK3_AT - 12, 4), 0xa000);
    assert_int_equal(ram_get(&f, TSS_AT + 0x20, 4), 0x8007);
}

static void to_16_bit_task_and_back(void **unused)
{
    static const u16 segs[] = {SEL_DATA0_16, SEL_CODE0_16, SEL_DATA0_16, SEL_DATA0_16};

    descriptor_put(&f, SEL_TSS2, TSS2_AT, 0x2b, ACCESS_TSS16, 0);
    for (u32 n = 0; n < 0x2c; n++)
        ram_put(&f, TSS2_AT + n, 1, 0);
    ram_put(&f, TSS2_AT + 0x0e, 2, 0xa000);
    ram_put(&f, TSS2_AT + 0x12 + RSP * 2, 2, 0x6000);
    for (u32 n = 0; n < 4; n++)
        ram_put(&f, TSS2_AT + 0x22 + n * 2, 2, segs[n]);
    assert_no_fault(c, far_call(c, SEL_TSS2, 0, 4));
    assert_int_equal(c->code_size, 2);
    assert_int_equal(c->s.gpr[RSP] & 0xffff, 0x6000);
    assert_int_equal(c->s.seg_sel[SEG_FS], 0);
    assert_int_equal(ram_get(&f, TSS2_AT, 2), SEL_TSS);
    assert_no_fault(c, interrupt_return(c, 2));
    assert_int_equal(c->code_size, 4);
    assert_int_equal(c->s.seg_sel[SEG_TR], SEL_TSS);
    assert_int_equal(ram_get(&f, TSS2_AT + 0x0e, 2), 0xa000);
}

static void to_v86_task(void **unused)
{
    ram_put(&f, TSS2_AT + 0x24, 4, FLAG_VM | FLAG_IOPL);
    for (u32 n = 0; n < 6; n++)
        ram_put(&f, TSS2_AT + 0x48 + n * 4, 4, 0x300 + n);
    assert_no_fault(c, far_jump(c, SEL_TSS2, 0, 4));
    assert_true(v86_mode(c));
    assert_int_equal(c->s.cpl, 3);
    assert_int_equal(c->s.seg_base[SEG_DS], 0x3030);
    assert_int_equal(c->s.seg_limit[SEG_DS], 0xffff);
}

static void trap_bit_raises_debug_trap(void **unused)
{
    ram_put(&f, TSS2_AT + 0x64, 2, 1);
    c->s.dr[7] = 0x455;
    assert_no_fault(c, far_jump(c, SEL_TSS2, 0, 4));
    assert_int_equal(c->s.pending_db, DR6_BT);
    assert_int_equal(c->attention & ATTN_STEP, ATTN_STEP);
    assert_int_equal(c->s.dr[7], 0x400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(jump_saves_and_loads),
        T(call_links_and_iret_goes_back),
        T(task_gate_pushes_error_code),
        T(task_gate_in_gdt),
        T(errors_before_the_switch),
        T(errors_after_the_switch),
        T(fault_after_the_switch_is_the_new_tasks),
        T(to_16_bit_task_and_back),
        T(to_v86_task),
        T(trap_bit_raises_debug_trap)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
