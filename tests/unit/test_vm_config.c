/* The description of a VM on the wire: round trips, strictness, and the channel that carries it. */
#include "proto/vm_channel.h"
#include "proto/vm_config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

static const char *const all_keys =
    "{\"memory\":1073741824,\"cpus\":16,\"engine\":\"interp\",\"stress\":5,\"windows\":\"always\",\"cpu_model\":\"host\",\"kernel\":\"k\",\"initrd\":\"i\","
    "\"append\":\"a b\",\"net\":true,\"debug_exit\":true,\"pc_testdev\":true,\"pci_testdev\":true,\"rng\":true,\"balloon\":true,\"no_reboot\":true,"
    "\"timeout_ms\":1500,\"slow_clock\":20,\"trace\":\"pit,irq\",\"dump\":\"guest\",\"dump_file\":\"d\",\"profile\":\"f\",\"trace_insns\":\"t\",\"trace_insns_from\":5,\"trace_insns_count\":6,\"trace_insns_regs\":true,\"gdb\":\":1234\",\"gdb_wait\":true,\"gdb_arch\":\"i386\","
    "\"disks\":[{\"path\":\"d0\",\"format\":\"qcow2\",\"readonly\":true,\"snapshot\":false,\"serial\":\"s\"},"
    "{\"path\":\"d1\",\"format\":\"auto\",\"readonly\":false,\"snapshot\":true}],"
    "\"forwards\":[{\"udp\":true,\"host_addr\":4294967295,\"host_port\":65535,\"guest_port\":1}],"
    "\"serial\":{\"kind\":\"file\",\"path\":\"log\"},\"virtio_console\":{\"kind\":\"stdio\"},"
    "\"debugcon\":{\"kind\":\"none\"}}";

static int decode(const char *text, struct vm_config *c, struct err *e)
{
    return vm_config_decode(text, strlen(text), c, e);
}

static void every_key_round_trips(void **unused)
{
    struct vm_config c;
    struct err e;
    char *text;

    assert_int_equal(decode(all_keys, &c, &e), 0);
    assert_int_equal(c.memory, GIB(1));
    assert_int_equal(c.cpus, 16);
    assert_int_equal(c.engine, VM_ENGINE_INTERP);
    assert_int_equal(c.windows, VM_WINDOWS_ALWAYS);
    assert_string_equal(c.append, "a b");
    assert_int_equal(c.disk_count, 2);
    assert_int_equal(c.disk[0].format, VM_DISK_QCOW2);
    assert_true(c.disk[0].readonly);
    assert_string_equal(c.disk[0].serial, "s");
    assert_true(c.disk[1].snapshot);
    assert_null(c.disk[1].serial);
    assert_int_equal(c.forward[0].host_addr, UINT32_MAX);
    assert_int_equal(c.forward[0].host_port, 65535);
    assert_int_equal(c.serial.kind, VM_CONSOLE_FILE);
    assert_int_equal(c.virtio_console.kind, VM_CONSOLE_STDIO);
    assert_int_equal(c.timeout_ms, 1500);
    assert_int_equal(c.slow_clock, 20);
    assert_int_equal(vm_config_encode(&c, &text, &e), 0);
    assert_string_equal(text, all_keys);
    free(text);
    vm_config_free(&c);
}

static void absent_keys_keep_the_defaults(void **unused)
{
    struct vm_config c;
    struct err e;

    assert_int_equal(decode("{\"kernel\":\"k\"}", &c, &e), 0);
    assert_int_equal(c.memory, MIB(512));
    assert_int_equal(c.cpus, 1);
    assert_true(c.net);
    assert_int_equal(c.serial.kind, VM_CONSOLE_STDIO);
    assert_int_equal(c.debugcon.kind, VM_CONSOLE_NONE);
    vm_config_free(&c);
}

#define SIXTY_FOUR "0123456789012345678901234567890123456789012345678901234567890123"

/* Each is refused with a sentence that holds the second text. */
static const char *const refused[][2] = {
    {"{\"kernel\":\"k\",\"gdb\":\"1234\"}", "HOST:PORT"},
    {"{\"kernel\":\"k\",\"gdb\":\":1234\",\"gdb_arch\":\"vax\"}", "gdb_arch"},
    {"", "not JSON"},
    {"{\"kernel\":\"k\"", "not JSON"},
    {"[]", "not a JSON object"},
    {"{}", "--kernel"},
    {"{\"kernel\":\"k\",\"kernel\":\"k\"}", "not JSON"},
    {"{\"kernel\":\"k\",\"colour\":1}", "unknown key 'colour'"},
    {"{\"kernel\":7}", "'kernel' must be a text"},
    {"{\"kernel\":\"k\\u0000\"}", "not JSON"},
    {"{\"kernel\":\"k\",\"cpus\":0}", "'cpus'"},
    {"{\"kernel\":\"k\",\"cpus\":17}", "'cpus'"},
    {"{\"kernel\":\"k\",\"cpus\":1.5}", "'cpus'"},
    {"{\"kernel\":\"k\",\"cpus\":\"1\"}", "'cpus'"},
    {"{\"kernel\":\"k\",\"memory\":-1048576}", "'memory'"},
    {"{\"kernel\":\"k\",\"memory\":1048577}", "whole number of MiB"},
    {"{\"kernel\":\"k\",\"memory\":9223372036854775807}", "'memory'"},
    {"{\"kernel\":\"k\",\"memory\":9223372036854775808}", "not JSON"},
    {"{\"kernel\":\"k\",\"net\":1}", "'net' must be true or false"},
    {"{\"kernel\":\"k\",\"engine\":\"fast\"}", "'engine'"},
    {"{\"kernel\":\"k\",\"engine\":null}", "'engine'"},
    {"{\"kernel\":\"k\",\"cpu_model\":\"" SIXTY_FOUR SIXTY_FOUR SIXTY_FOUR SIXTY_FOUR "\"}", "longer than 255"},
    {"{\"kernel\":\"k\",\"disks\":{}}", "'disks' must be a list"},
    {"{\"kernel\":\"k\",\"disks\":[{},{},{},{},{},{},{},{},{}]}", "at most 8"},
    {"{\"kernel\":\"k\",\"disks\":[7]}", "'disks': not a JSON object"},
    {"{\"kernel\":\"k\",\"disks\":[{}]}", "no file named"},
    {"{\"kernel\":\"k\",\"disks\":[{\"path\":\"d\",\"serial\":\"012345678901234567890\"}]}", "longer than 20"},
    {"{\"kernel\":\"k\",\"disks\":[{\"path\":\"d\",\"readonly\":true,\"snapshot\":true}]}", "exclude each other"},
    {"{\"kernel\":\"k\",\"forwards\":[{\"host_port\":65536,\"guest_port\":1}]}", "'host_port'"},
    {"{\"kernel\":\"k\",\"forwards\":[{\"host_port\":1}]}", "a port is missing"},
    {"{\"kernel\":\"k\",\"net\":false,\"forwards\":[{\"host_port\":1,\"guest_port\":1}]}", "--net none"},
    {"{\"kernel\":\"k\",\"serial\":{\"kind\":\"file\"}}", "no file named"},
    {"{\"kernel\":\"k\",\"debugcon\":{\"kind\":\"stdio\"}}", "both want the terminal"},
    {"{\"kernel\":\"k\",\"serial\":\"stdio\"}", "'serial': not a JSON object"},
};

static void strange_configurations_are_refused(void **unused)
{
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        struct vm_config c = {.cpus = 99};
        struct err e;

        assert_true(decode(refused[i][0], &c, &e) < 0);
        if (!strstr(e.text, refused[i][1]))
            fail_msg("%s: said '%s'", refused[i][0], e.text);
        assert_int_equal(c.cpus, 99);
    }
}

static void truncated_configurations_are_refused(void **unused)
{
    for (size_t cut = 0; cut < strlen(all_keys); cut++) {
        struct vm_config c;
        struct err e;

        assert_true(vm_config_decode(all_keys, cut, &c, &e) < 0);
    }
}

static void a_name_that_is_not_utf8_is_refused(void **unused)
{
    struct vm_config c;
    struct err e;
    char *text;

    vm_config_init(&c);
    c.kernel = strdup("\xff");
    assert_int_equal(vm_config_encode(&c, &text, &e), -EINVAL);
    assert_non_null(strstr(e.text, "UTF-8"));
    vm_config_free(&c);
}

static void the_channel_carries_both_ways(void **unused)
{
    struct vm_ended told = {VM_END_DEBUG_EXIT, 33, "said so"}, heard;
    struct vm_config c, got;
    struct err e;
    int fd[2];

    vm_config_init(&c);
    c.kernel = strdup("kernel");
    assert_int_equal(vm_channel_create(fd, &e), 0);
    assert_int_equal(vm_channel_send_config(fd[0], &c, &e), 0);
    assert_int_equal(vm_channel_recv_config(fd[1], &got, &e), 0);
    assert_string_equal(got.kernel, "kernel");
    assert_int_equal(vm_channel_send_ended(fd[1], &told, &e), 0);
    assert_int_equal(vm_channel_recv_ended(fd[0], &heard, &e), 0);
    assert_int_equal(heard.why, VM_END_DEBUG_EXIT);
    assert_int_equal(heard.value, 33);
    assert_string_equal(heard.text, "said so");
    close(fd[1]);
    assert_int_equal(vm_channel_recv_ended(fd[0], &heard, &e), -EPIPE);
    close(fd[0]);
    vm_config_free(&c);
    vm_config_free(&got);
}

static void a_lying_vm_process_is_not_believed(void **unused)
{
    static const char *const packets[] = {"x",
                                          "{}",
                                          "[]",
                                          "{\"type\":\"ended\",\"why\":\"bored\"}",
                                          "{\"type\":\"ended\",\"why\":\"quit\",\"value\":256}",
                                          "{\"type\":\"ended\",\"why\":\"quit\",\"extra\":1}",
                                          "{\"type\":\"config\",\"why\":\"quit\"}"};
    struct vm_ended heard;
    struct err e;
    int fd[2];

    assert_int_equal(vm_channel_create(fd, &e), 0);
    for (size_t i = 0; i < ARRAY_SIZE(packets); i++) {
        assert_int_equal(send(fd[1], packets[i], strlen(packets[i]), 0), strlen(packets[i]));
        assert_true(vm_channel_recv_ended(fd[0], &heard, &e) < 0);
    }
    close(fd[0]);
    close(fd[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_round_trips),
        cmocka_unit_test(absent_keys_keep_the_defaults),
        cmocka_unit_test(strange_configurations_are_refused),
        cmocka_unit_test(truncated_configurations_are_refused),
        cmocka_unit_test(a_name_that_is_not_utf8_is_refused),
        cmocka_unit_test(the_channel_carries_both_ways),
        cmocka_unit_test(a_lying_vm_process_is_not_believed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
