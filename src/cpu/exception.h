/* Raising and delivering exceptions and interrupts. SDM vol. 3 ch. 6.
 *
 * A handler that finds a fault calls raise_*(); control goes back to the run loop, which puts RIP back to the instruction's
 * start (fault_rip) and calls exception_deliver(). Faults during delivery come the same way and become #DF or shutdown. */
#ifndef CPU_EXCEPTION_H
#define CPU_EXCEPTION_H
#include "cpu/vcpu_state.h"

enum { /* DR6; the lowest four say which breakpoint matched */
    DR6_BD = 0x2000, /* DR7.GD forbids access to debug registers */
    DR6_BREAKPOINTS = 0xf,
    DR6_BS = 0x4000, /* single step */
    DR6_BT = 0x8000, /* task switch */
};

/* Raise a fault with or without an error code. Delivery clears or sets what the manual says (RF, CR2 by the caller). */
_Noreturn void raise_fault(struct vcpu *c, int vector);
_Noreturn void raise_error(struct vcpu *c, int vector, u32 error);
_Noreturn void raise_page_fault(struct vcpu *c, u64 gva, u32 error);
static inline _Noreturn void raise_ud(struct vcpu *c) { raise_fault(c, EXC_UD); }
static inline _Noreturn void raise_gp0(struct vcpu *c) { raise_error(c, EXC_GP, 0); }

/* Where an event came from: privilege checks and the pushed RIP and RF depend on it. */
enum event_kind {
    EVENT_FAULT,     /* RIP of the instruction; RF set in the pushed flags */
    EVENT_TRAP,      /* #DB trap: RIP of the next instruction */
    EVENT_SOFTWARE,  /* INT n, INT3, INTO: gate DPL checked */
    EVENT_ICEBP,     /* INT1: as a trap, no DPL check */
    EVENT_EXTERNAL,  /* interrupt or NMI: EXT bit in error codes of faults on the way */
};

/* Pushes the frame and enters the handler through the IVT or IDT (16-, 32-, 64-bit, task gate). RIP is what will be
 * pushed. Raises on faults of its own; the run loop turns those into #DF by SDM table 6-5. */
void exception_deliver(struct vcpu *c, enum event_kind kind, int vector, bool has_error, u32 error);

/* The run loop's answer to a raise: delivers c->fault_*, escalating to #DF and to shutdown (activity VCPU_SHUTDOWN, bus
 * shutdown callback) as the manual says. May itself come back through c->fault_jump. */
void exception_handle_fault(struct vcpu *c);

/* Triple fault: the vCPU stands still, and the machine is told. */
void vcpu_shutdown(struct vcpu *c);

/* Loads RFLAGS as POPF and IRET do after masking, and updates the mode (TF, AC, VM). */
void flags_load(struct vcpu *c, u64 flags);

/* Debug: traps that became due in the instruction just completed (single-step, data breakpoints, BS) are in
 * s.pending_db; delivers #DB if any. */
void debug_trap_deliver(struct vcpu *c);

#endif
