/* Hostile code: random bytes in any mode, on random registers and control bits, with page tables that show RAM, ROM, device
 * pages and nothing. The engine may raise what it likes; it may neither crash nor touch what is not the guest's.
 *
 * The input: mode, control bits, which general registers hold what, extended registers, and the code. Code runs a step at a
 * time, which is repeatable, and then freely, which is how blocks run. Exceptions halt it. */
#include "cpu_world.h"

#include "cpu/descriptor.h"
#include "cpu/exception.h"
#include "cpu/interp.h"
#include "cpu/tlb.h"
#include "cpu/xstate.h"

#include <string.h>

enum { REAL, V86, FLAT16, FLAT32, COMPAT, LONG, MODES };
enum { TABLES = 0x10000, GDT = 0x1000, IDT = 0x2000, TSS = 0x3000, CODE = 0x5ff0, HANDLER = 0x6800, STACK = 0x8000, STEPS = 24, INPUT_USED = 200 };

static void put(struct vcpu *c, u64 gpa, const void *data, u64 len)
{
    guest_memory_write(vcpu_memory(c), gpa, data, len);
}

static void put8(struct vcpu *c, u64 gpa, u64 val)
{
    put(c, gpa, &val, 8);
}

/* 4-level tables for 64-bit mode at TABLES, PAE tables the same from the second level on: linear 0–0x1fffff as it is but
 * where the input wants another page, 0x200000 a large page of holes. */
static void tables_put(struct vcpu *c, struct fuzz_input *in)
{
    put8(c, TABLES, (TABLES + 0x1000) | 7);
    put8(c, TABLES + 0xff8, (TABLES + 0x1000) | 7);
    put8(c, TABLES + 0x1000, (TABLES + 0x2000) | (long_mode(c) ? 7 : 1));
    put8(c, TABLES + 0x2000, (TABLES + 0x3000) | 7);
    put8(c, TABLES + 0x2008, 0x200087);
    for (u64 n = 0; n < 0x60; n++)
        put8(c, TABLES + 0x3000 + n * 8, n << 12 | 7);
    for (int n = (int)take(in, 1) % 8; n; n--)
        put8(c, TABLES + 0x3000 + (take(in, 1) % 0x60) * 8, take(in, 1) << 56 | (take(in, 1) % 0x60) << 12 | take(in, 1));
}

static u64 descriptor(u32 access, u32 flags)
{
    return 0xffff | (u64)access << 40 | 0xfull << 48 | (u64)flags << 52;
}

static void descriptors_put(struct vcpu *c)
{
    static const u8 access[] = {0, 0x9a, 0x92, 0xfa, 0xf2, 0x9a, 0x92, 0xfa, 0xf2, 0x9a, 0xfa};
    static const u8 flags[] = {0, 0xc, 0xc, 0xc, 0xc, 0, 0, 0, 0, 0xa, 0xa};

    for (u32 n = 0; n < ARRAY_SIZE(access); n++)
        put8(c, GDT + n * 8, descriptor(access[n], flags[n]));
    put8(c, GDT + 0x60, 0x67ull | (u64)(TSS & 0xffffff) << 16 | 0x89ull << 40);
    put8(c, TSS + 4, STACK);
    for (u32 n = 0; n < 256; n++) {
        u32 size = long_mode(c) ? 16 : 8, sel = long_mode(c) ? 0x48 : 0x08;

        put8(c, IDT + n * size, HANDLER | sel << 16 | 0xeeull << 40);
    }
    if (!protected_mode(c))
        for (u32 n = 0; n < 256; n++)
            put(c, n * 4, &(u32){HANDLER}, 4);
    c->s.gdtr_base = GDT;
    c->s.gdtr_limit = 0x7f;
    c->s.idtr_base = IDT;
    c->s.idtr_limit = 0xfff;
}

static void segment_put(struct vcpu *c, int seg, u16 sel)
{
    struct descriptor d;
    u64 raw;

    guest_memory_read(vcpu_memory(c), GDT + (sel & ~7u), &raw, 8);
    descriptor_parse(&d, raw);
    d.attr |= SEG_A;
    segment_set(c, seg, sel, &d);
}

static void segments_put(struct vcpu *c, u16 code, u16 data)
{
    segment_put(c, SEG_CS, code);
    for (int seg = 0; seg < 6; seg++)
        if (seg != SEG_CS)
            segment_put(c, seg, data);
    segment_put(c, SEG_TR, 0x60);
    c->s.seg_attr[SEG_TR] |= 2; /* busy */
    c->s.cpl = code & 3;
}

static void mode_set(struct vcpu *c, int mode, bool user, bool paging)
{
    static const u16 code[MODES] = {[FLAT16] = 0x28, [FLAT32] = 0x08, [COMPAT] = 0x08, [LONG] = 0x48};

    if (mode == REAL || mode == V86) {
        for (int seg = 0; seg < 6; seg++) {
            c->s.seg_sel[seg] = 0;
            c->s.seg_base[seg] = 0;
        }
        c->s.seg_attr[SEG_CS] = c->s.seg_attr[SEG_DS] | (mode == V86 ? SEG_DPL : 0);
    } else {
        segments_put(c, (u16)(code[mode] + (user ? (mode == LONG ? 0x8 : 0x10) + 3 : 0)),
                     (u16)((mode == FLAT16 ? 0x30 : 0x10) + (user ? 0x13 : 0)));
    }
    if (mode != REAL)
        c->s.cr0 |= CR0_PE;
    if (paging)
        c->s.cr0 |= CR0_PG;
    if (mode == V86) {
        c->s.rflags |= FLAG_VM;
        c->s.cpl = 3;
        for (int seg = 0; seg < 6; seg++)
            c->s.seg_attr[seg] = SEG_P | SEG_S | SEG_W | SEG_A | SEG_DPL;
    }
}

/* Control bits that guests can have: what MOV to CR would refuse is left out. */
static void control_set(struct vcpu *c, struct fuzz_input *in)
{
    u32 cr4 = (u32)take(in, 3), cr0 = (u32)take(in, 1);

    c->s.cr4 = cr4 & (CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_UMIP | CR4_FSGSBASE | CR4_OSXSAVE);
    c->s.cr4 |= CR4_PAE | (cr4 & 0x80000 ? CR4_SMEP | CR4_SMAP : 0);
    c->s.cr0 = CR0_ET | (cr0 & (CR0_MP | CR0_EM | CR0_TS | CR0_NE)) | (cr0 & 0x40 ? CR0_WP : 0) | (cr0 & 0x80 ? CR0_AM : 0);
    if (c->s.cr4 & CR4_OSXSAVE && cr0 & 1)
        c->s.xcr0 = ext_host_components() & (cr0 & 0x10 ? 7 : ~0ull);
}

static u64 register_choose(struct fuzz_input *in)
{
    static const u64 odd[] = {0,         1,           ~0ull,        0x1fff8,   0x1ffff,       0x20000,       WORLD_ROM,
                              0x33ffc,   WORLD_MORE,  0x53fff,      0x200000,  WORLD_HIGH,    0xfee00000,    0xfee00300,
                              CODE,      CODE + 8,    STACK,        TABLES,    TABLES + 0x3020, 0x7fffffffffff, 0x800000000000,
                              1ull << 63, 0x7fffffff, 0x80000000,   0xffffffff, 0xffff,       0x6000,        64};
    u8 how = (u8)take(in, 1);

    if (how == 0xff)
        return take(in, 8);
    return how < 0xc0 ? odd[how % ARRAY_SIZE(odd)] : take(in, 2);
}

static void registers_set(struct vcpu *c, struct fuzz_input *in)
{
    u8 x = (u8)take(in, 1);

    for (int n = 0; n < 16; n++)
        c->s.gpr[n] = n == RSP ? STACK - 0x100 : register_choose(in);
    c->s.gpr[RIP] = CODE + x % 32;
    flags_load(c, (c->s.rflags & FLAG_VM) | (take(in, 3) & ~(u64)FLAG_VM) | FLAG_1);
    ext_save(c);
    memset(c->s.xsave, x, 416);
    ((u16 *)c->s.xsave)[0] = (u16)(take(in, 2) | 0x40);
    ((u32 *)c->s.xsave)[6] = (u32)take(in, 2);
    *ext_xstate_bv(c) = c->s.xcr0 & 3;
}

static void start(struct fuzz_input *in, struct vcpu *c)
{
    u8 mode = (u8)take(in, 1) % 8;
    bool user = take(in, 1) & 1, paging = take(in, 1) & 1;
    u8 code[64];

    mode = mode < MODES ? mode : LONG;
    control_set(c, in);
    if (mode == COMPAT || mode == LONG)
        c->s.efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
    paging = mode != REAL && (paging || long_mode(c));
    tables_put(c, in);
    descriptors_put(c);
    c->s.cr3 = long_mode(c) ? TABLES : TABLES + 0x1000;
    c->s.pdpte[0] = (TABLES + 0x2000) | 1;
    mode_set(c, mode, user, paging);
    vcpu_mode_update(c);
    tlb_flush(c);
    registers_set(c, in);
    for (size_t i = 0; i < sizeof(code); i++)
        code[i] = (u8)take(in, 1);
    put(c, CODE, code, sizeof(code));
    put(c, HANDLER, "\xf4", 1);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct fuzz_input in = {data, MIN(size, (size_t)INPUT_USED)}, again = in;
    struct vcpu *c = cpu_world();

    start(&in, c);
    for (int n = 0; n < STEPS && c->s.activity == VCPU_ACTIVE; n++)
        interp_step(c);
    cpu_world_check();
    c = cpu_world();
    start(&again, c);
    cpu_world_run(2);
    cpu_world_check();
    return 0;
}
