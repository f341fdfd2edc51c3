/* Delivery of exceptions and interrupts in every mode, their error codes, double and triple faults. */
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

static void deliver(enum event_kind kind, int vector, bool has_error, u32 error)
{
    assert_no_fault(c, exception_deliver(c, kind, vector, has_error, error));
}

static u64 pushed(int n, int size)
{
    return ram_get(&f, c->lin_base[SEG_SS] + c->s.gpr[RSP] + (u32)(n * size), size);
}

static void real_mode(void **unused)
{
    vcpu_group_reset(f.group);
    segment_load(c, SEG_SS, 0x1000);
    segment_load(c, SEG_CS, 0x800);
    ram_put(&f, 0x21 * 4, 4, 0x12345678);
    c->s.gpr[RSP] = 0x100;
    c->s.gpr[RIP] = 0x42;
    flags_load(c, FLAG_IF | FLAG_TF | FLAG_CF);
    deliver(EVENT_SOFTWARE, 0x21, false, 0);
    assert_int_equal(c->s.seg_sel[SEG_CS], 0x1234);
    assert_int_equal(c->s.gpr[RIP], 0x5678);
    assert_int_equal(c->s.gpr[RSP], 0xfa);
    assert_int_equal(pushed(0, 2), 0x42);
    assert_int_equal(pushed(1, 2), 0x800);
    assert_int_equal(pushed(2, 2), FLAG_IF | FLAG_TF | FLAG_CF | FLAG_1);
    assert_int_equal(flags_get(c), FLAG_CF | FLAG_1);
}

static void real_mode_stack_wraps(void **unused)
{
    vcpu_group_reset(f.group);
    segment_load(c, SEG_SS, 0x1000);
    c->s.gpr[RSP] = 2;
    deliver(EVENT_SOFTWARE, 0x21, false, 0);
    assert_int_equal(c->s.gpr[RSP], 0xfffc);
    c->s.gpr[RSP] = 1; /* a word at offset FFFF would not fit */
    assert_raises(c, EXC_SS, 0, exception_deliver(c, EVENT_SOFTWARE, 0x21, false, 0));
    c->s.idtr_limit = 0x83;
    assert_raises(c, EXC_GP, 0, exception_deliver(c, EVENT_SOFTWARE, 0x21, false, 0));
}

static void same_privilege_32(void **unused)
{
    u64 sp = c->s.gpr[RSP];

    idt_put(&f, EXC_GP, SEL_CODE0, 0xdead0000, ACCESS_INTR32);
    flags_load(c, FLAG_IF | FLAG_NT);
    deliver(EVENT_FAULT, EXC_GP, true, 0x1234);
    assert_int_equal(c->s.gpr[RIP], 0xdead0000);
    assert_int_equal(c->s.gpr[RSP], sp - 16);
    assert_int_equal(pushed(0, 4), 0x1234);
    assert_int_equal(pushed(1, 4), 0x8000);
    assert_int_equal(pushed(2, 4), SEL_CODE0);
    assert_int_equal(pushed(3, 4), FLAG_IF | FLAG_NT | FLAG_RF | FLAG_1);
    assert_int_equal(flags_get(c), FLAG_1);
}

static void trap_gate_keeps_if(void **unused)
{
    idt_put(&f, 0x80, SEL_CODE0, 0x9000, ACCESS_TRAP32);
    flags_load(c, FLAG_IF | FLAG_TF);
    deliver(EVENT_SOFTWARE, 0x80, false, 0);
    assert_int_equal(flags_get(c), FLAG_IF | FLAG_1);
    assert_int_equal(pushed(2, 4), FLAG_IF | FLAG_TF | FLAG_1); /* no RF */
}

static void gate_16(void **unused)
{
    u64 sp = c->s.gpr[RSP];

    idt_put(&f, 0x80, SEL_CODE0, 0xffff9000, ACCESS_INTR16);
    deliver(EVENT_SOFTWARE, 0x80, false, 0);
    assert_int_equal(c->s.gpr[RIP], 0x9000);
    assert_int_equal(c->s.gpr[RSP], sp - 6);
}

static void inner_privilege_32(void **unused)
{
    cpu_user(&f);
    c->s.gpr[RIP] = 0x7777;
    idt_put(&f, EXC_PF, SEL_CODE0, 0x9000, ACCESS_INTR32);
    deliver(EVENT_FAULT, EXC_PF, true, 7);
    assert_int_equal(c->s.cpl, 0);
    assert_int_equal(c->s.seg_sel[SEG_CS], SEL_CODE0);
    assert_int_equal(c->s.seg_sel[SEG_SS], SEL_DATA0);
    assert_int_equal(c->s.gpr[RSP], STACK0_AT - 24);
    assert_int_equal(pushed(0, 4), 7);
    assert_int_equal(pushed(1, 4), 0x7777);
    assert_int_equal(pushed(2, 4), SEL_CODE3);
    assert_int_equal(pushed(4, 4), STACK3_AT);
    assert_int_equal(pushed(5, 4), SEL_DATA3);
    assert_int_equal(c->s.seg_sel[SEG_DS], SEL_DATA3);
}

static void from_v86(void **unused)
{
    cpu_v86(&f, 3);
    idt_put(&f, 0x80, SEL_CODE0, 0x9000, ACCESS_INTR32 | ACCESS_DPL3);
    c->s.gpr[RIP] = 0x55;
    segment_load_real(c, SEG_GS, 0x777);
    assert_no_fault(c, software_interrupt(c, 0x80));
    assert_false(v86_mode(c));
    assert_int_equal(c->s.gpr[RSP], STACK0_AT - 36);
    assert_int_equal(pushed(0, 4), 0x55);
    assert_int_equal(pushed(1, 4), 0x100);
    assert_int_equal(pushed(2, 4) & FLAG_VM, FLAG_VM);
    assert_int_equal(pushed(3, 4), 0x800);
    assert_int_equal(pushed(4, 4), 0x100);
    assert_int_equal(pushed(8, 4), 0x777);
    assert_int_equal(c->s.seg_sel[SEG_GS], 0);
    assert_int_equal(c->s.seg_attr[SEG_DS] & SEG_P, 0);
    assert_no_fault(c, interrupt_return(c, 4));
    assert_true(v86_mode(c));
    assert_int_equal(c->s.cpl, 3);
    assert_int_equal(c->s.seg_sel[SEG_GS], 0x777);
    assert_int_equal(c->s.seg_base[SEG_GS], 0x7770);
    assert_int_equal(c->s.gpr[RSP], 0x800);
    assert_int_equal(c->s.gpr[RIP], 0x55);
}

static void v86_int_needs_iopl_3(void **unused)
{
    cpu_v86(&f, 2);
    idt_put(&f, 0x80, SEL_CODE0, 0x9000, ACCESS_INTR32 | ACCESS_DPL3);
    assert_raises(c, EXC_GP, 0, software_interrupt(c, 0x80));
    assert_raises(c, EXC_GP, 0, interrupt_return(c, 2));
}

static void gate_errors(void **unused)
{
    cpu_user(&f);
    idt_put(&f, 0x80, SEL_CODE0, 0x9000, ACCESS_INTR32);
    assert_raises(c, EXC_GP, 0x402, exception_deliver(c, EVENT_SOFTWARE, 0x80, false, 0)); /* DPL */
    idt_put(&f, 0x80, SEL_CODE0, 0x9000, 0);
    assert_raises(c, EXC_GP, 0x403, exception_deliver(c, EVENT_EXTERNAL, 0x80, false, 0));
    idt_put(&f, 0x80, SEL_CODE0, 0x9000, ACCESS_INTR32 & 0x7f);
    assert_raises(c, EXC_NP, 0x403, exception_deliver(c, EVENT_EXTERNAL, 0x80, false, 0));
    idt_put(&f, 0x80, 0, 0x9000, ACCESS_INTR32);
    assert_raises(c, EXC_GP, 1, exception_deliver(c, EVENT_EXTERNAL, 0x80, false, 0));
    idt_put(&f, 0x80, SEL_DATA0, 0x9000, ACCESS_INTR32 | ACCESS_DPL3);
    assert_raises(c, EXC_GP, SEL_DATA0, exception_deliver(c, EVENT_SOFTWARE, 0x80, false, 0));
    c->s.idtr_limit = 0x406;
    assert_raises(c, EXC_GP, 0x402, exception_deliver(c, EVENT_SOFTWARE, 0x80, false, 0));
    assert_int_equal(c->s.cpl, 3);
    assert_int_equal(c->s.gpr[RSP], STACK3_AT);
}

static void stack_errors(void **unused)
{
    cpu_user(&f);
    idt_put(&f, 0x20, SEL_CODE0, 0x9000, ACCESS_INTR32);
    ram_put(&f, TSS_AT + 8, 4, 0);
    assert_raises(c, EXC_TS, 1, exception_deliver(c, EVENT_EXTERNAL, 0x20, false, 0));
    ram_put(&f, TSS_AT + 8, 4, SEL_DATA3);
    assert_raises(c, EXC_TS, (SEL_DATA3 & ~3) | 1, exception_deliver(c, EVENT_EXTERNAL, 0x20, false, 0));
    descriptor_put(&f, SEL_FREE, 0, 0xffff, ACCESS_DATA & 0x7f, 0);
    ram_put(&f, TSS_AT + 8, 4, SEL_FREE);
    assert_raises(c, EXC_SS, SEL_FREE | 1, exception_deliver(c, EVENT_EXTERNAL, 0x20, false, 0));
    descriptor_put(&f, SEL_FREE, 0, 0xff, ACCESS_DATA, 4);
    assert_raises(c, EXC_SS, SEL_FREE | 1, exception_deliver(c, EVENT_EXTERNAL, 0x20, false, 0));
    c->s.seg_limit[SEG_TR] = 8;
    assert_raises(c, EXC_TS, SEL_TSS | 1, exception_deliver(c, EVENT_EXTERNAL, 0x20, false, 0));
    assert_int_equal(c->s.cpl, 3);
}

static void long_mode_frames(void **unused)
{
    cpu_long64(&f);
    cpu_user(&f);
    c->s.gpr[RIP] = 0x1234;
    idt_put(&f, EXC_GP, SEL_CODE64, 0xffffffff80001000, ACCESS_INTR32);
    deliver(EVENT_FAULT, EXC_GP, true, 0);
    assert_true(c->s.gpr[RIP] == 0xffffffff80001000);
    assert_int_equal(c->s.gpr[RSP], STACK0_AT - 48);
    assert_int_equal(c->s.seg_sel[SEG_SS], 0);
    assert_int_equal(pushed(1, 8), 0x1234);
    assert_int_equal(pushed(2, 8), SEL_CODE64_3);
    assert_int_equal(pushed(4, 8), STACK3_AT);
    assert_int_equal(pushed(5, 8), SEL_DATA3);
    c->s.gpr[RSP] += 8;
    assert_no_fault(c, interrupt_return(c, 8));
    assert_int_equal(c->s.cpl, 3);
    assert_int_equal(c->s.gpr[RSP], STACK3_AT);
    assert_int_equal(c->s.seg_sel[SEG_SS], SEL_DATA3);
    assert_int_equal(c->s.rflags & FLAG_RF, FLAG_RF);
}

static void long_mode_stacks(void **unused)
{
    cpu_long64(&f);
    c->s.gpr[RSP] = 0x20ff9;
    idt_put(&f, 0x20, SEL_CODE64, 0x9000, ACCESS_INTR32);
    deliver(EVENT_EXTERNAL, 0x20, false, 0);
    assert_int_equal(c->s.gpr[RSP], 0x20ff0 - 40); /* aligned */
    assert_int_equal(pushed(3, 8), 0x20ff9);
    gate_put(&f, IDT_AT + 0x20 * 16, SEL_CODE64, 0x9000, ACCESS_INTR32, 1);
    deliver(EVENT_EXTERNAL, 0x20, false, 0);
    assert_int_equal(c->s.gpr[RSP], IST1_AT - 40);
    gate_put(&f, IDT_AT + 0x20 * 16, SEL_CODE64, 0x9000, ACCESS_INTR32, 7);
    c->s.seg_limit[SEG_TR] = 0x5a; /* IST7 would end at 0x5b */
    assert_raises(c, EXC_TS, SEL_TSS | 1, exception_deliver(c, EVENT_EXTERNAL, 0x20, false, 0));
}

static void long_mode_gate_errors(void **unused)
{
    cpu_long64(&f);
    idt_put(&f, 0x20, SEL_CODE0, 0x9000, ACCESS_INTR32); /* 32-bit code */
    assert_raises(c, EXC_GP, SEL_CODE0 | 1, exception_deliver(c, EVENT_EXTERNAL, 0x20, false, 0));
    idt_put(&f, 0x20, SEL_CODE64, 0x9000, ACCESS_INTR16);
    assert_raises(c, EXC_GP, 0x103, exception_deliver(c, EVENT_EXTERNAL, 0x20, false, 0));
    idt_put(&f, 0x20, SEL_CODE64, 0x8000000000000000, ACCESS_INTR32);
    assert_raises(c, EXC_GP, 1, exception_deliver(c, EVENT_EXTERNAL, 0x20, false, 0));
    idt_put(&f, 0x20, SEL_CODE64, 0x9000, ACCESS_INTR32);
    c->s.gpr[RSP] = 0x8000000000000000;
    assert_raises(c, EXC_SS, 1, exception_deliver(c, EVENT_EXTERNAL, 0x20, false, 0));
}

/* Runs UD2 with an IDT that ends before `limit`, so that #UD and what follows from it fault. */
static void ud2_with_idt_limit(u16 limit)
{
    c->s.idtr_limit = limit;
    cpu_run_bytes(&f, 0x8000, "\x0f\x0b", 2);
}

static void benign_then_contributory_is_no_double_fault(void **unused)
{
    idt_put(&f, EXC_GP, SEL_CODE0, 0xa000, ACCESS_INTR32);
    idt_put(&f, EXC_UD, SEL_CODE0, 0x9000, 0);
    ud2_with_idt_limit(0x7ff);
    assert_int_equal(c->s.gpr[RIP], 0xa000);
    assert_int_equal(pushed(0, 4), EXC_UD * 8 + 3);
    assert_int_equal(pushed(1, 4), 0x8000);
    assert_int_equal(c->delivering, -1);
}

static void contributory_twice_is_a_double_fault(void **unused)
{
    idt_put(&f, EXC_DF, SEL_CODE0, 0xb000, ACCESS_INTR32);
    idt_put(&f, EXC_GP, SEL_CODE0, 0xa000, 0);
    idt_put(&f, EXC_UD, SEL_CODE0, 0x9000, 0);
    ud2_with_idt_limit(0x7ff);
    assert_int_equal(c->s.gpr[RIP], 0xb000);
    assert_int_equal(pushed(0, 4), 0);
    assert_int_equal(pushed(1, 4), 0x8000);
}

static void triple_fault_shuts_down(void **unused)
{
    ud2_with_idt_limit(0);
    assert_int_equal(c->s.activity, VCPU_SHUTDOWN);
    assert_int_equal(f.shutdowns, 1);
    assert_int_equal(c->delivering, -1);
}

/* SP 1: neither the word nor any frame for #SS or #DF finds room. */
static void real_mode_without_stack_shuts_down(void **unused)
{
    vcpu_group_reset(f.group);
    segment_load_real(c, SEG_CS, 0);
    segment_load_real(c, SEG_SS, 0x1000);
    c->s.idtr_limit = 0x3ff;
    c->s.gpr[RSP] = 1;
    cpu_run_bytes(&f, 0x8000, "\x50", 1); /* push ax */
    assert_int_equal(f.shutdowns, 1);
    assert_int_equal(c->s.activity, VCPU_SHUTDOWN);
    assert_int_equal(c->s.gpr[RSP], 1);
}

static void page_fault_during_delivery(void **unused)
{
    /* SS0:ESP0 in a page that is not there: #PF while #UD is delivered is delivered itself, on the same bad stack:
     * #DF */
    cpu_long64(&f);
    cpu_user(&f);
    ram_put(&f, TSS_AT + 4, 8, MIB(6));
    idt_put(&f, EXC_UD, SEL_CODE64, 0x9000, ACCESS_INTR32);
    idt_put(&f, EXC_PF, SEL_CODE64, 0xa000, ACCESS_INTR32);
    gate_put(&f, IDT_AT + EXC_DF * 16, SEL_CODE64, 0xb000, ACCESS_INTR32, 1);
    cpu_run_bytes(&f, 0x8000, "\x0f\x0b", 2);
    assert_int_equal(c->s.gpr[RIP], 0xb000);
    assert_int_equal(c->s.cr2, MIB(6) - 8); /* the first push that fails */
    assert_int_equal(c->s.gpr[RSP], IST1_AT - 48);
}

static void decoded_software_interrupts(void **unused)
{
    idt_put(&f, EXC_BP, SEL_CODE0, 0x9003, ACCESS_INTR32);
    idt_put(&f, EXC_OF, SEL_CODE0, 0x9004, ACCESS_INTR32);
    idt_put(&f, EXC_DB, SEL_CODE0, 0x9001, ACCESS_INTR32);
    idt_put(&f, 0x80, SEL_CODE0, 0x9080, ACCESS_TRAP32);
    cpu_run_bytes(&f, 0x8000, "\xcc", 1);
    assert_int_equal(c->s.gpr[RIP], 0x9003);
    assert_int_equal(pushed(0, 4), 0x8001);
    cpu_run_bytes(&f, 0x8000, "\xcd\x80", 2);
    assert_int_equal(c->s.gpr[RIP], 0x9080);
    assert_int_equal(pushed(0, 4), 0x8002);
    cpu_run_bytes(&f, 0x9080, "\xcf", 1); /* IRET */
    assert_int_equal(c->s.gpr[RIP], 0x8002);
    cpu_run_bytes(&f, 0x8000, "\xf1", 1);
    assert_int_equal(c->s.gpr[RIP], 0x9001);
    cpu_run_bytes(&f, 0x8000, "\xce", 1);
    assert_int_equal(c->s.gpr[RIP], 0x8001); /* no overflow */
    flags_load(c, FLAG_OF);
    cpu_run_bytes(&f, 0x8000, "\xce", 1);
    assert_int_equal(c->s.gpr[RIP], 0x9004);
}

static void single_step_trap(void **unused)
{
    idt_put(&f, EXC_DB, SEL_CODE0, 0x9000, ACCESS_INTR32);
    flags_load(c, FLAG_TF);
    cpu_run_bytes(&f, 0x8000, "\x90", 1);
    assert_int_equal(c->s.gpr[RIP], 0x9000);
    assert_int_equal(pushed(0, 4), 0x8001);
    assert_int_equal(c->s.dr[6] & 0xe00f, DR6_BS);
    assert_int_equal(c->s.rflags & FLAG_TF, 0);
}

static void iret_unblocks_nmi(void **unused)
{
    ram_put(&f, c->s.gpr[RSP], 4, 0x8100);
    ram_put(&f, c->s.gpr[RSP] + 4, 4, SEL_CODE0);
    ram_put(&f, c->s.gpr[RSP] + 8, 4, FLAG_IF);
    c->s.nmi_blocked = true;
    __atomic_and_fetch(&c->attention, 0, __ATOMIC_RELAXED);
    assert_no_fault(c, interrupt_return(c, 4));
    assert_false(c->s.nmi_blocked);
    assert_int_equal(c->attention & ATTN_EVENT, ATTN_EVENT);
    assert_int_equal(c->s.gpr[RIP], 0x8100);
    assert_int_equal(flags_get(c), FLAG_IF | FLAG_1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        T(real_mode),
        T(real_mode_stack_wraps),
        T(same_privilege_32),
        T(trap_gate_keeps_if),
        T(gate_16),
        T(inner_privilege_32),
        T(from_v86),
        T(v86_int_needs_iopl_3),
        T(gate_errors),
        T(stack_errors),
        T(long_mode_frames),
        T(long_mode_stacks),
        T(long_mode_gate_errors),
        T(benign_then_contributory_is_no_double_fault),
        T(contributory_twice_is_a_double_fault),
        T(triple_fault_shuts_down),
        T(real_mode_without_stack_shuts_down),
        T(decoded_software_interrupts),
        T(page_fault_during_delivery),
        T(single_step_trap),
        T(iret_unblocks_nmi)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
