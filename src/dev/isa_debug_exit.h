/* QEMU's isa-debug-exit: a write ends the machine with exit status value << 1 | 1. For test guests. */
#ifndef DEV_ISA_DEBUG_EXIT_H
#define DEV_ISA_DEBUG_EXIT_H
#include "machine/machine.h"

/* Four ports at `port`. */
struct device *isa_debug_exit_create(struct machine *m, u16 port);

#endif
