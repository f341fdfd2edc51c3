/* The local APIC: xAPIC and x2APIC, timer (one-shot, periodic, TSC deadline), IPIs. SDM vol. 3 ch. 11.
 *
 * Registers belong to their vCPU's thread; IRR, TMR, ESR and the pending events are also set by other threads,
 * atomically, and the timer has a lock of its own. Nothing here is held while the machine is called. */
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

/* What firmware leaves for a system that it starts: enabled, with the PIC on LINT0 (ExtINT) and NMI on LINT1:
 * "virtual wire" mode of the MultiProcessor Specification §3.6.2.2. For loaders that start a kernel without
 * firmware; vCPU 0. */
void lapic_virtual_wire(struct vcpu *c);

/* Memory-mapped registers, offset within the 4 KiB page. 32-bit accesses at multiples of 16, as SDM §11.4.1 demands;
 * other reads get the bytes that a wide bus would show, other writes are ignored. */
u32 lapic_mmio_read(struct vcpu *c, u32 offset, int size);
void lapic_mmio_write(struct vcpu *c, u32 offset, int size, u32 val);

/* x2APIC MSRs 0x800–0x8FF, IA32_APIC_BASE, IA32_TSC_DEADLINE. False: #GP(0). */
bool lapic_msr_read(struct vcpu *c, u32 msr, u64 *ret);
bool lapic_msr_write(struct vcpu *c, u32 msr, u64 val);

/* After s.tsc_offset changed: an armed TSC deadline moves with it. Own thread. */
void lapic_tsc_changed(struct vcpu *c);

/* CR8: bits 7:4 of the task priority. */
u64 lapic_cr8_read(struct vcpu *c);
void lapic_cr8_write(struct vcpu *c, u64 val);

/* Whether an interrupt of sufficient priority (or ExtINT) waits; own thread. */
bool lapic_interrupt_waiting(struct vcpu *c);
/* Takes it: moves IRR to ISR (or asks the PIC for its vector) and returns the vector; -1 if there was none after
 * all. */
int lapic_interrupt_take(struct vcpu *c);

/* Delivery to this LAPIC, from any thread. Interrupts set IRR; NMI, INIT and SIPI become events in the vCPU's state:
 * sipi_pending counts only while the vCPU waits for it after INIT, and is to be discarded otherwise. */
void lapic_accept(struct vcpu *c, const struct apic_message *msg);
bool lapic_matches(struct vcpu *c, const struct apic_message *msg);

/* A change of local interrupt pin 0 or 1, any thread. For LINT0 as ExtINT the level in vcpu_group counts, which is
 * to be stored before. */
void lapic_lint(struct vcpu *c, int pin, bool level);

/* For lowest-priority arbitration, any thread: whether it takes interrupts at all, and its processor priority. */
bool lapic_takes_interrupts(struct vcpu *c);
u8 lapic_priority(struct vcpu *c);

/* Time to recompute timers after state was loaded. */
void lapic_loaded(struct vcpu *c);

/* State for snapshots. */
extern const struct state_table lapic_state_table;
void *lapic_state(struct vcpu *c);

#endif
