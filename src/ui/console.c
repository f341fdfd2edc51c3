/* The device's side of every console, and the console that leads nowhere: see console.h. */
#include "ui/console.h"

#include "ui/console_backend.h"

void console_attach(struct console *c, int (*room)(void *ctx), void (*receive)(void *ctx, const u8 *data, int len),
                    void (*line_break)(void *ctx), void *ctx)
{
    c->room = room;
    c->receive = receive;
    c->line_break = line_break;
    c->ctx = ctx;
    console_room(c);
}

void console_room(struct console *c)
{
    if (c->ops->room)
        c->ops->room(c);
}

void console_begin(struct console *c)
{
    if (c->ops->begin)
        c->ops->begin(c);
}

void console_write(struct console *c, const u8 *data, int len)
{
    c->ops->write(c, data, len);
}

void console_free(struct console *c)
{
    if (c)
        c->ops->free(c);
}

static void null_write(struct console *c, const u8 *data, int len)
{
}

static void null_free(struct console *c)
{
}

struct console *console_null_create(void)
{
    static const struct console_ops null_ops = {.write = null_write, .free = null_free};
    static struct console null_console = {.ops = &null_ops};

    return &null_console;
}
