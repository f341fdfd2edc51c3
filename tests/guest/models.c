/* What a CPU model says of itself, and whether it holds together: CPUID's leaves among each other, features and those
 * that they stand on, control register bits and MSRs that come and go with features, reserved bits of MSRs, every MSR
 * number of the usual ranges read. Built for 64-bit and for 32-bit mode, and run as every model. SDM vol. 2 CPUID,
 * vol. 4 ch. 2. */
#ifdef __x86_64__
#include "guest.h"
typedef u64 word;
#define ARG(x) ((void *)(u64)(x))
#else
#include "guest32.h"
typedef u32 word;
#define ARG(x) ((void *)(u32)(x))
#endif

enum { EAX, EBX, ECX, EDX };

static u32 number;
static u64 value;
static void read_msr(void *arg) { value = rdmsr(number); }
static void write_msr(void *arg) { wrmsr(number, value); }
static void set_cr4(void *arg) { write_cr4((word)arg); }

static int rd(u32 msr) { number = msr; return catch_fault(read_msr, 0); }
static int wr(u32 msr, u64 v) { number = msr; value = v; return catch_fault(write_msr, 0); }

static u32 reg(u32 leaf, u32 sub, int r)
{
    u32 out[4];

    cpuid(leaf, sub, out);
    return out[r];
}

static int phys_bits(void)
{
    if (reg(0x80000000, 0, EAX) >= 0x80000008 && reg(0x80000000, 0, EAX) >> 31)
        return (int)(reg(0x80000008, 0, EAX) & 0xff);
    return feature(1, 0, EDX, 6) ? 36 : 32;
}

static bool text_printable(u32 first, int leaves)
{
    for (int n = 0; n < leaves * 4; n++)
        for (int k = 0; k < 4; k++) {
            u8 ch = (u8)(reg(first + (u32)n / 4, 0, n % 4) >> k * 8);

            if (ch && (ch < 32 || ch > 126))
                return false;
        }
    return true;
}

static void leaves(void)
{
    u32 max = reg(0, 0, EAX), ext = reg(0x80000000, 0, EAX), a[4], b[4], bad = 0;
    bool intel = reg(0, 0, EBX) == 0x756e6547;

    check((reg(1, 0, EAX) >> 8 & 15) >= 4, "family %x", reg(1, 0, EAX) >> 8 & 15);
    if (intel && !(ext >> 31)) { /* no extended leaves: they answer as the last basic one */
        cpuid(max, 0, a);
        cpuid(0x80000000, 0, b);
        check(a[0] == b[0] && a[1] == b[1], "no extended leaves");
    }
    if (intel) {
        cpuid(max, 0, a);
        cpuid(max + 1, 0, b);
        check(a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3],
              "beyond the last basic leaf comes that leaf again");
    }
    if (ext >> 31 && ext >= 0x80000004)
        check(text_printable(0x80000002, 3), "the brand is text");
    for (u32 leaf = 0; leaf <= max; leaf++) {
        if (leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd)
            continue;
        cpuid(leaf, 0, a);
        cpuid(leaf, 0x1234, b);
        bad += a[0] != b[0] || a[1] != b[1] || a[2] != b[2] || a[3] != b[3];
    }
    check(!bad, "ECX counts in leaves 4, 7, B and D alone");
    if (max >= 7) {
        cpuid(7, reg(7, 0, EAX) + 1, a);
        check(!(a[0] | a[1] | a[2] | a[3]), "leaf 7 beyond its last subleaf is zero");
    }
    if (ext >> 31 && ext >= 0x80000008)
        check((reg(0x80000008, 0, EAX) & 0xff) >= 32 && (reg(0x80000008, 0, EAX) >> 8 & 0xff) == 48, "address sizes %x",
              reg(0x80000008, 0, EAX));
}

static void caches_and_topology(void)
{
    u32 max = reg(0, 0, EAX), n, a[4], id = reg(1, 0, EBX) >> 24;
    bool right = true;

    if (max >= 4 && reg(4, 0, EAX) & 31) {
        for (n = 0; n < 16 && reg(4, n, EAX) & 31; n++) {
            cpuid(4, n, a);
            right &= (a[EAX] >> 5 & 7) >= 1 && (a[EBX] & 0xfff) == 63;
        }
        check(n >= 2 && n < 16 && right, "leaf 4: %u caches", n);
    }
    if (max >= 0xb && reg(0xb, 0, EBX)) {
        for (n = 0; n < 8 && reg(0xb, n, ECX) >> 8 & 0xff; n++) {
            cpuid(0xb, n, a);
            right &= (a[ECX] & 0xff) == n && a[EDX] == id;
        }
        check(n >= 1 && n < 8 && right && reg(0xb, n, EBX) == 0, "leaf B: %u levels, APIC id %u", n, id);
        check(reg(0xb, 100, ECX) == 100 && reg(0xb, 100, EDX) == id, "beyond them: the subleaf and the id");
    }
}

static const struct {
    const char *name;
    u32 leaf, sub, reg, bit, on_leaf, on_sub, on_reg, on_bit;
} stands_on[] = {
    {"SSE on FXSR", 1, 0, EDX, 25, 1, 0, EDX, 24},
    {"FXSR on MMX", 1, 0, EDX, 24, 1, 0, EDX, 23},
    {"SSE2 on SSE", 1, 0, EDX, 26, 1, 0, EDX, 25},
    {"SSE3 on SSE2", 1, 0, ECX, 0, 1, 0, EDX, 26},
    {"SSSE3 on SSE3", 1, 0, ECX, 9, 1, 0, ECX, 0},
    {"SSE4.1 on SSSE3", 1, 0, ECX, 19, 1, 0, ECX, 9},
    {"SSE4.2 on SSE4.1", 1, 0, ECX, 20, 1, 0, ECX, 19},
    {"AVX on XSAVE", 1, 0, ECX, 28, 1, 0, ECX, 26},
    {"AVX on SSE4.2", 1, 0, ECX, 28, 1, 0, ECX, 20},
    {"FMA on AVX", 1, 0, ECX, 12, 1, 0, ECX, 28},
    {"F16C on AVX", 1, 0, ECX, 29, 1, 0, ECX, 28},
    {"AVX2 on AVX", 7, 0, EBX, 5, 1, 0, ECX, 28},
    {"AVX512F on AVX2", 7, 0, EBX, 16, 7, 0, EBX, 5},
    {"AVX512BW on AVX512F", 7, 0, EBX, 30, 7, 0, EBX, 16},
    {"AVX512VL on AVX512F", 7, 0, EBX, 31, 7, 0, EBX, 16},
    {"AVX512DQ on AVX512F", 7, 0, EBX, 17, 7, 0, EBX, 16},
    {"VAES on AVX", 7, 0, ECX, 9, 1, 0, ECX, 28},
    {"VPCLMULQDQ on AVX", 7, 0, ECX, 10, 1, 0, ECX, 28},
    {"AES on SSE2", 1, 0, ECX, 25, 1, 0, EDX, 26},
    {"XSAVEOPT on XSAVE", 13, 1, EAX, 0, 1, 0, ECX, 26},
    {"XSAVEC on XSAVE", 13, 1, EAX, 1, 1, 0, ECX, 26},
    {"PKU on XSAVE", 7, 0, ECX, 3, 1, 0, ECX, 26},
    {"PSE36 on PSE", 1, 0, EDX, 17, 1, 0, EDX, 3},
    {"NX on PAE", 0x80000001, 0, EDX, 20, 1, 0, EDX, 6},
    {"long mode on PAE", 0x80000001, 0, EDX, 29, 1, 0, EDX, 6},
    {"long mode on PGE", 0x80000001, 0, EDX, 29, 1, 0, EDX, 13},
    {"long mode on SSE2", 0x80000001, 0, EDX, 29, 1, 0, EDX, 26},
    {"1 GiB pages on long mode", 0x80000001, 0, EDX, 26, 0x80000001, 0, EDX, 29},
    {"PCID on long mode", 1, 0, ECX, 17, 0x80000001, 0, EDX, 29},
    {"INVPCID on PCID", 7, 0, EBX, 10, 1, 0, ECX, 17},
    {"CMPXCHG16B on CMPXCHG8B", 1, 0, ECX, 13, 1, 0, EDX, 8},
    {"x2APIC on APIC", 1, 0, ECX, 21, 1, 0, EDX, 9},
    {"TSC deadline on APIC", 1, 0, ECX, 24, 1, 0, EDX, 9},
    {"APIC on MSRs", 1, 0, EDX, 9, 1, 0, EDX, 5},
    {"TSC_ADJUST on TSC", 7, 0, EBX, 1, 1, 0, EDX, 4},
    {"RDTSCP on TSC", 0x80000001, 0, EDX, 27, 1, 0, EDX, 4},
    {"MCA on MCE", 1, 0, EDX, 14, 1, 0, EDX, 7},
};

static void dependencies(void)
{
    u32 broken = 0;

    for (u32 n = 0; n < sizeof(stands_on) / sizeof(stands_on[0]); n++) {
        bool has = feature(stands_on[n].leaf, stands_on[n].sub, (int)stands_on[n].reg, (int)stands_on[n].bit);
        bool on =
            feature(stands_on[n].on_leaf, stands_on[n].on_sub, (int)stands_on[n].on_reg, (int)stands_on[n].on_bit);

        if (has && !on) {
            broken++;
            print("     %s\n", stands_on[n].name);
        }
    }
    check(!broken, "every feature has what it stands on");
}

/* Bits that exist with their feature and raise #GP without. */
static void control_bits(void)
{
    static const struct {
        u32 cr4_bit, leaf, reg, bit;
    } bits[] = {{0, 1, EDX, 1},   {2, 1, EDX, 4},   {3, 1, EDX, 2},   {4, 1, EDX, 3},   {6, 1, EDX, 7},
                {7, 1, EDX, 13},  {9, 1, EDX, 24},  {10, 1, EDX, 25}, {11, 7, ECX, 2},  {12, 7, ECX, 16},
                {13, 1, ECX, 5},  {16, 7, EBX, 0},  {18, 1, ECX, 26}, {20, 7, EBX, 7},  {21, 7, EBX, 20},
                {22, 7, ECX, 3},  {23, 7, ECX, 7},  {24, 7, ECX, 31}, {15, 0x77, 0, 0}, {19, 7, ECX, 23},
                {25, 7, EDX, 5},  {30, 0x77, 0, 0}, {31, 0x77, 0, 0}};
    word was = read_cr4();

    for (u32 n = 0; n < sizeof(bits) / sizeof(bits[0]); n++) {
        bool shown = feature(bits[n].leaf, 0, (int)bits[n].reg, (int)bits[n].bit);
        int got = catch_fault(set_cr4, ARG(was | (word)1 << bits[n].cr4_bit)), got2;
        bool kept = read_cr4() >> bits[n].cr4_bit & 1;

        got2 = catch_fault(set_cr4, ARG(was));
        if (shown ? got != -1 || !kept : got != 13 && !(was >> bits[n].cr4_bit & 1))
            check(false, "CR4 bit %u, %s: vector %d %d", bits[n].cr4_bit, shown ? "shown" : "hidden", got, got2);
    }
    check(read_cr4() == was, "CR4's bits come and go with their features");
}

static void xsave_sizes(void)
{
    u32 a[4], all, offset = 576, most = 576;
    bool right = true;

    if (!feature(1, 0, ECX, 26))
        return;
    write_cr4(read_cr4() | 0x40000);
    cpuid(13, 0, a);
    all = a[EAX];
    asm volatile("xsetbv" : : "c"(0), "a"(all), "d"(0));
    cpuid(13, 0, a);
    for (u32 n = 2; n < 32; n++) {
        u32 c[4];

        cpuid(13, n, c);
        if (!(all >> n & 1)) {
            right &= !c[EAX] && !c[EBX];
            continue;
        }
        right &= c[EAX] && c[EBX] >= offset && !(c[ECX] & 1);
        offset = c[EBX] + c[EAX];
        most = offset;
    }
    check(right && a[EBX] == most && a[ECX] == most, "leaf D: components %x, area %u", all, a[EBX]);
    if (feature(13, 1, EAX, 1)) {
        u32 sum = 576;

        for (u32 n = 2; n < 32; n++)
            sum += all >> n & 1 ? reg(13, n, EAX) : 0;
        check(reg(13, 1, EBX) == sum, "compacted: %u", reg(13, 1, EBX));
    }
}

static const struct {
    const char *name;
    u32 msr, leaf, reg, bit;
} msr_features[] = {
    {"TSC", 0x10, 1, EDX, 4},           {"APIC_BASE", 0x1b, 1, EDX, 9},       {"TSC_ADJUST", 0x3b, 7, EBX, 1},
    {"MTRRCAP", 0xfe, 1, EDX, 12},      {"SYSENTER_CS", 0x174, 1, EDX, 11},   {"MCG_CAP", 0x179, 1, EDX, 14},
    {"PHYSBASE0", 0x200, 1, EDX, 12},   {"PAT", 0x277, 1, EDX, 16},           {"DEF_TYPE", 0x2ff, 1, EDX, 12},
    {"TSC_DEADLINE", 0x6e0, 1, ECX, 24}, {"XSS", 0xda0, 0x77, 0, 0},          {"SPEC_CTRL", 0x48, 7, EDX, 26},
    {"ARCH_CAPABILITIES", 0x10a, 7, EDX, 29}, {"LSTAR", 0xc0000082, 0x80000001, EDX, 29},
    {"FS_BASE", 0xc0000100, 0x80000001, EDX, 29}, {"TSC_AUX", 0xc0000103, 0x80000001, EDX, 27},
    {"VMX_BASIC", 0x480, 1, ECX, 5},    {"PERF_GLOBAL_CTRL", 0x38f, 0x77, 0, 0},
};

static void msr_presence(void)
{
    for (u32 n = 0; n < sizeof(msr_features) / sizeof(msr_features[0]); n++) {
        bool shown = feature(msr_features[n].leaf, 0, (int)msr_features[n].reg, (int)msr_features[n].bit);
        int got = rd(msr_features[n].msr);

        if (msr_features[n].msr == 0x1b && got == -1) /* CPUID hides the APIC while it is disabled */
            continue;
        check(got == (shown ? -1 : 13), "%s, %s: vector %d", msr_features[n].name, shown ? "shown" : "hidden", got);
    }
}

static bool spared(u32 msr)
{
    return msr == 0x10 || msr == 0x1b || msr == 0x3b || msr == 0xc0000080 || msr == 0x6e0;
}

static void msr_ranges(void)
{
    static const u32 ranges[][2] = {{0, 0x2000},
                                    {0xc0000000, 0xc0002000},
                                    {0xc0010000, 0xc0012000},
                                    {0x40000000, 0x40000200},
                                    {0x4b564d00, 0x4b564d10},
                                    {0xfffffff0, 0xffffffff}};
    u32 found = 0, odd = 0, changed = 0;

    for (u32 r = 0; r < sizeof(ranges) / sizeof(ranges[0]); r++)
        for (u32 msr = ranges[r][0]; msr < ranges[r][1]; msr++) {
            int got = rd(msr), put;
            u64 was = value;

            odd += got != -1 && !(got == 13 && caught.error == 0);
            found += got == -1;
            if (got != -1 || spared(msr))
                continue;
            put = wr(msr, was);
            odd += put != -1 && !(put == 13 && caught.error == 0);
            changed += rd(msr) != -1 || value != was;
        }
    check(!odd, "reads and writes of any MSR complete or raise #GP(0)");
    check(!changed, "%u MSRs can be read; written back they keep their value", found);
}

/* Each with a value that no processor takes. */
static void msr_reserved(void)
{
    int bits = phys_bits();

    if (feature(1, 0, EDX, 9)) {
        rd(0x1b);
        check(wr(0x1b, value | 1) == 13 && wr(0x1b, value | 0x200) == 13, "APIC_BASE with reserved low bits: #GP");
        rd(0x1b);
        check(wr(0x1b, value | 1ull << bits) == 13, "APIC_BASE beyond %d address bits: #GP", bits);
        rd(0x1b);
        if (!feature(1, 0, ECX, 21))
            check(wr(0x1b, value | 0x400) == 13, "x2APIC mode without the feature: #GP");
    }
    if (feature(1, 0, EDX, 12)) {
        rd(0xfe);
        check((value & 0xff) >= 1 && (value & 0xff) <= 10, "%u variable ranges", (u32)value & 0xff);
        u32 count = (u32)value & 0xff;
        check(rd(0x200 + count * 2) == 13, "and no more");
        check(wr(0x200, 2) == 13 && wr(0x200, 0x806) == 13 && wr(0x200, 6 | 1ull << bits) == 13 &&
                  wr(0x200, 0x1006) == -1,
              "PHYSBASE: types and address bits");
        check(wr(0x201, 0x400) == 13 && wr(0x201, 1ull << bits) == 13 && wr(0x201, 0) == -1, "PHYSMASK: reserved bits");
        wr(0x200, 0);
        rd(0x2ff);
        u64 was = value;
        check(wr(0x2ff, was | 0x100) == 13 && wr(0x2ff, (was & ~0xffull) | 2) == 13 &&
                  wr(0x2ff, was | 1ull << 40) == 13,
              "DEF_TYPE: reserved bits and types");
        check(wr(0x250, 0x0202020202020202) == 13 && wr(0x26f, 7) == 13, "fixed ranges: types");
        check(wr(0xfe, 0x508) == 13, "MTRRCAP is read-only");
    }
    if (feature(1, 0, EDX, 14)) {
        rd(0x179);
        check(wr(0x179, value) == 13, "MCG_CAP is read-only");
        check(wr(0x17a, 8) == 13 && wr(0x17a, 0) == -1, "MCG_STATUS: three bits");
    }
    if (feature(7, 0, EDX, 26))
        check(wr(0x48, 1ull << 63) == 13 && wr(0x49, 2) == 13 && rd(0x49) == 13 && wr(0x49, 1) == -1,
              "SPEC_CTRL, and PRED_CMD that cannot be read");
    if (rd(0xc0000080) == -1) {
        u64 was = value;

        check(wr(0xc0000080, was | 1ull << 20) == 13, "EFER with a reserved bit: #GP");
        check((wr(0xc0000080, was | 0x800) == -1) == feature(0x80000001, 0, EDX, 20), "EFER.NXE and its feature");
        wr(0xc0000080, was);
    } else {
        check(!feature(0x80000001, 0, EDX, 29) && !feature(0x80000001, 0, EDX, 20),
              "no EFER: neither long mode nor NX");
    }
}

void guest_main(void)
{
    leaves();
    caches_and_topology();
    dependencies();
    control_bits();
    xsave_sizes();
    if (!feature(1, 0, EDX, 5)) {
        check(rd(0x10) == 6 && wr(0x10, 0) == 6, "no MSRs: RDMSR and WRMSR are undefined");
        return;
    }
    msr_presence();
    msr_ranges();
    msr_reserved();
}
