/* Who gets which guest memory during a load: kernel segments where the file wants them, everything else where there is
 * room.
 *
 * All of it lies in RAM that the memory map shows as such, and no two pieces overlap: a file that demands otherwise is
 * refused. */
#ifndef FIRMWARE_BOOT_MEMORY_H
#define FIRMWARE_BOOT_MEMORY_H
#include "firmware/linux_boot.h"

#define BOOT_RANGES_MAX 96
#define BOOT_LOW_MIN 0x10000ull /* structures for the guest start here: SMP trampolines of kernels go below */

struct boot_range {
    u64 start, end; /* end exclusive */
    const char *what;
};

struct boot_memory {
    struct guest_memory *mem;
    const struct boot_info *info;
    struct boot_range used[BOOT_RANGES_MAX];
    int count;
};

/* Where a piece without a fixed place may go. */
struct boot_place {
    u64 size;     /* not 0 */
    u64 align;    /* a power of two */
    u64 min, end; /* within [min, end), and below the end of low RAM */
    bool high;    /* as high as possible rather than as low */
};

/* Takes [gpa, gpa+size), size not 0. `what` ("a segment", static) is for sentences. */
int boot_memory_claim(struct boot_memory *b, u64 gpa, u64 size, const char *what, struct err *e);

/* Finds room and takes it. */
int boot_memory_place(struct boot_memory *b, const struct boot_place *place, const char *what, u64 *ret_gpa,
                      struct err *e);

/* A structure for the guest: finds the lowest room from BOOT_LOW_MIN on and copies `size` bytes there. */
int boot_memory_put(struct boot_memory *b, const void *data, u64 size, u64 align, const char *what, u64 *ret_gpa,
                    struct err *e);

/* Into claimed memory. */
int boot_memory_write(struct boot_memory *b, u64 gpa, const void *data, u64 len, struct err *e);
int boot_memory_zero(struct boot_memory *b, u64 gpa, u64 len, struct err *e);

/* The lowest address above everything claimed so far. */
u64 boot_memory_top(const struct boot_memory *b);

#endif
