/* A vCPU's state from streams: what it was comes back, and what cannot be is refused without a trace. */
#include "cpu/vcpu_load.h"
#include "cpu_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct cpu_fixture f;

static int setup(void **unused)
{
    cpu_fixture_create(&f, 1, "");
    cpu_long64(&f);
    return 0;
}

static int teardown(void **unused)
{
    cpu_fixture_free(&f);
    return 0;
}

static int load(const struct vcpu_state *s)
{
    u8 *stream = malloc(state_stream_size(&vcpu_state_table));
    int r = vcpu_state_load(f.c, stream, state_save(&vcpu_state_table, s, stream));

    free(stream);
    return r;
}

static void what_was_comes_back(void **unused)
{
    struct vcpu_state before;

    vcpu_state_sync(f.c);
    before = f.c->s;
    vcpu_group_reset(f.group);
    assert_int_equal(load(&before), 0);
    vcpu_state_sync(f.c);
    assert_null(state_differs(&vcpu_state_table, &before, &f.c->s));
    assert_int_equal(f.c->code_size, 8);
    cpu_run_bytes(&f, 0x8000, "\x48\xff\xc0", 3); /* inc rax */
    assert_int_equal(f.c->s.gpr[RAX], before.gpr[RAX] + 1);
}

/* One value changed is enough. */
#define refused(change)                                                         \
    do {                                                                        \
        struct vcpu_state s = f.c->s;                                           \
        change;                                                                 \
        assert_int_equal(load(&s), -EINVAL);                                    \
        assert_null(state_differs(&vcpu_state_table, &before, &f.c->s));        \
    } while (0)

static void what_cannot_be_is_refused(void **unused)
{
    struct vcpu_state before;

    vcpu_state_sync(f.c);
    before = f.c->s;
    refused(s.gpr[RZERO] = 1);
    refused(s.cpl = 4);
    refused(s.activity = 99);
    refused(s.pending_db = 1ull << 40);
    refused(s.cr0 &= ~(u64)CR0_PE);
    refused(s.cr0 &= ~(u64)CR0_PG);
    refused(s.cr0 |= 1ull << 40);
    refused(s.cr4 &= ~(u64)CR4_PAE);
    refused(s.cr4 |= CR4_LA57);
    refused(s.cr3 |= 1ull << 60);
    refused(s.efer &= ~(u64)EFER_LMA);
    refused(s.efer |= 1ull << 40);
    refused(s.xcr0 = 0);
    refused(s.xcr0 = 1ull << 40);
    refused(s.xss = 1);
    refused(s.rflags |= FLAG_VM);
    refused(s.rflags |= 1ull << 40);
    refused(s.pdpte[2] = 3);
    refused(s.seg_base[SEG_FS] = 1ull << 60);
    refused(s.seg_attr[SEG_DS] |= 0x0f00);
    refused(s.seg_attr[SEG_CS] |= SEG_DB);
    refused(s.gdtr_base = 1ull << 60);
}

static void a_cut_stream_is_refused(void **unused)
{
    size_t size = state_stream_size(&vcpu_state_table);
    u8 *stream = malloc(size);

    vcpu_state_sync(f.c);
    assert_int_equal(state_save(&vcpu_state_table, &f.c->s, stream), size);
    assert_int_equal(vcpu_state_load(f.c, stream, size - 1), -EINVAL);
    assert_int_equal(vcpu_state_load(f.c, stream, 0), -EINVAL);
    free(stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cut_stream_is_refused, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
