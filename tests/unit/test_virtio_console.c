/* Virtio console and balloon, each through its rings. */
#include "dev/virtio_balloon.h"
#include "dev/virtio_console.h"
#include "dev/virtio_pci.h"
#include "ui/console_backend.h"
#include "virtio_driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

enum { RX = 0, TX = 1 };

static struct machine *m;
static struct irq_probe intx;
static struct device *dev;
static struct driver d;

/* ---- a console that keeps what it gets ---- */

static struct {
    struct console console;
    char out[256];
    size_t out_len, dropped;
    char in[256];
    size_t in_len;
} host;

static void host_write(struct console *c, const u8 *data, int len)
{
    size_t n = MIN((size_t)len, sizeof(host.out) - host.out_len);

    memcpy(host.out + host.out_len, data, n);
    host.out_len += n;
    host.dropped += (size_t)len - n;
}

static void host_room(struct console *c)
{
    int room;

    while (host.in_len && (room = c->room(c->ctx)) > 0) {
        size_t n = MIN(host.in_len, (size_t)room);

        c->receive(c->ctx, (u8 *)host.in, (int)n);
        memmove(host.in, host.in + n, host.in_len - n);
        host.in_len -= n;
    }
}

static const struct console_ops host_ops = {.write = host_write, .room = host_room};

static void type(const char *text)
{
    memcpy(host.in + host.in_len, text, strlen(text));
    host.in_len += strlen(text);
    host_room(&host.console);
    driver_settle(m);
}

static int setup_console(void **unused)
{
    memset(&host, 0, sizeof(host));
    host.console.ops = &host_ops;
    m = driver_machine(1, &intx);
    dev = virtio_console_create(m, &host.console);
    driver_find(&d, m, dev);
    return 0;
}

static int setup_balloon(void **unused)
{
    m = driver_machine(1, &intx);
    dev = virtio_balloon_create(m);
    driver_find(&d, m, dev);
    return 0;
}

static int teardown(void **unused)
{
    fixture_free(m);
    return 0;
}

/* ---- console ---- */

static void output(void **unused)
{
    u64 gpa = driver_alloc(&d, 64);
    struct buffer b[2] = {{gpa, 6, false}, {gpa + 32, 5, false}};

    driver_start(&d, ~0ull, 2, 16, false);
    memcpy(driver_ptr(&d, gpa), "hello ", 6);
    memcpy(driver_ptr(&d, gpa + 32), "guest", 5);
    driver_add(&d, TX, b, 2);
    driver_kick(&d, TX);
    assert_int_equal(driver_used(&d, TX, NULL), 0);
    assert_int_equal(host.out_len, 11);
    assert_memory_equal(host.out, "hello guest", 11);
}

static void emergency_output_before_any_set_up(void **unused)
{
    mmio_write(m, d.config + 8, 4, '!');
    assert_memory_equal(host.out, "!", 1);
}

static void input_fills_buffers(void **unused)
{
    struct buffer a = {driver_alloc(&d, 16), 4, true}, b = {driver_alloc(&d, 16), 4, true};
    u32 len;

    driver_start(&d, ~0ull, 2, 16, false);
    driver_add(&d, RX, &a, 1);
    driver_add(&d, RX, &b, 1);
    type("abcdefghij");
    assert_int_equal(driver_used(&d, RX, &len), 0);
    assert_int_equal(len, 4);
    assert_memory_equal(driver_ptr(&d, a.gpa), "abcd", 4);
    assert_int_equal(driver_used(&d, RX, &len), 1);
    assert_memory_equal(driver_ptr(&d, b.gpa), "efgh", 4);
    assert_int_equal(host.in_len, 2); /* waits */
    assert_true(intx.level);
    driver_add(&d, RX, &a, 1);
    driver_kick(&d, RX);
    assert_int_equal(driver_used(&d, RX, &len), 2);
    assert_int_equal(len, 2);
    assert_memory_equal(driver_ptr(&d, a.gpa), "ij", 2);
}

static void input_before_the_driver_waits(void **unused)
{
    struct buffer a = {driver_alloc(&d, 16), 16, true};
    u32 len;

    type("early");
    assert_int_equal(host.in_len, 5);
    driver_start(&d, ~0ull, 2, 16, false);
    driver_add(&d, RX, &a, 1);
    driver_kick(&d, RX);
    assert_int_equal(driver_used(&d, RX, &len), 0);
    assert_int_equal(len, 5);
}

static void buffers_of_no_size_go_back(void **unused)
{
    struct buffer none = {0x1000, 0, true}, some = {driver_alloc(&d, 16), 16, true};
    u32 len;

    driver_start(&d, ~0ull, 2, 16, false);
    for (int i = 0; i < 3; i++)
        driver_add(&d, RX, &none, 1);
    driver_add(&d, RX, &some, 1);
    type("x");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(driver_used(&d, RX, &len), i);
        assert_int_equal(len, 0);
    }
    assert_int_equal(driver_used(&d, RX, &len), 3);
    assert_int_equal(len, 1);
}

static void absurd_output_breaks(void **unused)
{
    struct buffer b[3] = {{0, MIB(1), false}, {0, MIB(1), false}, {0, 1, false}};

    driver_start(&d, ~0ull, 2, 16, false);
    driver_add(&d, TX, b, 3);
    driver_kick(&d, TX);
    assert_int_equal(driver_get_status(&d), 15 | VIRTIO_NEEDS_RESET);
    assert_int_equal(host.out_len, 0);
}

/* ---- balloon ---- */

static bool resident(u64 gpa)
{
    unsigned char vec;

    assert_int_equal(mincore(driver_ptr(&d, gpa & PAGE_MASK), PAGE_SIZE, &vec), 0);
    return vec & 1;
}

static void inflate_frees_pages(void **unused)
{
    u32 pfn[4] = {0x100, 0x180, 0x7ffffff /* no RAM */, UINT32_MAX};
    struct buffer b = {driver_alloc(&d, sizeof(pfn)), sizeof(pfn), false};

    driver_start(&d, ~0ull, 2, 16, false);
    memset(driver_ptr(&d, 0x100000), 0xff, 2 * PAGE_SIZE);
    memset(driver_ptr(&d, 0x180000), 0xff, PAGE_SIZE);
    memcpy(driver_ptr(&d, b.gpa), pfn, sizeof(pfn));
    driver_add(&d, 0, &b, 1);
    driver_kick(&d, 0);
    assert_int_equal(driver_used(&d, 0, NULL), 0);
    assert_false(resident(0x100000));
    assert_true(resident(0x101000));
    assert_false(resident(0x180000));
    assert_int_equal(*(u8 *)driver_ptr(&d, 0x100000), 0);
    driver_add(&d, 1, &b, 1);
    driver_kick(&d, 1);
    assert_int_equal(driver_used(&d, 1, NULL), 0);
}

static void reported_pages_are_freed(void **unused)
{
    struct buffer b[2] = {{0x100000, 2 * PAGE_SIZE, true}, {0x180800, PAGE_SIZE, true}};

    driver_start(&d, ~0ull, 3, 16, false); /* as Linux numbers the queues */
    memset(driver_ptr(&d, 0x100000), 0xff, 2 * PAGE_SIZE);
    memset(driver_ptr(&d, 0x180000), 0xff, 2 * PAGE_SIZE);
    driver_add(&d, 2, b, 2);
    driver_kick(&d, 2);
    assert_int_equal(driver_used(&d, 2, NULL), 0);
    assert_false(resident(0x100000) || resident(0x101000));
    assert_int_equal(*(u8 *)driver_ptr(&d, 0x180800), 0xff); /* no whole page */
}

static void target_reaches_the_guest(void **unused)
{
    u32 generation;

    driver_start(&d, ~0ull, 2, 16, true);
    generation = common_get(&d, 0x15, 1);
    assert_int_equal(config_get(&d, 0, 4), 0);
    virtio_balloon_set_target(dev, MIB(1));
    assert_int_equal(driver_messages(m, DRIVER_MSI_VECTOR + 8), 1);
    assert_int_equal(config_get(&d, 0, 4), 256);
    assert_int_not_equal(common_get(&d, 0x15, 1), generation);
    mmio_write(m, d.config + 4, 4, 200);
    assert_int_equal(virtio_balloon_actual(dev), 200 * PAGE_SIZE);
    mmio_write(m, d.config, 4, 999); /* the host's field */
    assert_int_equal(config_get(&d, 0, 4), 256);
    driver_status(&d, 0);
    assert_int_equal(virtio_balloon_actual(dev), 0);
    assert_int_equal(config_get(&d, 0, 4), 256);
}

static void absurd_inflate_ends(void **unused)
{
    struct buffer b[8];

    driver_start(&d, ~0ull, 2, 64, false);
    for (int i = 0; i < 8; i++)
        b[i] = (struct buffer){0, FIXTURE_RAM, false};
    driver_add_indirect(&d, 0, b, 8);
    driver_kick(&d, 0);
    assert_int_equal(driver_used(&d, 0, NULL), 0);
}

#define CONSOLE(f) cmocka_unit_test_setup_teardown(f, setup_console, teardown)
#define BALLOON(f) cmocka_unit_test_setup_teardown(f, setup_balloon, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {CONSOLE(output),
                                       CONSOLE(emergency_output_before_any_set_up),
                                       CONSOLE(input_fills_buffers),
                                       CONSOLE(input_before_the_driver_waits),
                                       CONSOLE(buffers_of_no_size_go_back),
                                       CONSOLE(absurd_output_breaks),
                                       BALLOON(inflate_frees_pages),
                                       BALLOON(reported_pages_are_freed),
                                       BALLOON(target_reaches_the_guest),
                                       BALLOON(absurd_inflate_ends)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
