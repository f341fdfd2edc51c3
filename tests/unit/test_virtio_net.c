/* Virtio network card on a back end that only has the two queues: frames out, frames in, merged buffers, flow control. */
#include "dev/virtio_net.h"
#include "dev/virtio_pci.h"
#include "net/backend.h"
#include "virtio_driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { HEADER = 12, F_MRG_RXBUF = 15, RX = 0, TX = 1 };

static struct machine *m;
static struct irq_probe intx;
static struct device *dev;
static struct driver d;
static struct net net;
static int wakes;

static void wake(struct net *n)
{
    wakes++;
}

static const struct net_ops ops = {.wake = wake};
static const u8 mac[6] = {0x52, 0x54, 0, 1, 2, 3};

static int setup(void **unused)
{
    m = driver_machine(1, &intx);
    assert_int_equal(net_open(&net, &ops, m->loop), 0);
    dev = virtio_net_create(m, &net, mac);
    driver_find(&d, m, dev);
    wakes = 0;
    return 0;
}

static int teardown(void **unused)
{
    struct event_loop *loop = m->loop;
    pthread_mutex_t *lock = m->lock;

    machine_free(m);
    net_close(&net);
    event_loop_free(loop);
    pthread_mutex_destroy(lock);
    free(lock);
    return 0;
}

static void start(u64 features)
{
    driver_start(&d, features, 2, 16, true);
}

/* A receive buffer of `len` bytes. */
static u64 offer(u32 len)
{
    struct buffer b = {driver_alloc(&d, len), len, true};

    driver_add(&d, RX, &b, 1);
    return b.gpa;
}

static void frame_make(u8 *frame, size_t len)
{
    for (size_t i = 0; i < len; i++)
        frame[i] = (u8)(i * 7 + i / 256);
}

static void configuration(void **unused)
{
    start(~0ull);
    for (int i = 0; i < 6; i++)
        assert_int_equal(config_get(&d, i, 1), mac[i]);
    assert_int_equal(config_get(&d, 6, 2), 1); /* link is up */
}

static void card_without_net_is_down(void **unused)
{
    struct device *second = virtio_net_create(m, NULL, mac);
    struct driver e;
    struct buffer b;

    driver_find(&e, m, second);
    driver_start(&e, ~0ull, 2, 16, false);
    assert_int_equal(config_get(&e, 6, 2), 0);
    b = (struct buffer){driver_alloc(&e, 100), 100, false};
    driver_add(&e, TX, &b, 1);
    driver_kick(&e, TX);
    assert_int_equal(driver_used(&e, TX, NULL), 0);
}

static void sends(void **unused)
{
    u64 gpa = driver_alloc(&d, 2048);
    struct buffer b[3] = {{gpa, 5, false}, {gpa + 5, HEADER - 5 + 20, false}, {gpa + 200, 80, false}};
    const u8 *frame;
    u8 expect[100];
    size_t len;

    start(~0ull);
    frame_make(expect, 100);
    memcpy(driver_ptr(&d, gpa + HEADER), expect, 20);
    memcpy(driver_ptr(&d, gpa + 200), expect + 20, 80);
    driver_add(&d, TX, b, 3);
    driver_kick(&d, TX);
    assert_int_equal(driver_used(&d, TX, NULL), 0);
    assert_int_equal(wakes, 1);
    frame = frame_queue_peek(&net.to_host, &len);
    assert_non_null(frame);
    assert_int_equal(len, 100);
    assert_memory_equal(frame, expect, 100);
}

static void bad_frames_are_dropped(void **unused)
{
    u64 gpa = driver_alloc(&d, 0x20000);
    struct buffer b[] = {
        {gpa, HEADER - 1, false}, {gpa, HEADER, false}, {gpa, 0x11000, false}, {gpa + 0x18000, 100, false}};
    size_t len;

    start(~0ull);
    *(u8 *)driver_ptr(&d, gpa + 0x18001) = 1; /* gso_type */
    for (size_t i = 0; i < ARRAY_SIZE(b); i++) {
        driver_add(&d, TX, &b[i], 1);
        driver_kick(&d, TX);
        assert_true(driver_used(&d, TX, NULL) >= 0);
    }
    assert_null(frame_queue_peek(&net.to_host, &len));
    assert_int_equal(driver_get_status(&d), 15);
}

static void receives(void **unused)
{
    u8 frame[600];
    u64 gpa;
    u32 len;

    start(~0ull);
    gpa = offer(2048);
    frame_make(frame, sizeof(frame));
    net_deliver(&net, frame, sizeof(frame));
    driver_settle(m);
    assert_int_equal(driver_used(&d, RX, &len), 0);
    assert_int_equal(len, HEADER + sizeof(frame));
    assert_memory_equal(driver_ptr(&d, gpa + HEADER), frame, sizeof(frame));
    assert_int_equal(*(u8 *)driver_ptr(&d, gpa + 10), 1); /* num_buffers */
    assert_int_equal(driver_messages(m, DRIVER_MSI_VECTOR + RX), 1);
}

static void receives_into_merged_buffers(void **unused)
{
    u8 frame[1000], back[1000];
    u64 gpa[4];
    u32 len, done = 0;

    start(~0ull);
    for (int i = 0; i < 4; i++)
        gpa[i] = offer(300);
    frame_make(frame, sizeof(frame));
    net_deliver(&net, frame, sizeof(frame));
    driver_settle(m);
    for (int i = 0; i < 4; i++) {
        u32 header = i ? 0 : HEADER;

        assert_int_equal(driver_used(&d, RX, &len), i);
        memcpy(back + done, driver_ptr(&d, gpa[i] + header), len - header);
        done += len - header;
    }
    assert_int_equal(done, sizeof(frame));
    assert_memory_equal(back, frame, sizeof(frame));
    assert_int_equal(*(u8 *)driver_ptr(&d, gpa[0] + 10), 4);
}

static void without_merging_a_frame_has_one_buffer(void **unused)
{
    u8 frame[1000] = {0};

    start(~BIT(F_MRG_RXBUF));
    offer(300);
    offer(2048);
    net_deliver(&net, frame, sizeof(frame)); /* does not fit the first: lost */
    net_deliver(&net, frame, 200);
    driver_settle(m);
    assert_int_equal(driver_used(&d, RX, NULL), 0);
    assert_int_equal(driver_used(&d, RX, NULL), -1);
}

static void too_few_buffers_lose_the_frame_only(void **unused)
{
    u8 frame[1000] = {0};
    u32 len;

    start(~0ull);
    offer(300);
    net_deliver(&net, frame, sizeof(frame));
    net_deliver(&net, frame, 60);
    driver_settle(m);
    assert_int_equal(driver_used(&d, RX, &len), 0);
    assert_int_equal(len, HEADER + 60);
}

static void waits_for_buffers(void **unused)
{
    u8 frame[60];
    u32 len;

    frame_make(frame, sizeof(frame));
    for (int event_idx = 0; event_idx < 2; event_idx++) {
        start(event_idx ? ~0ull : ~BIT(VIRTIO_F_EVENT_IDX));
        for (int round = 0; round < 40; round++) {
            u64 gpa;

            frame[0] = (u8)round;
            net_deliver(&net, frame, sizeof(frame));
            driver_settle(m);
            assert_int_equal(driver_used(&d, RX, NULL), -1);
            gpa = offer(100);
            driver_kick(&d, RX);
            assert_true(driver_used(&d, RX, &len) >= 0);
            assert_int_equal(*(u8 *)driver_ptr(&d, gpa + HEADER), round);
        }
    }
}

static void one_interrupt_for_a_burst(void **unused)
{
    u8 frame[60] = {0};

    start(~BIT(VIRTIO_F_EVENT_IDX));
    for (int i = 0; i < 10; i++)
        offer(100);
    for (int i = 0; i < 10; i++)
        net_deliver(&net, frame, sizeof(frame));
    driver_settle(m);
    for (int i = 0; i < 10; i++)
        assert_true(driver_used(&d, RX, NULL) >= 0);
    assert_int_equal(driver_messages(m, DRIVER_MSI_VECTOR + RX), 1);
}

static void frames_before_the_driver_are_lost(void **unused)
{
    u8 frame[60] = {0};

    net_deliver(&net, frame, sizeof(frame));
    driver_settle(m);
    assert_int_equal(frame_queue_used(&net.to_guest), 0);
    start(~0ull);
    offer(100);
    driver_kick(&d, RX);
    assert_int_equal(driver_used(&d, RX, NULL), -1);
}

static void full_queue_wakes_the_back_end_when_it_empties(void **unused)
{
    u8 frame[1514] = {0};

    start(~0ull);
    while (frame_queue_used(&net.to_guest) <= NET_QUEUE_HIGH)
        net_deliver(&net, frame, sizeof(frame));
    driver_status(&d, 0); /* no driver: everything goes nowhere */
    driver_settle(m);
    driver_settle(m);
    assert_int_equal(frame_queue_used(&net.to_guest), 0);
    assert_true(wakes > 0);
}

static void small_buffers_break(void **unused)
{
    u8 frame[60] = {0};

    start(~0ull);
    offer(HEADER - 1);
    net_deliver(&net, frame, sizeof(frame));
    driver_settle(m);
    assert_int_equal(driver_get_status(&d), 15 | VIRTIO_NEEDS_RESET);
}

static void buffers_without_bytes_end(void **unused)
{
    u8 frame[60] = {0};

    start(~0ull);
    offer(HEADER);
    for (int i = 0; i < 14; i++) {
        struct buffer b = {0x1000, 0, true};

        driver_add(&d, RX, &b, 1);
    }
    net_deliver(&net, frame, sizeof(frame));
    driver_settle(m);
    assert_int_equal(driver_used(&d, RX, NULL), -1);
}

/* ---- the frame queue ---- */

static void queue_keeps_order_and_bytes(void **unused)
{
    struct frame_queue q;
    u32 pushed = 0, popped = 0, random = 1;
    u8 frame[700];
    bool was_empty;

    assert_int_equal(frame_queue_init(&q, 4096), 0);
    for (int step = 0; step < 20000; step++) {
        const u8 *head;
        size_t len;

        random = random * 1103515245 + 12345;
        if (random >> 16 & 1) {
            len = 4 + pushed % 697;
            memset(frame, (int)(pushed & 0xff), sizeof(frame));
            memcpy(frame, &pushed, 4);
            pushed += frame_queue_push(&q, &(struct iovec){frame, len}, 1, &was_empty);
        } else if ((head = frame_queue_peek(&q, &len))) {
            assert_int_equal(len, 4 + popped % 697);
            assert_memory_equal(head, &popped, 4);
            assert_int_equal(head[len - 1], len == 4 ? head[3] : (int)(popped & 0xff));
            frame_queue_drop(&q);
            popped++;
        }
    }
    assert_true(pushed > 1000 && pushed - popped < 1000);
    frame_queue_free(&q);
}

static void queue_refuses_what_does_not_fit(void **unused)
{
    struct frame_queue q;
    u8 frame[4096] = {0};
    bool was_empty;

    assert_int_equal(frame_queue_init(&q, 4096), 0);
    assert_false(frame_queue_push(&q, &(struct iovec){frame, 4096}, 1, &was_empty));
    assert_true(was_empty);
    assert_true(frame_queue_push(&q, &(struct iovec){frame, 3000}, 1, &was_empty));
    assert_false(frame_queue_push(&q, &(struct iovec){frame, 3000}, 1, &was_empty));
    assert_false(was_empty);
    frame_queue_free(&q);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(configuration),
                                       TEST(card_without_net_is_down),
                                       TEST(sends),
                                       TEST(bad_frames_are_dropped),
                                       TEST(receives),
                                       TEST(receives_into_merged_buffers),
                                       TEST(without_merging_a_frame_has_one_buffer),
                                       TEST(too_few_buffers_lose_the_frame_only),
                                       TEST(waits_for_buffers),
                                       TEST(one_interrupt_for_a_burst),
                                       TEST(frames_before_the_driver_are_lost),
                                       TEST(full_queue_wakes_the_back_end_when_it_empties),
                                       TEST(small_buffers_break),
                                       TEST(buffers_without_bytes_end),
                                       cmocka_unit_test(queue_keeps_order_and_bytes),
                                       cmocka_unit_test(queue_refuses_what_does_not_fit)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
