/* Instructions that the host runs as they are, with other registers and with a pointer to RAM as memory operand; and those few
 * that are put together from others: LEA, PUSH, POP, LEAVE, MOV with an absolute address. */
#include "cpu/jit_segment.h"

#include "cpu/decode.h"
#include "cpu/exec.h"

/* Guest register numbers of the explicit general-register operands, then host registers. NO_GPR: the field is something
 * else's. */
#define NO_GPR (-2)
struct places {
    int reg, rm, vvvv;
    bool memory;       /* ModRM.rm is in memory … */
    struct x86_mem at; /* … here */
};

static bool high_byte(ZydisRegister r)
{
    return r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH;
}

static int guest_number(const ZydisDecodedOperand *op)
{
    return register_offset(op->reg.value) / 8;
}

static s8 first(s8 before, int n)
{
    return before < 0 ? (s8)n : before;
}

static void operand_note(struct jit_insn *i, int n)
{
    const ZydisDecodedOperand *op = &i->op[n];

    switch (op->encoding) {
    case ZYDIS_OPERAND_ENCODING_MODRM_REG: case ZYDIS_OPERAND_ENCODING_OPCODE: i->reg_op = first(i->reg_op, n); break;
    case ZYDIS_OPERAND_ENCODING_MODRM_RM: i->rm_op = first(i->rm_op, n); break;
    case ZYDIS_OPERAND_ENCODING_NDSNDD: i->vvvv_op = first(i->vvvv_op, n); break;
    case ZYDIS_OPERAND_ENCODING_NONE: i->rax_actions |= guest_number(op) == RAX ? op->actions : 0; break;
    default: break;
    }
    i->byte_operand |= op->reg.value <= ZYDIS_REGISTER_R15B;
    i->high_byte |= op->encoding != ZYDIS_OPERAND_ENCODING_NONE && high_byte(op->reg.value);
}

void operands_note(struct jit_insn *i)
{
    i->reg_op = i->rm_op = i->vvvv_op = -1;
    i->rax_actions = 0;
    i->byte_operand = i->high_byte = false;
    for (int n = 0; n < i->zi.operand_count; n++)
        if (i->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER && is_general(i->op[n].reg.value))
            operand_note(i, n);
}

/* Operands that are general registers, or NULL. */
static const ZydisDecodedOperand *reg_operand(const struct jit_insn *i)
{
    return i->reg_op < 0 ? NULL : &i->op[i->reg_op];
}

static const ZydisDecodedOperand *rm_operand(const struct jit_insn *i)
{
    return i->rm_op < 0 ? NULL : &i->op[i->rm_op];
}

static const ZydisDecodedOperand *vvvv_operand(const struct jit_insn *i)
{
    return i->vvvv_op < 0 ? NULL : &i->op[i->vvvv_op];
}

/* RAX or part of it as an implicit operand. */
static bool uses_rax(const struct jit_insn *i, ZydisOperandActions actions)
{
    return i->rax_actions & actions;
}

static bool operand_emits(const struct jit_emit *e, const struct jit_insn *i, const ZydisDecodedOperand *op)
{
    switch (op->type) {
    case ZYDIS_OPERAND_TYPE_MEMORY: return op == i->mem && op->mem.type == ZYDIS_MEMOP_TYPE_MEM && op->size;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE: return true;
    case ZYDIS_OPERAND_TYPE_REGISTER: break;
    default: return op->type != ZYDIS_OPERAND_TYPE_POINTER;
    }
    if (is_general(op->reg.value)) /* implicit registers must be where the instruction expects them; RAX is moved there */
        return op->encoding != ZYDIS_OPERAND_ENCODING_NONE ||
               (!high_byte(op->reg.value) && (guest_number(op) == RAX || e->host[guest_number(op)] == guest_number(op)));
    switch (ZydisRegisterGetClass(op->reg.value)) {
    case ZYDIS_REGCLASS_X87: case ZYDIS_REGCLASS_MMX: case ZYDIS_REGCLASS_XMM: case ZYDIS_REGCLASS_YMM:
    case ZYDIS_REGCLASS_ZMM: case ZYDIS_REGCLASS_MASK: case ZYDIS_REGCLASS_FLAGS: return true;
    default:
        return op->reg.value == ZYDIS_REGISTER_MXCSR ||
               (op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
                (op->reg.value == ZYDIS_REGISTER_X87STATUS || op->reg.value == ZYDIS_REGISTER_X87CONTROL ||
                 op->reg.value == ZYDIS_REGISTER_X87TAG));
    }
}

/* ---- second bytes of registers ---- */

static bool is_high(const ZydisDecodedOperand *op)
{
    return op && high_byte(op->reg.value);
}

bool is_prefetch(const struct jit_insn *i)
{
    switch (i->zi.mnemonic) {
    case ZYDIS_MNEMONIC_PREFETCHNTA: case ZYDIS_MNEMONIC_PREFETCHT0: case ZYDIS_MNEMONIC_PREFETCHT1: case ZYDIS_MNEMONIC_PREFETCHT2:
        return true;
    default: return false;
    }
}

bool uses_high_byte(const struct jit_insn *i)
{
    return i->high_byte;
}

static bool is_written(const ZydisDecodedOperand *op)
{
    return op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
}

/* AH, CH, DH and BH as operands of instructions that need a REX prefix here, which cannot name them: what is only read is copied
 * down to T2, what is written has its register turned around for the time. Left out: what would need T2 twice, turn a register
 * that is named by its first byte too, or find RAX elsewhere. */
static bool high_bytes_emit(const struct jit_insn *i)
{
    const ZydisDecodedOperand *reg = reg_operand(i), *rm = rm_operand(i);
    const ZydisDecodedOperand *high = is_high(reg) ? reg : rm;
    bool one_register = reg && rm && guest_number(reg) == guest_number(rm);

    if (!is_high(reg) && !is_high(rm))
        return true;
    if (i->host_faults || i->zi.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return false;
    for (int n = 0; n < i->zi.operand_count; n++)
        if (i->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER && i->op[n].encoding == ZYDIS_OPERAND_ENCODING_NONE &&
            is_general(i->op[n].reg.value) && (guest_number(&i->op[n]) == RAX || guest_number(&i->op[n]) == guest_number(high)))
            return false;
    if (one_register)
        return !is_written(reg) || !is_written(rm);
    return !is_high(reg) || !is_high(rm) || is_written(reg) || is_written(rm);
}

/* What is only read: its host register is T2 now. `other` is turned later. */
static void high_copy(struct x86_asm *a, const ZydisDecodedOperand *op, const ZydisDecodedOperand *other, int *host)
{
    bool turned = is_high(other) && is_written(other) && op && guest_number(op) == guest_number(other);

    if (!op || is_written(op) || !(is_high(op) || turned))
        return;
    asm_rorx(a, T2, *host, is_high(op) ? 8 : 0, true);
    *host = T2;
}

static void high_turn(struct x86_asm *a, const ZydisDecodedOperand *op, int host, int by)
{
    if (is_high(op) && is_written(op))
        asm_rorx(a, host, host, by, true);
}

static int operand_number(const ZydisDecodedOperand *op)
{
    return op ? guest_number(op) : NO_GPR;
}

static struct places places_of(const struct jit_insn *i)
{
    return (struct places){.reg = operand_number(reg_operand(i)),
                           .rm = operand_number(rm_operand(i)),
                           .vvvv = operand_number(vvvv_operand(i)),
                           .memory = i->mem != NULL};
}

static bool in_memory(const struct jit_emit *e, int guest)
{
    return guest >= 0 && e->host[guest] == JIT_IN_MEMORY;
}

int spares_of(const struct jit_emit *e, const struct jit_insn *i)
{
    struct places p = places_of(i);

    return in_memory(e, p.reg) + in_memory(e, p.rm) + in_memory(e, p.vvvv);
}

bool can_emit_same(const struct jit_emit *e, const struct jit_insn *i)
{
    struct places p = places_of(i);
    /* T1 is free without a memory operand, T2 always; and both for what is written when the operand was read */
    int spares = i->mem && i->zi.mnemonic != ZYDIS_MNEMONIC_MULX ? 1 : 2;

    if (e->code_size != 8 && i->zi.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return false;
    if (i->zi.encoding == ZYDIS_INSTRUCTION_ENCODING_XOP || i->zi.encoding == ZYDIS_INSTRUCTION_ENCODING_3DNOW)
        return false;
    if (i->zi.raw.prefix_count > 4) /* with ours the instruction might get longer than any may be */
        return false;
    for (int n = 0; n < i->zi.operand_count; n++)
        if (!operand_emits(e, i, &i->op[n]))
            return false;
    if (spares_of(e, i) > spares || !high_bytes_emit(i))
        return false;
    /* two copies of RAX, both written */
    return !(uses_rax(i, ZYDIS_OPERAND_ACTION_MASK_WRITE) && p.rm == RAX && i->zi.mnemonic == ZYDIS_MNEMONIC_CMPXCHG);
}

/* ---- encodings ---- */

/* Whether instructions of 16-bit code with that mnemonic need the prefix for 16-bit operands. */
static bool has_operand_size(const struct jit_insn *i)
{
    switch (i->zi.mnemonic) {
    case ZYDIS_MNEMONIC_ADCX: case ZYDIS_MNEMONIC_ADOX: case ZYDIS_MNEMONIC_MOVNTI: case ZYDIS_MNEMONIC_CMPXCHG8B:
    case ZYDIS_MNEMONIC_SFENCE: case ZYDIS_MNEMONIC_MFENCE: return false;
    default: return i->zi.operand_width == 16 && !i->vector;
    }
}

static void encode_prefixes(struct x86_asm *a, const struct jit_insn *i)
{
    if (i->code16 && has_operand_size(i))
        asm_byte(a, 0x66);
    for (int n = 0; n < i->zi.raw.prefix_count; n++) {
        u8 value = i->zi.raw.prefixes[n].value;

        if (value == 0x66 && i->code16 && i->zi.raw.prefixes[n].type != ZYDIS_PREFIX_TYPE_MANDATORY)
            continue;
        if (i->zi.raw.prefixes[n].type != ZYDIS_PREFIX_TYPE_IGNORED &&
            (value == 0x66 || value == 0xf2 || value == 0xf3 || value == 0xf0))
            asm_byte(a, value);
    }
}

static void encode_map(struct x86_asm *a, ZydisOpcodeMap map)
{
    if (map != ZYDIS_OPCODE_MAP_DEFAULT)
        asm_byte(a, 0x0f);
    if (map == ZYDIS_OPCODE_MAP_0F38 || map == ZYDIS_OPCODE_MAP_0F3A)
        asm_byte(a, map == ZYDIS_OPCODE_MAP_0F38 ? 0x38 : 0x3a);
}

static void encode_legacy(struct x86_asm *a, const struct jit_insn *i, struct places p)
{
    bool has_rex = i->zi.attributes & ZYDIS_ATTRIB_HAS_REX, modrm = i->zi.attributes & ZYDIS_ATTRIB_HAS_MODRM;
    int w = has_rex ? i->zi.raw.rex.W : 0, r = has_rex ? i->zi.raw.rex.R : 0, b = has_rex ? i->zi.raw.rex.B : 0;
    u8 opcode = i->zi.opcode, rex;

    if (modrm && p.reg >= 0)
        r = p.reg >> 3;
    if (modrm && p.memory)
        b = p.at.base >> 3 & 1;
    else if (modrm && p.rm >= 0)
        b = p.rm >> 3;
    else if (!modrm && p.reg >= 0)
        b = p.reg >> 3;
    rex = (u8)(0x40 | w << 3 | r << 2 | (p.memory && p.at.index >= 8) << 1 | b);
    encode_prefixes(a, i);
    if (rex != 0x40 || i->byte_operand)
        asm_byte(a, rex);
    encode_map(a, i->zi.opcode_map);
    if (!modrm && p.reg >= 0) {
        if (i->zi.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && opcode >= 0x40 && opcode < 0x50) { /* INC, DEC: now REX */
            asm_code(a, 0xff, (u8)(0xc0 | (opcode & 8) | (p.reg & 7)));
            return;
        }
        opcode = (u8)((opcode & 0xf8) | (p.reg & 7));
    }
    if (i->zi.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && opcode == 0x82) /* the same as 80, but not in 64-bit code */
        opcode = 0x80;
    asm_byte(a, opcode);
}

/* VEX and EVEX have register bits inverted. */
static u8 memory_bits(u8 first, const struct x86_mem *at)
{
    return (u8)((first & 0x9f) | (at->index < 8) << 6 | (at->base < 8) << 5);
}

static void encode_vex(struct x86_asm *a, const struct jit_insn *i, struct places p)
{
    const u8 *from = i->bytes + i->zi.raw.vex.offset;
    u8 first = i->zi.raw.vex.size == 2 ? (u8)((from[1] & 0x80) | 0x61) : from[1];
    u8 second = i->zi.raw.vex.size == 2 ? from[1] & 0x7f : from[2];

    if (p.reg >= 0)
        first = (u8)((first & 0x7f) | (p.reg < 8) << 7);
    if (p.memory)
        first = memory_bits(first, &p.at);
    else if (p.rm >= 0)
        first = (u8)((first & 0xdf) | (p.rm < 8) << 5);
    if (p.vvvv >= 0)
        second = (u8)((second & 0x87) | (~p.vvvv & 15) << 3);
    asm_code(a, 0xc4, first, second, i->zi.opcode);
}

static void encode_evex(struct x86_asm *a, const struct jit_insn *i, struct places p)
{
    const u8 *from = i->bytes + i->zi.raw.evex.offset;
    u8 first = from[1];

    if (p.reg >= 0)
        first = (u8)((first & 0x6f) | (p.reg < 8) << 7 | 0x10);
    if (p.memory)
        first = memory_bits(first, &p.at);
    else if (p.rm >= 0)
        first = (u8)((first & 0x9f) | 0x40 | (p.rm < 8) << 5);
    asm_code(a, 0x62, first, from[2], from[3], i->zi.opcode);
}

static void encode(struct x86_asm *a, const struct jit_insn *i, struct places p)
{
    if (p.memory)
        asm_segment(a, p.at);
    switch (i->zi.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_VEX: encode_vex(a, i, p); break;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX: encode_evex(a, i, p); break;
    default: encode_legacy(a, i, p); break;
    }
    if (i->zi.attributes & ZYDIS_ATTRIB_HAS_MODRM) {
        int reg = p.reg >= 0 ? p.reg & 7 : i->zi.raw.modrm.reg;

        if (p.memory)
            (i->zi.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ? asm_modrm_mem_disp32 : asm_modrm_mem)(a, reg, p.at);
        else
            asm_byte(a, (u8)(0xc0 | reg << 3 | (p.rm >= 0 ? p.rm & 7 : i->zi.raw.modrm.rm)));
    }
    for (int n = 0; n < 2; n++)
        asm_bytes(a, i->bytes + i->zi.raw.imm[n].offset, i->zi.raw.imm[n].size / 8);
}

/* ---- the same instruction ---- */

/* ADD AL/EAX, imm and the like: the accumulator's short forms, in the form for any register. */
static void emit_accumulator(struct x86_asm *a, const struct jit_emit *e, const struct jit_insn *i)
{
    u8 opcode = i->zi.opcode;
    bool test = opcode >= 0xa8;
    u32 op = test ? (opcode & 1 ? 0xf7 : 0xf6) : opcode & 1 ? 0x81 : 0x80;

    op |= i->zi.operand_width == 64 ? X86_W : i->zi.operand_width == 16 ? X86_66 : 0;
    asm_rr(a, op, test ? 0 : opcode >> 3, e->host[RAX]);
    asm_bytes(a, i->bytes + i->zi.raw.imm[0].offset, i->zi.raw.imm[0].size / 8);
}

static bool accumulator_form(const struct jit_insn *i)
{
    u8 opcode = i->zi.opcode;

    return i->zi.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && i->zi.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
           ((opcode & 0xfe) == 0xa8 || (opcode < 0x40 && (opcode & 6) == 4));
}

bool borrows_rax(const struct jit_insn *i)
{
    return !accumulator_form(i) && uses_rax(i, ZYDIS_OPERAND_ACTION_MASK_READ | ZYDIS_OPERAND_ACTION_MASK_WRITE);
}

/* Whether nothing of a register's former value is left. */
static bool overwritten(const struct jit_insn *i, const ZydisDecodedOperand *op)
{
    return op->actions == ZYDIS_OPERAND_ACTION_WRITE && op->size >= 32 && i->zi.mnemonic != ZYDIS_MNEMONIC_BSF &&
           i->zi.mnemonic != ZYDIS_MNEMONIC_BSR;
}

/* The register for guest register *where: its own, or *spare, with its value if that is `read`; *spare becomes the next one. */
static void place(struct jit_emit *e, bool read, int *where, int *spare)
{
    int guest = *where;

    if (guest < 0)
        return;
    *where = e->host[guest];
    if (*where != JIT_IN_MEMORY)
        return;
    if (read)
        asm_rm(&e->hot, X86_LOAD | X86_W, *spare, GPR_AT(guest));
    *where = *spare;
    *spare = T1;
}

/* Whether the register that ModRM.rm names may be a memory operand, where it is kept, instead: the memory form does the same. Not
 * where it writes 32 bits, which clears the upper ones of a register, takes a bit from further away, locks, or leaves another OF. */
static bool rm_as_memory(const struct jit_emit *e, const struct jit_insn *i, const ZydisDecodedOperand *rm)
{
    if (!rm || !in_memory(e, guest_number(rm)) || i->vector || i->mem || (is_written(rm) && rm->size == 32))
        return false;
    switch (i->zi.mnemonic) {
    case ZYDIS_MNEMONIC_XCHG: case ZYDIS_MNEMONIC_XADD: case ZYDIS_MNEMONIC_CMPXCHG: return false;
    case ZYDIS_MNEMONIC_BT: case ZYDIS_MNEMONIC_BTS: case ZYDIS_MNEMONIC_BTR: case ZYDIS_MNEMONIC_BTC: return false;
    default: return choose_general(i->zi.mnemonic) != choose_shift;
    }
}

/* Registers for the operands; some that are kept in memory stay there. */
static void place_all(struct jit_emit *e, const struct jit_insn *i, struct places *p, int spare)
{
    const ZydisDecodedOperand *reg = reg_operand(i), *rm = rm_operand(i);
    const ZydisDecodedOperand *vvvv = vvvv_operand(i);
    bool one = p->reg >= 0 && p->reg == p->rm && in_memory(e, p->reg);

    if (!one && rm_as_memory(e, i, rm)) {
        p->memory = true;
        p->at = GPR_AT(p->rm);
        p->rm = NO_GPR;
    }
    place(e, one || !reg || !overwritten(i, reg), &p->reg, &spare);
    if (one)
        p->rm = p->reg;
    else
        place(e, !rm || !overwritten(i, rm), &p->rm, &spare);
    place(e, !vvvv || !overwritten(i, vvvv), &p->vvvv, &spare);
}

static void place_back(struct jit_emit *e, const ZydisDecodedOperand *op, int host)
{
    if (op && in_memory(e, guest_number(op)) && op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
        asm_rm(&e->hot, X86_STORE | X86_W, host, GPR_AT(guest_number(op)));
}

void emit_registers_again(struct x86_asm *a, const struct jit_emit *e, const struct jit_insn *i, int spare)
{
    struct places p = places_of(i);
    int *all[] = {&p.reg, &p.rm};

    if (accumulator_form(i)) {
        emit_accumulator(a, e, i);
        return;
    }
    for (size_t n = 0; n < ARRAY_SIZE(all); n++) {
        const ZydisDecodedOperand *op = n ? rm_operand(i) : reg_operand(i);
        int guest = *all[n];

        if (guest < 0)
            continue;
        *all[n] = in_memory(e, guest) || is_high(op) ? spare : e->host[guest];
        if (is_high(op))
            asm_rorx(a, spare, e->host[guest], 8, true);
        if (in_memory(e, guest))
            asm_rm(a, X86_LOAD | X86_W, spare, GPR_AT(guest));
    }
    encode(a, i, p);
}

/* The instruction itself, its memory operand checked, flags where they must be. */
static void emit_moved(struct jit_emit *e, const struct jit_insn *i)
{
    const ZydisDecodedOperand *reg = reg_operand(i), *rm = rm_operand(i);
    bool rax = uses_rax(i, ZYDIS_OPERAND_ACTION_MASK_READ | ZYDIS_OPERAND_ACTION_MASK_WRITE);
    struct places p = places_of(i);
    int spare = T2;

    if (i->mem) {
        p.at = e->at;
        if ((in_memory(e, p.reg) || in_memory(e, p.vvvv)) && i->zi.mnemonic != ZYDIS_MNEMONIC_MULX)
            spare = emit_spare(e, &p.at);
    }
    place_all(e, i, &p, spare);
    if (rax)
        asm_rr(&e->hot, X86_LOAD | X86_W, X86_RAX, e->host[RAX]);
    high_copy(&e->hot, reg, rm, &p.reg);
    high_copy(&e->hot, rm, reg, &p.rm);
    high_turn(&e->hot, reg, p.reg, 8);
    high_turn(&e->hot, rm, p.rm, 8);
    encode(&e->hot, i, p);
    high_turn(&e->hot, reg, p.reg, 56);
    high_turn(&e->hot, rm, p.rm, 56);
    if (rax && uses_rax(i, ZYDIS_OPERAND_ACTION_MASK_WRITE))
        asm_rr(&e->hot, X86_LOAD | X86_W, e->host[RAX], X86_RAX);
    /* where both are one register: MULX leaves the high half in it, which ModRM.reg names */
    place_back(e, vvvv_operand(i), p.vvvv);
    place_back(e, reg, p.reg);
    if (!p.memory)
        place_back(e, rm, p.rm);
}

/* An instruction may fault at its memory operand when the flags are already where it wants them: in EFLAGS to be read, not in RAX
 * if that is lent to it. */
static void flags_in_place(struct jit_emit *e, const struct jit_insn *i, bool shuttle)
{
    if (i->reads_flags)
        flags_to_host(e);
    if (shuttle)
        flags_free_rax(e);
}

void emit_same(struct jit_emit *e, const struct jit_insn *i)
{
    bool shuttle = borrows_rax(i);
    u32 site = 0;

    e->rax_lent = shuttle;
    if (shuttle)
        slot_forget(e);
    if (i->window)
        flags_in_place(e, i, shuttle);
    else if (i->host_faults && (shuttle || i->reads_flags))
        flags_save_memory(e);
    if (i->mem) {
        e->at = emit_memory(e, i, &i->mem->mem, i->mem->size / 8, i->mem->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
        site = is_prefetch(i) ? 0 : e->stub[e->stubs - 1].site;
    } else if (i->host_faults) { /* a slow path that only a signal finds */
        site = jit_site_new(e, i, JIT_SITE_INSN);
        *jit_stub_new(e) = (struct jit_stub){.site = site, .flags = (u8)(i->window ? e->flags : e->flags & ~(u32)FLAGS_HOST),
                                                  .recipe = e->recipe, .x87 = e->x87_offset};
    }
    if (i->reads_flags)
        flags_to_host(e);
    if (shuttle && i->flags_needed)
        flags_free_rax(e);
    if (!accumulator_form(i))
        emit_moved(e, i);
    else
        emit_accumulator(&e->hot, e, i);
    if (i->writes_flags)
        flags_written(e, i);
    else if (shuttle)
        e->flags &= ~(u32)FLAGS_RAX;
    if (site) {
        struct jit_site *s = jit_site_at(e->j, site);

        jit_site_done(e, s);
    }
    if (i->x87 && i->mem) { /* now: if an exception is pending from before, the instruction faults without having been the last */
        emit_effective(e, i, &i->mem->mem);
        asm_rm(&e->hot, X86_STORE | X86_W, T1, VCPU_AT(x87_operand));
    }
}

/* ---- put together ---- */

/* A guest register's value in some host register: its own, or `spare`. */
static int read_register(struct jit_emit *e, int guest, int spare)
{
    if (!in_memory(e, guest))
        return e->host[guest];
    asm_rm(&e->hot, X86_LOAD | X86_W, spare, GPR_AT(guest));
    return spare;
}

static void site_done(struct jit_emit *e)
{
    struct jit_site *s = jit_site_at(e->j, e->stub[e->stubs - 1].site);

    jit_site_done(e, s);
}

bool lea_direct(const struct jit_emit *e, const struct jit_insn *i)
{
    const ZydisDecodedOperandMem *mem = &i->op[1].mem;
    bool no_base = i->zi.raw.sib.offset && i->zi.raw.modrm.mod == 0 && i->zi.raw.sib.base == 5;

    return i->zi.operand_width != 16 && i->zi.address_width == 64 && !no_base && mem->base != ZYDIS_REGISTER_NONE &&
           mem->base != ZYDIS_REGISTER_RIP && !in_memory(e, guest_number(&i->op[0])) && !in_memory(e, register_offset(mem->base) / 8) &&
           (mem->index == ZYDIS_REGISTER_NONE || !in_memory(e, register_offset(mem->index) / 8));
}

void emit_lea(struct jit_emit *e, const struct jit_insn *i)
{
    int guest = guest_number(&i->op[0]);
    u32 wide = i->zi.operand_width == 64 ? X86_W : i->zi.operand_width == 16 ? X86_66 : 0;
    ZydisDecodedOperandMem mem = i->op[1].mem;

    mem.segment = ZYDIS_REGISTER_DS; /* an offset in it */
    if (!in_memory(e, guest) && wide != X86_66 && i->zi.address_width != 16) {
        emit_effective_to(e, i, &mem, e->host[guest], i->zi.address_width == 64 ? wide : 0);
        return;
    }
    emit_effective(e, i, &mem);
    if (!in_memory(e, guest)) {
        asm_rr(&e->hot, X86_LOAD | wide, e->host[guest], T1);
    } else if (wide == X86_66) {
        asm_rm(&e->hot, X86_STORE | X86_66, T1, GPR_AT(guest));
    } else {
        if (!wide)
            asm_rr(&e->hot, X86_LOAD, T1, T1);
        asm_rm(&e->hot, X86_STORE | X86_W, T1, GPR_AT(guest));
    }
}

static u32 stack_size(const struct jit_emit *e)
{
    return e->code_size == 8 ? 8 : 4;
}

/* SP += by, without touching flags. */
static void stack_move(struct jit_emit *e, s32 by)
{
    int sp = e->host[RSP];

    asm_rm(&e->hot, X86_LEA | (e->code_size == 8 ? X86_W : 0), sp, X86_AT(sp, by));
}

void emit_push_scratch(struct jit_emit *e, const struct jit_insn *i)
{
    u32 size = stack_size(e), wide = size == 8 ? X86_W : 0;
    struct x86_mem at;
    int spare;

    if (e->segmented) {
        segment_push_scratch(e, i);
        return;
    }
    at = emit_based(e, i, e->host[RSP], -(s32)size, size, true);
    spare = emit_spare(e, &at);
    asm_rm(&e->hot, X86_LOAD | wide, spare, VCPU_AT(scratch));
    asm_rm(&e->hot, X86_STORE | wide, spare, at);
    stack_move(e, -(s32)size);
    site_done(e);
}

static void emit_push_memory(struct jit_emit *e, const struct jit_insn *i)
{
    struct x86_mem at = emit_memory(e, i, &i->mem->mem, stack_size(e), false);
    struct jit_site *read = jit_site_at(e->j, e->stub[e->stubs - 1].site);

    asm_rm(&e->hot, X86_LOAD | (stack_size(e) == 8 ? X86_W : 0), T1, at);
    asm_rm(&e->hot, X86_STORE | X86_W, T1, VCPU_AT(scratch));
    emit_push_scratch(e, i);
    jit_site_done(e, read);
}

void emit_push(struct jit_emit *e, const struct jit_insn *i)
{
    u32 size = stack_size(e), wide = size == 8 ? X86_W : 0;
    struct x86_mem at;
    int spare;

    if (i->mem) {
        emit_push_memory(e, i);
        return;
    }
    at = emit_based(e, i, e->host[RSP], -(s32)size, size, true);
    spare = emit_spare(e, &at);
    if (i->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        asm_rm(&e->hot, 0xc7 | wide, 0, at);
        asm_u32(&e->hot, (u32)i->op[0].imm.value.u);
    } else {
        asm_rm(&e->hot, X86_STORE | wide, read_register(e, guest_number(&i->op[0]), spare), at);
    }
    stack_move(e, -(s32)size);
    site_done(e);
}

void emit_pop(struct jit_emit *e, const struct jit_insn *i)
{
    u32 size = stack_size(e), wide = size == 8 ? X86_W : 0;
    int guest = guest_number(&i->op[0]);
    struct x86_mem at = emit_based(e, i, e->host[RSP], 0, size, false);

    if (in_memory(e, guest)) {
        asm_rm(&e->hot, X86_LOAD | wide, T2, at);
        asm_rm(&e->hot, X86_STORE | X86_W, T2, GPR_AT(guest));
    } else {
        asm_rm(&e->hot, X86_LOAD | wide, e->host[guest], at);
    }
    if (guest != RSP)
        stack_move(e, (s32)size);
    site_done(e);
}

void emit_leave(struct jit_emit *e, const struct jit_insn *i)
{
    u32 size = stack_size(e), wide = size == 8 ? X86_W : 0;
    int bp = e->host[RBP];
    struct x86_mem at = emit_based(e, i, bp, 0, size, false);

    asm_rm(&e->hot, X86_LOAD | wide, T1, at);
    asm_rm(&e->hot, X86_LEA | wide, e->host[RSP], X86_AT(bp, (s32)size));
    asm_rr(&e->hot, X86_LOAD | wide, bp, T1);
    if (i->window && size == 8)
        stack_moved(e, i, at.index); /* to the slot of RBP, or to the guards */
    site_done(e); /* behind that: C has seen to it, and the slow path comes back without the slot */
}

/* MOV between the accumulator and an absolute address. */
void emit_moffs(struct jit_emit *e, const struct jit_insn *i)
{
    bool store = i->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
    const ZydisDecodedOperand *mem = &i->op[store ? 0 : 1];
    u32 size = mem->size / 8, op = store ? X86_STORE : X86_LOAD;
    u64 address = i->zi.address_width == 64 ? mem->mem.disp.value : (u32)mem->mem.disp.value;
    int rax = e->host[RAX];

    asm_mov_imm64(&e->hot, T1, address);
    if (mem->mem.segment == ZYDIS_REGISTER_FS || mem->mem.segment == ZYDIS_REGISTER_GS)
        emit_add_base(e, mem->mem.segment == ZYDIS_REGISTER_FS ? SEG_FS : SEG_GS);
    emit_check(e, i, size, store);
    if (size == 1)
        op = store ? X86_STORE8 : 0x8a | X86_BYTE;
    op |= size == 8 ? X86_W : size == 2 ? X86_66 : 0;
    asm_rm(&e->hot, op, rax, X86_AT(T1, 0));
    site_done(e);
}

/* BT, BTS, BTR, BTC with a register as the bit's number: the word that it is in, counted from the operand, then the bit there. */
void emit_bit_memory(struct jit_emit *e, const struct jit_insn *i)
{
    struct x86_asm *a = &e->hot;
    int guest = guest_number(&i->op[1]);
    u32 size = i->zi.operand_width / 8, wide = size == 8 ? X86_W : 0;
    static const u8 opcodes[] = {0xa3, 0xab, 0xb3, 0xbb};

    flags_save(e);
    e->flags &= ~(u32)FLAGS_RECIPE; /* which would use T2 */
    emit_linear(e, i, &i->mem->mem);
    flags_clobber(e);
    asm_rr(a, size == 8 ? X86_LOAD | X86_W : 0x63 | X86_W, T2, read_register(e, guest, T2)); /* mov or movsxd */
    asm_rr(a, 0xc1 | X86_W, 7, T2); /* sar */
    asm_byte(a, size == 8 ? 6 : 5);
    asm_rm(a, X86_LEA | (e->code_size == 8 ? X86_W : 0), T1,
           (struct x86_mem){.base = T1, .index = T2, .scale = size == 8 ? 3 : 2});
    emit_check(e, i, size, i->mem->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
    asm_rr(a, X86_LOAD, T2, read_register(e, guest, T2));
    asm_ri(a, X86_AND, T2, (s32)size * 8 - 1);
    flags_to_host(e);
    if (i->zi.attributes & ZYDIS_ATTRIB_HAS_LOCK)
        asm_byte(a, 0xf0);
    asm_rm(a, X86_0F | opcodes[(i->zi.opcode - 0xa3) / 8 & 3] | wide, T2, X86_AT(T1, 0));
    flags_written(e, i);
    site_done(e);
}
