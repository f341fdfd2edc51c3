/* Model-specific registers, by RDMSR and WRMSR number. SDM vol. 4 ch. 2. Unknown ones raise #GP(0) and leave a trace. */
#ifndef CPU_MSR_H
#define CPU_MSR_H
#include "cpu/vcpu_state.h"

/* False: #GP(0) (no such register, reserved bits, read-only). No side effects then. */
bool msr_read(struct vcpu *c, u32 msr, u64 *ret);
bool msr_write(struct vcpu *c, u32 msr, u64 val);

/* The memory type range registers and IA32_PAT, of msr_mtrr.c. SDM vol. 3 §11.11, §11.12. */
bool mtrr_msr_read(struct vcpu *c, u32 msr, u64 *ret);
bool mtrr_msr_write(struct vcpu *c, u32 msr, u64 val);

/* The TSC as the guest reads it now. */
u64 tsc_read(struct vcpu *c);

#endif
