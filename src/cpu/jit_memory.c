/* Memory operands in translated code: effective addresses, and the TLB check that turns them into pointers.
 *
 * The entry is that of the address's page number; the tag exclusive-or the address is the offset in the page if the entry is
 * the page's, and larger than any offset if not (see cpu/tlb.h), so one comparison sees misses, slow pages and accesses that
 * cross into the next page. */
#include "cpu/jit_emit.h"
#include "cpu/jit_segment.h"

#include "cpu/decode.h"
#include "cpu/window.h"

static int guest_register(ZydisRegister r)
{
    return register_offset(r) / 8;
}

/* The host register that holds a guest register, loaded into `spare` if it has none. */
static int host_register(struct jit_emit *e, ZydisRegister r, int spare)
{
    int n = guest_register(r), host = e->host[n];

    if (host != JIT_IN_MEMORY)
        return host;
    asm_rm(&e->hot, X86_LOAD | X86_W, spare, GPR_AT(n));
    return spare;
}

/* The effective address of [base + index * scale + disp]. */
void emit_effective_to(struct jit_emit *e, const struct jit_insn *i, const ZydisDecodedOperandMem *mem, int to, u32 wide)
{
    bool no_base = i->zi.raw.sib.offset && i->zi.raw.modrm.mod == 0 && i->zi.raw.sib.base == 5;
    struct x86_mem ea = {.base = X86_NONE, .index = X86_NONE, .disp = (s32)mem->disp.value};

    if (no_base) /* Zydis 4.0 takes R13D for one; see decode.c */
        ea.disp = (s32)i->zi.raw.disp.value;
    if (mem->base == ZYDIS_REGISTER_RIP || mem->base == ZYDIS_REGISTER_EIP) {
        asm_rm(&e->hot, X86_LOAD | X86_W, T1, VCPU_AT(page_base));
        ea.base = T1;
        ea.disp += i->offset + i->zi.length;
    } else if (mem->base != ZYDIS_REGISTER_NONE && !no_base) {
        ea.base = host_register(e, mem->base, T1);
    }
    if (mem->index != ZYDIS_REGISTER_NONE) {
        ea.index = host_register(e, mem->index, T2);
        ea.scale = __builtin_ctz(mem->scale | 0x100);
    }
    if (ea.base != X86_NONE && ea.index == X86_NONE && !ea.disp) {
        if (ea.base != to || !wide)
            asm_rr(&e->hot, X86_LOAD | wide, to, ea.base);
    } else if (ea.base == X86_NONE && ea.index == X86_NONE) {
        asm_rr(&e->hot, 0xc7 | wide, 0, to); /* mov r, imm32 */
        asm_u32(&e->hot, (u32)ea.disp);
    } else {
        asm_rm(&e->hot, X86_LEA | wide, to, ea);
    }
}

void emit_effective(struct jit_emit *e, const struct jit_insn *i, const ZydisDecodedOperandMem *mem)
{
    emit_effective_to(e, i, mem, T1, i->zi.address_width == 64 ? X86_W : 0);
    if (i->zi.address_width == 16)
        asm_rr(&e->hot, X86_MOVZX16, T1, T1);
}

void emit_add_base(struct jit_emit *e, int seg)
{
    u32 wide = e->code_size == 8 ? X86_W : 0;
    struct x86_mem base = X86_AT(HOST_VCPU, VCPU_DISP(lin_base) + seg * 8);

    if (e->windows) { /* flags stay where they are */
        asm_rm(&e->hot, X86_LOAD | X86_W, T2, base);
        asm_rm(&e->hot, X86_LEA | wide, T1, (struct x86_mem){.base = T1, .index = T2});
        return;
    }
    flags_clobber(e);
    asm_rm(&e->hot, X86_ADD | wide, T1, base);
}

void emit_linear(struct jit_emit *e, const struct jit_insn *i, const ZydisDecodedOperandMem *mem)
{
    emit_effective(e, i, mem);
    if (mem->segment != ZYDIS_REGISTER_FS && mem->segment != ZYDIS_REGISTER_GS)
        return;
    emit_add_base(e, mem->segment == ZYDIS_REGISTER_FS ? SEG_FS : SEG_GS);
}

static struct x86_mem tlb_at(const struct jit_emit *e, size_t member)
{
    u64 tlb = (u64)e->c->tlb - (u64)&e->c->s;
    int set = (int)(e->b->key & JIT_KEY_SET) >> JIT_KEY_SET_SHIFT;

    return (struct x86_mem){.base = HOST_VCPU, .index = T2,
                            .disp = (s32)(tlb + offsetof(struct tlb, set) + (u64)set * sizeof(e->c->tlb->set[0]) + member)};
}

/* A page that is not in the window faults, and the slow path finds the flags where they are now. */
static void window_stub(struct jit_emit *e, const struct jit_insn *i)
{
    if (is_prefetch(i))
        return;
    *jit_stub_new(e) = (struct jit_stub){.site = jit_site_new(e, i, JIT_SITE_INSN), .flags = (u8)e->flags,
                                            .recipe = e->recipe, .x87 = e->x87_offset};
}

/* In 64-bit code, by a base that has a host register, and perhaps an index. */
static bool by_base(const struct jit_emit *e, const struct jit_insn *i, const ZydisDecodedOperandMem *mem)
{
    bool no_base = i->zi.raw.sib.offset && i->zi.raw.modrm.mod == 0 && i->zi.raw.sib.base == 5;

    if (e->code_size != 8 || i->zi.address_width != 64 || no_base || mem->segment == ZYDIS_REGISTER_FS ||
        mem->segment == ZYDIS_REGISTER_GS || i->zi.raw.prefix_count > 2)
        return false;
    return mem->base != ZYDIS_REGISTER_NONE && mem->base != ZYDIS_REGISTER_RIP &&
           e->host[guest_register(mem->base)] != JIT_IN_MEMORY;
}

bool window_base_alone(const struct jit_emit *e, const struct jit_insn *i, const ZydisDecodedOperandMem *mem)
{
    return mem->index == ZYDIS_REGISTER_NONE && by_base(e, i, mem);
}

bool window_base_small(const struct jit_emit *e, const struct jit_insn *i, const ZydisDecodedOperandMem *mem)
{
    return i->small_index && by_base(e, i, mem);
}

static bool rip_alone(const struct jit_emit *e, const struct jit_insn *i, const ZydisDecodedOperandMem *mem)
{
    s64 disp = (s64)mem->disp.value + i->offset + i->zi.length;

    return mem->base == ZYDIS_REGISTER_RIP && i->zi.address_width == 64 && mem->segment != ZYDIS_REGISTER_FS &&
           mem->segment != ZYDIS_REGISTER_GS && i->zi.raw.prefix_count <= 2 && disp == (s32)disp;
}

static bool absolute(const struct jit_insn *i, const ZydisDecodedOperandMem *mem)
{
    return mem->base == ZYDIS_REGISTER_NONE && mem->index == ZYDIS_REGISTER_NONE && i->zi.address_width == 64 &&
           mem->segment != ZYDIS_REGISTER_FS && mem->segment != ZYDIS_REGISTER_GS && i->zi.raw.prefix_count <= 2;
}

/* In a slot that is known. */
static struct x86_mem window_absolute(struct jit_emit *e, const struct jit_insn *i, s32 disp)
{
    u64 slot = (u64)(s64)disp >> WINDOW_SHIFT & (ARRAY_SIZE(e->c->window_table) - 1);

    asm_rm(&e->hot, X86_LOAD | X86_W, T2, X86_AT(HOST_VCPU, VCPU_DISP(window_table) + (s32)slot * 8));
    window_stub(e, i);
    return X86_AT(T2, disp);
}

static struct x86_mem window_at(struct jit_emit *e, const struct jit_insn *i, int reg, s32 disp)
{
    int slot = X86_NONE;

    if (e->code_size == 8 && reg != jit_host_register[RSP])
        slot = slot_of(e, i, reg);
    window_stub(e, i);
    if (slot == X86_NONE)
        return stack_at(reg, disp);
    return (struct x86_mem){.base = reg, .index = slot, .disp = disp};
}

static_assert(JIT_SMALL * 8 < MIB(1), "guards have room for it, beside the displacement and what RSP walks or a slot is kept for: see WINDOW_GUARD");

/* An index that is small does no more than a displacement: the slot is the base's, and known before the index is. */
static struct x86_mem window_indexed(struct jit_emit *e, const struct jit_insn *i, const ZydisDecodedOperandMem *mem)
{
    int reg = e->host[guest_register(mem->base)], slot = X86_NONE;

    emit_effective(e, i, mem);
    if (reg != jit_host_register[RSP])
        slot = slot_of(e, i, reg);
    window_stub(e, i);
    if (slot == X86_NONE)
        return stack_at(T1, 0);
    return (struct x86_mem){.base = T1, .index = slot};
}

struct x86_mem emit_memory(struct jit_emit *e, const struct jit_insn *i, const ZydisDecodedOperandMem *mem, u32 size, bool write)
{
    struct x86_mem at;

    if (e->segmented)
        return segment_memory(e, i, mem, size, write);
    if (loop_operand(e, i, &at)) {
        window_stub(e, i);
        return at;
    }
    if (i->window && window_base_alone(e, i, mem))
        return window_at(e, i, e->host[guest_register(mem->base)], (s32)mem->disp.value);
    if (i->window && window_base_small(e, i, mem))
        return window_indexed(e, i, mem);
    if (i->window && rip_alone(e, i, mem)) {
        asm_rm(&e->hot, X86_LOAD | X86_W, T1, VCPU_AT(page_base));
        return window_at(e, i, T1, (s32)mem->disp.value + i->offset + i->zi.length);
    }
    if (share_has(e, i))
        return share_at(e, i, e->host[guest_register(mem->base)]);
    if (i->window && e->code_size == 8 && absolute(i, mem))
        return window_absolute(e, i, (s32)mem->disp.value);
    emit_linear(e, i, mem);
    return emit_checked(e, i, size, write);
}

struct x86_mem emit_based(struct jit_emit *e, const struct jit_insn *i, int reg, s32 disp, u32 size, bool write)
{
    u32 wide = e->code_size == 8 ? X86_W : 0;

    if (i->window && e->code_size == 8)
        return window_at(e, i, reg, disp);
    if (share_has(e, i))
        return share_at(e, i, reg);
    asm_rm(&e->hot, X86_LEA | wide, T1, X86_AT(reg, disp));
    return emit_checked(e, i, size, write);
}

struct x86_mem emit_checked(struct jit_emit *e, const struct jit_insn *i, u32 size, bool write)
{
    if (i->window)
        return window_at(e, i, T1, 0);
    emit_check(e, i, size, write);
    return X86_AT(T1, 0);
}

int emit_spare(struct jit_emit *e, struct x86_mem *at)
{
    if (at->base == T2)
        return T1;
    if (at->index != T2)
        return T2;
    if (at->base == T1) {
        asm_rm(&e->hot, X86_LEA | X86_W, T1, *at);
        *at = X86_AT(T1, 0);
        return T2;
    }
    return T1;
}

u32 emit_tlb(struct jit_emit *e, u32 size, bool write)
{
    struct x86_asm *a = &e->hot;
    u32 refused;

    static_assert(sizeof(struct tlb_entry) == 1 << (PAGE_SHIFT - 7), "the shift below makes byte offsets");
    asm_rorx(a, T2, T1, 7, false);
    asm_ri(a, X86_AND, T2, (TLB_ENTRIES - 1) << 5);
    asm_rm(a, X86_XOR | X86_W, T1, tlb_at(e, write ? offsetof(struct tlb_entry, write) : offsetof(struct tlb_entry, read)));
    asm_ri(a, X86_CMP | X86_W, T1, (s32)(PAGE_SIZE - size));
    refused = asm_jcc(a, X86_A, NULL);
    asm_rm(a, X86_ADD | X86_W, T1, tlb_at(e, offsetof(struct tlb_entry, page)));
    flags_clobber(e);
    return refused;
}

void emit_check(struct jit_emit *e, const struct jit_insn *i, u32 size, bool write)
{
    struct jit_stub *stub = jit_stub_new(e);

    *stub = (struct jit_stub){.site = jit_site_new(e, i, JIT_SITE_INSN), .flags = (u8)(e->flags & ~(u32)FLAGS_HOST),
                              .recipe = e->recipe, .x87 = e->x87_offset};
    stub->jump = emit_tlb(e, size, write);
    stub->victim = size <= JIT_VICTIM_SIZE ? e->hot.len : 0;
    stub->write = write;
}
