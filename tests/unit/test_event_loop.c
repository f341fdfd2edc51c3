/* The device loop: watches, tasks from other threads, stopping. */
#include "base/event_loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

enum { POSTERS = 3, POSTS = 2000 };

static pthread_mutex_t lock;
static bool locked_by_loop; /* guarded by `lock`; shows that callbacks hold it */
static struct event_loop *loop;
static struct watch *watch;
static int pair[2], seen_events, calls;

static int setup(void **unused)
{
    struct err e;

    pthread_mutex_init(&lock, NULL);
    watch = NULL;
    seen_events = calls = 0;
    locked_by_loop = false;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    return event_loop_create(&lock, &loop, &e);
}

static int teardown(void **unused)
{
    event_loop_free(loop);
    close(pair[0]);
    close(pair[1]);
    pthread_mutex_destroy(&lock);
    return 0;
}

static void seen_stop(void *ctx, int events)
{
    assert_int_equal(pthread_mutex_trylock(&lock), EBUSY);
    seen_events |= events;
    calls++;
    event_loop_stop(loop);
}

static void watch_pair(int events, void (*fn)(void *ctx, int events))
{
    struct err e;

    assert_int_equal(event_loop_watch(loop, pair[0], events, fn, NULL, &watch, &e), 0);
}

static void stop_before_run_returns_at_once(void **unused)
{
    event_loop_stop(loop);
    event_loop_run(loop);
}

static void readable_is_seen(void **unused)
{
    watch_pair(WATCH_READ, seen_stop);
    assert_int_equal(write(pair[1], "x", 1), 1);
    event_loop_run(loop);
    assert_int_equal(seen_events, WATCH_READ);
}

static void stop_task(void *ctx)
{
    event_loop_stop(loop);
}

static void events_can_change(void **unused)
{
    struct loop_task task = {.fn = stop_task};

    watch_pair(0, seen_stop);
    assert_int_equal(write(pair[1], "x", 1), 1);
    event_loop_post(loop, &task);
    event_loop_run(loop);
    assert_int_equal(calls, 0);
    watch_set_events(watch, WATCH_WRITE);
    event_loop_run(loop);
    assert_int_equal(seen_events, WATCH_WRITE);
    watch_set_events(watch, WATCH_READ);
    event_loop_run(loop);
    assert_int_equal(seen_events, WATCH_READ | WATCH_WRITE);
}

static void hang_up_is_seen(void **unused)
{
    watch_pair(WATCH_READ, seen_stop);
    shutdown(pair[1], SHUT_RDWR);
    event_loop_run(loop);
    assert_true(seen_events & WATCH_READ);
}

static void remove_and_stop(void *ctx, int events)
{
    watch_remove(watch);
    calls++;
    event_loop_stop(loop);
}

static void a_watch_can_remove_itself(void **unused)
{
    struct loop_task task = {.fn = stop_task};

    watch_pair(WATCH_READ, remove_and_stop);
    assert_int_equal(write(pair[1], "x", 1), 1);
    event_loop_run(loop);
    event_loop_post(loop, &task);
    event_loop_run(loop);
    assert_int_equal(calls, 1);
}

/* The loop sleeps on nothing; another thread asks for events and for a stop. */
static void *set_events_from_outside(void *unused)
{
    usleep(20000);
    pthread_mutex_lock(&lock);
    watch_set_events(watch, WATCH_WRITE);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void events_change_from_other_threads(void **unused)
{
    pthread_t thread;

    watch_pair(0, seen_stop);
    pthread_create(&thread, NULL, set_events_from_outside, NULL);
    event_loop_run(loop);
    pthread_join(thread, NULL);
    assert_int_equal(seen_events, WATCH_WRITE);
}

static void unwatchable_descriptor_is_refused(void **unused)
{
    struct err e = {0};

    assert_true(event_loop_watch(loop, 9999, WATCH_READ, seen_stop, NULL, &watch, &e) < 0);
    assert_true(e.code < 0 && e.text[0]);
}

struct counted {
    struct loop_task task;
    int runs, wanted; /* runs: guarded by `lock`; wanted: atomic */
};

static struct counted counted[POSTERS];
static int posters_done;

static void count_run(void *ctx)
{
    struct counted *c = ctx;

    assert_false(locked_by_loop);
    locked_by_loop = true;
    c->runs++;
    locked_by_loop = false;
}

static void *post_many(void *ctx)
{
    struct counted *c = ctx;
    static struct loop_task last = {.fn = stop_task};

    for (int i = 0; i < POSTS; i++)
        event_loop_post(loop, &c->task);
    if (__atomic_add_fetch(&posters_done, 1, __ATOMIC_SEQ_CST) == POSTERS)
        event_loop_post(loop, &last);
    return NULL;
}

static void tasks_from_many_threads(void **unused)
{
    pthread_t thread[POSTERS];

    for (int i = 0; i < POSTERS; i++) {
        counted[i].task = (struct loop_task){.fn = count_run, .ctx = &counted[i]};
        pthread_create(&thread[i], NULL, post_many, &counted[i]);
    }
    event_loop_run(loop);
    for (int i = 0; i < POSTERS; i++) {
        pthread_join(thread[i], NULL);
        assert_true(counted[i].runs >= 1 && counted[i].runs <= POSTS);
        assert_false(counted[i].task.pending);
    }
}

static void repost(void *ctx)
{
    struct counted *c = ctx;

    if (++c->runs < 5)
        event_loop_post(loop, &c->task);
    else
        event_loop_stop(loop);
}

static void a_task_can_post_itself(void **unused)
{
    struct counted c = {.task = {.fn = repost, .ctx = &c}};

    event_loop_post(loop, &c.task);
    event_loop_post(loop, &c.task); /* pending already: still one run */
    event_loop_run(loop);
    assert_int_equal(c.runs, 5);
}

static struct counted canceller, cancelled;

static void cancel_other(void *ctx)
{
    event_loop_cancel(loop, &cancelled.task);
    event_loop_stop(loop);
}

static void a_task_can_be_cancelled(void **unused)
{
    canceller = (struct counted){.task = {.fn = cancel_other}};
    cancelled = (struct counted){.task = {.fn = count_run, .ctx = &cancelled}};
    event_loop_cancel(loop, &cancelled.task);
    event_loop_post(loop, &canceller.task);
    event_loop_post(loop, &cancelled.task);
    event_loop_run(loop);
    assert_int_equal(cancelled.runs, 0);
    assert_false(cancelled.task.pending);
    canceller.task.fn = stop_task;
    event_loop_post(loop, &cancelled.task);
    event_loop_post(loop, &canceller.task);
    event_loop_run(loop);
    assert_int_equal(cancelled.runs, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(stop_before_run_returns_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(readable_is_seen, setup, teardown),
        cmocka_unit_test_setup_teardown(events_can_change, setup, teardown),
        cmocka_unit_test_setup_teardown(hang_up_is_seen, setup, teardown),
        cmocka_unit_test_setup_teardown(a_watch_can_remove_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(events_change_from_other_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(unwatchable_descriptor_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(tasks_from_many_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(a_task_can_post_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(a_task_can_be_cancelled, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
