/* Console output to a file, a named pipe or a terminal device: see console.h. Output only. */
#include "ui/console_backend.h"
#include "ui/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

struct console_file {
    struct console console;
    struct output out;
};

static struct console_file *file_of(struct console *c)
{
    return container_of(c, struct console_file, console);
}

static void file_write(struct console *c, const u8 *data, int len)
{
    output_write(&file_of(c)->out, data, (size_t)len);
}

static void file_free(struct console *c)
{
    output_close(&file_of(c)->out);
    free(file_of(c));
}

static const struct console_ops file_ops = {.write = file_write, .free = file_free};

int console_file_create(const char *path, struct console **ret, struct err *e)
{
    struct console_file *f = calloc(1, sizeof(*f));
    int fd, r;

    if (!f)
        return err_set(e, -ENOMEM, "console '%s': out of memory", path);
    /* O_NONBLOCK: opening a named pipe must not wait for its reader */
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);
    if (fd < 0) {
        r = -errno;
        free(f);
        return err_set(e, r, "console '%s': %s", path, r == -ENXIO ? "nobody reads from this pipe yet" : strerror(-r));
    }
    output_open(&f->out, fd, -1, NULL);
    f->console.ops = &file_ops;
    *ret = &f->console;
    return 0;
}
