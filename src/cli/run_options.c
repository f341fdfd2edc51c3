/* Parsing of what `skerry run` is told: see run_options.h. Sentences here do not name the option: option_parse does. */
#include "cli/run_options.h"

#include "base/dump.h"
#include "base/trace.h"
#include "cli/quantity.h"
#include "cli/suggest.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int text_store(char **to, const char *text, struct err *e)
{
    if (!*text)
        return err_set(e, -EINVAL, "empty");
    if (strlen(text) > VM_TEXT_MAX)
        return err_set(e, -EINVAL, "longer than %d bytes", VM_TEXT_MAX);
    free(*to);
    *to = strdup(text);
    return *to ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static int set_kernel(void *ctx, const char *value, struct err *e)
{
    return text_store(&((struct vm_config *)ctx)->kernel, value, e);
}

static int set_initrd(void *ctx, const char *value, struct err *e)
{
    return text_store(&((struct vm_config *)ctx)->initrd, value, e);
}

static int set_append(void *ctx, const char *value, struct err *e)
{
    return text_store(&((struct vm_config *)ctx)->append, value, e);
}

static int set_memory(void *ctx, const char *value, struct err *e)
{
    struct vm_config *c = ctx;
    u64 bytes;

    if (!quantity_size(value, &bytes))
        return err_set(e, -EINVAL, "'%s' is no size; write it as 512M or 2G", value);
    if (bytes < VM_MEMORY_MIN || bytes > VM_MEMORY_MAX || bytes % MIB(1))
        return err_set(e, -EINVAL, "'%s' must be a whole number of MiB, from 1M to 1024G%s", value,
                       bytes < VM_MEMORY_MIN ? " (a number without M or G counts bytes)" : "");
    c->memory = bytes;
    return 0;
}

static int set_cpus(void *ctx, const char *value, struct err *e)
{
    u64 n;

    if (!quantity_number(value, 1, VM_CPUS_MAX, &n))
        return err_set(e, -EINVAL, "'%s' must be a number from 1 to %d", value, VM_CPUS_MAX);
    ((struct vm_config *)ctx)->cpus = (int)n;
    return 0;
}

/* One of a list of names, or a sentence with the nearest, or with all. */
static int name_choose(const char *const *names, const char *value, unsigned *ret, struct err *e)
{
    struct suggestion s = {.word = value};
    char all[128] = "";
    int i = vm_name_find(names, value);

    if (i >= 0) {
        *ret = (unsigned)i;
        return 0;
    }
    for (i = 0; names[i]; i++) {
        suggest_offer(&s, names[i]);
        strncat(all, i ? ", " : "", sizeof(all) - strlen(all) - 1);
        strncat(all, names[i], sizeof(all) - strlen(all) - 1);
    }
    if (suggest_best(&s))
        return err_set(e, -EINVAL, "no '%s'; did you mean %s?", value, suggest_best(&s));
    return err_set(e, -EINVAL, "no '%s'; there are: %s", value, all);
}

static int set_engine(void *ctx, const char *value, struct err *e)
{
    return name_choose(vm_engine_names, value, &((struct vm_config *)ctx)->engine, e);
}

static int set_windows(void *ctx, const char *value, struct err *e)
{
    return name_choose(vm_windows_names, value, &((struct vm_config *)ctx)->windows, e);
}

/* Copies the part of a value with attributes up to the next comma; two commas stand for one in a name. Returns what follows,
 * or NULL. */
static const char *comma_part(const char *value, char *part, size_t size)
{
    size_t n = 0;

    for (; *value; value++) {
        if (*value == ',' && value[1] != ',')
            break;
        value += *value == ',';
        if (n < size - 1)
            part[n++] = *value;
    }
    part[n] = 0;
    return *value ? value + 1 : NULL;
}

static int set_stress(void *ctx, const char *value, struct err *e)
{
    char part[64];

    for (const char *p = value; p;) {
        unsigned kind;

        p = comma_part(p, part, sizeof(part));
        if (name_choose(vm_stress_names, part, &kind, e))
            return e->code;
        ((struct vm_config *)ctx)->stress |= 1u << kind;
    }
    return 0;
}

static int set_model(void *ctx, const char *value, struct err *e)
{
    if (strlen(value) > VM_MODEL_MAX)
        return err_set(e, -EINVAL, "no model has a name as long as '%s'", value);
    return text_store(&((struct vm_config *)ctx)->cpu_model, value, e);
}

static int disk_attribute(struct vm_disk *d, const char *part, struct err *e)
{
    static const char *const names[] = {"format=", "readonly", "snapshot", "serial=", NULL};
    unsigned unused;

    if (!strncmp(part, "format=", 7))
        return name_choose(vm_disk_format_names, part + 7, &d->format, e);
    if (!strncmp(part, "serial=", 7))
        return strlen(part + 7) <= VM_SERIAL_MAX
                   ? text_store(&d->serial, part + 7, e)
                   : err_set(e, -EINVAL, "serial '%s' is longer than %d bytes", part + 7, VM_SERIAL_MAX);
    if (!strcmp(part, "readonly"))
        d->readonly = true;
    else if (!strcmp(part, "snapshot"))
        d->snapshot = true;
    else
        return name_choose(names, part, &unused, e);
    return 0;
}

static int add_disk(void *ctx, const char *value, struct err *e)
{
    struct vm_config *c = ctx;
    struct vm_disk *d = &c->disk[c->disk_count];
    char part[VM_TEXT_MAX + 2];

    if (c->disk_count == VM_DISKS_MAX)
        return err_set(e, -EINVAL, "at most %d disks", VM_DISKS_MAX);
    value = comma_part(value, part, sizeof(part));
    if (text_store(&d->path, part, e))
        return e->code;
    c->disk_count++;
    while (value) {
        value = comma_part(value, part, sizeof(part));
        if (disk_attribute(d, part, e))
            return e->code;
    }
    return 0;
}

static int set_net(void *ctx, const char *value, struct err *e)
{
    static const char *const names[] = {"none", "user", NULL};
    unsigned which;

    if (name_choose(names, value, &which, e))
        return e->code;
    ((struct vm_config *)ctx)->net = which;
    return 0;
}

static int port_parse(const char *text, int *ret, struct err *e)
{
    u64 port;

    if (!quantity_number(text, 1, 65535, &port))
        return err_set(e, -EINVAL, "'%s' is no port; ports are numbers from 1 to 65535", text);
    *ret = (int)port;
    return 0;
}

static int forward_parse(char *text, struct vm_forward *f, struct err *e)
{
    char *protocol = strchr(text, '/'), *guest = strrchr(text, ':'), *host;

    if (protocol) {
        *protocol++ = 0;
        f->udp = !strcmp(protocol, "udp");
        if (!f->udp && strcmp(protocol, "tcp"))
            return err_set(e, -EINVAL, "'/%s' must be /tcp or /udp", protocol);
    }
    if (!guest)
        return err_set(e, -EINVAL, "'%s' must be HOST:GUEST or ADDRESS:HOST:GUEST, as 2222:22", text);
    *guest++ = 0;
    host = strrchr(text, ':');
    if (host) {
        *host++ = 0;
        if (inet_pton(AF_INET, text, &f->host_addr) != 1)
            return err_set(e, -EINVAL, "'%s' is no IPv4 address", text);
    }
    return port_parse(host ? host : text, &f->host_port, e) || port_parse(guest, &f->guest_port, e) ? e->code : 0;
}

static int add_forward(void *ctx, const char *value, struct err *e)
{
    struct vm_config *c = ctx;
    struct vm_forward f = {0};
    char text[64];

    if (c->forward_count == VM_FORWARDS_MAX)
        return err_set(e, -EINVAL, "at most %d forwards", VM_FORWARDS_MAX);
    if (strlen(value) >= sizeof(text))
        return err_set(e, -EINVAL, "'%s' must be HOST:GUEST or ADDRESS:HOST:GUEST, as 2222:22", value);
    strcpy(text, value);
    if (forward_parse(text, &f, e))
        return e->code;
    c->forward[c->forward_count++] = f;
    return 0;
}

/* stdio, none, or the name of a file. */
static int console_choose(struct vm_console *c, const char *value, struct err *e)
{
    if (!strcmp(value, "none") || !strcmp(value, "stdio")) {
        c->kind = *value == 'n' ? VM_CONSOLE_NONE : VM_CONSOLE_STDIO;
        return 0;
    }
    c->kind = VM_CONSOLE_FILE;
    return text_store(&c->path, value, e);
}

static int set_serial(void *ctx, const char *value, struct err *e)
{
    return console_choose(&((struct vm_config *)ctx)->serial, value, e);
}

static int add_device(void *ctx, const char *value, struct err *e)
{
    static const char *const names[] = {"debug-exit",  "pc-testdev", "pci-testdev",    "rng",
                                        "balloon",     "debugcon",   "virtio-console", NULL};
    struct vm_config *c = ctx;
    bool *const plain[] = {&c->debug_exit, &c->pc_testdev, &c->pci_testdev, &c->rng, &c->balloon};
    struct vm_console *const console[] = {&c->debugcon, &c->virtio_console};
    const char *target = strchr(value, '=');
    char name[32];
    unsigned which;

    snprintf(name, sizeof(name), "%.*s", (int)(target ? target - value : (long)strlen(value)), value);
    if (name_choose(names, name, &which, e))
        return e->code;
    if (which >= ARRAY_SIZE(plain))
        return console_choose(console[which - ARRAY_SIZE(plain)], target ? target + 1 : "stdio", e);
    if (target)
        return err_set(e, -EINVAL, "%s takes nothing after =", name);
    *plain[which] = true;
    return 0;
}

static int set_no_reboot(void *ctx, const char *value, struct err *e)
{
    ((struct vm_config *)ctx)->no_reboot = true;
    return 0;
}

static int set_timeout(void *ctx, const char *value, struct err *e)
{
    struct vm_config *c = ctx;

    if (!quantity_seconds(value, INT32_MAX, &c->timeout_ms) || !c->timeout_ms)
        return err_set(e, -EINVAL, "'%s' must be a number of seconds above 0, as 30 or 0.5", value);
    return 0;
}

static int set_slow_clock(void *ctx, const char *value, struct err *e)
{
    struct vm_config *c = ctx;

    if (!quantity_number(value, 1, VM_SLOW_CLOCK_MAX, &c->slow_clock))
        return err_set(e, -EINVAL, "'%s' must be a number from 1 to %d", value, VM_SLOW_CLOCK_MAX);
    return 0;
}

static int set_trace(void *ctx, const char *value, struct err *e)
{
    if (trace_enable(value, e)) /* here only to refuse unknown names early: the VM process traces */
        return e->code;
    return text_store(&((struct vm_config *)ctx)->trace, value, e);
}

static int set_dump(void *ctx, const char *value, struct err *e)
{
    if (dump_enable(value, e)) /* as with --trace */
        return e->code;
    return text_store(&((struct vm_config *)ctx)->dump, value, e);
}

static int set_dump_file(void *ctx, const char *value, struct err *e)
{
    return text_store(&((struct vm_config *)ctx)->dump_file, value, e);
}

static int set_profile(void *ctx, const char *value, struct err *e)
{
    return text_store(&((struct vm_config *)ctx)->profile, value, e);
}

static int gdb_attribute(struct vm_config *c, const char *part, struct err *e)
{
    static const char *const names[] = {"wait", "arch=", NULL};
    unsigned unused;

    if (!strncmp(part, "arch=", 5))
        return name_choose(vm_gdb_arch_names, part + 5, &c->gdb_arch, e);
    if (strcmp(part, "wait"))
        return name_choose(names, part, &unused, e);
    c->gdb_wait = true;
    return 0;
}

static int trace_insns_number(const char *text, u64 *ret, struct err *e)
{
    return quantity_number(text, 0, INT64_MAX, ret) ? 0 : err_set(e, -EINVAL, "'%s' is no number of instructions", text);
}

static int trace_insns_attribute(struct vm_config *c, const char *part, struct err *e)
{
    static const char *const names[] = {"from=", "count=", "regs", NULL};
    unsigned unused;

    if (!strncmp(part, "from=", 5))
        return trace_insns_number(part + 5, &c->trace_insns_from, e);
    if (!strncmp(part, "count=", 6))
        return trace_insns_number(part + 6, &c->trace_insns_count, e);
    if (strcmp(part, "regs"))
        return name_choose(names, part, &unused, e);
    c->trace_insns_regs = true;
    return 0;
}

/* A value with attributes behind commas: the first part goes to *to, each other to `attribute`. */
static int attributes_parse(struct vm_config *c, const char *value, char **to,
                            int (*attribute)(struct vm_config *c, const char *part, struct err *e), struct err *e)
{
    char part[VM_TEXT_MAX + 2];

    value = comma_part(value, part, sizeof(part));
    if (text_store(to, part, e))
        return e->code;
    while (value) {
        value = comma_part(value, part, sizeof(part));
        if (attribute(c, part, e))
            return e->code;
    }
    return 0;
}

static int set_gdb(void *ctx, const char *value, struct err *e)
{
    struct vm_config *c = ctx;

    return attributes_parse(c, value, &c->gdb, gdb_attribute, e);
}

static int set_trace_insns(void *ctx, const char *value, struct err *e)
{
    struct vm_config *c = ctx;

    return attributes_parse(c, value, &c->trace_insns, trace_insns_attribute, e);
}

static const struct option_spec options[] = {
    {"kernel", 0, "FILE", set_kernel,
     "the guest's kernel: a Linux bzImage, an ELF file with a\nPVH note, or a multiboot kernel"},
    {"initrd", 0, "FILE", set_initrd, "its initial RAM disk"},
    {"append", 0, "TEXT", set_append, "its command line, as 'root=/dev/vda console=ttyS0'"},
    {"disk", 0, "FILE[,...]", add_disk,
     "a disk (/dev/vda, /dev/vdb, … in the guest); again for\n"
     "more. After a comma: format=raw or format=qcow2 (else\n"
     "found out), readonly, snapshot (writes are lost at the\n"
     "end), serial=TEXT. A comma in a name is written twice"},
    {"memory", 0, "SIZE", set_memory, "RAM of the guest, as 512M (the default) or 2G"},
    {"cpus", 0, "N", set_cpus, "virtual CPUs, 1 (the default) to 16"},
    {"cpu-engine", 0, "NAME", set_engine,
     "what runs the guest's code: auto (the default: kvm where\n"
     "a short trial shows that it is fast, else jit), interp,\n"
     "jit, kvm, or lockstep: jit checked against interp"},
    {"cpu-windows", 0, "WHEN", set_windows,
     "jit: whether guest programs reach memory through windows,\n"
     "which is faster: auto (the default: busy ones), off, always"},
    {"cpu-model", 0, "NAME", set_model,
     "the CPU that the guest sees: x86-64-v2, x86-64-v3,\n"
     "x86-64-v4, host, 486, pentium; default: the best that\n"
     "this host can back. After commas: +FEATURE, -FEATURE,\n"
     "vendor=NAME, phys-bits=N"},
    {"net", 0, "KIND", set_net,
     "user (the default): the guest reaches the network through\n"
     "the host's; none: no network card"},
    {"publish", 'p', "HOST:GUEST", add_forward,
     "pass connections to port HOST of this host on to port\n"
     "GUEST of the guest; HOST:GUEST/udp for UDP; with\n"
     "ADDRESS:HOST:GUEST on another address than 127.0.0.1"},
    {"serial", 0, "WHERE", set_serial,
     "the first serial port: stdio (the default), none, or a\n"
     "file for its output"},
    {"device", 0, "NAME", add_device,
     "an extra device; again for more: rng, balloon,\n"
     "virtio-console[=WHERE], debugcon[=WHERE] (output of port\n"
     "0xE9), debug-exit (port 0xF4 ends the VM), pc-testdev,\n"
     "pci-testdev (QEMU's, for test guests). WHERE as for\n"
     "--serial, stdio if left out"},
    {"no-reboot", 0, NULL, set_no_reboot, "end the VM where the guest would reset"},
    {"timeout", 0, "SECONDS", set_timeout, "end the VM after that time"},
    {"slow-clock", 0, "N", set_slow_clock,
     "the guest's second takes N of the host's: its timeouts wait\n"
     "where it runs slowly, as under --cpu-engine=lockstep"},
    {"gdb", 0, "ADDR[,...]", set_gdb,
     "let gdb connect (target remote ADDR): HOST:PORT, :PORT on\n"
     "127.0.0.1, or the path of a socket. After a comma: wait\n"
     "(before the first instruction, until gdb lets it go on),\n"
     "arch=i386 (32-bit registers, for 16- and 32-bit guests)"},
    {"stress", 0, "LIST", set_stress,
     "for finding faults of the translator, slow: hot (code is\n"
     "translated when first met), flush (translations are\n"
     "forgotten again and again), evict (there is room for few),\n"
     "smc (code counts as overwritten now and then), rename\n"
     "(blocks choose registers of their own)"},
    {"profile", 0, "FILE", set_profile,
     "at the end, write which blocks of guest code were\n"
     "translated and how often they ran; meanwhile beside it a\n"
     "jitdump, by which perf names guest code"},
    {"dump", 0, "LIST", set_dump,
     "print on stderr what the engine makes of code: guest (its\n"
     "instructions, a block at a time, as they are decoded),\n"
     "host (blocks as they are translated, with the host's code)"},
    {"dump-file", 0, "FILE", set_dump_file, "print it there instead"},
    {"trace-insns", 0, "FILE[,...]", set_trace_insns,
     "write a line for each instruction that retires. After a\n"
     "comma: from=N, count=N (of each vCPU's instructions), regs\n"
     "(also the registers that it changed)"},
    {"trace", 0, "LIST", set_trace, "trace these on stderr, separated by commas, or all:"},
    {0},
};

const struct option_set run_options = {"run", options, NULL};

/* What this process may use at most: the host's RAM, or its control group's limit where that is lower (containers). */
static u64 host_memory(void)
{
    u64 total = (u64)sysconf(_SC_PHYS_PAGES) * (u64)sysconf(_SC_PAGESIZE), limit;
    char text[32] = "";
    int fd = open("/sys/fs/cgroup/memory.max", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

    if (fd >= 0)
        close(fd);
    if (n > 0)
        text[strcspn(text, "\n")] = 0;
    return quantity_number(text, 1, UINT64_MAX, &limit) ? MIN(limit, total) : total;
}

static int memory_check(const struct vm_config *c, struct err *e)
{
    u64 host = host_memory();
    char wanted[32], has[32];

    if (c->memory <= host)
        return 0;
    return err_set(e, -ENOMEM, "--memory: %s is more than this host has (%s); give the guest less",
                   quantity_format(c->memory, wanted), quantity_format(host, has));
}

static int kvm_check(const struct vm_config *c, struct err *e)
{
    if (c->engine != VM_ENGINE_KVM || !access("/dev/kvm", R_OK | W_OK))
        return 0;
    if (errno == EACCES)
        return err_set(e, -EACCES,
                       "no permission for /dev/kvm; join the group kvm ('sudo adduser $USER kvm', then log in "
                       "again) or use --cpu-engine auto");
    return err_set(e, -ENODEV, "this host has no /dev/kvm; use --cpu-engine auto");
}

int run_options_check(const struct vm_config *c, struct err *e)
{
    if (vm_config_check(c, e) || memory_check(c, e) || kvm_check(c, e))
        return e->code;
    return 0;
}
