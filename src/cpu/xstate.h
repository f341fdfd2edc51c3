/* The extended registers: x87, MMX, SSE, AVX, AVX-512, PKRU. SDM vol. 1 ch. 13.
 *
 * The host CPU is their semantics: guest vector and x87 instructions run as themselves on the host's units. While `ext_live`,
 * the guest's registers (MXCSR and FCW too) are in the host's; code of cpu/ is compiled so that it never touches them.
 * Every call out of cpu/ that may (devices, libc's memcpy, Zydis, tracing) comes after ext_save(). Loading is lazy: the
 * next vector instruction does it.
 *
 * While not ext_live they are in s.xsave, in the standard format with the offsets of ext_components whatever the host's are:
 * XSAVE images and snapshots look the same on every host. Exceptions: PKRU is always in s.pkru, the x87 pointers and opcode
 * always in s.fip, s.fdp, s.fcs, s.fds, s.fop. */
#ifndef CPU_XSTATE_H
#define CPU_XSTATE_H
#include "cpu/vcpu_state.h"

enum { XCOMP_X87, XCOMP_SSE, XCOMP_AVX, XCOMP_OPMASK = 5, XCOMP_ZMM_HI256, XCOMP_HI16_ZMM, XCOMP_PKRU = 9, XCOMP_COUNT };

#define XSAVE_HEADER 512   /* offset: XSTATE_BV, XCOMP_BV, reserved */
#define XSAVE_EXTENDED 576 /* offset of the first component of the compacted format */

/* Offset in the standard format and size, as CPUID leaf 0xD must show them; size 0: not a component that guests can have.
 * Components 0 and 1 are in the legacy region. */
struct ext_component {
    u32 offset, size;
};
extern const struct ext_component ext_components[XCOMP_COUNT];

/* Once, before any vCPU runs: what the host has, its XSAVE layout, the SIGFPE/SIGSEGV/SIGILL/SIGBUS handlers for stubs.
 * -ENOTSUP and a sentence when the host lacks x86-64-v2 with XSAVE. */
int ext_setup(struct err *e);

/* XCR0 bits that a guest can be given: those the host's XCR0 has and this file saves. After ext_setup. */
u64 ext_host_components(void);

/* MXCSR bits that may be set; others raise #GP where MXCSR is loaded. */
u32 ext_mxcsr_mask(void);

/* A 64-bit x87 pointer as the host keeps it: sign-extended from its linear-address width. */
u64 ext_canonical(u64 pointer);

/* The image in s.xsave; ext_save() first. */
static inline u8 *ext_area(struct vcpu *c)
{
    return (u8 *)c->s.xsave;
}
static inline u64 *ext_xstate_bv(struct vcpu *c)
{
    return (u64 *)(ext_area(c) + XSAVE_HEADER);
}

/* XINUSE: the components that are not in their initial configuration (XGETBV with ECX = 1 shows this and XCR0). Saves. */
u64 ext_in_use(struct vcpu *c);

/* The image in the host's layout (4096 bytes, cleared before), as KVM and ptrace have it, and back. ext_save() first. */
void ext_image_to_host(struct vcpu *c, u8 *to);
void ext_image_from_host(struct vcpu *c, const u8 *from);

/* INIT/RESET values: FCW 037F at INIT, 0040 after RESET …; SDM vol. 3 table 9-1. */
void ext_reset(struct vcpu *c, bool init_only);

/* One vector register, all 64 bytes, or one opmask register, of the image; ext_save() first. */
void ext_vector_get(struct vcpu *c, int n, u8 out[64]);
void ext_vector_set(struct vcpu *c, int n, const u8 in[64]);
u64 ext_opmask_get(struct vcpu *c, int n);
void ext_opmask_set(struct vcpu *c, int n, u64 val);

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

/* After each instruction. Sanitizers' run-time calls use vector registers wherever they like: under them no guest register
 * stays in the host's. */
static inline void ext_settle(struct vcpu *c)
{
#ifdef VECTORS_SAVED_EARLY
    ext_save(c);
#endif
}

#endif
