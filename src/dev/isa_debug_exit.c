/* QEMU's isa-debug-exit: a write of v ends the machine, and the process's exit status becomes v << 1 | 1, which is
 * never the 0 of an orderly power-off. Keeps nothing. */
#include "dev/isa_debug_exit.h"

static void isa_debug_exit_write(struct device *dev, u64 offset, int size, u64 val)
{
    machine_stop(dev->machine, MACHINE_DEBUG_EXIT, (int)((u32)val << 1 | 1), "the guest wrote to the debug exit port");
}

static const struct io_ops isa_debug_exit_ops = {NULL, isa_debug_exit_write, 1, 4};

static const struct device_type isa_debug_exit_type = {.name = "isa_debug_exit", .size = sizeof(struct device)};

struct device *isa_debug_exit_create(struct machine *m, u16 port)
{
    struct device *dev = device_add(m, &isa_debug_exit_type);

    pio_map(m, port, 4, dev, &isa_debug_exit_ops);
    return dev;
}
