/* vCPUs that run no guest code, for tests of everything around them: they implement cpu/vcpu.h, sleep while they
 * "run", and write down what reaches them. A test can give them something to do in their thread. */
#ifndef TESTS_FAKE_VCPU_H
#define TESTS_FAKE_VCPU_H
#include "cpu/vcpu.h"

#define FAKE_MESSAGES 64

struct fake_vcpu_log {
    struct apic_message message[FAKE_MESSAGES]; /* the first ones sent over the APIC bus */
    int message_count;
    bool intr;   /* level of the PIC's INTR */
    bool a20_closed;
    int resets;  /* calls of vcpu_group_reset */
    int running; /* vCPU threads inside vcpu_run now; atomic */
    int runs;    /* calls of vcpu_run so far; atomic */
    struct vcpu_boot_regs boot; /* of the last vcpu_boot */
    int boots;
    int virtual_wires; /* calls of lapic_virtual_wire */
};

struct fake_vcpu_log *fake_vcpu_log(struct vcpu_group *g);

/* What the guest uses to reach the machine. */
const struct vcpu_bus *fake_vcpu_bus(struct vcpu_group *g);

/* fn(ctx, index) is called once at the start of every vcpu_run from now on. */
void fake_vcpu_program(struct vcpu_group *g, void (*fn)(void *ctx, int index), void *ctx);

#endif
