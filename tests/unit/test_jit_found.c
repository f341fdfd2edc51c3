/* Blocks that were found lately: found by address and key while their page has their version and the cache its epoch; two share a set. */
#include "cpu/jit_emit.h"
#include "cpu/jit_found.h"
#include "jit/code_cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define KEY 0x1238u

struct table {
    struct jit *j;
    struct code_cache code;
    struct jit_block *b;
    u32 version;
};

static u8 page[64 * PAGE_SIZE];

static int table_create(void **state)
{
    struct table *t = calloc(1, sizeof(*t));

    t->j = calloc(1, sizeof(*t->j));
    t->j->found = aligned_alloc(64, JIT_FOUND_SIZE);
    memset(t->j->found, 0, JIT_FOUND_SIZE);
    t->j->code = &t->code;
    t->code.exec = page;
    t->j->arena = aligned_alloc(64, 4096);
    t->b = (struct jit_block *)(t->j->arena + 64);
    *t->b = (struct jit_block){.hva = page + 100, .key = KEY, .version_now = &t->version, .entry_saved = page + 7};
    *state = t;
    return 0;
}

static int table_destroy(void **state)
{
    struct table *t = *state;

    free(t->j->arena);
    free(t->j->found);
    free(t->j);
    free(t);
    return 0;
}

static void found_by_address_and_key(void **state)
{
    struct table *t = *state;

    assert_null(jit_found_ask(t->j, page + 100, KEY));
    jit_found_add(t->j, t->b);
    assert_int_equal(jit_found_ask(t->j, page + 100, KEY)->block, 64);
    assert_int_equal(jit_found_ask(t->j, page + 100, KEY)->code, 7);
    assert_null(jit_found_ask(t->j, page + 101, KEY));
    assert_null(jit_found_ask(t->j, page + 100, KEY | JIT_KEY_RING0));
    assert_null(jit_found_ask(t->j, page + 100, KEY | 1ull << JIT_KEY_BEFORE_SHIFT));
}

static void not_when_overwritten(void **state)
{
    struct table *t = *state;

    jit_found_add(t->j, t->b);
    t->version++;
    assert_null(jit_found_ask(t->j, page + 100, KEY));
    t->b->version = t->version;
    jit_found_add(t->j, t->b);
    assert_non_null(jit_found_ask(t->j, page + 100, KEY));
}

static void not_in_another_epoch(void **state)
{
    struct table *t = *state;

    jit_found_add(t->j, t->b);
    for (u32 n = 0; n < JIT_FOUND_EPOCHS; n++) { /* until the numbers come again */
        t->j->epoch++;
        jit_found_flush(t->j);
        assert_null(jit_found_ask(t->j, page + 100, KEY));
    }
}

static void never_of_what_depends_on_more(void **state)
{
    struct table *t = *state;

    t->b->key |= JIT_KEY_SEGMENTED;
    jit_found_add(t->j, t->b);
    assert_null(jit_found_ask(t->j, page + 100, t->b->key));
    t->b->key = KEY;
    t->b->crossing = (struct jit_crossing *)page;
    jit_found_add(t->j, t->b);
    assert_null(jit_found_ask(t->j, page + 100, KEY));
}

static void two_share_a_set(void **state)
{
    struct table *t = *state;
    const struct jit_found_set *set = jit_found_set(t->j, page + 100, KEY);
    u64 next = 100;

    jit_found_add(t->j, t->b);
    for (int others = 0; others < 2; others++) { /* the second drives the first block out */
        do
            next++;
        while (jit_found_set(t->j, page + next, KEY) != set);
        assert_true((jit_found_ask(t->j, page + 100, KEY) != NULL));
        t->b->hva = page + next;
        jit_found_add(t->j, t->b);
        jit_found_add(t->j, t->b); /* again: drives nobody out */
        assert_non_null(jit_found_ask(t->j, page + next, KEY));
    }
    assert_null(jit_found_ask(t->j, page + 100, KEY));
}

#define WITH_TABLE(test) cmocka_unit_test_setup_teardown(test, table_create, table_destroy)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_TABLE(found_by_address_and_key),      WITH_TABLE(not_when_overwritten), WITH_TABLE(not_in_another_epoch),
        WITH_TABLE(never_of_what_depends_on_more), WITH_TABLE(two_share_a_set),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
