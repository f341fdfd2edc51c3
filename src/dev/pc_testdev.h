/* QEMU's pc-testdev: interrupt lines, ports and memory that a test guest drives by itself. */
#ifndef DEV_PC_TESTDEV_H
#define DEV_PC_TESTDEV_H
#include "machine/machine.h"

#define PC_TESTDEV_LINES 24

/* Ports at 0xE0–0xEB and 0x2000–0x2017, memory at 0xFF000000, where QEMU has them. lines[n] is driven by port
 * 0x2000 + n; copied. */
struct device *pc_testdev_create(struct machine *m, const struct irq lines[PC_TESTDEV_LINES]);

#endif
