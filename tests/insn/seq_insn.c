/* Instructions of sequences by their mnemonics: see seq_writer.h. Which there are, of which kind, and which suit a sequence. */
#include "seq_writer.h"

#include <string.h>

#include "cpu/decode.h"
#include "cpu/exec.h"

#define M(name) ZYDIS_MNEMONIC_##name
#define TRIES 40

static bool own_register_kind(const ZydisDecodedOperand *op)
{
    switch (ZydisRegisterGetClass(op->reg.value)) {
    case ZYDIS_REGCLASS_SEGMENT: case ZYDIS_REGCLASS_CONTROL: case ZYDIS_REGCLASS_DEBUG: case ZYDIS_REGCLASS_TEST: return true;
    default: return false;
    }
}

/* Registers that it writes; of the stack pointer's changes only those by name. */
static u32 registers_written(const struct decoded *d)
{
    u32 bits = 0;

    for (int n = 0; n < d->zi.operand_count; n++) {
        u8 offset;

        if (d->op[n].type != ZYDIS_OPERAND_TYPE_REGISTER || !(d->op[n].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        offset = register_offset(d->op[n].reg.value);
        if (offset < 16 * 8 && (offset / 8 != RSP || d->op[n].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT || d->zi.mnemonic == M(LEAVE) ||
                                d->zi.mnemonic == M(ENTER)))
            bits |= 1u << offset / 8;
    }
    return bits;
}

static const ZydisDecodedOperand *modrm_memory(const struct decoded *d)
{
    for (int n = 0; n < d->zi.operand_count; n++)
        if (d->op[n].type == ZYDIS_OPERAND_TYPE_MEMORY && d->op[n].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
            return &d->op[n];
    return NULL;
}

/* A bit of memory may be anywhere; most others that are elsewhere than their operand says are left out too. */
static bool strays(const struct decoded *d, const ZydisDecodedOperand *mem)
{
    switch (d->zi.mnemonic) {
    case M(BT): case M(BTS): case M(BTR): case M(BTC): return mem && d->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
    case M(XLAT): return true;
    default: return false;
    }
}

static bool left_out(const ZydisDecodedInstruction *zi)
{
    switch (zi->meta.category) {
    case ZYDIS_CATEGORY_SYSTEM: case ZYDIS_CATEGORY_INTERRUPT: case ZYDIS_CATEGORY_SYSCALL: case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_IO: case ZYDIS_CATEGORY_IOSTRINGOP: case ZYDIS_CATEGORY_SEGOP: case ZYDIS_CATEGORY_XSAVE:
    case ZYDIS_CATEGORY_XSAVEOPT: case ZYDIS_CATEGORY_RDWRFSGS: return true;
    default: break;
    }
    if (!strncmp(ZydisMnemonicGetString(zi->mnemonic), "xsave", 5) || !strncmp(ZydisMnemonicGetString(zi->mnemonic), "xrstor", 6))
        return true; /* which components are in use is the host's affair */
    switch (zi->mnemonic) { /* what always faults; what moves the stack elsewhere */
    case M(MASKMOVQ): case M(MASKMOVDQU): case M(VMASKMOVDQU): /* processors may fault for what the mask leaves out */
    case M(UD0): case M(UD1): case M(UD2): case M(CLI): case M(STI): case M(ENTER): case M(LEAVE): case M(BOUND): case M(ARPL): return true;
    default: return zi->meta.branch_type != ZYDIS_BRANCH_TYPE_NONE;
    }
}

/* Whether the instruction in c is one for sequences; then it becomes the next piece. */
static bool insn_take(struct writer *w, const struct decoded *d)
{
    struct insn_case *c = &w->q->c;
    const ZydisDecodedOperand *mem = modrm_memory(d);
    struct piece *p = &w->q->piece[w->q->count];

    if (!d->valid || left_out(&d->zi) || insn_classify(c, d) != INSN_COMPARE || insn_own_values(d) || !guest_shows(w->s->guest, c, d))
        return false;
    for (int n = 0; n < d->zi.operand_count; n++)
        if (d->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER && own_register_kind(&d->op[n]) && d->op[n].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT &&
            !(ZydisRegisterGetClass(d->op[n].reg.value) == ZYDIS_REGCLASS_SEGMENT && d->op[n].actions == ZYDIS_OPERAND_ACTION_READ))
            return false;
    if ((registers_written(d) & w->kept && !one_in(w->r, 200)) || (strays(d, mem) && !one_in(w->r, 50)))
        return false;
    *p = (struct piece){.len = d->zi.length};
    memcpy(p->bytes, c->bytes, d->zi.length);
    if (mem && !operand_choose(w, p, mem, d))
        return false;
    w->q->count++;
    return true;
}

static void add_mnemonic(struct writer *w, u16 mnemonic)
{
    struct decoded d;

    for (int n = 0; n < TRIES; n++) {
        generate_mnemonic(&w->s->g, mnemonic, w->r, &w->q->c, &d);
        if (insn_take(w, &d))
            return;
    }
}

void add_insn(struct writer *w, enum pool pool)
{
    add_mnemonic(w, w->s->pool[pool][below(w->r, w->s->pool_count[pool])]);
}

void add_any(struct writer *w)
{
    static const u8 pools[] = {POOL_ALU, POOL_ALU, POOL_ALU, POOL_FLAGS, POOL_FLAGS, POOL_GENERAL, POOL_VECTOR};

    add_insn(w, pools[below(w->r, sizeof(pools))]);
}

/* ---- pools ---- */

static enum pool general_pool(ZydisMnemonic m)
{
    switch (m) {
    case M(ADD): case M(SUB): case M(CMP): case M(AND): case M(OR): case M(XOR): case M(TEST): case M(INC): case M(DEC): case M(NEG):
    case M(NOT): case M(MOV): case M(MOVZX): case M(MOVSX): case M(LEA): case M(SHL): case M(SHR): case M(SAR): case M(PUSH): case M(POP):
    case M(IMUL): case M(XCHG): return POOL_ALU;
    case M(ADC): case M(SBB): case M(RCL): case M(RCR): case M(ROL): case M(ROR): case M(CMOVB) ... M(CMOVZ): case M(SETB) ... M(SETZ):
    case M(LAHF): case M(SAHF): case M(CMC): case M(CLC): case M(STC): case M(ADCX): case M(ADOX): case M(PUSHF): case M(PUSHFD):
    case M(PUSHFQ): return POOL_FLAGS;
    case M(DIV): case M(IDIV): return POOL_DIVIDE;
    default: return POOL_GENERAL;
    }
}

static bool uses_mmx(const struct decoded *d)
{
    for (int n = 0; n < d->zi.operand_count; n++)
        if (d->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(d->op[n].reg.value) == ZYDIS_REGCLASS_MMX)
            return true;
    return false;
}

static enum pool pool_of(const struct insn_case *c, const struct decoded *d)
{
    if (left_out(&d->zi) || insn_classify(c, d) != INSN_COMPARE || insn_own_values(d))
        return POOL_COUNT;
    if (d->zi.meta.category == ZYDIS_CATEGORY_STRINGOP)
        return POOL_STRING;
    if (choose_general(d->zi.mnemonic))
        return general_pool(d->zi.mnemonic);
    return d->zi.meta.isa_ext == ZYDIS_ISA_EXT_X87 ? POOL_X87 : uses_mmx(d) ? POOL_MMX : POOL_VECTOR;
}

void pools_fill(struct seq_generator *s)
{
    static struct insn_case c;

    c.code_size = (u8)s->g.code_size;
    for (u32 n = 0; n < s->g.wanted_count; n++) {
        const struct insn_template *t = &s->g.catalogue->of[s->g.catalogue->first[s->g.wanted[n]]];
        struct decoded d;
        enum pool pool;

        memset(c.bytes, 0, INSN_MAX);
        memcpy(c.bytes, t->bytes, t->len);
        case_decode(&c, &d);
        pool = d.valid ? pool_of(&c, &d) : POOL_COUNT;
        if (pool < POOL_COUNT)
            s->pool[pool][s->pool_count[pool]++] = s->g.wanted[n];
    }
}
