/* State images in guest memory: FXSAVE, FXRSTOR, XSAVE, XSAVEOPT, XSAVEC, XRSTOR. SDM vol. 1 §10.5 (FXSAVE area),
 * ch. 13.
 *
 * The image in s.xsave is the source and the destination; the host normalizes what a guest loads (reserved bits of
 * FCW, say) because restoring ends with ext_load(). Outside 64-bit mode only vector registers 0 to 7 are saved and
 * restored. XSAVEOPT always takes the state for modified. Left out: XSAVES and XRSTORS, which no CPU model shows. */
#include <string.h>

#include "cpu/access.h"
#include "cpu/vector_op.h"
#include "cpu/xstate.h"

#define COMPACTED BIT(63)
#define MXCSR_RESET 0x1f80u
#define FXSAVE_SIZE 512

enum { AT_FCW = 0, AT_FSW = 2, AT_FTW = 4, AT_FOP = 6, AT_FIP = 8, AT_FCS = 12, AT_FDP = 16, AT_FDS = 20, AT_MXCSR = 24,
       AT_MXCSR_MASK = 28, AT_ST = 32, AT_XMM = 160 };

/* A run of bytes of the area in guest memory, and where it is here. */
struct piece {
    u32 at, len;
    u8 *here;
};
struct pieces {
    struct piece piece[12];
    int count;
};

static void piece_add(struct pieces *p, u32 at, u32 len, u8 *here)
{
    assert(p->count < (int)ARRAY_SIZE(p->piece));
    p->piece[p->count++] = (struct piece){at, len, here};
}

static u64 piece_linear(struct vcpu *c, const struct insn *i, const struct piece *p, bool write)
{
    u64 ea = insn_ea(c, i) + p->at;

    return seg_linear(c, i->seg, i->addrsize == 8 ? ea : (u32)ea, p->len, write);
}

static void piece_write(struct vcpu *c, u64 gva, const struct piece *p)
{
    u8 *ram = mem_direct(c, gva, p->len, true);

    if (ram)
        memcpy(ram, p->here, p->len);
    else
        mem_write_bytes(c, gva, p->here, p->len);
}

static void piece_read(struct vcpu *c, u64 gva, const struct piece *p)
{
    const u8 *ram = mem_direct(c, gva, p->len, false);

    if (ram)
        memcpy(p->here, ram, p->len);
    else
        mem_read_bytes(c, gva, p->here, p->len);
}

static void pieces_probe(struct vcpu *c, const struct insn *i, const struct pieces *p)
{
    for (int n = 0; n < p->count; n++)
        mem_probe_write(c, piece_linear(c, i, &p->piece[n], true), p->piece[n].len, c->mmu_index);
}

static void pieces_write(struct vcpu *c, const struct insn *i, const struct pieces *p)
{
    pieces_probe(c, i, p);
    for (int n = 0; n < p->count; n++)
        piece_write(c, piece_linear(c, i, &p->piece[n], true), &p->piece[n]);
}

static void pieces_read(struct vcpu *c, const struct insn *i, const struct pieces *p)
{
    for (int n = 0; n < p->count; n++)
        piece_read(c, piece_linear(c, i, &p->piece[n], false), &p->piece[n]);
}

static void check_alignment(struct vcpu *c, const struct insn *i, u32 align)
{
    u64 gva = insn_linear(c, i, 1, false);

    if (!(gva & (align - 1)))
        return;
    mem_check_alignment(c, gva, 4);
    raise_gp0(c);
}

/* How much of a component an access outside 64-bit mode reaches: registers 0 to 7. */
static u32 component_reach(const struct vcpu *c, int n)
{
    if (code64(c))
        return ext_components[n].size;
    switch (n) {
    case XCOMP_SSE:
    case XCOMP_AVX:
    case XCOMP_ZMM_HI256: return ext_components[n].size / 2;
    case XCOMP_HI16_ZMM: return 0;
    default: return ext_components[n].size;
    }
}

static u32 load32(const u8 *p)
{
    u32 val;

    memcpy(&val, p, 4);
    return val;
}

static u64 load64(const u8 *p)
{
    u64 val;

    memcpy(&val, p, 8);
    return val;
}

/* ---- the x87 pointers: 64-bit offsets, or 32-bit offsets with selectors ---- */

static void pointers_store(struct vcpu *c, bool wide)
{
    u8 *area = ext_area(c);
    bool no_selectors = has(c, FEAT_ZERO_FCS_FDS);
    u64 ip = wide ? c->s.fip : (u32)c->s.fip | (u64)(no_selectors ? 0 : c->s.fcs) << 32;
    u64 dp = wide ? c->s.fdp : (u32)c->s.fdp | (u64)(no_selectors ? 0 : c->s.fds) << 32;

    memcpy(area + AT_FOP, &c->s.fop, 2);
    memcpy(area + AT_FIP, &ip, 8);
    memcpy(area + AT_FDP, &dp, 8);
}

/* What the image in s.xsave may lack before it goes to the guest. */
static void image_prepare(struct vcpu *c, bool wide)
{
    u32 mask = ext_mxcsr_mask();

    ext_save(c);
    pointers_store(c, wide);
    memcpy(ext_area(c) + AT_MXCSR_MASK, &mask, 4);
}

static void pointers_load(struct vcpu *c, const u8 *area, bool wide)
{
    u64 ip = load64(area + AT_FIP), dp = load64(area + AT_FDP);

    c->s.fop = (u16)(load32(area + AT_FTW) >> 16) & 0x7ff;
    c->s.fip = wide ? ext_canonical(ip) : (u32)ip;
    c->s.fdp = wide ? dp : (u32)dp;
    c->s.fcs = wide ? 0 : (u16)(ip >> 32);
    c->s.fds = wide ? 0 : (u16)(dp >> 32);
}

/* ---- FXSAVE, FXRSTOR ---- */

static void fxsave(struct vcpu *c, const struct insn *i, bool wide)
{
    struct pieces p = {.count = 0};

    vector_check(c, VC_X87_CONTROL);
    check_alignment(c, i, 16);
    image_prepare(c, wide);
    piece_add(&p, 0, FXSAVE_SIZE, ext_area(c)); /* all of it must be writable, though the end stays as it is */
    pieces_probe(c, i, &p);
    p.piece[0].len = AT_XMM + component_reach(c, XCOMP_SSE);
    pieces_write(c, i, &p);
}

static void check_mxcsr(struct vcpu *c, u32 mxcsr)
{
    if (mxcsr & ~ext_mxcsr_mask())
        raise_gp0(c);
}

/* The x87 registers of an area; FTW in the abridged form. */
static void x87_restore(struct vcpu *c, const u8 *area, bool wide)
{
    u8 *to = ext_area(c);

    memcpy(to, area, AT_FOP);
    to[AT_FTW + 1] = 0;
    for (int n = 0; n < 8; n++)
        memcpy(to + AT_ST + 16 * n, area + AT_ST + 16 * n, 10);
    pointers_load(c, area, wide);
}

static void x87_init(struct vcpu *c)
{
    u8 initial[AT_XMM] = {0x7f, 0x03};

    x87_restore(c, initial, true);
}

static void mxcsr_restore(struct vcpu *c, u32 mxcsr)
{
    memcpy(ext_area(c) + AT_MXCSR, &mxcsr, 4);
}

static void fxrstor(struct vcpu *c, const struct insn *i, bool wide)
{
    struct pieces p = {.count = 0};
    u8 in[FXSAVE_SIZE];

    vector_check(c, VC_X87_CONTROL);
    check_alignment(c, i, 16);
    ext_save(c);
    piece_add(&p, 0, sizeof(in), in);
    pieces_read(c, i, &p);
    check_mxcsr(c, load32(in + AT_MXCSR));
    x87_restore(c, in, wide);
    mxcsr_restore(c, load32(in + AT_MXCSR));
    memcpy(ext_area(c) + AT_XMM, in + AT_XMM, component_reach(c, XCOMP_SSE));
    *ext_xstate_bv(c) |= BIT(XCOMP_X87) | BIT(XCOMP_SSE);
    ext_load(c);
}

static void exec_fxsave(struct vcpu *c, const struct insn *i) { fxsave(c, i, false); }
static void exec_fxsave64(struct vcpu *c, const struct insn *i) { fxsave(c, i, true); }
static void exec_fxrstor(struct vcpu *c, const struct insn *i) { fxrstor(c, i, false); }
static void exec_fxrstor64(struct vcpu *c, const struct insn *i) { fxrstor(c, i, true); }

/* ---- XSAVE ---- */

static u64 requested(const struct vcpu *c)
{
    return ((u32)c->s.gpr[RAX] | c->s.gpr[RDX] << 32) & c->s.xcr0;
}

/* Where component n is in an area whose components are `layout` (compacted) or in the standard format (0). */
static u32 component_offset(u64 layout, int n)
{
    u32 at = XSAVE_EXTENDED;

    if (!layout)
        return ext_components[n].offset;
    for (int k = XCOMP_AVX; k < n; k++)
        if (layout >> k & 1)
            at += ext_components[k].size;
    return at;
}

static void byte_probe(struct vcpu *c, const struct insn *i, u32 at, bool write)
{
    u64 gva = piece_linear(c, i, &(struct piece){.at = at, .len = 1}, write);

    if (write)
        mem_probe_write(c, gva, 1, c->mmu_index);
    else
        mem_probe_read(c, gva, 1, c->mmu_index);
}

/* Faults as the hardware does, which tries the last byte of the area for the components wanted, then the first if the
 * legacy region is concerned, whether or not it will access them. */
static void area_probe(struct vcpu *c, const struct insn *i, u64 components, u64 layout, bool write)
{
    u64 legacy = layout ? components & layout & 3 : components & 7; /* of the standard format AVX wants MXCSR */
    u32 last = XSAVE_EXTENDED - 1;

    for (int n = XCOMP_AVX; n < XCOMP_COUNT; n++)
        if (components >> n & (layout ? layout >> n : 1) & 1)
            last = MAX(last, component_offset(layout, n) + ext_components[n].size - 1);
    byte_probe(c, i, last, write);
    if (legacy)
        byte_probe(c, i, 0, write);
}

static u8 *component_here(struct vcpu *c, int n, u64 *pkru)
{
    if (n != XCOMP_PKRU)
        return ext_area(c) + ext_components[n].offset;
    *pkru = c->s.pkru;
    return (u8 *)pkru;
}

static void pieces_extended(struct vcpu *c, struct pieces *p, u64 components, u64 layout, u64 *pkru)
{
    for (int n = XCOMP_AVX; n < XCOMP_COUNT; n++)
        if (components >> n & 1 && component_reach(c, n))
            piece_add(p, component_offset(layout, n), component_reach(c, n), component_here(c, n, pkru));
}

static void pieces_legacy(struct vcpu *c, struct pieces *p, u64 components, bool mxcsr, u8 *area)
{
    if (components & BIT(XCOMP_X87)) {
        piece_add(p, 0, AT_MXCSR, area);
        piece_add(p, AT_ST, AT_XMM - AT_ST, area + AT_ST);
    }
    if (mxcsr)
        piece_add(p, AT_MXCSR, 8, area + AT_MXCSR);
    if (components & BIT(XCOMP_SSE))
        piece_add(p, AT_XMM, component_reach(c, XCOMP_SSE), area + AT_XMM);
}

static void xsave_prepare(struct vcpu *c, const struct insn *i, bool wide)
{
    vector_check(c, VC_XSAVE);
    check_alignment(c, i, 64);
    image_prepare(c, wide);
}

/* XINUSE, where registers 16 to 31 do not exist outside 64-bit mode. */
static u64 saved_components(struct vcpu *c)
{
    u64 in_use = ext_in_use(c);

    return code64(c) ? in_use : in_use & ~BIT(XCOMP_HI16_ZMM);
}

/* XSAVE, and XSAVEOPT, which leaves components in their initial configuration unwritten. */
static void xsave(struct vcpu *c, const struct insn *i, bool wide, bool init_optimization)
{
    struct pieces header = {.count = 0}, p = {.count = 0};
    u64 rfbm = requested(c), in_use, bv, pkru;

    xsave_prepare(c, i, wide);
    in_use = saved_components(c);
    piece_add(&header, XSAVE_HEADER, 8, (u8 *)&bv);
    pieces_legacy(c, &p, init_optimization ? rfbm & in_use : rfbm, rfbm & (BIT(XCOMP_SSE) | BIT(XCOMP_AVX)),
                  ext_area(c));
    pieces_extended(c, &p, init_optimization ? rfbm & in_use : rfbm, 0, &pkru);
    area_probe(c, i, rfbm, 0, true);
    pieces_probe(c, i, &header);
    pieces_read(c, i, &header);
    bv = (bv & ~rfbm) | (in_use & rfbm);
    pieces_write(c, i, &p);
    pieces_write(c, i, &header);
}

static void xsavec(struct vcpu *c, const struct insn *i, bool wide)
{
    struct pieces p = {.count = 0};
    u64 rfbm = requested(c), header[2], pkru;

    xsave_prepare(c, i, wide);
    header[0] = saved_components(c) & rfbm;
    if (load32(ext_area(c) + AT_MXCSR) != MXCSR_RESET)
        header[0] |= rfbm & BIT(XCOMP_SSE);
    header[1] = rfbm | COMPACTED;
    pieces_legacy(c, &p, header[0], header[0] & BIT(XCOMP_SSE), ext_area(c));
    pieces_extended(c, &p, header[0], header[1], &pkru);
    piece_add(&p, XSAVE_HEADER, 16, (u8 *)header);
    area_probe(c, i, rfbm, header[1], true);
    pieces_write(c, i, &p);
}

static void exec_xsave(struct vcpu *c, const struct insn *i) { xsave(c, i, false, false); }
static void exec_xsave64(struct vcpu *c, const struct insn *i) { xsave(c, i, true, false); }
static void exec_xsaveopt(struct vcpu *c, const struct insn *i) { xsave(c, i, false, true); }
static void exec_xsaveopt64(struct vcpu *c, const struct insn *i) { xsave(c, i, true, true); }
static void exec_xsavec(struct vcpu *c, const struct insn *i) { xsavec(c, i, false); }
static void exec_xsavec64(struct vcpu *c, const struct insn *i) { xsavec(c, i, true); }

/* ---- XRSTOR ---- */

/* SDM vol. 1 §13.8: what makes an XSAVE header illegal. */
static void check_header(struct vcpu *c, const u64 header[8])
{
    u64 bv = header[0], layout = header[1], reserved = 0;

    for (int n = 2; n < 8; n++)
        reserved |= header[n];
    if (layout & COMPACTED) {
        if (!has(c, FEAT_XSAVEC) || layout & ~COMPACTED & ~c->s.xcr0 || bv & ~(layout & ~COMPACTED) || reserved)
            raise_gp0(c);
        return;
    }
    /* the standard format leaves bytes 24 to 63 of the header to software that knows its CPU */
    if (layout || header[2] || bv & ~c->s.xcr0)
        raise_gp0(c);
}

/* What XRSTOR is about to load, read in full before anything changes. */
struct restore {
    u64 rfbm, load; /* components wanted; of them those with data */
    u64 layout;
    bool wide, mxcsr;
    _Alignas(8) u8 area[XSAVE_AREA_SIZE]; /* standard format */
};

static void restore_read(struct vcpu *c, const struct insn *i, struct restore *r)
{
    struct pieces header = {.count = 0}, p = {.count = 0};

    piece_add(&header, XSAVE_HEADER, 64, r->area + XSAVE_HEADER);
    pieces_read(c, i, &header);
    r->layout = load64(r->area + XSAVE_HEADER + 8) & COMPACTED ? load64(r->area + XSAVE_HEADER + 8) : 0;
    if (r->layout & ~COMPACTED & ~c->s.xcr0)
        raise_gp0(c);
    area_probe(c, i, r->rfbm, r->layout, false);
    check_header(c, (const u64 *)(r->area + XSAVE_HEADER));
    r->load = r->rfbm & load64(r->area + XSAVE_HEADER);
    r->mxcsr = r->layout ? r->load & BIT(XCOMP_SSE) : r->rfbm & (BIT(XCOMP_SSE) | BIT(XCOMP_AVX));
    pieces_legacy(c, &p, r->load, r->mxcsr, r->area);
    for (int n = XCOMP_AVX; n < XCOMP_COUNT; n++)
        if (r->load >> n & 1 && component_reach(c, n))
            piece_add(&p, component_offset(r->layout, n), component_reach(c, n), r->area + ext_components[n].offset);
    pieces_read(c, i, &p);
    if (r->mxcsr)
        check_mxcsr(c, load32(r->area + AT_MXCSR));
}

static void restore_component(struct vcpu *c, const struct restore *r, int n)
{
    u32 at = ext_components[n].offset;

    if (r->load >> n & 1)
        memcpy(ext_area(c) + at, r->area + at, component_reach(c, n));
    else
        memset(ext_area(c) + at, 0, component_reach(c, n));
    if (r->load >> n & 1 || (!code64(c) && n != XCOMP_OPMASK))
        *ext_xstate_bv(c) |= BIT(n); /* outside 64-bit mode registers 8 and up keep theirs */
    else
        *ext_xstate_bv(c) &= ~BIT(n);
}

static void restore_x87(struct vcpu *c, const struct restore *r)
{
    if (r->load & BIT(XCOMP_X87))
        x87_restore(c, r->area, r->wide);
    else
        x87_init(c);
    *ext_xstate_bv(c) = (*ext_xstate_bv(c) & ~BIT(XCOMP_X87)) | (r->load & BIT(XCOMP_X87));
}

static void restore_apply(struct vcpu *c, const struct restore *r)
{
    if (r->rfbm & BIT(XCOMP_X87))
        restore_x87(c, r);
    if (r->mxcsr)
        mxcsr_restore(c, load32(r->area + AT_MXCSR));
    else if (r->rfbm & BIT(XCOMP_SSE))
        mxcsr_restore(c, MXCSR_RESET);
    for (int n = XCOMP_SSE; n < XCOMP_PKRU; n++)
        if (r->rfbm >> n & 1 && ext_components[n].size)
            restore_component(c, r, n);
    if (r->rfbm & BIT(XCOMP_PKRU))
        mmu_load_pkru(c, r->load & BIT(XCOMP_PKRU) ? load32(r->area + ext_components[XCOMP_PKRU].offset) : 0);
}

static void xrstor(struct vcpu *c, const struct insn *i, bool wide)
{
    struct restore r;

    vector_check(c, VC_XSAVE);
    check_alignment(c, i, 64);
    ext_save(c);
    r.rfbm = requested(c);
    r.wide = wide;
    restore_read(c, i, &r);
    restore_apply(c, &r);
    ext_load(c);
}

static void exec_xrstor(struct vcpu *c, const struct insn *i) { xrstor(c, i, false); }
static void exec_xrstor64(struct vcpu *c, const struct insn *i) { xrstor(c, i, true); }

insn_fn *vector_state_handler(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_FXSAVE: return exec_fxsave;
    case ZYDIS_MNEMONIC_FXSAVE64: return exec_fxsave64;
    case ZYDIS_MNEMONIC_FXRSTOR: return exec_fxrstor;
    case ZYDIS_MNEMONIC_FXRSTOR64: return exec_fxrstor64;
    case ZYDIS_MNEMONIC_XSAVE: return exec_xsave;
    case ZYDIS_MNEMONIC_XSAVE64: return exec_xsave64;
    case ZYDIS_MNEMONIC_XSAVEOPT: return exec_xsaveopt;
    case ZYDIS_MNEMONIC_XSAVEOPT64: return exec_xsaveopt64;
    case ZYDIS_MNEMONIC_XSAVEC: return exec_xsavec;
    case ZYDIS_MNEMONIC_XSAVEC64: return exec_xsavec64;
    case ZYDIS_MNEMONIC_XRSTOR: return exec_xrstor;
    case ZYDIS_MNEMONIC_XRSTOR64: return exec_xrstor64;
    default: return NULL;
    }
}
