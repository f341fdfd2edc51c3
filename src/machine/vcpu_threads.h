/* The threads that a machine's vCPUs run in, one each. Loop thread only, machine lock not held. */
#ifndef MACHINE_VCPU_THREADS_H
#define MACHINE_VCPU_THREADS_H
#include "base/err.h"

struct machine;

/* Lets the vCPUs run. On failure none does. */
int vcpu_threads_start(struct machine *m, struct err *e);

/* Stops every vCPU between two instructions and waits for its thread to end; no effect when none runs. */
void vcpu_threads_stop(struct machine *m);

#endif
