/* The real-mode interrupt vectors that a PC's BIOS leaves in the first KiB, with the few handlers behind them. */
#ifndef FIRMWARE_BIOS_VECTORS_H
#define FIRMWARE_BIOS_VECTORS_H
#include "base/types.h"
#include "mem/guest_memory.h"

enum { BIOS_VECTORS_CODE_SIZE = 0x100 };

/* Puts the handlers at `code` (BIOS_VECTORS_CODE_SIZE bytes, 16-byte aligned, below 1 MiB) and all 256 vectors at 0. The
 * PICs are expected where every BIOS has them: vectors 0x08 to 0x0F and 0x70 to 0x77. */
void bios_vectors_build(struct guest_memory *mem, u64 code);

#endif
