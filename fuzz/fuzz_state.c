/* Hostile state streams: a device's kept state is saved, changed by the input and loaded; then the machine lives on
 * with it, and the rest of the input is what a guest does.
 *
 * The input: which device, changes of its values, changes of the stream; actions (pc_actions.c). */
#include "pc_actions.h"
#include "state_change.h"

#include <stdlib.h>

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

static void device_load(struct machine *m, struct fuzz_input *in)
{
    struct device *dev = device_choose(m, (int)take(in, 1));
    const struct state_table *table = &dev->type->state;
    size_t len;
    u8 *stream;

    if (!table->fields)
        return;
    stream = state_stream_changed(table, device_state(dev), in, &len);
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
