/* The virtio transport, driven as a guest drives it, with the entropy device behind it because it is the simplest. */
#include "dev/virtio_balloon.h"
#include "dev/virtio_blk.h"
#include "dev/virtio_console.h"
#include "dev/virtio_net.h"
#include "dev/virtio_pci.h"
#include "dev/virtio_rng.h"
#include "virtio_driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define F_VERSION_1 BIT(VIRTIO_F_VERSION_1)
#define F_ALL (~0ull)

static struct machine *m;
static struct irq_probe intx;
static struct device *rng;
static struct driver d;

static int setup(void **unused)
{
    m = driver_machine(1, &intx);
    rng = virtio_rng_create(m);
    driver_find(&d, m, rng);
    return 0;
}

static int teardown(void **unused)
{
    fixture_free(m);
    return 0;
}

static struct virtio_pci *virtio(void)
{
    return virtio_pci_of(rng);
}

static u16 ask(u32 len)
{
    struct buffer b = {driver_alloc(&d, len), len, true};
    u16 head = driver_add(&d, 0, &b, 1);

    driver_kick(&d, 0);
    return head;
}

static bool all_zero(u64 gpa, u32 len)
{
    for (const u8 *p = driver_ptr(&d, gpa); len; len--)
        if (*p++)
            return false;
    return true;
}

/* ---- set-up ---- */

static void identity(void **unused)
{
    const u8 *c = virtio()->pci.ps.config;

    assert_int_equal(c[0] | c[1] << 8, 0x1af4);
    assert_int_equal(c[2] | c[3] << 8, 0x1044);
    assert_int_equal(c[PCI_REVISION_ID], 1);
    assert_true(d.common && d.isr && d.notify && d.access_cap);
    assert_int_equal(d.config, 0); /* the entropy device has no configuration */
    assert_int_equal(common_get(&d, 0x12, 2), 1);
}

static void queue_fields_after_reset(void **unused)
{
    common_set(&d, 0x16, 2, 0);
    assert_int_equal(common_get(&d, 0x18, 2), 64);
    assert_int_equal(common_get(&d, 0x1a, 2), VIRTIO_NO_VECTOR);
    assert_int_equal(common_get(&d, 0x1c, 2), 0);
    common_set(&d, 0x16, 2, 1); /* does not exist */
    assert_int_equal(common_get(&d, 0x18, 2), 0);
    common_set(&d, 0x16, 2, 0xffff);
    assert_int_equal(common_get(&d, 0x18, 2), 0);
}

static void features_must_be_offered(void **unused)
{
    driver_status(&d, 3);
    driver_accept(&d, F_VERSION_1 | BIT(0));
    driver_status(&d, 11);
    assert_int_equal(driver_get_status(&d), 3);
    driver_accept(&d, F_VERSION_1);
    driver_status(&d, 11);
    assert_int_equal(driver_get_status(&d), 11);
}

static void version_1_is_demanded(void **unused)
{
    driver_status(&d, 3);
    driver_accept(&d, 0);
    driver_status(&d, 11);
    assert_int_equal(driver_get_status(&d), 3);
}

static void features_are_final_after_features_ok(void **unused)
{
    driver_status(&d, 3);
    driver_accept(&d, F_VERSION_1);
    driver_status(&d, 11);
    driver_accept(&d, F_VERSION_1 | BIT(VIRTIO_F_EVENT_IDX));
    assert_false(virtio_pci_has(virtio(), VIRTIO_F_EVENT_IDX));
    common_set(&d, 0x08, 4, 2); /* bits 64 and up are none */
    common_set(&d, 0x0c, 4, ~0u);
    assert_int_equal(common_get(&d, 0x0c, 4), 0);
    common_set(&d, 0x00, 4, 2);
    assert_int_equal(common_get(&d, 0x04, 4), 0);
}

static void driver_ok_needs_features_ok(void **unused)
{
    driver_status(&d, 3);
    driver_status(&d, 7);
    assert_int_equal(driver_get_status(&d), 3);
}

static void status_bits_stay_until_reset(void **unused)
{
    driver_start(&d, F_ALL, 1, 8, false);
    driver_status(&d, 1);
    assert_int_equal(driver_get_status(&d), 15);
    driver_status(&d, 0);
    assert_int_equal(driver_get_status(&d), 0);
    common_set(&d, 0x16, 2, 0);
    assert_int_equal(common_get(&d, 0x1c, 2), 0);
    assert_int_equal(common_get(&d, 0x18, 2), 64);
    assert_int_equal(common_get(&d, 0x20, 4), 0);
}

static void odd_accesses_do_nothing(void **unused)
{
    for (int offset = 0; offset < 0x40; offset++)
        for (int size = 1; size <= 8; size *= 2) {
            mmio_write(m, d.common + (u64)offset, size, 0x5555555555555555);
            mmio_read(m, d.common + (u64)offset, size);
        }
    for (u64 at = d.common & ~0x3fffull; at < (d.common & ~0x3fffull) + VIRTIO_BAR_SIZE; at += 0x3f)
        for (int size = 1; size <= 8; size *= 2) {
            mmio_write(m, at, size, UINT64_MAX);
            mmio_read(m, at, size);
        }
    driver_settle(m);
    driver_status(&d, 0);
    driver_start(&d, F_ALL, 1, 8, true);
    ask(16);
    assert_true(driver_used(&d, 0, NULL) >= 0);
}

static void queue_sizes_are_checked(void **unused)
{
    static const u32 bad[] = {0, 3, 65, 128, 0x8000, 0xffff};

    common_set(&d, 0x16, 2, 0);
    common_set(&d, 0x18, 2, 32);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        common_set(&d, 0x18, 2, bad[i]);
        assert_int_equal(common_get(&d, 0x18, 2), 32);
    }
}

static void enabled_queue_does_not_change(void **unused)
{
    driver_start(&d, F_ALL, 1, 8, false);
    common_set(&d, 0x18, 2, 4);
    common_set(&d, 0x20, 4, 0x5000);
    common_set(&d, 0x1c, 2, 0); /* a driver must not; only resets disable */
    assert_int_equal(common_get(&d, 0x18, 2), 8);
    assert_int_equal(common_get(&d, 0x20, 4), d.ring[0].desc);
    assert_int_equal(common_get(&d, 0x1c, 2), 1);
}

static void vectors_must_exist(void **unused)
{
    common_set(&d, 0x10, 2, 8);
    assert_int_equal(common_get(&d, 0x10, 2), 8);
    common_set(&d, 0x10, 2, 9);
    assert_int_equal(common_get(&d, 0x10, 2), VIRTIO_NO_VECTOR);
}

/* ---- work ---- */

static void works_with(u64 features, bool msix, bool indirect)
{
    driver_start(&d, features, 1, 8, msix);
    for (int i = 0; i < 30; i++) {
        u32 len = 0;
        struct buffer b[2] = {{driver_alloc(&d, 64), 40, true}, {driver_alloc(&d, 64), 24, true}};
        u16 head = indirect ? driver_add_indirect(&d, 0, b, 2) : driver_add(&d, 0, b, 2);

        driver_kick(&d, 0);
        assert_int_equal(driver_used(&d, 0, &len), head);
        assert_int_equal(len, 64);
        assert_false(all_zero(b[0].gpa, 40));
        assert_false(all_zero(b[1].gpa, 24));
        assert_true(all_zero(b[0].gpa + 40, 24));
        assert_int_equal(driver_used(&d, 0, NULL), -1);
    }
}

static void plain_ring(void **unused)
{
    works_with(F_VERSION_1, false, false);
}

static void all_features(void **unused)
{
    works_with(F_ALL, true, true);
}

static void intx_follows_isr(void **unused)
{
    driver_start(&d, F_VERSION_1, 1, 8, false);
    assert_false(intx.level);
    ask(8);
    assert_true(intx.level);
    assert_int_equal(mmio_read(m, d.isr, 1), VIRTIO_ISR_QUEUE);
    assert_false(intx.level);
    assert_int_equal(mmio_read(m, d.isr, 1), 0);
    assert_int_equal(driver_messages(m, DRIVER_MSI_VECTOR), 0);
}

static void msix_messages(void **unused)
{
    driver_start(&d, F_VERSION_1, 1, 8, true);
    ask(8);
    ask(8);
    assert_int_equal(driver_messages(m, DRIVER_MSI_VECTOR), 2);
    assert_int_equal(intx.changes, 0);
    assert_int_equal(mmio_read(m, d.isr, 1), 0);
    common_set(&d, 0x1a, 2, VIRTIO_NO_VECTOR);
    ask(8);
    assert_int_equal(driver_messages(m, DRIVER_MSI_VECTOR), 2);
}

static void buffers_put_before_driver_ok(void **unused)
{
    struct buffer b;

    driver_status(&d, 3);
    driver_accept(&d, F_VERSION_1);
    driver_status(&d, 11);
    driver_queue(&d, 0, 8);
    b = (struct buffer){driver_alloc(&d, 16), 16, true};
    driver_add(&d, 0, &b, 1);
    driver_kick(&d, 0);
    assert_int_equal(driver_used(&d, 0, NULL), -1); /* nothing is taken before DRIVER_OK */
    driver_status(&d, 15);
    assert_int_equal(driver_used(&d, 0, NULL), 0);
}

static void no_dma_without_bus_mastership(void **unused)
{
    u64 command = virtio()->pci.ps.config[PCI_COMMAND];

    driver_start(&d, F_VERSION_1, 1, 8, false);
    pio_write(m, 0xcf8, 4, 0x80000000u | (u32)d.slot << 11 | PCI_COMMAND);
    pio_write(m, 0xcfc, 2, command & ~(u64)PCI_COMMAND_MASTER);
    ask(16);
    assert_int_equal(driver_used(&d, 0, NULL), -1);
    pio_write(m, 0xcfc, 2, command | PCI_COMMAND_MASTER);
    driver_settle(m);
    assert_int_equal(driver_used(&d, 0, NULL), 0);
}

static void queue_reset_and_again(void **unused)
{
    driver_start(&d, F_ALL, 1, 8, false);
    ask(16);
    assert_int_equal(driver_used(&d, 0, NULL), 0);
    common_set(&d, 0x3a, 2, 1);
    assert_int_equal(common_get(&d, 0x3a, 2), 0);
    assert_int_equal(common_get(&d, 0x1c, 2), 0);
    assert_int_equal(common_get(&d, 0x18, 2), 64);
    driver_queue(&d, 0, 16);
    ask(16);
    assert_int_equal(driver_used(&d, 0, NULL), 0);
    assert_int_equal(driver_get_status(&d), 15);
}

static void queue_reset_needs_its_feature(void **unused)
{
    driver_start(&d, F_VERSION_1, 1, 8, false);
    common_set(&d, 0x3a, 2, 1);
    assert_int_equal(common_get(&d, 0x1c, 2), 1);
}

/* ---- the window in configuration space ---- */

static void config_access(int offset, int size)
{
    struct {
        int at;
        u32 val;
    } w[] = {{4, 0}, {8, (u32)offset}, {12, (u32)size}};

    for (size_t i = 0; i < ARRAY_SIZE(w); i++) {
        pio_write(m, 0xcf8, 4, 0x80000000u | (u32)d.slot << 11 | (u32)(d.access_cap + w[i].at));
        pio_write(m, 0xcfc, w[i].at == 4 ? 1 : 4, w[i].val);
    }
    pio_write(m, 0xcf8, 4, 0x80000000u | (u32)d.slot << 11 | (u32)(d.access_cap + 16));
}

static void window_reads_and_writes(void **unused)
{
    config_access(0x18, 2);
    assert_int_equal(pio_read(m, 0xcfc, 2), 64);
    pio_write(m, 0xcfc, 2, 16);
    assert_int_equal(common_get(&d, 0x18, 2), 16);
    config_access(0x14, 1);
    pio_write(m, 0xcfc, 1, 3);
    assert_int_equal(driver_get_status(&d), 3);
    assert_int_equal(pio_read(m, 0xcfc, 1), 3);
}

static void window_outside_does_nothing(void **unused)
{
    static const struct {
        int offset, size;
    } bad[] = {{0x14, 0}, {0x14, 3}, {0x15, 2}, {VIRTIO_BAR_SIZE, 4}, {-4, 4}, {0x7ffffffc, 4}};

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        config_access(bad[i].offset, bad[i].size);
        pio_write(m, 0xcfc, 4, ~0u);
        pio_read(m, 0xcfc, 4);
    }
    assert_int_equal(driver_get_status(&d), 0);
}

/* ---- hostile ---- */

static void expect_needs_reset(bool msix)
{
    assert_int_equal(driver_get_status(&d), 15 | VIRTIO_NEEDS_RESET);
    if (msix)
        assert_int_equal(driver_messages(m, DRIVER_MSI_VECTOR + 8), 1);
    else {
        assert_true(intx.level);
        assert_true(mmio_read(m, d.isr, 1) & VIRTIO_ISR_CONFIG);
    }
}

static void broken_ring_needs_reset(void **unused)
{
    for (int msix = 0; msix < 2; msix++) {
        driver_start(&d, F_VERSION_1, 1, 8, msix);
        desc_set(&d, d.ring[0].desc, 0, UINT64_MAX - 15, 4096, 2, 0);
        driver_offer(&d, 0, 0);
        driver_kick(&d, 0);
        expect_needs_reset(msix);
        driver_kick(&d, 0); /* dead until reset */
        assert_int_equal(driver_used(&d, 0, NULL), -1);
    }
    driver_start(&d, F_VERSION_1, 1, 8, true);
    ask(16);
    assert_int_equal(driver_used(&d, 0, NULL), 0);
}

static void misaligned_ring_needs_reset(void **unused)
{
    driver_status(&d, 3);
    driver_accept(&d, F_VERSION_1);
    driver_status(&d, 11);
    common_set(&d, 0x20, 4, 0x1001);
    common_set(&d, 0x1c, 2, 1);
    assert_true(driver_get_status(&d) & VIRTIO_NEEDS_RESET);
    assert_int_equal(common_get(&d, 0x1c, 2), 0);
}

static void notifications_of_anything(void **unused)
{
    for (int i = 0; i < 64; i++)
        mmio_write(m, d.notify + 2 * (u64)i, 2, (u64)i);
    driver_settle(m);
    driver_start(&d, F_VERSION_1, 1, 8, false);
    for (int i = 0; i < 64; i++)
        mmio_write(m, d.notify + 2 * (u64)i, 2, (u64)i);
    driver_settle(m);
    assert_int_equal(driver_get_status(&d), 15);
}

/* ---- state ---- */

static void tables_cover_states(void **unused)
{
    const struct device_type *types[] = {&virtio_blk_type, &virtio_net_type, &virtio_rng_type, &virtio_console_type,
                                         &virtio_balloon_type};

    for (size_t i = 0; i < ARRAY_SIZE(types); i++)
        assert_int_equal(state_covered(&types[i]->state), types[i]->state.size);
}

static void goes_on_after_save_and_load(void **unused)
{
    const struct state_table *t = &virtio_rng_type.state;
    u8 *stream = malloc(state_stream_size(t));
    struct buffer b;
    size_t len;

    driver_start(&d, F_ALL, 1, 8, true);
    ask(16);
    assert_int_equal(driver_used(&d, 0, NULL), 0);
    b = (struct buffer){driver_alloc(&d, 16), 16, true};
    driver_add(&d, 0, &b, 1);
    mmio_write(m, d.notify, 2, 0); /* the loop has not run yet: the wish is under way */
    len = state_save(t, device_state(rng), stream);
    virtio_pci_reset(rng);
    driver_settle(m);
    assert_int_equal(driver_used(&d, 0, NULL), -1);
    pio_write(m, 0xcf8, 4, 0x80000000u | (u32)d.slot << 11 | PCI_COMMAND);
    pio_write(m, 0xcfc, 2, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY);
    assert_int_equal(state_load(t, device_state(rng), stream, len), 0);
    virtio_pci_loaded(rng);
    driver_settle(m);
    assert_int_equal(driver_used(&d, 0, NULL), 1);
    free(stream);
}

static void loaded_lies_break_the_queue(void **unused)
{
    driver_start(&d, F_ALL, 1, 8, true);
    virtio()->s->queue.size[0] = 0;
    virtio_pci_loaded(rng);
    driver_settle(m);
    assert_true(driver_get_status(&d) & VIRTIO_NEEDS_RESET);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(identity),
                                       TEST(queue_fields_after_reset),
                                       TEST(features_must_be_offered),
                                       TEST(version_1_is_demanded),
                                       TEST(features_are_final_after_features_ok),
                                       TEST(driver_ok_needs_features_ok),
                                       TEST(status_bits_stay_until_reset),
                                       TEST(odd_accesses_do_nothing),
                                       TEST(queue_sizes_are_checked),
                                       TEST(enabled_queue_does_not_change),
                                       TEST(vectors_must_exist),
                                       TEST(plain_ring),
                                       TEST(all_features),
                                       TEST(intx_follows_isr),
                                       TEST(msix_messages),
                                       TEST(buffers_put_before_driver_ok),
                                       TEST(no_dma_without_bus_mastership),
                                       TEST(queue_reset_and_again),
                                       TEST(queue_reset_needs_its_feature),
                                       TEST(window_reads_and_writes),
                                       TEST(window_outside_does_nothing),
                                       TEST(broken_ring_needs_reset),
                                       TEST(misaligned_ring_needs_reset),
                                       TEST(notifications_of_anything),
                                       TEST(tables_cover_states),
                                       TEST(goes_on_after_save_and_load),
                                       TEST(loaded_lies_break_the_queue)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
