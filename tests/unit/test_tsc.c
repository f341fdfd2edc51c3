/* The clock of the TSC: follows the machine's closely, never goes back, whoever reads, and stands still with it. */
#include "cpu_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <pthread.h>
#include <time.h>


#define RUN_NS 150000000u
#define BEHIND_MAX 20000 /* ns; a few thousand at most are the line's, the rest is for a host that puts us off */

static struct cpu_fixture f;
static struct clock *machine_clock;
static u64 latest; /* of what all threads have read */

static int setup(void **unused)
{
    cpu_fixture_create(&f, 2, "x86-64-v2");
    machine_clock = &f.clock;
    clock_start(machine_clock);
    return 0;
}

static int teardown(void **unused)
{
    clock_stop(machine_clock);
    cpu_fixture_free(&f);
    return 0;
}

/* Reads until the time is up; 1 if ever less than somebody had read before. */
static void *read_on(void *arg)
{
    struct vcpu *c = arg;
    u64 end = clock_now(machine_clock) + RUN_NS, seen, now;

    do {
        seen = __atomic_load_n(&latest, __ATOMIC_SEQ_CST);
        now = tsc_clock_read(c);
        if (now < seen)
            return c;
        while (seen < now && !__atomic_compare_exchange_n(&latest, &seen, now, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            ;
    } while (now < end);
    return NULL;
}

static void never_goes_back(void **unused)
{
    pthread_t thread;
    void *other, *own;

    latest = 0;
    tsc_clock_check(&f.c->group->tsc_clock, machine_clock);
    assert_int_equal(pthread_create(&thread, NULL, read_on, vcpu_get(f.c->group, 1)), 0);
    own = read_on(f.c);
    pthread_join(thread, &other);
    assert_null(own);
    assert_null(other);
}

static void follows_the_clock(void **unused)
{
    u64 end = clock_now(machine_clock) + RUN_NS;
    int close = 0, far = 0;

    tsc_clock_check(&f.c->group->tsc_clock, machine_clock);
    while (clock_now(machine_clock) < end) {
        u64 before = clock_now(machine_clock), now = tsc_clock_read(f.c), after = clock_now(machine_clock);

        assert_true(now <= after);
        now + BEHIND_MAX >= before ? close++ : far++;
    }
    assert_true(close > 100 * far);
}

static void stands_still_with_it(void **unused)
{
    struct timespec wait = {.tv_nsec = 2000000};
    u64 before;

    clock_stop(machine_clock);
    tsc_clock_check(&f.c->group->tsc_clock, machine_clock);
    before = tsc_clock_read(f.c);
    nanosleep(&wait, NULL);
    assert_true(tsc_clock_read(f.c) == before);
    clock_set(machine_clock, 5000);
    assert_true(tsc_clock_read(f.c) == 5000);
    clock_start(machine_clock);
    tsc_clock_check(&f.c->group->tsc_clock, machine_clock);
    assert_in_range(tsc_clock_read(f.c), 5000, 5000 + 1000000000u);
}

/* A line that was good before a snapshot was loaded must not tell the time after it. */
static void set_back(void **unused)
{
    u64 end = clock_now(machine_clock) + RUN_NS / 2;

    tsc_clock_check(&f.c->group->tsc_clock, machine_clock);
    while (tsc_clock_read(f.c) < end)
        ;
    clock_stop(machine_clock);
    clock_set(machine_clock, 1000);
    clock_start(machine_clock);
    tsc_clock_check(&f.c->group->tsc_clock, machine_clock);
    assert_true(tsc_clock_read(f.c) <= clock_now(machine_clock));
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(never_goes_back),
        T(follows_the_clock),
        T(stands_still_with_it),
        T(set_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
