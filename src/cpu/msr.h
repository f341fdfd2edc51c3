/* Model-specific registers, by RDMSR and WRMSR number. SDM vol. 4 ch. 2. Unknown ones raise #GP(0) and leave a
 * trace. */
#ifndef CPU_MSR_H
#define CPU_MSR_H
#include "cpu/vcpu_state.h"

/* False: #GP(0) (no such register, reserved bits, read-only). No side effects then. */
bool msr_read(struct vcpu *c, u32 msr, u64 *ret);
bool msr_write(struct vcpu *c, u32 msr, u64 val);

/* The memory type range registers and IA32_PAT, of msr_mtrr.c. SDM vol. 3 §11.11, §11.12. */
bool mtrr_msr_read(struct vcpu *c, u32 msr, u64 *ret);
bool mtrr_msr_write(struct vcpu *c, u32 msr, u64 val);

/* What firmware leaves for a system that it starts: all memory write-back but for the video memory and ROMs below 1 MiB.
 * For loaders that start a kernel without firmware, on every vCPU; a kernel that finds MTRRs off may leave the PAT off. */
void mtrr_firmware_setup(struct vcpu *c);

#define TSC_KHZ_DEFAULT 1000000u

/* Ticks of the TSC in `ns` nanoseconds. */
static inline u64 tsc_ticks(const struct vcpu_group *g, u64 ns)
{
    if (likely(g->tsc_khz == TSC_KHZ_DEFAULT))
        return ns;
    return ns / 1000000 * g->tsc_khz + ns % 1000000 * g->tsc_khz / 1000000;
}

/* Nanoseconds that so many ticks of the TSC take; UINT64_MAX if more than that can hold. */
static inline u64 tsc_nanoseconds(const struct vcpu_group *g, u64 ticks)
{
    u64 ns;

    if (likely(g->tsc_khz == TSC_KHZ_DEFAULT))
        return ticks;
    if (__builtin_mul_overflow(ticks / g->tsc_khz, 1000000ull, &ns))
        return UINT64_MAX;
    return ns > UINT64_MAX - 1000000 ? UINT64_MAX : ns + ticks % g->tsc_khz * 1000000 / g->tsc_khz;
}

/* The TSC as the guest reads it now; own thread. */
u64 tsc_read(struct vcpu *c);

#endif
