/* Disassembly of translated blocks by Zydis: see jit_dump.h.
 *
 * Host code addresses the vCPU by RSP; behind such an operand stands what of the vCPU it is. Jumps lead where they led when
 * the block was made, to a slow path or an exit; those of an exit to its block's page are linked later. */
#include "cpu/jit_dump.h"

#include "cpu/decode.h"
#include "cpu/dump.h"
#include "cpu/xstate.h"

#define HOST_INDENT 6

/* What translated code looks at, by its place in struct vcpu. */
#define FIELD(name) {(u64)VCPU_DISP(name), sizeof(((struct vcpu *)NULL)->name), #name}
static const struct vcpu_field {
    u64 offset, size;
    const char *name;
} fields[] = {
    FIELD(s.gpr[RAX]), FIELD(s.gpr[RCX]), FIELD(s.gpr[RDX]), FIELD(s.gpr[RBX]), FIELD(s.gpr[RSP]), FIELD(s.gpr[RBP]),
    FIELD(s.gpr[RSI]), FIELD(s.gpr[RDI]), FIELD(s.gpr[R8]), FIELD(s.gpr[R9]), FIELD(s.gpr[R10]), FIELD(s.gpr[R11]),
    FIELD(s.gpr[R12]), FIELD(s.gpr[R13]), FIELD(s.gpr[R14]), FIELD(s.gpr[R15]), FIELD(s.gpr[RIP]), FIELD(cc), FIELD(budget),
    FIELD(page_base), FIELD(scratch), FIELD(ext_live), FIELD(event_held), FIELD(attention), FIELD(mmu_index), FIELD(s.rflags), FIELD(s.cr4), FIELD(s.seg_base),
    FIELD(s.msr_kernel_gs_base), FIELD(lin_base), FIELD(s.fip), FIELD(s.fcs), FIELD(s.seg_sel),
};

static void field_note(char *note, size_t size, const char *name, u64 offset)
{
    if (offset)
        snprintf(note, size, "%s + %llu", name, (unsigned long long)offset);
    else
        snprintf(note, size, "%s", name);
}

/* The TLB lies behind the vCPU, indexed. */
static void table_note(const struct vcpu *c, u64 at, char *note, size_t size)
{
    u64 tlb = (u64)c->tlb + offsetof(struct tlb, set) - (u64)&c->s;

    if (at - tlb < sizeof(c->tlb->set)) {
        static const char *const names[] = {"read", "write", "fetch", "page"};
        const u64 places[] = {offsetof(struct tlb_entry, read), offsetof(struct tlb_entry, write),
                              offsetof(struct tlb_entry, fetch), offsetof(struct tlb_entry, page)};

        for (size_t n = 0; n < ARRAY_SIZE(names); n++)
            if ((at - tlb) % sizeof(struct tlb_entry) == places[n])
                snprintf(note, size, "tlb %s", names[n]);
    }
}

static void operand_note(const struct vcpu *c, const ZydisDecodedOperandMem *mem, char *note, size_t size)
{
    u64 at = (u64)mem->disp.value;

    if (mem->base != ZYDIS_REGISTER_RSP)
        return;
    for (size_t n = 0; n < ARRAY_SIZE(fields); n++)
        if (at - fields[n].offset < fields[n].size) {
            field_note(note, size, fields[n].name, at - fields[n].offset);
            return;
        }
    table_note(c, at, note, size);
}

/* Host code from..to of the buffer, an instruction a line. */
static void code_dump(const struct jit_emit *e, const struct x86_asm *a, u32 from, u32 to)
{
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecodedInstruction zi;
    char text[DUMP_TEXT], note[64];

    for (; from < to; from += zi.length) {
        note[0] = 0;
        if (ZYAN_FAILED(ZydisDecoderDecodeFull(decoder_for(8), a->code + from, to - from, &zi, op))) {
            dump_print("%*sno instruction\n", HOST_INDENT, "");
            return;
        }
        for (int n = 0; n < zi.operand_count_visible; n++)
            if (op[n].type == ZYDIS_OPERAND_TYPE_MEMORY)
                operand_note(e->c, &op[n].mem, note, sizeof(note));
        dump_text(&zi, op, (u64)a->exec + from, text);
        dump_line(HOST_INDENT, (u64)a->exec + from, a->code + from, zi.length, text, note);
    }
}

static void insn_dump(const struct jit_emit *e, int n, u64 page)
{
    const struct jit_insn *i = &e->insn[n];
    char text[DUMP_TEXT] = "illegal";

    if (i->zi.mnemonic)
        dump_text(&i->zi, i->op, page + i->offset, text);
    dump_line(2, page + i->offset, i->bytes, i->zi.length, text, "");
    code_dump(e, &e->hot, i->host, n + 1 < e->count ? i[1].host : e->hot.len);
}

static u32 stubs_end(const struct jit_emit *e)
{
    return e->exits ? e->exit[0].cold : e->cold.len;
}

static void detours_dump(const struct jit_emit *e, u64 page)
{
    u32 end = e->stubs ? e->stub[0].cold : stubs_end(e);

    for (u32 n = 0; n < e->detours; n++) {
        const struct jit_detour *d = &e->detour[n];

        dump_print("  each with its own check, from %016llx to %016llx\n", (unsigned long long)page + d->first->offset,
                   (unsigned long long)page + d->last->offset);
        code_dump(e, &e->cold, d->cold, n + 1 < e->detours ? d[1].cold : end);
    }
}

static void stubs_dump(const struct jit_emit *e, u64 page)
{
    for (u32 n = 0; n < e->stubs; n++) {
        const struct jit_site *s = jit_site_at(e->j, e->stub[n].site);

        if (!e->stub[n].site)
            continue;
        dump_print("  %s %016llx\n", s->kind == JIT_SITE_EXT_LOAD ? "extended registers loaded for" : "slow path of",
                   (unsigned long long)(page + s->offset));
        code_dump(e, &e->cold, e->stub[n].cold, n + 1 < e->stubs ? e->stub[n + 1].cold : stubs_end(e));
    }
}

static void exits_dump(const struct jit_emit *e, u64 page)
{
    static const char *const what[] = {[EXIT_LINK] = "to", [EXIT_FAR] = "to another page, to",
                                       [EXIT_BUDGET] = "for want of budget, to go on at", [EXIT_CALL] = "not where it is looked for first", [EXIT_CELL] = "where the cell is of no use, to", [EXIT_MISS] = "not in the jump table"};

    for (u32 n = 0; n < e->exits; n++) {
        const struct jit_exit *x = &e->exit[n];

        if (x->kind == EXIT_MISS || x->kind == EXIT_CALL)
            dump_print("  exit %s\n", what[x->kind]);
        else
            dump_print("  exit %s %016llx\n", what[x->kind], (unsigned long long)page + (u64)x->offset);
        code_dump(e, &e->cold, x->cold, n + 1 < e->exits ? e->exit[n + 1].cold : e->cold.len);
    }
}

void jit_dump_block(const struct jit_emit *e, u64 lin)
{
    const struct jit_block *b = e->b;
    u64 page = lin - e->insn[0].offset;

    ext_save(e->c);
    dump_begin();
    dump_print("vcpu %d: translated block at %llx, %d instructions in %u bytes, %d-bit, CPL %d; %u bytes hot, %u cold; key %llx\n",
               e->c->index, (unsigned long long)lin, e->count, b->bytes, e->code_size * 8, e->c->s.cpl, e->hot.len,
               e->cold.len, (unsigned long long)b->key);
    code_dump(e, &e->hot, 0, e->insn[0].host);
    for (int n = 0; n < e->count; n++)
        insn_dump(e, n, page);
    detours_dump(e, page);
    stubs_dump(e, page);
    exits_dump(e, page);
    dump_end();
}
