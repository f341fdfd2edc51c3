/* A chain of pointers in random order through CELLS cells of STRIDE bytes: the latency of a load, in the first cache
 * or beyond the caches and the TLB, as the build chooses. */
#include "kernel.h"

#define STEPS 1000000u

struct cell {
    struct cell *next;
    u8 pad[STRIDE - sizeof(void *)];
};

static struct cell cells[CELLS];

/* Sattolo's shuffle makes one cycle through all cells. */
static void chase_setup(void)
{
    u64 state = 11;

    for (u32 i = 0; i < CELLS; i++)
        cells[i].next = &cells[i];
    for (u32 i = CELLS - 1; i > 0; i--) {
        u32 j = sequence_next(&state) % i;
        struct cell *next = cells[i].next;

        cells[i].next = cells[j].next;
        cells[j].next = next;
    }
}

static u64 chase_round(void)
{
    const struct cell *cell = cells;

    for (u32 i = 0; i < STEPS; i++)
        cell = cell->next;
    return (u64)(cell - cells);
}

static const struct kernel kernel = {
    .name = NAME, .rounds = ROUNDS, .checksum = CHECKSUM, .setup = chase_setup, .round = chase_round};

int main(int argc, char **argv)
{
    return kernel_run(&kernel, argc, argv);
}
