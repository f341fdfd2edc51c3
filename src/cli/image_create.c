/* `skerry image create`: an empty disk, or an overlay that keeps its changes to another disk apart. */
#include "cli/image.h"

#include "base/log.h"
#include "cli/cli.h"
#include "cli/quantity.h"
#include "disk/image_make.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct create {
    enum disk_format format;
    const char *file, *backing, *backing_format;
    bool sized, options; /* whether a size, and -o, were given */
    struct qcow2_create qcow2;
};

static int set_format(void *ctx, const char *value, struct err *e)
{
    return image_format_parse(value, &((struct create *)ctx)->format, e);
}

static int set_backing(void *ctx, const char *value, struct err *e)
{
    ((struct create *)ctx)->backing = value;
    return *value ? 0 : err_set(e, -EINVAL, "empty");
}

static int set_backing_format(void *ctx, const char *value, struct err *e)
{
    enum disk_format unused;

    ((struct create *)ctx)->backing_format = value;
    return image_format_parse(value, &unused, e);
}

static int set_options(void *ctx, const char *value, struct err *e)
{
    ((struct create *)ctx)->options = true;
    return image_qcow2_options(value, &((struct create *)ctx)->qcow2, e);
}

static int operand(void *ctx, const char *arg, struct err *e)
{
    struct create *c = ctx;

    if (!c->file) {
        c->file = arg;
        return *arg ? 0 : err_set(e, -EINVAL, "the name of the disk is empty");
    }
    if (c->sized)
        return err_set(e, -EINVAL, "'%s' is one argument too many; see 'skerry image create --help'", arg);
    if (!quantity_size(arg, &c->qcow2.size))
        return err_set(e, -EINVAL, "'%s' is no size; write it as 20G", arg);
    if (c->qcow2.size % SECTOR_SIZE)
        return err_set(e, -EINVAL, "'%s' must be a multiple of 512 bytes", arg);
    c->sized = true;
    return 0;
}

static const struct option_spec options[] = {
    {"format", 'f', "FORMAT", set_format, "raw (default) or qcow2"},
    {"backing", 'b', "DISK", set_backing,
     "the disk whose content shows where the new one has none\nof its own; a relative "
     "name starts at the new disk's folder"},
    {"backing-format", 'F', "FORMAT", set_backing_format, "its format (default: by its content)"},
    {"options", 'o', "LIST", set_options, image_qcow2_options_help},
    {NULL},
};

static const struct option_set option_set = {"image create", options, operand};

static void help(void)
{
    printf("skerry image create: make an empty disk, or an overlay over another one.\n\n"
           "Usage: skerry image create [OPTION]... FILE SIZE\n\nOptions:\n");
    option_print(options, stdout);
    printf(
        "\nSIZE is in bytes, or with K, M, G or T. An overlay (-b) takes the size of its backing disk when none is given.\n"
        "The backing disk must not change any more once it has overlays.\n\nExamples:\n"
        "  skerry image create data.img 8G\n  skerry image create -f qcow2 data.qcow2 20G\n"
        "  skerry image create -f qcow2 -b debian.qcow2 try.qcow2\n");
}

static int check_usage(const struct create *c, struct err *e)
{
    if (!c->file)
        return err_set(e, -EINVAL, "which disk? write: skerry image create FILE SIZE");
    if (c->format != DISK_FORMAT_QCOW2 && (c->backing || c->options))
        return err_set(e, -EINVAL, "a raw disk has no %s; add -f qcow2", c->backing ? "backing disk" : "options");
    if (c->backing_format && !c->backing)
        return err_set(e, -EINVAL, "-F needs a backing disk: -b DISK");
    if (!c->sized && !c->backing)
        return err_set(e, -EINVAL, "how large? write: skerry image create %s SIZE", c->file);
    return 0;
}

/* The backing disk must be there and readable now, so that the mistake shows now. Its format is stored: to find it by
 * the content at each opening would let whoever writes to it choose it. */
static int look_at_backing(struct create *c, struct err *e)
{
    struct image *img;
    int r = image_open_backing(c->file, c->backing, c->backing_format ? c->backing_format : "", 0, NULL, &img, e);

    if (r < 0)
        return r;
    if (!c->sized)
        c->qcow2.size = img->size;
    c->qcow2.backing = c->backing;
    c->qcow2.backing_format = img->ops->name;
    image_close(img);
    return 0;
}

int cli_image_create(int argc, char **argv)
{
    struct create c = {.format = DISK_FORMAT_RAW, .qcow2 = QCOW2_CREATE_DEFAULT};
    int status = image_verb_parse(&option_set, argc, argv, &c, help);
    struct err e;

    if (status >= 0)
        return status;
    if (check_usage(&c, &e) < 0)
        status = CLI_USAGE;
    else if ((c.backing && look_at_backing(&c, &e) < 0) || image_make(c.file, c.format, &c.qcow2, &e) < 0)
        status = CLI_FAILURE;
    else
        return 0;
    log_error("%s", e.text);
    return status;
}
