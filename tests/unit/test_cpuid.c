/* CPU models and what CPUID answers for them. */
#include "cpu_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "cpu/cpuid.h"
#include "cpu/xstate.h"

enum { EAX, EBX, ECX, EDX };

static struct cpu_fixture f;
static u32 out[4];

static void ask(u32 leaf, u32 sub)
{
    cpuid(f.c, leaf, sub, out);
}

static void with_model(const char *name, int cpus)
{
    cpu_fixture_create(&f, cpus, name);
}

static void unknown_model_lists_all(void **unused)
{
    struct cpu_model_name name = {"pdp-11"};
    struct cpu_model *m = NULL;
    struct err e;

    assert_int_equal(cpu_model_create(&name, NULL, &m, &e), -EINVAL);
    assert_null(m);
    assert_non_null(strstr(e.text, "pdp-11"));
    assert_non_null(strstr(e.text, "x86-64-v3"));
    assert_non_null(strstr(e.text, "host"));
}

static void limit_take(struct cpu_model_limit *limit, enum cpu_feature f)
{
    limit->features[f / 64] &= ~(1ull << f % 64);
}

/* An engine that can show less than we implement can still have the levels of the ABI, as long as their instructions are
 * there. */
static void limits_cut_models(void **unused)
{
    struct cpu_model_limit limit = {.phys_bits = 39};
    struct cpu_model *m = NULL;
    struct err e;

    memset(limit.features, 0xff, sizeof(limit.features));
    limit_take(&limit, FEAT_SS);
    limit_take(&limit, FEAT_PCID);
    limit_take(&limit, FEAT_SSB_NO);
    assert_int_equal(cpu_model_create(&(struct cpu_model_name){"x86-64-v2"}, &limit, &m, &e), 0);
    assert_int_equal(m->phys_bits, 39);
    assert_true(model_has(m, FEAT_SSE42));
    assert_false(model_has(m, FEAT_PCID));
    assert_false(m->cr4_mask & CR4_PCIDE);
    cpu_model_free(m);
    limit_take(&limit, FEAT_SSE42);
    assert_int_equal(cpu_model_create(&(struct cpu_model_name){"x86-64-v2"}, &limit, &m, &e), -ENOTSUP);
    assert_non_null(strstr(e.text, "SSE42"));
    assert_int_equal(cpu_model_create(&(struct cpu_model_name){""}, &limit, &m, &e), 0);
    assert_string_equal(m->name, "x86-64");
    assert_false(model_has(m, FEAT_SSE42));
    cpu_model_free(m);
}

static void list_one(void *ctx, const char *name, const char *what)
{
    struct cpu_model_name model;
    struct cpu_model *m;
    struct err e;
    int r;

    snprintf(model.text, sizeof(model.text), "%s", name);
    r = cpu_model_create(&model, NULL, &m, &e);
    assert_true(r == 0 || r == -ENOTSUP);
    if (r) {
        assert_non_null(strstr(e.text, name));
        return;
    }
    assert_string_equal(m->name, name);
    cpu_model_free(m);
    (*(int *)ctx)++;
}

static void listed_models_exist(void **unused)
{
    int n = 0;
    struct err e;

    assert_int_equal(ext_setup(&e), 0);
    cpu_models_list(list_one, &n);
    assert_true(n >= 6); /* the host backs v2, else nothing runs */
}

static void default_is_one_of_the_levels(void **unused)
{
    with_model("", 1);
    assert_int_equal(strncmp(vcpu_group_model(f.group), "x86-64-v", 8), 0);
    cpu_fixture_free(&f);
}

static void switches_change_the_model(void **unused)
{
    with_model("x86-64-v2,-x2apic,-tsc-deadline,+FSRM,vendor=AuthenticAMD,phys-bits=40", 1);
    ask(0, 0);
    assert_memory_equal(&out[EBX], "Auth", 4);
    ask(1, 0);
    assert_false(out[ECX] >> 21 & 1);
    assert_false(out[ECX] >> 24 & 1);
    assert_true(out[ECX] >> 20 & 1);
    ask(0x80000008, 0);
    assert_int_equal(out[EAX] & 0xff, 40);
    cpu_fixture_free(&f);
    with_model("-pcid", 1); /* of the best model */
    ask(1, 0);
    assert_false(out[ECX] >> 17 & 1);
    assert_false(f.c->group->model->cr4_mask & CR4_PCIDE);
    cpu_fixture_free(&f);
}

static void bad_switches_are_refused(void **unused)
{
    static const char *const bad[] = {"x86-64-v2,+nonsense", "x86-64-v2,x2apic",    "host,vendor=me",
                                      "host,phys-bits=53",   "host,phys-bits=4x",   "+",
                                      "x86-64-v2,,",         "-fpu,vendor=",        "host,phys-bits="};
    struct cpu_model *m = NULL;
    struct err e;

    for (size_t n = 0; n < ARRAY_SIZE(bad); n++) {
        struct cpu_model_name name;

        snprintf(name.text, sizeof(name.text), "%s", bad[n]);
        assert_int_equal(cpu_model_create(&name, NULL, &m, &e), -EINVAL);
        assert_non_null(strstr(e.text, "--cpu-model"));
    }
    assert_null(m);
}

static void shows_what_it_has(void **unused)
{
    with_model("x86-64-v2", 1);
    ask(0, 0);
    assert_int_equal(out[EAX], 0x16);
    ask(1, 0);
    assert_true(out[EDX] >> 25 & 1);  /* SSE */
    assert_true(out[ECX] >> 20 & 1);  /* SSE4.2 */
    assert_true(out[ECX] >> 31);      /* hypervisor */
    assert_false(out[ECX] >> 28 & 1); /* AVX is not v2 */
    assert_false(out[ECX] >> 3 & 1);  /* MONITOR */
    assert_false(out[ECX] >> 5 & 1);  /* VMX */
    assert_false(out[EDX] >> 28 & 1); /* HTT: one CPU */
    assert_true(out[EDX] >> 9 & 1);   /* APIC */
    ask(7, 0);
    assert_int_equal(out[EAX], 2);
    assert_true(out[EBX] >> 20 & 1);  /* SMAP */
    assert_false(out[EBX] >> 4 & 1);  /* HLE */
    assert_false(out[ECX] >> 3 & 1);  /* PKU */
    assert_false(out[ECX] >> 16 & 1); /* LA57 */
    ask(0xd, 0);
    assert_int_equal(out[EAX] | out[EBX] | out[ECX], 0);
    ask(0x80000001, 0);
    assert_true(out[EDX] >> 29 & 1);
    ask(0x80000007, 0);
    assert_int_equal(out[EDX], 0x100);
    cpu_fixture_free(&f);
}

static void ecx_matters_only_where_there_are_subleaves(void **unused)
{
    u32 with_zero[4];

    with_model("x86-64-v2", 1);
    ask(0x80000001, 0);
    memcpy(with_zero, out, sizeof(out));
    ask(0x80000001, 0xc0000080);
    assert_memory_equal(out, with_zero, sizeof(out));
    ask(1, 77);
    assert_true(out[EDX] & 1);
    ask(7, 77);
    assert_int_equal(out[EBX], 0);
    cpu_fixture_free(&f);
}

static void follows_the_state(void **unused)
{
    with_model("x86-64-v2", 1);
    ask(1, 0);
    assert_false(out[ECX] >> 27 & 1); /* OSXSAVE */
    f.c->s.cr4 |= CR4_OSXSAVE;
    ask(1, 0);
    assert_true(out[ECX] >> 27 & 1);
    f.c->s.msr_apic_base &= ~0x800ull;
    ask(1, 0);
    assert_false(out[EDX] >> 9 & 1);
    cpu_fixture_free(&f);
}

static void topology(void **unused)
{
    with_model("x86-64-v2", 3);
    f.c = vcpu_get(f.group, 2);
    ask(1, 0);
    assert_int_equal(out[EBX] >> 24, 2);
    assert_int_equal(out[EBX] >> 16 & 0xff, 4);
    assert_true(out[EDX] >> 28 & 1);
    ask(0xb, 0);
    assert_int_equal(out[EBX], 1);
    assert_int_equal(out[ECX], 0x100);
    assert_int_equal(out[EDX], 2);
    ask(0xb, 1);
    assert_int_equal(out[EAX], 2);
    assert_int_equal(out[EBX], 3);
    assert_int_equal(out[ECX], 0x201);
    ask(0xb, 2);
    assert_int_equal(out[EBX], 0);
    assert_int_equal(out[ECX], 2);
    cpu_fixture_free(&f);
}

static void tsc_frequency_is_told(void **unused)
{
    with_model("", 1);
    ask(0x15, 0);
    assert_int_equal((u64)out[ECX] * out[EBX] / out[EAX], 1000000000);
    ask(0x16, 0);
    assert_int_equal(out[EAX], 1000);
    ask(0x40000000, 0);
    assert_memory_equal(&out[EBX], "SkerrySkerry", 12);
    ask(0x40000010, 0);
    assert_int_equal(out[EAX], 1000000);
    cpu_fixture_free(&f);
}

static void xsave_sizes(void **unused)
{
    struct cpu_model *m;
    struct err e;

    if (cpu_model_create(&(struct cpu_model_name){"x86-64-v3"}, NULL, &m, &e))
        skip();
    cpu_model_free(m);
    with_model("x86-64-v3", 1);
    ask(0xd, 0);
    assert_int_equal(out[EAX], 7);
    assert_int_equal(out[EBX], 576); /* XCR0 is 1 */
    assert_int_equal(out[ECX], 832);
    f.c->s.xcr0 = 7;
    ask(0xd, 0);
    assert_int_equal(out[EBX], 832);
    ask(0xd, 2);
    assert_int_equal(out[EAX], 256);
    assert_int_equal(out[EBX], 576);
    ask(0xd, 1);
    assert_false(out[EAX] >> 3 & 1); /* XSAVES */
    ask(0xd, 5);
    assert_int_equal(out[EAX], 0);
    cpu_fixture_free(&f);
}

static void old_models_are_old(void **unused)
{
    with_model("486", 1);
    ask(1, 0);
    assert_int_equal(out[EDX], 1);
    assert_int_equal(out[ECX], 0);
    assert_int_equal(f.group->model->cr4_mask, 0);
    assert_int_equal(f.group->model->efer_mask, 0);
    ask(0x80000000, 0); /* beyond the last leaf: the last leaf */
    assert_int_equal(out[EAX], f.group->model->signature);
    cpu_fixture_free(&f);
    with_model("pentium", 1);
    ask(0, 0);
    assert_memory_equal(&out[EBX], "Genu", 4);
    ask(1, 0);
    assert_int_equal(out[EAX] >> 8 & 15, 5);
    cpu_fixture_free(&f);
}

static void syscall_bit_is_shown_in_64_bit_mode(void **unused)
{
    with_model("x86-64-v2", 1);
    cpu_long64(&f);
    ask(0x80000001, 0);
    assert_true(out[EDX] >> 11 & 1);
    cpu_fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(unknown_model_lists_all), cmocka_unit_test(limits_cut_models),
                                       cmocka_unit_test(listed_models_exist),
                                       cmocka_unit_test(default_is_one_of_the_levels),
                                       cmocka_unit_test(switches_change_the_model),
                                       cmocka_unit_test(bad_switches_are_refused),
                                       cmocka_unit_test(shows_what_it_has),
                                       cmocka_unit_test(ecx_matters_only_where_there_are_subleaves),
                                       cmocka_unit_test(follows_the_state),
                                       cmocka_unit_test(topology),
                                       cmocka_unit_test(tsc_frequency_is_told),
                                       cmocka_unit_test(xsave_sizes),
                                       cmocka_unit_test(old_models_are_old),
                                       cmocka_unit_test(syscall_bit_is_shown_in_64_bit_mode)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
