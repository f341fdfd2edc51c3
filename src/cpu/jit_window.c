/* Slow paths that a fault in a window led to: what the instruction touches is mapped once its handler has done its work.
 *
 * Where mapping does not help (devices, pages with code that is written to, global pages) the next fault costs as much as this
 * one. An instruction that saw some of those looks into the TLB instead, from the next time its block is translated. */
#include "cpu/exec.h"
#include "cpu/insn.h"
#include "cpu/jit_cache.h"
#include "cpu/jit_emit.h"
#include "cpu/segment.h"
#include "cpu/window.h"
#include "mem/guest_memory.h"

#define MISSES_MAX 8
#define MISSES_MAX_ALWAYS 200 /* --cpu-windows=always: tests want both ways, windows above all */
#define OPERAND_MAX 64 /* bytes */

/* Where it pushes, or pops. */
static u64 stack_address(const struct vcpu *c, const struct insn *i)
{
    u64 sp = c->s.gpr[i->mnemonic == ZYDIS_MNEMONIC_LEAVE ? RBP : RSP];
    bool pushes = i->mnemonic == ZYDIS_MNEMONIC_PUSH || i->mnemonic == ZYDIS_MNEMONIC_CALL;

    return (sp - (pushes ? (u64)c->code_size : 0)) & c->lin_mask;
}

static bool on_stack(const struct vcpu *c, const struct insn *i)
{
    switch (i->mnemonic) {
    case ZYDIS_MNEMONIC_POP: case ZYDIS_MNEMONIC_RET: case ZYDIS_MNEMONIC_LEAVE: return true;
    case ZYDIS_MNEMONIC_PUSH: case ZYDIS_MNEMONIC_CALL: return !i->mem || c->window_fault == WINDOW_FAULT_WRITE;
    default: return false;
    }
}

void jit_touch(struct vcpu *c, const struct insn *i, struct jit_touch *t)
{
    u64 gva;

    t->count = 0;
    if (!c->window_fault)
        return;
    window_signalled(c);
    gva = on_stack(c, i) ? stack_address(c, i) : (c->lin_base[i->seg] + insn_ea(c, i)) & c->lin_mask;
    t->gva[0] = gva;
    t->gva[1] = (gva + OPERAND_MAX - 1) & c->lin_mask & PAGE_MASK;
    t->count = t->gva[1] == (gva & PAGE_MASK) ? 1 : 2;
    t->write = c->window_fault == WINDOW_FAULT_WRITE;
    t->hopeless = c->window_fault == WINDOW_FAULT_OTHER;
    t->faulted = t->count == 2 && c->window_fault_offset < (gva & ~PAGE_MASK);
    c->window_fault = 0;
}

static u8 *misses_of(struct jit *j, const u8 *hva)
{
    return &j->misses[((u64)hva ^ (u64)hva >> 12) & (JIT_MISSES - 1)];
}

static u8 misses_max(const struct vcpu *c)
{
    return c->group->config.windows == CPU_WINDOWS_ALWAYS ? MISSES_MAX_ALWAYS : MISSES_MAX;
}

bool jit_window_useless(struct vcpu *c, const u8 *hva)
{
    return *misses_of(c->jit, hva) >= misses_max(c);
}

/* At some number of them all blocks of the page are made old, as if the guest had written to them. */
static void missed(struct vcpu *c, u32 site)
{
    const struct jit_site *s = jit_site_at(c->jit, site);
    const u8 *hva = (const u8 *)((u64)jit_block_at(c->jit, s->block)->hva & PAGE_MASK) + s->offset;
    u8 *misses = misses_of(c->jit, hva);

    if (*misses < misses_max(c) && ++*misses == misses_max(c) && guest_memory_written(vcpu_memory(c), hva, 1))
        c->block_end = c->insn + 1;
}

void jit_touched(struct vcpu *c, u32 site, const struct jit_touch *t)
{
    bool mapped[2] = {false, true};

    if (c->window_state == WINDOW_ON && !t->hopeless)
        for (int n = 0; n < t->count; n++)
            mapped[n] = window_fill(c, t->gva[n], t->write && n == t->faulted);
    if (c->window_state == WINDOW_ON && !mapped[t->faulted])
        missed(c, site);
}
