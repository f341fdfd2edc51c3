/* Host and guests: see machines.h. */
#include "machines.h"

#include "compare.h"
#include "cpu/cpuid.h"
#include "guest.h"
#include "native.h"

static struct insn_guest *guests[2]; /* long mode; legacy */

int machines_setup(struct err *e)
{
    int r = 0;

    for (int n = 0; n < 2 && !r; n++) {
        struct insn_guest_config config = {.legacy = n, .engine = CPU_ENGINE_INTERP};

        r = guest_create(&config, &guests[n], e);
    }
    if (!r)
        r = native_setup(e);
    for (int n = 0; n < 2 && !r; n++)
        guest_set_cpu_number_limit(guests[n], native_segment_limit(SEL_CPU_NUMBER));
    return r;
}

u64 machines_components(void)
{
    return guest_vcpu(guests[0])->group->model->xcr0_mask & 0xe7;
}

bool machines_show(const struct insn_case *c, const struct decoded *d)
{
    return guest_shows(guests[0], c, d);
}

/* A guest goes first: it knows when an instruction jumps into itself, or would not end, which the host should not try. */
struct trial machines_try(const struct insn_case *c, const struct decoded *d, FILE *out)
{
    static struct insn_outcome host, ours;
    struct comparison k = {.c = c, .d = d, .host = &host, .ours = &ours, .components = machines_components()};
    struct trial t = {.class = insn_classify(c, d)};

    if (t.class == INSN_NEVER)
        return t;
    guest_run(guests[0], c, &ours);
    t.vector = ours.vector;
    if (ours.vector == INSN_ASTRAY)
        return t;
    if (t.class != INSN_COMPARE) {
        t.differences = compare_hidden(&k, t.class, out);
        return t;
    }
    native_run(c, &host);
    t.vector = host.vector;
    t.differences = compare(&k, out);
    if (c->code_size == 8)
        return t;
    if (out && t.differences)
        fprintf(out, "  (in compatibility mode)\n");
    k.legacy = true;
    guest_run(guests[1], c, &ours);
    t.differences += compare(&k, out);
    return t;
}
