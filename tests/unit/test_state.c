/* State tables: round trip, coverage, and hostile streams. */
#include "base/state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct sample_state {
    u64 deadline[3];
    u32 word;
    u16 half[2];
    u8 byte;
    bool flag;
    u8 pad[2];
    u32 tail;
};

static const struct state_field sample_fields[] = {
    STATE_ARRAY(struct sample_state, deadline), STATE(struct sample_state, word), STATE_ARRAY(struct sample_state, half),
    STATE(struct sample_state, byte), STATE(struct sample_state, flag), STATE_ARRAY(struct sample_state, pad),
    STATE(struct sample_state, tail), STATE_END};
static const struct state_table sample_table = STATE_TABLE(struct sample_state, sample_fields, 3);

static const struct sample_state sample = {{1, 2, 0xdeadbeefcafef00d}, 7, {8, 9}, 10, true, {0}, 11};

static void covers_all(void **unused)
{
    assert_int_equal(state_covered(&sample_table), sizeof(struct sample_state));
}

static void round_trip(void **unused)
{
    struct sample_state back = {0};
    u8 buf[512];
    size_t n = state_save(&sample_table, &sample, buf);

    assert_int_equal(n, state_stream_size(&sample_table));
    assert_int_equal(state_load(&sample_table, &back, buf, n), 0);
    assert_null(state_differs(&sample_table, &sample, &back));
    back.half[1]++;
    assert_string_equal(state_differs(&sample_table, &sample, &back)->name, "half");
}

static void truncated_streams_are_refused(void **unused)
{
    u8 buf[512];
    size_t n = state_save(&sample_table, &sample, buf);

    for (size_t cut = 0; cut < n; cut++) {
        struct sample_state back = {0}, zero = {0};

        assert_true(state_load(&sample_table, &back, buf, cut) < 0);
        assert_memory_equal(&back, &zero, sizeof(back));
    }
}

static void flipped_bytes_never_overrun(void **unused)
{
    u8 buf[512];
    size_t n = state_save(&sample_table, &sample, buf);

    for (size_t at = 0; at < n; at++)
        for (int bit = 0; bit < 8; bit++) {
            struct sample_state back;
            u8 *copy = malloc(n);

            memcpy(copy, buf, n);
            copy[at] ^= (u8)(1 << bit);
            state_load(&sample_table, &back, copy, n); /* ASan watches the bounds */
            free(copy);
        }
}

static void newer_version_is_refused(void **unused)
{
    struct sample_state back;
    u8 buf[512];
    size_t n = state_save(&sample_table, &sample, buf);

    buf[0] = 4;
    assert_true(state_load(&sample_table, &back, buf, n) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(covers_all), cmocka_unit_test(round_trip), cmocka_unit_test(truncated_streams_are_refused),
        cmocka_unit_test(flipped_bytes_never_overrun), cmocka_unit_test(newer_version_is_refused)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
