/* The description of one VM and its JSON form: see vm_config.h. */
#include "proto/vm_config.h"

#include "proto/json_fields.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *const vm_engine_names[] = {"auto", "interp", "jit", "kvm", "lockstep", NULL};
const char *const vm_stress_names[] = {"hot", "flush", "evict", "smc", "rename", NULL};
const char *const vm_windows_names[] = {"auto", "off", "always", NULL};
const char *const vm_disk_format_names[] = {"auto", "raw", "qcow2", NULL};
const char *const vm_console_kind_names[] = {"none", "stdio", "file", NULL};
const char *const vm_gdb_arch_names[] = {"auto", "i386", "x86-64", NULL};

/* clang-format off: tables read best one field a line */
#define FIELD(T, key, kind, min, max) {#key, JSON_FIELD_##kind, offsetof(T, key), min, max, NULL}
#define FIELD_NAME(T, key, names) {#key, JSON_FIELD_NAME, offsetof(T, key), 0, 0, names}
#define FIELD_END {0}

static const struct json_field config_fields[] = {
    FIELD(struct vm_config, memory, U64, VM_MEMORY_MIN, VM_MEMORY_MAX),
    FIELD(struct vm_config, cpus, INT, 1, VM_CPUS_MAX),
    FIELD_NAME(struct vm_config, engine, vm_engine_names),
    FIELD(struct vm_config, stress, U32, 0, (1u << VM_STRESS_COUNT) - 1),
    FIELD_NAME(struct vm_config, windows, vm_windows_names),
    FIELD(struct vm_config, cpu_model, TEXT, 0, VM_MODEL_MAX),
    FIELD(struct vm_config, kernel, TEXT, 0, VM_TEXT_MAX),
    FIELD(struct vm_config, initrd, TEXT, 0, VM_TEXT_MAX),
    FIELD(struct vm_config, append, TEXT, 0, VM_TEXT_MAX),
    FIELD(struct vm_config, net, BOOL, 0, 0),
    FIELD(struct vm_config, debug_exit, BOOL, 0, 0),
    FIELD(struct vm_config, pc_testdev, BOOL, 0, 0),
    FIELD(struct vm_config, pci_testdev, BOOL, 0, 0),
    FIELD(struct vm_config, rng, BOOL, 0, 0),
    FIELD(struct vm_config, balloon, BOOL, 0, 0),
    FIELD(struct vm_config, no_reboot, BOOL, 0, 0),
    FIELD(struct vm_config, timeout_ms, U64, 0, INT32_MAX),
    FIELD(struct vm_config, slow_clock, U64, 0, VM_SLOW_CLOCK_MAX),
    FIELD(struct vm_config, trace, TEXT, 0, VM_TEXT_MAX),
    FIELD(struct vm_config, dump, TEXT, 0, VM_TEXT_MAX),
    FIELD(struct vm_config, dump_file, TEXT, 0, VM_TEXT_MAX),
    FIELD(struct vm_config, profile, TEXT, 0, VM_TEXT_MAX),
    FIELD(struct vm_config, trace_insns, TEXT, 0, VM_TEXT_MAX),
    FIELD(struct vm_config, trace_insns_from, U64, 0, INT64_MAX),
    FIELD(struct vm_config, trace_insns_count, U64, 0, INT64_MAX),
    FIELD(struct vm_config, trace_insns_regs, BOOL, 0, 0),
    FIELD(struct vm_config, gdb, TEXT, 0, VM_TEXT_MAX),
    FIELD(struct vm_config, gdb_wait, BOOL, 0, 0),
    FIELD_NAME(struct vm_config, gdb_arch, vm_gdb_arch_names),
    FIELD_END,
};
static const char *const nested_keys[] = {"disks", "forwards", "serial", "virtio_console", "debugcon", NULL};

static const struct json_field disk_fields[] = {
    FIELD(struct vm_disk, path, TEXT, 0, VM_TEXT_MAX),
    FIELD_NAME(struct vm_disk, format, vm_disk_format_names),
    FIELD(struct vm_disk, readonly, BOOL, 0, 0),
    FIELD(struct vm_disk, snapshot, BOOL, 0, 0),
    FIELD(struct vm_disk, serial, TEXT, 0, VM_SERIAL_MAX),
    FIELD_END,
};

static const struct json_field forward_fields[] = {
    FIELD(struct vm_forward, udp, BOOL, 0, 0),
    FIELD(struct vm_forward, host_addr, U32, 0, UINT32_MAX),
    FIELD(struct vm_forward, host_port, INT, 1, 65535),
    FIELD(struct vm_forward, guest_port, INT, 1, 65535),
    FIELD_END,
};

static const struct json_field console_fields[] = {
    FIELD_NAME(struct vm_console, kind, vm_console_kind_names),
    FIELD(struct vm_console, path, TEXT, 0, VM_TEXT_MAX),
    FIELD_END,
};

/* clang-format on */

int vm_name_find(const char *const *names, const char *name)
{
    for (int i = 0; names[i]; i++)
        if (!strcmp(names[i], name))
            return i;
    return -1;
}

void vm_config_init(struct vm_config *c)
{
    *c = (struct vm_config){.memory = MIB(512), .cpus = 1, .net = true, .serial.kind = VM_CONSOLE_STDIO};
}

void vm_config_free(struct vm_config *c)
{
    json_fields_free(config_fields, c);
    for (int i = 0; i < VM_DISKS_MAX; i++)
        json_fields_free(disk_fields, &c->disk[i]);
    json_fields_free(console_fields, &c->serial);
    json_fields_free(console_fields, &c->virtio_console);
    json_fields_free(console_fields, &c->debugcon);
    *c = (struct vm_config){0};
}

/* An array of `count` structs of `size` bytes. */
static json_t *list_encode(const struct json_field *fields, const void *from, int count, size_t size)
{
    json_t *list = json_array();

    for (int i = 0; list && i < count; i++)
        if (json_array_append_new(list, json_fields_encode(fields, (const char *)from + (size_t)i * size))) {
            json_decref(list);
            return NULL;
        }
    return list;
}

/* json_object_set_new frees the value and fails when either is NULL, so one test at the end sees every failure. */
static int nested_encode(json_t *object, const struct vm_config *c)
{
    return json_object_set_new(object, "disks", list_encode(disk_fields, c->disk, c->disk_count, sizeof(c->disk[0]))) |
           json_object_set_new(object, "forwards",
                               list_encode(forward_fields, c->forward, c->forward_count, sizeof(c->forward[0]))) |
           json_object_set_new(object, "serial", json_fields_encode(console_fields, &c->serial)) |
           json_object_set_new(object, "virtio_console", json_fields_encode(console_fields, &c->virtio_console)) |
           json_object_set_new(object, "debugcon", json_fields_encode(console_fields, &c->debugcon));
}

int vm_config_encode(const struct vm_config *c, char **ret, struct err *e)
{
    json_t *object = json_fields_encode(config_fields, c);
    char *text = NULL;

    if (!nested_encode(object, c))
        text = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    if (!text)
        return err_set(e, -EINVAL, "a file name or the kernel command line is not valid UTF-8; rename the file");
    *ret = text;
    return 0;
}

/* Decodes an array of at most `max` structs of `size` bytes at `to`; *ret_count follows what was stored. */
static int list_decode(const struct json_field *fields, const json_t *root, const char *key, void *to, size_t size,
                       int max, int *ret_count, struct err *e)
{
    const json_t *list = json_object_get(root, key);

    if (!list)
        return 0;
    if (!json_is_array(list) || json_array_size(list) > (size_t)max)
        return err_set(e, -EINVAL, "'%s' must be a list of at most %d", key, max);
    for (*ret_count = 0; *ret_count < (int)json_array_size(list); ++*ret_count)
        if (json_fields_decode(fields, json_array_get(list, (size_t)*ret_count), NULL,
                               (char *)to + (size_t)*ret_count * size, e)) {
            err_prefix(e, "'%s'", key);
            return e->code;
        }
    return 0;
}

static int console_decode(const json_t *root, const char *key, struct vm_console *to, struct err *e)
{
    const json_t *object = json_object_get(root, key);

    if (!object)
        return 0;
    if (!json_fields_decode(console_fields, object, NULL, to, e))
        return 0;
    err_prefix(e, "'%s'", key);
    return e->code;
}

static int root_decode(const json_t *root, struct vm_config *c, struct err *e)
{
    if (json_fields_decode(config_fields, root, nested_keys, c, e) ||
        list_decode(disk_fields, root, "disks", c->disk, sizeof(c->disk[0]), VM_DISKS_MAX, &c->disk_count, e) ||
        list_decode(forward_fields, root, "forwards", c->forward, sizeof(c->forward[0]), VM_FORWARDS_MAX,
                    &c->forward_count, e) ||
        console_decode(root, "serial", &c->serial, e) ||
        console_decode(root, "virtio_console", &c->virtio_console, e) ||
        console_decode(root, "debugcon", &c->debugcon, e))
        return e->code;
    return vm_config_check(c, e);
}

int vm_config_decode(const char *text, size_t len, struct vm_config *ret, struct err *e)
{
    struct vm_config c;
    json_error_t where;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);

    if (!root)
        return err_set(e, -EINVAL, "configuration is not JSON: %s (byte %d)", where.text, where.position);
    vm_config_init(&c);
    if (root_decode(root, &c, e)) {
        err_prefix(e, "configuration");
        vm_config_free(&c);
    } else {
        *ret = c;
        e->code = 0;
    }
    json_decref(root);
    return e->code;
}

static int console_check(const struct vm_console *console, const char *name, const char **stdio_owner, struct err *e)
{
    if (console->kind == VM_CONSOLE_FILE && (!console->path || !*console->path))
        return err_set(e, -EINVAL, "%s: no file named", name);
    if (console->kind != VM_CONSOLE_STDIO)
        return 0;
    if (*stdio_owner)
        return err_set(e, -EINVAL, "%s and %s both want the terminal; give one of them a file, or --serial none",
                       *stdio_owner, name);
    *stdio_owner = name;
    return 0;
}

int vm_config_check(const struct vm_config *c, struct err *e)
{
    const char *stdio_owner = NULL;

    if (c->memory % MIB(1))
        return err_set(e, -EINVAL, "--memory must be a whole number of MiB, as 512M");
    if (!c->kernel)
        return err_set(e, -EINVAL, "nothing to boot: name the guest's kernel with --kernel FILE");
    if (c->forward_count && !c->net)
        return err_set(e, -EINVAL, "-p forwards a port into the guest's network; leave out --net none");
    if (c->gdb && !strchr(c->gdb, ':') && !strchr(c->gdb, '/'))
        return err_set(e, -EINVAL, "--gdb: '%s' must be HOST:PORT, :PORT, or the path of a socket (with a slash)", c->gdb);
    for (int i = 0; i < c->disk_count; i++) {
        if (!c->disk[i].path || !*c->disk[i].path)
            return err_set(e, -EINVAL, "--disk: no file named");
        if (c->disk[i].readonly && c->disk[i].snapshot)
            return err_set(e, -EINVAL, "--disk %s: readonly and snapshot exclude each other; drop one",
                           c->disk[i].path);
    }
    for (int i = 0; i < c->forward_count; i++)
        if (!c->forward[i].host_port || !c->forward[i].guest_port)
            return err_set(e, -EINVAL, "-p: a port is missing");
    if (console_check(&c->serial, "--serial", &stdio_owner, e) ||
        console_check(&c->virtio_console, "--device virtio-console", &stdio_owner, e) ||
        console_check(&c->debugcon, "--device debugcon", &stdio_owner, e))
        return e->code;
    return 0;
}
