/* Messages between local APICs, and from I/O APICs and devices to them: who is meant, and for lowest priority, who
 * gets it. SDM vol. 3 §11.6.2. */
#include "cpu/apic_bus.h"
#include "cpu/lapic.h"

/* The vCPU with the lowest processor priority. Among equals the vector decides, so that interrupts spread, and each
 * stays with one vCPU's caches. -1: none takes interrupts. */
static int arbitrate(struct vcpu_group *g, u32 targets, u8 vector)
{
    int best = -1;
    u8 best_priority = 0;

    for (int i = 0; i < g->count; i++) {
        int n = (vector + i) % g->count;
        u8 priority;

        if (!(targets >> n & 1) || !lapic_takes_interrupts(g->vcpu[n]))
            continue;
        priority = lapic_priority(g->vcpu[n]) & 0xf0;
        if (best < 0 || priority < best_priority) {
            best = n;
            best_priority = priority;
        }
    }
    return best;
}

void apic_bus_deliver(struct vcpu_group *g, u32 targets, const struct apic_message *msg)
{
    if (msg->delivery == APIC_LOWEST) {
        int chosen = arbitrate(g, targets, msg->vector);

        targets = chosen < 0 ? 0 : 1u << chosen;
    }
    for (int n = 0; n < g->count; n++)
        if (targets >> n & 1)
            lapic_accept(g->vcpu[n], msg);
}

void apic_bus_send(struct vcpu_group *g, const struct apic_message *msg)
{
    u32 targets = 0;

    for (int n = 0; n < g->count; n++)
        if (lapic_matches(g->vcpu[n], msg))
            targets |= 1u << n;
    apic_bus_deliver(g, targets, msg);
}
