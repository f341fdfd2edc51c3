/* The stack in windows: operands by RSP need no look-up, because the host's GS base has what is added to addresses in the
 * slot that RSP is in, and an operand is GS:[RSP + disp]. In 32-bit code all addresses are in one slot, and all operands are such.
 *
 * That holds whenever code for windows runs. Entering it from C makes it so (window.h), and an instruction that moves RSP by
 * more than a small constant has a check behind it. Small constants may lead out of the slot, but not further than the guards
 * reach until control is in C again: the budget limits how many there are. An access in the guards faults, and C brings
 * another slot.
 *
 * The check compares, so the flags are saved for it; LEAVE, PUSH, POP, CALL, RET are what is frequent, and all but LEAVE need
 * none. */
#include "cpu/jit_emit.h"

#include "cpu/window.h"

struct x86_mem stack_at(int reg, s32 disp)
{
    return (struct x86_mem){.base = reg, .index = X86_NONE, .disp = disp, .gs = true};
}

void stack_moved(struct jit_emit *e, const struct jit_insn *i, int reg)
{
    u32 n = e->stack_checks++;

    assert(n < ARRAY_SIZE(e->stack_check));
    if (i->flags_needed_after && !(e->flags & (FLAGS_RECIPE | FLAGS_RAX | FLAGS_MEMORY))) {
        if (reg == X86_RAX) { /* which is about to have them */
            asm_rr(&e->hot, X86_LOAD | X86_W, T2, reg);
            reg = T2;
        }
        flags_save(e);
    }
    asm_rm(&e->hot, X86_CMP | X86_W, reg, VCPU_AT(window_stack));
    e->stack_check[n].jump = asm_jcc(&e->hot, X86_NE, NULL);
    e->stack_check[n].back = asm_here(&e->hot);
    e->stack_check[n].reg = reg;
    flags_clobber(e);
}

bool stack_moves_far(const struct jit_insn *i)
{
    switch (i->kind) {
    case JIT_INTERPRET: case JIT_LEAVE_BLOCK: case JIT_CALL: case JIT_CALL_INDIRECT: case JIT_RET: return false; /* C, or a few bytes */
    case JIT_LEAVE: return !i->window; /* else it has its own check */
    default: return i->writes >> RSP & 1 && slot_moves(i, RSP) > WINDOW_STEP;
    }
}

void stack_after(struct jit_emit *e, const struct jit_insn *i)
{
    if (!e->windows || e->code_size != 8 || !stack_moves_far(i))
        return;
    slot_look_up(&e->hot, jit_host_register[RSP], T2);
    stack_moved(e, i, T2);
}

void stack_emit_cold(struct jit_emit *e)
{
    for (u32 n = 0; n < e->stack_checks; n++) {
        int reg = e->stack_check[n].reg;

        asm_link(&e->hot, e->stack_check[n].jump, asm_here(&e->cold));
        asm_rm(&e->cold, X86_STORE | X86_W, reg, VCPU_AT(window_stack));
        asm_rr(&e->cold, X86_F3 | X86_0F | 0xae | X86_W, 3, reg); /* wrgsbase */
        asm_jmp(&e->cold, e->stack_check[n].back);
    }
}
