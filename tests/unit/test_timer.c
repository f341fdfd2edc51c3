/* The machine's clock and timer queue. */
#include "base/timer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include <time.h>

enum { TIMERS = 200 };

struct fired {
    struct timer timer;
    int count;
    u64 at; /* clock when it fired last */
};

static struct clock test_clock;
static struct timer_queue queue;
static struct fired fired[TIMERS];
static u64 last_told;
static int told_count;

static void told(void *ctx, u64 deadline)
{
    last_told = deadline;
    told_count++;
}

static void fire(void *ctx)
{
    struct fired *f = ctx;

    assert_int_equal(f->timer.deadline, TIMER_NEVER);
    f->count++;
    f->at = clock_now(&test_clock);
}

static int setup(void **unused)
{
    clock_init(&test_clock);
    timer_queue_init(&queue, &test_clock, told, NULL);
    last_told = TIMER_NEVER;
    told_count = 0;
    for (int i = 0; i < TIMERS; i++) {
        fired[i].count = 0;
        timer_init(&fired[i].timer, &queue, fire, &fired[i]);
    }
    return 0;
}

static int teardown(void **unused)
{
    timer_queue_free(&queue);
    return 0;
}

static u64 host_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (u64)ts.tv_sec * 1000000000u + (u64)ts.tv_nsec;
}

static void a_slow_clock_takes_longer(void **unused)
{
    u64 start, before, after, host[2];

    test_clock.slower = 4;
    clock_set(&test_clock, 1000000);
    before = clock_host(&test_clock, 0);
    host[0] = host_ns();
    clock_start(&test_clock);
    start = clock_now(&test_clock);
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    clock_stop(&test_clock);
    after = clock_now(&test_clock);
    host[1] = host_ns();
    assert_true(start >= 1000000 && after >= start + 20000000 / 4 - 1);
    assert_true(after - 1000000 <= (host[1] - host[0]) / 4);
    assert_true(clock_host(&test_clock, 1000) - clock_host(&test_clock, 0) == 4000);
    assert_true(clock_host(&test_clock, 0) >= before);
    assert_true(clock_host(&test_clock, TIMER_NEVER) == TIMER_NEVER);
    assert_true(clock_host(&test_clock, INT64_MAX / 4) == TIMER_NEVER);
    clock_start(&test_clock);
    assert_true(clock_now(&test_clock) >= after);
}

static void clock_runs_only_while_started(void **unused)
{
    u64 t;

    assert_int_equal(clock_now(&test_clock), 0);
    clock_set(&test_clock, 1000);
    assert_int_equal(clock_now(&test_clock), 1000);
    clock_start(&test_clock);
    clock_start(&test_clock);
    t = clock_now(&test_clock);
    assert_true(t >= 1000 && t < 1000000000);
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    assert_true(clock_now(&test_clock) >= t + 2000000);
    clock_stop(&test_clock);
    t = clock_now(&test_clock);
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    assert_int_equal(clock_now(&test_clock), t);
    clock_start(&test_clock);
    assert_true(clock_now(&test_clock) - t < 1000000000);
    clock_stop(&test_clock);
}

static void fires_when_due_and_once(void **unused)
{
    timer_set(&fired[0].timer, 100);
    clock_set(&test_clock, 99);
    timer_queue_run(&queue);
    assert_int_equal(fired[0].count, 0);
    clock_set(&test_clock, 100);
    timer_queue_run(&queue);
    timer_queue_run(&queue);
    assert_int_equal(fired[0].count, 1);
    assert_int_equal(timer_queue_next(&queue), TIMER_NEVER);
}

static void cancel_and_rearm(void **unused)
{
    timer_cancel(&fired[0].timer);
    timer_set(&fired[0].timer, 10);
    timer_set(&fired[1].timer, 20);
    timer_set(&fired[0].timer, 30);
    timer_cancel(&fired[1].timer);
    assert_int_equal(timer_queue_next(&queue), 30);
    clock_set(&test_clock, 25);
    timer_queue_run(&queue);
    assert_int_equal(fired[0].count + fired[1].count, 0);
    timer_set(&fired[0].timer, TIMER_NEVER);
    clock_set(&test_clock, 1000);
    timer_queue_run(&queue);
    assert_int_equal(fired[0].count, 0);
}

static void tells_earlier_deadlines_only(void **unused)
{
    timer_set(&fired[0].timer, 500);
    assert_int_equal(last_told, 500);
    timer_set(&fired[1].timer, 600);
    assert_int_equal(told_count, 1);
    timer_set(&fired[0].timer, 700); /* moved back: not told until the next run */
    assert_int_equal(told_count, 1);
    timer_set(&fired[2].timer, 550);
    assert_int_equal(told_count, 1);
    clock_set(&test_clock, 500);
    timer_queue_run(&queue);
    assert_int_equal(last_told, 550);
    timer_set(&fired[3].timer, 20);
    assert_int_equal(last_told, 20);
    timer_queue_tell(&queue);
    assert_int_equal(last_told, 20);
}

/* Random arming, moving and cancelling against a plain array of deadlines. */
static void agrees_with_a_plain_list(void **unused)
{
    u64 deadline[TIMERS];

    srandom(1);
    for (int i = 0; i < TIMERS; i++)
        deadline[i] = TIMER_NEVER;
    for (u64 now = 0; now < 20000; now += (u64)random() % 20) {
        int i = (int)(random() % TIMERS);
        u64 first = TIMER_NEVER;

        clock_set(&test_clock, now);
        timer_queue_run(&queue);
        for (int k = 0; k < TIMERS; k++) {
            assert_int_equal(fired[k].count, deadline[k] <= now);
            fired[k].count = 0;
            if (deadline[k] <= now)
                deadline[k] = TIMER_NEVER;
        }
        deadline[i] = random() % 4 ? now + (u64)random() % 500 : TIMER_NEVER;
        timer_set(&fired[i].timer, deadline[i]);
        for (int k = 0; k < TIMERS; k++)
            first = MIN(first, deadline[k]);
        assert_int_equal(timer_queue_next(&queue), first);
    }
}

static void fire_again_in_the_past(void *ctx)
{
    struct fired *f = ctx;

    f->count++;
    timer_set(&f->timer, 1);
}

static void rearming_in_the_past_does_not_hang(void **unused)
{
    timer_init(&fired[0].timer, &queue, fire_again_in_the_past, &fired[0]);
    timer_set(&fired[0].timer, 5);
    clock_set(&test_clock, 10);
    timer_queue_run(&queue);
    assert_int_equal(fired[0].count, 1);
    assert_int_equal(last_told, 1);
    timer_queue_run(&queue);
    assert_int_equal(fired[0].count, 2);
}

static void clear_disarms_all(void **unused)
{
    for (int i = 0; i < TIMERS; i++)
        timer_set(&fired[i].timer, (u64)i);
    timer_queue_clear(&queue);
    timer_cancel(&fired[7].timer);
    clock_set(&test_clock, 1000);
    timer_queue_run(&queue);
    for (int i = 0; i < TIMERS; i++)
        assert_int_equal(fired[i].count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(clock_runs_only_while_started, setup, teardown),
        cmocka_unit_test_setup_teardown(a_slow_clock_takes_longer, setup, teardown),
        cmocka_unit_test_setup_teardown(fires_when_due_and_once, setup, teardown),
        cmocka_unit_test_setup_teardown(cancel_and_rearm, setup, teardown),
        cmocka_unit_test_setup_teardown(tells_earlier_deadlines_only, setup, teardown),
        cmocka_unit_test_setup_teardown(agrees_with_a_plain_list, setup, teardown),
        cmocka_unit_test_setup_teardown(rearming_in_the_past_does_not_hang, setup, teardown),
        cmocka_unit_test_setup_teardown(clear_disarms_all, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
