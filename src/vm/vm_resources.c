/* A VM's host resources: see vm_resources.h. */
#include "vm/vm_resources.h"

#include "base/dump.h"
#include "base/log.h"
#include "debug/gdb_listen.h"
#include "disk/disk.h"
#include "firmware/linux_boot.h"
#include "net/net.h"
#include "ui/console.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int disks_open(const struct vm_config *c, struct event_loop *loop, struct vm_resources *r, struct err *e)
{
    static const enum disk_format formats[] = {
        [VM_DISK_AUTO] = DISK_FORMAT_AUTO, [VM_DISK_RAW] = DISK_FORMAT_RAW, [VM_DISK_QCOW2] = DISK_FORMAT_QCOW2};

    for (int i = 0; i < c->disk_count; i++) {
        const struct vm_disk *d = &c->disk[i];
        struct disk_options options = {.format = formats[d->format], .readonly = d->readonly, .snapshot = d->snapshot};

        if (disk_open(d->path, &options, loop, &r->disk[i], e))
            return e->code;
    }
    return 0;
}

static int net_open(const struct vm_config *c, struct event_loop *loop, struct vm_resources *r, struct err *e)
{
    struct net_forward forward[VM_FORWARDS_MAX];
    struct net_user_config config = {.forward = forward, .forward_count = c->forward_count};

    if (!c->net)
        return 0;
    for (int i = 0; i < c->forward_count; i++)
        forward[i] = (struct net_forward){.udp = c->forward[i].udp,
                                          .host_addr = c->forward[i].host_addr,
                                          .host_port = (u16)c->forward[i].host_port,
                                          .guest_port = (u16)c->forward[i].guest_port};
    return net_user_create(&config, loop, &r->net, e);
}

static int file_console_open(const struct vm_console *c, struct console **ret, struct err *e)
{
    return c->kind == VM_CONSOLE_FILE ? console_file_create(c->path, ret, e) : 0;
}

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;

    return a && b && !stat(a, &x) && !stat(b, &y) && !S_ISCHR(x.st_mode) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* A file for output must not be one that the guest starts from. */
static int output_check(const struct vm_config *c, const struct vm_console *out, struct err *e)
{
    const char *path = out->kind == VM_CONSOLE_FILE ? out->path : NULL;

    if (same_file(path, c->kernel) || same_file(path, c->initrd))
        return err_set(e, -EINVAL, "console '%s' is what the guest boots from; name another file for its output", path);
    for (int i = 0; i < c->disk_count; i++)
        if (same_file(path, c->disk[i].path))
            return err_set(e, -EINVAL, "console '%s' is a disk of the guest; name another file for its output", path);
    return 0;
}

static int outputs_check(const struct vm_config *c, struct err *e)
{
    const char *const files[] = {c->trace_insns, c->dump_file, c->profile};

    if (output_check(c, &c->serial, e) || output_check(c, &c->virtio_console, e) || output_check(c, &c->debugcon, e))
        return e->code;
    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        if (files[i] && output_check(c, &(struct vm_console){.kind = VM_CONSOLE_FILE, .path = (char *)files[i]}, e))
            return e->code;
    return 0;
}

/* Files first: opening the terminal puts it into raw mode. */
static int consoles_open(const struct vm_config *c, struct event_loop *loop, void (*quit)(void *ctx), void *ctx,
                         struct vm_resources *r, struct err *e)
{
    struct console **stdio = c->serial.kind == VM_CONSOLE_STDIO           ? &r->serial
                             : c->virtio_console.kind == VM_CONSOLE_STDIO ? &r->virtio_console
                             : c->debugcon.kind == VM_CONSOLE_STDIO       ? &r->debugcon
                                                                          : NULL;

    if (file_console_open(&c->serial, &r->serial, e) || file_console_open(&c->virtio_console, &r->virtio_console, e) ||
        file_console_open(&c->debugcon, &r->debugcon, e))
        return e->code;
    return stdio ? console_stdio_create(loop, quit, ctx, stdio, e) : 0;
}

static int gdb_open(const struct vm_config *c, struct vm_resources *r, struct err *e)
{
    char shown[128];

    r->gdb_fd = -1;
    if (!c->gdb)
        return 0;
    if (gdb_listen(c->gdb, &r->gdb_fd, shown, e))
        return e->code;
    if (strchr(c->gdb, '/'))
        r->gdb_path = strdup(c->gdb);
    log_info("gdb can connect now: target remote %s", shown);
    return 0;
}

/* A file for much text, what it holds left alone until vm_resources_begin(). `path` NULL: none. */
static int text_open(const char *option, const char *path, FILE **ret, struct err *e)
{
    int fd;

    if (!path)
        return 0;
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return err_set(e, -errno, "%s: cannot write '%s': %s", option, path, strerror(errno));
    *ret = fdopen(fd, "w");
    assert(*ret);
    setvbuf(*ret, NULL, _IOFBF, MIB(1));
    return 0;
}

/* perf finds guest code in a file of this name, beside the table. */
static int jitdump_open(const char *table, FILE **ret, struct err *e)
{
    const char *slash = strrchr(table, '/');
    char path[VM_TEXT_MAX + 32];
    int fd;

    snprintf(path, sizeof(path), "%.*sjit-%d.dump", slash ? (int)(slash + 1 - table) : 0, table, (int)getpid());
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return err_set(e, -errno, "--profile: cannot write '%s': %s", path, strerror(errno));
    *ret = fdopen(fd, "w+");
    assert(*ret);
    log_info("profile: guest code for perf in %s; record with 'perf record -k mono -p %d'", path, (int)getpid());
    return 0;
}

static int profile_open(const struct vm_config *c, struct vm_resources *r, struct err *e)
{
    if (!c->profile)
        return 0;
    if (text_open("--profile", c->profile, &r->profile, e) || jitdump_open(c->profile, &r->jitdump, e))
        return e->code;
    return 0;
}

static int texts_open(const struct vm_config *c, struct vm_resources *r, struct err *e)
{
    if (text_open("--trace-insns", c->trace_insns, &r->trace_insns, e) ||
        text_open("--dump-file", c->dump_file, &r->dump, e) || profile_open(c, r, e))
        return e->code;
    dump_set_file(r->dump);
    return 0;
}

int vm_resources_open(const struct vm_config *c, struct event_loop *loop, void (*quit)(void *ctx), void *ctx,
                      struct vm_resources *r, struct err *e)
{
    if (gdb_open(c, r, e) || boot_image_create(c->kernel, c->initrd, c->append, &r->boot, e) || outputs_check(c, e) ||
        texts_open(c, r, e) || net_open(c, loop, r, e) || disks_open(c, loop, r, e) || consoles_open(c, loop, quit, ctx, r, e))
        return e->code;
    return 0;
}

void vm_resources_begin(struct vm_resources *r)
{
    struct console *const all[] = {r->serial, r->virtio_console, r->debugcon};
    FILE *const texts[] = {r->trace_insns, r->dump, r->profile};

    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        if (all[i])
            console_begin(all[i]);
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        if (texts[i] && ftruncate(fileno(texts[i]), 0))
            log_warn("what a file for output held before stays behind the end: %s", strerror(errno));
}

void vm_resources_close(struct vm_resources *r)
{
    FILE *const texts[] = {r->trace_insns, r->dump, r->profile};

    dump_set_file(NULL);
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        if (texts[i])
            fclose(texts[i]);
    if (r->jitdump)
        fclose(r->jitdump);
    if (r->gdb_path)
        unlink(r->gdb_path);
    free(r->gdb_path);
    if (r->gdb_fd >= 0)
        close(r->gdb_fd);
    console_free(r->serial);
    console_free(r->virtio_console);
    console_free(r->debugcon);
    net_free(r->net);
    for (int i = 0; i < VM_DISKS_MAX; i++)
        disk_close(r->disk[i]);
    boot_image_free(r->boot);
}
