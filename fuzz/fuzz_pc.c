/* Hostile use of every chip of the board at once: registers, configuration space, DMA, time, code. See pc_actions.c. */
#include "pc_actions.h"

enum { INPUT_USED = 600 };

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct fuzz_input in = {data, MIN(size, (size_t)INPUT_USED)};

    pc_actions_machine();
    pc_actions_reset();
    pc_actions_run(&in);
    return 0;
}
