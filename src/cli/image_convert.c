/* `skerry image convert`: a copy of a disk in another format. It is written under a temporary name beside its place and
 * renamed when it is complete, so that a copy that was broken off leaves nothing. */
#include "cli/image.h"

#include "base/log.h"
#include "cli/cli.h"
#include "cli/quantity.h"
#include "disk/image_make.h"
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct convert {
    enum disk_format from_format, to_format;
    const char *from, *to;
    bool compress, options;
    struct qcow2_create qcow2;
    int percent; /* shown last */
};

static volatile sig_atomic_t interrupted;

static int set_from_format(void *ctx, const char *value, struct err *e)
{
    return image_format_parse(value, &((struct convert *)ctx)->from_format, e);
}

static int set_to_format(void *ctx, const char *value, struct err *e)
{
    return image_format_parse(value, &((struct convert *)ctx)->to_format, e);
}

static int set_compress(void *ctx, const char *value, struct err *e)
{
    ((struct convert *)ctx)->compress = true;
    return 0;
}

static int set_options(void *ctx, const char *value, struct err *e)
{
    ((struct convert *)ctx)->options = true;
    return image_qcow2_options(value, &((struct convert *)ctx)->qcow2, e);
}

static int operand(void *ctx, const char *arg, struct err *e)
{
    struct convert *c = ctx;

    if (!*arg)
        return err_set(e, -EINVAL, "the name of a disk is empty");
    if (c->to)
        return err_set(e, -EINVAL, "'%s' is one argument too many; see 'skerry image convert --help'", arg);
    *(c->from ? &c->to : &c->from) = arg;
    return 0;
}

static const struct option_spec options[] = {
    {"format", 'f', "FORMAT", set_from_format, "of SOURCE: raw or qcow2 (default: by its content)"},
    {"output-format", 'O', "FORMAT", set_to_format, "of DESTINATION: raw or qcow2; needed"},
    {"compress", 'c', NULL, set_compress, "compress the content (qcow2)"},
    {"options", 'o', "LIST", set_options, image_qcow2_options_help},
    {NULL},
};

static const struct option_set option_set = {"image convert", options, operand};

static void help(void)
{
    printf("skerry image convert: copy a disk into another format.\n\n"
           "Usage: skerry image convert [OPTION]... -O FORMAT SOURCE DESTINATION\n\nOptions:\n");
    option_print(options, stdout);
    printf(
        "\nThe copy holds all content, that of backing disks too, and takes no space for zeros. DESTINATION is replaced only\n"
        "when the copy is complete.\n\nExamples:\n  skerry image convert -O qcow2 -c disk.img disk.qcow2\n"
        "  skerry image convert -O raw try.qcow2 disk.img\n");
}

static int check_usage(const struct convert *c, struct err *e)
{
    if (!c->to)
        return err_set(e, -EINVAL, "which disks? write: skerry image convert -O FORMAT SOURCE DESTINATION");
    if (c->to_format == DISK_FORMAT_AUTO)
        return err_set(e, -EINVAL, "into which format? add -O raw or -O qcow2");
    if (c->to_format == DISK_FORMAT_RAW && (c->compress || c->options))
        return err_set(e, -EINVAL, "a raw disk has no %s; write -O qcow2", c->compress ? "compression" : "options");
    return 0;
}

static bool show_progress(void *ctx, u64 done, u64 total)
{
    struct convert *c = ctx;
    static const char filled[] = "########################################";
    int percent = (int)((u128)done * 100 / total), bar = percent * 40 / 100;
    char size[32];

    if (percent != c->percent && isatty(STDERR_FILENO)) {
        fprintf(stderr, "\r%3d%% [%.*s%*s] of %s ", percent, bar, filled, 40 - bar, "", quantity_format(total, size));
        c->percent = percent;
    }
    return !interrupted;
}

static int fill(struct convert *c, struct image *from, const char *path, struct err *e)
{
    struct image_copy copy = {c->compress, show_progress, c};
    struct image *to;
    int r;

    c->qcow2.size = from->size;
    r = image_make(path, c->to_format, &c->qcow2, e);
    if (!r)
        r = image_open(path, c->to_format, IMAGE_WRITE, &to, e);
    if (r < 0)
        return r;
    r = image_copy(from, to, &copy, e);
    image_close(to);
    if (c->percent)
        fputc('\n', stderr);
    return r;
}

/* A folder, a device or the source itself is not replaced. */
static int check_destination(const struct convert *c, struct image *from, struct err *e)
{
    struct stat old, source;

    if (stat(c->to, &old) < 0)
        return errno == ENOENT ? 0 : err_set(e, -errno, "cannot write to '%s': %s", c->to, strerror(errno));
    if (!S_ISREG(old.st_mode))
        return err_set(e, -EINVAL, "'%s' is there already and no file", c->to);
    if (!fstat(from->fd, &source) && source.st_dev == old.st_dev && source.st_ino == old.st_ino)
        return err_set(e, -EINVAL, "'%s' is both source and destination", c->to);
    return 0;
}

static int replace(struct convert *c, struct image *from, struct err *e)
{
    char path[PATH_MAX];
    int r = check_destination(c, from, e);

    if (r < 0)
        return r;
    if (snprintf(path, sizeof(path), "%s.%d.part", c->to, (int)getpid()) >= (int)sizeof(path))
        return err_set(e, -ENAMETOOLONG, "'%s' is too long a name", c->to);
    r = fill(c, from, path, e);
    if (!r && rename(path, c->to) < 0)
        r = err_set(e, -errno, "cannot rename '%s' to '%s': %s", path, c->to, strerror(errno));
    if (r < 0 && r != -EEXIST)
        unlink(path);
    return r;
}

static void interrupt(int signal)
{
    interrupted = 1;
}

static int convert(struct convert *c, struct err *e)
{
    struct sigaction act = {.sa_handler = interrupt};
    struct image *from;
    int r = image_open(c->from, c->from_format, 0, &from, e);

    if (r < 0)
        return r;
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    r = replace(c, from, e);
    image_close(from);
    return r;
}

int cli_image_convert(int argc, char **argv)
{
    struct convert c = {.qcow2 = QCOW2_CREATE_DEFAULT};
    int status = image_verb_parse(&option_set, argc, argv, &c, help);
    struct err e;

    if (status >= 0)
        return status;
    if (check_usage(&c, &e) < 0)
        status = CLI_USAGE;
    else if (convert(&c, &e) < 0)
        status = CLI_FAILURE;
    else
        return 0;
    log_error("%s", e.text);
    return status;
}
