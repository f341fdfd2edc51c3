/* The way from devices to the APIC bus: devices do not include cpu/. */
#include "machine/machine.h"

void machine_apic_send(struct machine *m, u32 dest, u8 vector, u8 delivery, bool logical, bool level)
{
    const struct apic_message msg = {
        .dest = dest, .vector = vector, .delivery = delivery & 7, .logical = logical, .level_triggered = level};

    apic_bus_send(m->cpus, &msg);
}
