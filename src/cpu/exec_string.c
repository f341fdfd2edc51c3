/* String instructions, with REP. SDM vol. 2; resumption vol. 1 §7.3.9.
 *
 * An iteration completes or changes nothing; registers are up to date after each, so a fault or an interrupt in between leaves a
 * state from which the instruction resumes. MOVS and STOS upwards run in pieces that lie within a page, by the host's own
 * REP MOVS and REP STOS, which also settles what overlapping operands do. */
#include "cpu/access.h"
#include "cpu/cpuid.h"
#include "cpu/exec.h"
#include "cpu/port.h"
#include "cpu/vector.h"

static u64 index_get(const struct vcpu *c, const struct insn *i, int r)
{
    return reg_read(c, r * 8, i->addrsize);
}

static void index_add(struct vcpu *c, const struct insn *i, int r, u64 bytes)
{
    reg_write(c, r * 8, i->addrsize, index_get(c, i, r) + bytes);
}

/* What one iteration adds to an index. */
static u64 stride(const struct vcpu *c, const struct insn *i)
{
    return c->s.rflags & FLAG_DF ? -(u64)i->opsize : i->opsize;
}

static u64 source_linear(struct vcpu *c, const struct insn *i)
{
    return seg_linear(c, i->seg, index_get(c, i, RSI), i->opsize, false);
}

static u64 destination_linear(struct vcpu *c, const struct insn *i, bool write)
{
    return seg_linear(c, SEG_ES, index_get(c, i, RDI), i->opsize, write);
}

static void movs(struct vcpu *c, const struct insn *i)
{
    u64 val = mem_read(c, source_linear(c, i), i->opsize);

    mem_write(c, destination_linear(c, i, true), i->opsize, val);
    index_add(c, i, RSI, stride(c, i));
    index_add(c, i, RDI, stride(c, i));
}

static void stos(struct vcpu *c, const struct insn *i)
{
    mem_write(c, destination_linear(c, i, true), i->opsize, c->s.gpr[RAX]);
    index_add(c, i, RDI, stride(c, i));
}

static void lods(struct vcpu *c, const struct insn *i)
{
    reg_write(c, RAX * 8, i->opsize, mem_read(c, source_linear(c, i), i->opsize));
    index_add(c, i, RSI, stride(c, i));
}

/* a - b, for the flags. */
static void compare(struct vcpu *c, u64 a, u64 b, int size)
{
    u16 flags;
    int shift = 64 - size * 8;

    asm("cmp %[b], %[a]\n\tlahf\n\tseto %%al" : "=&a"(flags) : [a] "r"(a << shift), [b] "r"(b << shift) : "cc");
    /* shifted left, AF and PF are not the operand's own */
    asm("cmp %b[b], %b[a]\n\tlahf" : "=&a"(a) : [a] "r"(a), [b] "r"(b) : "cc");
    c->cc = (u16)((flags & ~((FLAG_PF | FLAG_AF) << 8)) | (a & (FLAG_PF | FLAG_AF) << 8));
}

static void cmps(struct vcpu *c, const struct insn *i)
{
    u64 b = mem_read(c, destination_linear(c, i, false), i->opsize); /* the first to fault, if both do */
    u64 a = mem_read(c, source_linear(c, i), i->opsize);

    compare(c, a, b, i->opsize);
    index_add(c, i, RSI, stride(c, i));
    index_add(c, i, RDI, stride(c, i));
}

static void scas(struct vcpu *c, const struct insn *i)
{
    u64 b = mem_read(c, destination_linear(c, i, false), i->opsize);

    compare(c, c->s.gpr[RAX], b, i->opsize);
    index_add(c, i, RDI, stride(c, i));
}

static void ins(struct vcpu *c, const struct insn *i)
{
    u16 port = REG16(c, RDX * 8);
    u64 lin;

    io_permission_check(c, port, i->opsize);
    lin = destination_linear(c, i, true);
    mem_probe_write(c, lin, i->opsize, c->mmu_index);
    mem_write(c, lin, i->opsize, port_read(c, port, i->opsize));
    index_add(c, i, RDI, stride(c, i));
}

static void outs(struct vcpu *c, const struct insn *i)
{
    u16 port = REG16(c, RDX * 8);
    u64 val;

    io_permission_check(c, port, i->opsize);
    val = mem_read(c, source_linear(c, i), i->opsize);
    port_write(c, port, i->opsize, val);
    index_add(c, i, RSI, stride(c, i));
}

/* How many elements from lin upwards lie within its page. */
static u64 in_page(u64 lin, int size)
{
    return (PAGE_SIZE - (lin & ~PAGE_MASK)) / (u64)size;
}

static bool may_run_pieces(const struct vcpu *c, const struct insn *i, int seg)
{
    return !(c->s.rflags & FLAG_DF) && !(__atomic_load_n(&c->attention, __ATOMIC_RELAXED) & ATTN_STEP) &&
           i->addrsize != 2 && c->mmu_index != MMU_ALIGN && !((c->seg_check >> SEG_ES | c->seg_check >> seg) & 1);
}

/* An index that would wrap at 4 GiB ends a piece. */
static u64 before_wrap(const struct vcpu *c, const struct insn *i, int r, u64 count)
{
    u64 left = (0x100000000 - (u32)c->s.gpr[r]) / i->opsize;

    return i->addrsize == 4 ? MIN(count, left) : count;
}

/* Up to `count` iterations of MOVS or STOS at once; 0: do one the plain way. */
static u64 movs_piece(struct vcpu *c, const struct insn *i, u64 count)
{
    u64 from, to, n;
    u8 *src, *dst;

    if (!may_run_pieces(c, i, i->seg))
        return 0;
    from = source_linear(c, i);
    to = destination_linear(c, i, true);
    n = MIN(count, MIN(in_page(from, i->opsize), in_page(to, i->opsize)));
    n = before_wrap(c, i, RSI, before_wrap(c, i, RDI, n));
    if (!n)
        return 0;
    src = mem_direct(c, from, (u32)n * i->opsize, false);
    dst = mem_direct(c, to, (u32)n * i->opsize, true);
    if (!src || !dst)
        return 0;
    count = n;
    switch (i->opsize) {
    case 1: asm volatile("rep movsb" : "+S"(src), "+D"(dst), "+c"(count) : : "memory"); break;
    case 2: asm volatile("rep movsw" : "+S"(src), "+D"(dst), "+c"(count) : : "memory"); break;
    case 4: asm volatile("rep movsl" : "+S"(src), "+D"(dst), "+c"(count) : : "memory"); break;
    default: asm volatile("rep movsq" : "+S"(src), "+D"(dst), "+c"(count) : : "memory"); break;
    }
    index_add(c, i, RSI, n * i->opsize);
    index_add(c, i, RDI, n * i->opsize);
    return n;
}

static u64 stos_piece(struct vcpu *c, const struct insn *i, u64 count)
{
    u64 to, n;
    u8 *dst;

    if (!may_run_pieces(c, i, SEG_ES))
        return 0;
    to = destination_linear(c, i, true);
    n = before_wrap(c, i, RDI, MIN(count, in_page(to, i->opsize)));
    dst = n ? mem_direct(c, to, (u32)n * i->opsize, true) : NULL;
    if (!dst)
        return 0;
    count = n;
    switch (i->opsize) {
    case 1: asm volatile("rep stosb" : "+D"(dst), "+c"(count) : "a"(c->s.gpr[RAX]) : "memory"); break;
    case 2: asm volatile("rep stosw" : "+D"(dst), "+c"(count) : "a"(c->s.gpr[RAX]) : "memory"); break;
    case 4: asm volatile("rep stosl" : "+D"(dst), "+c"(count) : "a"(c->s.gpr[RAX]) : "memory"); break;
    default: asm volatile("rep stosq" : "+D"(dst), "+c"(count) : "a"(c->s.gpr[RAX]) : "memory"); break;
    }
    index_add(c, i, RDI, n * i->opsize);
    return n;
}

typedef u64 piece_fn(struct vcpu *c, const struct insn *i, u64 count);

/* Whether an iteration has overwritten decoded code, if block_end was i + 2 before. */
static bool overwrote_code(const struct vcpu *c, const struct insn *i)
{
    return c->block_end == i + 1;
}

/* Whether it writes near itself and goes on in the next page: what is there of it is not marked as code, so that it has to be fetched again for
 * each iteration. Pieces end with a page. */
static bool near_itself(const struct vcpu *c, const struct insn *i)
{
    u64 at = c->lin_base[SEG_CS] + insn_rip(c, i), to = c->lin_base[SEG_ES] + index_get(c, i, RDI);

    return unlikely((at & ~PAGE_MASK) + i->len > PAGE_SIZE) && ((to - at + 2 * PAGE_SIZE) & c->lin_mask) < 4 * PAGE_SIZE;
}

/* An interrupt or another event waits, or this instruction may have become another: come back to where it is afterwards. It counts when it ends,
 * once, however often it is begun. */
static bool interrupted(struct vcpu *c, const struct insn *i)
{
    if (!__atomic_load_n(&c->attention, __ATOMIC_RELAXED) && !overwrote_code(c, i) && !near_itself(c, i))
        return false;
    c->s.gpr[RIP] -= i->len;
    c->retired--;
    if (c->s.dr[7] & 0xff) { /* a code breakpoint here was passed already: SDM vol. 3 §17.3.1.1 */
        c->s.rflags |= FLAG_RF;
        __atomic_or_fetch(&c->attention, ATTN_STEP, __ATOMIC_RELAXED);
    }
    c->block_end = i + 1;
    return true;
}

/* 32-bit addresses in 64-bit code: Intel's processors cut the count to 32 bits whatever comes of the instruction. */
static void count_cut(struct vcpu *c, const struct insn *i)
{
    if (i->addrsize == 4 && code64(c) && !c->group->model->amd)
        c->s.gpr[RCX] = (u32)c->s.gpr[RCX];
}

/* And MOVS and STOS cut their pointers. */
static void pointers_cut(struct vcpu *c, const struct insn *i, bool source)
{
    if (i->addrsize != 4 || !code64(c) || c->group->model->amd)
        return;
    c->s.gpr[RDI] = (u32)c->s.gpr[RDI];
    if (source)
        c->s.gpr[RSI] = (u32)c->s.gpr[RSI];
}

static void repeat(struct vcpu *c, const struct insn *i, insn_fn *one, piece_fn *piece)
{
    const struct insn *end = c->block_end;

    count_cut(c, i);
    c->block_end = i + 2;
    for (;;) {
        u64 count = index_get(c, i, RCX), n;

        if (!count)
            break;
        n = piece && !near_itself(c, i) ? piece(c, i, count) : 0;
        if (!n) {
            one(c, i);
            n = 1;
        }
        reg_write(c, RCX * 8, i->addrsize, count - n);
        if (count != n && interrupted(c, i))
            return;
    }
    if (!overwrote_code(c, i))
        c->block_end = end;
}

/* CMPS and SCAS also end on ZF: REPE goes on while it is set, REPNE while it is clear. A fault on the way leaves the flags as
 * they were before the instruction (SDM vol. 2, REP). */
static void repeat_while(struct vcpu *c, const struct insn *i, insn_fn *one)
{
    const struct insn *end = c->block_end;
    bool want = i->rep == 0xf3;
    u16 before = c->cc;

    count_cut(c, i);
    c->block_end = i + 2;
    for (;;) {
        u64 count = index_get(c, i, RCX);

        if (!count)
            break;
        c->cc = before;
        one(c, i);
        reg_write(c, RCX * 8, i->addrsize, count - 1);
        if (count == 1 || !!(c->cc & FLAG_ZF << 8) != want)
            break;
        if (interrupted(c, i))
            return;
    }
    if (!overwrote_code(c, i))
        c->block_end = end;
}

static void rep_movs(struct vcpu *c, const struct insn *i)
{
    pointers_cut(c, i, true);
    repeat(c, i, movs, movs_piece);
}
static void rep_stos(struct vcpu *c, const struct insn *i)
{
    pointers_cut(c, i, false);
    repeat(c, i, stos, stos_piece);
}
static void rep_lods(struct vcpu *c, const struct insn *i) { repeat(c, i, lods, NULL); }
static void rep_ins(struct vcpu *c, const struct insn *i)
{
    io_permission_check(c, REG16(c, RDX * 8), i->opsize); /* even if nothing is to be done */
    repeat(c, i, ins, NULL);
}
static void rep_outs(struct vcpu *c, const struct insn *i)
{
    io_permission_check(c, REG16(c, RDX * 8), i->opsize);
    repeat(c, i, outs, NULL);
}
static void rep_cmps(struct vcpu *c, const struct insn *i) { repeat_while(c, i, cmps); }
static void rep_scas(struct vcpu *c, const struct insn *i) { repeat_while(c, i, scas); }

static const struct {
    ZydisMnemonic mnemonic;
    insn_fn *one, *rep;
    u8 size;
} strings[] = {
    {ZYDIS_MNEMONIC_MOVSB, movs, rep_movs, 1}, {ZYDIS_MNEMONIC_MOVSW, movs, rep_movs, 2},
    {ZYDIS_MNEMONIC_MOVSD, movs, rep_movs, 4}, {ZYDIS_MNEMONIC_MOVSQ, movs, rep_movs, 8},
    {ZYDIS_MNEMONIC_STOSB, stos, rep_stos, 1}, {ZYDIS_MNEMONIC_STOSW, stos, rep_stos, 2},
    {ZYDIS_MNEMONIC_STOSD, stos, rep_stos, 4}, {ZYDIS_MNEMONIC_STOSQ, stos, rep_stos, 8},
    {ZYDIS_MNEMONIC_LODSB, lods, rep_lods, 1}, {ZYDIS_MNEMONIC_LODSW, lods, rep_lods, 2},
    {ZYDIS_MNEMONIC_LODSD, lods, rep_lods, 4}, {ZYDIS_MNEMONIC_LODSQ, lods, rep_lods, 8},
    {ZYDIS_MNEMONIC_CMPSB, cmps, rep_cmps, 1}, {ZYDIS_MNEMONIC_CMPSW, cmps, rep_cmps, 2},
    {ZYDIS_MNEMONIC_CMPSD, cmps, rep_cmps, 4}, {ZYDIS_MNEMONIC_CMPSQ, cmps, rep_cmps, 8},
    {ZYDIS_MNEMONIC_SCASB, scas, rep_scas, 1}, {ZYDIS_MNEMONIC_SCASW, scas, rep_scas, 2},
    {ZYDIS_MNEMONIC_SCASD, scas, rep_scas, 4}, {ZYDIS_MNEMONIC_SCASQ, scas, rep_scas, 8},
    {ZYDIS_MNEMONIC_INSB, ins, rep_ins, 1},    {ZYDIS_MNEMONIC_INSW, ins, rep_ins, 2},
    {ZYDIS_MNEMONIC_INSD, ins, rep_ins, 4},    {ZYDIS_MNEMONIC_OUTSB, outs, rep_outs, 1},
    {ZYDIS_MNEMONIC_OUTSW, outs, rep_outs, 2}, {ZYDIS_MNEMONIC_OUTSD, outs, rep_outs, 4},
};

/* MOVSD and CMPSD name SSE instructions too. */
static bool string_form(const struct insn_source *src)
{
    return src->zi->meta.category == ZYDIS_CATEGORY_STRINGOP || src->zi->meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
}

void choose_string(struct vcpu *c, struct insn *i, const struct insn_source *src)
{
    if (!string_form(src)) {
        if (vector_insn(src))
            choose_vector(c, i, src);
        return;
    }
    for (size_t n = 0; n < ARRAY_SIZE(strings); n++) {
        if (strings[n].mnemonic != src->zi->mnemonic)
            continue;
        i->opsize = strings[n].size;
        i->fn = i->rep ? strings[n].rep : strings[n].one;
    }
    i->seg = string_segment(src->zi);
}
