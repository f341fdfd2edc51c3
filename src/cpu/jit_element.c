/* String instructions without a repetition in segmented code, upwards: LODS, STOS, MOVS; and XLAT. In 64-bit code they are rare, and in all
 * code the repeated ones are better off with their handlers. */
#include "cpu/jit_segment.h"

#include "cpu/decode.h"

#define M(name) ZYDIS_MNEMONIC_##name

static bool repeated(const struct jit_insn *i)
{
    for (int n = 0; n < i->zi.raw.prefix_count; n++)
        if ((i->zi.raw.prefixes[n].value & 0xfe) == 0xf2)
            return true;
    return false;
}

static bool is_lods(const struct jit_insn *i)
{
    return i->zi.mnemonic == M(LODSB) || i->zi.mnemonic == M(LODSW) || i->zi.mnemonic == M(LODSD);
}

static bool is_stos(const struct jit_insn *i)
{
    return i->zi.mnemonic == M(STOSB) || i->zi.mnemonic == M(STOSW) || i->zi.mnemonic == M(STOSD);
}

static bool is_movs(const struct jit_insn *i)
{
    return i->zi.mnemonic == M(MOVSB) || i->zi.mnemonic == M(MOVSW) || i->zi.mnemonic == M(MOVSD);
}

bool can_emit_element(const struct jit_insn *i)
{
    if (i->zi.attributes & ZYDIS_ATTRIB_HAS_LOCK)
        return false;
    if (i->zi.mnemonic == M(XLAT))
        return true;
    return i->zi.meta.category == ZYDIS_CATEGORY_STRINGOP && !repeated(i) && (is_lods(i) || is_stos(i) || is_movs(i));
}

/* The slow path if DF is set; its number. */
static u32 emit_direction(struct jit_emit *e, const struct jit_insn *i)
{
    struct jit_stub *stub = jit_stub_new(e);

    flags_clobber(e);
    asm_rm(&e->hot, 0xf7, 0, VCPU_AT(s.rflags)); /* test */
    asm_u32(&e->hot, FLAG_DF);
    *stub = (struct jit_stub){.site = jit_site_new(e, i, JIT_SITE_INSN), .flags = (u8)e->flags, .recipe = e->recipe, .x87 = e->x87_offset};
    stub->jump = asm_jcc(&e->hot, X86_NE, NULL);
    return stub->site;
}

static bool narrow(const struct jit_insn *i)
{
    return i->zi.address_width == 16;
}

/* The offset in a register, cut to the address size. */
static struct x86_mem emit_at(struct jit_emit *e, const struct jit_insn *i, int reg, int seg, bool write)
{
    asm_rr(&e->hot, narrow(i) ? X86_MOVZX16 : X86_LOAD, T1, reg);
    return segment_offset(e, i, seg, i->zi.operand_width / 8u, write, narrow(i));
}

static void emit_step(struct jit_emit *e, const struct jit_insn *i, int reg)
{
    asm_rm(&e->hot, narrow(i) ? X86_LEA | X86_66 : X86_LEA, reg, X86_AT(reg, i->zi.operand_width / 8));
}

/* An element between a register and memory. */
static void emit_move(struct jit_emit *e, const struct jit_insn *i, int reg, struct x86_mem at, bool store)
{
    u32 op = store ? X86_STORE : X86_LOAD;

    if (i->zi.operand_width == 8)
        op = store ? X86_STORE8 : 0x8a | X86_BYTE;
    asm_rm(&e->hot, i->zi.operand_width == 16 ? op | X86_66 : op, reg, at);
}

static void done(struct jit_emit *e, u32 site)
{
    jit_site_done(e, jit_site_at(e->j, site));
}

static void emit_xlat(struct jit_emit *e, const struct jit_insn *i)
{
    asm_rr(&e->hot, X86_MOVZX8, T1, jit_host_register[RAX]);
    asm_rm(&e->hot, X86_LEA, T1, (struct x86_mem){.base = X86_RBX, .index = T1});
    if (narrow(i))
        asm_rr(&e->hot, X86_MOVZX16, T1, T1);
    asm_rm(&e->hot, 0x8a | X86_BYTE, jit_host_register[RAX], segment_offset(e, i, string_segment(&i->zi), 1, false, narrow(i)));
    segment_site_done(e);
}

/* MOVS: the element waits in vcpu.scratch. Both sites come back behind it all. */
static void emit_movs(struct jit_emit *e, const struct jit_insn *i)
{
    struct x86_mem at = emit_at(e, i, X86_RSI, string_segment(&i->zi), false);
    u32 read = e->stub[e->stubs - 1].site;

    emit_move(e, i, T1, at, false);
    asm_rm(&e->hot, X86_STORE | X86_W, T1, VCPU_AT(scratch));
    at = emit_at(e, i, X86_RDI, SEG_ES, true);
    asm_rm(&e->hot, X86_LOAD | X86_W, T2, VCPU_AT(scratch));
    emit_move(e, i, T2, at, true);
    emit_step(e, i, X86_RSI);
    emit_step(e, i, X86_RDI);
    done(e, read);
}

void emit_element(struct jit_emit *e, const struct jit_insn *i)
{
    u32 backwards;

    if (i->zi.mnemonic == M(XLAT)) {
        emit_xlat(e, i);
        return;
    }
    backwards = emit_direction(e, i);
    if (is_movs(i)) {
        emit_movs(e, i);
    } else if (is_lods(i)) {
        emit_move(e, i, jit_host_register[RAX], emit_at(e, i, X86_RSI, string_segment(&i->zi), false), false);
        emit_step(e, i, X86_RSI);
    } else {
        emit_move(e, i, jit_host_register[RAX], emit_at(e, i, X86_RDI, SEG_ES, true), true);
        emit_step(e, i, X86_RDI);
    }
    segment_site_done(e);
    done(e, backwards);
}
