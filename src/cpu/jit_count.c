/* LOOP, LOOPE, LOOPNE and JCXZ, JECXZ, JRCXZ to targets in the block's page. The host's own would be slow, and test other widths. */
#include "cpu/jit_emit.h"

#define M(name) ZYDIS_MNEMONIC_##name
#define ZF_IN_RAX 0x4000 /* as LAHF leaves it */

static bool counts(const struct jit_insn *i)
{
    return i->zi.mnemonic == M(LOOP) || i->zi.mnemonic == M(LOOPE) || i->zi.mnemonic == M(LOOPNE);
}

bool can_emit_count(const struct jit_emit *e, const struct jit_insn *i)
{
    bool known = counts(i) || i->zi.mnemonic == M(JCXZ) || i->zi.mnemonic == M(JECXZ) || i->zi.mnemonic == M(JRCXZ);

    /* a 16-bit operand would cut RIP */
    return known && in_page(e, jit_target(i)) && (i->zi.operand_width != 16 || e->code_size == 2);
}

/* An operation in the address size. */
static u32 sized(const struct jit_insn *i, u32 op)
{
    return i->zi.address_width == 64 ? op | X86_W : i->zi.address_width == 16 ? op | X86_66 : op;
}

void emit_count_jump(struct jit_emit *e, const struct jit_insn *i)
{
    struct x86_asm *a = &e->hot;
    u32 end = 0;

    x87_settle(e);
    flags_to_rax(e);
    flags_clobber(e);
    if (counts(i))
        asm_rm(a, sized(i, X86_LEA), X86_RCX, X86_AT(X86_RCX, -1));
    asm_rr(a, sized(i, 0x85), X86_RCX, X86_RCX); /* test */
    if (i->zi.mnemonic == M(LOOPE) || i->zi.mnemonic == M(LOOPNE)) {
        end = asm_jcc(a, X86_E, NULL);
        asm_byte(a, 0xa9); /* test eax, imm32 */
        asm_u32(a, ZF_IN_RAX);
    }
    exit_new(e, EXIT_LINK, jit_target(i), asm_jcc(a, counts(i) && i->zi.mnemonic != M(LOOPNE) ? X86_NE : X86_E, NULL));
    if (end)
        asm_link(a, end, asm_here(a));
    emit_goto(e, i->offset + i->zi.length);
}
