/* The bus between the local APICs. For files of cpu/; the machine's side is apic_bus_send() in cpu/vcpu.h. */
#ifndef CPU_APIC_BUS_H
#define CPU_APIC_BUS_H
#include "cpu/vcpu.h"

/* Delivers to the vCPUs whose bits are set in `targets`, whatever msg->dest says; lowest priority picks one of them.
 * Any thread. */
void apic_bus_deliver(struct vcpu_group *g, u32 targets, const struct apic_message *msg);

#endif
