/* Far JMP, CALL, RET, IRET, call gates, fast system calls. */
#include "cpu_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "cpu/cpuid.h"

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

static u64 pushed(int n, int size)
{
    return ram_get(&f, c->lin_base[SEG_SS] + c->s.gpr[RSP] + (u32)(n * size), size);
}

static void jump_to_16_bit_code(void **unused)
{
    assert_no_fault(c, far_jump(c, SEL_CODE0_16, 0x12345678, 2));
    assert_int_equal(c->code_size, 2);
    assert_int_equal(c->s.gpr[RIP], 0x5678);
    assert_raises(c, EXC_GP, 0, far_jump(c, SEL_CODE0_16, 0x10000, 4)); /* beyond the limit */
}

static void jump_errors(void **unused)
{
    assert_raises(c, EXC_GP, 0, far_jump(c, 3, 0, 4));
    assert_raises(c, EXC_GP, SEL_DATA0, far_jump(c, SEL_DATA0, 0, 4));
    assert_raises(c, EXC_GP, SEL_CODE3 & ~3, far_jump(c, SEL_CODE3, 0, 4));
    assert_raises(c, EXC_GP, SEL_CODE0, far_jump(c, SEL_CODE0 | 1, 0, 4)); /* RPL > CPL */
    descriptor_put(&f, SEL_FREE, 0, 0xffff, ACCESS_CODE & 0x7f, 4);
    assert_raises(c, EXC_NP, SEL_FREE, far_jump(c, SEL_FREE, 0, 4));
    assert_int_equal(access_byte(&f, SEL_FREE), ACCESS_CODE & 0x7f);
}

static void conforming_code_keeps_cpl(void **unused)
{
    cpu_user(&f);
    assert_no_fault(c, far_jump(c, SEL_CONFORMING, 0x9000, 4));
    assert_int_equal(c->s.cpl, 3);
    assert_int_equal(c->s.seg_sel[SEG_CS], SEL_CONFORMING | 3);
    assert_raises(c, EXC_GP, SEL_CODE0, far_jump(c, SEL_CODE0, 0x9000, 4));
}

static void call_and_return(void **unused)
{
    u64 sp = c->s.gpr[RSP];

    assert_no_fault(c, far_call(c, SEL_CODE0, 0x9000, 4));
    assert_int_equal(c->s.gpr[RSP], sp - 8);
    assert_int_equal(pushed(0, 4), 0x8000);
    assert_int_equal(pushed(1, 4), SEL_CODE0);
    assert_no_fault(c, far_return(c, 4, 12));
    assert_int_equal(c->s.gpr[RIP], 0x8000);
    assert_int_equal(c->s.gpr[RSP], sp + 12);
}

static void call_gate_to_inner_level_copies_parameters(void **unused)
{
    cpu_user(&f);
    gate_put(&f, GDT_AT + SEL_GATE, SEL_CODE0, 0x9000, ACCESS_CALL32 | ACCESS_DPL3, 2);
    c->s.gpr[RSP] = STACK3_AT - 8;
    ram_put(&f, STACK3_AT - 8, 4, 0x111);
    ram_put(&f, STACK3_AT - 4, 4, 0x222);
    assert_no_fault(c, far_call(c, SEL_GATE | 3, 0xbad, 4));
    assert_int_equal(c->s.cpl, 0);
    assert_int_equal(c->s.gpr[RIP], 0x9000);
    assert_int_equal(c->s.gpr[RSP], STACK0_AT - 24);
    assert_int_equal(pushed(0, 4), 0x8000);
    assert_int_equal(pushed(1, 4), SEL_CODE3);
    assert_int_equal(pushed(2, 4), 0x111);
    assert_int_equal(pushed(3, 4), 0x222);
    assert_int_equal(pushed(4, 4), STACK3_AT - 8);
    assert_int_equal(pushed(5, 4), SEL_DATA3);
    segment_load(c, SEG_FS, SEL_DATA0);
    assert_no_fault(c, far_return(c, 4, 8));
    assert_int_equal(c->s.cpl, 3);
    assert_int_equal(c->s.gpr[RSP], STACK3_AT);
    assert_int_equal(c->s.seg_sel[SEG_SS], SEL_DATA3);
    assert_int_equal(c->s.seg_sel[SEG_FS], 0); /* was the inner level's */
    assert_int_equal(c->s.seg_sel[SEG_DS], SEL_DATA3);
}

static void call_gate_errors(void **unused)
{
    cpu_user(&f);
    gate_put(&f, GDT_AT + SEL_GATE, SEL_CODE0, 0x9000, ACCESS_CALL32, 0);
    assert_raises(c, EXC_GP, SEL_GATE, far_call(c, SEL_GATE, 0, 4)); /* gate DPL */
    gate_put(&f, GDT_AT + SEL_GATE, SEL_CODE0, 0x9000, (ACCESS_CALL32 | ACCESS_DPL3) & 0x7f, 0);
    assert_raises(c, EXC_NP, SEL_GATE, far_call(c, SEL_GATE, 0, 4));
    gate_put(&f, GDT_AT + SEL_GATE, 0, 0x9000, ACCESS_CALL32 | ACCESS_DPL3, 0);
    assert_raises(c, EXC_GP, 0, far_call(c, SEL_GATE, 0, 4));
    gate_put(&f, GDT_AT + SEL_GATE, SEL_DATA0, 0x9000, ACCESS_CALL32 | ACCESS_DPL3, 0);
    assert_raises(c, EXC_GP, SEL_DATA0, far_call(c, SEL_GATE, 0, 4));
    gate_put(&f, GDT_AT + SEL_GATE, SEL_CODE0, 0x9000, ACCESS_CALL32 | ACCESS_DPL3, 0);
    assert_raises(c, EXC_GP, SEL_CODE0, far_jump(c, SEL_GATE, 0, 4)); /* a jump cannot go inwards */
    ram_put(&f, TSS_AT + 8, 4, 0);
    assert_raises(c, EXC_TS, 0, far_call(c, SEL_GATE, 0, 4));
    assert_int_equal(c->s.cpl, 3);
    assert_int_equal(c->s.gpr[RSP], STACK3_AT);
}

static void call_gate_16(void **unused)
{
    u64 sp = c->s.gpr[RSP];

    gate_put(&f, GDT_AT + SEL_GATE, SEL_CODE0, 0xffff9000, ACCESS_CALL16, 0);
    assert_no_fault(c, far_call(c, SEL_GATE, 0, 4));
    assert_int_equal(c->s.gpr[RIP], 0x9000);
    assert_int_equal(c->s.gpr[RSP], sp - 4);
}

static void call_gate_64(void **unused)
{
    cpu_long64(&f);
    cpu_user(&f);
    gate_put(&f, GDT_AT + SEL_GATE, SEL_CODE64, 0x80009000, ACCESS_CALL32 | ACCESS_DPL3, 0);
    ram_put(&f, GDT_AT + SEL_GATE + 8, 8, 0xffffffff);
    assert_no_fault(c, far_call(c, SEL_GATE | 3, 0, 4));
    assert_true(c->s.gpr[RIP] == 0xffffffff80009000);
    assert_int_equal(c->s.gpr[RSP], STACK0_AT - 32);
    assert_int_equal(c->s.seg_sel[SEG_SS], 0);
    assert_int_equal(pushed(2, 8), STACK3_AT);
    assert_no_fault(c, far_return(c, 8, 0));
    assert_int_equal(c->s.cpl, 3);
    assert_int_equal(c->s.gpr[RIP], 0x8000);
    ram_put(&f, GDT_AT + SEL_GATE + 8, 8, 0x1f00ffffffff); /* the upper half must have type 0 */
    assert_raises(c, EXC_GP, SEL_GATE, far_call(c, SEL_GATE, 0, 4));
}

static void compatibility_mode_and_back(void **unused)
{
    cpu_long64(&f);
    assert_no_fault(c, far_jump(c, SEL_CODE0, 0x9000, 4));
    assert_int_equal(c->code_size, 4);
    assert_no_fault(c, far_jump(c, SEL_CODE64, 0xa000, 4));
    assert_int_equal(c->code_size, 8);
    descriptor_put(&f, SEL_FREE, 0, 0xffffffff, ACCESS_CODE, 0xe); /* L and D */
    assert_raises(c, EXC_GP, SEL_FREE, far_jump(c, SEL_FREE, 0, 4));
    assert_raises(c, EXC_GP, 0, far_jump(c, SEL_CODE64, 0x8000000000000000, 8));
}

static void return_errors(void **unused)
{
    ram_put(&f, c->s.gpr[RSP], 4, 0x9000);
    ram_put(&f, c->s.gpr[RSP] + 4, 4, 0);
    assert_raises(c, EXC_GP, 0, far_return(c, 4, 0));
    ram_put(&f, c->s.gpr[RSP] + 4, 4, SEL_DATA0);
    assert_raises(c, EXC_GP, SEL_DATA0, far_return(c, 4, 0));
    ram_put(&f, c->s.gpr[RSP] + 4, 4, SEL_CODE3);
    ram_put(&f, c->s.gpr[RSP] + 8, 4, STACK3_AT);
    ram_put(&f, c->s.gpr[RSP] + 12, 4, SEL_DATA0);
    assert_raises(c, EXC_GP, SEL_DATA0, far_return(c, 4, 0));
    ram_put(&f, c->s.gpr[RSP] + 12, 4, 0);
    assert_raises(c, EXC_GP, 0, far_return(c, 4, 0));
    cpu_user(&f);
    ram_put(&f, c->s.gpr[RSP], 4, 0x9000);
    ram_put(&f, c->s.gpr[RSP] + 4, 4, SEL_CODE0); /* inwards */
    assert_raises(c, EXC_GP, SEL_CODE0, far_return(c, 4, 0));
}

static void iret_flags_by_privilege(void **unused)
{
    cpu_user(&f);
    flags_load(c, FLAG_IF);
    ram_put(&f, c->s.gpr[RSP], 4, 0x9000);
    ram_put(&f, c->s.gpr[RSP] + 4, 4, SEL_CODE3);
    ram_put(&f, c->s.gpr[RSP] + 8, 4, FLAG_IOPL | FLAG_VM | FLAG_VIP | FLAG_AC | FLAG_CF);
    assert_no_fault(c, interrupt_return(c, 4));
    assert_int_equal(flags_get(c), FLAG_IF | FLAG_AC | FLAG_CF | FLAG_1);
}

static void iret_16_bit_stack_keeps_upper_half(void **unused)
{
    descriptor_put(&f, SEL_FREE, 0, 0xffff, ACCESS_DATA | ACCESS_DPL3, 0);
    c->s.gpr[RSP] = 0x21000;
    ram_put(&f, c->s.gpr[RSP], 4, 0x9000);
    ram_put(&f, c->s.gpr[RSP] + 4, 4, SEL_CODE3);
    ram_put(&f, c->s.gpr[RSP] + 8, 4, 2);
    ram_put(&f, c->s.gpr[RSP] + 12, 4, 0x12345678);
    ram_put(&f, c->s.gpr[RSP] + 16, 4, SEL_FREE | 3);
    assert_no_fault(c, interrupt_return(c, 4));
    assert_int_equal(c->s.gpr[RSP], 0x25678);
}

static void syscall_and_sysret(void **unused)
{
    cpu_long64(&f);
    cpu_user(&f);
    c->s.msr_star = (u64)SEL_CODE0 << 32 | (u64)(SEL_CODE3 & ~3) << 48;
    c->s.msr_lstar = 0xffffffff80001234;
    c->s.msr_sfmask = FLAG_IF | FLAG_DF;
    flags_load(c, FLAG_IF | FLAG_CF | FLAG_DF);
    cpu_run_bytes(&f, 0x8000, "\x0f\x05", 2);
    assert_true(c->s.gpr[RIP] == 0xffffffff80001234);
    assert_int_equal(c->s.gpr[RCX], 0x8002);
    assert_int_equal(c->s.gpr[R11], FLAG_IF | FLAG_CF | FLAG_DF | FLAG_1);
    assert_int_equal(flags_get(c), FLAG_CF | FLAG_1);
    assert_int_equal(c->s.cpl, 0);
    assert_int_equal(c->s.seg_sel[SEG_CS], SEL_CODE0);
    assert_int_equal(c->s.seg_sel[SEG_SS], SEL_CODE0 + 8);
    assert_int_equal(c->code_size, 8);
    cpu_run_bytes(&f, 0x8100, "\x48\x0f\x07", 3);
    assert_int_equal(c->s.gpr[RIP], 0x8002);
    assert_int_equal(c->s.cpl, 3);
    assert_int_equal(c->s.seg_sel[SEG_CS], SEL_CODE3 + 16);
    assert_int_equal(c->s.seg_sel[SEG_SS], SEL_CODE3 + 8);
    assert_int_equal(flags_get(c), FLAG_IF | FLAG_CF | FLAG_DF | FLAG_1);
}

static void syscall_in_compatibility_mode_is_amds(void **unused)
{
    cpu_long64(&f);
    idt_put(&f, EXC_UD, SEL_CODE64, 0xb000, ACCESS_INTR32);
    c->s.msr_star = (u64)SEL_CODE0 << 32;
    c->s.msr_cstar = 0x9000;
    assert_no_fault(c, far_jump(c, SEL_CODE0, 0x8000, 4));
    f.group->model->amd = false;
    cpu_run_bytes(&f, 0x8000, "\x0f\x05", 2);
    assert_int_equal(c->s.gpr[RIP], 0xb000);
    assert_no_fault(c, far_jump(c, SEL_CODE0, 0x8000, 4));
    f.group->model->amd = true;
    cpu_run_bytes(&f, 0x8000, "\x0f\x05", 2);
    assert_int_equal(c->s.gpr[RIP], 0x9000);
    assert_int_equal(c->s.gpr[RCX], 0x8002);
    assert_int_equal(c->code_size, 8);
}

static void sysret_to_non_canonical(void **unused)
{
    cpu_long64(&f);
    idt_put(&f, EXC_GP, SEL_CODE64, 0x9000, ACCESS_INTR32);
    c->s.gpr[RCX] = 0x800000000000;
    cpu_run_bytes(&f, 0x8000, "\x48\x0f\x07", 3);
    assert_int_equal(c->s.gpr[RIP], 0x9000);
    assert_int_equal(pushed(1, 8), 0x8000);
    assert_int_equal(c->s.cpl, 0);
}

static void sysenter_and_sysexit(void **unused)
{
    c->s.msr_sysenter_cs = SEL_CODE0;
    c->s.msr_sysenter_esp = 0x5000;
    c->s.msr_sysenter_eip = 0x9000;
    cpu_user(&f);
    flags_load(c, FLAG_IF | FLAG_CF);
    cpu_run_bytes(&f, 0x8000, "\x0f\x34", 2);
    assert_int_equal(c->s.cpl, 0);
    assert_int_equal(c->s.gpr[RSP], 0x5000);
    assert_int_equal(c->s.gpr[RIP], 0x9000);
    assert_int_equal(flags_get(c), FLAG_CF | FLAG_1);
    c->s.gpr[RDX] = 0xa000;
    c->s.gpr[RCX] = 0x6000;
    cpu_run_bytes(&f, 0x9000, "\x0f\x35", 2);
    assert_int_equal(c->s.cpl, 3);
    assert_int_equal(c->s.gpr[RSP], 0x6000);
    assert_int_equal(c->s.gpr[RIP], 0xa000);
    assert_int_equal(c->s.seg_sel[SEG_CS], SEL_CODE3);
    assert_int_equal(c->s.seg_sel[SEG_SS], SEL_DATA3);
}

static void decoded_far_instructions(void **unused)
{
    cpu_run_bytes(&f, 0x8000, "\xea\x00\x90\x00\x00\x50\x00", 7); /* JMP 50:9000 */
    assert_int_equal(c->s.seg_sel[SEG_CS], SEL_CODE0_16);
    assert_int_equal(c->s.gpr[RIP], 0x9000);
    cpu_run_bytes(&f, 0x9000, "\x66\xea\x00\x80\x00\x00\x08\x00", 8); /* JMP 08:8000, 32-bit offset */
    assert_int_equal(c->s.seg_sel[SEG_CS], SEL_CODE0);
    c->s.gpr[RBX] = 0x7000;
    ram_put(&f, 0x7000, 4, 0x9100);
    ram_put(&f, 0x7004, 2, SEL_CODE0);
    cpu_run_bytes(&f, 0x8000, "\xff\x1b", 2); /* CALL FAR [EBX] */
    assert_int_equal(c->s.gpr[RIP], 0x9100);
    assert_int_equal(pushed(0, 4), 0x8002);
    cpu_run_bytes(&f, 0x9100, "\xcb", 1); /* RETF */
    assert_int_equal(c->s.gpr[RIP], 0x8002);
    ram_put(&f, 0x7004, 2, SEL_DATA0);
    cpu_run_bytes(&f, 0x8000, "\xc4\x0b", 2); /* LES ECX, [EBX] */
    assert_int_equal(c->s.seg_sel[SEG_ES], SEL_DATA0);
    assert_int_equal(c->s.gpr[RCX], 0x9100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(jump_to_16_bit_code),
        T(jump_errors),
        T(conforming_code_keeps_cpl),
        T(call_and_return),
        T(call_gate_to_inner_level_copies_parameters),
        T(call_gate_errors),
        T(call_gate_16),
        T(call_gate_64),
        T(compatibility_mode_and_back),
        T(return_errors),
        T(iret_flags_by_privilege),
        T(iret_16_bit_stack_keeps_upper_half),
        T(syscall_and_sysret),
        T(sysret_to_non_canonical),
        T(syscall_in_compatibility_mode_is_amds),
        T(sysenter_and_sysexit),
        T(decoded_far_instructions)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
