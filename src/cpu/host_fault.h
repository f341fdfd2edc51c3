/* Faults of the host CPU inside generated code become exceptions of the guest.
 *
 * Code within a guarded range runs with RSI = the vCPU and a balanced stack. A fault there (SIGFPE, SIGILL, SIGSEGV
 * by a general protection fault) leaves it at once and raises the exception in that vCPU. Faults anywhere else stay
 * fatal. */
#ifndef CPU_HOST_FAULT_H
#define CPU_HOST_FAULT_H
#include "base/err.h"
#include "base/types.h"

/* Installs the signal handlers; once or more. */
int host_fault_setup(struct err *e);

/* Registers and forgets a range. -ENOSPC when too many are registered. */
int host_fault_guard(const u8 *start, u64 size, struct err *e);
/* The same for the translator's code, which runs with RSP = the vCPU: a fault goes on where jit_fault() says. */
int host_fault_translator(const u8 *start, u64 size, struct err *e);
void host_fault_unguard(const u8 *start);

#endif
