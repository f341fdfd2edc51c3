/* System instructions, by group: each file supplies a table from mnemonic to handler, choose_system looks in all. */
#ifndef CPU_EXEC_SYSTEM_H
#define CPU_EXEC_SYSTEM_H
#include "cpu/cpuid.h"
#include "cpu/insn.h"

#define FEAT_ALWAYS FEAT_COUNT

struct system_insn {
    u16 mnemonic; /* ZydisMnemonic; 0 ends a table */
    u8 feature;   /* without it: #UD */
    insn_fn *fn;
};

extern const struct system_insn descriptor_insns[]; /* exec_descriptor.c: tables, selectors' properties, LDTR and TR */
extern const struct system_insn control_insns[];    /* exec_control.c: CR0, XCR0, TLB, caches, HLT */
extern const struct system_insn transfer_insns[];   /* exec_transfer.c: IRET, INT n, fast system calls */

insn_choose_fn choose_segment;       /* exec_segment.c: MOV, PUSH, POP of segment registers, LDS and kin */
insn_choose_fn choose_far;           /* exec_transfer.c: far JMP, CALL, RET */
insn_choose_fn choose_control_debug; /* exec_control.c: MOV of control and debug registers */

/* Raises #GP(0) above CPL 0, and so in V86 mode. */
void cpl0_check(struct vcpu *c);

/* What MOV from and to CR0, CR2, CR3, CR4, CR8 and to DR0–DR3, DR6, DR7 do after their privilege checks; raise #GP(0). */
u64 control_register_read(struct vcpu *c, int n);
void control_register_write(struct vcpu *c, int n, u64 val);
void debug_register_load(struct vcpu *c, int n, u64 val);

/* What XSETBV takes for XCR0. */
bool xcr0_valid(const struct vcpu *c, u64 val);

/* FS or GS gets a new base, in whatever mode; the rest of the register stays. */
static inline void segment_base_set(struct vcpu *c, int seg, u64 base)
{
    c->s.seg_base[seg] = base;
    c->lin_base[seg] = base;
}

#endif
