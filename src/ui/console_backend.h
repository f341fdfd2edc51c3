/* What is common to all consoles: the device's side, and a table of operations. */
#ifndef UI_CONSOLE_BACKEND_H
#define UI_CONSOLE_BACKEND_H
#include "ui/console.h"

struct console_ops {
    void (*write)(struct console *c, const u8 *data, int len);
    void (*room)(struct console *c); /* the device has room for input again; NULL: this console has no input */
    void (*begin)(struct console *c); /* see console_begin; NULL: nothing to do */
    void (*free)(struct console *c); /* flushes */
};

struct console {
    const struct console_ops *ops;
    int (*room)(void *ctx); /* the device; NULL: none attached */
    void (*receive)(void *ctx, const u8 *data, int len);
    void (*line_break)(void *ctx);
    void *ctx;
};

#endif
