/* A block's own choice of the guest registers that are in the host's. The standard one, jit_host_register, is what blocks agree on
 * where they meet; a block that uses registers which it leaves in memory, and others hardly or not at all, has them change places:
 * behind its entry, and back on every way out and to every slow path.
 *
 * Each change is a store and a load, or two stores and a load less, so it takes some uses to be worth it; in a loop of one block, which jumps
 * back behind the change, fewer. Instructions put together from fixed host registers (jit_system.c, jit_string.c), the
 * interpreter's handlers, and whatever ends the block but a loop's jump run with the standard choice. */
#include "cpu/jit_emit.h"

#include "cpu/decode.h"
#include "cpu/jit_stress.h"

#define WORTH 6      /* uses more than the other's */
#define WORTH_LOOP 2
#define WORTH_STRESSED (-20)
#define STAYS 1000   /* more uses than a block has: the register cannot be elsewhere */

static void count(int *uses, ZydisRegister r, int weight)
{
    if (is_general(r))
        uses[register_offset(r) / 8] += weight;
}

/* Registers that the encoding does not name have to be where the instruction wants them; second bytes need the scratch registers. */
static int weight_of(const struct jit_insn *i, const ZydisDecodedOperand *op)
{
    if (op->encoding == ZYDIS_OPERAND_ENCODING_NONE || uses_high_byte(i))
        return STAYS;
    return op->actions & ZYDIS_OPERAND_ACTION_MASK_READ && op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE ? 2 : 1;
}

static void count_insn(int *uses, const struct jit_insn *i)
{
    for (int n = 0; n < i->zi.operand_count; n++) {
        const ZydisDecodedOperand *op = &i->op[n];

        if (op->type == ZYDIS_OPERAND_TYPE_REGISTER)
            count(uses, op->reg.value, weight_of(i, op));
        if (op->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        count(uses, op->mem.base, op == i->mem || i->kind == JIT_LEA ? 2 : STAYS);
        count(uses, op->mem.index, 1);
    }
}

/* Kinds whose emitters ask e->host for every register. */
static bool follows(const struct jit_insn *i)
{
    switch (i->kind) {
    case JIT_SAME: case JIT_LEA: case JIT_PUSH: case JIT_POP: case JIT_LEAVE: case JIT_BIT_MEMORY: case JIT_MOFFS: return true;
    default: return false;
    }
}

bool loop_of_one(const struct jit_emit *e)
{
    return e->closes && !e->segmented && !e->c->trial && !e->c->group->profile;
}

static void change(struct jit_emit *e, int in, int out)
{
    e->renamed[in] = jit_host_register[out];
    e->renamed[out] = JIT_IN_MEMORY;
    e->rename[e->renames++] = (struct jit_rename){.in = (s8)in, .out = (s8)out};
}

/* The register, in memory or not, with the most or fewest uses; -1: none that is left. RSP stays: see jit_stack.c. */
static int extreme(const struct jit_emit *e, const int *uses, bool in_memory)
{
    int best = -1;

    for (int n = 0; n < 16; n++) {
        bool stack = n == RSP, here = e->renamed[n] == JIT_IN_MEMORY, moved = e->renamed[n] != jit_host_register[n];

        if (!stack && here == in_memory && !moved && (best < 0 || (in_memory ? uses[n] > uses[best] : uses[n] < uses[best])))
            best = n;
    }
    return best;
}

void rename_none(struct jit_emit *e)
{
    for (int n = 0; n < GPR_COUNT; n++)
        e->renamed[n] = jit_host_register[n];
    e->host = jit_host_register;
    e->renames = 0;
}

void rename_plan(struct jit_emit *e)
{
    int uses[16] = {0}, worth = loop_of_one(e) ? WORTH_LOOP : WORTH, in, out;
    bool forced = jit_stressed(e->c, STRESS_RENAME);

    rename_none(e);
    if (e->segmented)
        return;
    for (const struct jit_insn *i = e->insn; i < e->insn + e->count; i++) {
        if (follows(i))
            count_insn(uses, i);
        else if (i->kind != JIT_NOTHING && i->kind != JIT_JCC && i < e->insn + e->count - 1)
            worth += 3; /* a change there and back */
    }
    while (e->renames < JIT_RENAMES_MAX) {
        in = extreme(e, uses, true);
        out = extreme(e, uses, false);
        if (in < 0 || out < 0 || uses[in] - uses[out] < (forced ? WORTH_STRESSED : worth))
            break;
        change(e, in, out);
    }
}

void rename_planned(struct jit_emit *e)
{
    for (struct jit_rename *r = e->rename; r < e->rename + e->renames; r++)
        for (const struct jit_insn *i = e->insn; i < e->insn + e->count; i++)
            r->written |= follows(i) && i->writes >> r->in & 1;
}

/* ---- changes ---- */

void rename_restore(const struct jit_emit *e, struct x86_asm *a)
{
    for (const struct jit_rename *r = e->rename; r < e->rename + e->renames && e->host == e->renamed; r++) {
        if (r->written)
            asm_rm(a, X86_STORE | X86_W, e->renamed[r->in], GPR_AT(r->in));
        asm_rm(a, X86_LOAD | X86_W, e->renamed[r->in], GPR_AT(r->out));
    }
}

void rename_again(const struct jit_emit *e, struct x86_asm *a)
{
    for (const struct jit_rename *r = e->rename; r < e->rename + e->renames && e->host == e->renamed; r++)
        asm_rm(a, X86_LOAD | X86_W, e->renamed[r->in], GPR_AT(r->in));
}

/* What is known by the number of a host register is so no longer. */
static void forget_slot(struct jit_emit *e)
{
    for (const struct jit_rename *r = e->rename; r < e->rename + e->renames; r++)
        if (e->slot == e->renamed[r->in])
            slot_forget(e);
}

void rename_begin(struct jit_emit *e)
{
    if (!e->renames || e->host == e->renamed)
        return;
    forget_slot(e);
    for (const struct jit_rename *r = e->rename; r < e->rename + e->renames; r++)
        asm_rm(&e->hot, X86_STORE | X86_W, jit_host_register[r->out], GPR_AT(r->out));
    e->host = e->renamed;
    rename_again(e, &e->hot);
}

void rename_end(struct jit_emit *e)
{
    if (e->host != e->renamed)
        return;
    forget_slot(e);
    rename_restore(e, &e->hot);
    e->host = jit_host_register;
}

void rename_for(struct jit_emit *e, const struct jit_insn *i)
{
    if (i->kind == JIT_NOTHING || (i->kind == JIT_JCC && i < e->insn + e->count - 1))
        return;
    if (follows(i) || (is_jump(i) && e->loop))
        rename_begin(e);
    else
        rename_end(e);
}
