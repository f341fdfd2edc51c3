/* Virtqueues by themselves: chains that are right, and every way in which a ring can be wrong. */
#include "dev/virtqueue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { RAM = 1 << 20, SIZE = 8, DESC = 0x1000, AVAIL = 0x2000, USED = 0x3000, TABLE = 0x4000, DATA = 0x8000 };
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };

static struct guest_memory *mem;
static struct virtq_state state;
static struct virtqueue q;
static struct virtq_chain chain;
static int breaks;

static void on_broken(struct virtqueue *unused)
{
    breaks++;
}

static void enable(void)
{
    virtq_reset(&q);
    state.size[q.n] = SIZE;
    state.desc[q.n] = DESC;
    state.driver[q.n] = AVAIL;
    state.device[q.n] = USED;
    virtq_enable(&q);
}

static int setup(void **unused)
{
    struct err e;

    assert_int_equal(guest_memory_create(RAM, &mem, &e), 0);
    /* two regions that are neighbours for the guest but not in our memory, and one that is ROM */
    guest_memory_map(mem, 0, RAM / 2, RAM / 2, false);
    guest_memory_map(mem, RAM / 2, RAM / 4, 0, false);
    guest_memory_map(mem, RAM, RAM / 4, RAM / 4, true);
    breaks = 0;
    q = (struct virtqueue){.mem = mem, .s = &state, .n = 3, .size_max = SIZE, .indirect = true, .on_broken = on_broken};
    enable();
    return 0;
}

static int teardown(void **unused)
{
    guest_memory_free(mem);
    return 0;
}

static void put(u64 gpa, u64 val, int size)
{
    assert_int_equal(guest_memory_write(mem, gpa, &val, (u64)size), 0);
}

static u64 get(u64 gpa, int size)
{
    u64 val = 0;

    assert_int_equal(guest_memory_read(mem, gpa, &val, (u64)size), 0);
    return val;
}

static void desc(u64 table, int i, u64 gpa, u32 len, u16 flags, u16 next)
{
    put(table + 16 * (u64)i, gpa, 8);
    put(table + 16 * (u64)i + 8, len, 4);
    put(table + 16 * (u64)i + 12, flags, 2);
    put(table + 16 * (u64)i + 14, next, 2);
}

static void offer(u16 head)
{
    u16 idx = (u16)get(AVAIL + 2, 2);

    put(AVAIL + 4 + 2 * (idx % SIZE), head, 2);
    put(AVAIL + 2, idx + 1u, 2);
}

static void expect_broken(void)
{
    assert_false(virtq_pop(&q, &chain));
    assert_true(q.broken);
    assert_int_equal(breaks, 1);
    assert_false(virtq_pop(&q, &chain)); /* and stays so, without a second report */
    virtq_push(&q, &chain, 1);
    assert_int_equal(get(USED + 2, 2), 0);
    assert_int_equal(breaks, 1);
    assert_false(virtq_interrupt_wanted(&q));
    assert_false(virtq_notifications_on(&q));
}

/* ---- right ---- */

static void empty_ring_has_nothing(void **unused)
{
    assert_int_equal(virtq_pending(&q), 0);
    assert_false(virtq_pop(&q, &chain));
    assert_false(q.broken);
}

static void chain_is_walked(void **unused)
{
    u8 bytes[32];

    desc(DESC, 5, DATA, 4, NEXT, 1);
    desc(DESC, 1, DATA + 16, 6, NEXT, 7);
    desc(DESC, 7, DATA + 32, 8, NEXT | WRITE, 0);
    desc(DESC, 0, DATA + 48, 2, WRITE, 3);
    put(DATA, 0x04030201, 4);
    put(DATA + 16, 0x0a0908070605, 6);
    offer(5);
    assert_int_equal(virtq_pending(&q), 1);
    assert_true(virtq_pop(&q, &chain));
    assert_int_equal(chain.head, 5);
    assert_int_equal(chain.readable, 2);
    assert_int_equal(chain.writable, 2);
    assert_int_equal(chain.readable_bytes, 10);
    assert_int_equal(chain.writable_bytes, 10);
    assert_int_equal(virtq_chain_read(&chain, 3, bytes, sizeof(bytes)), 7);
    for (int i = 0; i < 7; i++)
        assert_int_equal(bytes[i], i + 4);
    assert_int_equal(virtq_chain_write(&q, &chain, 7, "abcd", 4), 3); /* over the border, cut at the end */
    assert_int_equal(get(DATA + 39, 1), 'a');
    assert_int_equal(get(DATA + 48, 2), 'b' | 'c' << 8);
    virtq_push(&q, &chain, 10);
    assert_int_equal(get(USED + 2, 2), 1);
    assert_int_equal(get(USED + 4, 4), 5);
    assert_int_equal(get(USED + 8, 4), 10);
}

static void indirect_table_behind_a_chain(void **unused)
{
    desc(DESC, 0, DATA, 4, NEXT, 2);
    desc(DESC, 2, TABLE, 3 * 16, INDIRECT | WRITE, 0); /* WRITE is ignored here */
    desc(TABLE, 0, DATA + 8, 4, NEXT, 2);
    desc(TABLE, 2, DATA + 64, 32, WRITE, 0);
    offer(0);
    assert_true(virtq_pop(&q, &chain));
    assert_int_equal(chain.readable_bytes, 8);
    assert_int_equal(chain.writable_bytes, 32);
}

static void full_chain_in_a_table(void **unused)
{
    for (int i = 0; i < SIZE; i++)
        desc(TABLE, i, DATA + 16 * (u64)i, 1, i + 1 < SIZE ? NEXT : 0, (u16)(i + 1));
    desc(DESC, 0, TABLE, SIZE * 16, INDIRECT, 0);
    offer(0);
    assert_true(virtq_pop(&q, &chain));
    assert_int_equal(chain.readable, SIZE);
}

static void buffer_straddles_regions(void **unused)
{
    u8 bytes[64], back[64];

    for (int i = 0; i < 64; i++)
        bytes[i] = (u8)i;
    desc(DESC, 0, RAM / 2 - 20, 64, WRITE, 0);
    offer(0);
    assert_true(virtq_pop(&q, &chain));
    assert_int_equal(chain.writable, 2);
    assert_int_equal(virtq_chain_write(&q, &chain, 0, bytes, 64), 64);
    assert_int_equal(guest_memory_read(mem, RAM / 2 - 20, back, 64), 0);
    assert_memory_equal(bytes, back, 64);
}

static void rom_can_be_read(void **unused)
{
    desc(DESC, 0, RAM, 16, 0, 0);
    offer(0);
    assert_true(virtq_pop(&q, &chain));
}

static void indexes_wrap_around(void **unused)
{
    desc(DESC, 0, DATA, 4, 0, 0);
    state.avail_next[q.n] = state.used_next[q.n] = state.signalled[q.n] = 65530;
    put(AVAIL + 2, 65530, 2);
    put(USED + 2, 65530, 2);
    for (int i = 0; i < 20; i++) {
        offer(0);
        assert_true(virtq_pop(&q, &chain));
        virtq_push(&q, &chain, 0);
        assert_true(virtq_interrupt_wanted(&q));
    }
    assert_int_equal(get(USED + 2, 2), (u16)(65530 + 20));
    assert_false(q.broken);
}

static void unpopped_chains_come_again(void **unused)
{
    desc(DESC, 0, DATA, 4, 0, 0);
    desc(DESC, 1, DATA, 5, 0, 0);
    offer(0);
    offer(1);
    assert_true(virtq_pop(&q, &chain) && virtq_pop(&q, &chain));
    virtq_unpop(&q, 2);
    assert_true(virtq_pop(&q, &chain));
    assert_int_equal(chain.readable_bytes, 4);
}

static void group_shows_at_once(void **unused)
{
    desc(DESC, 0, DATA, 4, WRITE, 0);
    desc(DESC, 1, DATA, 4, WRITE, 0);
    offer(0);
    offer(1);
    for (int i = 0; i < 2; i++) {
        assert_true(virtq_pop(&q, &chain));
        virtq_fill(&q, &chain, 4, i);
        assert_int_equal(get(USED + 2, 2), 0);
    }
    virtq_publish(&q, 2);
    assert_int_equal(get(USED + 2, 2), 2);
    assert_int_equal(get(USED + 12, 4), 1);
}

static void suppression_by_flags(void **unused)
{
    desc(DESC, 0, DATA, 4, 0, 0);
    offer(0);
    virtq_notifications_off(&q);
    assert_int_equal(get(USED, 2), 1);
    assert_true(virtq_notifications_on(&q)); /* one is there already */
    assert_int_equal(get(USED, 2), 0);
    assert_true(virtq_pop(&q, &chain));
    assert_false(virtq_notifications_on(&q));
    put(AVAIL, 1, 2);
    virtq_push(&q, &chain, 0);
    assert_false(virtq_interrupt_wanted(&q));
    put(AVAIL, 0, 2);
    assert_false(virtq_interrupt_wanted(&q)); /* only for what came since */
}

static void suppression_by_event_index(void **unused)
{
    u64 used_event = AVAIL + 4 + 2 * SIZE, avail_event = USED + 4 + 8 * SIZE;

    q.event_idx = true;
    desc(DESC, 0, DATA, 4, 0, 0);
    put(used_event, 2, 2); /* tell me when element 2 is used */
    for (int i = 0; i < 5; i++) {
        offer(0);
        assert_true(virtq_pop(&q, &chain));
        virtq_push(&q, &chain, 0);
        assert_int_equal(virtq_interrupt_wanted(&q), i == 2);
    }
    assert_false(virtq_notifications_on(&q));
    assert_int_equal(get(avail_event, 2), 5);
    assert_int_equal(get(USED, 2), 0); /* the flag is not used with EVENT_IDX */
}

static void suppression_by_event_index_over_a_batch(void **unused)
{
    q.event_idx = true;
    desc(DESC, 0, DATA, 4, 0, 0);
    put(AVAIL + 4 + 2 * SIZE, 1, 2);
    for (int i = 0; i < 4; i++) {
        offer(0);
        assert_true(virtq_pop(&q, &chain));
        virtq_push(&q, &chain, 0);
    }
    assert_true(virtq_interrupt_wanted(&q)); /* element 1 is among 0 … 3 */
}

/* ---- wrong ---- */

static void disabled_queue_gives_nothing(void **unused)
{
    desc(DESC, 0, DATA, 4, 0, 0);
    offer(0);
    state.enabled[q.n] = false;
    assert_false(virtq_pop(&q, &chain));
    assert_false(q.broken);
}

static void loop_breaks(void **unused)
{
    desc(DESC, 0, DATA, 4, NEXT, 1);
    desc(DESC, 1, DATA, 4, NEXT, 0);
    offer(0);
    expect_broken();
}

static void loop_to_itself_in_a_table_breaks(void **unused)
{
    desc(TABLE, 0, DATA, 4, NEXT, 0);
    desc(DESC, 0, TABLE, 16, INDIRECT, 0);
    offer(0);
    expect_broken();
}

static void loop_without_bytes_breaks(void **unused)
{
    desc(DESC, 0, DATA, 0, NEXT, 0);
    offer(0);
    expect_broken();
}

static void head_out_of_range_breaks(void **unused)
{
    offer(SIZE);
    expect_broken();
}

static void next_out_of_range_breaks(void **unused)
{
    desc(DESC, 0, DATA, 4, NEXT, SIZE);
    offer(0);
    expect_broken();
}

static void next_out_of_table_breaks(void **unused)
{
    desc(TABLE, 0, DATA, 4, NEXT, 2);
    desc(DESC, 0, TABLE, 2 * 16, INDIRECT, 0);
    offer(0);
    expect_broken();
}

static void index_jump_breaks(void **unused)
{
    put(AVAIL + 2, SIZE + 1, 2);
    expect_broken();
}

static void index_going_back_breaks(void **unused)
{
    put(AVAIL + 2, 0xffff, 2);
    expect_broken();
}

static void bad_addresses_break(void **unused)
{
    static const struct {
        u64 gpa;
        u32 len;
        u16 flags;
    } bad[] = {
        {RAM / 2 + RAM / 4, 4, 0},  {RAM / 2 + RAM / 4 - 2, 4, 0}, {UINT64_MAX, 4, 0},
        {UINT64_MAX - 2, 8, WRITE}, {DATA, UINT32_MAX, 0},         {RAM, 4, WRITE} /* ROM */,
        {RAM + RAM / 4 - 4, 16, 0}, {1ull << 63, 1, WRITE},
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        breaks = 0;
        put(AVAIL + 2, 0, 2);
        enable();
        desc(DESC, 0, bad[i].gpa, bad[i].len, bad[i].flags, 0);
        offer(0);
        expect_broken();
    }
}

static void readable_behind_writable_breaks(void **unused)
{
    desc(DESC, 0, DATA, 4, WRITE | NEXT, 1);
    desc(DESC, 1, DATA, 4, 0, 0);
    offer(0);
    expect_broken();
}

static void bad_tables_break(void **unused)
{
    static const struct {
        u64 gpa;
        u32 len;
        u16 flags;
    } bad[] = {{TABLE, 0, INDIRECT},
               {TABLE, 15, INDIRECT},
               {TABLE, 17, INDIRECT},
               {TABLE, 16, INDIRECT | NEXT},
               {UINT64_MAX & ~15ull, 32, INDIRECT},
               {RAM * 4, 16, INDIRECT}};

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        breaks = 0;
        put(AVAIL + 2, 0, 2);
        enable();
        desc(TABLE, 0, DATA, 4, 0, 0);
        desc(DESC, 0, bad[i].gpa, bad[i].len, bad[i].flags, 1);
        desc(DESC, 1, DATA, 4, 0, 0);
        offer(0);
        expect_broken();
    }
}

static void table_in_a_table_breaks(void **unused)
{
    desc(TABLE, 0, TABLE, 16, INDIRECT, 0);
    desc(DESC, 0, TABLE, 16, INDIRECT, 0);
    offer(0);
    expect_broken();
}

static void table_without_the_feature_breaks(void **unused)
{
    q.indirect = false;
    desc(TABLE, 0, DATA, 4, 0, 0);
    desc(DESC, 0, TABLE, 16, INDIRECT, 0);
    offer(0);
    expect_broken();
}

static void chain_longer_than_4_gib_breaks(void **unused)
{
    desc(DESC, 0, DATA, 4, NEXT, 1);
    desc(DESC, 1, 0, UINT32_MAX, 0, 0);
    offer(0);
    expect_broken();
}

static void rings_outside_ram_break(void **unused)
{
    desc(DESC, 0, DATA, 4, 0, 0);
    offer(0);
    state.driver[q.n] = RAM * 4;
    expect_broken();
    breaks = 0;
    enable();
    state.desc[q.n] = UINT64_MAX & ~15ull;
    expect_broken();
    breaks = 0;
    enable();
    state.device[q.n] = RAM; /* ROM */
    assert_true(virtq_pop(&q, &chain));
    virtq_push(&q, &chain, 0);
    assert_true(q.broken);
    assert_int_equal(breaks, 1);
}

static void bad_set_up_breaks(void **unused)
{
    static const struct {
        u16 size;
        u64 desc, driver, device;
    } bad[] = {{0, DESC, AVAIL, USED},        {3, DESC, AVAIL, USED},        {2 * SIZE, DESC, AVAIL, USED},
               {SIZE, DESC + 8, AVAIL, USED}, {SIZE, DESC, AVAIL + 1, USED}, {SIZE, DESC, AVAIL, USED + 2}};

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        virtq_reset(&q);
        state.size[q.n] = bad[i].size;
        state.desc[q.n] = bad[i].desc;
        state.driver[q.n] = bad[i].driver;
        state.device[q.n] = bad[i].device;
        virtq_enable(&q);
        assert_true(q.broken);
        assert_false(state.enabled[q.n]);
    }
}

static void device_writes_reach_decoded_code(void **unused)
{
    u8 *hva = guest_memory_ptr(mem, DATA, 64, true);
    u32 version, later;

    code_lines_mark(mem, hva, 64, &version);
    desc(DESC, 0, DATA, 64, WRITE, 0);
    offer(0);
    assert_true(virtq_pop(&q, &chain));
    virtq_chain_written(&q, &chain, 10, 3);
    code_lines_mark(mem, hva, 64, &later);
    assert_int_not_equal(version, later);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(empty_ring_has_nothing),
                                       TEST(chain_is_walked),
                                       TEST(indirect_table_behind_a_chain),
                                       TEST(full_chain_in_a_table),
                                       TEST(buffer_straddles_regions),
                                       TEST(rom_can_be_read),
                                       TEST(indexes_wrap_around),
                                       TEST(unpopped_chains_come_again),
                                       TEST(group_shows_at_once),
                                       TEST(suppression_by_flags),
                                       TEST(suppression_by_event_index),
                                       TEST(suppression_by_event_index_over_a_batch),
                                       TEST(disabled_queue_gives_nothing),
                                       TEST(loop_breaks),
                                       TEST(loop_to_itself_in_a_table_breaks),
                                       TEST(loop_without_bytes_breaks),
                                       TEST(head_out_of_range_breaks),
                                       TEST(next_out_of_range_breaks),
                                       TEST(next_out_of_table_breaks),
                                       TEST(index_jump_breaks),
                                       TEST(index_going_back_breaks),
                                       TEST(bad_addresses_break),
                                       TEST(readable_behind_writable_breaks),
                                       TEST(bad_tables_break),
                                       TEST(table_in_a_table_breaks),
                                       TEST(table_without_the_feature_breaks),
                                       TEST(chain_longer_than_4_gib_breaks),
                                       TEST(rings_outside_ram_break),
                                       TEST(bad_set_up_breaks),
                                       TEST(device_writes_reach_decoded_code)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
