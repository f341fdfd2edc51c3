/* Vector and x87 instructions: which handler runs a decoded one, and the handlers for the common case, a memory
 * operand that lies in one page of RAM. SDM vol. 1 ch. 8–15, vol. 2 §2.4 (exception classes).
 *
 * The host's units hold the guest's registers; a handler checks what control registers forbid, finds the memory
 * operand, and calls the stub (vector_stub.c). Rarer shapes: vector_memory.c (page crossings, devices, masks),
 * vector_gather.c, x87_state.c and xsave_image.c (state images).
 *
 * Approximations (RCPPS, RSQRTPS) and x87 transcendentals are the host's, so results differ between hosts as they do
 * between real machines. */
#include "cpu/vector.h"

#include <string.h>

#include "cpu/access.h"
#include "cpu/ferr.h"
#include "cpu/vector_op.h"
#include "cpu/xstate.h"

_Noreturn void vector_refuse(struct vcpu *c, enum vector_class class)
{
    bool ud = false;

    switch (class) {
    case VC_MMX: ud = c->s.cr0 & CR0_EM; break;
    case VC_SSE: ud = c->s.cr0 & CR0_EM || !(c->s.cr4 & CR4_OSFXSR); break;
    case VC_XSAVE: ud = !(c->s.cr4 & CR4_OSXSAVE); break;
    case VC_AVX:
    case VC_AVX512: { /* only CR0.TS left to blame: #NM */
        u64 wanted = class == VC_AVX ? 6 : 0xe6;

        ud = !(c->s.cr4 & CR4_OSXSAVE) || (c->s.xcr0 & wanted) != wanted || !protected_mode(c) || v86_mode(c);
        break;
    }
    default: break;
    }
    raise_fault(c, ud ? EXC_UD : EXC_NM);
}

#define FLATTENED static inline __attribute__((always_inline))

FLATTENED void run_register(struct vcpu *c, const struct insn *i, enum vector_class class)
{
    const struct vector_op *op = i->aux;
    u32 fsw;

    vector_check(c, class);
    ext_load(c);
    fsw = op->run(NULL, c);
    if (class == VC_X87)
        x87_track(c, i, op, fsw);
    if (class == VC_X87_CONTROL)
        ferr_settle(c);
}

FLATTENED void run_memory(struct vcpu *c, const struct insn *i, enum vector_class class, bool write)
{
    const struct vector_op *op = i->aux;
    const struct tlb_entry *t;
    u64 gva;
    u32 fsw;

    vector_check(c, class);
    gva = (c->lin_base[i->seg] + insn_ea(c, i)) & c->lin_mask;
    t = tlb_entry(c, c->mmu_index, gva);
    if (likely(((gva + op->size - 1) & PAGE_MASK) == (write ? t->write : t->read) && !(c->seg_check >> i->seg & 1))) {
        ext_load(c);
        fsw = op->run(tlb_hva(t, gva), c);
    } else {
        fsw = vector_run_slow(c, i, op);
    }
    if (class == VC_X87)
        x87_track(c, i, op, fsw);
    if (class == VC_X87_CONTROL)
        ferr_settle(c);
}

#define HANDLERS(name, class)                                                                    \
    static void name##_register(struct vcpu *c, const struct insn *i) { run_register(c, i, class); } \
    static void name##_load(struct vcpu *c, const struct insn *i) { run_memory(c, i, class, false); } \
    static void name##_store(struct vcpu *c, const struct insn *i) { run_memory(c, i, class, true); }
#define HANDLER_ROW(name) {name##_register, name##_load, name##_store}

HANDLERS(x87, VC_X87)
HANDLERS(x87_control, VC_X87_CONTROL)
HANDLERS(mmx, VC_MMX)
HANDLERS(sse, VC_SSE)
HANDLERS(avx, VC_AVX)
HANDLERS(avx512, VC_AVX512)

static void fwait(struct vcpu *c, const struct insn *i)
{
    run_register(c, i, VC_FWAIT);
}

static insn_fn *const handlers[VC_COUNT][3] = {
    [VC_X87] = HANDLER_ROW(x87), [VC_X87_CONTROL] = HANDLER_ROW(x87_control), [VC_FWAIT] = {fwait},
    [VC_MMX] = HANDLER_ROW(mmx), [VC_SSE] = HANDLER_ROW(sse), [VC_AVX] = HANDLER_ROW(avx),
    [VC_AVX512] = HANDLER_ROW(avx512),
};

static void fninit(struct vcpu *c, const struct insn *i)
{
    run_register(c, i, VC_X87_CONTROL);
    c->s.fip = c->s.fdp = 0;
    c->s.fcs = c->s.fds = c->s.fop = 0;
}

bool vector_insn(const struct insn_source *src)
{
    return vector_isa_find(src);
}

static bool waits_for_x87(enum vector_class class, ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTSW: return false;
    default: return class == VC_X87 || class == VC_X87_CONTROL || class == VC_MMX;
    }
}

/* MASKMOVQ and MASKMOVDQU store to [DS:rDI], which no operand byte says. */
static void implicit_operand(struct insn *i, const ZydisDecodedOperand *mem)
{
    if (!mem || mem->encoding != ZYDIS_OPERAND_ENCODING_NONE)
        return;
    i->mem = true;
    i->base = RDI * 8;
    i->index = RZERO * 8;
    i->scale = 0;
    i->disp = 0;
}

/* An instruction that is one stub. */
static void choose_stub(struct vcpu *c, struct insn *i, const struct insn_source *src, enum vector_class class)
{
    const ZydisDecodedOperand *mem = vector_memory_operand(src);
    struct vector_op op;

    memset(&op, 0, sizeof(op));
    op.waits = waits_for_x87(class, src->zi->mnemonic);
    op.x87 = class == VC_X87;
    if (mem)
        vector_memory_describe(&op, src);
    implicit_operand(i, mem);
    /* as FOP has it; x87 has no immediates */
    i->imm = (src->zi->opcode & 7u) << 8 | src->bytes[src->zi->raw.modrm.offset];
    i->aux = (void *)vector_stub(c, src, &op, class);
    if (i->aux)
        i->fn = handlers[class][!mem ? 0 : op.write ? 2 : 1];
    if (i->fn && src->zi->mnemonic == ZYDIS_MNEMONIC_FNINIT)
        i->fn = fninit;
}

static bool is_gather(const struct insn_source *src)
{
    const ZydisDecodedOperand *mem = vector_memory_operand(src);

    return mem && mem->mem.type == ZYDIS_MEMOP_TYPE_VSIB;
}

void choose_vector(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    const struct vector_isa *isa = vector_isa_find(src);

    i->fn = NULL;
    if (!isa || !vector_isa_shown(c, isa, src))
        return;
    i->fn = vector_state_handler(src->zi->mnemonic);
    if (i->fn || choose_x87_state(c, i, src))
        return;
    if (is_gather(src))
        choose_gather(c, i, src);
    else
        choose_stub(c, i, src, vector_class_of(isa, src));
}
