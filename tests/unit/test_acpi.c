/* ACPI tables: checksums and pointers; ACPICA's own tools take them apart, put them together, and run the DSDT. */
#include "firmware/acpi.h"
#include "firmware/aml.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define RAM MIB(4)
#define BASE MIB(2)
#define SIZE KIB(64)
#define RSDP 0xe0000

static const struct acpi_config pc = {
    .cpu_count = 4,
    .lapic_base = 0xfee00000,
    .ioapic_base = 0xfec00000,
    .ioapic_id = 4,
    .hpet_base = 0xfed00000,
    .hpet_block_id = 0x8086a201,
    .sci_irq = 9,
    .pm_base = 0x600,
    .reset_port = 0xcf9,
    .reset_value = 6,
    .pci_mmio_base = 0xc0000000,
    .pci_mmio_end = 0xfec00000,
    .pci_mmio64_base = GIB(8),
    .pci_mmio64_end = GIB(16),
    .pci_irq = {10, 10, 11, 11},
    .uart = {true, true},
};

static struct guest_memory *mem;

static int memory_create(void **unused)
{
    struct err e;

    assert_int_equal(guest_memory_create(RAM, &mem, &e), 0);
    return guest_memory_map(mem, 0, RAM, 0, false);
}

static int memory_free(void **unused)
{
    guest_memory_free(mem);
    return 0;
}

static u8 *at(u64 gpa, u64 len)
{
    u8 *p = guest_memory_ptr(mem, gpa, len, false);

    assert_non_null(p);
    return p;
}

static u32 u32_at(u64 gpa)
{
    u32 v;

    memcpy(&v, at(gpa, 4), 4);
    return v;
}

static u64 u64_at(u64 gpa)
{
    return u32_at(gpa) | (u64)u32_at(gpa + 4) << 32;
}

static u8 sum(u64 gpa, u64 len)
{
    u8 total = 0;

    for (u64 i = 0; i < len; i++)
        total += *at(gpa + i, 1);
    return total;
}

static void table_check(u64 gpa, const char *signature)
{
    u32 len = u32_at(gpa + 4);

    assert_memory_equal(at(gpa, 4), signature, 4);
    assert_true(gpa >= BASE && gpa + len <= BASE + SIZE);
    assert_int_equal(sum(gpa, len), 0);
}

/* The n-th table in the XSDT. */
static u64 table(int n)
{
    return u64_at(u64_at(RSDP + 24) + 36 + 8 * (u64)n);
}

static void pointers_and_checksums(void **unused)
{
    static const char *const signature[] = {"FACP", "APIC", "HPET"};
    u64 rsdt, xsdt;

    assert_int_equal(acpi_build(mem, &pc, BASE, SIZE, RSDP), 0);
    assert_memory_equal(at(RSDP, 8), "RSD PTR ", 8);
    assert_int_equal(sum(RSDP, 20), 0);
    assert_int_equal(sum(RSDP, 36), 0);
    assert_int_equal(*at(RSDP + 15, 1), 2);
    assert_int_equal(u32_at(RSDP + 32) >> 8, 0);
    rsdt = u32_at(RSDP + 16);
    xsdt = u64_at(RSDP + 24);
    table_check(rsdt, "RSDT");
    table_check(xsdt, "XSDT");
    assert_int_equal(u32_at(xsdt + 4), 36 + 3 * 8);
    assert_int_equal(u32_at(rsdt + 4), 36 + 3 * 4);
    for (int i = 0; i < 3; i++) {
        table_check(table(i), signature[i]);
        assert_int_equal(u32_at(rsdt + 36 + 4 * (u64)i), table(i));
    }
    table_check(u32_at(table(0) + 40), "DSDT");
    assert_int_equal(u64_at(table(0) + 140), u32_at(table(0) + 40));
    assert_memory_equal(at(u32_at(table(0) + 36), 4), "FACS", 4);
    assert_int_equal(u32_at(table(0) + 36) & 63, 0);
}

static void fadt(void **unused)
{
    u64 f;

    assert_int_equal(acpi_build(mem, &pc, BASE, SIZE, RSDP), 0);
    f = table(0);
    assert_int_equal(u32_at(f + 4), 276);
    assert_int_equal(*at(f + 46, 1), 9); /* SCI */
    assert_int_equal(u32_at(f + 48), 0); /* SMI command */
    assert_int_equal(u32_at(f + 56), 0x600);
    assert_int_equal(u32_at(f + 64), 0x604);
    assert_int_equal(u32_at(f + 76), 0x608);
    assert_int_equal(*at(f + 108, 1), 0x32);
    assert_int_equal(u32_at(f + 112) & BIT(10), BIT(10));
    assert_int_equal(u32_at(f + 112) & (BIT(4) | BIT(20)), 0); /* fixed power button, not hardware-reduced */
    assert_int_equal(u64_at(f + 120), 0xcf9);
    assert_int_equal(*at(f + 128, 1), 6);
}

static int overrides(u64 madt, u32 gsi_flags[16])
{
    u64 end = madt + u32_at(madt + 4);
    int n = 0;

    for (u64 p = madt + 44; p < end; p += *at(p + 1, 1)) {
        assert_true(*at(p + 1, 1) >= 6);
        if (*at(p, 1) != 2)
            continue;
        gsi_flags[*at(p + 3, 1)] = u32_at(p + 4) << 16 | (u32_at(p + 8) & 0xffff);
        n++;
    }
    return n;
}

static void madt_overrides(void **unused)
{
    u32 gsi_flags[16] = {0};

    assert_int_equal(acpi_build(mem, &pc, BASE, SIZE, RSDP), 0);
    assert_int_equal(overrides(table(1), gsi_flags), 4);
    assert_int_equal(gsi_flags[0], 2 << 16);
    assert_int_equal(gsi_flags[9], 9 << 16 | 0xd);
    assert_int_equal(gsi_flags[10], 10 << 16 | 0xd);
    assert_int_equal(gsi_flags[11], 11 << 16 | 0xd);
}

static void without_hpet(void **unused)
{
    struct acpi_config config = pc;

    config.hpet_base = 0;
    assert_int_equal(acpi_build(mem, &config, BASE, SIZE, RSDP), 0);
    assert_int_equal(u32_at(u64_at(RSDP + 24) + 4), 36 + 2 * 8);
}

static void places_that_do_not_do(void **unused)
{
    assert_int_equal(acpi_build(mem, &pc, BASE, 1000, RSDP), -ENOSPC);
    assert_int_equal(acpi_build(mem, &pc, RAM - 64, SIZE, RSDP), -EFAULT);
    assert_int_equal(acpi_build(mem, &pc, BASE, SIZE, RAM), -EFAULT);
}

/* PkgLength grows with its body; its own bytes count too. */
static void package_lengths(void **unused)
{
    static const struct {
        size_t string, expected; /* length of a string in the scope; encoded bytes */
    } cases[] = {{10, 1}, {62 - 6, 1}, {63 - 6, 2}, {4093 - 6, 2}, {4094 - 6, 3}, {70000, 3}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct byte_buffer out = {0};
        struct aml a = {.out = &out};
        char *s = calloc(1, cases[i].string + 1);
        size_t len = 0;

        memset(s, 'x', cases[i].string);
        aml_scope_open(&a, "ABC"); /* 4 bytes, and 2 around the string */
        aml_string(&a, s);
        aml_close(&a);
        assert_int_equal(out.data[1] >> 6, cases[i].expected - 1);
        if (cases[i].expected == 1)
            len = out.data[1];
        else
            len = out.data[1] & 0xf;
        for (size_t n = 1; n < cases[i].expected; n++)
            len |= (size_t)out.data[1 + n] << (8 * n - 4);
        assert_int_equal(len, out.len - 1);
        assert_memory_equal(out.data + 1 + cases[i].expected, "ABC_", 4);
        bytes_free(&out);
        free(s);
    }
}

static void names(void **unused)
{
    static const u8 expected[] =
        "\\\x2f\3_SB_PCI0ISA_\\\x2e_SB_A___^B___\0\1\x0a\2\x0b\0\1\x0c\0\0\1\0\x0e\0\0\0\0\1\0\0";
    struct byte_buffer out = {0};
    struct aml a = {.out = &out};

    aml_reference(&a, "\\_SB.PCI0.ISA");
    aml_reference(&a, "\\_SB.A");
    aml_reference(&a, "^B");
    for (size_t i = 0; i < 6; i++)
        aml_integer(&a, (u64[]){0, 1, 2, 0x100, 0x10000, 0x100000000}[i]);
    assert_int_equal(out.len, sizeof(expected));
    assert_memory_equal(out.data, expected, sizeof(expected));
    bytes_free(&out);
}

static char folder[] = "/tmp/skerry-acpi-XXXXXX";

static int shell(const char *command)
{
    char line[640];

    snprintf(line, sizeof(line), "cd %s && %s", folder, command);
    return system(line);
}

static bool have(const char *program)
{
    char command[64];

    snprintf(command, sizeof(command), "command -v %s >/dev/null", program);
    return !shell(command);
}

/* Whether the last command's output has a match for a regular expression. */
static bool log_has(const char *pattern)
{
    char line[256];

    snprintf(line, sizeof(line), "grep -qiE '%s' log", pattern);
    return !shell(line);
}

/* The command succeeds, and its output has a match for `wanted` and none for `unwanted` (regular expressions). */
static void must_say(const char *command, const char *wanted, const char *unwanted)
{
    char line[512];
    bool good;

    snprintf(line, sizeof(line), "{ %s; } >log 2>&1", command);
    good = !shell(line);
    good = good && log_has(wanted);
    if (good && !log_has(unwanted))
        return;
    if (shell("cat log"))
        print_error("(no log)\n");
    fail_msg("%s: '%s' wanted, '%s' unwanted", command, wanted, unwanted);
}

static void table_dump(u64 gpa, const char *name)
{
    char path[64];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s.dat", folder, name);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(at(gpa, u32_at(gpa + 4)), u32_at(gpa + 4), 1, f), 1);
    fclose(f);
}

static void tables_dump(const struct acpi_config *config)
{
    assert_int_equal(acpi_build(mem, config, BASE, SIZE, RSDP), 0);
    table_dump(u64_at(RSDP + 24), "xsdt");
    table_dump(u32_at(RSDP + 16), "rsdt");
    table_dump(table(0), "facp");
    table_dump(table(1), "apic");
    table_dump(table(2), "hpet");
    table_dump(u32_at(table(0) + 40), "dsdt");
    table_dump(u32_at(table(0) + 36), "facs");
}

static int folder_create(void **unused)
{
    memory_create(NULL);
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int folder_remove(void **unused)
{
    char line[64];

    memory_free(NULL);
    snprintf(line, sizeof(line), "rm -rf %s", folder);
    return system(line);
}

/* Data tables come back from disassembler and compiler byte for byte, but for the compiler's name in the header. */
static void iasl_agrees_on(const char *table, bool is_code)
{
    char command[256];

    snprintf(command, sizeof(command), "iasl -d %s.dat", table);
    must_say(command, "^(Formatted output|ASL Output): ", "error|warning|incorrect|invalid|unknown");
    snprintf(command, sizeof(command), "iasl %s.dsl", table);
    must_say(command, " 0 Errors, 0 Warnings", "unknown");
    if (is_code)
        return;
    snprintf(command, sizeof(command), "tail -c +37 %s.dat >was && tail -c +37 %s.aml | cmp - was && echo same", table,
             table);
    must_say(command, "^same$", "differ");
}

static void iasl_agrees_with(const struct acpi_config *config)
{
    static const char *const data[] = {"xsdt", "rsdt", "facp", "apic", "hpet", "facs"};

    if (!have("iasl"))
        skip();
    tables_dump(config);
    for (size_t i = 0; i < ARRAY_SIZE(data); i++)
        iasl_agrees_on(data[i], false);
    iasl_agrees_on("dsdt", true);
}

static void iasl_agrees(void **unused)
{
    iasl_agrees_with(&pc);
}

static void iasl_agrees_with_many_processors(void **unused)
{
    struct acpi_config config = pc;

    config.cpu_count = 300;
    config.vga = true;
    config.uart[0] = false;
    config.pci_mmio64_end = 0;
    iasl_agrees_with(&config);
}

/* ACPICA's interpreter loads the DSDT and evaluates what an operating system would. One run for all: each takes a
 * second. */
static void acpiexec_evaluates(void **unused)
{
    static const char *const answers[] = {
        "_HID .*Integer .*= 00000000030AD041",
        "_PRT Package .* Elements 80",
        "COM1 Device",
        "Address Minimum : C0000000",
        "Address Minimum : 0000000200000000",
        "Polarity : ActiveHigh",
        "Address Minimum : 03F8",
    };
    char command[256] = "acpiexec -b 'namespace;evaluate \\_S5;resources \\_SB.PCI0;resources \\_SB.LNKA;"
                        "resources \\_SB.PCI0.ISA.COM1' dsdt.dat";

    if (!have("acpiexec"))
        skip();
    tables_dump(&pc);
    must_say(command, "Contains 4 Elements", "ACPI (error|warning)|evaluation .* failed");
    for (size_t i = 0; i < ARRAY_SIZE(answers); i++)
        if (!log_has(answers[i]))
            fail_msg("acpiexec does not say: %s", answers[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(pointers_and_checksums, memory_create, memory_free),
        cmocka_unit_test_setup_teardown(fadt, memory_create, memory_free),
        cmocka_unit_test_setup_teardown(madt_overrides, memory_create, memory_free),
        cmocka_unit_test_setup_teardown(without_hpet, memory_create, memory_free),
        cmocka_unit_test_setup_teardown(places_that_do_not_do, memory_create, memory_free),
        cmocka_unit_test(package_lengths),
        cmocka_unit_test(names),
        cmocka_unit_test_setup_teardown(iasl_agrees, folder_create, folder_remove),
        cmocka_unit_test_setup_teardown(iasl_agrees_with_many_processors, folder_create, folder_remove),
        cmocka_unit_test_setup_teardown(acpiexec_evaluates, folder_create, folder_remove)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
