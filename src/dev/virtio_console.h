/* Virtio console, one port (hvc0 in a Linux guest). Virtio 1.2 §5.3. */
#ifndef DEV_VIRTIO_CONSOLE_H
#define DEV_VIRTIO_CONSOLE_H
#include "machine/machine.h"

struct console;

/* `console` stays the caller's and is attached. Takes the next free PCI slot. */
struct device *virtio_console_create(struct machine *m, struct console *console);

extern const struct device_type virtio_console_type;

#endif
