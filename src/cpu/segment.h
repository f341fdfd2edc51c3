/* Segment registers, descriptors, and the instructions that move control between segments. SDM vol. 3 ch. 3, 5, 7. */
#ifndef CPU_SEGMENT_H
#define CPU_SEGMENT_H
#include "cpu/insn.h"

/* Loads a data or stack segment register as MOV and POP do, with all checks of the mode; raises #GP, #NP, #SS.
 * Not for CS. */
void segment_load(struct vcpu *c, int seg, u16 sel);

/* Puts base = sel << 4, limit 0xFFFF, real-mode attributes (real and V86 mode; V86 has DPL 3). Limit is kept in real
 * mode ("unreal" mode), set in V86. */
void segment_load_real(struct vcpu *c, int seg, u16 sel);

/* The slow check of an access to [offset, offset+size) of a segment whose bit in seg_check is set: null, limit, type;
 * in 64-bit mode canonicality of FS and GS based addresses is left to the MMU. Raises #GP(0) or #SS(0). */
void segment_check(struct vcpu *c, int seg, u64 offset, u32 size, bool write);

/* Far transfers. `size` is the operand size in bytes; RIP is already behind the instruction. */
void far_jump(struct vcpu *c, u16 sel, u64 offset, int size);
void far_call(struct vcpu *c, u16 sel, u64 offset, int size);
void far_return(struct vcpu *c, int size, u16 release);
void interrupt_return(struct vcpu *c, int size); /* IRET, IRETD, IRETQ */

/* Hardware task switch to the TSS `sel`, SDM vol. 3 §7.3. `ext` goes into the error codes of its faults; TASK_GATE
 * pushes `error` on the new task's stack if there is one. The caller has checked privileges. Faults before the point
 * of no return leave the old task as it was, later ones belong to the new one: c->insn is NULL then, so that RIP
 * stays. */
enum task_switch_kind { TASK_JUMP, TASK_CALL, TASK_IRET, TASK_GATE };
void task_switch(struct vcpu *c, u16 sel, enum task_switch_kind kind, u32 ext, bool has_error, u32 error);

/* Choosers of cpu/exec_system.c, for decode.c: everything that is not plain user-mode integer or vector code. */
insn_choose_fn choose_system;

/* Whether IN/OUT (and INS/OUTS) to [port, port+size) is allowed at the current privilege; raises #GP(0) if not. Notes what
 * I/O breakpoints the access hits. */
void io_permission_check(struct vcpu *c, u16 port, int size);

/* INT n at the current mode: in V86 mode IOPL matters. */
void software_interrupt(struct vcpu *c, int vector);

#endif
