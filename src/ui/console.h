/* Character streams between a device (UART, virtio console, debug console) and the host: the terminal, a file, nothing.
 * Machine lock held throughout. */
#ifndef UI_CONSOLE_H
#define UI_CONSOLE_H
#include "base/err.h"
#include "base/event_loop.h"
#include "base/types.h"

struct console;

/* The terminal on fds 0 and 1. On a tty: raw mode, put back at free and at exit by signal; Ctrl-a x calls quit(ctx), Ctrl-a h prints
 * the keys, Ctrl-a c sends a break, Ctrl-a Ctrl-a a Ctrl-a. Off a tty: plain copy, end of input ends nothing. */
int console_stdio_create(struct event_loop *loop, void (*quit)(void *ctx), void *ctx, struct console **ret, struct err *e);
int console_file_create(const char *path, struct console **ret, struct err *e); /* output only; emptied by console_begin */
struct console *console_null_create(void);
void console_free(struct console *c); /* flushes; NULL is fine */

/* The guest is about to start. Before this a file is left as it was, and one that was made for the console goes again when
 * that is freed: a VM that cannot start has changed nothing. */
void console_begin(struct console *c);

/* The device's side. Input arrives by receive(), at most as many bytes as room() said; console_room() after more room came. */
void console_attach(struct console *c, int (*room)(void *ctx), void (*receive)(void *ctx, const u8 *data, int len),
                    void (*line_break)(void *ctx), void *ctx);
void console_room(struct console *c);

/* Output never blocks the guest: what the host does not take at once is buffered up to a limit, then the oldest output waits
 * in a bounded queue and further bytes are dropped only when the host reader is gone for good. */
void console_write(struct console *c, const u8 *data, int len);

#endif
