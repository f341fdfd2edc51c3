/* The extended registers: x87, MMX, SSE, AVX, AVX-512, PKRU. SDM vol. 1 ch. 13.
 *
 * The host CPU is their semantics: guest vector and x87 instructions run as themselves on the host's units. While `ext_live`,
 * the guest's registers (MXCSR and FCW too) are in the host's; code of cpu/ is compiled so that it never touches them.
 * Every call out of cpu/ that may (devices, libc's memcpy, Zydis, tracing) comes after ext_save(). Loading is lazy: the
 * next vector instruction does it. */
#ifndef CPU_XSTATE_H
#define CPU_XSTATE_H
#include "cpu/vcpu_state.h"

/* Once, before any vCPU runs: what the host has, its XSAVE layout, the SIGFPE/SIGSEGV/SIGILL/SIGBUS handlers for stubs.
 * -ENOTSUP and a sentence when the host lacks x86-64-v2 with XSAVE. */
int ext_setup(struct err *e);

u8 *ext_area(struct vcpu *c); /* 64-byte aligned XSAVE area for c (the state is copied to and from s.xsave by sync) */

/* INIT/RESET values: FCW 037F at INIT, 0040 after RESET …; SDM vol. 3 table 9-1. */
void ext_reset(struct vcpu *c, bool init_only);

void ext_load_slow(struct vcpu *c);
void ext_save_slow(struct vcpu *c);
static inline void ext_load(struct vcpu *c)
{
    if (unlikely(!c->ext_live))
        ext_load_slow(c);
}
static inline void ext_save(struct vcpu *c)
{
    if (unlikely(c->ext_live))
        ext_save_slow(c);
}

#endif
