/* x87, MMX, SSE, AVX, AVX-512, AES, SHA… executed by the host: each decoded instruction gets a stub of host code
 * with its memory operand redirected to [rdi] and its general registers mapped; see vector.c. */
#ifndef CPU_VECTOR_H
#define CPU_VECTOR_H
#include "cpu/insn.h"

/* For every instruction whose ISA set works on extended registers, and for the state instructions: FXSAVE, FXRSTOR,
 * XSAVE*, XRSTOR*, LDMXCSR, STMXCSR, FNSTENV, FLDENV, FNSAVE, FRSTOR, FNINIT, FWAIT, EMMS, VZEROUPPER, … */
insn_choose_fn choose_vector;

/* Whether decode.c should hand an instruction to choose_vector. */
bool vector_insn(const struct insn_source *src);

/* Stubs live in a code cache shared by the group; created with it. */
int vector_setup(struct vcpu_group *g, struct err *e);
void vector_free(struct vcpu_group *g);

/* Sees that there is room for the stubs of a whole block; if not, stops the world, forgets every vCPU's decoded
 * blocks and all stubs. The engine calls it before it decodes a block, while it holds no decoded instruction. */
void vector_make_room(struct vcpu *c);

#endif
