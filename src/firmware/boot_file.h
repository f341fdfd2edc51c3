/* A file for the guest (kernel, initrd, multiboot module), held open for as long as its machine may need it again. */
#ifndef FIRMWARE_BOOT_FILE_H
#define FIRMWARE_BOOT_FILE_H
#include "base/err.h"
#include "base/types.h"

struct boot_file {
    const char *role; /* "kernel", "initrd": for sentences; not owned */
    char *path;       /* as the user gave it: for sentences; owned */
    int fd;
    u64 size_max; /* larger ones are refused */
};

/* Opens a regular, readable, non-empty file. `f` is untouched on failure. */
int boot_file_open(struct boot_file *f, const char *role, const char *path, u64 size_max, struct err *e);
void boot_file_close(struct boot_file *f);

/* The size now, 1 to size_max. */
int boot_file_size(const struct boot_file *f, u64 *ret_size, struct err *e);

/* The first `size` bytes. */
int boot_file_read(const struct boot_file *f, void *buf, u64 size, struct err *e);

#endif
