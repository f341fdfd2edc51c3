/* Inside the vector unit: what a decoded vector or x87 instruction knows besides struct insn.
 *
 * A `struct vector_op` holds a stub of host code, the guest's instruction re-encoded for the host (vector_stub.c),
 * and what must be known about its memory operand. Equal ones are shared by all instructions and vCPUs of a group;
 * they are immutable and live until vector_make_room() finds the code cache full. */
#ifndef CPU_VECTOR_OP_H
#define CPU_VECTOR_OP_H
#include "cpu/cpuid.h"
#include "cpu/vector.h"

/* Which control bits an instruction asks. */
enum vector_class { VC_X87, VC_X87_CONTROL, VC_FWAIT, VC_MMX, VC_SSE, VC_AVX, VC_AVX512, VC_XSAVE, VC_COUNT };

/* Which elements of the memory operand are really accessed. */
enum vector_mask {
    VM_NONE,     /* all */
    VM_OPMASK,   /* those whose lanes have their bit set in opmask register mask_reg */
    VM_PACKED,   /* as many, from the first, as opmask bits are set (compress, expand) */
    VM_SIGNS,    /* those whose element of vector register mask_reg has its top bit set (VMASKMOV, MASKMOVDQU) */
    VM_SIGNS_MMX, /* the same with an MMX register (MASKMOVQ) */
};

struct vector_op {
    u32 (*run)(void *mem, struct vcpu *c); /* returns FSW for class VC_X87, else nothing */
    u16 size;       /* of the memory operand, bytes; 0: none */
    u8 read, write; /* what is done to it */
    u8 align;       /* the operand must be aligned to this, #GP; 0: it need not */
    u8 never_ac;    /* alignment checks do not apply */
    u8 mask;        /* enum vector_mask */
    u8 faults_whole; /* a masked store whose inactive elements are not written, but fault */
    u8 mask_reg;
    u8 element_size;
    u8 elements;    /* in memory */
    u8 lanes;       /* opmask bits; more than `elements` where the operand is broadcast */
    u8 waits;       /* reports pending x87 exceptions before it touches memory */
    u8 x87;         /* may leave memory alone because of an unmasked exception */
};

/* The row of an instruction in the table of ISA sets (vector_isa.c): NULL when this unit does not execute it. */
struct vector_isa {
    u16 set; /* ZydisISASet */
    u8 class;
    u16 feature[3]; /* all must be in the model */
};
const struct vector_isa *vector_isa_find(const struct insn_source *src);
bool vector_isa_shown(struct vcpu *c, const struct vector_isa *isa, const struct insn_source *src);
enum vector_class vector_class_of(const struct vector_isa *isa, const struct insn_source *src);

/* The stub for an instruction, made or shared; its memory operand has the shape given in `op` (run is filled in).
 * NULL when the instruction has an operand that no stub can have, or there is no room. vector_stub.c */
const struct vector_op *vector_stub(struct vcpu *c, const struct insn_source *src, struct vector_op *op,
                                    enum vector_class class);

/* Emits the stub's code; false when the instruction has an operand that no stub can have. vector_encode.c */
struct x86_asm;
bool vector_encode(struct x86_asm *a, const struct insn_source *src, enum vector_class class);

/* The stub that only waits for pending x87 exceptions. */
const struct vector_op *vector_fwait(struct vcpu *c);

/* The memory operand of an instruction as the stub needs it; NULL when there is none. */
const ZydisDecodedOperand *vector_memory_operand(const struct insn_source *src);
void vector_memory_describe(struct vector_op *op, const struct insn_source *src);

/* Runs an instruction whose memory operand is not simply in one page of RAM. vector_memory.c */
u32 vector_run_slow(struct vcpu *c, const struct insn *i, const struct vector_op *op);

/* Whether control registers let instructions of the class run; vector_refuse raises what they raise if not. SDM vol.
 * 3 §2.5 (EM, MP, TS), §13.1; vol. 2 ch. 2, the exception classes. */
static inline bool vector_allowed(const struct vcpu *c, enum vector_class class)
{
    u64 cr0 = c->s.cr0;

    switch (class) {
    case VC_FWAIT: return (cr0 & (CR0_MP | CR0_TS)) != (CR0_MP | CR0_TS);
    case VC_SSE: return !(cr0 & (CR0_EM | CR0_TS)) && c->s.cr4 & CR4_OSFXSR;
    case VC_AVX:
        return !(cr0 & CR0_TS) && c->s.cr4 & CR4_OSXSAVE && (c->s.xcr0 & 6) == 6 && cr0 & CR0_PE && !v86_mode(c);
    case VC_AVX512:
        return !(cr0 & CR0_TS) && c->s.cr4 & CR4_OSXSAVE && (c->s.xcr0 & 0xe6) == 0xe6 && cr0 & CR0_PE && !v86_mode(c);
    case VC_XSAVE: return !(cr0 & CR0_TS) && c->s.cr4 & CR4_OSXSAVE;
    default: return !(cr0 & (CR0_EM | CR0_TS));
    }
}
_Noreturn void vector_refuse(struct vcpu *c, enum vector_class class);
static inline void vector_check(struct vcpu *c, enum vector_class class)
{
    if (unlikely(!vector_allowed(c, class)))
        vector_refuse(c, class);
}

/* Instructions that are not one host instruction on one operand; NULL when the mnemonic is none of theirs. */
insn_fn *vector_state_handler(ZydisMnemonic m); /* xsave_image.c: FXSAVE … XRSTOR */
bool choose_x87_state(struct vcpu *c, struct insn *i, const struct insn_source *src); /* x87_state.c: FNSTENV … */
void choose_gather(struct vcpu *c, struct insn *i, const struct insn_source *src);    /* vector_gather.c */

/* After an x87 instruction that is no control instruction: instruction, data pointer and opcode. x87_state.c */
void x87_track(struct vcpu *c, const struct insn *i, const struct vector_op *op, u32 fsw);

#endif
