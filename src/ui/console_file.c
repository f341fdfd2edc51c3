/* Console output to a file, a named pipe or a terminal device: see console.h. Output only. */
#include "ui/console_backend.h"
#include "ui/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct console_file {
    struct console console;
    struct output out;
    char *made; /* its path, if there was no such file; NULL from console_begin on */
};

static struct console_file *file_of(struct console *c)
{
    return container_of(c, struct console_file, console);
}

static void file_write(struct console *c, const u8 *data, int len)
{
    output_write(&file_of(c)->out, data, (size_t)len);
}

static void file_begin(struct console *c)
{
    struct console_file *f = file_of(c);

    (void)!ftruncate(f->out.fd, 0); /* pipes and devices refuse: there is nothing to empty */
    free(f->made);
    f->made = NULL;
}

static void file_free(struct console *c)
{
    struct console_file *f = file_of(c);

    output_close(&f->out);
    if (f->made)
        unlink(f->made);
    free(f->made);
    free(f);
}

static const struct console_ops file_ops = {.write = file_write, .begin = file_begin, .free = file_free};

/* O_NONBLOCK: opening a named pipe must not wait for its reader. */
static int file_open(struct console_file *f, const char *path)
{
    int flags = O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, fd = open(path, flags | O_CREAT | O_EXCL, 0666);

    if (fd >= 0)
        f->made = strdup(path);
    else if (errno == EEXIST)
        fd = open(path, flags | O_CREAT, 0666); /* again O_CREAT, for a link that leads to no file yet */
    return fd < 0 ? -errno : fd;
}

int console_file_create(const char *path, struct console **ret, struct err *e)
{
    struct console_file *f = calloc(1, sizeof(*f));
    int fd, r;

    if (!f)
        return err_set(e, -ENOMEM, "console '%s': out of memory", path);
    fd = file_open(f, path);
    if (fd < 0) {
        r = fd;
        free(f);
        return err_set(e, r, "console '%s': %s", path, r == -ENXIO ? "nobody reads from this pipe yet" : strerror(-r));
    }
    output_open(&f->out, fd, -1, NULL);
    f->console.ops = &file_ops;
    *ret = &f->console;
    return 0;
}
