/* What the disk tests share: a folder for scratch files, commands such as qemu-img, and a shadow: a plain buffer that
 * says what a disk must contain after any number of random operations. */
#ifndef TESTS_DISK_FIXTURE_H
#define TESTS_DISK_FIXTURE_H
#include "disk/image.h"
#include "disk/qcow2.h"

int scratch_setup(void **state); /* cmocka group fixtures; they also choose and print the seed (env SEED repeats one) */
int scratch_teardown(void **state);

const char *scratch(const char *name); /* path of a scratch file; stays valid */
/* Runs a command in the scratch folder, its output dropped. Exit status. */
int shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool have_qemu_img(void);

u64 rng(u64 below); /* seeded */
void rng_fill(u8 *buf, size_t length);

struct shadow {
    u8 *content;
    u64 size;
};
struct shadow shadow_new(u64 size); /* zeros */
void shadow_free(struct shadow *s);
void shadow_step(struct shadow *s, struct image *img);    /* one random read, write, zeroing, discard or flush */
void shadow_compare(struct shadow *s, struct image *img); /* every byte */
/* Discarded ranges have undefined content: takes over what the image shows in them. */
void shadow_adopt(struct shadow *s, struct image *img, u64 offset, u64 length);

struct image *must_open(const char *path, enum disk_format format, unsigned flags);
void must_create(const char *path, const struct qcow2_create *c);
struct qcow2_check must_check(const char *path); /* prints what is wrong */
void must_be_clean(const char *path);            /* by our check and by qemu-img's */

#endif
