/* The first pass over a block: decodes its instructions, decides what becomes of each, and finds out, from the last to the
 * first, where the arithmetic flags are still looked at. A fault looks at them too, so every instruction that may fault or take
 * its slow path does. */
#include "cpu/jit_emit.h"

#include "cpu/cpuid.h"
#include "cpu/decode.h"
#include "cpu/exec.h"
#include "cpu/exec_system.h"
#include "cpu/interp.h"
#include "cpu/jit_cache.h"
#include "cpu/jit_segment.h"
#include "cpu/jit_stress.h"
#include "cpu/vector_op.h"
#include "cpu/xstate.h"

#define M(name) ZYDIS_MNEMONIC_##name

/* What CPUID must show for a general-purpose instruction; those of the 80386 to 80486 need nothing. */
static int general_feature(ZydisMnemonic m)
{
    switch (m) {
    case M(TZCNT): case M(ANDN): case M(BEXTR): case M(BLSI): case M(BLSR): case M(BLSMSK): return FEAT_BMI1;
    case M(MULX): case M(RORX): case M(SARX): case M(SHLX): case M(SHRX): case M(BZHI): case M(PDEP): case M(PEXT):
        return FEAT_BMI2;
    case M(LZCNT): return FEAT_ABM;
    case M(POPCNT): return FEAT_POPCNT;
    case M(CRC32): return FEAT_SSE42;
    case M(MOVBE): return FEAT_MOVBE;
    case M(ADCX): case M(ADOX): return FEAT_ADX;
    case M(CMPXCHG16B): return FEAT_CX16;
    case M(CMPXCHG8B): return FEAT_CX8;
    case M(CMOVB) ... M(CMOVZ): return FEAT_CMOV;
    case M(MOVNTI): return FEAT_SSE2;
    default: return FEAT_ALWAYS;
    }
}

/* BT and its like where a register says which bit: it may be anywhere in memory. */
static bool bit_anywhere(const struct jit_insn *i)
{
    switch (i->zi.mnemonic) {
    case M(BT): case M(BTS): case M(BTR): case M(BTC): return i->mem && i->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
    default: return false;
    }
}

/* General-purpose instructions whose groups have others that are not the host's business. */
static bool general_same(const struct jit_insn *i)
{
    insn_choose_fn *group = choose_general(i->zi.mnemonic);

    switch (i->zi.mnemonic) {
    case M(XLAT): case M(LAHF): case M(SAHF): case M(SALC): case M(CLD): case M(STD): case M(CLI): case M(STI): return false;
    default: break;
    }
    return group == choose_alu || group == choose_muldiv || group == choose_shift || group == choose_bit ||
           group == choose_mov || group == choose_convert || group == choose_atomic || group == choose_flags ||
           group == choose_nop;
}

/* Of the x87 instructions that no pending exception stops, those that change nothing. */
static bool reads_x87_word(const struct jit_insn *i)
{
    return i->zi.mnemonic == M(FNSTSW) || i->zi.mnemonic == M(FNSTCW);
}

static bool vector_same(struct jit_emit *e, struct jit_insn *i, const struct insn_source *src)
{
    const struct vector_isa *isa = vector_isa_find(src);
    enum vector_class class;

#ifdef VECTORS_SAVED_EARLY
    return false; /* a sanitizer's run-time may change vector registers whenever translated code calls C */
#endif
    if (!isa || !vector_isa_shown(e->c, isa, src) || vector_state_handler(i->zi.mnemonic))
        return false;
    class = vector_class_of(isa, src);
    if (!(e->b->key >> (JIT_KEY_VECTOR_SHIFT + class) & 1) || (class == VC_X87_CONTROL && !reads_x87_word(i)) || class == VC_XSAVE)
        return false;
    if (i->zi.mnemonic == M(MASKMOVQ) || i->zi.mnemonic == M(MASKMOVDQU) || i->zi.mnemonic == M(VMASKMOVDQU))
        return false;
    if (class == VC_X87 && i->mem && !has(e->c, FEAT_FDP_EXCPTN_ONLY)) /* the data pointer would have to be noted */
        return false;
    i->vector = true;
    i->x87 = class == VC_X87;
    i->host_faults = true; /* MMX too: pending x87 exceptions */
    return true;
}

static enum jit_kind branch_kind(const struct jit_emit *e, const struct jit_insn *i)
{
    int code_size = e->code_size;
    bool relative = i->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && i->op[0].imm.is_relative;

    if (i->zi.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || (i->zi.operand_width == 16 && i->zi.mnemonic != M(RET)) ||
        (i->zi.mnemonic == M(RET) && i->zi.operand_width != code_size * 8))
        return JIT_LEAVE_BLOCK;
    switch (i->zi.mnemonic) {
    case M(JMP): return relative ? JIT_JMP : JIT_JMP_INDIRECT;
    case M(CALL): return relative ? JIT_CALL : JIT_CALL_INDIRECT;
    case M(RET): return JIT_RET;
    case M(LOOP): case M(LOOPE): case M(LOOPNE): case M(JCXZ): case M(JECXZ): case M(JRCXZ):
        return can_emit_count(e, i) ? JIT_LOOP : JIT_LEAVE_BLOCK;
    default: return JIT_JCC;
    }
}

static bool is_register(const ZydisDecodedOperand *op, ZydisRegisterClass class)
{
    return op->type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(op->reg.value) == class;
}

static enum jit_kind stack_kind(const struct jit_insn *i, int code_size)
{
    ZydisRegisterClass word = code_size == 8 ? ZYDIS_REGCLASS_GPR64 : ZYDIS_REGCLASS_GPR32;

    if (i->zi.operand_width != code_size * 8 || i->zi.attributes & ZYDIS_ATTRIB_HAS_LOCK)
        return JIT_INTERPRET;
    switch (i->zi.mnemonic) {
    case M(PUSH):
        return is_register(&i->op[0], word) || i->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE || i->mem ? JIT_PUSH : JIT_INTERPRET;
    case M(POP): return is_register(&i->op[0], word) ? JIT_POP : JIT_INTERPRET;
    case M(LEAVE): return JIT_LEAVE;
    default: return JIT_INTERPRET;
    }
}

/* A prefetch runs only where windows are the way to its operand: see scan_done(). */
static enum jit_kind hint_kind(const struct jit_emit *e, const struct jit_insn *i)
{
    if (!has(e->c, FEAT_CMOV))
        return JIT_INTERPRET;
    return e->windows && is_prefetch(i) && can_emit_same(e, i) ? JIT_SAME : JIT_NOTHING;
}

static enum jit_kind general_kind(struct jit_emit *e, struct jit_insn *i)
{
    insn_choose_fn *group = choose_general(i->zi.mnemonic);

    int feature = general_feature(i->zi.mnemonic);

    if (feature != FEAT_ALWAYS && !has(e->c, (enum cpu_feature)feature))
        return JIT_INTERPRET;
    if (group == choose_branch)
        return e->segmented ? segment_branch_kind(e, i) : branch_kind(e, i);
    if (group == choose_stack)
        return e->segmented ? segment_stack_kind(e, i) : stack_kind(i, e->code_size);
    if (group == choose_nop && i->zi.mnemonic != M(SFENCE) && i->zi.mnemonic != M(MFENCE))
        return hint_kind(e, i);
    if (i->zi.mnemonic == M(LEA))
        return JIT_LEA;
    if (i->zi.mnemonic == M(MOV) && (i->zi.opcode & 0xfc) == 0xa0 && i->zi.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT)
        return JIT_MOFFS;
    if (i->zi.mnemonic == M(DIV) || i->zi.mnemonic == M(IDIV) || i->zi.mnemonic == M(CMPXCHG16B)) /* the latter if unaligned */
        i->host_faults = true;
    if (bit_anywhere(i))
        return i->zi.operand_width >= 32 && i->zi.address_width == e->code_size * 8 && !e->segmented ? JIT_BIT_MEMORY : JIT_INTERPRET;
    return general_same(i) && can_emit_same(e, i) ? JIT_SAME : JIT_INTERPRET;
}

/* Segments that a memory operand may use without a check of its own: all flat ones, by the block's key. */
static bool segment_unchecked(const struct jit_emit *e, const struct jit_insn *i)
{
    for (int n = 0; n < i->zi.operand_count; n++) {
        ZydisRegister seg = i->op[n].mem.segment;

        if (i->op[n].type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        if ((seg == ZYDIS_REGISTER_FS && e->b->key & JIT_KEY_FS) || (seg == ZYDIS_REGISTER_GS && e->b->key & JIT_KEY_GS))
            return false;
        if (seg == ZYDIS_REGISTER_CS && e->code_size != 8) /* may be execute-only, and cannot be written */
            return false;
    }
    return true;
}

/* Whether the interpreter's decoder ends blocks here. */
static bool interpreter_ends(struct jit_emit *e, const struct jit_insn *i)
{
    struct insn insn;

    decode_insn(e->c, i->bytes, i->zi.length, e->code_size, &insn);
    return insn.ends_block;
}

/* Instructions at which the interpreter ends its blocks for their group's sake: they only read. */
static bool changes_nothing(const struct jit_insn *i)
{
    switch (i->zi.mnemonic) {
    case M(RDTSC): case M(RDTSCP): case M(RDPID): case M(RDMSR): case M(CPUID): case M(RDPKRU): return true;
    default: return false;
    }
}

static enum jit_kind kind_of(struct jit_emit *e, struct jit_insn *i)
{
    struct insn_source src = {.zi = &i->zi, .op = i->op, .bytes = i->bytes, .code_size = e->code_size};
    ZydisISAExt ext = i->zi.meta.isa_ext;
    enum jit_kind kind = JIT_INTERPRET;

    if (ext == ZYDIS_ISA_EXT_KNC || ext == ZYDIS_ISA_EXT_KNCE || ext == ZYDIS_ISA_EXT_KNCV)
        return JIT_LEAVE_BLOCK;
    if (e->segmented ? !segment_operands(e, i) : i->zi.address_width == 16 || !segment_unchecked(e, i))
        kind = JIT_INTERPRET;
    else if (choose_general(i->zi.mnemonic) && !(choose_general(i->zi.mnemonic) == choose_string))
        kind = general_kind(e, i);
    else if (vector_insn(&src) && vector_same(e, i, &src) && can_emit_same(e, i))
        kind = JIT_SAME;
    if (kind == JIT_INTERPRET)
        kind = e->segmented ? segment_system_kind(e, i) : system_kind(e, i);
    if (kind != JIT_INTERPRET)
        return kind;
    i->vector = i->x87 = i->host_faults = false;
    return interpreter_ends(e, i) && !changes_nothing(i) ? JIT_LEAVE_BLOCK : JIT_INTERPRET;
}

/* Instructions that write all arithmetic flags, whatever their operands. Others that write some are taken to read the rest:
 * what the manual calls undefined is often "unchanged". */
static bool kills_flags(const struct jit_insn *i)
{
    u32 count = (u32)i->op[1].imm.value.u & (i->zi.operand_width == 64 ? 63 : 31);

    switch (i->zi.mnemonic) {
    case M(ADD): case M(SUB): case M(CMP): case M(AND): case M(OR): case M(XOR): case M(TEST): case M(NEG): return true;
    case M(SHL): case M(SHR): case M(SAR): return i->op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && count;
    default: return false;
    }
}

/* Instructions that do the same but for CF, which they leave alone, or read. */
static bool keeps_carry(const struct jit_insn *i)
{
    switch (i->zi.mnemonic) {
    case M(INC): case M(DEC): case M(ADC): case M(SBB): return true;
    default: return false;
    }
}

static void flags_of(struct jit_insn *i)
{
    const ZydisAccessedFlags *f = i->zi.cpu_flags;
    u32 written = f ? f->modified | f->set_0 | f->set_1 | f->undefined : 0;

    if (i->kind == JIT_JCC) {
        i->reads_flags = true;
        return;
    }
    if (i->kind != JIT_SAME && i->kind != JIT_BIT_MEMORY)
        return;
    i->writes_flags = written & FLAGS_ARITH;
    i->kills_flags = kills_flags(i);
    i->keeps_carry = keeps_carry(i);
    i->reads_flags = !i->kills_flags && (i->writes_flags || (f && f->tested & FLAGS_ARITH));
}

/* The general registers that it writes, those of PUSH and the like included. */
static u32 written_registers(const struct jit_insn *i)
{
    u32 bits = 0;

    for (int n = 0; n < i->zi.operand_count; n++) {
        const ZydisDecodedOperand *op = &i->op[n];
        u8 offset;

        if (op->type != ZYDIS_OPERAND_TYPE_REGISTER || !(op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        offset = register_offset(op->reg.value);
        if (offset < RIP * 8)
            bits |= 1u << offset / 8;
    }
    return i->kind == JIT_INTERPRET || i->kind == JIT_LEAVE_BLOCK ? 0xffff : bits;
}

static bool may_leave(const struct jit_insn *i)
{
    switch (i->kind) {
    case JIT_SAME: return (i->mem && !is_prefetch(i)) || i->host_faults;
    case JIT_NOTHING: case JIT_LEA: case JIT_JMP: case JIT_JCC: return false;
    default: return true;
    }
}

static const ZydisDecodedOperand *modrm_memory(const struct jit_insn *i)
{
    for (int n = 0; n < i->zi.operand_count; n++)
        if (i->op[n].type == ZYDIS_OPERAND_TYPE_MEMORY && i->op[n].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
            return &i->op[n];
    return NULL;
}

/* What becomes of an instruction, and what that needs. */
static void settle(struct jit_emit *e, struct jit_insn *i)
{
    i->reads_flags = i->writes_flags = i->kills_flags = i->keeps_carry = i->host_faults = i->vector = i->x87 = false;
    i->kind = i->legal ? (u8)kind_of(e, i) : JIT_LEAVE_BLOCK;
    flags_of(i);
    i->may_leave = may_leave(i);
    i->writes = written_registers(i);
}

/* One instruction, its offset known; false: it needs bytes of the next page. An illegal one is the interpreter's. */
static bool scan_insn(struct jit_emit *e, struct jit_insn *i, const u8 *bytes, int avail)
{
    ZyanStatus status = ZydisDecoderDecodeFull(decoder_for(e->code_size), bytes, (ZyanUSize)avail, &i->zi, i->op);

    i->bytes = bytes;
    i->mem = NULL;
    i->code16 = e->code_size == 2;
    i->shared = i->taken = false;
    if (status == ZYDIS_STATUS_NO_MORE_DATA && avail < 15)
        return false;
    i->legal = ZYAN_SUCCESS(status);
    if (i->legal) {
        i->mem = modrm_memory(i);
    } else {
        i->zi.length = 1;
        i->zi.operand_count = 0;
    }
    operands_note(i);
    settle(e, i);
    return true;
}

static bool ends_block(const struct jit_insn *i)
{
    return (i->kind >= JIT_JMP && i->kind <= JIT_RET) || i->kind == JIT_LEAVE_BLOCK;
}

static void flags_backwards(struct jit_emit *e)
{
    bool needed = true;

    for (int n = e->count - 1; n >= 0; n--) {
        struct jit_insn *i = &e->insn[n];

        i->flags_needed_after = needed;
        needed = i->reads_flags || i->may_leave || (needed && !i->kills_flags);
        i->flags_needed = needed;
    }
    if (e->b->ext) /* the check for them is at the entry, and changes EFLAGS */
        e->insn[0].flags_needed = true;
}

/* Whether windows are the way to its operands: if it has any, and they were of use before. */
static bool window_wanted(struct jit_emit *e, const struct jit_insn *i)
{
    switch (i->kind) {
    case JIT_SAME:
        if (!i->mem)
            return e->windows && i->host_faults; /* has no operand there, but the flags are found in the same way */
        if (uses_high_byte(i)) /* a fault may find such a register turned around */
            return false;
        break;
    case JIT_PUSH: case JIT_POP: case JIT_LEAVE: case JIT_CALL: case JIT_JMP_INDIRECT: case JIT_CALL_INDIRECT:
    case JIT_RET:
        break;
    default: return false;
    }
    return e->windows && !jit_window_useless(e->c, (const u8 *)((u64)e->b->hva & PAGE_MASK) + i->offset);
}

/* Where the flags, CF aside, are of no use to anybody, so that the budget can be seen to. Until there they stay in EFLAGS: in windows faults
 * on the way find them there; elsewhere there is none. */
static const struct jit_insn *payer(const struct jit_emit *e)
{
    for (const struct jit_insn *i = e->insn; i < e->insn + e->count; i++) {
        if (i->kind == JIT_JCC || i->x87 || (i->may_leave && !e->windows)) /* the way out keeps no x87 pointers */
            return NULL;
        if ((i->kills_flags || i->keeps_carry) && !i->may_leave)
            return i;
    }
    return NULL;
}

/* Again, now that other registers are in the host's. False: something became worse. */
static bool settle_renamed(struct jit_emit *e)
{
    bool good = true;

    e->host = e->renamed;
    for (struct jit_insn *i = e->insn; i < e->insn + e->count && good; i++) {
        u8 before = i->kind;

        if (ends_block(i) || i->taken)
            continue;
        settle(e, i);
        good = i->kind == before || (before == JIT_INTERPRET && !ends_block(i));
    }
    e->host = jit_host_register;
    return good;
}

static void rename_registers(struct jit_emit *e)
{
    rename_plan(e);
    if (e->renames && !settle_renamed(e)) {
        rename_none(e);
        settle_renamed(e);
    }
    rename_planned(e);
}

/* ---- small indexes ---- */

static u32 general_bit(const ZydisDecodedOperand *op)
{
    u8 offset = op->type == ZYDIS_OPERAND_TYPE_REGISTER ? register_offset(op->reg.value) : RZERO * 8;

    return offset < RIP * 8 ? 1u << offset / 8 : 0;
}

/* Whether an operand of 32 or 64 bits is below JIT_SMALL: an immediate, or one of the registers that are. */
static bool is_small(const ZydisDecodedOperand *op, u32 small)
{
    return op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? op->imm.value.u < JIT_SMALL : general_bit(op) & small;
}

/* The register, as a bit, that is below JIT_SMALL because of `i`; `small`: those that were before it. */
static u32 made_small(const struct jit_insn *i, u32 small)
{
    const ZydisDecodedOperand *to = &i->op[0], *from = &i->op[1];
    bool is = false;

    if (i->kind != JIT_SAME || i->zi.operand_width < 32)
        return 0;
    switch (i->zi.mnemonic) {
    case M(MOVZX): is = true; break;
    case M(MOV): is = is_small(from, small); break;
    case M(AND): is = is_small(to, small) || is_small(from, small); break;
    case M(SHR):
        is = is_small(to, small) || (from->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && i->zi.operand_width == 32 && (from->imm.value.u & 31) >= 16);
        break;
    case M(XOR): is = from->type == ZYDIS_OPERAND_TYPE_REGISTER && general_bit(from) == general_bit(to); break;
    default: break;
    }
    return is ? general_bit(to) : 0;
}

/* Instructions that change no registers but those they name. */
static bool changes_as_named(const struct jit_insn *i)
{
    switch (i->kind) {
    case JIT_SAME: case JIT_NOTHING: case JIT_LEA: case JIT_PUSH: case JIT_POP: case JIT_JCC: return true;
    default: return false;
    }
}

/* Which operands have an index that instructions before them in the block have made small. */
static void small_indexes(struct jit_emit *e)
{
    u32 small = 0;

    static_assert(RZERO < 32, "no register's bit is never set");
    for (struct jit_insn *i = e->insn; i < e->insn + e->count; i++) {
        i->small_index = i->kind == JIT_SAME && i->mem && i->zi.address_width == 64 && small >> register_offset(i->mem->mem.index) / 8 & 1;
        small = changes_as_named(i) ? (small & ~i->writes) | made_small(i, small) : 0;
    }
}

static int scan_done(struct jit_emit *e)
{
    e->b->insns = (u16)e->count;
    e->b->bytes = e->b->way = 0;
    for (int n = 0; n < e->count; n++) {
        e->b->bytes += e->insn[n].zi.length;
        e->b->way = (u16)(e->b->way * 31 + e->insn[n].offset);
    }
    if (e->count)
        rename_registers(e);
    for (struct jit_insn *i = e->insn; i < e->insn + e->count; i++) {
        i->window = window_wanted(e, i);
        if (i->kind == JIT_SAME && is_prefetch(i) && !i->window)
            i->kind = JIT_NOTHING;
    }
    if (!e->count)
        return 0;
    small_indexes(e);
    flags_backwards(e);
    e->pays = payer(e);
    return e->count;
}

bool jit_scan_one(struct jit_emit *e, u16 offset, const u8 *bytes)
{
    struct jit_insn *i = &e->insn[0];

    i->offset = offset;
    if (!scan_insn(e, i, bytes, 15) || !i->legal)
        return false;
    e->b->ext = i->vector;
    e->b->alone = i->kind == JIT_INTERPRET || i->kind == JIT_LEAVE_BLOCK;
    e->count = 1;
    e->closes = false;
    return scan_done(e);
}

/* ---- where blocks end ---- */

#define ROUND_JUMPS 12 /* of a loop that is followed */

/* The way that a block goes through its page. */
struct path {
    s64 at;    /* the next instruction; -1: the block ends */
    s64 run;   /* where the block begins that the interpreter would be in */
    int side_exits;
    int sure;  /* behind so many instructions it would end if it followed no jump; 0: it has followed none */
    s64 marked; /* the line of the page that the last instruction was in; -1 */
};

/* Whether the instruction at `offset` is in the block already. */
static bool visited(const struct jit_emit *e, s64 offset)
{
    for (int n = 0; n <= e->count; n++)
        if (e->insn[n].offset == offset)
            return true;
    return false;
}

/* Nothing was interpreted before: ways are chosen at random. */
static bool nothing_known(const struct jit_emit *e)
{
    return e->c->trial || jit_stressed(e->c, STRESS_HOT);
}

/* Whether what ran at `from` came back to the block's first instruction, nearly always. */
static bool comes_back(struct jit_emit *e, s64 from)
{
    const u8 *page = (const u8 *)((u64)e->b->hva & PAGE_MASK);

    for (int n = 0; n < ROUND_JUMPS && from != JIT_WENT_FAR; n++) {
        if (from == e->insn[0].offset)
            return true;
        from = jit_heat_next(e->j, page + from);
    }
    return false;
}

/* Whether the block may follow a jump to `target`, which is (almost) always taken: only for a loop. */
static bool followed(struct jit_emit *e, s64 target)
{
    return !e->segmented && in_page(e, target) && !visited(e, target) && (nothing_known(e) || comes_back(e, target));
}

/* Where the block goes on behind a conditional jump; -1: nowhere. One that jumps to the start makes a loop (jit_loop.c). */
static s64 behind_jcc(struct jit_emit *e, struct jit_insn *i, const struct path *p)
{
    const u8 *run = (const u8 *)((u64)e->b->hva & PAGE_MASK) + p->run;
    s64 target = jit_target(i), next = i->offset + i->zi.length;
    bool onward, taken;

    if (p->side_exits == JIT_SIDE_EXITS_MAX || target == (s64)e->insn[0].offset || target == next)
        return -1;
    onward = nothing_known(e) ? i->offset & 2 : jit_heat_goes(e->j, run, (u32)next);
    taken = nothing_known(e) ? i->offset & 1 : jit_heat_goes(e->j, run, (u32)target);
    if (onward)
        return next;
    i->taken = !onward && taken && followed(e, target);
    return i->taken ? target : -1;
}

/* Where it goes on behind its latest instruction. An unconditional jump that it follows does nothing. */
static s64 behind(struct jit_emit *e, struct jit_insn *i, const struct path *p)
{
    if (!ends_block(i))
        return i->offset + i->zi.length;
    if (e->count >= JIT_TRACE_MAX)
        return -1;
    if (i->kind == JIT_JCC)
        return behind_jcc(e, i, p);
    if (i->kind != JIT_JMP || jit_target(i) == e->insn[0].offset)
        return -1;
    i->taken = followed(e, jit_target(i));
    if (!i->taken)
        return -1;
    i->kind = JIT_NOTHING;
    return jit_target(i);
}

/* Whether the interpreter's blocks end behind an instruction that ends no translated one. */
static bool ends_run(struct jit_emit *e, const struct jit_insn *i)
{
    switch (i->kind) {
    case JIT_JCC: return true;
    case JIT_SYSTEM: case JIT_STRING: case JIT_INTERPRET: return i->legal && interpreter_ends(e, i);
    default: return i->taken;
    }
}

/* The block has only its first `count` instructions. */
static void cut(struct jit_emit *e, int count)
{
    struct jit_insn *last = &e->insn[count - 1];

    e->count = count;
    if (last->taken && last->kind == JIT_NOTHING)
        last->kind = JIT_JMP;
    last->taken = false;
    e->b->ext = false;
    for (const struct jit_insn *i = e->insn; i <= last; i++)
        e->b->ext |= i->vector;
}

/* A function that calls itself descends at first, and the jump at its end was not seen yet: the block ends at its first jump after all. */
static void recursion_cut(struct jit_emit *e)
{
    const struct jit_insn *last = &e->insn[e->count - 1], *jump = e->insn;

    if (last->kind != JIT_CALL || jit_target(last) != e->insn[0].offset)
        return;
    while (jump < last && jump->kind != JIT_JCC)
        jump++;
    cut(e, (int)(jump - e->insn) + 1);
}

static void offsets_note(struct jit_emit *e)
{
    u16 *offset = jit_offsets_new(e->j, e->count);

    for (int n = 0; n < e->count; n++)
        offset[n] = e->insn[n].offset;
    e->b->offset = offset;
}

/* Code is marked before it is read. */
static void mark(struct jit_emit *e, struct path *p, u64 bytes)
{
    s64 last = (p->at + (s64)bytes - 1) >> CODE_LINE_SHIFT;

    if (p->at >> CODE_LINE_SHIFT == p->marked && last == p->marked)
        return;
    interp_code_mark(e->c, (const u8 *)((u64)e->b->hva & PAGE_MASK) + p->at, bytes);
    p->marked = last;
}

/* The next instruction; false: it is not the block's. */
static bool scan_next(struct jit_emit *e, struct path *p)
{
    struct jit_insn *i = &e->insn[e->count];
    u64 bytes = MIN(e->end - (u64)p->at, 15);

    mark(e, p, bytes);
    i->offset = (u16)p->at;
    if (!scan_insn(e, i, (const u8 *)((u64)e->b->hva & PAGE_MASK) + p->at, (int)bytes))
        return false;
    if (e->c->trial && (i->kind == JIT_INTERPRET || i->kind == JIT_LEAVE_BLOCK)) {
        if (e->count)
            return false;
        e->b->alone = true;
    }
    p->at = e->b->alone ? -1 : behind(e, i, p);
    p->side_exits += i->kind == JIT_JCC;
    e->count++;
    if (i->taken && !p->sure)
        p->sure = e->count;
    if (ends_run(e, i))
        p->run = p->at;
    return true;
}

/* Whether a block that has ended may go on at its first instruction. */
static bool closes(const struct jit_emit *e, const struct path *p)
{
    const struct jit_insn *last = &e->insn[e->count - 1];
    s64 start = e->insn[0].offset;

    return p->at == start || (is_jump(last) && jit_target(last) == start);
}

int jit_scan(struct jit_emit *e, const u8 *hva)
{
    s64 start = (s64)((u64)hva & ~PAGE_MASK);
    struct path p = {.at = start, .run = start, .marked = -1};

    ext_save(e->c); /* Zydis */
    e->b->alone = e->closes = false;
    e->count = 0;
    while (e->count < JIT_INSNS_MAX && p.at >= 0 && p.at < (s64)e->end && (p.at != start || !e->count) && scan_next(e, &p))
        ;
    if (!e->count)
        return scan_done(e);
    e->closes = closes(e, &p);
    cut(e, p.sure && !e->closes && !nothing_known(e) ? p.sure : e->count);
    recursion_cut(e);
    if (e->c->trial)
        offsets_note(e);
    return scan_done(e);
}
