/* Hostile state streams: a device's or vCPU's kept state is saved, changed by the input and loaded; then the machine lives on
 * with it, and the rest of the input is what a guest does.
 *
 * The input: which device, how many changes, the changes; actions (pc_actions.c). */
#include "pc_actions.h"

#include <stdlib.h>
#include <string.h>

enum { INPUT_USED = 600 };

static struct device *device_choose(struct machine *m, int n)
{
    struct device *dev = m->devices;
    int count = 0;

    for (struct device *d = dev; d; d = d->next)
        count++;
    for (n %= count; n; n--)
        dev = dev->next;
    return dev;
}

static size_t change(u8 *stream, size_t len, struct fuzz_input *in)
{
    for (int n = (int)take(in, 1) % 16; n; n--)
        stream[take(in, 2) % len] = (u8)take(in, 1);
    return take(in, 1) ? len : take(in, 2) % len;
}

static void device_load(struct machine *m, struct fuzz_input *in)
{
    struct device *dev = device_choose(m, (int)take(in, 1));
    const struct state_table *table = &dev->type->state;
    u8 *stream;
    size_t len;

    if (!table->fields)
        return;
    stream = malloc(state_stream_size(table));
    len = change(stream, state_save(table, device_state(dev), stream), in);
    if (!state_load(table, device_state(dev), stream, len) && dev->type->loaded)
        dev->type->loaded(dev);
    free(stream);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct fuzz_input in = {data, MIN(size, (size_t)INPUT_USED)};
    struct machine *m = pc_actions_machine();

    pc_actions_reset();
    for (int n = 1 + (int)take(&in, 1) % 4; n; n--)
        device_load(m, &in);
    pc_actions_run(&in);
    return 0;
}
