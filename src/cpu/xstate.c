/* Moving the guest's extended registers between s.xsave and the host's units: see xstate.h. SDM vol. 1 ch. 13.
 *
 * The plain XSAVE form, not XSAVEOPT or XSAVEC: it also writes components in their initial configuration, so that
 * the image is the same however the guest got there. AMX tiles and other components of the host are never touched,
 * nor is PKRU. */
#include "cpu/xstate.h"

#include <errno.h>
#include <string.h>

#include "cpu/host_fault.h"

const struct ext_component ext_components[XCOMP_COUNT] = {
    [XCOMP_X87] = {0, 160}, [XCOMP_SSE] = {160, 256}, [XCOMP_AVX] = {576, 256}, [XCOMP_OPMASK] = {1088, 64},
    [XCOMP_ZMM_HI256] = {1152, 512}, [XCOMP_HI16_ZMM] = {1664, 1024}, [XCOMP_PKRU] = {2688, 8},
};

#define HOST_AREA_SIZE 4096
#define AVX512_COMPONENTS (BIT(XCOMP_OPMASK) | BIT(XCOMP_ZMM_HI256) | BIT(XCOMP_HI16_ZMM))
#define MXCSR_RESET 0x1f80

enum { IMAGE_FCW = 0, IMAGE_FSW = 2, IMAGE_FTW = 4, IMAGE_FOP = 6, IMAGE_FIP = 8, IMAGE_FDP = 16, IMAGE_MXCSR = 24, IMAGE_RESERVED = 416, IMAGE_SOFTWARE = 464 };

/* What the host is; constant after ext_setup. */
static struct {
    u64 components;          /* saved and restored */
    u32 offset[XCOMP_COUNT]; /* standard format of this host */
    bool same_layout;        /* as ext_components */
    u32 mxcsr_mask;
    int linear_bits;
} host;

static void host_xsave(void *area, u64 components)
{
    __asm__ volatile("xsave64 (%0)" : : "r"(area), "a"((u32)components), "d"((u32)(components >> 32)) : "memory");
}

static void host_xrstor(const void *area, u64 components)
{
    __asm__ volatile("xrstor64 (%0)" : : "r"(area), "a"((u32)components), "d"((u32)(components >> 32)) : "memory");
}

static u64 host_xcr0(void)
{
    u32 lo, hi;

    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (u64)hi << 32 | lo;
}

static void host_cpuid(u32 leaf, u32 sub, u32 out[4])
{
    __asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(sub));
}

/* CPUID leaf 1, ECX: SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT. */
#define X86_64_V2 (BIT(0) | BIT(9) | BIT(13) | BIT(19) | BIT(20) | BIT(23))
#define OSXSAVE BIT(27)

static int host_check(struct err *e)
{
    u32 leaf1[4];

    host_cpuid(1, 0, leaf1);
    if ((leaf1[2] & X86_64_V2) != X86_64_V2)
        return err_set(e, -ENOTSUP, "this host's CPU is older than x86-64-v2 (it lacks SSE4.2 or POPCNT)");
    if (!(leaf1[2] & OSXSAVE))
        return err_set(e, -ENOTSUP, "this host's CPU or kernel lacks XSAVE");
    return 0;
}

static u64 host_components(void)
{
    u64 xcr0 = host_xcr0(), usable = BIT(XCOMP_X87) | BIT(XCOMP_SSE) | BIT(XCOMP_AVX);

    if ((xcr0 & AVX512_COMPONENTS) == AVX512_COMPONENTS && xcr0 & BIT(XCOMP_AVX))
        usable |= AVX512_COMPONENTS;
    return xcr0 & usable;
}

static void host_layout(void)
{
    host.same_layout = true;
    for (u32 n = XCOMP_AVX; n < XCOMP_COUNT; n++) {
        u32 leaf[4]; /* size, offset */

        if (!(host.components & BIT(n)))
            continue;
        host_cpuid(0xd, n, leaf);
        host.offset[n] = leaf[1];
        assert(leaf[0] == ext_components[n].size && leaf[1] + leaf[0] <= HOST_AREA_SIZE);
        host.same_layout &= host.offset[n] == ext_components[n].offset;
    }
}

static void host_mxcsr_mask(void)
{
    _Alignas(16) u8 image[512] = {0};

    __asm__ volatile("fxsave64 (%0)" : : "r"(image) : "memory");
    memcpy(&host.mxcsr_mask, image + 28, 4);
    if (!host.mxcsr_mask)
        host.mxcsr_mask = 0xffbf;
}

static void host_linear_bits(void)
{
    u32 leaf[4];

    host_cpuid(0x80000008, 0, leaf);
    host.linear_bits = leaf[0] >> 8 & 0xff;
    if (host.linear_bits < 48 || host.linear_bits > 64)
        host.linear_bits = 48;
}

int ext_setup(struct err *e)
{
    int r = host_check(e);

    if (r)
        return r;
    host.components = host_components();
    host_layout();
    host_mxcsr_mask();
    host_linear_bits();
    return host_fault_setup(e);
}

u64 ext_canonical(u64 pointer)
{
    int unused = 64 - host.linear_bits;

    return (u64)((s64)(pointer << unused) >> unused);
}

u64 ext_host_components(void)
{
    return host.components;
}

u32 ext_mxcsr_mask(void)
{
    return host.mxcsr_mask;
}

/* Whether the host can save straight into s.xsave: the same layout, and the compiler has put it at a multiple of 64. */
static bool direct(struct vcpu *c)
{
    return host.same_layout && !((uintptr_t)c->s.xsave & 63);
}

static void copy_components(u8 *to, const u8 *from, bool to_host)
{
    memcpy(to, from, XSAVE_EXTENDED);
    for (u32 n = XCOMP_AVX; n < XCOMP_COUNT; n++) {
        u32 ours = ext_components[n].offset, theirs = host.offset[n];

        if (host.components & BIT(n))
            memcpy(to + (to_host ? theirs : ours), from + (to_host ? ours : theirs), ext_components[n].size);
    }
}

/* Whatever s.xsave holds (it may come from a snapshot file), XRSTOR must not fault. */
static void image_sanitize(struct vcpu *c)
{
    u64 *header = ext_xstate_bv(c);
    u32 mxcsr;

    header[0] &= host.components;
    memset(&header[1], 0, 56);
    memcpy(&mxcsr, ext_area(c) + IMAGE_MXCSR, 4);
    mxcsr &= host.mxcsr_mask;
    memcpy(ext_area(c) + IMAGE_MXCSR, &mxcsr, 4);
}

/* AddressSanitizer's runtime, which it would call for the arrays here, uses the registers that are being moved. */
#define NO_SANITIZER __attribute__((no_sanitize_address))

NO_SANITIZER void ext_load_slow(struct vcpu *c)
{
    image_sanitize(c);
    if (direct(c)) {
        host_xrstor(c->s.xsave, host.components);
    } else {
        _Alignas(64) u8 area[HOST_AREA_SIZE] = {0};

        copy_components(area, ext_area(c), true);
        host_xrstor(area, host.components);
    }
    c->ext_live = true;
}

/* Our own code gets default registers back: no guest's rounding mode, unmasked exceptions or full x87 stack. */
static void host_defaults(void)
{
    static const struct {
        _Alignas(64) u8 legacy[IMAGE_MXCSR];
        u32 mxcsr;
        u8 rest[HOST_AREA_SIZE - IMAGE_MXCSR - 4]; /* the CPU tries the whole area, though it loads nothing of it */
    } initial = {.mxcsr = MXCSR_RESET};

    host_xrstor(&initial, host.components);
}

/* The host's x87 pointers are addresses of our stubs: the guest's own instead. */
static void image_pointers(struct vcpu *c)
{
    u8 *area = ext_area(c);

    memcpy(area + IMAGE_FOP, &c->s.fop, 2);
    memcpy(area + IMAGE_FIP, &c->s.fip, 8);
    memcpy(area + IMAGE_FDP, &c->s.fdp, 8);
}

void ext_image_to_host(struct vcpu *c, u8 *to)
{
    image_sanitize(c);
    image_pointers(c);
    copy_components(to, ext_area(c), true);
}

void ext_image_from_host(struct vcpu *c, const u8 *from)
{
    copy_components(ext_area(c), from, false);
    image_sanitize(c);
    memset(ext_area(c) + IMAGE_SOFTWARE, 0, XSAVE_HEADER - IMAGE_SOFTWARE); /* the kernel's notes */
    memcpy(&c->s.fop, ext_area(c) + IMAGE_FOP, 2);
    memcpy(&c->s.fip, ext_area(c) + IMAGE_FIP, 8);
    memcpy(&c->s.fdp, ext_area(c) + IMAGE_FDP, 8);
}

NO_SANITIZER void ext_save_slow(struct vcpu *c)
{
    c->ext_live = false;
    if (direct(c)) {
        host_xsave(c->s.xsave, host.components);
        host_defaults();
    } else {
        _Alignas(64) u8 area[HOST_AREA_SIZE]; /* cleared by hand: a call might use the guest's registers */
        u64 *header = (u64 *)(area + XSAVE_HEADER);

        for (int n = 0; n < 8; n++)
            header[n] = 0;
        for (int at = IMAGE_RESERVED; at < XSAVE_HEADER; at += 8) /* XSAVE leaves these alone */
            *(volatile u64 *)(area + at) = 0;
        host_xsave(area, host.components);
        host_defaults();
        copy_components(ext_area(c), area, false);
    }
    image_pointers(c);
}

u64 ext_in_use(struct vcpu *c)
{
    ext_save(c);
    return (*ext_xstate_bv(c) & host.components) | (c->s.pkru ? BIT(XCOMP_PKRU) : 0);
}

static void image_u16(struct vcpu *c, int at, u16 val)
{
    memcpy(ext_area(c) + at, &val, 2);
}

static void x87_pointers_clear(struct vcpu *c)
{
    c->s.fip = c->s.fdp = 0;
    c->s.fcs = c->s.fds = c->s.fop = 0;
}

/* INIT leaves all but the x87 environment alone. */
static void image_init(struct vcpu *c)
{
    image_u16(c, IMAGE_FCW, 0x37f);
    image_u16(c, IMAGE_FSW, 0);
    image_u16(c, IMAGE_FTW, 0); /* all empty, in the abridged form */
}

static void image_reset(struct vcpu *c)
{
    u32 mxcsr = MXCSR_RESET;

    memset(ext_area(c), 0, XSAVE_AREA_SIZE);
    image_u16(c, IMAGE_FCW, 0x40);
    image_u16(c, IMAGE_FTW, 0xff); /* all valid, +0.0 */
    memcpy(ext_area(c) + IMAGE_MXCSR, &mxcsr, 4);
}

void ext_reset(struct vcpu *c, bool init_only)
{
    ext_save(c);
    if (init_only)
        image_init(c);
    else
        image_reset(c);
    *ext_xstate_bv(c) |= BIT(XCOMP_X87) | BIT(XCOMP_SSE);
    x87_pointers_clear(c);
}

/* Bytes 0–15, 16–31 and 32–63 of registers 0 to 15 are in three components; registers 16 to 31 are whole. SDM vol. 1
 * §13.5. */
struct vector_part {
    u32 at, offset, len;
    int component;
};

static int vector_parts(int n, struct vector_part part[3])
{
    u32 r = (u32)n;

    if (n >= 16) {
        part[0] = (struct vector_part){0, 1664 + 64 * (r - 16), 64, XCOMP_HI16_ZMM};
        return 1;
    }
    part[0] = (struct vector_part){0, 160 + 16 * r, 16, XCOMP_SSE};
    part[1] = (struct vector_part){16, 576 + 16 * r, 16, XCOMP_AVX};
    part[2] = (struct vector_part){32, 1152 + 32 * r, 32, XCOMP_ZMM_HI256};
    return 3;
}

void ext_vector_get(struct vcpu *c, int n, u8 out[64])
{
    struct vector_part part[3];
    int count = vector_parts(n, part);

    for (int p = 0; p < count; p++)
        memcpy(out + part[p].at, ext_area(c) + part[p].offset, part[p].len);
}

static bool all_zero(const u8 *p, u32 len)
{
    for (u32 n = 0; n < len; n++)
        if (p[n])
            return false;
    return true;
}

void ext_vector_set(struct vcpu *c, int n, const u8 in[64])
{
    struct vector_part part[3];
    int count = vector_parts(n, part);

    for (int p = 0; p < count; p++) {
        memcpy(ext_area(c) + part[p].offset, in + part[p].at, part[p].len);
        if (!all_zero(in + part[p].at, part[p].len))
            *ext_xstate_bv(c) |= BIT(part[p].component);
    }
}

u64 ext_opmask_get(struct vcpu *c, int n)
{
    u64 val;

    memcpy(&val, ext_area(c) + ext_components[XCOMP_OPMASK].offset + 8 * n, 8);
    return val;
}

void ext_opmask_set(struct vcpu *c, int n, u64 val)
{
    memcpy(ext_area(c) + ext_components[XCOMP_OPMASK].offset + 8 * n, &val, 8);
    if (val)
        *ext_xstate_bv(c) |= BIT(XCOMP_OPMASK);
}
