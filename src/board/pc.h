/* The PC: an i440FX + PIIX3/PIIX4-PM board with ISA devices, PCI virtio devices and what --device adds. All wiring is
 * in pc.c, every address and interrupt in pc_map.h. */
#ifndef BOARD_PC_H
#define BOARD_PC_H
#include "machine/machine.h"

struct disk;
struct net;
struct console;
struct boot_image;

struct pc_config {
    struct machine_config machine;
    struct boot_image *boot;     /* owned by the caller */
    struct disk *disk[8];        /* virtio-blk; owned by the caller, all of these */
    const char *disk_serial[8];  /* at most 20 bytes each, may be NULL */
    int disk_count;
    struct net *net;             /* virtio-net; NULL: no card */
    u8 mac[6];
    struct console *serial;      /* COM1; NULL: no UART */
    struct console *virtio_console; /* NULL: none */
    struct console *debugcon;    /* port 0xE9; NULL: none */
    bool debug_exit;             /* isa-debug-exit at 0xF4 */
    bool pc_testdev, pci_testdev; /* for test guests */
    bool rng, balloon;
};

#define PC_RAM_MIN MIB(4)

/* Whether such a PC can be built here; nothing is opened, made or changed. */
int pc_check(const struct pc_config *config, struct err *e);

/* Builds the machine; the caller runs it with machine_run and frees it with machine_free. */
int pc_create(const struct pc_config *config, struct machine **ret, struct err *e);

/* The power button: asks the guest to shut down, through ACPI. Machine lock held. */
void pc_power_button(struct machine *m);

#endif
