/* REP MOVS and REP STOS in 64-bit code: upwards, all of it in one page, or of two, which are checked once; then the host's own.
 * What is longer, downwards, or has a segment with a base is left to the interpreter's handler, piece by piece. */
#include "cpu/jit_emit.h"

#include "cpu/decode.h"

#define M(name) ZYDIS_MNEMONIC_##name

static bool is_movs(const struct jit_insn *i)
{
    switch (i->zi.mnemonic) {
    case M(MOVSB): case M(MOVSW): case M(MOVSD): case M(MOVSQ): return true;
    default: return false;
    }
}

static bool is_stos(const struct jit_insn *i)
{
    switch (i->zi.mnemonic) {
    case M(STOSB): case M(STOSW): case M(STOSD): case M(STOSQ): return true;
    default: return false;
    }
}

bool can_emit_string(const struct jit_emit *e, const struct jit_insn *i)
{
    return e->code_size == 8 && i->zi.address_width == 64 && i->zi.meta.category == ZYDIS_CATEGORY_STRINGOP &&
           i->zi.attributes & ZYDIS_ATTRIB_HAS_REP &&
           !(i->zi.attributes & (ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS)) && (is_movs(i) || is_stos(i));
}

/* Jumps to the slow path from before anything has changed; they meet behind the code. */
struct refusals {
    u32 jump[5];
    u32 count;
};

static void refuse(struct jit_emit *e, struct refusals *r, int cond)
{
    r->jump[r->count++] = asm_jcc(&e->hot, cond, NULL);
}

static int shift_of(const struct jit_insn *i)
{
    return __builtin_ctz(i->zi.operand_width / 8);
}

/* Unless all elements are in the page of the first. */
static void refuse_crossing(struct jit_emit *e, const struct jit_insn *i, struct refusals *r, int pointer)
{
    struct x86_mem last = {.base = pointer, .index = X86_RCX, .scale = shift_of(i), .disp = -1};

    asm_rm(&e->hot, X86_LEA | X86_W, T2, last);
    asm_rr(&e->hot, X86_XOR | X86_W, T2, pointer);
    asm_ri(&e->hot, X86_CMP | X86_W, T2, PAGE_SIZE - 1);
    refuse(e, r, X86_A);
}

/* Of memory at guest address `pointer`: where it is, to T1. */
static struct jit_site *emit_page(struct jit_emit *e, const struct jit_insn *i, int pointer, bool write)
{
    asm_rr(&e->hot, X86_LOAD | X86_W, T1, pointer);
    emit_check(e, i, 1, write);
    return jit_site_at(e->j, e->stub[e->stubs - 1].site);
}

static void emit_repeated(struct x86_asm *a, const struct jit_insn *i, u8 opcode)
{
    asm_byte(a, 0xf3);
    if (i->zi.operand_width == 16)
        asm_byte(a, 0x66);
    if (i->zi.operand_width == 64)
        asm_byte(a, 0x48);
    asm_byte(a, opcode | (i->zi.operand_width > 8));
}

static void emit_stos(struct jit_emit *e, const struct jit_insn *i)
{
    struct x86_asm *a = &e->hot;

    flags_free_rax(e);
    asm_rr(a, X86_LOAD | X86_W, X86_RAX, jit_host_register[RAX]);
    asm_rr(a, X86_LOAD | X86_W, T2, X86_RDI);
    asm_rr(a, X86_LOAD | X86_W, X86_RDI, T1);
    emit_repeated(a, i, 0xaa);
    asm_rr(a, X86_SUB | X86_W, X86_RDI, T1);
    asm_rr(a, X86_ADD | X86_W, X86_RDI, T2);
}

/* The source's pointer is in vcpu.scratch, the destination's in T1. */
static void emit_movs(struct jit_emit *e, const struct jit_insn *i)
{
    struct x86_asm *a = &e->hot;

    asm_rr(a, X86_LOAD | X86_W, T2, X86_RSI);
    asm_rm(a, X86_LOAD | X86_W, X86_RSI, VCPU_AT(scratch));
    asm_rm(a, X86_STORE | X86_W, X86_RDI, VCPU_AT(scratch));
    asm_rr(a, X86_LOAD | X86_W, X86_RDI, T1);
    asm_rr(a, X86_SUB | X86_W, T2, X86_RSI); /* the guest's less the host's */
    emit_repeated(a, i, 0xa4);
    asm_rr(a, X86_ADD | X86_W, X86_RSI, T2);
    asm_rr(a, X86_SUB | X86_W, X86_RDI, T1);
    asm_rm(a, X86_ADD | X86_W, X86_RDI, VCPU_AT(scratch));
}

/* RCX elements, not none, fit a page; DF is clear. */
static void emit_conditions(struct jit_emit *e, const struct jit_insn *i, struct refusals *r)
{
    struct x86_asm *a = &e->hot;

    flags_clobber(e);
    asm_rm(a, 0xf7, 0, VCPU_AT(s.rflags)); /* test */
    asm_u32(a, FLAG_DF);
    refuse(e, r, X86_NE);
    asm_rm(a, X86_LEA | X86_W, T2, X86_AT(X86_RCX, -1));
    asm_ri(a, X86_CMP | X86_W, T2, (s32)(PAGE_SIZE >> shift_of(i)) - 1);
    refuse(e, r, X86_A);
    refuse_crossing(e, i, r, X86_RDI);
    if (is_movs(i))
        refuse_crossing(e, i, r, X86_RSI);
}

/* The jumps that were collected, and the slow path's way back behind it all. */
static struct jit_site *emit_refused(struct jit_emit *e, const struct jit_insn *i, const struct refusals *r, u32 flags)
{
    u32 end = asm_jmp(&e->hot, NULL);
    struct jit_stub *stub = jit_stub_new(e);

    for (u32 n = 0; n < r->count; n++)
        asm_link(&e->hot, r->jump[n], asm_here(&e->hot));
    *stub = (struct jit_stub){.site = jit_site_new(e, i, JIT_SITE_INSN), .flags = (u8)flags, .recipe = e->recipe,
                              .x87 = e->x87_offset};
    stub->jump = asm_jmp(&e->hot, NULL);
    asm_link(&e->hot, end, asm_here(&e->hot));
    return jit_site_at(e->j, stub->site);
}

void emit_string(struct jit_emit *e, const struct jit_insn *i)
{
    struct jit_site *read = NULL, *write, *refused;
    u32 flags = e->flags & ~(u32)FLAGS_HOST; /* where the refusals have them */
    struct refusals r = {.count = 0};

    emit_conditions(e, i, &r);
    if (is_movs(i)) {
        read = emit_page(e, i, X86_RSI, false);
        asm_rm(&e->hot, X86_STORE | X86_W, T1, VCPU_AT(scratch));
    }
    write = emit_page(e, i, X86_RDI, true);
    if (is_movs(i))
        emit_movs(e, i);
    else
        emit_stos(e, i);
    refused = emit_refused(e, i, &r, flags);
    if (read)
        jit_site_done(e, read);
    jit_site_done(e, write);
    jit_site_done(e, refused);
}
