/* `skerry image check`: corruption and leaks in a qcow2 image. */
#include "cli/image.h"

#include "base/log.h"
#include "cli/cli.h"
#include <errno.h>
#include <string.h>

enum { CHECK_CORRUPT = 3, FINDINGS_SHOWN = 50 };

struct check {
    const char *file;
    enum qcow2_repair repair;
    int shown;
};

static int set_repair(void *ctx, const char *value, struct err *e)
{
    if (strcmp(value, "leaks") && strcmp(value, "all"))
        return err_set(e, -EINVAL, "no '%s'; there are: leaks, all", value);
    ((struct check *)ctx)->repair = *value == 'a' ? QCOW2_REPAIR_ALL : QCOW2_REPAIR_LEAKS;
    return 0;
}

static int operand(void *ctx, const char *arg, struct err *e)
{
    struct check *c = ctx;

    if (c->file)
        return err_set(e, -EINVAL, "'%s' is one argument too many; see 'skerry image check --help'", arg);
    c->file = arg;
    return 0;
}

static const struct option_spec options[] = {
    {"repair", 'r', "leaks|all", set_repair,
     "leaks: give back space that nothing uses;\nall: also count every cluster anew"},
    {NULL},
};

static const struct option_set option_set = {"image check", options, operand};

static void help(void)
{
    printf("skerry image check: look for corruption and leaks in a qcow2 image.\n\n"
           "Usage: skerry image check [OPTION]... FILE\n\nOptions:\n");
    option_print(options, stdout);
    printf(
        "\nA leak wastes space and does no harm. Corruption can lose data: copy the file before you repair it.\n\n"
        "Exit status: 0 nothing wrong, or leaks only, or all repaired; 1 the check failed; 2 wrong usage; 3 corrupt.\n");
}

static void report(void *ctx, const char *sentence)
{
    struct check *c = ctx;

    if (c->shown++ < FINDINGS_SHOWN)
        printf("%s\n", sentence);
    else if (c->shown == FINDINGS_SHOWN + 1)
        printf("…\n");
}

static int check_image(struct check *c, struct image *img, struct qcow2_check *ret, struct err *e)
{
    if (img->ops != &qcow2_ops)
        return err_set(e, -EINVAL, "disk '%s' is raw: there is nothing to check", c->file);
    return qcow2_check(img, c->repair, ret, e);
}

static int check(struct check *c, struct qcow2_check *ret, struct err *e)
{
    unsigned flags = IMAGE_NO_BACKING | IMAGE_REPAIR | (c->repair ? IMAGE_WRITE : 0);
    struct image *img;
    int r = image_open(c->file, DISK_FORMAT_AUTO, flags, &img, e);

    if (r < 0)
        return r;
    r = check_image(c, img, ret, e);
    image_close(img);
    return r;
}

static int verdict(const struct check *c, const struct qcow2_check *r)
{
    printf("%s: %llu errors, %llu leaked clusters, %llu repaired; %llu clusters in use, %llu of them compressed\n",
           c->file, (unsigned long long)r->errors, (unsigned long long)r->leaks, (unsigned long long)r->fixed,
           (unsigned long long)r->allocated, (unsigned long long)r->compressed);
    return r->errors && (c->repair != QCOW2_REPAIR_ALL || r->fixed < r->errors + r->leaks) ? CHECK_CORRUPT : 0;
}

int cli_image_check(int argc, char **argv)
{
    struct check c = {0};
    struct qcow2_check result = {.report = report, .ctx = &c};
    int status = image_verb_parse(&option_set, argc, argv, &c, help);
    struct err e;

    if (status >= 0)
        return status;
    if (!c.file) {
        log_error("which disk? write: skerry image check FILE");
        return CLI_USAGE;
    }
    if (check(&c, &result, &e) < 0) {
        log_error("%s", e.text);
        return CLI_FAILURE;
    }
    return verdict(&c, &result);
}
