/* The debug console of Bochs and QEMU: bytes written to port 0xE9 reach a console of the host; reading returns 0xE9. */
#ifndef DEV_DEBUGCON_H
#define DEV_DEBUGCON_H
#include "machine/machine.h"

struct console;

/* One port. `console` stays the caller's. */
struct device *debugcon_create(struct machine *m, u16 port, struct console *console);

#endif
