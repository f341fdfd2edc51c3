/* The local APIC: xAPIC and x2APIC, timer (one-shot, periodic, TSC deadline), IPIs. SDM vol. 3 ch. 11.
 *
 * Registers belong to their vCPU's thread, except IRR and the pending events, which other threads set atomically. */
#ifndef CPU_LAPIC_H
#define CPU_LAPIC_H
#include "cpu/vcpu_state.h"

#define LAPIC_DEFAULT_BASE 0xfee00000ull

int lapic_create(struct vcpu *c, struct err *e);
void lapic_free(struct vcpu *c);
void lapic_reset(struct vcpu *c, bool init_only); /* INIT keeps the APIC id and the APIC base MSR */

/* Whether the page at gpa is this vCPU's APIC page: globally enabled, xAPIC mode. */
static inline bool lapic_page(const struct vcpu *c, u64 gpa)
{
    return (c->s.msr_apic_base & 0xc00) == 0x800 && !((gpa ^ c->s.msr_apic_base) & 0x000ffffffffff000);
}

/* Memory-mapped registers, offset within the 4 KiB page; 32-bit accesses at multiples of 16, others as SDM §11.4.1 says. */
u32 lapic_mmio_read(struct vcpu *c, u32 offset, int size);
void lapic_mmio_write(struct vcpu *c, u32 offset, int size, u32 val);

/* x2APIC MSRs 0x800–0x8FF, IA32_APIC_BASE, IA32_TSC_DEADLINE. False: #GP(0). */
bool lapic_msr_read(struct vcpu *c, u32 msr, u64 *ret);
bool lapic_msr_write(struct vcpu *c, u32 msr, u64 val);

/* CR8: bits 7:4 of the task priority. */
u64 lapic_cr8_read(struct vcpu *c);
void lapic_cr8_write(struct vcpu *c, u64 val);

/* Whether an interrupt of sufficient priority (or ExtINT) waits; own thread. */
bool lapic_interrupt_waiting(struct vcpu *c);
/* Takes it: moves IRR to ISR (or asks the PIC for its vector) and returns the vector; -1 if there was none after all. */
int lapic_interrupt_take(struct vcpu *c);

/* Delivery to this LAPIC, from any thread. */
void lapic_accept(struct vcpu *c, const struct apic_message *msg);
bool lapic_matches(struct vcpu *c, const struct apic_message *msg);

/* Time to recompute timers after state was loaded. */
void lapic_loaded(struct vcpu *c);

/* State for snapshots. */
extern const struct state_table lapic_state_table;
void *lapic_state(struct vcpu *c);

#endif
