/* A debugger's conversation with real vCPUs that run one after the other: packets in, replies out. */
#include "cpu_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "debug/gdb_session.h"

#define CODE 0x8000u
#define DATA 0x9000u

static struct cpu_fixture f;
static struct gdb_session *s;
static struct gdb_reply reply;
static int pauses, resets, kills;

static void pause_group(void *ctx)
{
    pauses++;
    vcpu_group_stop(f.group);
}

static void count_reset(void *ctx) { resets++; }
static void count_kill(void *ctx) { kills++; }

static const struct gdb_host host = {.pause = pause_group, .reset = count_reset, .kill = count_kill};

static void begin(const char *model, int cpus)
{
    cpu_fixture_create(&f, cpus, model);
    cpu_long64(&f);
    s = gdb_session_create(f.group, &host, &(struct gdb_wishes){0});
    assert_non_null(s);
}

static int setup(void **unused)
{
    begin("x86-64-v3", 2);
    return 0;
}

static int teardown(void **unused)
{
    gdb_session_free(s);
    cpu_fixture_free(&f);
    return 0;
}

static enum gdb_answer say(const char *packet)
{
    memset(&reply, 0, sizeof(reply));
    return gdb_session_packet(s, packet, strlen(packet), &reply);
}

/* A packet and its whole reply. */
static void ask(const char *packet, const char *want)
{
    assert_int_equal(say(packet), GDB_REPLY);
    if (strlen(want) != reply.len || memcmp(reply.text, want, reply.len))
        fail_msg("'%s' got '%.*s' instead of '%s'", packet, (int)reply.len, reply.text, want);
}

/* A packet that lets the vCPUs run, and the reply to their stop. They run one after the other. */
static void run(const char *packet, const char *want)
{
    assert_int_equal(say(packet), GDB_RESUME);
    do {
        vcpu_group_resume(f.group);
        for (int n = 0; n < vcpu_count(f.group); n++)
            vcpu_run(vcpu_get(f.group, n));
        memset(&reply, 0, sizeof(reply));
    } while (gdb_session_stopped(s, &reply) == GDB_RESUME);
    if (strlen(want) != reply.len || memcmp(reply.text, want, reply.len))
        fail_msg("'%s' stopped with '%.*s' instead of '%s'", packet, (int)reply.len, reply.text, want);
}

static void program(const void *bytes, size_t len)
{
    assert_int_equal(guest_memory_write(f.mem, CODE, bytes, len), 0);
    f.c->s.gpr[RIP] = CODE;
}

/* The number of a register, as the description has it. */
static int number_of(const char *name)
{
    char wanted[32];
    const char *at;

    snprintf(wanted, sizeof(wanted), "<reg name=\"%s\"", name);
    at = strstr(s->description, wanted);
    assert_non_null(at);
    return atoi(strstr(at, "regnum=\"") + 8);
}

static void register_ask(const char *name, const char *want)
{
    char packet[16];

    snprintf(packet, sizeof(packet), "p%x", number_of(name));
    ask(packet, want);
}

static void register_set(const char *name, const char *hex, const char *want)
{
    char packet[256];

    snprintf(packet, sizeof(packet), "P%x=%s", number_of(name), hex);
    ask(packet, want);
}

static void registers_have_names(void **unused)
{
    f.c->s.gpr[RAX] = 0x1122334455667788;
    register_ask("rax", "8877665544332211");
    register_ask("rip", "0080000000000000");
    register_ask("cs", "78000000");
    register_ask("cr0", "3100008000000000");
    assert_non_null(strstr(s->description, "i386:x86-64"));
    assert_non_null(strstr(s->description, "ymm15h"));
    assert_null(strstr(s->description, "zmm0h")); /* not in x86-64-v3 */
    ask("pfff", GDB_ERROR_ARGUMENT);
}

static void registers_are_written(void **unused)
{
    register_set("r15", "0100000000000080", "OK");
    assert_int_equal(f.c->s.gpr[R15], 0x8000000000000001);
    register_set("xmm3", "00112233445566778899aabbccddeeff", "OK");
    register_ask("xmm3", "00112233445566778899aabbccddeeff");
    register_set("ymm3h", "ffeeddccbbaa99887766554433221100", "OK");
    register_ask("ymm3h", "ffeeddccbbaa99887766554433221100");
    register_set("st2", "00000000000000c00040", "OK"); /* 3.0 */
    register_ask("st2", "00000000000000c00040");
    register_set("ftag", "ffff0000", "OK");
    register_ask("ftag", "ffff0000");
    register_set("eflags", "d50e0000", "OK");
    register_ask("eflags", "d70e0000");
    register_set("rax", "00", GDB_ERROR_ARGUMENT);
}

/* What no guest could set is refused, and changes nothing. */
static void hostile_values_are_refused(void **unused)
{
    struct vcpu_state before = f.c->s;
    static const struct {
        const char *name, *hex;
    } bad[] = {
        {"rip", "0000000000000080"},    {"fs_base", "0000000000000080"}, {"gs_base", "000000000000f0ff"}, {"mxcsr", "ffffffff"},
        {"cr0", "0000008000000000"},    {"cr0", "0100000000000000"},     {"cr4", "ffffffffffffffff"},     {"cr3", "ffffffffffffffff"},
        {"efer", "ffffffffffffffff"},   {"efer", "0000000000000000"},    {"cr8", "1000000000000000"},     {"dr7", "ffffffffffffffff"},
        {"cs", "10000000"},             {"cs", "00000000"},              {"cs", "ffff0000"},              {"ss", "78000000"},
        {"ds", "f8ff0000"},             {"ds", "10000100"},              {"eflags", "02000200"},          {"cpl", "0300000000000000"},
        {"gdtr_base", "0100000000000000"}, {"k_gs_base", "0000000000000080"}, {"xcr0", "0700000000000000"},
    };

    for (size_t n = 0; n < ARRAY_SIZE(bad); n++) {
        print_message("%s = %s\n", bad[n].name, bad[n].hex);
        register_set(bad[n].name, bad[n].hex, GDB_ERROR_ARGUMENT);
    }
    assert_memory_equal(&before, &f.c->s, sizeof(before));
}

static void all_registers_at_once(void **unused)
{
    static char packet[GDB_PACKET_MAX + 1];

    assert_int_equal(say("g"), GDB_REPLY);
    packet[0] = 'G';
    memcpy(packet + 1, reply.text, reply.len);
    packet[1 + reply.len] = 0;
    ask(packet, "OK");
    memcpy(packet + 1, "78563412", 8);
    ask(packet, "OK");
    assert_int_equal(f.c->s.gpr[RAX], 0x12345678);
    packet[reply.len + 100] = 'x';
    ask(packet, GDB_ERROR_ARGUMENT);
    ask("G12", GDB_ERROR_ARGUMENT);
}

static void memory(void **unused)
{
    ask("M9000,4:01020304", "OK");
    ask("m9000,4", "01020304");
    ask("m3ffffe,8", "0000");
    ask("m400000,1", GDB_ERROR_MEMORY);
    ask("m8000000000000000,1", GDB_ERROR_MEMORY);
    ask("M3fffff,2:0000", GDB_ERROR_MEMORY);
    ask("M9000,4:010203", GDB_ERROR_ARGUMENT);
    ask("m9000", GDB_ERROR_ARGUMENT);
    ask("X9000,0:", "OK");
    ask("X9000,2:ab", "OK");
    ask("X9000,3:ab", GDB_ERROR_ARGUMENT);
    ask("m9000,4", "61620304");
}

static void physical_memory(void **unused)
{
    ram_put(&f, PAGES_AT + 0x2008, 8, 0x87); /* 2 MiB and up shows what is at 0 */
    ask("M209000,1:55", "OK");
    ask("m9000,1", "55");
    ask("Qqemu.PhyMemMode:1", "OK");
    ask("qqemu.PhyMemMode", "1");
    ask("m209000,1", "00");
    assert_int_equal(say("qRcmd,70687973206f6666"), GDB_REPLY); /* phys off */
    ask("m209000,1", "55");
}

static void steps_and_breakpoints(void **unused)
{
    program("\xff\xc0\xff\xc3\xeb\xfa", 6); /* inc eax; inc ebx; jmp CODE */
    ask("?", "T05thread:1;");
    run("vCont;s:1", "T05thread:1;");
    ask("Z0,8000,1", "OK");
    run("vCont;c:1", "T05thread:1;swbreak:;");
    ask("Z1,8000,1", "OK");
    ask("z0,8000,1", "OK");
    ask("z0,8000,1", GDB_ERROR_ARGUMENT);
    run("c", "T05thread:1;hwbreak:;");
    ask("z1,8000,1", "OK");
    assert_int_equal(f.c->s.gpr[RAX], 2);
    run("s", "T05thread:1;");
    register_ask("rip", "0280000000000000");
    ask("Z5,8000,1", GDB_ERROR_ARGUMENT);
    ask("Z0,8000", GDB_ERROR_ARGUMENT);
    ask("Z2,8000,0", GDB_ERROR_ARGUMENT);
}

/* A step over a range is one stop. */
static void ranges(void **unused)
{
    program("\xff\xc0\xff\xc3\x90\xeb\xfe", 7);
    run("vCont;r8000,8004:1", "T05thread:1;");
    register_ask("rip", "0480000000000000");
}

static void watchpoints(void **unused)
{
    program("\x89\x04\x25\x00\x90\x00\x00\x8b\x04\x25\x04\x90\x00\x00\xeb\xfe", 16);
    ask("Z2,9000,4", "OK");
    ask("Z4,9004,4", "OK");
    run("c", "T05thread:1;watch:9000;");
    run("c", "T05thread:1;awatch:9004;");
    ask("z2,9000,4", "OK");
    ask("z4,9004,4", "OK");
}

/* Both vCPUs write to the watched place in one go: both are told, one by one. */
static void two_vcpus_stop_at_once(void **unused)
{
    struct vcpu *other = vcpu_get(f.group, 1);

    program("\x89\x04\x25\x00\x90\x00\x00\xeb\xfe", 9);
    other->s = f.c->s;
    vcpu_mode_update(other);
    ask("Z2,9000,4", "OK");
    assert_int_equal(say("vCont;c"), GDB_RESUME);
    for (int n = 0; n < 2; n++) {
        vcpu_group_resume(f.group);
        vcpu_run(vcpu_get(f.group, n));
    }
    memset(&reply, 0, sizeof(reply));
    assert_int_equal(gdb_session_stopped(s, &reply), GDB_REPLY);
    assert_memory_equal(reply.text, "T05thread:2;watch:9000;", 23);
    ask("vCont;c", "T05thread:1;watch:9000;");
    run("vCont;s:2", "T05thread:2;");
}

static void threads(void **unused)
{
    ask("qfThreadInfo", "m1,2");
    ask("qsThreadInfo", "l");
    ask("qC", "QC1");
    ask("Hg2", "OK");
    ask("qC", "QC2");
    register_ask("rip", "f0ff000000000000");
    ask("Hg3", GDB_ERROR_ARGUMENT);
    ask("Hc-1", "OK");
    ask("T2", "OK");
    ask("T3", GDB_ERROR_ARGUMENT);
    ask("qThreadExtraInfo,2", "7643505520312c2077616974696e6720666f722053495049"); /* vCPU 1, waiting for SIPI */
}

static void unknown_packets_get_an_empty_reply(void **unused)
{
    static const char *const unknown[] = {"vMustReplyEmpty", "!", "R00", "qSymbol::", "qCRC:0,1", "vFile:open:", "\x80", "B"};

    for (size_t n = 0; n < ARRAY_SIZE(unknown); n++)
        ask(unknown[n], "");
    ask("vCont;x", GDB_ERROR_ARGUMENT);
    ask("vCont", GDB_ERROR_ARGUMENT);
    ask("vCont;c:9", GDB_ERROR_ARGUMENT);
}

static void description_comes_in_pieces(void **unused)
{
    size_t all = strlen(s->description);
    char packet[64];

    ask("qXfer:features:read:other.xml:0,10", "E00");
    assert_int_equal(say("qXfer:features:read:target.xml:0,10"), GDB_REPLY);
    assert_int_equal(reply.text[0], 'm');
    snprintf(packet, sizeof(packet), "qXfer:features:read:target.xml:%zx,10", all - 3);
    assert_int_equal(say(packet), GDB_REPLY);
    assert_memory_equal(reply.text, "lt>\n", 4);
    ask("qXfer:features:read:target.xml:ffffffffffffffff,ffffffffffffffff", "l");
}

static void while_it_runs_only_kill_counts(void **unused)
{
    program("\xeb\xfe", 2);
    assert_int_equal(say("c"), GDB_RESUME);
    ask("g", GDB_ERROR_RUNNING);
    pauses = kills = 0;
    assert_int_equal(say("k"), GDB_SILENCE);
    assert_int_equal(kills, 1);
    gdb_session_interrupt(s);
    assert_int_equal(pauses, 1);
    assert_int_equal(gdb_session_stopped(s, &reply), GDB_REPLY);
    assert_memory_equal(reply.text, "T02thread:1;", 12);
    assert_int_equal(say("D"), GDB_LEAVE);
}

static void old_models_have_few_registers(void **unused)
{
    gdb_session_free(s);
    cpu_fixture_free(&f);
    cpu_fixture_create(&f, 1, "486");
    cpu_flat32(&f);
    s = gdb_session_create(f.group, &host, &(struct gdb_wishes){0});
    assert_non_null(strstr(s->description, "<architecture>i386</architecture>"));
    assert_null(strstr(s->description, "xmm0"));
    register_ask("eip", "00800000");
    register_set("esp", "78563412", "OK");
    assert_int_equal(f.c->s.gpr[RSP], 0x12345678);
    register_set("cs", "08000000", "OK");
    register_set("cs", "60000000", "OK");
    register_set("ds", "23000000", "OK");
    register_set("ss", "23000000", GDB_ERROR_ARGUMENT);
}

static void real_mode_shows_a_linear_pc(void **unused)
{
    vcpu_group_reset(f.group);
    register_ask("rip", "f0ff000000000000");
    assert_int_equal(say("qRcmd,7063206c696e656172"), GDB_REPLY); /* pc linear */
    register_ask("rip", "f0ffffff00000000");
    register_set("rip", "0000ffff00000000", "OK");
    assert_int_equal(f.c->s.gpr[RIP], 0);
    register_set("cs", "34120000", "OK");
    assert_int_equal(f.c->s.seg_base[SEG_CS], 0x12340);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(registers_have_names),
        TEST(registers_are_written),
        TEST(hostile_values_are_refused),
        TEST(all_registers_at_once),
        TEST(memory),
        TEST(physical_memory),
        TEST(steps_and_breakpoints),
        TEST(ranges),
        TEST(watchpoints),
        TEST(two_vcpus_stop_at_once),
        TEST(threads),
        TEST(unknown_packets_get_an_empty_reply),
        TEST(description_comes_in_pieces),
        TEST(while_it_runs_only_kill_counts),
        TEST(old_models_have_few_registers),
        TEST(real_mode_shows_a_linear_pc),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
