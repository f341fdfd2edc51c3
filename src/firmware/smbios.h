/* SMBIOS (DMI) tables: who made the machine, its processors and memory, for dmidecode, udev and licence checks in the
 * guest. DMTF DSP0134, version 3.0 with a 2.8 entry point beside it. */
#ifndef FIRMWARE_SMBIOS_H
#define FIRMWARE_SMBIOS_H
#include "base/types.h"
#include "mem/guest_memory.h"

struct smbios_config {
    u8 uuid[16];    /* as RFC 4122 writes it; all zero: not set */
    int cpu_count;
    u64 ram_size;
};

enum { SMBIOS_ENTRY_SIZE = 64 }; /* both entry points */

/* Writes the structures into [base, base+size) (reserved memory below 4 GiB) and the entry points at entry_gpa
 * (16-byte aligned, in 0xF0000–0xFFFFF). Returns 0, -ENOSPC when `size` is too small, -EFAULT when a place is not
 * RAM,
 * or -ENOMEM. */
int smbios_build(struct guest_memory *mem, const struct smbios_config *config, u64 base, u64 size, u64 entry_gpa);

#endif
