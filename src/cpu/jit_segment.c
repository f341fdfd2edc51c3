/* Segmented code: 16-bit code, and 32-bit code whose segments are not flat. SDM vol. 3 ch. 3, vol. 1 §3.3.
 *
 * Operands: the offset, cut to the address size, is compared with the segment's limit as it is now, and its base added; then the TLB's check as
 * everywhere. That a segment may be used at all, by its type, is part of the key; operands in others are left to the handlers.
 *
 * RIP is an offset in the code segment. vcpu.page_base is what RIP would be at the start of the linear page, so that RIP is page_base and
 * an offset in the page here as well. The key says which part of the page the segment has, if not all of it: so jumps within that part
 * need no check. All others look for their target, cut to the operand size, in a jump table that is for this limit of CS alone, by linear
 * address and base; what is not found and is beyond the limit is the jump's own fault. */
#include "cpu/jit_segment.h"

#include "cpu/decode.h"
#include "cpu/jit_jumps.h"

#define M(name) ZYDIS_MNEMONIC_##name

/* ---- what becomes of an instruction ---- */

static bool handled(const struct jit_emit *e, int seg)
{
    return e->b->key >> (JIT_KEY_HANDLER_SHIFT + seg) & 1;
}

static int segment_of(const ZydisDecodedOperandMem *mem)
{
    return (int)(mem->segment - ZYDIS_REGISTER_ES);
}

bool segment_operands(const struct jit_emit *e, const struct jit_insn *i)
{
    for (int n = 0; n < i->zi.operand_count; n++) {
        const ZydisDecodedOperand *op = &i->op[n];

        if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || op->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
            continue;
        if (op->mem.segment < ZYDIS_REGISTER_ES || op->mem.segment > ZYDIS_REGISTER_GS || handled(e, segment_of(&op->mem)))
            return false;
        if (op->mem.segment == ZYDIS_REGISTER_CS && op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE && e->b->key & JIT_KEY_HANDLER_CS_WRITE)
            return false;
    }
    return true;
}

/* Operand size in bytes. Zydis may give short jumps that of their displacement. */
static int operand_size(const struct jit_emit *e, const struct jit_insn *i)
{
    return i->zi.operand_width == 8 ? e->code_size : i->zi.operand_width / 8;
}

enum jit_kind segment_branch_kind(const struct jit_emit *e, const struct jit_insn *i)
{
    bool relative = i->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && i->op[0].imm.is_relative;

    if (i->zi.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || operand_size(e, i) < e->code_size)
        return JIT_LEAVE_BLOCK;
    switch (i->zi.mnemonic) {
    case M(JMP): return relative ? JIT_JMP : JIT_JMP_INDIRECT;
    case M(CALL): return handled(e, SEG_SS) ? JIT_LEAVE_BLOCK : relative ? JIT_CALL : JIT_CALL_INDIRECT;
    case M(RET): return handled(e, SEG_SS) ? JIT_LEAVE_BLOCK : JIT_RET;
    case M(LOOP): case M(LOOPE): case M(LOOPNE): case M(JCXZ): case M(JECXZ): case M(JRCXZ):
        return can_emit_count(e, i) ? JIT_LOOP : JIT_LEAVE_BLOCK;
    default: return JIT_JCC;
    }
}

static ZydisRegisterClass register_class(const struct jit_insn *i, int operand)
{
    return i->op[operand].type == ZYDIS_OPERAND_TYPE_REGISTER ? ZydisRegisterGetClass(i->op[operand].reg.value) : ZYDIS_REGCLASS_INVALID;
}

static bool is_word(ZydisRegisterClass class)
{
    return class == ZYDIS_REGCLASS_GPR16 || class == ZYDIS_REGCLASS_GPR32;
}

enum jit_kind segment_stack_kind(const struct jit_emit *e, const struct jit_insn *i)
{
    ZydisRegisterClass class = register_class(i, 0);
    int size = i->zi.operand_width / 8;

    if ((size != 2 && size != 4) || handled(e, SEG_SS) || i->zi.attributes & ZYDIS_ATTRIB_HAS_LOCK)
        return JIT_INTERPRET;
    switch (i->zi.mnemonic) {
    case M(PUSH):
        if (class == ZYDIS_REGCLASS_SEGMENT)
            return size == 2 ? JIT_PUSH : JIT_INTERPRET; /* of four bytes processors write two */
        return is_word(class) || i->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE || i->mem ? JIT_PUSH : JIT_INTERPRET;
    case M(POP): return is_word(class) ? JIT_POP : JIT_INTERPRET;
    case M(LEAVE): return JIT_LEAVE;
    default: return JIT_INTERPRET;
    }
}

enum jit_kind segment_system_kind(const struct jit_emit *e, const struct jit_insn *i)
{
    switch (i->zi.mnemonic) {
    case M(CLI): case M(STI): return e->b->key & JIT_KEY_RING0 ? JIT_SYSTEM : JIT_INTERPRET;
    case M(PUSHF): case M(PUSHFD): return e->b->key & JIT_KEY_RING0 && !handled(e, SEG_SS) ? JIT_SYSTEM : JIT_INTERPRET; /* not virtual-8086 mode */
    case M(CLD): case M(STD): case M(LAHF): case M(SAHF): return JIT_SYSTEM;
    default: break;
    }
    if (!segment_operands(e, i))
        return JIT_INTERPRET;
    return can_emit_selector(e, i) ? JIT_SELECTOR : can_emit_element(i) ? JIT_ELEMENT : JIT_INTERPRET;
}

/* ---- memory ---- */

/* Compares the offset in T1 with the segment's limit; where the jump that is taken beyond it is. `narrow`: the offset has 16 bits. */
static u32 emit_limit(struct jit_emit *e, int seg, u32 size, bool narrow)
{
    struct x86_mem limit = X86_AT(HOST_VCPU, VCPU_DISP(s.seg_limit) + seg * 4);
    struct x86_asm *a = &e->hot;

    flags_clobber(e);
    if (size == 1) {
        asm_rm(a, X86_CMP, T1, limit);
        return asm_jcc(a, X86_A, NULL);
    }
    if (narrow) {
        asm_rm(a, X86_LEA, T2, X86_AT(T1, (s32)size - 1));
        asm_rm(a, X86_CMP, T2, limit);
        return asm_jcc(a, X86_A, NULL);
    }
    asm_rm(a, X86_LOAD, T2, limit); /* in 64 bits: neither end wraps around */
    asm_ri(a, X86_SUB | X86_W, T2, (s32)size - 1);
    asm_rr(a, X86_CMP | X86_W, T1, T2);
    return asm_jcc(a, X86_G, NULL);
}

struct x86_mem segment_offset(struct jit_emit *e, const struct jit_insn *i, int seg, u32 size, bool write, bool narrow)
{
    u32 beyond = emit_limit(e, seg, size, narrow);

    asm_rm(&e->hot, X86_ADD, T1, X86_AT(HOST_VCPU, VCPU_DISP(lin_base) + seg * 8));
    emit_check(e, i, size, write);
    e->stub[e->stubs - 1].beyond = beyond;
    return X86_AT(T1, 0);
}

struct x86_mem segment_memory(struct jit_emit *e, const struct jit_insn *i, const ZydisDecodedOperandMem *mem, u32 size, bool write)
{
    emit_effective(e, i, mem);
    return segment_offset(e, i, segment_of(mem), size, write, i->zi.address_width == 16);
}

void segment_site_done(struct jit_emit *e)
{
    jit_site_done(e, jit_site_at(e->j, e->stub[e->stubs - 1].site));
}

/* MOV of two or four bytes; two to a register leave the rest of it as it was. */
static u32 sized(u32 op, int size)
{
    return size == 2 ? op | X86_66 : op;
}

/* ---- the stack ---- */

static bool stack16(const struct jit_emit *e)
{
    return e->b->key & JIT_KEY_STACK16;
}

struct x86_mem segment_stack(struct jit_emit *e, const struct jit_insn *i, int reg, s32 disp, int size, bool write)
{
    if (!stack16(e) || disp)
        asm_rm(&e->hot, X86_LEA, T1, X86_AT(reg, disp));
    if (stack16(e))
        asm_rr(&e->hot, X86_MOVZX16, T1, disp ? T1 : reg);
    return segment_offset(e, i, SEG_SS, (u32)size, write, stack16(e));
}

/* SP or ESP becomes another register and a displacement; leaves the flags alone. */
static void stack_pointer_set(struct jit_emit *e, struct x86_asm *a, int reg, s32 disp)
{
    asm_rm(a, stack16(e) ? X86_LEA | X86_66 : X86_LEA, jit_host_register[RSP], X86_AT(reg, disp));
}

void segment_stack_move(struct jit_emit *e, s32 by)
{
    stack_pointer_set(e, &e->hot, jit_host_register[RSP], by);
}

static int guest_of(const ZydisDecodedOperand *op)
{
    return register_offset(op->reg.value) / 8;
}

/* What PUSH stores, in a host register: T2 unless it has its own. */
static int pushed(struct jit_emit *e, const struct jit_insn *i)
{
    if (register_class(i, 0) == ZYDIS_REGCLASS_SEGMENT) {
        asm_rm(&e->hot, X86_MOVZX16, T2, X86_AT(HOST_VCPU, VCPU_DISP(s.seg_sel) + (i->op[0].reg.value - ZYDIS_REGISTER_ES) * 2));
        return T2;
    }
    return jit_host_register[guest_of(&i->op[0])];
}

static void emit_immediate(struct jit_emit *e, const struct jit_insn *i, int size, struct x86_mem at)
{
    u32 val = (u32)i->op[0].imm.value.u;

    asm_rm(&e->hot, sized(0xc7, size), 0, at);
    if (size == 2)
        asm_code(&e->hot, (u8)val, (u8)(val >> 8));
    else
        asm_u32(&e->hot, val);
}

void segment_push_scratch(struct jit_emit *e, const struct jit_insn *i)
{
    int size = i->zi.operand_width / 8;
    struct x86_mem at = segment_stack(e, i, jit_host_register[RSP], -size, size, true);

    asm_rm(&e->hot, X86_LOAD, T2, VCPU_AT(scratch));
    asm_rm(&e->hot, sized(X86_STORE, size), T2, at);
    segment_stack_move(e, -size);
    segment_site_done(e);
}

static void push_memory(struct jit_emit *e, const struct jit_insn *i, int size)
{
    struct x86_mem at = segment_memory(e, i, &i->mem->mem, (u32)size, false);
    u32 read = e->stub[e->stubs - 1].site;

    asm_rm(&e->hot, zero_extending_load(size), T1, at);
    asm_rm(&e->hot, X86_STORE | X86_W, T1, VCPU_AT(scratch));
    segment_push_scratch(e, i);
    jit_site_done(e, jit_site_at(e->j, read));
}

static void segment_push(struct jit_emit *e, const struct jit_insn *i)
{
    int size = i->zi.operand_width / 8;
    struct x86_mem at;

    if (i->mem) {
        push_memory(e, i, size);
        return;
    }
    at = segment_stack(e, i, jit_host_register[RSP], -size, size, true);
    if (i->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        emit_immediate(e, i, size, at);
    else
        asm_rm(&e->hot, sized(X86_STORE, size), pushed(e, i), at);
    segment_stack_move(e, -size);
    segment_site_done(e);
}

static void segment_pop(struct jit_emit *e, const struct jit_insn *i)
{
    int guest = guest_of(&i->op[0]), size = i->zi.operand_width / 8;
    struct x86_mem at = segment_stack(e, i, jit_host_register[RSP], 0, size, false);

    if (guest == RSP) { /* the value wins over the increment, but SP alone may count */
        asm_rm(&e->hot, X86_LOAD, T2, at);
        segment_stack_move(e, size);
        asm_rr(&e->hot, sized(X86_LOAD, size), jit_host_register[RSP], T2);
    } else {
        asm_rm(&e->hot, sized(X86_LOAD, size), jit_host_register[guest], at);
        segment_stack_move(e, size);
    }
    segment_site_done(e);
}

static void segment_leave(struct jit_emit *e, const struct jit_insn *i)
{
    int bp = jit_host_register[RBP], size = i->zi.operand_width / 8;
    struct x86_mem at = segment_stack(e, i, bp, 0, size, false);

    asm_rm(&e->hot, zero_extending_load(size), T2, at);
    stack_pointer_set(e, &e->hot, bp, size);
    asm_rr(&e->hot, sized(X86_LOAD, size), bp, T2);
    segment_site_done(e);
}

/* ---- absolute addresses ---- */

static void segment_moffs(struct jit_emit *e, const struct jit_insn *i)
{
    bool store = i->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY, narrow = i->zi.address_width == 16;
    const ZydisDecodedOperand *mem = &i->op[store ? 0 : 1];
    u32 size = mem->size / 8, op = store ? X86_STORE : X86_LOAD;

    asm_mov_imm64(&e->hot, T1, narrow ? (u16)mem->mem.disp.value : (u32)mem->mem.disp.value);
    segment_offset(e, i, segment_of(&mem->mem), size, store, narrow);
    if (size == 1)
        op = store ? X86_STORE8 : 0x8a | X86_BYTE;
    asm_rm(&e->hot, size == 2 ? op | X86_66 : op, jit_host_register[RAX], X86_AT(T1, 0));
    segment_site_done(e);
}

/* ---- jumps ---- */

/* To RIP in T1, flags in RAX: looks into the jump table, and sets page_base. Returns the way out where it is not there. */
static struct jit_exit *emit_jump_table(struct jit_emit *e)
{
    struct x86_mem base = VCPU_AT(lin_base[SEG_CS]);
    struct x86_asm *a = &e->hot;
    struct jit_exit *miss;

    asm_rm(a, X86_ADD, T1, base); /* jit_jump_tag */
    asm_rm(a, X86_LOAD, T2, base);
    asm_rr(a, 0xc1 | X86_W, 4, T2); /* shl */
    asm_byte(a, 32);
    asm_rr(a, X86_OR | X86_W, T1, T2);
    jit_emit_look_up(a);
    miss = exit_new(e, EXIT_MISS, 0, asm_jcc(a, X86_NE, NULL));
    asm_ri(a, X86_AND, T1, (s32)PAGE_MASK); /* segment_miss() comes back here */
    asm_rm(a, X86_SUB, T1, base);
    asm_rm(a, X86_STORE | X86_W, T1, VCPU_AT(page_base));
    asm_rm(a, 0xff, 4, X86_AT(T2, offsetof(struct jit_jump, code))); /* jmp [] */
    return miss;
}

static struct jit_exit *emit_jump_to_t1(struct jit_emit *e)
{
    flags_to_rax(e);
    flags_clobber(e);
    return emit_jump_table(e);
}

/* page_base + offset to a register, cut to `size` bytes. */
static void emit_rip_of(struct x86_asm *a, int reg, s64 offset, int size)
{
    asm_rm(a, X86_LOAD, reg, VCPU_AT(page_base));
    asm_rm(a, X86_LEA, reg, X86_AT(reg, (s32)offset));
    if (size == 2)
        asm_rr(a, X86_MOVZX16, reg, reg);
}

void segment_far(struct jit_emit *e, const struct jit_insn *i, s64 offset)
{
    flags_to_rax(e);
    emit_rip_of(&e->hot, T1, offset, i ? operand_size(e, i) : 4);
    emit_jump_to_t1(e)->site = i ? jit_site_new(e, i, JIT_SITE_INSN) : 0;
}

/* The target may be in the other entry of the pair. If it is in none it may be beyond the limit. */
void segment_miss(struct jit_emit *e, const struct jit_exit *x)
{
    struct x86_asm *a = &e->hot;
    u32 within;

    asm_ri(a, X86_XOR | X86_W, T2, sizeof(struct jit_jump));
    asm_rm(a, X86_CMP | X86_W, T1, X86_AT(T2, offsetof(struct jit_jump, rip)));
    asm_jcc(a, X86_E, x->exec + 4);
    asm_rm(a, X86_SUB, T1, VCPU_AT(lin_base[SEG_CS]));
    if (x->site) {
        asm_rm(a, X86_CMP, T1, VCPU_AT(s.seg_limit[SEG_CS]));
        within = asm_jcc(a, X86_BE, NULL);
        if (x->popped)
            stack_pointer_set(e, a, jit_host_register[RSP], -x->popped);
        emit_slow(a, e, x->site, FLAGS_RAX, NULL);
        asm_link(a, within, asm_here(a));
    }
    asm_rm(a, X86_STORE | X86_W, T1, GPR_AT(RIP));
    cold_unlinked(e, LEAVE_RAX);
}

static void segment_jmp(struct jit_emit *e, const struct jit_insn *i)
{
    x87_settle(e);
    if (in_page(e, jit_target(i)))
        emit_goto(e, jit_target(i));
    else
        segment_far(e, i, jit_target(i));
}

static void segment_jmp_indirect(struct jit_emit *e, const struct jit_insn *i)
{
    x87_settle(e);
    emit_target(e, i, operand_size(e, i));
    emit_jump_to_t1(e)->site = i->mem ? e->stub[e->stubs - 1].site : jit_site_new(e, i, JIT_SITE_INSN);
}

static void emit_push_return(struct jit_emit *e, const struct jit_insn *i)
{
    int size = operand_size(e, i);
    struct x86_mem at = segment_stack(e, i, jit_host_register[RSP], -size, size, true);

    emit_rip_of(&e->hot, T2, i->offset + i->zi.length, 4);
    asm_rm(&e->hot, sized(X86_STORE, size), T2, at);
    access_done(e);
    segment_stack_move(e, -size);
}

/* A jump that was found to leave the segment after it has moved the stack pointer: its slow path puts that back first. */
static void may_fault(struct jit_emit *e, struct jit_exit *x, s32 moved)
{
    x->site = e->stub[e->stubs - 1].site;
    x->popped = moved;
}

static void segment_call(struct jit_emit *e, const struct jit_insn *i)
{
    x87_settle(e);
    emit_push_return(e, i);
    if (in_page(e, jit_target(i))) {
        emit_goto(e, jit_target(i));
        return;
    }
    flags_to_rax(e);
    emit_rip_of(&e->hot, T1, jit_target(i), operand_size(e, i));
    may_fault(e, emit_jump_to_t1(e), -operand_size(e, i));
}

static void segment_call_indirect(struct jit_emit *e, const struct jit_insn *i)
{
    x87_settle(e);
    emit_target(e, i, operand_size(e, i));
    asm_rm(&e->hot, X86_STORE | X86_W, T1, VCPU_AT(scratch));
    emit_push_return(e, i);
    asm_rm(&e->hot, X86_LOAD | X86_W, T1, VCPU_AT(scratch));
    may_fault(e, emit_jump_to_t1(e), -operand_size(e, i));
}

static void segment_return(struct jit_emit *e, const struct jit_insn *i)
{
    s32 size = operand_size(e, i), more = i->zi.raw.imm[0].size ? (s32)(i->op[0].imm.value.u & 0xffff) : 0;
    struct x86_mem at;

    x87_settle(e);
    at = segment_stack(e, i, jit_host_register[RSP], 0, size, false);
    asm_rm(&e->hot, zero_extending_load(size), T1, at);
    access_done(e);
    segment_stack_move(e, size + more);
    may_fault(e, emit_jump_to_t1(e), size + more);
}

bool segment_emit(struct jit_emit *e, const struct jit_insn *i)
{
    switch (i->kind) {
    case JIT_PUSH: segment_push(e, i); return true;
    case JIT_POP: segment_pop(e, i); return true;
    case JIT_LEAVE: segment_leave(e, i); return true;
    case JIT_MOFFS: segment_moffs(e, i); return true;
    case JIT_JMP: segment_jmp(e, i); return true;
    case JIT_CALL: segment_call(e, i); return true;
    case JIT_JMP_INDIRECT: segment_jmp_indirect(e, i); return true;
    case JIT_CALL_INDIRECT: segment_call_indirect(e, i); return true;
    case JIT_RET: segment_return(e, i); return true;
    case JIT_SELECTOR: emit_selector(e, i); return true;
    case JIT_ELEMENT: emit_element(e, i); return true;
    default: return false;
    }
}
