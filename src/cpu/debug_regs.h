/* A vCPU's registers as a debugger sees them: one table, in the order and under the names that gdb's target descriptions want
 * (gdb manual, "Standard Target Features", "i386 Features"), and a group of our own for system registers.
 *
 * While no vCPU runs. Values are little-endian bytes. A write does what the guest's own instruction would do at CPL 0 and is
 * refused where that would fault (non-canonical base, reserved bits, a segment that cannot be loaded), so that no value can
 * bring a vCPU into a state that no guest could reach. */
#ifndef CPU_DEBUG_REGS_H
#define CPU_DEBUG_REGS_H
#include "cpu/vcpu.h"

/* Of a register file: 32-bit names and widths for guests that know no others. */
enum debug_arch { DEBUG_I386, DEBUG_X86_64 };

/* Groups: gdb's features, and ours. A CPU model shows some of them. */
enum debug_feature {
    DEBUG_CORE, DEBUG_SSE, DEBUG_SEGMENTS, DEBUG_AVX, DEBUG_AVX512, DEBUG_PKEYS, DEBUG_SYSTEM, DEBUG_FEATURES,
};

enum debug_type { /* how to show it */
    DEBUG_INT, DEBUG_CODE_PTR, DEBUG_DATA_PTR, DEBUG_EFLAGS, DEBUG_FLOAT, DEBUG_VEC128, DEBUG_VEC256, DEBUG_MXCSR,
    DEBUG_CR0, DEBUG_CR4, DEBUG_EFER,
};

#define DEBUG_REGISTER_BYTES_MAX 32

struct debug_register {
    char name[16];
    u8 bytes;
    u8 feature; /* enum debug_feature */
    u8 type;    /* enum debug_type */
    u8 row, index; /* own: where in the table */
};

/* Register n of the file, counted from 0 without gaps; false behind the last. */
bool debug_register_get(const struct vcpu_group *g, enum debug_arch arch, int n, struct debug_register *ret);

/* The architecture whose file shows all of the model's registers. */
enum debug_arch debug_model_arch(const struct vcpu_group *g);

void debug_register_read(struct vcpu *c, const struct debug_register *r, u8 out[DEBUG_REGISTER_BYTES_MAX]);
bool debug_register_write(struct vcpu *c, const struct debug_register *r, const u8 *in); /* false: refused, nothing changed */

/* Where the next instruction is, as a linear address. */
u64 debug_next_linear(const struct vcpu *c);

#endif
