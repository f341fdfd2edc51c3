/* The guest's arithmetic flags while a block is emitted: they are in EFLAGS, saved in RAX (as LAHF; SETO AL leave them), in
 * vcpu.cc, or in several of these; or a recipe makes them again from registers. They are moved only where somebody looks at
 * them afterwards, and a fault that never comes looks at no more than a recipe. */
#include "cpu/jit_emit.h"

#include "cpu/decode.h"

void flags_emit_save(struct x86_asm *a)
{
    asm_code(a, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
}

void flags_store(struct x86_asm *a, const struct jit_emit *e, u32 from, const struct jit_recipe *recipe)
{
    if (from & FLAGS_MEMORY)
        return;
    if (!(from & FLAGS_RAX)) {
        if (!(from & FLAGS_HOST))
            emit_recipe(a, e, recipe);
        flags_emit_save(a);
    }
    asm_rm(a, X86_STORE | X86_66, HOST_FLAGS, VCPU_AT(cc));
}

/* From a recipe to EFLAGS, if they are in no better place. */
static void remake(struct jit_emit *e)
{
    if (e->flags & (FLAGS_HOST | FLAGS_RAX | FLAGS_MEMORY) || !(e->flags & FLAGS_RECIPE))
        return;
    emit_recipe(&e->hot, e, &e->recipe);
    e->flags |= FLAGS_HOST;
}

void flags_save(struct jit_emit *e)
{
    if (e->flags & (FLAGS_RAX | FLAGS_MEMORY))
        return;
    slot_forget(e);
    remake(e);
    flags_emit_save(&e->hot);
    e->flags |= FLAGS_RAX;
}

void flags_to_rax(struct jit_emit *e)
{
    flags_save(e);
    slot_forget(e);
    if (!(e->flags & FLAGS_RAX))
        asm_rm(&e->hot, X86_MOVZX16, HOST_FLAGS, VCPU_AT(cc));
    e->flags |= FLAGS_RAX;
}

void flags_save_memory(struct jit_emit *e)
{
    if (e->flags & FLAGS_MEMORY)
        return;
    flags_save(e);
    asm_rm(&e->hot, X86_STORE | X86_66, HOST_FLAGS, VCPU_AT(cc));
    e->flags |= FLAGS_MEMORY;
}

void flags_to_host(struct jit_emit *e)
{
    if (e->flags & FLAGS_HOST)
        return;
    if (e->flags & FLAGS_RECIPE) {
        emit_recipe(&e->hot, e, &e->recipe);
        e->flags |= FLAGS_HOST;
        return;
    }
    slot_forget(e);
    if (!(e->flags & FLAGS_RAX))
        asm_rm(&e->hot, X86_MOVZX16, HOST_FLAGS, VCPU_AT(cc));
    asm_code(&e->hot, 0x04, 0x7f, 0x9e); /* add al, 0x7f: overflows iff AL is 1; sahf */
    e->flags = (e->flags & FLAGS_MEMORY) | FLAGS_HOST;
}

void flags_clobber(struct jit_emit *e)
{
    e->flags &= ~(u32)FLAGS_HOST;
}

void flags_free_rax(struct jit_emit *e)
{
    if (e->flags == FLAGS_RAX)
        flags_save_memory(e);
    e->flags &= ~(u32)FLAGS_RAX;
}

/* ---- recipes ---- */

/* Whether its value is in a host register throughout the block. */
static bool host_has(const struct jit_emit *e, int guest)
{
    return e->renamed[guest] != JIT_IN_MEMORY && jit_host_register[guest] != JIT_IN_MEMORY;
}

/* A guest register's value to T2. */
static void load_t2(struct x86_asm *a, const s8 *host, int guest, u32 wide)
{
    if (host[guest] != JIT_IN_MEMORY)
        asm_rr(a, X86_LOAD | wide, T2, host[guest]);
    else
        asm_rm(a, X86_LOAD | wide, T2, GPR_AT(guest));
}

static void op_t2(struct x86_asm *a, const s8 *host, u32 op, const struct jit_recipe *r, u32 wide)
{
    if (!r->by_register)
        asm_ri(a, op | wide, T2, r->imm);
    else if (host[r->b] != JIT_IN_MEMORY)
        asm_rr(a, op | wide, T2, host[r->b]);
    else
        asm_rm(a, op | wide, T2, GPR_AT(r->b));
}

void emit_recipe(struct x86_asm *a, const struct jit_emit *e, const struct jit_recipe *r)
{
    u32 wide = r->wide ? X86_W : 0;

    if (r->kind == RECIPE_AGAIN) {
        emit_registers_again(a, e, r->insn, T2);
        return;
    }
    load_t2(a, e->host, r->a, wide);
    switch (r->kind) {
    case RECIPE_TEST: asm_rr(a, 0x85 | wide, T2, T2); break;
    case RECIPE_NEG:
        asm_rr(a, 0xf7 | wide, 3, T2);
        asm_rr(a, 0xf7 | wide, 3, T2);
        break;
    default: /* undo, and do */
        op_t2(a, e->host, r->kind == RECIPE_ADD ? X86_SUB : X86_ADD, r, wide);
        op_t2(a, e->host, r->kind == RECIPE_ADD ? X86_ADD : X86_SUB, r, wide);
        break;
    }
}

static int register_of(const ZydisDecodedOperand *op)
{
    return op->type == ZYDIS_OPERAND_TYPE_REGISTER ? register_offset(op->reg.value) / 8 : -1;
}

static enum jit_recipe_kind recipe_kind(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_CMP: case ZYDIS_MNEMONIC_TEST: return RECIPE_AGAIN;
    case ZYDIS_MNEMONIC_AND: case ZYDIS_MNEMONIC_OR: case ZYDIS_MNEMONIC_XOR: return RECIPE_TEST;
    case ZYDIS_MNEMONIC_ADD: return RECIPE_ADD;
    case ZYDIS_MNEMONIC_SUB: return RECIPE_SUB;
    case ZYDIS_MNEMONIC_NEG: return RECIPE_NEG;
    default: return RECIPE_NONE;
    }
}

/* What makes the flags of `i` again after it, or RECIPE_NONE. */
static struct jit_recipe recipe_for(const struct jit_emit *e, const struct jit_insn *i)
{
    struct jit_recipe r = {.kind = (u8)recipe_kind(i->zi.mnemonic), .insn = i, .wide = i->zi.operand_width == 64};
    int b;

    if (r.kind == RECIPE_NONE || i->mem || !i->kills_flags)
        return (struct jit_recipe){.kind = RECIPE_NONE};
    r.a = (s8)register_of(&i->op[0]);
    b = r.kind == RECIPE_NEG ? -1 : register_of(&i->op[1]);
    r.b = (s8)b;
    r.by_register = b >= 0;
    r.imm = (s32)i->op[1].imm.value.s;
    r.registers = 1u << r.a | (r.kind != RECIPE_TEST && b >= 0 ? 1u << b : 0);
    if (r.kind == RECIPE_AGAIN ? b >= 0 && b != r.a && !host_has(e, r.a) && !host_has(e, b)
                               : i->zi.operand_width < 32 || (r.kind != RECIPE_TEST && b == r.a))
        r.kind = RECIPE_NONE;
    return r;
}

void flags_written(struct jit_emit *e, const struct jit_insn *i)
{
    e->recipe = recipe_for(e, i);
    e->flags = e->recipe.kind == RECIPE_NONE ? FLAGS_HOST : FLAGS_HOST | FLAGS_RECIPE;
}

void flags_before_writes(struct jit_emit *e, const struct jit_insn *i)
{
    if (!(e->flags & FLAGS_RECIPE) || !(i->writes & e->recipe.registers) || !i->flags_needed_after)
        return;
    if (e->flags == FLAGS_RECIPE)
        flags_save(e);
    e->flags &= ~(u32)FLAGS_RECIPE;
}

void flags_after_writes(struct jit_emit *e, const struct jit_insn *i)
{
    if (!i->writes_flags && e->flags & FLAGS_RECIPE && i->writes & e->recipe.registers)
        e->flags &= ~(u32)FLAGS_RECIPE;
}
