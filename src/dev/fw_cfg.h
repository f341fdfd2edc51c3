/* QEMU's fw_cfg: numbered items by which the board tells firmware and test guests about itself. */
#ifndef DEV_FW_CFG_H
#define DEV_FW_CFG_H
#include "machine/machine.h"

enum fw_cfg_key { /* docs/specs/fw_cfg of QEMU, and its x86 numbers */
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_RAM_SIZE = 0x03, /* u64, bytes */
    FW_CFG_NB_CPUS = 0x05,  /* u16, CPUs present */
    FW_CFG_MAX_CPUS = 0x0f, /* u16, one more than the highest APIC id */
};

/* The selector register (16 bits, written) at `port`, the data register (bytes, read) at port + 1. Holds the signature and
 * the interface's id already. */
struct device *fw_cfg_create(struct machine *m, u16 port);

/* Adds an item of `len` bytes, at most 8, little-endian. Before the guest runs; there is room for 16. */
void fw_cfg_add(struct device *fw_cfg, u16 key, u64 val, int len);

#endif
