/* Hostile streams of a vCPU's state, and of its local APIC's: what is accepted must be a state that the engine can go on from.
 *
 * The input: changes of values, changes of the stream, code. */
#include "cpu/interp.h"
#include "cpu/lapic.h"
#include "cpu/vcpu_load.h"
#include "cpu_world.h"
#include "state_change.h"

#include <stdlib.h>
#include <string.h>

enum { CODE = 0x1000, INPUT_USED = 300, STEPS = 16 };

static bool vcpu_load_changed(struct vcpu *c, struct fuzz_input *in)
{
    size_t len;
    u8 *stream = state_stream_changed(&vcpu_state_table, &c->s, in, &len);
    int r = vcpu_state_load(c, stream, len);

    free(stream);
    return !r;
}

static void lapic_load_changed(struct vcpu *c, struct fuzz_input *in)
{
    size_t len;
    u8 *stream = state_stream_changed(&lapic_state_table, lapic_state(c), in, &len);

    if (!state_load(&lapic_state_table, lapic_state(c), stream, len))
        lapic_loaded(c);
    free(stream);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct fuzz_input in = {data, MIN(size, (size_t)INPUT_USED)};
    struct vcpu *c = cpu_world();
    u8 code[32];

    c->s.seg_base[SEG_CS] = 0;
    c->s.gpr[RIP] = CODE;
    for (int n = 1 + (int)take(&in, 1) % 4; n; n--)
        vcpu_load_changed(c, &in);
    if (take(&in, 1) & 1)
        lapic_load_changed(c, &in);
    for (size_t i = 0; i < sizeof(code); i++)
        code[i] = (u8)take(&in, 1);
    guest_memory_write(vcpu_memory(c), CODE, code, sizeof(code));
    for (int n = 0; n < STEPS && c->s.activity == VCPU_ACTIVE; n++)
        interp_step(c);
    vcpu_state_sync(c);
    cpu_world_check();
    return 0;
}
