/* See fake_console.h. */
#include "fake_console.h"

#include <string.h>

void console_attach(struct console *c, int (*room)(void *ctx), void (*receive)(void *ctx, const u8 *data, int len),
                    void (*line_break)(void *ctx), void *ctx)
{
    c->room = room;
    c->receive = receive;
    c->line_break = line_break;
    c->ctx = ctx;
}

void console_room(struct console *c)
{
    c->room_calls++;
}

void console_write(struct console *c, const u8 *data, int len)
{
    assert(c->written_count + len <= (int)sizeof(c->written));
    memcpy(c->written + c->written_count, data, (size_t)len);
    c->written_count += len;
}

int fake_console_type(struct console *c, const char *text)
{
    int len = MIN((int)strlen(text), c->room(c->ctx));

    if (len)
        c->receive(c->ctx, (const u8 *)text, len);
    return len;
}
