/* Loading a vCPU's architectural state from a stream. */
#ifndef CPU_VCPU_LOAD_H
#define CPU_VCPU_LOAD_H
#include "cpu/vcpu_state.h"

/* Reads a stream that state_save made of vcpu_state_table into a vCPU that does not run. -EINVAL, and nothing changed, for a
 * stream that is malformed (see base/state.h) or that describes a state in which no vCPU of this model can be. */
int vcpu_state_load(struct vcpu *c, const u8 *in, size_t len);

#endif
