/* A machine's course: start, stop, reset, time-out, timers, interrupt messages, the boot entry. vCPUs are fake. */
#include "machine/boot_entry.h"
#include "machine_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <unistd.h>

static struct machine *m;
static struct fake_vcpu_log *cpu_log;

static int setup(void **unused)
{
    m = fixture_machine(3);
    cpu_log = fake_vcpu_log(m->cpus);
    return 0;
}

static int teardown(void **unused)
{
    assert_int_equal(cpu_log->running, 0);
    fixture_free(m);
    return 0;
}

/* Stops the machine from the thread of vCPU 1, once all are running. */
static void stop_from_vcpu(void *ctx, int index)
{
    while (index == 1 && __atomic_load_n(&cpu_log->running, __ATOMIC_SEQ_CST) < 3)
        usleep(100);
    if (index == 1)
        machine_stop(m, MACHINE_DEBUG_EXIT, 33, "because");
}

static void stop_keeps_the_first_reason(void **unused)
{
    fake_vcpu_program(m->cpus, stop_from_vcpu, NULL);
    assert_int_equal(machine_run(m), MACHINE_DEBUG_EXIT);
    machine_stop(m, MACHINE_QUIT, 1, "too late");
    assert_int_equal(m->end, MACHINE_DEBUG_EXIT);
    assert_int_equal(m->end_value, 33);
    assert_string_equal(m->end_text, "because");
    assert_int_equal(cpu_log->runs, 3);
    assert_int_equal(cpu_log->resets, 1);
    assert_false(m->clock.running);
}

static void stop_before_run(void **unused)
{
    machine_stop(m, MACHINE_QUIT, 0, NULL);
    assert_int_equal(machine_run(m), MACHINE_QUIT);
    assert_int_equal(cpu_log->runs, 0);
}

static int pauses;

static void paused_then_continue(void *ctx)
{
    assert_int_equal(cpu_log->running, 0);
    assert_false(m->clock.running);
    if (++pauses == 2)
        machine_restart(m);
    machine_continue(m);
    assert_true(m->clock.running);
}

static void pause_from_vcpu(void *ctx, int index)
{
    if (index == 1 && pauses < 3)
        machine_pause(m);
    else if (index == 1)
        machine_stop(m, MACHINE_QUIT, 0, NULL);
}

/* Once before its first instruction, then by a vCPU, whose reset leaves the rest as it was. */
static void pause_stops_vcpus_and_time(void **unused)
{
    pauses = 0;
    fake_vcpu_program(m->cpus, pause_from_vcpu, NULL);
    machine_on_pause(m, paused_then_continue, NULL);
    machine_pause(m);
    assert_int_equal(machine_run(m), MACHINE_QUIT);
    assert_int_equal(pauses, 3);
    assert_int_equal(cpu_log->resets, 2);
}

static int boots, resets;

static void count_boot(struct machine *machine, void *ctx)
{
    assert_ptr_equal(ctx, &boots);
    assert_int_equal(fake_vcpu_log(machine->cpus)->running, 0);
    boots++;
}

static void count_reset(struct device *dev)
{
    resets++;
}

/* Every vCPU asks for a reset at once; the third start ends the machine. */
static void reset_from_vcpus(void *ctx, int index)
{
    if (boots < 3)
        machine_reset(m, MACHINE_RESET);
    else
        machine_stop(m, MACHINE_POWER_OFF, 0, NULL);
}

static void reset_stops_resets_and_boots(void **unused)
{
    static const struct device_type counter = {.name = "counter", .size = sizeof(struct device), .reset = count_reset};

    boots = resets = 0;
    device_add(m, &counter);
    machine_set_boot(m, count_boot, &boots);
    fake_vcpu_program(m->cpus, reset_from_vcpus, NULL);
    assert_int_equal(machine_run(m), MACHINE_POWER_OFF);
    assert_int_equal(boots, 3);
    assert_int_equal(resets, 3);
    assert_int_equal(cpu_log->resets, 3);
    assert_int_equal(cpu_log->runs, 9);
}

static void shutdown_from_vcpu(void *ctx, int index)
{
    const struct vcpu_bus *bus = fake_vcpu_bus(m->cpus);

    if (index == 0)
        bus->shutdown(bus->ctx);
}

static void no_reboot_ends_instead(void **unused)
{
    m->config.no_reboot = true;
    fake_vcpu_program(m->cpus, shutdown_from_vcpu, NULL);
    assert_int_equal(machine_run(m), MACHINE_TRIPLE_FAULT);
    assert_int_equal(cpu_log->resets, 1);
}

static void fail_boot(struct machine *machine, void *ctx)
{
    machine_stop(machine, MACHINE_FAILED, 0, "no kernel");
}

static void boot_hook_can_fail(void **unused)
{
    machine_set_boot(m, fail_boot, NULL);
    assert_int_equal(machine_run(m), MACHINE_FAILED);
    assert_string_equal(m->end_text, "no kernel");
    assert_int_equal(cpu_log->runs, 0);
}

static void timeout_ends(void **unused)
{
    m->config.timeout_ns = 30000000;
    assert_int_equal(machine_run(m), MACHINE_TIMEOUT);
    assert_true(clock_now(&m->clock) >= 30000000);
}

struct ticker {
    struct timer timer;
    int ticks;
    u64 period;
};

static void tick(void *ctx)
{
    struct ticker *t = ctx;

    assert_true(machine_now(m) >= t->timer.deadline || t->timer.deadline == TIMER_NEVER);
    if (++t->ticks == 20)
        machine_stop(m, MACHINE_QUIT, 0, NULL);
    else
        timer_set(&t->timer, machine_now(m) + t->period);
}

/* Armed in one vCPU's thread while the loop sleeps: it must wake. */
static void arm_from_vcpu(void *ctx, int index)
{
    struct ticker *t = ctx;

    if (index == 2)
        timer_set(&t->timer, machine_now(m) + t->period);
}

static void timers_fire_while_it_runs(void **unused)
{
    struct ticker fast = {.period = 500000}, never = {.period = 0};

    m->config.timeout_ns = 20000000000;
    timer_init(&fast.timer, &m->timers, tick, &fast);
    timer_init(&never.timer, &m->timers, tick, &never);
    timer_set(&never.timer, TIMER_NEVER - 1);
    fake_vcpu_program(m->cpus, arm_from_vcpu, &fast);
    assert_int_equal(machine_run(m), MACHINE_QUIT);
    assert_int_equal(fast.ticks, 20);
    assert_int_equal(never.ticks, 0);
    assert_true(clock_now(&m->clock) >= 20 * 500000);
    timer_cancel(&never.timer);
}

static void msi_is_decoded(void **unused)
{
    const struct apic_message *msg = cpu_log->message;

    machine_msi(m, 0xfee01000, 0x4031);
    machine_msi(m, 0xfeeff00c, 0xc132);
    machine_msi(m, 0xfee02000, 0x8500);
    machine_msi(m, 0x1fee01000, 0x31); /* not an APIC's address */
    machine_msi(m, 0x1000, 0x31);
    assert_int_equal(cpu_log->message_count, 3);
    assert_int_equal(msg[0].dest, 1);
    assert_int_equal(msg[0].vector, 0x31);
    assert_int_equal(msg[0].delivery, APIC_FIXED);
    assert_false(msg[0].logical || msg[0].level_triggered || msg[0].deassert);
    assert_int_equal(msg[1].dest, 0xff);
    assert_int_equal(msg[1].delivery, APIC_LOWEST);
    assert_true(msg[1].logical && msg[1].level_triggered && !msg[1].deassert);
    assert_int_equal(msg[2].delivery, APIC_INIT);
    assert_true(msg[2].deassert);
}

static int ack(struct device *pic)
{
    return 0x28;
}

static u8 eoi_vector;

static void eoi(struct device *ioapic, u8 vector)
{
    eoi_vector = vector;
}

static void vcpu_bus_reaches_the_controllers(void **unused)
{
    const struct vcpu_bus *bus = fake_vcpu_bus(m->cpus);

    assert_int_equal(bus->extint_ack(bus->ctx), 0xff);
    bus->eoi(bus->ctx, 0x31);
    m->pic_ack = ack;
    m->ioapic_eoi = eoi;
    assert_int_equal(bus->extint_ack(bus->ctx), 0x28);
    bus->eoi(bus->ctx, 0x31);
    assert_int_equal(eoi_vector, 0x31);
    machine_intr_set(m, 0, true);
    assert_true(cpu_log->intr);
    machine_intr_set(m, 0, false);
    assert_false(cpu_log->intr);
    assert_int_equal(bus->pio_read(bus->ctx, 0x80, 1), 0xff);
    assert_int_equal(bus->mmio_read(bus->ctx, 0xd0000000, 4), 0xffffffff);
    bus->pio_write(bus->ctx, 0x80, 1, 0);
    bus->mmio_write(bus->ctx, 0xd0000000, 4, 0);
}

static void boot_entry_long_mode(void **unused)
{
    const struct boot_entry entry = {.mode = BOOT_LONG64, .rip = 0x100200, .rsp = 0x8000, .rsi = 0x7000, .cr3 = 0x9000,
                                     .gdt_base = 0x500, .gdt_limit = 31, .code_sel = 0x10, .data_sel = 0x18};
    const struct vcpu_boot_regs *r = &cpu_log->boot;

    machine_boot_enter(m, &entry);
    assert_int_equal(r->rip, 0x100200);
    assert_int_equal(r->rsi, 0x7000);
    assert_int_equal(r->rflags, 2);
    assert_int_equal(r->cr0, 0x80000011);
    assert_int_equal(r->cr3, 0x9000);
    assert_int_equal(r->cr4, 0x20);
    assert_int_equal(r->efer, 0x500);
    assert_int_equal(r->cs.sel, 0x10);
    assert_int_equal(r->cs.attr, 0xa09b);
    assert_int_equal(r->data.attr, 0xc093);
    assert_int_equal(r->data.limit, 0xffffffff);
    assert_int_equal(r->gdt_base, 0x500);
    assert_int_equal(cpu_log->virtual_wires, 1);
}

static void boot_entry_protected_mode(void **unused)
{
    const struct boot_entry entry = {.mode = BOOT_PROT32, .rip = 0x100000, .rax = 0x2badb002, .cr3 = 0x9000};
    const struct boot_entry at_reset = {.mode = BOOT_RESET};

    machine_boot_enter(m, &at_reset);
    assert_int_equal(cpu_log->boots, 0);
    machine_boot_enter(m, &entry);
    assert_int_equal(cpu_log->boot.cr0, 0x11);
    assert_int_equal(cpu_log->boot.cr3, 0);
    assert_int_equal(cpu_log->boot.efer, 0);
    assert_int_equal(cpu_log->boot.cs.attr, 0xc09b);
    assert_int_equal(cpu_log->boot.tr.attr, 0x8b);
    assert_int_equal(cpu_log->boot.rax, 0x2badb002);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(stop_keeps_the_first_reason, setup, teardown),
        cmocka_unit_test_setup_teardown(stop_before_run, setup, teardown),
        cmocka_unit_test_setup_teardown(pause_stops_vcpus_and_time, setup, teardown),
        cmocka_unit_test_setup_teardown(reset_stops_resets_and_boots, setup, teardown),
        cmocka_unit_test_setup_teardown(no_reboot_ends_instead, setup, teardown),
        cmocka_unit_test_setup_teardown(boot_hook_can_fail, setup, teardown),
        cmocka_unit_test_setup_teardown(timeout_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(timers_fire_while_it_runs, setup, teardown),
        cmocka_unit_test_setup_teardown(msi_is_decoded, setup, teardown),
        cmocka_unit_test_setup_teardown(vcpu_bus_reaches_the_controllers, setup, teardown),
        cmocka_unit_test_setup_teardown(boot_entry_long_mode, setup, teardown),
        cmocka_unit_test_setup_teardown(boot_entry_protected_mode, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
