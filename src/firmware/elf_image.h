/* ELF executables for x86, 32-bit and 64-bit, as containers of kernels. System V ABI, "Object Files" and "Program
 * Loading". */
#ifndef FIRMWARE_ELF_IMAGE_H
#define FIRMWARE_ELF_IMAGE_H
#include "firmware/boot_loader.h"

struct elf_image {
    const struct boot_kernel *file;
    bool is64;
    u64 entry; /* virtual */
    u64 phoff;
    u32 phnum, phentsize;
};

struct elf_segment {
    u32 type; /* PT_* of <elf.h> */
    u64 offset, filesz;
    u64 vaddr, paddr, memsz;
    u64 align;
};

bool elf_image_recognise(const struct boot_kernel *k); /* by its magic number */

/* Checks the file header, that the program headers are in the file, and that the file has all the bytes that they
 * promise. `elf` refers to `k` afterwards. */
int elf_image_open(struct elf_image *elf, const struct boot_kernel *k, struct err *e);

/* Program header n, 0 to phnum - 1. What it says about the file was checked; about memory, nothing. */
struct elf_segment elf_image_segment(const struct elf_image *elf, u32 n);

/* Copies all loadable segments to their physical addresses and zeroes what their files do not fill. */
int elf_image_load(const struct elf_image *elf, struct boot_memory *memory, struct err *e);

/* The physical address of the entry point, whether the file names it so or by its virtual address. */
u64 elf_image_entry(const struct elf_image *elf);

#endif
