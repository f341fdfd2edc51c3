/* Code that is written, run, and written again, as a just-in-time compiler of the guest's does it: eight small
 * functions in one page that may be written and executed, each changed and called in turn. */
#include "kernel.h"

#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#define CALLS 20000u
#define SLOTS 8u
#define SLOT_SIZE 256u

static u8 *code;

static void rewrite_setup(void)
{
    void *page = mmap(NULL, SLOTS * SLOT_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    code = page == MAP_FAILED ? NULL : page;
}

/* LEA EAX, [RDI+n]; XOR EAX, n; RET */
static void function_write(u8 *to, u32 n)
{
    static const u8 lea[] = {0x8d, 0x87}, xor_ret[] = {0x35, 0, 0, 0, 0, 0xc3};

    memcpy(to, lea, 2);
    memcpy(to + 2, &n, 4);
    memcpy(to + 6, xor_ret, 6);
    memcpy(to + 7, &n, 4);
}

static u64 rewrite_round(void)
{
    u64 state = 19;
    u32 x = 1;

    if (!code)
        return 0;
    for (u32 i = 0; i < CALLS; i++) {
        u8 *slot = code + i % SLOTS * SLOT_SIZE;

        function_write(slot, sequence_next(&state));
        x = ((u32(*)(u32))(void *)slot)(x);
    }
    return x;
}

static const struct kernel kernel = {
    .name = "code_rewrite", .rounds = 20, .checksum = 0x42c1a3f7, .setup = rewrite_setup, .round = rewrite_round};

int main(int argc, char **argv)
{
    return kernel_run(&kernel, argc, argv);
}
