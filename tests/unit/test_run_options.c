/* What `skerry run` makes of its options, and the numbers and near misses that users write. */
#include "cli/quantity.h"
#include "cli/run_options.h"
#include "cli/suggest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Parses a command line given as one text with words separated by single spaces. */
static int parse(const char *line, struct vm_config *c, struct err *e)
{
    char *copy = strdup(line), *argv[64] = {"run"}, *save = NULL;
    int argc = 1, result;

    for (char *word = strtok_r(copy, " ", &save); word && argc < 64; word = strtok_r(NULL, " ", &save))
        argv[argc++] = word;
    vm_config_init(c);
    result = option_parse(&run_options, argc, argv, c, e);
    free(copy);
    return result;
}

static void options_reach_the_configuration(void **unused)
{
    struct vm_config c;
    struct err e;
    static const char line[] = "--kernel vmlinuz --initrd=i --append root=/dev/vda --memory 2G --cpus 4 --net none "
                               "--cpu-engine interp --cpu-windows off --cpu-model x86-64-v3 --serial none --no-reboot --timeout 1.25 "
                               "--trace guest,pit --dump guest,host --dump-file d --stress hot,smc --profile p";

    assert_int_equal(parse(line, &c, &e), 0);
    assert_string_equal(c.kernel, "vmlinuz");
    assert_string_equal(c.initrd, "i");
    assert_string_equal(c.append, "root=/dev/vda");
    assert_int_equal(c.memory, GIB(2));
    assert_int_equal(c.cpus, 4);
    assert_int_equal(c.engine, VM_ENGINE_INTERP);
    assert_int_equal(c.windows, VM_WINDOWS_OFF);
    assert_string_equal(c.cpu_model, "x86-64-v3");
    assert_false(c.net);
    assert_int_equal(c.serial.kind, VM_CONSOLE_NONE);
    assert_true(c.no_reboot);
    assert_int_equal(c.timeout_ms, 1250);
    assert_string_equal(c.trace, "guest,pit");
    assert_string_equal(c.dump, "guest,host");
    assert_string_equal(c.dump_file, "d");
    assert_int_equal(c.stress, 1 << VM_STRESS_HOT | 1 << VM_STRESS_SMC);
    assert_string_equal(c.profile, "p");
    vm_config_free(&c);
}

static void disks_take_attributes(void **unused)
{
    struct vm_config c;
    struct err e;

    assert_int_equal(parse("--disk a,,b,format=raw,serial=S1,readonly --disk c.qcow2,snapshot", &c, &e), 0);
    assert_int_equal(c.disk_count, 2);
    assert_string_equal(c.disk[0].path, "a,b");
    assert_int_equal(c.disk[0].format, VM_DISK_RAW);
    assert_string_equal(c.disk[0].serial, "S1");
    assert_true(c.disk[0].readonly && !c.disk[0].snapshot);
    assert_string_equal(c.disk[1].path, "c.qcow2");
    assert_int_equal(c.disk[1].format, VM_DISK_AUTO);
    assert_true(c.disk[1].snapshot && !c.disk[1].readonly);
    vm_config_free(&c);
}

static void forwards_take_addresses_and_protocols(void **unused)
{
    struct vm_config c;
    struct err e;

    assert_int_equal(parse("-p 2222:22 -p53:53/udp --publish 0.0.0.0:8080:80/tcp", &c, &e), 0);
    assert_int_equal(c.forward_count, 3);
    assert_int_equal(c.forward[0].host_port, 2222);
    assert_int_equal(c.forward[0].guest_port, 22);
    assert_false(c.forward[0].udp);
    assert_true(c.forward[1].udp);
    assert_int_equal(c.forward[2].host_addr, htonl(INADDR_ANY));
    assert_int_equal(c.forward[2].host_port, 8080);
    vm_config_free(&c);
}

static void devices_take_targets(void **unused)
{
    struct vm_config c;
    struct err e;
    static const char line[] = "--device rng --device pc-testdev --device pci-testdev --device balloon --device debug-exit --device debugcon=log "
                               "--device virtio-console";

    assert_int_equal(parse(line, &c, &e), 0);
    assert_true(c.rng && c.pc_testdev && c.pci_testdev && c.balloon && c.debug_exit);
    assert_int_equal(c.debugcon.kind, VM_CONSOLE_FILE);
    assert_string_equal(c.debugcon.path, "log");
    assert_int_equal(c.virtio_console.kind, VM_CONSOLE_STDIO);
    vm_config_free(&c);
}

static void gdb_takes_attributes(void **unused)
{
    struct vm_config c;
    struct err e;

    assert_int_equal(parse("--gdb=/tmp/a,,b,wait,arch=i386 --dump=guest", &c, &e), 0);
    assert_string_equal(c.gdb, "/tmp/a,b");
    assert_true(c.gdb_wait);
    assert_int_equal(c.gdb_arch, VM_GDB_I386);
    assert_string_equal(c.dump, "guest");
    vm_config_free(&c);
    assert_int_equal(parse("--gdb :1,later", &c, &e), -EINVAL);
    vm_config_free(&c);
}

static void instruction_trace_takes_a_window(void **unused)
{
    struct vm_config c;
    struct err e;

    assert_int_equal(parse("--trace-insns out,from=10,regs,count=20", &c, &e), 0);
    assert_string_equal(c.trace_insns, "out");
    assert_int_equal(c.trace_insns_from, 10);
    assert_int_equal(c.trace_insns_count, 20);
    assert_true(c.trace_insns_regs);
    vm_config_free(&c);
    assert_int_equal(parse("--trace-insns out,from=-1", &c, &e), -EINVAL);
    vm_config_free(&c);
}

static void help_ends_parsing(void **unused)
{
    struct vm_config c;
    struct err e;

    assert_int_equal(parse("--cpus 2 --help --nonsense", &c, &e), OPTION_HELP);
    vm_config_free(&c);
}

static void sizes(void **unused)
{
    static const struct {
        const char *text;
        u64 bytes;
    } good[] = {{"1", 1}, {"512M", MIB(512)}, {"2g", GIB(2)}, {"3GiB", GIB(3)}, {"4k", 4096}, {"1T", GIB(1024)}};
    static const char *const bad[] = {"", "M", "-1", "1.5G", "12Q", "1 G", "1Gb", "99999999999999999999",
                                      "99999999999999T"};
    u64 n;

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        assert_true(quantity_size(good[i].text, &n));
        assert_int_equal(n, good[i].bytes);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(quantity_size(bad[i], &n));
}

static void seconds(void **unused)
{
    u64 ms;

    assert_true(quantity_seconds("30", INT32_MAX, &ms));
    assert_int_equal(ms, 30000);
    assert_true(quantity_seconds("0.05", INT32_MAX, &ms));
    assert_int_equal(ms, 50);
    assert_false(quantity_seconds("1.2345", INT32_MAX, &ms));
    assert_false(quantity_seconds("9999999", INT32_MAX, &ms));
    assert_false(quantity_seconds("18446744073709551615", UINT64_MAX, &ms));
    assert_false(quantity_seconds("-1", INT32_MAX, &ms));
}

static void formatted_sizes(void **unused)
{
    char buf[32];

    assert_string_equal(quantity_format(GIB(2), buf), "2 GiB");
    assert_string_equal(quantity_format(MIB(1536), buf), "1.5 GiB");
    assert_string_equal(quantity_format(17, buf), "17 bytes");
}

static void near_misses(void **unused)
{
    static const char *const words[] = {"kernel", "memory", "net", "no-reboot", "cpus"};
    static const char *const typed[][2] = {{"kernal", "kernel"}, {"memroy", "memory"}, {"ne", "net"},
                                           {"noreboot", "no-reboot"}, {"cpu", "cpus"}, {"zzz", NULL}, {"", NULL}};

    for (size_t i = 0; i < ARRAY_SIZE(typed); i++) {
        struct suggestion s = {.word = typed[i][0]};

        for (size_t j = 0; j < ARRAY_SIZE(words); j++)
            suggest_offer(&s, words[j]);
        if (typed[i][1])
            assert_string_equal(suggest_best(&s), typed[i][1]);
        else
            assert_null(suggest_best(&s));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_reach_the_configuration),
        cmocka_unit_test(disks_take_attributes),
        cmocka_unit_test(forwards_take_addresses_and_protocols),
        cmocka_unit_test(devices_take_targets),
        cmocka_unit_test(gdb_takes_attributes),
        cmocka_unit_test(instruction_trace_takes_a_window),
        cmocka_unit_test(help_ends_parsing),
        cmocka_unit_test(sizes),
        cmocka_unit_test(seconds),
        cmocka_unit_test(formatted_sizes),
        cmocka_unit_test(near_misses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
