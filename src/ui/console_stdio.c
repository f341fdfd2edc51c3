/* The console on the terminal, or on whatever else descriptors 0 and 1 are: see console.h.
 *
 * On a terminal the keys are read as they come, even while the guest takes no input, so that Ctrl-a x always works; what the
 * guest has no room for waits in a buffer. Off a terminal nothing is read that has no room, so that nothing is lost. */
#include "base/trace.h"
#include "ui/console_backend.h"
#include "ui/output.h"
#include "ui/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CTRL_A = 1, INPUT_BYTES = 1 << 16, READ_BYTES = 4096 };

static const char help[] = "\r\nCtrl-a x  end the machine\r\n"
                           "Ctrl-a c  send a break\r\n"
                           "Ctrl-a h  this help\r\n"
                           "Ctrl-a Ctrl-a  send Ctrl-a\r\n";

struct console_stdio {
    struct console console;
    struct output out;
    void (*quit)(void *ctx);
    void *quit_ctx;
    bool tty;    /* input is a terminal, in raw mode */
    bool escape; /* Ctrl-a was the last key */
    bool ended;  /* no more input will come */
    bool delivering;
    int fd, restore_flags; /* input; -1: none */
    struct watch *watch;   /* NULL: input that is always ready, or none */
    size_t head, used;
    u8 input[INPUT_BYTES]; /* a ring */
};

static struct console_stdio *stdio_of(struct console *c)
{
    return container_of(c, struct console_stdio, console);
}

/* ---- input ---- */

static void input_put(struct console_stdio *s, u8 byte)
{
    if (s->used == INPUT_BYTES)
        return; /* 64 KiB typed at a guest that does not listen */
    s->input[(s->head + s->used++) % INPUT_BYTES] = byte;
}

static void escape_key(struct console_stdio *s, u8 key)
{
    switch (key) {
    case 'x':
        s->quit(s->quit_ctx);
        break;
    case 'h':
        output_write(&s->out, (const u8 *)help, strlen(help));
        break;
    case 'c':
        if (s->console.line_break)
            s->console.line_break(s->console.ctx);
        break;
    case CTRL_A:
        input_put(s, CTRL_A);
        break;
    }
}

static void typed(struct console_stdio *s, u8 key)
{
    if (s->escape) {
        s->escape = false;
        escape_key(s, key);
    } else if (key == CTRL_A)
        s->escape = true;
    else
        input_put(s, key);
}

/* Gives the device what it has room for. */
static void input_give(struct console_stdio *s)
{
    struct console *c = &s->console;

    while (s->used && c->room) {
        size_t n = MIN(s->used, INPUT_BYTES - s->head);
        int room = c->room(c->ctx);

        if (room <= 0)
            break;
        n = MIN(n, (size_t)room);
        c->receive(c->ctx, s->input + s->head, (int)n);
        s->head = (s->head + n) % INPUT_BYTES;
        s->used -= n;
    }
}

/* The same, once: a device may say that it has room from within receive(). */
static void input_deliver(struct console_stdio *s)
{
    if (s->delivering)
        return;
    s->delivering = true;
    input_give(s);
    s->delivering = false;
}

/* One read; false when nothing came. */
static bool input_read(struct console_stdio *s)
{
    u8 bytes[READ_BYTES];
    ssize_t n = read(s->fd, bytes, sizeof(bytes));

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0) {
        s->ended = true;
        return false;
    }
    for (ssize_t i = 0; i < n; i++)
        if (s->tty)
            typed(s, bytes[i]);
        else
            input_put(s, bytes[i]);
    return true;
}

/* A terminal is always read; other input only when the last of it is with the device. */
static void input_watch(struct console_stdio *s)
{
    if (s->watch)
        watch_set_events(s->watch, !s->ended && (s->tty || !s->used) ? WATCH_READ : 0);
}

static void readable(void *ctx, int events)
{
    struct console_stdio *s = ctx;

    input_read(s);
    input_deliver(s);
    input_watch(s);
}

/* The device has room. Input without a watch (a regular file) is always ready and is read here. */
static void stdio_room(struct console *c)
{
    struct console_stdio *s = stdio_of(c);

    if (s->delivering)
        return;
    input_deliver(s);
    while (!s->watch && s->fd >= 0 && !s->ended && !s->used && input_read(s))
        input_deliver(s);
    input_watch(s);
}

/* ---- output and lifecycle ---- */

static void stdio_write(struct console *c, const u8 *data, int len)
{
    output_write(&stdio_of(c)->out, data, (size_t)len);
}

static void stdio_free(struct console *c)
{
    struct console_stdio *s = stdio_of(c);

    output_close(&s->out);
    watch_remove(s->watch);
    if (s->tty)
        terminal_restore();
    descriptor_close(s->fd, s->restore_flags);
    free(s);
}

static const struct console_ops stdio_ops = {.write = stdio_write, .room = stdio_room, .free = stdio_free};

static int input_open(struct console_stdio *s, struct event_loop *loop, struct err *e)
{
    struct err ignored; /* a regular file cannot be watched, nor need it be */
    int r;

    s->fd = -1;
    if (fcntl(STDIN_FILENO, F_GETFD) < 0 || (isatty(STDIN_FILENO) && !terminal_interactive(STDIN_FILENO)))
        return 0; /* closed, or reading would stop us: we are in the background */
    s->fd = descriptor_own(STDIN_FILENO, O_RDONLY, &s->restore_flags);
    if (s->fd < 0)
        return err_set(e, s->fd, "console: cannot use standard input: %s", strerror(-s->fd));
    s->tty = isatty(s->fd);
    if (event_loop_watch(loop, s->fd, WATCH_READ, readable, s, &s->watch, &ignored))
        s->watch = NULL;
    r = s->tty ? terminal_raw(s->fd) : 0;
    return r ? err_set(e, r, "console: cannot set the terminal to raw mode: %s", strerror(-r)) : 0;
}

static void sigpipe_ignore(void)
{
    struct sigaction now;

    /* a reader that leaves, as `head` does, is no reason for the machine to end */
    if (!sigaction(SIGPIPE, NULL, &now) && now.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
}

int console_stdio_create(struct event_loop *loop, void (*quit)(void *ctx), void *ctx, struct console **ret,
                         struct err *e)
{
    struct console_stdio *s = calloc(1, sizeof(*s));
    int fd, flags, r;

    if (!s)
        return err_set(e, -ENOMEM, "console: out of memory");
    s->console.ops = &stdio_ops;
    s->quit = quit;
    s->quit_ctx = ctx;
    fd = descriptor_own(STDOUT_FILENO, O_WRONLY, &flags);
    if (fd < 0) {
        free(s);
        return err_set(e, fd, "console: cannot use standard output: %s", strerror(-fd));
    }
    sigpipe_ignore();
    output_open(&s->out, fd, flags, loop);
    r = input_open(s, loop, e);
    if (r) {
        stdio_free(&s->console);
        return r;
    }
    *ret = &s->console;
    return 0;
}
