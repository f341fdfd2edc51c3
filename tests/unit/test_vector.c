/* Vector and x87 instructions against the host's silicon: random instructions of every ISA set that the host has,
 * with random registers and memory operands on, across and off pages, run natively (native_insn.c) and by the vCPU;
 * all registers, flags, MXCSR, x87 environment, memory, and faults with error code and address must come out the
 * same.
 *
 * Prints its seed. Environment: VECTOR_SEED, VECTOR_SECONDS (how long), VECTOR_MATCH (only mnemonics that contain
 * it). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "cpu/decode.h"
#include "cpu/host_fault.h"
#include "cpu/tlb.h"
#include "cpu/vector.h"
#include "cpu/xstate.h"
#include "native_insn.h"
#include "vector_machine.h"

#define FLAGS_KEPT 0x8d5ull

/* AddressSanitizer's runtime runs before a fault is raised, and changes vector registers. */
#ifdef __SANITIZE_ADDRESS__
#define SANITIZED true
#else
#define SANITIZED false
#endif

struct test_case {
    int bits; /* 64 or 32 */
    u8 bytes[16];
    int len;
    ZydisDecodedInstruction zi;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    const ZydisDecodedOperand *mem;
    struct native_state before, native;
    u8 arena[ARENA_SIZE]; /* before */
};

static struct vector_machine machine;
static struct test_case t;
static u64 seed, random_state;
static ZydisDecoder decoders[2]; /* 64, 32 bits */
static u32 seen[2][ZYDIS_MNEMONIC_MAX_VALUE + 1][3]; /* cases by mode, mnemonic, encoding */

/* ---- chance ---- */

static u64 rnd(void) /* splitmix64 */
{
    u64 z = random_state += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static u64 rnd_below(u64 n)
{
    return rnd() % n;
}

static bool chance(u32 percent)
{
    return rnd_below(100) < percent;
}

/* ---- instructions ---- */

/* Bytes that often are a vector or x87 instruction. */
static void random_bytes(u8 *b)
{
    static const u8 mandatory[] = {0x66, 0xf2, 0xf3}, maps[] = {0x38, 0x3a};
    int at = 0, map = 0x0f;

    for (int n = 0; n < 16; n++)
        b[n] = (u8)rnd();
    if (chance(4))
        b[at++] = 0x67;
    if (t.bits == 64 && chance(4))
        b[at++] = 0x65;
    switch (rnd_below(8)) {
    case 0:
    case 1:
    case 2: /* EVEX: maps 1, 2, 3, 5, 6 */
        b[at] = 0x62;
        b[at + 1] = (u8)((b[at + 1] & 0xf0) | (const u8[]){1, 2, 3, 5, 6}[rnd_below(5)]);
        b[at + 2] |= 4;
        if (t.bits == 32)
            b[at + 1] |= 0xc0;
        return;
    case 3: /* VEX, 3 bytes */
        b[at] = 0xc4;
        b[at + 1] = (u8)((b[at + 1] & 0xe0) | (1 + rnd_below(3)) | (t.bits == 32 ? 0xc0 : 0));
        return;
    case 4:
        b[at] = 0xc5;
        b[at + 1] |= t.bits == 32 ? 0xc0 : 0;
        return;
    case 5:
        if (chance(20))
            b[at++] = 0x66;
        b[at] = chance(5) ? 0x9b : (u8)(0xd8 | (b[at] & 7));
        return;
    default:
        if (chance(70))
            b[at++] = mandatory[rnd_below(3)];
        if (t.bits == 64 && chance(40))
            b[at++] = (u8)(0x40 | (rnd() & 15));
        b[at++] = (u8)map;
        if (chance(50))
            b[at++] = maps[rnd_below(2)];
    }
}

static const char *name_of(const struct test_case *c)
{
    return ZydisMnemonicGetString(c->zi.mnemonic);
}

/* What the host does not do as the model says, or cannot be run twice with the same result. */
static bool excluded(const struct test_case *c)
{
    const char *match = getenv("VECTOR_MATCH");

    if (match && !strstr(name_of(c), match))
        return true;
    return c->mem && (c->mem->mem.segment == ZYDIS_REGISTER_FS || c->zi.address_width == 16);
}

static u32 *seen_count(const struct test_case *c)
{
    int encoding = c->zi.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX    ? 1
                   : c->zi.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ? 2
                                                                       : 0;

    return &seen[c->bits == 32][c->zi.mnemonic][encoding];
}

static u32 wanted_percent(const struct test_case *c)
{
    return getenv("VECTOR_MATCH") ? 100 : MAX(1, 2000 / *seen_count(c));
}

/* A new instruction; those that have been often are mostly passed over. */
static void next_instruction(struct test_case *c)
{
    for (;;) {
        struct insn_source src = {.zi = &c->zi, .op = c->op, .bytes = c->bytes, .code_size = c->bits / 8};

        random_bytes(c->bytes);
        if (ZYAN_FAILED(ZydisDecoderDecodeFull(&decoders[c->bits == 32], c->bytes, 15, &c->zi, c->op)) ||
            !vector_insn(&src))
            continue;
        c->len = c->zi.length;
        c->mem = NULL;
        for (int n = 0; n < c->zi.operand_count; n++)
            if (c->op[n].type == ZYDIS_OPERAND_TYPE_MEMORY)
                c->mem = &c->op[n];
        if (excluded(c) || (*seen_count(c) > 20 && !chance(wanted_percent(c))))
            continue;
        ++*seen_count(c);
        return;
    }
}

/* ---- registers ---- */

static u64 interesting_number(void)
{
    static const u64 doubles[] = {0, 0x8000000000000000, 0x3ff0000000000000, 0xbff8000000000000, 0x7ff0000000000000,
                                  0xfff0000000000000, 0x7ff8000000000000, 0x7ff0000000000001, 1, 0x000fffffffffffff,
                                  0x7fefffffffffffff, 0x0010000000000000, 0x41dfffffffc00000, 0xc1e0000000000000,
                                  0x43e0000000000000, 0x4059000000000000, ~0ull};
    static const u32 floats[] = {0, 0x80000000, 0x3f800000, 0xbfc00000, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 1,
                                 0x007fffff, 0x7f7fffff, 0x00800000, 0x4f000000, 0xcf000000, 0x42c80000, 0xffffffff};
    static const u16 halves[] = {0, 0x8000, 0x3c00, 0xbe00, 0x7c00, 0xfc00, 0x7e00, 0x7c01, 1, 0x03ff, 0x7bff, 0x0400};
    u64 val = 0;

    switch (rnd_below(4)) {
    case 0: return doubles[rnd_below(ARRAY_SIZE(doubles))];
    case 1: return floats[rnd_below(ARRAY_SIZE(floats))] | (u64)floats[rnd_below(ARRAY_SIZE(floats))] << 32;
    case 2:
        for (int n = 0; n < 4; n++)
            val = val << 16 | halves[rnd_below(ARRAY_SIZE(halves))];
        return val;
    default: return rnd();
    }
}

static void fill(u8 *p, u64 len)
{
    bool numbers = chance(70);

    for (u64 n = 0; n + 8 <= len; n += 8) {
        u64 val = numbers ? interesting_number() : rnd();

        memcpy(p + n, &val, 8);
    }
}

/* Fills the arena from a pool of numbers, which is made anew now and then. */
static void fill_arena(struct test_case *c)
{
    static u8 pool[4 * ARENA_SIZE];

    if (chance(1))
        for (u64 n = 0; n < sizeof(pool); n += 512)
            fill(pool + n, 512);
    memcpy(c->arena, pool + (rnd_below(3 * ARENA_SIZE) & ~7ull), ARENA_SIZE);
}

static void random_x87(u8 *x)
{
    static const u16 exponents[] = {0, 1, 0x3fff, 0x4000, 0x7fff, 0x401e, 0x403e, 0x43ff, 0x3c00};
    u16 fcw = 0x37f, fsw = (u16)(rnd() & 0x7f00);

    if (chance(50))
        fcw = (u16)((rnd() & 0xf00) | 0x7f);
    if (chance(15))
        fcw &= (u16)~(rnd() & 0x3f);
    if (chance(30))
        fsw |= (u16)(rnd() & 0x7f);
    if (fsw & ~fcw & 0x3f)
        fsw |= 0x8080;
    else
        fsw &= 0x7f7f;
    memcpy(x, &fcw, 2);
    memcpy(x + 2, &fsw, 2);
    x[4] = chance(50) ? 0xff : (u8)rnd();
    x[5] = 0;
    for (int n = 0; n < 8; n++) {
        u64 mantissa = chance(50) ? rnd() | BIT(63) : interesting_number();
        u16 exponent = (u16)(exponents[rnd_below(ARRAY_SIZE(exponents))] | (rnd() & 0x8000));

        memcpy(x + 32 + 16 * n, &mantissa, 8);
        memcpy(x + 40 + 16 * n, &exponent, 2);
        memset(x + 42 + 16 * n, 0, 6);
    }
}

static void random_registers(struct test_case *c)
{
    struct native_state *st = &c->before;
    u32 mxcsr = 0x1f80;
    u64 components = ext_host_components(), bv = components;

    memset(st->xsave, 0, sizeof(st->xsave));
    fill(st->xsave + 160, 256);
    for (int n = 2; n < XCOMP_PKRU; n++)
        fill(st->xsave + ext_components[n].offset, ext_components[n].size);
    random_x87(st->xsave);
    if (chance(50))
        mxcsr = (mxcsr & ~0xe040u) | (rnd() & 0xe040);
    if (chance(15))
        mxcsr &= ~(u32)(rnd() & 0x1f80);
    if (chance(20))
        mxcsr |= rnd() & 0x3f;
    memcpy(st->xsave + 24, &mxcsr, 4);
    memcpy(st->xsave + 512, &bv, 8);
    for (int n = 0; n < 16; n++)
        st->gpr[n] = chance(30) ? rnd_below(40) - 20 : interesting_number();
    st->rflags = 0x202 | (rnd() & FLAGS_KEPT);
    st->components = components;
    if (c->bits == 32)
        for (int n = 0; n < 16; n++)
            st->gpr[n] = n < 8 ? (u32)st->gpr[n] : 0;
}

static int gpr_of(ZydisRegister r)
{
    return r == ZYDIS_REGISTER_NONE ? -1 : ZydisRegisterGetId(r) & 15;
}

/* Somewhere in the arena: mostly well inside, sometimes at an edge. */
static u64 random_place(const struct test_case *c, u32 size)
{
    static const u64 edges[] = {0, 1, 2, 3, 4, 5, 6, 7, 8};
    u64 edge = edges[rnd_below(ARRAY_SIZE(edges))] * 4096;
    u64 at = chance(60) ? rnd_below(0x2f00) : edge - rnd_below(size + 70) + rnd_below(70);

    if (chance(60))
        at &= ~63ull;
    else if (chance(50))
        at &= ~15ull;
    if (at + size > ARENA_SIZE - 64)
        at = 64;
    return ARENA + at;
}

static void index_fill(struct test_case *c)
{
    u8 reg[64];
    int n = ZydisRegisterGetId(c->mem->mem.index);
    bool narrow = strstr(name_of(c), "gatherd") || strstr(name_of(c), "scatterd");

    for (int k = 0; k < 64; k += narrow ? 4 : 8) {
        s64 val = (s64)rnd_below(chance(80) ? 200 : 2000) - 100;

        memcpy(reg + k, &val, narrow ? 4 : 8);
    }
    memcpy(machine.vcpu->s.xsave, c->before.xsave, XSAVE_AREA_SIZE);
    ext_vector_set(machine.vcpu, n, reg);
    memcpy(c->before.xsave, machine.vcpu->s.xsave, XSAVE_AREA_SIZE);
}

/* Makes registers or displacement such that the operand lies at a place in the arena. False: it cannot be. */
static bool place_operand(struct test_case *c)
{
    const ZydisDecodedOperandMem *m = &c->mem->mem;
    int base = gpr_of(m->base), index = gpr_of(m->index);
    int shift = m->scale == 8 ? 3 : m->scale == 4 ? 2 : m->scale == 2 ? 1 : 0;
    u64 place = random_place(c, c->mem->size / 8), disp = (u64)m->disp.value, *gpr = c->before.gpr;
    u64 gs = m->segment == ZYDIS_REGISTER_GS ? NATIVE_GS_BASE : 0;

    if (m->type == ZYDIS_MEMOP_TYPE_VSIB) {
        index_fill(c);
        index = -1;
    }
    if (c->zi.attributes & ZYDIS_ATTRIB_IS_RELATIVE || (base < 0 && index < 0)) {
        u32 from = c->zi.attributes & ZYDIS_ATTRIB_IS_RELATIVE ? (u32)(native_address(c->len) + (u64)c->len) : 0;
        u32 rel = (u32)(place - gs) - from;

        if (c->zi.raw.disp.size != 32)
            return false;
        memcpy(c->bytes + c->zi.raw.disp.offset, &rel, 4);
        return true;
    }
    if (base >= 0) {
        u64 scaled = index >= 0 ? gpr[index] << shift : 0;

        if (base == index)
            return false;
        gpr[base] = place - gs - disp - scaled;
    } else {
        gpr[index] = (place - gs - disp) >> shift;
        if (c->zi.address_width == 64 && shift)
            gpr[index] |= (place - gs - disp) >> 63 ? ~(~0ull >> shift) : 0;
    }
    if (c->bits == 32)
        gpr[base >= 0 ? base : index] &= 0xffffffff;
    return true;
}

/* State instructions want a mask of components that the guest has too. */
static void prepare_components(struct test_case *c)
{
    u64 components = c->before.components;

    c->before.gpr[RAX] &= components | ~0x602ffull;
    if (chance(30))
        c->before.gpr[RAX] |= components;
}

/* XRSTOR's operand gets a legal header most of the time. */
static void prepare_xrstor(struct test_case *c)
{
    ZyanU64 at;
    u64 header[8] = {0}, components = c->before.components;
    u32 mxcsr = (u32)rnd() & 0xffff;
    ZydisRegisterContext regs = {{0}};

    for (int n = 0; n < 16; n++) {
        regs.values[ZYDIS_REGISTER_RAX + n] = c->before.gpr[n];
        regs.values[ZYDIS_REGISTER_EAX + n] = (u32)c->before.gpr[n];
    }
    if (ZYAN_FAILED(ZydisDecoderDecodeFull(&decoders[c->bits == 32], c->bytes, 15, &c->zi, c->op)) ||
        ZYAN_FAILED(ZydisCalcAbsoluteAddressEx(&c->zi, c->mem, native_address(c->len), &regs, &at)))
        return;
    if (c->mem->mem.segment == ZYDIS_REGISTER_GS)
        at += NATIVE_GS_BASE;
    at -= ARENA;
    if (at + 576 > ARENA_SIZE || chance(5))
        return;
    header[0] = rnd() & components;
    if (chance(50))
        header[1] = BIT(63) | header[0] | (rnd() & components);
    if (chance(5))
        header[rnd_below(8)] ^= BIT(rnd_below(64));
    memcpy(c->arena + at + 512, header, 64);
    memcpy(c->arena + at + 24, &mxcsr, 4);
}

static bool prepare(struct test_case *c)
{
    random_registers(c);
    fill_arena(c);
    if (c->mem && c->mem->encoding == ZYDIS_OPERAND_ENCODING_NONE) /* MASKMOV */
        c->before.gpr[RDI] = random_place(c, 16) - (c->mem->mem.segment == ZYDIS_REGISTER_GS ? NATIVE_GS_BASE : 0);
    else if (c->mem && !place_operand(c))
        return false;
    if (c->bits == 32)
        c->before.gpr[RDI] = (u32)c->before.gpr[RDI];
    if (strstr(name_of(c), "xsave") || strstr(name_of(c), "xrstor")) {
        prepare_components(c);
        if (c->mem && !place_operand(c)) /* EAX may be its base */
            return false;
        c->before.gpr[RAX] &= c->bits == 32 ? 0xffffffff : ~0ull;
        if (c->before.gpr[RAX] & 0x60200 & ~c->before.components)
            return false;
    }
    if (strstr(name_of(c), "rstor"))
        prepare_xrstor(c);
    return true;
}

/* ---- the two runs ---- */

static struct native_fault run_native(struct test_case *c)
{
    c->native = c->before;
    return native_run(&c->native, c->bytes, c->len, c->bits);
}

static u64 load(const u8 *p, int size)
{
    u64 val = 0;

    memcpy(&val, p, (size_t)size);
    return val;
}

static struct native_fault run_guest(struct test_case *c)
{
    struct vcpu *v = machine.vcpu;
    struct native_fault f = {.vector = -1};

    memcpy(v->s.gpr, c->before.gpr, sizeof(c->before.gpr));
    memcpy(v->s.xsave, c->before.xsave, XSAVE_AREA_SIZE);
    flags_set(v, c->before.rflags);
    v->s.fop = (u16)load(c->before.xsave + 6, 2);
    v->s.fip = load(c->before.xsave + 8, 8);
    v->s.fdp = load(c->before.xsave + 16, 8);
    v->s.fcs = v->s.fds = 0;
    if (chance(30))
        tlb_flush(v);
    f.vector = vector_machine_run(&machine, c->bytes, native_address(c->len), NULL);
    f.error = v->fault_has_error ? v->fault_error : 0;
    f.address = v->s.cr2;
    return f;
}

static void dump_case(const struct test_case *c, const char *what)
{
    char text[128] = "?";
    ZydisFormatter formatter;

    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterFormatInstruction(&formatter, &c->zi, c->op, c->zi.operand_count_visible, text, sizeof(text), 0,
                                    NULL);
    print_error("seed %#llx: %d-bit %s (", (unsigned long long)seed, c->bits, text);
    for (int n = 0; n < c->len; n++)
        print_error("%02x", c->bytes[n]);
    print_error("), exception %d: %s\n", machine.vector, what);
}

static bool differs(const struct test_case *c, const char *what, u64 native, u64 ours)
{
    char text[160];

    if (native == ours)
        return false;
    snprintf(text, sizeof(text), "%s: host %#llx, ours %#llx", what, (unsigned long long)native, (unsigned long long)ours);
    dump_case(c, text);
    return true;
}

/* MASKMOV may fault or not for bytes that it does not store. */
static bool fault_was_optional(const struct test_case *c, const struct native_fault *native,
                               const struct native_fault *ours)
{
    return c->mem && c->mem->encoding == ZYDIS_OPERAND_ENCODING_NONE && native->vector == EXC_PF && ours->vector < 0;
}

/* Of images, and under a mask, the hardware may touch any byte of the page first. */
static bool address_is_vague(const struct test_case *c)
{
    return c->mem->size > 512 || strstr(name_of(c), "env") || strstr(name_of(c), "maskmov") ||
           c->zi.avx.mask.reg > ZYDIS_REGISTER_K0;
}

static bool fault_differs(const struct test_case *c, const struct native_fault *native, const struct native_fault *ours)
{
    bool bad = differs(c, "fault", (u64)native->vector, (u64)ours->vector);
    u64 mask;

    if (bad || native->vector != EXC_PF)
        return bad;
    mask = address_is_vague(c) ? ~4095ull : ~0ull;
    return differs(c, "page fault error code", native->error & 7, ours->error) ||
           differs(c, "page fault address", native->address & mask, ours->address & mask);
}

static bool bytes_differ(const struct test_case *c, const char *what, const u8 *native, const u8 *ours, u64 len)
{
    for (u64 n = 0; n < len; n++)
        if (native[n] != ours[n]) {
            char text[64];

            snprintf(text, sizeof(text), "%s byte %llu", what, (unsigned long long)n);
            return differs(c, text, load(native + (n & ~7ull), 8), load(ours + (n & ~7ull), 8));
        }
    return false;
}

/* An MMX instruction whose operand faults has reset the top of the x87 stack and all tags already, on some CPUs. */
static bool mmx_fault(const struct test_case *c)
{
    return machine.vector == EXC_PF && c->zi.meta.isa_ext != ZYDIS_ISA_EXT_X87;
}

static bool x87_environment_differs(const struct test_case *c)
{
    const u8 *host = c->native.xsave, *ours = (const u8 *)machine.vcpu->s.xsave;

    if (differs(c, "FCW", load(host, 2), load(ours, 2)))
        return true;
    if (mmx_fault(c))
        return false;
    return differs(c, "FSW", load(host + 2, 2), load(ours + 2, 2)) || differs(c, "FTW", host[4], ours[4]);
}

/* AMD's CPUs keep the pointers only of instructions that caused an exception. */
static bool pointers_differ(const struct test_case *c)
{
    const u8 *x = c->native.xsave;
    const struct vcpu *v = machine.vcpu;

    if (!__builtin_cpu_is("intel"))
        return false;
    return differs(c, "FOP", load(x + 6, 2), v->s.fop) || differs(c, "FIP", load(x + 8, 8), v->s.fip) ||
           differs(c, "FDP", load(x + 16, 8), v->s.fdp);
}

/* A 10-byte store may have written its first 8 bytes when the page of the last 2 faults. */
static bool partial_store(const struct test_case *c)
{
    return machine.vector == EXC_PF && c->zi.meta.isa_ext == ZYDIS_ISA_EXT_X87 && c->mem->size == 80;
}

static bool memory_differs(const struct test_case *c)
{
    const u8 *at = arena_difference(&machine);

    return at && !partial_store(c) && differs(c, "memory", load(at, 8), load(machine.guest + (at - machine.native), 8));
}

static bool state_differs_from_host(const struct test_case *c)
{
    const u8 *host = c->native.xsave, *ours = (const u8 *)machine.vcpu->s.xsave;
    u64 mask = c->bits == 32 ? 0xffffffff : ~0ull;

    for (int n = 0; n < (c->bits == 32 ? 8 : 16); n++)
        if (differs(c, ZydisRegisterGetString((ZydisRegister)(ZYDIS_REGISTER_RAX + n)), c->native.gpr[n] & mask,
                    machine.vcpu->s.gpr[n] & mask))
            return true;
    if (differs(c, "flags", c->native.rflags & FLAGS_KEPT, flags_get(machine.vcpu) & FLAGS_KEPT) ||
        x87_environment_differs(c) || pointers_differ(c) ||
        differs(c, "MXCSR", load(host + 24, 4), load(ours + 24, 4)) || bytes_differ(c, "XMM", host + 160, ours + 160, 256) ||
        (!mmx_fault(c) && bytes_differ(c, "ST", host + 32, ours + 32, 128)))
        return true;
    for (int n = 2; n < XCOMP_PKRU; n++) {
        u32 at = ext_components[n].offset;

        if (c->before.components >> n & 1 && bytes_differ(c, "component", host + at, ours + at, ext_components[n].size))
            return true;
    }
    return memory_differs(c);
}

/* True when all is the same. */
static bool run_case(struct test_case *c)
{
    struct native_fault native, ours;

    arena_fill(&machine, c->arena);
    native = run_native(c);
    ours = run_guest(c);
    if (fault_was_optional(c, &native, &ours))
        return true;
    if (fault_differs(c, &native, &ours))
        return false;
    return (SANITIZED && ours.vector >= 0) || !state_differs_from_host(c);
}

static u64 environment(const char *name, u64 otherwise)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 0) : otherwise;
}

static void same_as_silicon(int bits, u64 seconds)
{
    time_t end = time(NULL) + (time_t)seconds;
    u64 cases = 0, failures = 0, kinds = 0, failures_max = environment("VECTOR_FAILURES", 10);

    t.bits = bits;
    assert_int_equal(host_fault_setup(&(struct err){0}), 0); /* in front of cmocka's handlers */
    native_signals();
    vector_machine_mode(&machine, bits / 8);
    machine.vcpu->s.seg_base[SEG_GS] = NATIVE_GS_BASE;
    vcpu_mode_update(machine.vcpu);
    while (time(NULL) <= end && failures < failures_max)
        for (int n = 0; n < 500 && failures < failures_max; n++) {
            next_instruction(&t);
            if (!prepare(&t))
                continue;
            cases++;
            failures += !run_case(&t);
        }
    for (int n = 0; n <= ZYDIS_MNEMONIC_MAX_VALUE; n++)
        for (int k = 0; k < 3; k++)
            kinds += seen[bits == 32][n][k] != 0;
    print_message("%d-bit: %llu cases of %llu instructions, seed %#llx\n", bits, (unsigned long long)cases,
                  (unsigned long long)kinds, (unsigned long long)seed);
    assert_int_equal(failures, 0);
}

static void same_in_64_bit_mode(void **unused)
{
    same_as_silicon(64, environment("VECTOR_SECONDS", 2));
}

static void same_in_32_bit_mode(void **unused)
{
    if (!native_has_32_bit())
        skip();
    same_as_silicon(32, environment("VECTOR_SECONDS", 2) / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_in_64_bit_mode), cmocka_unit_test(same_in_32_bit_mode)};

    seed = random_state = environment("VECTOR_SEED", (u64)time(NULL) * 1000003);
    ZydisDecoderInit(&decoders[0], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecoderInit(&decoders[1], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    vector_machine_create(&machine);
    native_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
