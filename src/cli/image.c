/* `skerry image VERB`: which verb, and what all of them share. */
#include "cli/image.h"

#include "base/log.h"
#include "cli/cli.h"
#include "cli/quantity.h"
#include "cli/suggest.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_verb verbs[] = {
    {"build", cli_image_build, "make a bootable guest from a distribution's packages"},
    {"create", cli_image_create, "make an empty disk, or an overlay over another one"},
    {"info", cli_image_info, "say what an image is"},
    {"convert", cli_image_convert, "copy a disk into another format"},
    {"check", cli_image_check, "look for corruption and leaks in a qcow2 image, and repair them"},
    {NULL, NULL, NULL},
};

static void help(FILE *out)
{
    fprintf(out, "skerry image: disk images.\n\nUsage: skerry image VERB [OPTION]...\n\n");
    for (const struct cli_verb *v = verbs; v->name; v++)
        fprintf(out, "  %-9s %s\n", v->name, v->what);
    fprintf(out, "\nFormats are raw and qcow2. 'skerry image VERB --help' explains a verb.\n\nExamples:\n"
                 "  skerry image create -f qcow2 data.qcow2 20G\n"
                 "  skerry image create -f qcow2 -b debian.qcow2 try.qcow2\n"
                 "  skerry image convert -O qcow2 -c disk.img disk.qcow2\n");
}

static int unknown(const char *name)
{
    struct suggestion s = {.word = name};

    for (const struct cli_verb *v = verbs; v->name; v++)
        suggest_offer(&s, v->name);
    if (suggest_best(&s))
        log_error("no verb 'image %s'; did you mean 'image %s'?", name, suggest_best(&s));
    else
        log_error("no verb 'image %s'; 'skerry help image' lists them", name);
    return CLI_USAGE;
}

int cli_image(int argc, char **argv)
{
    if (argc < 2) {
        help(stderr);
        return CLI_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        help(stdout);
        return 0;
    }
    for (const struct cli_verb *v = verbs; v->name; v++)
        if (!strcmp(v->name, argv[1]))
            return v->run(argc - 1, argv + 1);
    return unknown(argv[1]);
}

int image_verb_parse(const struct option_set *set, int argc, char **argv, void *ctx, void (*help_verb)(void))
{
    struct err e;

    switch (option_parse(set, argc, argv, ctx, &e)) {
    case 0:
        return -1;
    case OPTION_HELP:
        help_verb();
        return 0;
    default:
        log_error("%s", e.text);
        return CLI_USAGE;
    }
}

static int set_cluster_size(struct qcow2_create *c, const char *value)
{
    u64 bytes;

    if (!quantity_size(value, &bytes) || !bytes || bytes & (bytes - 1) || bytes < BIT(QCOW2_CLUSTER_BITS_MIN) ||
        bytes > BIT(QCOW2_CLUSTER_BITS_MAX))
        return -EINVAL;
    c->cluster_bits = (u32)__builtin_ctzll(bytes);
    return 0;
}

static int set_version(struct qcow2_create *c, const char *value)
{
    if (strcmp(value, "2") && strcmp(value, "3"))
        return -EINVAL;
    c->version = (u32)(*value - '0');
    return 0;
}

static int set_refcount_bits(struct qcow2_create *c, const char *value)
{
    u64 bits;

    if (!quantity_number(value, 1, 64, &bits) || bits & (bits - 1))
        return -EINVAL;
    c->refcount_order = (u32)__builtin_ctzll(bits);
    return 0;
}

static int set_compression(struct qcow2_create *c, const char *value)
{
    if (strcmp(value, "zlib") && strcmp(value, "zstd"))
        return -EINVAL;
    c->compression_type = value[1] == 's' ? QCOW2_COMPRESSION_ZSTD : QCOW2_COMPRESSION_ZLIB;
    return 0;
}

static int set_lazy(struct qcow2_create *c, const char *value)
{
    if (strcmp(value, "on") && strcmp(value, "off"))
        return -EINVAL;
    c->lazy_refcounts = value[1] == 'n';
    return 0;
}

static const struct {
    const char *name, *values;
    int (*set)(struct qcow2_create *c, const char *value);
} qcow2_options[] = {
    {"cluster_size", "a power of two from 512 to 2M", set_cluster_size},
    {"version", "2 or 3", set_version},
    {"refcount_bits", "1, 2, 4, 8, 16, 32 or 64", set_refcount_bits},
    {"compression_type", "zlib or zstd", set_compression},
    {"lazy_refcounts", "on or off", set_lazy},
};

const char image_qcow2_options_help[] =
    "of qcow2: cluster_size=512..2M (64K), version=2|3 (3),\nrefcount_bits=1..64 (16), "
    "compression_type=zlib|zstd (zlib),\nlazy_refcounts=on|off (off); separate with commas";

static int set_qcow2_option(const char *name, const char *value, struct qcow2_create *c, struct err *e)
{
    for (size_t i = 0; i < ARRAY_SIZE(qcow2_options); i++) {
        if (strcmp(qcow2_options[i].name, name))
            continue;
        if (qcow2_options[i].set(c, value) < 0)
            return err_set(e, -EINVAL, "%s must be %s, not '%s'", name, qcow2_options[i].values, value);
        return 0;
    }
    return err_set(e, -EINVAL,
                   "qcow2 has no option '%s'; there are: cluster_size, version, refcount_bits, "
                   "compression_type, lazy_refcounts",
                   name);
}

int image_qcow2_options(const char *text, struct qcow2_create *c, struct err *e)
{
    char *copy = strdup(text), *rest = copy, *part;
    int r = copy ? 0 : err_set(e, -ENOMEM, "out of memory");

    while (!r && (part = strsep(&rest, ","))) {
        char *value = strchr(part, '=');

        if (!value) {
            r = err_set(e, -EINVAL, "'%s' has no value; write NAME=VALUE", part);
        } else {
            *value++ = 0;
            r = set_qcow2_option(part, value, c, e);
        }
    }
    free(copy);
    return r;
}
