/* Code caches: two views of the same bytes, neither writable and executable; alignment, exhaustion, reuse. */
#include "jit/code_cache.h"
#include "jit/x86_asm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

/* mov eax, val; ret */
static int (*emit(struct code_cache *cc, u32 val))(void)
{
    u8 code[64];
    struct x86_asm a = {.code = code, .size = sizeof(code)};
    const u8 *exec;
    u8 *write;

    asm_code(&a, 0xb8, (u8)val, (u8)(val >> 8), (u8)(val >> 16), (u8)(val >> 24));
    asm_ret(&a);
    write = code_cache_alloc(cc, a.len, &exec);
    if (!write)
        return NULL;
    memcpy(write, a.code, a.len);
    return (int (*)(void))(uintptr_t)exec;
}

static struct code_cache *create(u64 size)
{
    struct code_cache *cc = NULL;
    struct err e;

    assert_int_equal(code_cache_create(size, &cc, &e), 0);
    return cc;
}

static void written_code_executes(void **unused)
{
    struct code_cache *cc = create(65536);
    int (*one)(void) = emit(cc, 1), (*two)(void) = emit(cc, 0x12345678);

    assert_int_equal(one(), 1);
    assert_int_equal(two(), 0x12345678);
    assert_int_equal((uintptr_t)two % 16, 0);
    code_cache_free(cc);
}

/* What the kernel says of the mapping that holds p: "r--p" and the like. */
static void rights_of(const void *p, char rights[5])
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    unsigned long start, end;

    assert_non_null(maps);
    strcpy(rights, "none");
    while (fgets(line, sizeof(line), maps))
        if (sscanf(line, "%lx-%lx", &start, &end) == 2 && (unsigned long)p >= start && (unsigned long)p < end)
            sscanf(line, "%*s %4s", rights);
    fclose(maps);
}

static void no_view_is_writable_and_executable(void **unused)
{
    struct code_cache *cc = create(65536);
    char rights[5];

    rights_of(cc->write, rights);
    assert_string_equal(rights, "rw-s");
    rights_of(cc->exec, rights);
    assert_string_equal(rights, "r-xs");
    code_cache_free(cc);
}

static void full_cache_refuses_and_resets(void **unused)
{
    struct code_cache *cc = create(4096);
    const u8 *exec;
    int count = 0;

    assert_null(code_cache_alloc(cc, 4097, &exec));
    assert_null(code_cache_alloc(cc, ~0ull, &exec));
    while (emit(cc, (u32)count))
        count++;
    assert_int_equal(count, 4096 / 16);
    code_cache_reset(cc);
    for (u32 n = 0; n < 256; n++)
        assert_int_equal((u32)emit(cc, ~n)(), ~n);
    code_cache_free(cc);
    code_cache_free(NULL);
}

static void loads_and_stores_encode(void **unused)
{
    struct code_cache *cc = create(4096);
    u8 code[64];
    struct x86_asm a = {.code = code, .size = sizeof(code)};
    u64 memory[64] = {[1] = 0x8877665544332211};
    const u8 *exec;
    u8 *write;

    asm_load(&a, X86_RAX, X86_RDI, 8, 2);    /* zero-extends */
    asm_store(&a, X86_RAX, X86_RDI, 16, 8);
    asm_load(&a, 9, X86_RDI, 8, 8);
    asm_store(&a, 9, X86_RDI, 400, 8);       /* disp32 */
    asm_load(&a, X86_RCX, X86_RDI, 8, 4);
    asm_store(&a, X86_RCX, X86_RDI, 24, 8);
    asm_store(&a, X86_RCX, X86_RDI, 32, 2);
    asm_ret(&a);
    write = code_cache_alloc(cc, a.len, &exec);
    memcpy(write, a.code, a.len);
    ((void (*)(u64 *))(uintptr_t)exec)(memory);
    assert_int_equal(memory[2], 0x2211);
    assert_int_equal(memory[50], memory[1]);
    assert_int_equal(memory[3], 0x44332211);
    assert_int_equal(memory[4], 0x2211);
    code_cache_free(cc);
}

/* Large pages come and go without a byte changing, and what was large can be given back. */
static void stays_through_large_pages(void **unused)
{
    struct code_cache *cc = create(MIB(6));
    int (*at[6144])(void);
    int n = 0;

    for (; n < 6000; n++) {
        u64 from = cc->used, room;
        const u8 *exec;

        at[n] = emit(cc, (u32)n);
        assert_non_null(code_cache_alloc(cc, 1000, &exec));
        room = cc->used;
        code_cache_written(cc, from, room);
    }
    assert_int_equal((u64)cc->exec % MIB(2), 0);
    assert_int_equal((u64)cc->write % MIB(2), 0);
    while (n-- > 0)
        assert_int_equal(at[n](), n);
    cc->write[(const u8 *)(uintptr_t)at[4000] - cc->exec + 1] ^= 1;
    assert_int_equal(at[4000](), 4001);
    code_cache_release(cc, MIB(3), MIB(3));
    assert_int_equal(cc->exec[MIB(3)], 0);
    assert_int_equal(at[1000](), 1000);
    code_cache_free(cc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_code_executes), cmocka_unit_test(no_view_is_writable_and_executable),
        cmocka_unit_test(full_cache_refuses_and_resets), cmocka_unit_test(loads_and_stores_encode),
        cmocka_unit_test(stays_through_large_pages)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
