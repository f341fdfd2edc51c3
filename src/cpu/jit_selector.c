/* Selectors in segmented code: moving them from segment registers, and into DS, ES, FS and GS in real and virtual-8086 mode, where the base is
 * 16 times the selector and all else stays as it is (JIT_KEY_REAL). Other loads are the handlers', with their descriptors, and SS, behind
 * which nothing interrupts. SDM vol. 3 §20.1, §20.2. */
#include "cpu/jit_segment.h"

#include "cpu/decode.h"

#define M(name) ZYDIS_MNEMONIC_##name

static int number_of(ZydisRegister r)
{
    return ZydisRegisterGetClass(r) == ZYDIS_REGCLASS_SEGMENT ? (int)(r - ZYDIS_REGISTER_ES) : -1;
}

/* The segment register among operand n, or -1. */
static int segment_operand(const struct jit_insn *i, int n)
{
    return i->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER ? number_of(i->op[n].reg.value) : -1;
}

/* That LDS and its like load. */
static int far_pointer_segment(ZydisMnemonic m)
{
    switch (m) {
    case M(LDS): return SEG_DS;
    case M(LES): return SEG_ES;
    case M(LFS): return SEG_FS;
    case M(LGS): return SEG_GS;
    default: return -1;
    }
}

static bool real_load(const struct jit_emit *e, int seg)
{
    return e->b->key & JIT_KEY_REAL && seg >= SEG_ES && seg != SEG_CS && seg != SEG_SS;
}

bool can_emit_selector(const struct jit_emit *e, const struct jit_insn *i)
{
    switch (i->zi.mnemonic) {
    case M(MOV): return segment_operand(i, 1) >= 0 || real_load(e, segment_operand(i, 0));
    case M(POP): return i->zi.operand_width == 16 && real_load(e, segment_operand(i, 0));
    case M(LDS): case M(LES): case M(LFS): case M(LGS):
        return i->zi.operand_width == 16 && i->mem && real_load(e, far_pointer_segment(i->zi.mnemonic));
    default: return false;
    }
}

static struct x86_mem selector_at(int seg)
{
    return X86_AT(HOST_VCPU, VCPU_DISP(s.seg_sel) + seg * 2);
}

static int host_register(const ZydisDecodedOperand *op)
{
    return jit_host_register[register_offset(op->reg.value) / 8];
}

/* The selector in T1 to a segment register. */
static void emit_load(struct jit_emit *e, int seg)
{
    struct x86_asm *a = &e->hot;

    flags_clobber(e);
    asm_rm(a, X86_STORE | X86_66, T1, selector_at(seg));
    asm_rr(a, 0xc1, 4, T1); /* shl */
    asm_byte(a, 4);
    asm_rm(a, X86_STORE | X86_W, T1, X86_AT(HOST_VCPU, VCPU_DISP(s.seg_base) + seg * 8));
    asm_rm(a, X86_STORE | X86_W, T1, X86_AT(HOST_VCPU, VCPU_DISP(lin_base) + seg * 8));
}

static void emit_from(struct jit_emit *e, const struct jit_insn *i, int seg)
{
    if (i->mem) {
        struct x86_mem at = segment_memory(e, i, &i->mem->mem, 2, true);

        asm_rm(&e->hot, X86_MOVZX16, T2, selector_at(seg));
        asm_rm(&e->hot, X86_STORE | X86_66, T2, at);
        segment_site_done(e);
    } else { /* 32 bits are zero-extended */
        asm_rm(&e->hot, i->op[0].size == 16 ? X86_LOAD | X86_66 : X86_MOVZX16, host_register(&i->op[0]), selector_at(seg));
    }
}

static void emit_to(struct jit_emit *e, const struct jit_insn *i, int seg)
{
    if (i->mem)
        asm_rm(&e->hot, X86_MOVZX16, T1, segment_memory(e, i, &i->mem->mem, 2, false));
    else
        asm_rr(&e->hot, X86_MOVZX16, T1, host_register(&i->op[1]));
    emit_load(e, seg);
    if (i->mem)
        segment_site_done(e);
}

static void emit_pop_segment(struct jit_emit *e, const struct jit_insn *i, int seg)
{
    struct x86_mem at = segment_stack(e, i, jit_host_register[RSP], 0, 2, false);

    asm_rm(&e->hot, X86_MOVZX16, T1, at);
    segment_stack_move(e, 2);
    emit_load(e, seg);
    segment_site_done(e);
}

static void emit_far_pointer(struct jit_emit *e, const struct jit_insn *i, int seg)
{
    asm_rm(&e->hot, X86_LOAD, T1, segment_memory(e, i, &i->mem->mem, 4, false));
    asm_rr(&e->hot, X86_LOAD | X86_66, host_register(&i->op[0]), T1);
    asm_rr(&e->hot, 0xc1, 5, T1); /* shr */
    asm_byte(&e->hot, 16);
    emit_load(e, seg);
    segment_site_done(e);
}

void emit_selector(struct jit_emit *e, const struct jit_insn *i)
{
    switch (i->zi.mnemonic) {
    case M(POP): emit_pop_segment(e, i, segment_operand(i, 0)); break;
    case M(MOV):
        if (segment_operand(i, 1) >= 0)
            emit_from(e, i, segment_operand(i, 1));
        else
            emit_to(e, i, segment_operand(i, 0));
        break;
    default: emit_far_pointer(e, i, far_pointer_segment(i->zi.mnemonic)); break;
    }
}
