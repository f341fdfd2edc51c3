/* The chipset: i440FX host bridge, PIIX3 PIRQ router and reset control, PIIX4 power management. */
#include "dev/i440fx_host.h"
#include "dev/piix3_isa.h"
#include "dev/piix4_pm.h"
#include "machine_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { PM = 0x600, SMI = 0xb2, RESET = 0xcf9 };
enum { TMR = 0x0001, PWRBTN = 0x0100, RTC = 0x0400, SCI_EN = 1, SLP_EN = 0x2000 };
#define SECOND 1000000000ull

static struct machine *m;
static struct irq_probe isa[16], sci;
static struct device *pm;
static struct pci_device *card;

static const struct device_type card_type = {.name = "card", .size = sizeof(struct pci_device)};

static void config_write(int slot, int function, int reg, int size, u32 val)
{
    pio_write(m, 0xcf8, 4, 0x80000000u | (u32)slot << 11 | (u32)function << 8 | ((u32)reg & 0xfc));
    pio_write(m, (u16)(0xcfc + (reg & 3)), size, val);
}

static u32 config_read(int slot, int function, int reg, int size)
{
    pio_write(m, 0xcf8, 4, 0x80000000u | (u32)slot << 11 | (u32)function << 8 | ((u32)reg & 0xfc));
    return (u32)pio_read(m, (u16)(0xcfc + (reg & 3)), size);
}

static void pm_block_map(void)
{
    config_write(1, 3, PIIX4_PMBASE, 4, PM);
    config_write(1, 3, PIIX4_PMREGMISC, 1, 1);
    pio_write(m, SMI, 1, PM_ACPI_ENABLE);
}

static int setup(void **unused)
{
    struct irq irqs[16], sci_irq = irq_probe(&sci);

    m = fixture_machine(1);
    memset(isa, 0, sizeof(isa));
    memset(&sci, 0, sizeof(sci));
    for (int i = 0; i < 16; i++)
        irqs[i] = irq_probe(&isa[i]);
    pci_bus_create(m);
    i440fx_host_create(m);
    piix3_isa_create(m, 1, RESET, irqs);
    pm = piix4_pm_create(m, 1, 3, SMI, &sci_irq);
    card = pci_device_add(m, &card_type, 2, 0); /* its INTA# is PIRQC */
    pci_identity_set(card, 0x1234, 0x5678, 0x020000, 0, 0, 0, true);
    devices_reset(m);
    return 0;
}

static int teardown(void **unused)
{
    fixture_free(m);
    return 0;
}

static void identities(void **unused)
{
    assert_int_equal(config_read(0, 0, PCI_VENDOR_ID, 4), 0x12378086);
    assert_int_equal(config_read(0, 0, PCI_CLASS_PROG, 4) >> 8 & 0xffff, 0x0600);
    assert_int_equal(config_read(1, 0, PCI_VENDOR_ID, 4), 0x70008086);
    assert_int_equal(config_read(1, 0, PCI_HEADER_TYPE, 1), 0x80);
    assert_int_equal(config_read(1, 3, PCI_VENDOR_ID, 4), 0x71138086);
}

static void attribute_map_is_kept(void **unused)
{
    assert_int_equal(config_read(0, 0, 0x59, 1), 0x33);
    config_write(0, 0, 0x5a, 1, 0xff);
    assert_int_equal(config_read(0, 0, 0x5a, 1), 0x33);
    config_write(0, 0, 0x5a, 1, 0x10);
    assert_int_equal(config_read(0, 0, 0x5a, 1), 0x10);
    devices_reset(m);
    assert_int_equal(config_read(0, 0, 0x5a, 1), 0x33);
}

static void pirq_routes(void **unused)
{
    assert_int_equal(config_read(1, 0, PIIX3_PIRQRCA, 4), 0x80808080);
    pci_intx_set(card, true);
    for (int i = 0; i < 16; i++)
        assert_int_equal(isa[i].changes, 0);
    config_write(1, 0, PIIX3_PIRQRCA, 4, 0x0b0b0a0a);
    assert_true(isa[11].level);
    config_write(1, 0, PIIX3_PIRQRCA + 2, 1, 10);
    assert_true(isa[10].level && !isa[11].level);
    pci_intx_set(card, false);
    assert_false(isa[10].level);
}

static void pirq_shares_an_interrupt(void **unused)
{
    struct pci_device *other = pci_device_add(m, &card_type, 3, 0);

    pci_identity_set(other, 0x1234, 0x5678, 0x020000, 0, 0, 0, true);
    config_write(1, 0, PIIX3_PIRQRCA, 4, 0x0b0b0b0b);
    pci_intx_set(card, true);
    pci_intx_set(other, true);
    pci_intx_set(card, false);
    assert_true(isa[11].level);
    pci_intx_set(other, false);
    assert_int_equal(isa[11].changes, 2);
}

static void pirq_reserved_routes(void **unused)
{
    static const int reserved[] = {0, 1, 2, 8, 13};

    pci_intx_set(card, true);
    for (size_t i = 0; i < ARRAY_SIZE(reserved); i++) {
        config_write(1, 0, PIIX3_PIRQRCA + 2, 1, (u32)reserved[i]);
        assert_int_equal(isa[reserved[i]].changes, 0);
    }
}

static void reset_control(void **unused)
{
    pio_write(m, RESET, 1, 2);
    assert_false(m->reset_wanted);
    assert_int_equal(pio_read(m, RESET, 1), 2);
    pio_write(m, RESET, 1, 6);
    assert_true(m->reset_wanted);
    m->reset_wanted = false;
    pio_write(m, RESET, 1, 6); /* no edge */
    assert_false(m->reset_wanted);
    pio_write(m, 0xcf8, 4, 0x80000600); /* not the register */
    assert_false(m->reset_wanted);
}

static void pm_block_moves(void **unused)
{
    assert_int_equal(pio_read(m, PM + PM1A_CNT, 2), 0xffff);
    pm_block_map();
    assert_int_equal(config_read(1, 3, PIIX4_PMBASE, 4), PM | 1);
    assert_int_equal(pio_read(m, PM + PM1A_CNT, 2), SCI_EN);
    config_write(1, 3, PIIX4_PMBASE, 4, 0xb03f);
    assert_int_equal(pio_read(m, PM + PM1A_CNT, 2), 0xffff);
    assert_int_equal(pio_read(m, 0xb000 + PM1A_CNT, 2), SCI_EN);
    config_write(1, 3, PIIX4_PMBASE, 4, 0xffff);
    assert_int_equal(pio_read(m, 0xffc0 + PM1A_CNT, 2), SCI_EN);
    config_write(1, 3, PIIX4_PMREGMISC, 1, 0);
    assert_int_equal(pio_read(m, 0xffc0 + PM1A_CNT, 2), 0xffff);
}

static void smi_command(void **unused)
{
    pm_block_map();
    pio_write(m, SMI, 1, PM_ACPI_DISABLE);
    assert_int_equal(pio_read(m, PM + PM1A_CNT, 2), 0);
    pio_write(m, SMI, 2, 0x55f1);
    assert_int_equal(pio_read(m, PM + PM1A_CNT, 2), SCI_EN);
    assert_int_equal(pio_read(m, SMI, 2), 0x55f1);
}

static void pm_timer_counts(void **unused)
{
    pm_block_map();
    assert_int_equal(pio_read(m, PM + PM_TMR, 4), 0);
    fixture_time(m, SECOND);
    assert_int_equal(pio_read(m, PM + PM_TMR, 4), 3579545);
    assert_int_equal(pio_read(m, PM + PM_TMR + 1, 1), 3579545 >> 8 & 0xff);
    fixture_time(m, 10 * SECOND);
    assert_int_equal(pio_read(m, PM + PM_TMR, 4), 35795450 & 0xffffff);
    fixture_time(m, 1000000000 * SECOND); /* thirty years: no overflow of ours */
    assert_int_equal(pio_read(m, PM + PM_TMR, 4), (u32)(3579545000000000ull & 0xffffff));
}

static void pm_timer_status_without_interrupt(void **unused)
{
    pm_block_map();
    fixture_time(m, 2 * SECOND);
    assert_int_equal(pio_read(m, PM + PM1A_STS, 2), 0);
    fixture_time(m, 3 * SECOND); /* bit 23 changes every 2.34 s */
    assert_int_equal(pio_read(m, PM + PM1A_STS, 2), TMR);
    pio_write(m, PM + PM1A_STS, 2, TMR);
    assert_int_equal(pio_read(m, PM + PM1A_STS, 2), 0);
    fixture_time(m, 5 * SECOND);
    assert_int_equal(pio_read(m, PM + PM1A_STS, 2), TMR);
    assert_int_equal(sci.changes, 0);
}

static void pm_timer_interrupts(void **unused)
{
    pm_block_map();
    pio_write(m, PM + PM1A_EN, 2, TMR);
    for (int i = 1; i <= 5; i++) {
        fixture_time(m, (u64)i * 2343484900);
        assert_int_equal(sci.rises, i);
        assert_true(sci.level);
        pio_write(m, PM + PM1A_STS, 2, TMR);
        assert_false(sci.level);
    }
    pio_write(m, PM + PM1A_EN, 2, 0);
    fixture_time(m, 100 * SECOND);
    assert_int_equal(sci.rises, 5);
    assert_int_equal(timer_queue_next(&m->timers), TIMER_NEVER);
}

static void power_button(void **unused)
{
    pm_block_map();
    piix4_pm_power_button(pm);
    assert_false(sci.level);
    assert_int_equal(pio_read(m, PM + PM1A_STS, 2), PWRBTN);
    pio_write(m, PM + PM1A_EN + 1, 1, PWRBTN >> 8);
    assert_true(sci.level);
    pio_write(m, SMI, 1, PM_ACPI_DISABLE);
    assert_false(sci.level);
    pio_write(m, SMI, 1, PM_ACPI_ENABLE);
    pio_write(m, PM + PM1A_STS, 2, TMR);
    assert_true(sci.level);
    pio_write(m, PM + PM1A_STS, 4, PWRBTN); /* clears the status, and the enable bits with it */
    assert_false(sci.level);
    assert_int_equal(pio_read(m, PM + PM1A_STS, 4), 0);
}

static void clock_alarm(void **unused)
{
    pm_block_map();
    piix4_pm_rtc_set(pm, 0, true);
    assert_int_equal(pio_read(m, PM + PM1A_STS, 2), RTC);
    assert_false(sci.level);
    pio_write(m, PM + PM1A_EN, 2, RTC);
    assert_true(sci.level);
    pio_write(m, PM + PM1A_STS, 2, RTC);
    piix4_pm_rtc_set(pm, 0, true); /* the wire has not fallen since */
    assert_false(sci.level);
    piix4_pm_rtc_set(pm, 0, false);
    piix4_pm_rtc_set(pm, 0, true);
    assert_true(sci.level);
}

static void soft_off(void **unused)
{
    pm_block_map();
    pio_write(m, PM + PM1A_CNT, 2, SCI_EN | 5 << 10 | SLP_EN); /* a state that there is not */
    assert_int_equal(m->end, MACHINE_RUNNING);
    assert_int_equal(pio_read(m, PM + PM1A_CNT, 2), SCI_EN | 5 << 10);
    pio_write(m, PM + PM1A_CNT, 2, SCI_EN);
    assert_int_equal(m->end, MACHINE_RUNNING);
    pio_write(m, PM + PM1A_CNT, 2, SCI_EN | SLP_EN);
    assert_int_equal(m->end, MACHINE_POWER_OFF);
}

static void suspend_until_the_alarm(void **unused)
{
    pm_block_map();
    pio_write(m, PM + PM1A_EN, 2, RTC);
    pio_write(m, PM + PM1A_CNT, 2, SCI_EN | 1 << 10 | SLP_EN);
    assert_true(m->asleep);
    assert_int_equal(m->end, MACHINE_RUNNING);
    piix4_pm_rtc_set(pm, 0, true);
    assert_false(m->asleep);
    assert_true(machine_waking(m));
    devices_reset(m); /* as machine_run does now */
    pm_block_map();
    assert_int_equal(pio_read(m, PM + PM1A_STS, 2), 0x8000 | RTC);
    assert_int_equal(pio_read(m, PM + PM1A_EN, 2), RTC);
}

static void suspend_with_an_event_pending(void **unused)
{
    pm_block_map();
    piix4_pm_rtc_set(pm, 0, true);
    pio_write(m, PM + PM1A_CNT, 2, SCI_EN | 1 << 10 | SLP_EN);
    assert_true(m->asleep); /* the alarm is not enabled */
    piix4_pm_power_button(pm);
    assert_false(m->asleep);
}

static void soft_off_by_bytes(void **unused)
{
    pm_block_map();
    pio_write(m, PM + PM1A_CNT + 1, 1, SLP_EN >> 8);
    assert_int_equal(m->end, MACHINE_POWER_OFF);
}

static void pm_state_round_trip(void **unused)
{
    const struct device_type *t = &piix4_pm_type;
    struct pci_state config;
    u8 *stream = malloc(state_stream_size(&t->state)), *kept = malloc(t->state.size);
    size_t len;

    assert_int_equal(state_covered(&t->state), t->state.size);
    pm_block_map();
    pio_write(m, PM + PM1A_EN, 2, TMR | PWRBTN);
    fixture_time(m, SECOND);
    piix4_pm_power_button(pm);
    piix4_pm_rtc_set(pm, 0, true);
    memcpy(kept, device_state(pm), t->state.size);
    config = container_of(pm, struct pci_device, dev)->ps;
    len = state_save(&t->state, device_state(pm), stream);
    devices_reset(m);
    assert_false(sci.level);
    container_of(pm, struct pci_device, dev)->ps = config;
    assert_int_equal(state_load(&t->state, device_state(pm), stream, len), 0);
    pci_device_loaded(container_of(pm, struct pci_device, dev));
    t->loaded(pm);
    assert_null(state_differs(&t->state, kept, device_state(pm)));
    assert_true(sci.level);
    assert_int_equal(timer_queue_next(&m->timers), 2343484438);
    assert_int_equal(pio_read(m, PM + PM1A_STS, 2), PWRBTN | RTC);
    free(stream);
    free(kept);
}

static void random_writes(void **unused)
{
    srandom(3);
    pm_block_map();
    for (int i = 0; i < 20000; i++) {
        int size = 1 << random() % 3;

        if (random() % 4)
            pio_write(m, (u16)(PM + random() % PM_BLOCK_SIZE), size, (u64)random());
        else
            config_write(1, random() % 2 ? 3 : 0, (int)(random() % 64) * 4, 4, (u32)random());
        if (i % 100 == 0)
            pm_block_map();
        if (i % 1000 == 0)
            fixture_time(m, machine_now(m) + SECOND);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(identities, setup, teardown),
        cmocka_unit_test_setup_teardown(attribute_map_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(pirq_routes, setup, teardown),
        cmocka_unit_test_setup_teardown(pirq_shares_an_interrupt, setup, teardown),
        cmocka_unit_test_setup_teardown(pirq_reserved_routes, setup, teardown),
        cmocka_unit_test_setup_teardown(reset_control, setup, teardown),
        cmocka_unit_test_setup_teardown(pm_block_moves, setup, teardown),
        cmocka_unit_test_setup_teardown(smi_command, setup, teardown),
        cmocka_unit_test_setup_teardown(pm_timer_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(pm_timer_status_without_interrupt, setup, teardown),
        cmocka_unit_test_setup_teardown(pm_timer_interrupts, setup, teardown),
        cmocka_unit_test_setup_teardown(power_button, setup, teardown),
        cmocka_unit_test_setup_teardown(clock_alarm, setup, teardown),
        cmocka_unit_test_setup_teardown(soft_off, setup, teardown),
        cmocka_unit_test_setup_teardown(suspend_until_the_alarm, setup, teardown),
        cmocka_unit_test_setup_teardown(suspend_with_an_event_pending, setup, teardown),
        cmocka_unit_test_setup_teardown(soft_off_by_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(pm_state_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(random_writes, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
