/* Memory operands of sequences: see seq_writer.h. Where they are, most of them in a few cache lines, some over the edges of pages; and how an
 * instruction is made to reach them. */
#include "seq_writer.h"

#include <string.h>

/* Where an operand of `size` bytes may be. */
u64 operand_address(struct writer *w, u64 size, bool aligned)
{
    u64 offset = aligned && !one_in(w->r, 16) ? 0 : below(w->r, 64);

    switch (below(w->r, 64)) {
    case 0: return DATA_VA + DATA_WRITABLE + below(w->r, 0xf00 / 64) * 64; /* read-only */
    case 1: return one_in(w->r, 4) ? DATA_VA + (one_in(w->r, 2) ? DATA_SIZE : 0) - below(w->r, size + 1) : HOT_AREA;
    case 2: case 3: case 4:
        if (!aligned)
            return DATA_VA + 0x1000 * (1 + below(w->r, 2)) - below(w->r, size + 1);
        return HOT_AREA;
    case 5 ... 20: return MIN(DATA_VA + 0x200 + below(w->r, 0x2c00 / 64) * 64 + offset, OPERANDS_END);
    default: return HOT_AREA + below(w->r, 4) * 64 + offset;
    }
}

static u64 segment_base(const struct insn_case *c, ZydisRegister seg)
{
    int n = seg >= ZYDIS_REGISTER_ES && seg <= ZYDIS_REGISTER_GS ? seg - ZYDIS_REGISTER_ES : SEG_DS;

    if (c->code_size != 8)
        return layout_base(c->s.sel[n]);
    return n == SEG_FS ? c->s.fs_base : n == SEG_GS ? c->s.gs_base : 0;
}

/* The segment of an operand with that base register. */
static ZydisRegister segment_used(const struct decoded *d, const ZydisDecodedOperand *mem, int base)
{
    if (d->zi.attributes & ZYDIS_ATTRIB_HAS_SEGMENT)
        return mem->mem.segment;
    return base == RSP || base == RBP ? ZYDIS_REGISTER_SS : ZYDIS_REGISTER_DS;
}

/* operand_choose() for 16-bit addresses. */
static bool choose_narrow(struct writer *w, struct piece *p, const ZydisDecodedOperand *mem, const struct decoded *d)
{
    static const struct { s8 base, index; } forms[] = {{RBX, RSI}, {RBX, RDI}, {RBP, RSI}, {RBP, RDI}, {RSI, -1}, {RDI, -1}, {RBP, -1}, {RBX, -1}};
    const struct insn_case *c = &w->q->c;
    int modrm = d->zi.raw.modrm.offset, reg = c->bytes[modrm] & 0x38, form = (int)below(w->r, 8);
    int tail = d->zi.raw.disp.size ? d->zi.raw.disp.offset + d->zi.raw.disp.size / 8 : modrm + 1;
    bool kept = w->kept >> forms[form].base & 1 && (forms[form].index < 0 || w->kept >> forms[form].index & 1);
    u64 target = operand_address(w, mem->size / 8, mem->size >= 128 || one_in(w->r, 2));
    u32 disp = (u32)(target - segment_base(c, segment_used(d, mem, kept ? forms[form].base : RAX)));

    if (disp > 0xffff && !one_in(w->r, 40))
        return false;
    if (kept)
        disp -= (u32)c->s.gpr[forms[form].base] + (forms[form].index >= 0 ? (u32)c->s.gpr[forms[form].index] : 0);
    p->len = (u8)modrm;
    memcpy(p->bytes, c->bytes, (size_t)modrm);
    append(p, (const u8[]){(u8)(kept ? 0x80 | reg | form : reg | 6)}, 1);
    p->operand_at = p->len;
    p->operand_narrow = true;
    p->operand_size = (u8)MIN(mem->size / 8u, 255u);
    p->operand = (u32)target;
    append(p, &(u16){(u16)disp}, 2);
    if (p->len + d->zi.length - tail > INSN_MAX)
        return false;
    append(p, c->bytes + tail, (size_t)(d->zi.length - tail));
    return true;
}

/* How the prefixes can extend the register fields of an instruction. */
static bool extends(const struct decoded *d)
{
    return d->zi.raw.rex.offset || d->zi.attributes & ZYDIS_ATTRIB_HAS_REX || d->zi.raw.vex.size == 3 ||
           d->zi.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
}

static void extend(u8 *bytes, const struct decoded *d, bool base, bool index)
{
    u8 *p;

    if (d->zi.attributes & ZYDIS_ATTRIB_HAS_REX) {
        p = bytes + d->zi.raw.rex.offset;
        *p = (u8)((*p & ~3) | base | index << 1);
    } else if (extends(d)) {
        p = bytes + (d->zi.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ? d->zi.raw.evex.offset : d->zi.raw.vex.offset) + 1;
        *p = (u8)((*p & ~0x60) | !base << 5 | !index << 6);
    }
}

/* Makes the ModRM operand of c's instruction one with a register that holds an address and a displacement. False: that cannot be. */
bool operand_choose(struct writer *w, struct piece *p, const ZydisDecodedOperand *mem, const struct decoded *d)
{
    const struct insn_case *c = &w->q->c;
    int modrm = d->zi.raw.modrm.offset, reg = c->bytes[modrm] & 0x38, scale = (int)below(w->r, 4);
    int base = one_in(w->r, 4) ? RSP : w->pointer[below(w->r, POINTERS)], index = one_in(w->r, 3) ? w->index : -1;
    int tail = d->zi.raw.disp.size ? d->zi.raw.disp.offset + d->zi.raw.disp.size / 8
                                   : d->zi.raw.sib.offset ? d->zi.raw.sib.offset + 1 : modrm + 1;
    bool aligned = mem->size >= 128 || one_in(w->r, 2), none = one_in(w->r, 8);
    u64 target = operand_address(w, mem->size / 8, aligned), disp;

    if (mem->mem.type == ZYDIS_MEMOP_TYPE_VSIB || mem->mem.type == ZYDIS_MEMOP_TYPE_MIB)
        return false;
    if (d->zi.address_width == 16)
        return choose_narrow(w, p, mem, d);
    if ((base >= 8 || index >= 8) && !extends(d))
        base = RSP, index = -1;
    disp = target - segment_base(c, wide(w) ? mem->mem.segment : segment_used(d, mem, none ? RAX : base));
    if (!none)
        disp -= c->s.gpr[base] + (index >= 0 ? c->s.gpr[index] << scale : 0);
    if (d->zi.address_width == 64 && disp != (u64)(s64)(s32)disp)
        return false;
    p->len = (u8)modrm;
    memcpy(p->bytes, c->bytes, (size_t)modrm);
    extend(p->bytes, d, !none && base >= 8, !none && index >= 8);
    if (none && wide(w) && one_in(w->r, 2) && mem->mem.segment != ZYDIS_REGISTER_FS && mem->mem.segment != ZYDIS_REGISTER_GS && d->zi.address_width == 64) {
        append(p, (const u8[]){(u8)(reg | 5)}, 1);
        refer(p, FIX_DATA, p->len, 0);
        p->plus = (u32)target;
    } else if (none && wide(w)) {
        append(p, (const u8[]){(u8)(reg | 4), 0x25}, 2);
    } else if (none) {
        append(p, (const u8[]){(u8)(reg | 5)}, 1);
    } else if (index >= 0 || (base & 7) == RSP) {
        append(p, (const u8[]){(u8)(0x80 | reg | 4), (u8)(scale << 6 | (index >= 0 ? index & 7 : 4) << 3 | (base & 7))}, 2);
    } else {
        append(p, (const u8[]){(u8)(0x80 | reg | (base & 7))}, 1);
    }
    p->operand_at = p->len;
    p->operand_size = (u8)MIN(mem->size / 8u, 255u);
    p->operand = (u32)target;
    append32(p, (u32)disp);
    if (p->len + d->zi.length - tail > INSN_MAX)
        return false;
    append(p, c->bytes + tail, (size_t)(d->zi.length - tail));
    return true;
}
