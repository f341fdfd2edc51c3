/* Register contents: see random_state.h. Formats: SDM vol. 1 §4.8, §8.1, §10.5; vol. 1 §13.4 for the image. */
#include "random_state.h"

#include <string.h>

#include "cpu/xstate.h"

enum { IMAGE_FCW = 0, IMAGE_FSW = 2, IMAGE_FTW = 4, IMAGE_FOP = 6, IMAGE_FIP = 8, IMAGE_FDP = 16, IMAGE_MXCSR = 24,
       IMAGE_MXCSR_MASK = 28, IMAGE_ST = 32, IMAGE_XMM = 160, IMAGE_HEADER = 512 };
#define FSW_ES_B 0x8080
#define X87_EXCEPTIONS 0x3f

u64 random_integer(struct rng *r)
{
    static const u64 edges[] = {0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff,
                                0x100000000, 0x7fffffffffffffff, 0x8000000000000000, ~0ull, ~1ull, 63, 64, 32, 31};

    switch (below(r, 4)) {
    case 0: return edges[below(r, ARRAY_SIZE(edges))];
    case 1: return rnd(r) & 0xff;
    case 2: return (u64)(s64)(s32)rnd(r);
    default: return rnd(r);
    }
}

/* Zeros, ones, the ends of normal, denormal and integer ranges, infinities, quiet and signalling NaNs. */
static u64 edge_double(struct rng *r)
{
    static const u64 edges[] = {0, 0x3ff0000000000000, 0x3fe0000000000000, 1, 0x000fffffffffffff, 0x0010000000000000,
                                0x7fefffffffffffff, 0x7ff0000000000000, 0x7ff8000000000000, 0x7ff0000000000001,
                                0x41dfffffffc00000, 0x41e0000000000000, 0x41efffffffe00000, 0x43e0000000000000,
                                0x43f0000000000000, 0x36a0000000000000, 0x3810000000000000, 0x47efffffe0000000};

    return edges[below(r, ARRAY_SIZE(edges))] ^ (rnd(r) & 1ull << 63);
}

static u32 edge_float(struct rng *r)
{
    static const u32 edges[] = {0, 0x3f800000, 0x3f000000, 1, 0x007fffff, 0x00800000, 0x7f7fffff, 0x7f800000, 0x7fc00000,
                                0x7f800001, 0x4effffff, 0x4f000000, 0x4f7fffff, 0x5f000000, 0x33800000, 0x38800000, 0x477fe000};

    return edges[below(r, ARRAY_SIZE(edges))] ^ (u32)(rnd(r) & 0x80000000);
}

static u16 edge_half(struct rng *r)
{
    static const u16 edges[] = {0, 0x3c00, 0x3800, 1, 0x03ff, 0x0400, 0x7bff, 0x7c00, 0x7e00, 0x7c01, 0x3f80, 0x7f80};

    return edges[below(r, ARRAY_SIZE(edges))] ^ (u16)(rnd(r) & 0x8000);
}

/* Of ordinary size: sums and products mean something. */
static u64 plain_double(struct rng *r)
{
    return 0x3fd0000000000000 + (rnd(r) & 0x807fffffffffffff);
}

static u32 plain_float(struct rng *r)
{
    return (u32)(0x3e800000 + (rnd(r) & 0x83ffffff));
}

static u64 plain_halves(struct rng *r)
{
    return 0x3400340034003400 + (rnd(r) & 0x8fff8fff8fff8fff);
}

u64 random_lanes(struct rng *r)
{
    switch (below(r, 10)) {
    case 0: return rnd(r);
    case 1: return random_integer(r);
    case 2: return random_integer(r) << 32 | (u32)random_integer(r);
    case 3: return edge_double(r);
    case 4: return (u64)edge_float(r) << 32 | edge_float(r);
    case 5: return (u64)edge_half(r) << 48 | (u64)edge_half(r) << 32 | (u64)edge_half(r) << 16 | edge_half(r);
    case 6: return plain_double(r);
    case 7: return (u64)plain_float(r) << 32 | plain_float(r);
    case 8: return plain_halves(r);
    default: return rnd(r) & 0x0f0f0f0f0f0f0f0f;
    }
}

void random_x87(struct rng *r, u8 out[10])
{
    static const u64 mantissas[] = {0, 1, 0x8000000000000000, 0xc000000000000000, 0x8000000000000001, 0xffffffffffffffff,
                                    0x7fffffffffffffff, 0x4000000000000000, 0xc90fdaa22168c235};
    static const u16 exponents[] = {0, 1, 0x3fff, 0x3ffe, 0x4000, 0x7ffe, 0x7fff, 0x403e, 0x403d, 0x3c01, 0x3f81};
    u64 mantissa = rnd(r) | 1ull << 63;
    u16 exponent = (u16)(0x3fff - 32 + below(r, 64));

    if (one_in(r, 2))
        mantissa = mantissas[below(r, ARRAY_SIZE(mantissas))];
    if (one_in(r, 3))
        exponent = exponents[below(r, ARRAY_SIZE(exponents))];
    if (one_in(r, 8)) {
        mantissa = rnd(r) & 0x7777777777777777; /* BCD, and unsupported as a number */
        exponent = (u16)(rnd(r) & 0x7f99);
    }
    exponent |= (u16)(rnd(r) & 0x8000);
    memcpy(out, &mantissa, 8);
    memcpy(out + 8, &exponent, 2);
}

static void put16(u8 *p, u16 val)
{
    memcpy(p, &val, 2);
}
static void put32(u8 *p, u32 val)
{
    memcpy(p, &val, 4);
}
static void put64(u8 *p, u64 val)
{
    memcpy(p, &val, 8);
}

static u64 random_pointer(struct rng *r)
{
    return rnd(r) >> (17 + below(r, 46));
}

static void random_control(struct rng *r, u8 *x)
{
    u16 fcw = (u16)(0x37f | (rnd(r) & 0xc00)), fsw = (u16)(rnd(r) & 0x7f00 & ~FSW_ES_B);
    u32 mxcsr = (u32)(0x1f80 | (rnd(r) & 0xe03f));

    if (one_in(r, 4))
        fcw = (u16)((fcw & 0xffc0) | (rnd(r) & X87_EXCEPTIONS));
    if (one_in(r, 4))
        fcw = (u16)((fcw & ~0x300) | (rnd(r) & 0x200));
    if (one_in(r, 6))
        fsw |= (u16)(rnd(r) & 0x7f);
    if (fsw & ~fcw & X87_EXCEPTIONS)
        fsw |= FSW_ES_B;
    if (one_in(r, 5))
        mxcsr = (u32)(rnd(r) & 0xffff);
    put16(x + IMAGE_FCW, fcw);
    put16(x + IMAGE_FSW, fsw);
    x[IMAGE_FTW] = one_in(r, 3) ? 0xff : (u8)rnd(r);
    put16(x + IMAGE_FOP, (u16)(rnd(r) & 0x7ff));
    put64(x + IMAGE_FIP, random_pointer(r));
    put64(x + IMAGE_FDP, random_pointer(r));
    put32(x + IMAGE_MXCSR, mxcsr);
}

void initial_components(u8 *x)
{
    u64 header;

    memcpy(&header, x + IMAGE_HEADER, 8);
    if (!(header >> XCOMP_X87 & 1)) {
        memset(x, 0, IMAGE_MXCSR);
        memset(x + IMAGE_ST, 0, IMAGE_XMM - IMAGE_ST);
        put16(x + IMAGE_FCW, 0x37f);
    }
    if (!(header >> XCOMP_SSE & 1))
        memset(x + IMAGE_XMM, 0, 256);
    for (u32 n = XCOMP_AVX; n < XCOMP_COUNT; n++)
        if (!(header >> n & 1))
            memset(x + ext_components[n].offset, 0, ext_components[n].size);
}

void random_xsave(struct rng *r, u64 components, u8 *xsave)
{
    for (int n = IMAGE_XMM; n < XSAVE_AREA_SIZE; n += 8)
        put64(xsave + n, random_lanes(r));
    memset(xsave, 0, IMAGE_XMM);
    memset(xsave + 416, 0, 160);
    random_control(r, xsave);
    put32(xsave + IMAGE_MXCSR_MASK, 0xffff);
    for (int n = 0; n < 8; n++)
        random_x87(r, xsave + IMAGE_ST + n * 16);
    put64(xsave + IMAGE_HEADER, components);
    if (one_in(r, 8))
        put64(xsave + IMAGE_HEADER, components & rnd(r));
    initial_components(xsave);
}

void plain_xsave(u64 components, u8 *xsave)
{
    memset(xsave, 0, XSAVE_AREA_SIZE);
    put16(xsave + IMAGE_FCW, 0x37f);
    put32(xsave + IMAGE_MXCSR, 0x1f80);
    put32(xsave + IMAGE_MXCSR_MASK, 0xffff);
    put64(xsave + IMAGE_HEADER, components);
}
