/* The cache of decoded instructions: instructions from random bytes, each again and again with another end, so that what is
 * kept gets other displacements and immediates, beside the same decoded anew. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cpu/decode.h"
#include "cpu/decode_cache.h"
#include "cpu/vector.h"
#include "cpu_fixture.h"

static u64 seed, found;

static u8 random_byte(void)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (u8)(seed >> 40);
}

/* As decoded at once, whatever the bytes behind the head were when it was kept. Asked with one byte less nothing is kept or found. */
static void compare(struct vcpu *c, const u8 *bytes, int code_size)
{
    struct insn first, again, plain;
    int len, plain_len;

    vector_make_room(c);
    len = decode_insn(c, bytes, 15, code_size, &first);
    plain_len = decode_insn(c, bytes, 14, code_size, &plain);

    if (!plain_len) /* one of 15 bytes */
        return;
    assert_int_equal(len, plain_len);
    if (plain.aux) /* a stub, which is made anew */
        first.aux = plain.aux;
    if (memcmp(&first, &plain, sizeof(plain)) != 0)
        print_message("%d-bit code: %02x %02x %02x %02x %02x %02x %02x %02x %02x %02x\n", code_size * 8, bytes[0], bytes[1], bytes[2], bytes[3],
                      bytes[4], bytes[5], bytes[6], bytes[7], bytes[8], bytes[9]);
    assert_memory_equal(&first, &plain, sizeof(plain));
    found += decode_cache_find(c->decoded, bytes, code_size, &again);
}

/* What many instructions begin with; the rest of the bytes are anything. */
static int begin(u8 *bytes)
{
    static const u8 prefixes[] = {0x66, 0xf2, 0xf3, 0x2e, 0x64, 0x65, 0x67, 0xf0, 0x48, 0x41, 0x4c, 0x40};
    int n = 0;

    while (random_byte() < 80 && n < 5)
        bytes[n++] = prefixes[random_byte() % ARRAY_SIZE(prefixes)];
    if (random_byte() < 80)
        bytes[n++] = 0x0f;
    return n;
}

/* Counts and the like that something may be special about. */
static u8 random_end(void)
{
    static const u8 some[] = {0, 1, 2, 7, 8, 0x1f, 0x20, 0x3f, 0x7f, 0x80, 0xff};

    return random_byte() & 1 ? some[random_byte() % ARRAY_SIZE(some)] : random_byte();
}

static void test_other_ends(void **state)
{
    static const int sizes[] = {8, 8, 4, 2};
    struct cpu_fixture *f = *state;
    u8 bytes[15];

    seed = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 0) : (u64)time(NULL);
    print_message("seed %llu\n", (unsigned long long)seed);
    for (int n = 0; n < 200000; n++) {
        int code_size = sizes[n % ARRAY_SIZE(sizes)], from = begin(bytes);

        for (int again = 0; again < 6; again++) {
            for (int b = from; b < 15; b++)
                bytes[b] = again ? random_end() : random_byte();
            compare(f->c, bytes, code_size);
            from = MIN(from + 1 + random_byte() % 3, 14);
        }
    }
    print_message("%llu found\n", (unsigned long long)found);
    assert_true(found > 200000);
}

static int setup(void **state)
{
    static struct cpu_fixture f;

    cpu_fixture_create(&f, 1, "");
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    cpu_fixture_free(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_other_ends, setup, teardown)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
