/* A console for tests of the devices behind which one hangs: it remembers what they wrote, and types when told to.
 * Takes the place of ui/console.h; there is one. */
#ifndef TESTS_FAKE_CONSOLE_H
#define TESTS_FAKE_CONSOLE_H
#include "ui/console.h"

struct console {
    u8 written[4096];
    int written_count;
    int room_calls; /* how often the device said that it has room again */
    int (*room)(void *ctx);
    void (*receive)(void *ctx, const u8 *data, int len);
    void (*line_break)(void *ctx);
    void *ctx;
};

/* Types as much of the text as the device has room for; returns how much that was. */
int fake_console_type(struct console *c, const char *text);

#endif
