/* `skerry image info`: what an image is, for people or as JSON. Looks at the file without its lock, so it works on
 * disks in use. */
#include "cli/image.h"

#include "base/log.h"
#include "cli/cli.h"
#include "cli/quantity.h"
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

struct info {
    const char *file;
    enum disk_format format;
    bool json;
};

static int set_output(void *ctx, const char *value, struct err *e)
{
    if (strcmp(value, "json") && strcmp(value, "text"))
        return err_set(e, -EINVAL, "no '%s'; there are: text, json", value);
    ((struct info *)ctx)->json = *value == 'j';
    return 0;
}

static int set_image_format(void *ctx, const char *value, struct err *e)
{
    return image_format_parse(value, &((struct info *)ctx)->format, e);
}

static int operand(void *ctx, const char *arg, struct err *e)
{
    struct info *i = ctx;

    if (i->file)
        return err_set(e, -EINVAL, "'%s' is one argument too many; see 'skerry image info --help'", arg);
    i->file = arg;
    return 0;
}

static const struct option_spec options[] = {
    {"format", 0, "text|json", set_output, "how to say it (default text)"},
    {"image-format", 'f', "FORMAT", set_image_format, "raw or qcow2 (default: by its content)"},
    {NULL},
};

static const struct option_set option_set = {"image info", options, operand};

static void help(void)
{
    printf("skerry image info: say what an image is.\n\nUsage: skerry image info [OPTION]... FILE\n\nOptions:\n");
    option_print(options, stdout);
    printf("\nWorks on disks that a VM is using. Sizes in JSON are bytes.\n");
}

static void add_snapshot(void *ctx, const char *id, const char *name, u64 seconds)
{
    json_array_append_new(ctx, json_pack("{s:s*, s:s*, s:I}", "id", id, "name", name, "date-sec", (json_int_t)seconds));
}

static void add_qcow2(json_t *o, struct image *img)
{
    struct qcow2_info q;
    json_t *snapshots = json_array();

    qcow2_info(img, &q);
    json_object_set_new(o, "version", json_integer(q.version));
    json_object_set_new(o, "cluster-size", json_integer((json_int_t)q.cluster_size));
    json_object_set_new(o, "refcount-bits", json_integer(q.refcount_bits));
    json_object_set_new(o, "compression-type", json_string(q.compression));
    json_object_set_new(o, "lazy-refcounts", json_boolean(q.lazy_refcounts));
    json_object_set_new(o, "dirty-flag", json_boolean(q.dirty));
    json_object_set_new(o, "corrupt", json_boolean(q.corrupt));
    if (*q.backing_name)
        json_object_set_new(o, "backing-filename", json_string(q.backing_name));
    if (*q.backing_format)
        json_object_set_new(o, "backing-filename-format", json_string(q.backing_format));
    if (qcow2_snapshots(img, add_snapshot, snapshots) < 0)
        log_warn("'%s': its snapshot table is broken", img->path);
    json_object_set_new(o, "snapshots", snapshots);
}

static json_t *describe(struct image *img)
{
    json_t *o = json_object();
    struct stat st;

    json_object_set_new(o, "filename", json_string(img->path));
    json_object_set_new(o, "format", json_string(img->ops->name));
    json_object_set_new(o, "virtual-size", json_integer((json_int_t)img->size));
    if (!fstat(img->fd, &st))
        json_object_set_new(o, "actual-size", json_integer((json_int_t)st.st_blocks * 512));
    if (img->ops == &qcow2_ops)
        add_qcow2(o, img);
    return o;
}

/* Names come from the file, which may hold anything: control characters do not reach the terminal. */
static void print_name(const char *name)
{
    for (; *name; name++)
        putchar((unsigned char)*name < ' ' || *name == 127 ? '?' : *name);
}

static void print_value(const char *key, const json_t *v)
{
    char buf[32];
    size_t n = strlen(key);

    printf("%-24s", key);
    if (json_is_integer(v) && n > 4 && !strcmp(key + n - 4, "size"))
        printf("%s (%lld bytes)\n", quantity_format((u64)json_integer_value(v), buf), (long long)json_integer_value(v));
    else if (json_is_integer(v))
        printf("%lld\n", (long long)json_integer_value(v));
    else if (json_is_boolean(v))
        printf("%s\n", json_is_true(v) ? "yes" : "no");
    else
        print_name(json_string_value(v)), putchar('\n');
}

static void print_snapshot(const json_t *s)
{
    time_t t = (time_t)json_integer_value(json_object_get(s, "date-sec"));
    const char *name = json_string_value(json_object_get(s, "name"));
    struct tm tm;
    char when[32] = "";

    if (gmtime_r(&t, &tm))
        strftime(when, sizeof(when), "%F %T UTC", &tm);
    printf("%-24s", "snapshot");
    print_name(name ? name : "?");
    printf(" (%s)\n", when);
}

static void print_text(json_t *o)
{
    const char *key;
    json_t *v;
    size_t i;

    json_object_foreach (o, key, v)
        if (!json_is_array(v))
            print_value(key, v);
    json_array_foreach (json_object_get(o, "snapshots"), i, v)
        print_snapshot(v);
}

int cli_image_info(int argc, char **argv)
{
    struct info i = {.format = DISK_FORMAT_AUTO};
    int status = image_verb_parse(&option_set, argc, argv, &i, help);
    struct image *img;
    struct err e;
    json_t *o;

    if (status >= 0)
        return status;
    if (!i.file) {
        log_error("which disk? write: skerry image info FILE");
        return CLI_USAGE;
    }
    if (image_open(i.file, i.format, IMAGE_NO_LOCK | IMAGE_NO_BACKING, &img, &e) < 0) {
        log_error("%s", e.text);
        return CLI_FAILURE;
    }
    o = describe(img);
    image_close(img);
    if (i.json) {
        json_dumpf(o, stdout, JSON_INDENT(4));
        putchar('\n');
    } else {
        print_text(o);
    }
    json_decref(o);
    return 0;
}
