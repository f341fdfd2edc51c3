/* Whether /dev/kvm is worth using: for --cpu-engine=auto. */
#ifndef CPU_KVM_PROBE_H
#define CPU_KVM_PROBE_H
#include "base/err.h"
#include "base/types.h"

#define KVM_WORTH_MIPS 1000 /* real hardware runs the loop at several thousands */

/* Runs a loop of ring-0 code for some milliseconds in a throw-away VM: a nested or software-only KVM can open and then
 * be far slower than our own engines. 0 and *ret_mips; or -E… and a phrase that says what is amiss with /dev/kvm. */
int kvm_probe(u32 *ret_mips, struct err *e);

#endif
