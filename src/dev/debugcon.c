/* Bochs debug console: bytes written to port 0xE9 reach the host. Reading returns 0xE9, by which a guest can tell
 * that it is there. Keeps nothing. */
#include "dev/debugcon.h"
#include "ui/console.h"

struct debugcon {
    struct device dev;
    struct console *console;
};

static u64 debugcon_read(struct device *dev, u64 offset, int size)
{
    return 0xe9;
}

static void debugcon_write(struct device *dev, u64 offset, int size, u64 val)
{
    u8 byte = (u8)val;

    console_write(container_of(dev, struct debugcon, dev)->console, &byte, 1);
}

static const struct io_ops debugcon_ops = {debugcon_read, debugcon_write, 1, 1};

static const struct device_type debugcon_type = {.name = "debugcon", .size = sizeof(struct debugcon)};

struct device *debugcon_create(struct machine *m, u16 port, struct console *console)
{
    struct device *dev = device_add(m, &debugcon_type);

    container_of(dev, struct debugcon, dev)->console = console;
    pio_map(m, port, 1, dev, &debugcon_ops);
    return dev;
}
