/* The ways into and out of translated code.
 *
 *   enter(c, code)   from C: saves what C wants kept, RSP to the vCPU, guest registers to the host's, jumps to `code` with the
 *                    flags in RAX and in EFLAGS
 *   exit             from translated code, a link's number or 0 in T2: back to enter()'s caller with that. Without a link RIP is
 *                    in s.gpr. Three of them: the flags are in EFLAGS, in RAX, in vcpu.cc
 *   slow             the same with a site's number in T2: calls jit_slow() and goes on where that says
 *   victim           called from the slow path of a memory operand that found another page's entry in the TLB, T1 and T2 as the check
 *                    left them: looks for a victim; "below or equal": T1 has the pointer
 *   cell             from translated code, a cell in T2 that does not know where the address in T1 leads: there
 *   look             from translated code, the address of a jump's target in T1 that the jump table does not know, in T2 the jump's cell or 0,
 *                    flags in RAX: calls jit_look() and goes on where that says
 *   tsc              called for RDTSC: the TSC to EDX and the guest's EAX, and carry clear. RAX, T1 and T2 change. Carry set: it cannot tell
 *   jump             from translated code, a jump table's entry in T2, its address in T1: to its code */
#include "cpu/jit_cache.h"
#include "cpu/jit_emit.h"
#include "cpu/jit_jumps.h"
#include "cpu/jit_x87.h"
#include "cpu/window.h"

/* RCX RDX RBX RBP RSI RDI R8 R13 stand in themselves; RAX, RSP, R11 and R12 are the host's own business. In memory are those that
 * compilers use least: R9 to R11 and R15 are in 8 % of gcc's instructions, R12 to R15 in 18 %. */
const s8 jit_host_register[GPR_COUNT] = {
    [RAX] = X86_R14, [RCX] = X86_RCX, [RDX] = X86_RDX, [RBX] = X86_RBX, [RSP] = X86_R15, [RBP] = X86_RBP,
    [RSI] = X86_RSI, [RDI] = X86_RDI, [R8] = X86_R8,   [R12] = X86_R9,  [R13] = X86_R13, [R14] = X86_R10,
    [R9] = JIT_IN_MEMORY, [R10] = JIT_IN_MEMORY, [R11] = JIT_IN_MEMORY, [R15] = JIT_IN_MEMORY, [RIP] = JIT_IN_MEMORY,
    [RZERO] = JIT_IN_MEMORY,
};

static const int kept_by_c[] = {X86_RBX, X86_RBP, X86_R12, X86_R13, X86_R14, X86_R15};

static void guest_registers(struct x86_asm *a, u32 op)
{
    for (int n = 0; n < 16; n++)
        if (jit_host_register[n] != JIT_IN_MEMORY)
            asm_rm(a, op | X86_W, jit_host_register[n], GPR_AT(n));
}

/* The flags from vcpu.cc to EFLAGS and RAX. */
static void load_flags(struct x86_asm *a)
{
    asm_rm(a, X86_MOVZX16, HOST_FLAGS, VCPU_AT(cc));
    asm_code(a, 0x04, 0x7f, 0x9e); /* add al, 0x7f; sahf */
    asm_rm(a, X86_MOVZX16, HOST_FLAGS, VCPU_AT(cc));
}

static void emit_enter(struct x86_asm *a)
{
    for (size_t n = 0; n < ARRAY_SIZE(kept_by_c); n++)
        asm_push(a, kept_by_c[n]);
    asm_push(a, X86_RAX); /* keeps the stack aligned for calls */
    asm_rm(a, X86_STORE | X86_W, X86_RSP, X86_AT(X86_RDI, offsetof(struct vcpu, host_stack)));
    asm_rm(a, X86_LEA | X86_W, HOST_VCPU, X86_AT(X86_RDI, (s32)VCPU_POINT));
    asm_rr(a, X86_LOAD | X86_W, T1, X86_RSI);
    guest_registers(a, X86_LOAD);
    load_flags(a);
    asm_rr(a, 0xff, 4, T1); /* jmp */
}

/* Back to C: the result in RAX. */
static void emit_leave_c(struct x86_asm *a)
{
    asm_rm(a, X86_LOAD | X86_W, X86_RSP, VCPU_AT(host_stack));
    asm_pop(a, X86_RCX);
    for (int n = (int)ARRAY_SIZE(kept_by_c) - 1; n >= 0; n--)
        asm_pop(a, kept_by_c[n]);
    asm_ret(a);
}

static void emit_exits(struct x86_asm *a, struct jit *j)
{
    j->exit[LEAVE_HOST] = asm_here(a);
    asm_code(a, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
    j->exit[LEAVE_RAX] = asm_here(a);
    asm_rm(a, X86_STORE | X86_66, HOST_FLAGS, VCPU_AT(cc));
    j->exit[LEAVE_MEMORY] = asm_here(a);
    guest_registers(a, X86_STORE);
    asm_rr(a, X86_LOAD, X86_RAX, T2);
    emit_leave_c(a);
}

/* Calls fn(c, T2) in C, with all guest registers in s.gpr. T1 has where that says to go on; else, where the jump leads whose displacement is
 * returned, RAX is 0. RBX, which C keeps, has the vCPU meanwhile. */
static u32 emit_ask_c(struct x86_asm *a, u64 fn)
{
    u32 leave;

    guest_registers(a, X86_STORE);
    asm_rm(a, X86_LEA | X86_W, X86_RDI, X86_AT(HOST_VCPU, -(s32)VCPU_POINT));
    asm_rr(a, X86_LOAD | X86_W, X86_RSI, T2);
    asm_rr(a, X86_LOAD | X86_W, X86_RBX, HOST_VCPU);
    asm_rm(a, X86_LOAD | X86_W, X86_RSP, VCPU_AT(host_stack));
    asm_mov_imm64(a, X86_RAX, fn);
    asm_rr(a, 0xff, 2, X86_RAX); /* call */
    asm_rr(a, X86_LOAD | X86_W, HOST_VCPU, X86_RBX);
    asm_rr(a, 0x85 | X86_W, X86_RAX, X86_RAX); /* test */
    leave = asm_jcc(a, X86_E, NULL);
    asm_rr(a, X86_LOAD | X86_W, T1, X86_RAX);
    return leave;
}

/* To T1, or out from where `leave` jumps. */
static void emit_answer(struct x86_asm *a, u32 leave)
{
    asm_rr(a, 0xff, 4, T1); /* jmp */
    asm_link(a, leave, asm_here(a));
    emit_leave_c(a);
}

static void emit_slow_thunk(struct x86_asm *a)
{
    u32 leave = emit_ask_c(a, (u64)(uintptr_t)jit_slow);

    guest_registers(a, X86_LOAD);
    load_flags(a);
    emit_answer(a, leave);
}

/* jit_look() changes no guest registers, but C the host's, and the vCPU was in RBX. */
static const int lost_by_looking[] = {RAX, RCX, RDX, RBX, RSI, RDI, R8, R12, R14};

static void emit_look_thunk(struct x86_asm *a)
{
    u32 leave;

    asm_rm(a, X86_STORE | X86_W, T1, GPR_AT(RIP));
    asm_rm(a, X86_STORE | X86_66, HOST_FLAGS, VCPU_AT(cc));
    leave = emit_ask_c(a, (u64)(uintptr_t)jit_look);
    for (size_t n = 0; n < ARRAY_SIZE(lost_by_looking); n++)
        asm_rm(a, X86_LOAD | X86_W, jit_host_register[lost_by_looking[n]], GPR_AT(lost_by_looking[n]));
    asm_rm(a, X86_MOVZX16, HOST_FLAGS, VCPU_AT(cc));
    emit_answer(a, leave);
}

void jit_emit_look_up(struct x86_asm *a)
{
    static_assert(sizeof(struct jit_jump) == 1 << 4 && !offsetof(struct jit_jumps, at), "as emitted");
    asm_rr(a, 0x69, T2, T1); /* imul by a constant: jit_jump_slot, times the size of an entry */
    asm_u32(a, JIT_JUMP_FACTOR);
    asm_ri(a, X86_AND, T2, (JIT_JUMPS - 1) << 4);
    asm_rm(a, X86_ADD | X86_W, T2, VCPU_AT(jumps));
    asm_rm(a, X86_CMP | X86_W, T1, X86_AT(T2, offsetof(struct jit_jump, rip)));
}

/* To the code of the entry in the jump table that T2 points at, whose address is in T1. */
static void emit_jump_thunk(struct x86_asm *a)
{
    asm_ri(a, X86_AND | X86_W, T1, (s32)PAGE_MASK);
    asm_rm(a, X86_STORE | X86_W, T1, VCPU_AT(page_base));
    asm_rm(a, 0xff, 4, X86_AT(T2, offsetof(struct jit_jump, code))); /* jmp [] */
}

/* A member of the TLB's or a victim's entry, T2 its offset, while a return address is on the stack. */
static struct x86_mem tlb_at(const struct vcpu *c, const void *entry, size_t member)
{
    return (struct x86_mem){.base = HOST_VCPU, .index = T2, .disp = (s32)((const u8 *)entry - (const u8 *)&c->s) + 8 + (s32)member};
}

static void emit_victim_thunk(struct x86_asm *a, const struct vcpu *c, int set, bool write)
{
    size_t tag = write ? offsetof(struct tlb_entry, write) : offsetof(struct tlb_entry, read);
    u32 miss;

    static_assert(sizeof(struct tlb_entry) == 1 << 5, "shifted by that");
    asm_rm(a, X86_XOR | X86_W, T1, tlb_at(c, c->tlb->set[set], tag)); /* the address again */
    asm_rr(a, X86_LOAD | X86_W, T2, T1);
    asm_rr(a, 0xc1 | X86_W, 5, T2); /* shr; from here on tlb_victim_index */
    asm_byte(a, PAGE_SHIFT + 1);
    asm_rr(a, 0x69, T2, T2); /* imul */
    asm_u32(a, TLB_VICTIM_FACTOR);
    asm_rr(a, 0xc1, 5, T2);
    asm_byte(a, 32 - (TLB_VICTIMS_SHIFT - 1));
    asm_rr(a, X86_0F | 0xba, 4, T1); /* bt */
    asm_byte(a, PAGE_SHIFT);
    asm_rr(a, 0x13, T2, T2); /* adc: twice, plus the bit */
    asm_rr(a, 0xc1, 4, T2); /* shl */
    asm_byte(a, 5);
    asm_rm(a, X86_XOR | X86_W, T1, tlb_at(c, &c->tlb->victim[set * TLB_VICTIMS], tag));
    asm_ri(a, X86_CMP | X86_W, T1, (s32)(PAGE_SIZE - JIT_VICTIM_SIZE));
    miss = asm_jcc(a, X86_A, NULL);
    asm_rm(a, X86_LOAD | X86_W, T2, tlb_at(c, &c->tlb->victim[set * TLB_VICTIMS], offsetof(struct tlb_entry, page)));
    asm_rm(a, X86_LEA | X86_W, T1, (struct x86_mem){.base = T1, .index = T2});
    asm_link(a, miss, asm_here(a));
    asm_ret(a);
}

/* A cell that was looked into in vain, in T2, and the linear address of its jump's target, in T1: what the jump table says. */
static void emit_cell_thunk(struct x86_asm *a, struct jit *j)
{
    u32 found, none;

    asm_rm(a, X86_STORE | X86_W, T2, VCPU_AT(scratch));
    jit_emit_look_up(a);
    found = asm_jcc(a, X86_E, NULL);
    asm_ri(a, X86_XOR | X86_W, T2, sizeof(struct jit_jump)); /* the other entry of the pair */
    asm_rm(a, X86_CMP | X86_W, T1, X86_AT(T2, offsetof(struct jit_jump, rip)));
    none = asm_jcc(a, X86_NE, NULL);
    asm_link(a, found, asm_here(a));
    asm_rm(a, X86_LOAD | X86_W, T2, X86_AT(T2, offsetof(struct jit_jump, code)));
    asm_ri(a, X86_AND | X86_W, T1, (s32)PAGE_MASK);
    asm_push(a, T1);
    asm_rm(a, X86_LOAD | X86_W, T1, X86_AT(X86_RSP, VCPU_DISP(scratch) + 8));
    asm_rm(a, X86_STORE | X86_W, T2, X86_AT(T1, offsetof(struct jit_cell, code)));
    asm_rm(a, X86_LOAD | X86_W, T2, X86_AT(X86_RSP, VCPU_DISP(page_base) + 8));
    asm_rm(a, X86_ADD | X86_W, T2, X86_AT(X86_RSP, VCPU_DISP(place) + 8));
    asm_rm(a, X86_STORE | X86_W, T2, X86_AT(T1, offsetof(struct jit_cell, place)));
    asm_pop(a, T2);
    asm_rm(a, X86_STORE | X86_W, T2, VCPU_AT(page_base));
    asm_rm(a, 0xff, 4, X86_AT(T1, offsetof(struct jit_cell, code))); /* jmp [] */
    asm_link(a, none, asm_here(a));
    asm_rm(a, X86_LOAD | X86_W, T2, VCPU_AT(scratch));
    asm_jmp(a, j->look);
}

/* As tsc_clock_read. RDTSC may run early or late beside the loads: a line that another processor has just drawn lies ahead of it then. */
static void emit_tsc_thunk(struct x86_asm *a, const struct vcpu *c)
{
    u32 none[3];

    asm_mov_imm64(a, T1, (u64)&c->group->tsc_clock);
    asm_rm(a, X86_LOAD | X86_W, T2, X86_AT(T1, offsetof(struct tsc_clock, number)));
    asm_rr(a, 0xf6, 0, T2); /* test r12b, imm8; a REX prefix is there */
    asm_byte(a, 1);
    none[0] = asm_jcc(a, X86_NE, NULL);
    asm_code(a, 0x0f, 0x31); /* rdtsc */
    asm_rr(a, 0xc1 | X86_W, 4, X86_RDX); /* shl */
    asm_byte(a, 32);
    asm_rr(a, X86_OR | X86_W, X86_RAX, X86_RDX);
    asm_rm(a, X86_SUB | X86_W, X86_RAX, X86_AT(T1, offsetof(struct tsc_clock, tsc)));
    asm_rm(a, X86_CMP | X86_W, X86_RAX, X86_AT(T1, offsetof(struct tsc_clock, length)));
    none[1] = asm_jcc(a, X86_AE, NULL);
    asm_rm(a, 0xf7 | X86_W, 4, X86_AT(T1, offsetof(struct tsc_clock, slope))); /* mul */
    asm_rr(a, X86_0F | 0xac | X86_W, X86_RDX, X86_RAX); /* shrd */
    asm_byte(a, 32);
    asm_rm(a, X86_ADD | X86_W, X86_RAX, X86_AT(T1, offsetof(struct tsc_clock, ns)));
    asm_rm(a, X86_CMP | X86_W, T2, X86_AT(T1, offsetof(struct tsc_clock, number)));
    none[2] = asm_jcc(a, X86_NE, NULL);
    asm_rm(a, X86_ADD | X86_W, X86_RAX, X86_AT(HOST_VCPU, VCPU_DISP(s.tsc_offset) + 8)); /* the return address is on the stack */
    asm_rr(a, X86_LOAD, jit_host_register[RAX], X86_RAX);
    asm_rr(a, X86_LOAD | X86_W, X86_RDX, X86_RAX);
    asm_rr(a, 0xc1 | X86_W, 5, X86_RDX); /* shr */
    asm_byte(a, 32);
    asm_code(a, 0xf8, 0xc3); /* clc; ret */
    for (size_t n = 0; n < ARRAY_SIZE(none); n++)
        asm_link(a, none[n], asm_here(a));
    asm_code(a, 0xf9, 0xc3); /* stc; ret */
}

void jit_thunks_emit(struct vcpu *c, struct x86_asm *a)
{
    struct jit *j = c->jit;

    j->enter = asm_here(a);
    emit_enter(a);
    emit_exits(a, j);
    j->slow = asm_here(a);
    emit_slow_thunk(a);
    j->look = asm_here(a);
    emit_look_thunk(a);
    j->jump = asm_here(a);
    emit_jump_thunk(a);
    j->cell = asm_here(a);
    emit_cell_thunk(a, j);
    j->tsc = asm_here(a);
    emit_tsc_thunk(a, c);
    static_assert(offsetof(struct vcpu, call_room) + 8 == VCPU_POINT, "RSP points there");
    for (int set = 0; set < MMU_SETS; set++)
        for (int write = 0; write < 2; write++) {
            j->victim[set][write] = asm_here(a);
            emit_victim_thunk(a, c, set, write);
        }
}

const u8 *jit_victim_thunk(const struct jit *j, int set, bool write)
{
    return j->victim[set][write];
}

const u8 *jit_exit_thunk(const struct jit *j, enum jit_exit_flags flags)
{
    return j->exit[flags];
}

const u8 *jit_slow_thunk(const struct jit *j)
{
    return j->slow;
}

u32 jit_enter(struct vcpu *c, const u8 *code)
{
    u32 link;

    window_stack_load(c);
    link = ((u32(*)(struct vcpu *, const u8 *))(uintptr_t)c->jit->enter)(c, code);
    jit_x87_settle(c);
    return link;
}
