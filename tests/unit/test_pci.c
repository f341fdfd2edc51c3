/* PCI: configuration mechanism #1, BARs, INTx, MSI-X, resource assignment, state. The test plays the guest: it goes
 * through ports. */
#include "base/trace.h"
#include "machine/pci.h"
#include "machine_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* A function with a 32-bit memory BAR 0, an I/O BAR 1, and a 64-bit BAR 2 with MSI-X in it. */
struct card {
    struct pci_device pci;
    u64 last_write;
    int config_writes;
};

enum { VECTORS = 40, TABLE = 0x800, PBA = 0xc00, BAR0_SIZE = 0x1000, BAR1_SIZE = 0x20, BAR2_SIZE = 0x4000 };
enum { COMMAND_IO = 1, COMMAND_MEMORY = 2, COMMAND_MASTER = 4 };

static u64 card_read(struct device *dev, u64 offset, int size)
{
    return offset;
}

static void card_write(struct device *dev, u64 offset, int size, u64 val)
{
    container_of(dev, struct card, pci.dev)->last_write = val;
}

static const struct io_ops card_ops = {card_read, card_write, 1, 8};

static void card_config_written(struct pci_device *pci, int offset, int size)
{
    container_of(pci, struct card, pci)->config_writes++;
}

static void card_reset(struct device *dev)
{
    pci_device_reset(container_of(dev, struct pci_device, dev));
}

static const struct device_type card_type = {.name = "card", .size = sizeof(struct card), .reset = card_reset};

static struct machine *m;
static struct card *card;
static struct irq_probe wire[4];

static int route(int slot, int pin)
{
    return (slot + pin) & 3;
}

static struct card *card_add(int slot, int function)
{
    struct pci_device *pci = pci_device_add(m, &card_type, slot, function);

    pci_identity_set(pci, 0x1af4, 0x1042, 0x018000, 1, 0x1af4, 2, true);
    pci_bar_memory(pci, 0, BAR0_SIZE, false, &card_ops);
    pci_bar_io(pci, 1, BAR1_SIZE, &card_ops);
    pci_bar_memory(pci, 2, BAR2_SIZE, true, &card_ops);
    pci_msix_add(pci, 2, VECTORS, TABLE, PBA);
    pci->config_written = card_config_written;
    return container_of(pci, struct card, pci);
}

static int setup(void **unused)
{
    struct irq irqs[4];

    m = fixture_machine(1);
    memset(wire, 0, sizeof(wire));
    for (int i = 0; i < 4; i++)
        irqs[i] = irq_probe(&wire[i]);
    pci_bus_create(m);
    pci_bus_route_intx(m, route, irqs);
    card = card_add(3, 0);
    return 0;
}

static int teardown(void **unused)
{
    fixture_free(m);
    return 0;
}

static void address(int slot, int function, int reg)
{
    pio_write(m, 0xcf8, 4, 0x80000000u | (u32)slot << 11 | (u32)function << 8 | ((u32)reg & 0xfc));
}

static u32 config_read(int reg, int size)
{
    address(3, 0, reg);
    return (u32)pio_read(m, (u16)(0xcfc + (reg & 3)), size);
}

static void config_write(int reg, int size, u32 val)
{
    address(3, 0, reg);
    pio_write(m, (u16)(0xcfc + (reg & 3)), size, val);
}

static void mechanism_1(void **unused)
{
    assert_int_equal(config_read(PCI_VENDOR_ID, 4), 0x10421af4);
    assert_int_equal(config_read(PCI_VENDOR_ID, 2), 0x1af4);
    assert_int_equal(config_read(PCI_DEVICE_ID, 2), 0x1042);
    assert_int_equal(config_read(PCI_DEVICE_ID + 1, 1), 0x10);
    assert_int_equal(config_read(PCI_REVISION_ID, 4), 0x01800001);
    assert_int_equal(config_read(PCI_SUBSYSTEM_ID, 2), 2);
    assert_int_equal(config_read(PCI_INTERRUPT_PIN, 1), 1);
    /* how Linux recognises the mechanism */
    pio_write(m, 0xcfb, 1, 1);
    pio_write(m, 0xcf8, 4, 0x80000000);
    assert_int_equal(pio_read(m, 0xcf8, 4), 0x80000000);
    pio_write(m, 0xcf8, 1, 0x55);
    assert_int_equal(pio_read(m, 0xcf8, 4), 0x80000000);
    assert_int_equal(pio_read(m, 0xcf8, 2), 0xffff);
}

static void absent_functions_read_ones(void **unused)
{
    address(3, 1, 0);
    assert_int_equal(pio_read(m, 0xcfc, 4), 0xffffffff);
    address(4, 0, 0);
    assert_int_equal(pio_read(m, 0xcfc, 2), 0xffff);
    pio_write(m, 0xcfc, 4, 0);
    pio_write(m, 0xcf8, 4, 0x80010000 | 3 << 11); /* bus 1 */
    assert_int_equal(pio_read(m, 0xcfc, 4), 0xffffffff);
    pio_write(m, 0xcf8, 4, 3 << 11); /* not enabled */
    assert_int_equal(pio_read(m, 0xcfc, 4), 0xffffffff);
}

static void free_slots_are_found(void **unused)
{
    assert_int_equal(card_add(-1, 0)->pci.slot, 0);
    assert_int_equal(card_add(1, 2)->pci.slot, 1);
    assert_int_equal(card_add(-1, 0)->pci.slot, 2);
    assert_int_equal(card_add(-1, 0)->pci.slot, 4);
    assert_non_null(pci_device_at(m, 1, 2));
    assert_null(pci_device_at(m, 1, 0));
}

static void read_only_bits_stay(void **unused)
{
    u8 before[PCI_CONFIG_SIZE], after[PCI_CONFIG_SIZE];

    for (int i = 0; i < PCI_CONFIG_SIZE; i++)
        before[i] = (u8)config_read(i, 1);
    for (int i = 0; i < PCI_CONFIG_SIZE; i += 4)
        if (i != PCI_COMMAND)
            config_write(i, 4, 0xffffffff);
    for (int i = 0; i < PCI_CONFIG_SIZE; i++)
        after[i] = (u8)config_read(i, 1);
    for (int i = 0; i < PCI_CONFIG_SIZE; i++)
        assert_int_equal(before[i] & (u8)~card->pci.writable[i], after[i] & (u8)~card->pci.writable[i]);
    assert_true(card->config_writes > 0);
}

static void bar_sizing(void **unused)
{
    for (int bar = 0; bar < 4; bar++)
        config_write(PCI_BAR0 + 4 * bar, 4, 0xffffffff);
    assert_int_equal(config_read(PCI_BAR0, 4), 0xfffff000);
    assert_int_equal(config_read(PCI_BAR0 + 4, 4), 0xffffffe1);
    assert_int_equal(config_read(PCI_BAR0 + 8, 4), 0xffffc004);
    assert_int_equal(config_read(PCI_BAR0 + 12, 4), 0xffffffff);
    config_write(PCI_BAR0 + 16, 4, 0xffffffff);
    assert_int_equal(config_read(PCI_BAR0 + 16, 4), 0);
    config_write(PCI_BAR0, 2, 0xffff); /* and in parts */
    config_write(PCI_BAR0 + 2, 1, 0x12);
    config_write(PCI_BAR0 + 3, 1, 0xd0);
    assert_int_equal(config_read(PCI_BAR0, 4), 0xd012f000);
}

static void bars_decode_when_enabled(void **unused)
{
    config_write(PCI_BAR0, 4, 0xd0000000);
    config_write(PCI_BAR0 + 4, 4, 0xc000);
    assert_int_equal(mmio_read(m, 0xd0000010, 4), 0xffffffff);
    config_write(PCI_COMMAND, 2, COMMAND_MEMORY);
    assert_int_equal(mmio_read(m, 0xd0000010, 4), 0x10);
    assert_int_equal(mmio_read(m, 0xd0001000, 4), 0xffffffff);
    assert_int_equal(pio_read(m, 0xc004, 1), 0xff);
    config_write(PCI_COMMAND, 2, COMMAND_IO);
    assert_int_equal(pio_read(m, 0xc004, 1), 4);
    assert_int_equal(pio_read(m, 0xc020, 1), 0xff);
    assert_int_equal(mmio_read(m, 0xd0000010, 4), 0xffffffff);
}

static void bars_move(void **unused)
{
    config_write(PCI_COMMAND, 2, COMMAND_MEMORY | COMMAND_IO);
    config_write(PCI_BAR0, 4, 0xd0000000);
    config_write(PCI_BAR0, 4, 0xe0000000);
    assert_int_equal(mmio_read(m, 0xd0000010, 4), 0xffffffff);
    assert_int_equal(mmio_read(m, 0xe0000010, 4), 0x10);
    config_write(PCI_BAR0, 4, 0);
    assert_int_equal(mmio_read(m, 0x10, 4), 0xffffffff);
}

static void bars_of_64_bits(void **unused)
{
    config_write(PCI_COMMAND, 2, COMMAND_MEMORY);
    config_write(PCI_BAR0 + 8, 4, 0x10000000);
    config_write(PCI_BAR0 + 12, 4, 0x12);
    assert_int_equal(mmio_read(m, 0x1210000020, 4), 0x20);
    config_write(PCI_BAR0 + 12, 4, 0xffffffff);
    assert_int_equal(mmio_read(m, 0xffffffff10000020, 4), 0x20);
    config_write(PCI_BAR0 + 8, 4, 0xffffffff); /* the very top */
    assert_int_equal(mmio_read(m, UINT64_MAX, 1), 0xff);
    assert_int_equal(mmio_read(m, UINT64_MAX - 0x3fff + 0x20, 4), 0x20);
}

static void io_bar_beyond_the_ports_is_not_mapped(void **unused)
{
    config_write(PCI_COMMAND, 2, COMMAND_IO);
    config_write(PCI_BAR0 + 4, 4, 0x1c000);
    assert_int_equal(pio_read(m, 0xc004, 1), 0xff);
    config_write(PCI_BAR0 + 4, 4, 0xffe0);
    assert_int_equal(pio_read(m, 0xffff, 1), 0x1f);
}

/* Two cards on one address: one of them answers; when it leaves, the other does. */
static void overlapping_bars(void **unused)
{
    struct card *other = card_add(4, 0);

    config_write(PCI_COMMAND, 2, COMMAND_MEMORY);
    config_write(PCI_BAR0, 4, 0xd0000000);
    address(4, 0, PCI_COMMAND);
    pio_write(m, 0xcfc, 2, COMMAND_MEMORY);
    address(4, 0, PCI_BAR0);
    pio_write(m, 0xcfc, 4, 0xd0000000);
    mmio_write(m, 0xd0000000, 4, 7);
    assert_int_equal(other->last_write, 7);
    pio_write(m, 0xcfc, 4, 0xe0000000);
    mmio_write(m, 0xd0000000, 4, 8);
    assert_int_equal(card->last_write, 8);
}

/* The guest can put ports over the configuration mechanism, and so cut itself off; nothing else may come of it. */
static void bar_over_the_mechanism(void **unused)
{
    config_write(PCI_BAR0 + 4, 4, 0xce0);
    config_write(PCI_COMMAND, 2, COMMAND_IO);
    assert_int_equal(pio_read(m, 0xcfc, 1), 0x1c);
    devices_reset(m);
    assert_int_equal(config_read(PCI_VENDOR_ID, 2), 0x1af4);
}

static void intx_is_ored(void **unused)
{
    struct card *other = card_add(7, 0); /* same wire as slot 3 */

    pci_intx_set(&card->pci, true);
    assert_true(wire[3].level);
    assert_int_equal(config_read(PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, PCI_STATUS_INTERRUPT);
    pci_intx_set(&other->pci, true);
    pci_intx_set(&card->pci, false);
    assert_true(wire[3].level);
    pci_intx_set(&other->pci, false);
    assert_false(wire[3].level);
    assert_int_equal(wire[3].changes, 2);
    assert_int_equal(wire[0].changes + wire[1].changes + wire[2].changes, 0);
}

static void intx_disable(void **unused)
{
    pci_intx_set(&card->pci, true);
    config_write(PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
    assert_false(wire[3].level);
    config_write(PCI_COMMAND, 2, 0);
    assert_true(wire[3].level);
    config_write(card->pci.msix_cap + 2, 2, 0x8000);
    assert_false(wire[3].level);
}

static void entry_write(int vector, int dword, u32 val)
{
    mmio_write(m, 0xd0000000 + TABLE + 16 * (u64)vector + 4 * (u64)dword, 4, val);
}

static void msix_setup(u32 command)
{
    config_write(PCI_BAR0 + 8, 4, 0xd0000000);
    config_write(PCI_BAR0 + 12, 4, 0);
    config_write(PCI_COMMAND, 2, command);
    config_write(card->pci.msix_cap + 2, 2, 0x8000);
    for (int v = 0; v < VECTORS; v++) {
        entry_write(v, 0, 0xfee00000);
        entry_write(v, 2, 0x40 + (u32)v);
    }
}

static int messages(void)
{
    return fake_vcpu_log(m->cpus)->message_count;
}

static u8 last_vector(void)
{
    return fake_vcpu_log(m->cpus)->message[messages() - 1].vector;
}

static void msix_capability(void **unused)
{
    int cap = (int)config_read(PCI_CAPABILITY_LIST, 1);

    assert_int_equal(config_read(PCI_STATUS, 2) & PCI_STATUS_CAPABILITIES, PCI_STATUS_CAPABILITIES);
    assert_int_equal(cap, card->pci.msix_cap);
    assert_int_equal(config_read(cap, 2), 0x11);
    assert_int_equal(config_read(cap + 2, 2), VECTORS - 1);
    assert_int_equal(config_read(cap + 4, 4), TABLE | 2);
    assert_int_equal(config_read(cap + 8, 4), PBA | 2);
    config_write(cap + 2, 2, 0xffff);
    assert_int_equal(config_read(cap + 2, 2), 0xc000 | (VECTORS - 1));
}

static void capabilities_are_linked(void **unused)
{
    int second = pci_capability_add(&card->pci, 9, 17), third = pci_capability_add(&card->pci, 9, 4);

    assert_int_equal(config_read(card->pci.msix_cap + 1, 1), second);
    assert_int_equal(config_read(second + 1, 1), third);
    assert_int_equal(third, second + 20);
    assert_int_equal(config_read(third, 2), 9);
}

static void msix_sends(void **unused)
{
    pci_msix_raise(&card->pci, 0); /* off: nothing */
    msix_setup(COMMAND_MEMORY | COMMAND_MASTER);
    assert_int_equal(messages(), 0);
    entry_write(39, 3, 0);
    pci_msix_raise(&card->pci, 39);
    assert_int_equal(messages(), 1);
    assert_int_equal(last_vector(), 0x40 + 39);
    pci_msix_raise(&card->pci, 40);
    pci_msix_raise(&card->pci, -1);
    pci_msix_raise(&card->pci, 0xffff);
    assert_int_equal(messages(), 1);
}

static void msix_masked_vectors_wait(void **unused)
{
    msix_setup(COMMAND_MEMORY | COMMAND_MASTER);
    pci_msix_raise(&card->pci, 33);
    pci_msix_raise(&card->pci, 33);
    assert_int_equal(messages(), 0);
    assert_int_equal(mmio_read(m, 0xd0000000 + PBA, 8), BIT(33));
    entry_write(33, 3, 0);
    assert_int_equal(messages(), 1);
    assert_int_equal(mmio_read(m, 0xd0000000 + PBA, 8), 0);
    mmio_write(m, 0xd0000000 + PBA, 8, UINT64_MAX); /* read-only */
    assert_int_equal(mmio_read(m, 0xd0000000 + PBA, 8), 0);
}

static void msix_function_mask(void **unused)
{
    msix_setup(COMMAND_MEMORY | COMMAND_MASTER);
    entry_write(1, 3, 0);
    entry_write(2, 3, 0);
    config_write(card->pci.msix_cap + 2, 2, 0xc000);
    pci_msix_raise(&card->pci, 1);
    pci_msix_raise(&card->pci, 2);
    assert_int_equal(messages(), 0);
    config_write(card->pci.msix_cap + 2, 2, 0x8000);
    assert_int_equal(messages(), 2);
}

static void msix_needs_bus_mastership(void **unused)
{
    msix_setup(COMMAND_MEMORY);
    entry_write(1, 3, 0);
    assert_false(pci_dma_allowed(&card->pci));
    pci_msix_raise(&card->pci, 1);
    assert_int_equal(messages(), 0);
    config_write(PCI_COMMAND, 2, COMMAND_MEMORY | COMMAND_MASTER);
    assert_int_equal(messages(), 1);
    pci_msix_raise(&card->pci, 0);
    config_write(card->pci.msix_cap + 2, 2, 0); /* switching it off forgets */
    config_write(card->pci.msix_cap + 2, 2, 0x8000);
    entry_write(0, 3, 0);
    assert_int_equal(messages(), 1);
}

static void msix_table_reads_back(void **unused)
{
    u64 entry = 0xd0000000 + TABLE + 16 * 5;

    msix_setup(COMMAND_MEMORY);
    mmio_write(m, entry, 8, 0x12345678fee0f00full);
    mmio_write(m, entry + 8, 8, 0xffffffff00000099ull);
    assert_int_equal(mmio_read(m, entry, 8), 0x12345678fee0f00cull);
    assert_int_equal(mmio_read(m, entry + 8, 8), 0x100000099ull);
    assert_int_equal(mmio_read(m, 0xd0000000 + TABLE - 4, 4), TABLE - 4); /* the card's own */
    assert_int_equal(mmio_read(m, 0xd0000000 + TABLE + 16 * VECTORS, 4), TABLE + 16 * VECTORS);
}

static void reset_returns_to_power_on(void **unused)
{
    msix_setup(COMMAND_MEMORY | COMMAND_MASTER | COMMAND_IO);
    pci_msix_raise(&card->pci, 1);
    pci_intx_set(&card->pci, true);
    devices_reset(m);
    assert_false(wire[3].level);
    assert_int_equal(config_read(PCI_COMMAND, 2), 0);
    assert_int_equal(config_read(PCI_BAR0 + 8, 4), 4);
    assert_int_equal(config_read(PCI_VENDOR_ID, 4), 0x10421af4);
    assert_int_equal(mmio_read(m, 0xd0000000, 4), 0xffffffff);
    assert_false(pci_msix_enabled(&card->pci));
    msix_setup(COMMAND_MEMORY | COMMAND_MASTER);
    assert_int_equal(mmio_read(m, 0xd0000000 + TABLE + 12, 4), 1);
    assert_int_equal(mmio_read(m, 0xd0000000 + PBA, 4), 0);
    assert_int_equal(messages(), 0);
}

static u8 line(int slot, int pin)
{
    return (u8)(10 + ((slot + pin) & 3));
}

static void resources_are_assigned(void **unused)
{
    struct card *other = card_add(4, 0);

    pci_assign_resources(m, 0xc0000000, 0xc1000000, 0xc000, 0x10000, line);
    assert_int_equal(config_read(PCI_COMMAND, 2), COMMAND_IO | COMMAND_MEMORY);
    assert_int_equal(config_read(PCI_INTERRUPT_LINE, 1), 13);
    for (int bar = 0; bar < 3; bar++) {
        assert_true(card->pci.bar[bar].mapped && other->pci.bar[bar].mapped);
        assert_int_equal(card->pci.bar[bar].mapped_at % card->pci.bar[bar].size, 0);
        assert_true(card->pci.bar[bar].mapped_at + card->pci.bar[bar].size <= other->pci.bar[bar].mapped_at);
    }
}

static void resources_can_run_out(void **unused)
{
    pci_assign_resources(m, 0xc0000000, 0xc0002000, 0xfff0, 0x10000, line);
    assert_true(card->pci.bar[0].mapped);
    assert_false(card->pci.bar[1].mapped || card->pci.bar[2].mapped);
}

static void state_round_trip(void **unused)
{
    struct pci_state kept;
    u8 *stream = malloc(state_stream_size(&pci_state_table));
    size_t len;

    assert_int_equal(state_covered(&pci_state_table), sizeof(struct pci_state));
    msix_setup(COMMAND_MEMORY | COMMAND_MASTER);
    entry_write(7, 3, 0);
    config_write(card->pci.msix_cap + 2, 2, 0xc000);
    pci_msix_raise(&card->pci, 7);
    kept = card->pci.ps;
    len = state_save(&pci_state_table, &card->pci.ps, stream);
    devices_reset(m);
    assert_non_null(state_differs(&pci_state_table, &kept, &card->pci.ps));
    assert_int_equal(state_load(&pci_state_table, &card->pci.ps, stream, len), 0);
    pci_device_loaded(&card->pci);
    assert_null(state_differs(&pci_state_table, &kept, &card->pci.ps));
    assert_int_equal(mmio_read(m, 0xd0000010, 4), 0x10);
    config_write(card->pci.msix_cap + 2, 2, 0x8000);
    assert_int_equal(last_vector(), 0x47);
    free(stream);
}

/* A guest that writes anything anywhere; the sanitizers and asserts watch. */
static void random_writes(void **unused)
{
    srandom(7);
    for (int i = 0; i < 20000; i++) {
        int size = 1 << random() % 3;
        u32 val = (u32)random() << (random() % 2 * 12) ^ (u32)random() << 24;

        switch (random() % 6) {
        case 0: address(3, 0, (int)(random() % 256)); break;
        case 1: pio_write(m, (u16)(0xcf8 + random() % 8), size, val); break;
        case 2:
        case 3: config_write((int)(random() % 64) * 4, 4, val); break;
        case 4: mmio_write(m, card->pci.bar[2].mapped_at + (u64)random() % 0x1000, 8, val); break;
        default: pci_msix_raise(&card->pci, (int)(random() % 64)); break;
        }
        if (i % 16 == 0)
            config_write(PCI_COMMAND, 2, COMMAND_MEMORY | COMMAND_MASTER | (val & 0xffff));
    }
    devices_reset(m);
    assert_null(m->mmio);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(mechanism_1, setup, teardown),
        cmocka_unit_test_setup_teardown(absent_functions_read_ones, setup, teardown),
        cmocka_unit_test_setup_teardown(free_slots_are_found, setup, teardown),
        cmocka_unit_test_setup_teardown(read_only_bits_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(bar_sizing, setup, teardown),
        cmocka_unit_test_setup_teardown(bars_decode_when_enabled, setup, teardown),
        cmocka_unit_test_setup_teardown(bars_move, setup, teardown),
        cmocka_unit_test_setup_teardown(bars_of_64_bits, setup, teardown),
        cmocka_unit_test_setup_teardown(io_bar_beyond_the_ports_is_not_mapped, setup, teardown),
        cmocka_unit_test_setup_teardown(overlapping_bars, setup, teardown),
        cmocka_unit_test_setup_teardown(bar_over_the_mechanism, setup, teardown),
        cmocka_unit_test_setup_teardown(intx_is_ored, setup, teardown),
        cmocka_unit_test_setup_teardown(intx_disable, setup, teardown),
        cmocka_unit_test_setup_teardown(msix_capability, setup, teardown),
        cmocka_unit_test_setup_teardown(capabilities_are_linked, setup, teardown),
        cmocka_unit_test_setup_teardown(msix_sends, setup, teardown),
        cmocka_unit_test_setup_teardown(msix_masked_vectors_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(msix_function_mask, setup, teardown),
        cmocka_unit_test_setup_teardown(msix_needs_bus_mastership, setup, teardown),
        cmocka_unit_test_setup_teardown(msix_table_reads_back, setup, teardown),
        cmocka_unit_test_setup_teardown(reset_returns_to_power_on, setup, teardown),
        cmocka_unit_test_setup_teardown(resources_are_assigned, setup, teardown),
        cmocka_unit_test_setup_teardown(resources_can_run_out, setup, teardown),
        cmocka_unit_test_setup_teardown(state_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(random_writes, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
