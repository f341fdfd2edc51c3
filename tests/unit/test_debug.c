/* What a debugger asks of the engine: breakpoints, watchpoints, steps, memory without side effects. */
#include "cpu_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "cpu/debug.h"
#include "cpu/interp.h"

static struct cpu_fixture f;
static struct vcpu *c;
static int stops;

#define CODE 0x8000u
#define DATA 0x9000u

static void stopped(void *ctx)
{
    stops++;
}

static int setup(void **unused)
{
    cpu_fixture_create(&f, 1, "");
    c = f.c;
    cpu_long64(&f);
    debug_attach(f.group, stopped, NULL);
    return 0;
}

static int teardown(void **unused)
{
    cpu_fixture_free(&f);
    return 0;
}

/* Puts the code at CODE and points RIP there. */
#define program(...)                                                                          \
    do {                                                                                      \
        static const u8 bytes_[] = {__VA_ARGS__};                                             \
        assert_int_equal(guest_memory_write(f.mem, CODE, bytes_, sizeof(bytes_)), 0);         \
        c->s.gpr[RIP] = CODE;                                                                 \
    } while (0)

/* Lets the vCPU go on so, and says where and why it stopped. */
static struct debug_stop go(enum debug_resume how)
{
    int before = stops;

    debug_resume(c, how);
    vcpu_group_resume(f.group);
    vcpu_run(c);
    assert_int_equal(stops, before + 1);
    return debug_stop_get(c);
}

static void breakpoint_stops_before_its_instruction(void **unused)
{
    struct debug_stop s;

    program(0xff, 0xc0, 0xff, 0xc0, 0xff, 0xc3, 0xeb, 0xf8); /* inc eax; inc eax; inc ebx; jmp CODE */
    assert_int_equal(debug_point_add(f.group, DEBUG_EXECUTE, CODE + 4, 1), 0);
    for (u64 n = 1; n <= 3; n++) {
        s = go(DEBUG_RUN);
        assert_int_equal(s.reason, DEBUG_BREAK);
        assert_int_equal(s.address, CODE + 4);
        assert_int_equal(c->s.gpr[RIP], CODE + 4);
        assert_int_equal(c->s.gpr[RAX], 2 * n);
        assert_int_equal(c->s.gpr[RBX], n - 1);
    }
    assert_int_equal(ram_get(&f, CODE + 4, 2), 0xc3ff); /* nothing was patched */
}

static void removed_breakpoint_is_gone(void **unused)
{
    program(0xff, 0xc0, 0xff, 0xc3, 0xeb, 0xfa);
    assert_int_equal(debug_point_add(f.group, DEBUG_EXECUTE, CODE, 1), 0);
    assert_int_equal(debug_point_add(f.group, DEBUG_EXECUTE, CODE + 2, 1), 0);
    assert_int_equal(go(DEBUG_RUN).address, CODE);
    assert_int_equal(debug_point_remove(f.group, DEBUG_EXECUTE, CODE, 1), 0);
    assert_int_equal(debug_point_remove(f.group, DEBUG_EXECUTE, CODE, 1), -ENOENT);
    assert_int_equal(go(DEBUG_RUN).address, CODE + 2);
    assert_int_equal(go(DEBUG_RUN).address, CODE + 2);
    assert_int_equal(c->s.gpr[RAX], 2);
}

/* The same code at another linear address has no breakpoint, whichever was decoded first. */
static void breakpoint_is_at_a_linear_address(void **unused)
{
    program(0xff, 0xc0, 0xff, 0xc3, 0xf4); /* inc eax; inc ebx; hlt */
    ram_put(&f, PAGES_AT + 0x2008, 8, 0x87); /* 2 MiB and up shows what is at 0 */
    assert_int_equal(debug_point_add(f.group, DEBUG_EXECUTE, MIB(2) + CODE + 2, 1), 0);
    assert_int_equal(debug_point_add(f.group, DEBUG_EXECUTE, CODE + 4, 1), 0);
    assert_int_equal(go(DEBUG_RUN).address, CODE + 4);
    c->s.gpr[RIP] = MIB(2) + CODE;
    assert_int_equal(go(DEBUG_RUN).address, MIB(2) + CODE + 2);
    assert_int_equal(c->s.gpr[RBX], 1);
}

static void step_is_one_instruction(void **unused)
{
    program(0xff, 0xc0, 0xff, 0xc3);
    assert_int_equal(debug_point_add(f.group, DEBUG_EXECUTE, CODE, 1), 0);
    assert_int_equal(go(DEBUG_STEP).reason, DEBUG_STEPPED);
    assert_int_equal(c->s.gpr[RIP], CODE + 2);
    assert_int_equal(go(DEBUG_STEP).reason, DEBUG_STEPPED);
    assert_int_equal(c->s.gpr[RIP], CODE + 4);
    assert_int_equal(c->s.rflags & FLAG_TF, 0);
    assert_int_equal(c->retired, 2);
}

static void step_is_one_iteration(void **unused)
{
    program(0xf3, 0xa4, 0x90); /* rep movsb */
    c->s.gpr[RCX] = 3;
    c->s.gpr[RSI] = DATA;
    c->s.gpr[RDI] = DATA + 0x100;
    for (u64 left = 3; left--;) {
        go(DEBUG_STEP);
        assert_int_equal(c->s.gpr[RCX], left);
        assert_int_equal(c->s.gpr[RIP], left ? CODE : CODE + 2);
    }
}

static void step_ends_at_the_handler(void **unused)
{
    program(0x0f, 0x0b); /* ud2 */
    idt_put(&f, EXC_UD, SEL_CODE0, 0xa000, ACCESS_INTR32);
    idt_put(&f, EXC_UD, SEL_CODE64, 0xa000, ACCESS_INTR32);
    go(DEBUG_STEP);
    assert_int_equal(c->s.gpr[RIP], 0xa000);
    assert_int_equal(ram_get(&f, c->s.gpr[RSP], 8), CODE);
}

/* An NMI waits while steps keep to the program; asked for, its delivery is a step. */
static void step_delivers_events_if_asked(void **unused)
{
    program(0x90, 0x90, 0x90);
    idt_put(&f, EXC_NMI, SEL_CODE64, 0xa000, ACCESS_INTR32);
    c->s.nmi_pending = true;
    c->attention |= ATTN_EVENT;
    go(DEBUG_STEP);
    assert_int_equal(c->s.gpr[RIP], CODE + 1);
    debug_step_events(f.group, true);
    go(DEBUG_STEP);
    assert_int_equal(c->s.gpr[RIP], 0xa000);
    assert_int_equal(ram_get(&f, c->s.gpr[RSP], 8), CODE + 1);
}

static void guest_single_step_flag_is_the_guests(void **unused)
{
    program(0x90, 0x90);
    idt_put(&f, EXC_DB, SEL_CODE64, 0xa000, ACCESS_INTR32);
    flags_load(c, FLAG_TF);
    assert_int_equal(debug_point_add(f.group, DEBUG_EXECUTE, CODE, 1), 0);
    assert_int_equal(go(DEBUG_RUN).reason, DEBUG_BREAK);
    assert_int_equal(c->s.pending_db, 0);
    go(DEBUG_STEP);
    assert_int_equal(c->s.gpr[RIP], 0xa000);
    assert_int_equal(ram_get(&f, c->s.gpr[RSP], 8), CODE + 1);
    assert_int_equal(c->s.dr[6] & DR6_BS, DR6_BS);
}

static void held_vcpu_does_nothing(void **unused)
{
    program(0xff, 0xc0, 0xeb, 0xfc);
    debug_resume(c, DEBUG_HOLD);
    vcpu_group_resume(f.group);
    vcpu_run(c);
    assert_int_equal(debug_stop_get(c).reason, DEBUG_NONE);
    assert_int_equal(c->s.gpr[RIP], CODE);
}

static void watchpoint_stops_after_the_write(void **unused)
{
    struct debug_stop s;

    /* mov [DATA-1], al; mov [DATA], eax; inc ebx; jmp . */
    program(0x88, 0x04, 0x25, 0xff, 0x8f, 0, 0, 0x89, 0x04, 0x25, 0, 0x90, 0, 0, 0xff, 0xc3, 0xeb, 0xfe);
    c->s.gpr[RAX] = 7;
    assert_int_equal(debug_point_add(f.group, DEBUG_WRITE, DATA + 3, 4), 0);
    s = go(DEBUG_RUN);
    assert_int_equal(s.reason, DEBUG_WATCH);
    assert_int_equal(s.access, DEBUG_WRITE);
    assert_int_equal(s.address, DATA + 3);
    assert_int_equal(c->s.gpr[RIP], CODE + 14);
    assert_int_equal(c->s.gpr[RBX], 0);
    assert_int_equal(ram_get(&f, DATA, 4), 7);
}

static void watchpoint_of_reads(void **unused)
{
    /* mov [DATA], eax; mov eax, [DATA+8]; lock inc dword [DATA]; jmp . */
    program(0x89, 0x04, 0x25, 0, 0x90, 0, 0, 0x8b, 0x04, 0x25, 8, 0x90, 0, 0, 0xf0, 0xff, 0x04, 0x25, 0, 0x90, 0, 0, 0xeb,
            0xfe);
    assert_int_equal(debug_point_add(f.group, DEBUG_READ, DATA, 4), 0);
    assert_int_equal(debug_point_add(f.group, DEBUG_READ | DEBUG_WRITE, DATA + 8, 1), 0);
    assert_int_equal(go(DEBUG_RUN).access, DEBUG_READ | DEBUG_WRITE);
    assert_int_equal(c->s.gpr[RIP], CODE + 14);
    assert_int_equal(go(DEBUG_RUN).access, DEBUG_READ);
    assert_int_equal(c->s.gpr[RIP], CODE + 22);
}

static void watchpoint_in_a_repeated_store(void **unused)
{
    program(0xf3, 0xaa, 0xeb, 0xfe); /* rep stosb */
    c->s.gpr[RCX] = 100;
    c->s.gpr[RDI] = DATA;
    assert_int_equal(debug_point_add(f.group, DEBUG_WRITE, DATA + 40, 1), 0);
    assert_int_equal(go(DEBUG_RUN).reason, DEBUG_WATCH);
    assert_int_equal(c->s.gpr[RIP], CODE);
    assert_int_equal(c->s.gpr[RDI], DATA + 41);
}

/* An instruction that faults after a watched access has not been. */
static void watchpoint_of_an_instruction_that_faults(void **unused)
{
    program(0xff, 0x34, 0x25, 0, 0x90, 0, 0); /* push qword [DATA], onto no stack */
    idt_put(&f, EXC_PF, SEL_CODE64, 0xa000, ACCESS_INTR32);
    ram_put(&f, IDT_AT + EXC_PF * 16 + 4, 1, 1); /* IST1 */
    ram_put(&f, 0xa000, 2, 0xfeeb);
    c->s.gpr[RSP] = MIB(6);
    assert_int_equal(debug_point_add(f.group, DEBUG_READ, DATA, 8), 0);
    assert_int_equal(debug_point_add(f.group, DEBUG_EXECUTE, 0xa000, 1), 0);
    assert_int_equal(go(DEBUG_RUN).reason, DEBUG_BREAK);
    assert_int_equal(c->s.gpr[RIP], 0xa000);
}

static void points_have_limits(void **unused)
{
    for (u64 n = 0; n < DEBUG_CODE_POINTS_MAX; n++)
        assert_int_equal(debug_point_add(f.group, DEBUG_EXECUTE, n, 1), 0);
    assert_int_equal(debug_point_add(f.group, DEBUG_EXECUTE, 5, 1), 0);
    assert_int_equal(debug_point_add(f.group, DEBUG_EXECUTE, 1ull << 40, 1), -ENOSPC);
    assert_int_equal(debug_point_add(f.group, DEBUG_WRITE, 5, 0), -EINVAL);
    assert_int_equal(debug_point_add(f.group, DEBUG_WRITE, ~0ull, 2), -EINVAL);
    assert_int_equal(debug_point_add(f.group, DEBUG_WRITE, ~0ull, 1), 0);
    debug_points_clear(f.group);
    assert_int_equal(debug_point_remove(f.group, DEBUG_EXECUTE, 5, 1), -ENOENT);
}

static void memory_is_read_without_side_effects(void **unused)
{
    u8 buf[16] = {0};
    u64 entry = ram_get(&f, PAGES_AT + 0x2008, 8);

    ram_put(&f, MIB(2) - 4, 8, 0x1122334455667788);
    assert_int_equal(debug_read(c, MIB(2) - 4, buf, 8), 8);
    assert_memory_equal(buf, "\x88\x77\x66\x55\x44\x33\x22\x11", 8);
    assert_int_equal(ram_get(&f, PAGES_AT + 0x2008, 8), entry);
    assert_int_equal(debug_read(c, MIB(4) - 4, buf, 8), 4); /* up to what is mapped */
    assert_int_equal(debug_read(c, 1ull << 63, buf, 8), 0);
    assert_int_equal(debug_read_physical(f.group, FIXTURE_RAM - 4, buf, 8), 4);
    assert_int_equal(debug_read_physical(f.group, ~0ull, buf, 8), 0);
    assert_int_equal(c->s.cr2, 0);
}

static void written_code_is_decoded_anew(void **unused)
{
    program(0xff, 0xc0, 0xff, 0xc0, 0xff, 0xc3, 0xeb, 0xf8);
    assert_int_equal(debug_point_add(f.group, DEBUG_EXECUTE, CODE + 6, 1), 0);
    go(DEBUG_RUN);
    assert_int_equal(debug_write(c, CODE, "\x90\x90", 2), 2);
    go(DEBUG_RUN);
    assert_int_equal(c->s.gpr[RAX], 3);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(breakpoint_stops_before_its_instruction),
        TEST(removed_breakpoint_is_gone),
        TEST(breakpoint_is_at_a_linear_address),
        TEST(step_is_one_instruction),
        TEST(step_is_one_iteration),
        TEST(step_ends_at_the_handler),
        TEST(step_delivers_events_if_asked),
        TEST(guest_single_step_flag_is_the_guests),
        TEST(held_vcpu_does_nothing),
        TEST(watchpoint_stops_after_the_write),
        TEST(watchpoint_of_reads),
        TEST(watchpoint_in_a_repeated_store),
        TEST(watchpoint_of_an_instruction_that_faults),
        TEST(points_have_limits),
        TEST(memory_is_read_without_side_effects),
        TEST(written_code_is_decoded_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
