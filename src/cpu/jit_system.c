/* Instructions of kernels that are worth code of their own: SWAPGS, RDFSBASE and its like, CLI, STI, PUSHF, RDPKRU, STAC, CLAC, reads
 * of control registers, RDTSC; and of programs: LAHF, SAHF, CLD, STD, reads of selectors. What is rare about them (privileges, interrupts that
 * wait, features that CR4 turns off) is left to the interpreter's handlers. */
#include "cpu/jit_emit.h"

#include "cpu/cpuid.h"
#include "cpu/decode.h"
#include "cpu/jit_cache.h"
#include "cpu/jit_jumps.h"
#include "cpu/msr.h"

#define M(name) ZYDIS_MNEMONIC_##name

static int set_of(const struct jit_emit *e)
{
    return (int)(e->b->key & JIT_KEY_SET) >> JIT_KEY_SET_SHIFT;
}

static bool has_feature(const struct jit_emit *e, enum cpu_feature feature)
{
    return has(e->c, feature);
}

/* The TLB set after STAC or CLAC: known where it changes; where it does not, nothing has to be done but to set the flag. */
static bool ac_known(const struct jit_emit *e, const struct jit_insn *i)
{
    return has_feature(e, FEAT_SMAP) && e->b->key & JIT_KEY_RING0 && i->offset + i->zi.length < PAGE_SIZE;
}

/* A register that MOV reads in 64-bit code: where it is; base X86_NONE: it is no such instruction. Selectors have 16 bits. */
static struct x86_mem special_register(const struct jit_insn *i)
{
    switch (i->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER && !i->mem ? i->op[1].reg.value : ZYDIS_REGISTER_NONE) {
    case ZYDIS_REGISTER_CR0: return VCPU_AT(s.cr0);
    case ZYDIS_REGISTER_CR2: return VCPU_AT(s.cr2);
    case ZYDIS_REGISTER_CR3: return VCPU_AT(s.cr3);
    case ZYDIS_REGISTER_CR4: return VCPU_AT(s.cr4);
    case ZYDIS_REGISTER_ES ... ZYDIS_REGISTER_GS:
        return X86_AT(HOST_VCPU, VCPU_DISP(s.seg_sel) + (s32)(i->op[1].reg.value - ZYDIS_REGISTER_ES) * 2);
    default: return X86_AT(X86_NONE, 0);
    }
}

static bool is_selector(const ZydisDecodedOperand *op)
{
    return op->reg.value >= ZYDIS_REGISTER_ES && op->reg.value <= ZYDIS_REGISTER_GS;
}

static bool reads_special(const struct jit_emit *e, const struct jit_insn *i)
{
    return e->code_size == 8 && special_register(i).base != X86_NONE &&
           (is_selector(&i->op[1]) ? i->zi.operand_width >= 32 : (e->b->key & JIT_KEY_RING0) != 0);
}

/* The interpreter would not read the same, so that where both are compared it reads for both. */
static bool reads_tsc(const struct jit_emit *e, const struct jit_insn *i)
{
    return has_feature(e, i->zi.mnemonic == M(RDTSC) ? FEAT_TSC : FEAT_RDTSCP) && !e->c->trial &&
           e->c->group->tsc_khz == TSC_KHZ_DEFAULT;
}

enum jit_kind system_kind(const struct jit_emit *e, const struct jit_insn *i)
{
    bool ring0 = e->b->key & JIT_KEY_RING0, whole = i->zi.operand_width == e->code_size * 8;

    switch (i->zi.mnemonic) {
    case M(CLI): case M(STI): return ring0 ? JIT_SYSTEM : JIT_INTERPRET;
    case M(CLD): case M(STD): return JIT_SYSTEM;
    case M(MOV): return reads_special(e, i) ? JIT_SYSTEM : JIT_INTERPRET;
    case M(RDTSC): case M(RDTSCP): return reads_tsc(e, i) ? JIT_SYSTEM : JIT_INTERPRET;
    case M(RDPKRU): return has_feature(e, FEAT_PKU) ? JIT_SYSTEM : JIT_INTERPRET;
    case M(LAHF): case M(SAHF): return e->code_size != 8 || has_feature(e, FEAT_LAHF64) ? JIT_SYSTEM : JIT_INTERPRET;
    case M(PUSHFD): case M(PUSHFQ): return whole ? JIT_SYSTEM : JIT_INTERPRET;
    case M(SWAPGS): return ring0 && e->code_size == 8 && has_feature(e, FEAT_LM) ? JIT_SYSTEM : JIT_INTERPRET;
    case M(RDFSBASE): case M(RDGSBASE): case M(WRFSBASE): case M(WRGSBASE):
        return e->code_size == 8 && has_feature(e, FEAT_FSGSBASE) ? JIT_SYSTEM : JIT_INTERPRET;
    case M(STAC): case M(CLAC): return ac_known(e, i) ? JIT_SET_AC : JIT_INTERPRET;
    default: return can_emit_string(e, i) ? JIT_STRING : JIT_INTERPRET;
    }
}

/* The stub of the slow path that jumps from here take. */
static struct jit_stub *stub_new(struct jit_emit *e, const struct jit_insn *i, int cond)
{
    struct jit_stub *stub = jit_stub_new(e);

    *stub = (struct jit_stub){.site = jit_site_new(e, i, JIT_SITE_INSN), .flags = (u8)(e->flags & ~(u32)FLAGS_HOST),
                              .recipe = e->recipe, .x87 = e->x87_offset};
    stub->jump = asm_jcc(&e->hot, cond, NULL);
    return stub;
}

static void rflags_set(struct jit_emit *e, u32 bits)
{
    asm_rm(&e->hot, 0x81, 1, VCPU_AT(s.rflags)); /* or */
    asm_u32(&e->hot, bits);
}

static void rflags_clear(struct jit_emit *e, u32 bits)
{
    asm_rm(&e->hot, 0x81, 4, VCPU_AT(s.rflags)); /* and */
    asm_u32(&e->hot, ~bits);
}

static void emit_cli(struct jit_emit *e)
{
    flags_clobber(e);
    rflags_clear(e, FLAG_IF);
}

/* The instruction behind it is in this block, and interrupts are looked at between blocks: that is the shadow. One that waits
 * already must come right behind that instruction, which may be all the time that it is given. */
static void emit_sti(struct jit_emit *e, const struct jit_insn *i)
{
    struct jit_stub *stub;

    if (i == e->insn + e->count - 1) {
        emit_interpret(e, i, true);
        return;
    }
    flags_clobber(e);
    asm_rm(&e->hot, X86_MOVZX8, T1, VCPU_AT(event_held));
    asm_rm(&e->hot, X86_OR, T1, VCPU_AT(attention));
    stub = stub_new(e, i, X86_NE);
    rflags_set(e, FLAG_IF);
    jit_site_done(e, jit_site_at(e->j, stub->site));
}

/* The flags in RAX are in the order of the guest's AH. */
static void emit_lahf(struct jit_emit *e)
{
    struct x86_asm *a = &e->hot;

    flags_to_rax(e);
    flags_clobber(e);
    asm_rr(a, X86_LOAD, T1, HOST_FLAGS);
    asm_ri(a, X86_AND, T1, (FLAGS_ARITH & 0xff) << 8);
    asm_ri(a, X86_OR, T1, FLAG_1 << 8);
    asm_ri(a, X86_AND | X86_W, jit_host_register[RAX], ~0xff00);
    asm_rr(a, X86_OR | X86_W, jit_host_register[RAX], T1);
}

static void emit_sahf(struct jit_emit *e)
{
    struct x86_asm *a = &e->hot;

    flags_to_rax(e); /* AL, which has OF, stays */
    asm_rr(a, X86_LOAD, T1, jit_host_register[RAX]);
    asm_ri(a, X86_AND, T1, 0xff00);
    asm_rr(a, X86_MOVZX8, HOST_FLAGS, HOST_FLAGS);
    asm_rr(a, X86_OR, HOST_FLAGS, T1);
    e->flags = FLAGS_RAX;
    e->recipe = (struct jit_recipe){0};
}

static void emit_rdpkru(struct jit_emit *e, const struct jit_insn *i)
{
    struct jit_stub *off, *not_zero;

    flags_clobber(e);
    asm_rm(&e->hot, 0xf7, 0, VCPU_AT(s.cr4)); /* test */
    asm_u32(&e->hot, CR4_PKE);
    off = stub_new(e, i, X86_E);
    asm_rr(&e->hot, 0x85, X86_RCX, X86_RCX); /* test */
    not_zero = stub_new(e, i, X86_NE);
    asm_rm(&e->hot, X86_LOAD, jit_host_register[RAX], VCPU_AT(s.pkru));
    asm_rr(&e->hot, X86_XOR, X86_RDX, X86_RDX);
    jit_site_done(e, jit_site_at(e->j, off->site));
    jit_site_done(e, jit_site_at(e->j, not_zero->site));
}

/* The slow path is taken where CR4.TSD matters and where a line ends: see tsc.h. */
static void emit_rdtsc(struct jit_emit *e, const struct jit_insn *i)
{
    struct x86_asm *a = &e->hot;
    struct jit_stub *denied = NULL, *stub;

    flags_clobber(e);
    flags_free_rax(e);
    slot_forget(e);
    if (!(e->b->key & JIT_KEY_RING0)) {
        asm_rm(a, 0xf6, 0, VCPU_AT(s.cr4)); /* test byte */
        asm_byte(a, CR4_TSD);
        denied = stub_new(e, i, X86_NE);
    }
    if (i->zi.mnemonic == M(RDTSCP))
        asm_code(a, 0x0f, 0xae, 0xe8); /* lfence */
    asm_call(a, e->j->tsc);
    stub = stub_new(e, i, X86_B);
    if (i->zi.mnemonic == M(RDTSCP))
        asm_rm(a, X86_LOAD, X86_RCX, VCPU_AT(s.msr_tsc_aux));
    if (denied)
        jit_site_done(e, jit_site_at(e->j, denied->site));
    jit_site_done(e, jit_site_at(e->j, stub->site));
}

static void emit_swapgs(struct jit_emit *e)
{
    asm_rm(&e->hot, X86_LOAD | X86_W, T1, VCPU_AT(s.seg_base[SEG_GS]));
    asm_rm(&e->hot, X86_LOAD | X86_W, T2, VCPU_AT(s.msr_kernel_gs_base));
    asm_rm(&e->hot, X86_STORE | X86_W, T1, VCPU_AT(s.msr_kernel_gs_base));
    asm_rm(&e->hot, X86_STORE | X86_W, T2, VCPU_AT(s.seg_base[SEG_GS]));
    asm_rm(&e->hot, X86_STORE | X86_W, T2, VCPU_AT(lin_base[SEG_GS]));
}

/* RFLAGS as PUSHF shows them to vcpu.scratch: the arithmetic flags are in RAX as LAHF; SETO AL left them. */
static void emit_flags_image(struct jit_emit *e)
{
    struct x86_asm *a = &e->hot;

    flags_to_rax(e);
    flags_clobber(e);
    asm_rorx(a, T2, HOST_FLAGS, 8, false); /* OF is bit 24 now */
    asm_rr(a, X86_LOAD, T1, T2);
    asm_ri(a, X86_AND, T2, FLAGS_ARITH & 0xff);
    asm_rr(a, 0xc1, 5, T1); /* shr */
    asm_byte(a, 24 - 11);
    asm_ri(a, X86_AND, T1, FLAG_OF);
    asm_rr(a, X86_OR, T2, T1);
    asm_rm(a, X86_LOAD, T1, VCPU_AT(s.rflags));
    asm_ri(a, X86_AND, T1, (s32)~(FLAGS_ARITH | FLAG_VM | FLAG_RF));
    asm_rr(a, X86_OR, T2, T1);
    asm_rm(a, X86_STORE | X86_W, T2, VCPU_AT(scratch));
}

static void emit_pushf(struct jit_emit *e, const struct jit_insn *i)
{
    emit_flags_image(e);
    emit_push_scratch(e, i);
}

static void emit_base_read(struct jit_emit *e, const struct jit_insn *i, struct x86_mem base)
{
    int guest = register_offset(i->op[0].reg.value) / 8, host = jit_host_register[guest];
    u32 wide = i->zi.operand_width == 64 ? X86_W : 0;

    asm_rm(&e->hot, X86_LOAD | wide, host == JIT_IN_MEMORY ? T1 : host, base);
    if (host == JIT_IN_MEMORY)
        asm_rm(&e->hot, X86_STORE | X86_W, T1, GPR_AT(guest));
}

static void emit_special_read(struct jit_emit *e, const struct jit_insn *i)
{
    int guest = register_offset(i->op[0].reg.value) / 8, host = jit_host_register[guest];
    u32 load = is_selector(&i->op[1]) ? X86_MOVZX16 : X86_LOAD | X86_W;

    asm_rm(&e->hot, load, host == JIT_IN_MEMORY ? T1 : host, special_register(i));
    if (host == JIT_IN_MEMORY)
        asm_rm(&e->hot, X86_STORE | X86_W, T1, GPR_AT(guest));
}

/* The new base in T1; the slow path is taken where it is not canonical. */
static void emit_base_write(struct jit_emit *e, const struct jit_insn *i, struct x86_mem base, struct x86_mem linear)
{
    int guest = register_offset(i->op[0].reg.value) / 8, host = jit_host_register[guest];
    u32 wide = i->zi.operand_width == 64 ? X86_W : 0;
    struct x86_asm *a = &e->hot;
    struct jit_stub *stub;

    if (host == JIT_IN_MEMORY)
        asm_rm(a, X86_LOAD | wide, T1, GPR_AT(guest));
    else
        asm_rr(a, X86_LOAD | wide, T1, host);
    asm_rr(a, X86_LOAD | X86_W, T2, T1);
    asm_rr(a, 0xc1 | X86_W, 7, T2); /* sar */
    asm_byte(a, 47);
    asm_ri(a, X86_ADD | X86_W, T2, 1);
    asm_ri(a, X86_CMP | X86_W, T2, 1);
    stub = stub_new(e, i, X86_A);
    asm_rm(a, X86_STORE | X86_W, T1, base);
    asm_rm(a, X86_STORE | X86_W, T1, linear);
    jit_site_done(e, jit_site_at(e->j, stub->site));
}

static void emit_base(struct jit_emit *e, const struct jit_insn *i)
{
    bool fs = i->zi.mnemonic == M(RDFSBASE) || i->zi.mnemonic == M(WRFSBASE);
    struct x86_mem base = fs ? VCPU_AT(s.seg_base[SEG_FS]) : VCPU_AT(s.seg_base[SEG_GS]);
    struct x86_mem linear = fs ? VCPU_AT(lin_base[SEG_FS]) : VCPU_AT(lin_base[SEG_GS]);
    struct jit_stub *stub;

    flags_clobber(e);
    asm_rm(&e->hot, 0xf7, 0, VCPU_AT(s.cr4)); /* test */
    asm_u32(&e->hot, CR4_FSGSBASE);
    stub = stub_new(e, i, X86_E);
    if (i->zi.mnemonic == M(RDFSBASE) || i->zi.mnemonic == M(RDGSBASE))
        emit_base_read(e, i, base);
    else
        emit_base_write(e, i, base, linear);
    jit_site_done(e, jit_site_at(e->j, stub->site));
}

void emit_system(struct jit_emit *e, const struct jit_insn *i)
{
    switch (i->zi.mnemonic) {
    case M(CLI): emit_cli(e); break;
    case M(STI): emit_sti(e, i); break;
    case M(CLD): flags_clobber(e); rflags_clear(e, FLAG_DF); break;
    case M(STD): flags_clobber(e); rflags_set(e, FLAG_DF); break;
    case M(LAHF): emit_lahf(e); break;
    case M(SAHF): emit_sahf(e); break;
    case M(RDPKRU): emit_rdpkru(e, i); break;
    case M(SWAPGS): emit_swapgs(e); break;
    case M(RDTSC): case M(RDTSCP): emit_rdtsc(e, i); break;
    case M(MOV): emit_special_read(e, i); break;
    case M(PUSHF): case M(PUSHFD): case M(PUSHFQ): emit_pushf(e, i); break;
    default: emit_base(e, i); break;
    }
}

/* Makes the jump table that of another TLB set, if the one that was selected last for it is for the same kind of code and good in
 * every address space; else the slow path is taken, and the run loop selects one. */
static void emit_jumps_of(struct jit_emit *e, const struct jit_insn *i, int set)
{
    u32 key = ((u32)e->b->key & ~(u32)JIT_KEY_SET) | (u32)set << JIT_KEY_SET_SHIFT;
    struct x86_asm *a = &e->hot;

    asm_rm(a, X86_LOAD | X86_W, T1, VCPU_AT(jumps_of[set]));
    asm_rm(a, 0x81, 7, X86_AT(T1, (s32)offsetof(struct jit_jumps, key))); /* cmp */
    asm_u32(a, key);
    stub_new(e, i, X86_NE);
    asm_rm(a, 0x80, 7, X86_AT(T1, (s32)offsetof(struct jit_jumps, local))); /* cmp byte */
    asm_byte(a, 0);
    stub_new(e, i, X86_NE);
    asm_rm(a, X86_STORE | X86_W, T1, VCPU_AT(jumps));
    asm_rm(a, X86_LOAD | X86_W, T1, X86_AT(T1, (s32)offsetof(struct jit_jumps, place)));
    asm_rm(a, X86_STORE | X86_W, T1, VCPU_AT(place));
}

/* STAC leaves SMAP's set, CLAC goes there if CR4.SMAP is set; the block goes on in another one, which uses that set. */
void emit_set_ac(struct jit_emit *e, const struct jit_insn *i)
{
    bool on = i->zi.mnemonic == M(STAC);
    int set = on ? MMU_SUPERVISOR : MMU_SMAP;

    flags_clobber(e);
    if (!on && set_of(e) == MMU_SUPERVISOR) {
        asm_rm(&e->hot, 0xf7, 0, VCPU_AT(s.cr4)); /* test */
        asm_u32(&e->hot, CR4_SMAP);
        stub_new(e, i, X86_E);
    }
    if (set != set_of(e))
        emit_jumps_of(e, i, set);
    if (on)
        rflags_set(e, FLAG_AC);
    else
        rflags_clear(e, FLAG_AC);
    asm_rm(&e->hot, 0xc6, 0, VCPU_AT(mmu_index)); /* mov byte */
    asm_byte(&e->hot, (u8)set);
    emit_goto_in_set(e, i->offset + i->zi.length, set);
}
