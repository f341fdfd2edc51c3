/* Fuzzes the kernel loaders: the input is the kernel's file. Seeds: one small kernel of each kind.
 */
#include "firmware/linux_boot.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM MIB(8)

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static const struct e820_entry map[] = {{0, 0x9fc00, 1},
                                        {0x9fc00, 0x400, 2},
                                        {0xe0000, 0x20000, 2},
                                        {MIB(1), RAM - MIB(1) - KIB(64), 1},
                                        {RAM - KIB(64), KIB(64), 3}};
static const struct boot_info info = {map, ARRAY_SIZE(map), RAM - KIB(64), 0xe0000};

static struct guest_memory *guest_create(void)
{
    struct guest_memory *mem;
    struct err e;

    if (guest_memory_create(RAM, &mem, &e) || guest_memory_map(mem, 0, 0xa0000, 0, false) ||
        guest_memory_map(mem, 0xc0000, RAM - 0xc0000, 0xc0000, false))
        abort();
    return mem;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    static struct guest_memory *mem;
    struct boot_image *image;
    struct boot_entry entry;
    struct err e;
    char path[32];
    int fd;

    if (!mem)
        mem = guest_create();
    fd = memfd_create("kernel", 0);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (!boot_image_create(path, NULL, "console=ttyS0", &image, &e)) {
        boot_image_load(image, mem, &info, &entry, &e);
        boot_image_free(image);
    }
    close(fd);
    return 0;
}
