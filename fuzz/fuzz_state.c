/* Hostile state streams: a device's or vCPU's kept state is saved, changed by the input and loaded; then the machine lives on
 * with it, and the rest of the input is what a guest does.
 *
 * The input: which device, changes of its values, changes of the stream; actions (pc_actions.c). */
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

static int field_count(const struct state_table *t)
{
    int n = 0;

    while (t->fields[n].name)
        n++;
    return n;
}

/* A value of a field: any byte of it, or all of them. */
static void value_change(const struct state_table *t, u8 *state, struct fuzz_input *in)
{
    const struct state_field *f = &t->fields[take(in, 1) % (u64)field_count(t)];
    u8 how = (u8)take(in, 1), *val = state + f->offset + (take(in, 1) % f->count) * f->size;

    if (how & 1)
        val[how >> 1 & (f->size - 1)] = (u8)take(in, 1);
    else
        memset(val, (int)take(in, 1), f->size);
}

/* The stream's own bytes, and where it ends. */
static size_t stream_change(u8 *stream, size_t len, struct fuzz_input *in)
{
    for (int n = (int)take(in, 1) % 4; n; n--)
        stream[take(in, 2) % len] = (u8)take(in, 1);
    return take(in, 1) % 8 ? len : take(in, 2) % len;
}

static void device_load(struct machine *m, struct fuzz_input *in)
{
    struct device *dev = device_choose(m, (int)take(in, 1));
    const struct state_table *table = &dev->type->state;
    u8 *stream, *state;
    size_t len;

    if (!table->fields)
        return;
    stream = malloc(state_stream_size(table));
    state = malloc(table->size);
    memcpy(state, device_state(dev), table->size);
    for (int n = (int)take(in, 1) % 8; n; n--)
        value_change(table, state, in);
    len = stream_change(stream, state_save(table, state, stream), in);
    if (!state_load(table, device_state(dev), stream, len) && dev->type->loaded)
        dev->type->loaded(dev);
    free(stream);
    free(state);
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
