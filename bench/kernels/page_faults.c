/* Fresh anonymous memory, touched page by page and given back: a page fault and a cleared page for each touch. */
#include "kernel.h"

#include <stddef.h>
#include <sys/mman.h>

#define PAGES 1024u
#define PAGE_SIZE 4096u

/* How many pages were fresh, that is, zero. */
static u64 faults_round(void)
{
    volatile u8 *memory = mmap(NULL, PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    u64 fresh = 0;

    if (memory == MAP_FAILED)
        return 0;
    madvise((void *)memory, PAGES * PAGE_SIZE, MADV_NOHUGEPAGE); /* one fault for all would be another benchmark */
    for (u32 i = 0; i < PAGES; i++)
        fresh += !memory[i * PAGE_SIZE + i]++;
    munmap((void *)memory, PAGES * PAGE_SIZE);
    return fresh;
}

static const struct kernel kernel = {.name = "page_faults", .rounds = 60, .checksum = PAGES, .round = faults_round};

int main(int argc, char **argv)
{
    return kernel_run(&kernel, argc, argv);
}
