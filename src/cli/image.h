/* `skerry image`: disk images. Each verb under it has its own file image_VERB.c, takes its own argv and returns the
 * exit status. */
#ifndef CLI_IMAGE_H
#define CLI_IMAGE_H
#include "cli/option.h"
#include "disk/qcow2.h"

int cli_image(int argc, char **argv);

int cli_image_create(int argc, char **argv);
int cli_image_info(int argc, char **argv);
int cli_image_convert(int argc, char **argv);
int cli_image_check(int argc, char **argv);

/* What the verbs share: parses, and answers --help with `help`. -1: go on; else the exit status. */
int image_verb_parse(const struct option_set *set, int argc, char **argv, void *ctx, void (*help)(void));

/* "cluster_size=64K,version=3,…" into *c; -EINVAL and a sentence that names the faulty part. */
int image_qcow2_options(const char *text, struct qcow2_create *c, struct err *e);
extern const char image_qcow2_options_help[];

#endif
