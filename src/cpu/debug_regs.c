/* Registers for debuggers, from one table: see debug_regs.h. */
#include "cpu/debug_regs.h"

#include <stdio.h>
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/descriptor.h"
#include "cpu/exec_system.h"
#include "cpu/exception.h"
#include "cpu/msr.h"
#include "cpu/segment.h"
#include "cpu/xstate.h"

/* Registers of one kind. Numbers of up to eight bytes have get and set, wider ones the other pair; without either set they
 * are read-only. `index` counts within the row, from `first`. */
struct register_row {
    const char *const *names; /* of each; NULL: prefix, number from `first`, suffix */
    const char *prefix, *suffix;
    u8 archs;   /* bits 1 << enum debug_arch; 0: all */
    u8 feature, type;
    u8 bytes;   /* 0: 4 or 8, as wide as the architecture */
    u8 first, count;
    u64 (*get)(struct vcpu *c, int index);
    bool (*set)(struct vcpu *c, int index, u64 val);
    void (*get_bytes)(struct vcpu *c, int index, u8 *out);
    void (*set_bytes)(struct vcpu *c, int index, const u8 *in);
};

/* Runs what may raise; false if it did. Nothing has changed then but CR2, which is put back. */
static __attribute__((noinline)) bool accepted(struct vcpu *c, void (*load)(struct vcpu *c, int n, u64 val), int n, u64 val)
{
    if (__builtin_setjmp(c->fault_jump))
        return false;
    load(c, n, val);
    return true;
}

static bool try_load(struct vcpu *c, void (*load)(struct vcpu *c, int n, u64 val), int n, u64 val)
{
    u64 cr2 = c->s.cr2;

    if (accepted(c, load, n, val))
        return true;
    c->s.cr2 = cr2;
    return false;
}

/* General registers, RIP, RFLAGS. */

static const char *const gpr32[] = {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"};
static const char *const gpr64[] = {"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp",
                                    "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
static const u8 gpr64_order[] = {RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8, R9, R10, R11, R12, R13, R14, R15};

static u64 gpr32_get(struct vcpu *c, int n)
{
    return c->s.gpr[n];
}

static bool gpr32_set(struct vcpu *c, int n, u64 val)
{
    c->s.gpr[n] = val;
    return true;
}

static u64 gpr64_get(struct vcpu *c, int n)
{
    return c->s.gpr[gpr64_order[n]];
}

static bool gpr64_set(struct vcpu *c, int n, u64 val)
{
    c->s.gpr[gpr64_order[n]] = val;
    return true;
}

static u64 rip_get(struct vcpu *c, int n)
{
    return c->s.gpr[RIP];
}

static bool rip_set(struct vcpu *c, int n, u64 val)
{
    if (!code64(c))
        val = (u32)val;
    if (!canonical(val))
        return false;
    c->s.gpr[RIP] = val;
    return true;
}

static u64 flags_read(struct vcpu *c, int n)
{
    return flags_get(c);
}

/* VM stays: it goes with segments and CPL. */
#define FLAGS_SETTABLE                                                                                                   \
    (FLAGS_ARITH | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT | FLAG_RF | FLAG_AC | FLAG_VIF | FLAG_VIP | FLAG_ID)

static bool flags_write(struct vcpu *c, int n, u64 val)
{
    if ((val ^ flags_get(c)) & FLAG_VM)
        return false;
    flags_load(c, (flags_get(c) & ~(u64)FLAGS_SETTABLE) | (val & FLAGS_SETTABLE));
    return true;
}

/* Segments. */

static const char *const selectors[] = {"cs", "ss", "ds", "es", "fs", "gs"};
static const u8 selector_order[] = {SEG_CS, SEG_SS, SEG_DS, SEG_ES, SEG_FS, SEG_GS};

static u64 selector_get(struct vcpu *c, int n)
{
    return c->s.seg_sel[selector_order[n]];
}

/* CS at the privilege that there is: a debugger changes where the program runs, not what it may do. */
static void code_load(struct vcpu *c, int seg, u64 sel)
{
    struct descriptor d;

    if (!protected_mode(c) || v86_mode(c)) {
        segment_load_real(c, SEG_CS, (u16)sel);
        return;
    }
    if (selector_null((u16)sel) || !descriptor_read(c, (u16)sel, &d) || !attr_is_code(d.attr) || !(d.attr & SEG_P) ||
        !code_size_valid(c, d.attr))
        raise_gp0(c);
    if ((int)(sel & 3) != c->s.cpl || (attr_is_conforming(d.attr) ? attr_dpl(d.attr) > c->s.cpl : attr_dpl(d.attr) != c->s.cpl))
        raise_gp0(c);
    if (!code_offset_valid(c, &d, c->s.gpr[RIP]))
        raise_gp0(c);
    segment_set(c, SEG_CS, (u16)sel, &d);
    vcpu_mode_update(c);
}

static void data_load(struct vcpu *c, int seg, u64 sel)
{
    segment_load(c, seg, (u16)sel);
}

/* A write of what is there does not load it anew: the table may have changed since. */
static bool selector_set(struct vcpu *c, int n, u64 val)
{
    int seg = selector_order[n];

    if (val >> 16)
        return false;
    if (val == c->s.seg_sel[seg])
        return true;
    return try_load(c, seg == SEG_CS ? code_load : data_load, seg, val);
}

static const char *const fs_gs_bases[] = {"fs_base", "gs_base"};
static const char *const bases[] = {"es_base", "cs_base", "ss_base", "ds_base"};

static u64 base_get(struct vcpu *c, int n)
{
    return c->s.seg_base[n];
}

static u64 fs_gs_base_get(struct vcpu *c, int n)
{
    return c->s.seg_base[SEG_FS + n];
}

static bool fs_gs_base_set(struct vcpu *c, int n, u64 val)
{
    if (long_mode(c) ? !canonical(val) : val >> 32)
        return false;
    segment_base_set(c, SEG_FS + n, val);
    return true;
}

/* x87: the image of FXSAVE. */

enum { IMAGE_FCW = 0, IMAGE_FSW = 2, IMAGE_FTW = 4, IMAGE_MXCSR = 24, IMAGE_ST = 32 };

static const char *const x87_controls[] = {"fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"};
enum { FCTRL, FSTAT, FTAG, FISEG, FIOFF, FOSEG, FOOFF, FOP };

static u16 image_u16(struct vcpu *c, int at)
{
    u16 val;

    memcpy(&val, ext_area(c) + at, 2);
    return val;
}

static void image_u16_put(struct vcpu *c, int at, u16 val)
{
    memcpy(ext_area(c) + at, &val, 2);
    *ext_xstate_bv(c) |= BIT(XCOMP_X87);
}

static void st_get(struct vcpu *c, int n, u8 *out)
{
    memcpy(out, ext_area(c) + IMAGE_ST + 16 * n, 10);
}

static void st_set(struct vcpu *c, int n, const u8 *in)
{
    memcpy(ext_area(c) + IMAGE_ST + 16 * n, in, 10);
    *ext_xstate_bv(c) |= BIT(XCOMP_X87);
}

/* The full tag of a register that is not empty: 0 valid, 1 zero, 2 special. SDM vol. 1 §8.1.7. */
static u16 x87_tag(const u8 *st)
{
    u64 mantissa;
    u16 exponent;

    memcpy(&mantissa, st, 8);
    memcpy(&exponent, st + 8, 2);
    exponent &= 0x7fff;
    if (!exponent && !mantissa)
        return 1;
    return !exponent || exponent == 0x7fff || !(mantissa >> 63) ? 2 : 0;
}

static u16 x87_tags(struct vcpu *c)
{
    int top = image_u16(c, IMAGE_FSW) >> 11 & 7;
    u16 used = image_u16(c, IMAGE_FTW), tags = 0;

    for (int r = 0; r < 8; r++)
        tags |= (u16)((used >> r & 1 ? x87_tag(ext_area(c) + IMAGE_ST + 16 * ((r - top) & 7)) : 3) << 2 * r);
    return tags;
}

static void x87_tags_put(struct vcpu *c, u64 tags)
{
    u16 used = 0;

    for (int r = 0; r < 8; r++)
        used |= (u16)(((tags >> 2 * r & 3) != 3) << r);
    image_u16_put(c, IMAGE_FTW, used);
}

static u64 x87_control_get(struct vcpu *c, int n)
{
    switch (n) {
    case FCTRL: return image_u16(c, IMAGE_FCW);
    case FSTAT: return image_u16(c, IMAGE_FSW);
    case FTAG: return x87_tags(c);
    case FISEG: return code64(c) ? c->s.fip >> 32 : c->s.fcs;
    case FIOFF: return (u32)c->s.fip;
    case FOSEG: return code64(c) ? c->s.fdp >> 32 : c->s.fds;
    case FOOFF: return (u32)c->s.fdp;
    default: return c->s.fop;
    }
}

/* The upper half of a pointer, or its selector. */
static void pointer_segment_set(struct vcpu *c, u64 *pointer, u16 *sel, u64 val)
{
    if (code64(c))
        *pointer = (*pointer & 0xffffffff) | val << 32;
    else
        *sel = (u16)val;
}

static bool x87_control_set(struct vcpu *c, int n, u64 val)
{
    switch (n) {
    case FCTRL: image_u16_put(c, IMAGE_FCW, (u16)val); break;
    case FSTAT: image_u16_put(c, IMAGE_FSW, (u16)val); break;
    case FTAG: x87_tags_put(c, val); break;
    case FISEG: pointer_segment_set(c, &c->s.fip, &c->s.fcs, val); break;
    case FIOFF: c->s.fip = (c->s.fip & ~0xffffffffull) | (u32)val; break;
    case FOSEG: pointer_segment_set(c, &c->s.fdp, &c->s.fds, val); break;
    case FOOFF: c->s.fdp = (c->s.fdp & ~0xffffffffull) | (u32)val; break;
    default: c->s.fop = val & 0x7ff; break;
    }
    c->s.fip = ext_canonical(c->s.fip);
    c->s.fdp = ext_canonical(c->s.fdp);
    return true;
}

/* Vector registers, in the pieces that gdb joins. */

static void vector_part_get(struct vcpu *c, int n, u8 *out, u32 at, u32 len)
{
    u8 all[64];

    ext_vector_get(c, n, all);
    memcpy(out, all + at, len);
}

static void vector_part_set(struct vcpu *c, int n, const u8 *in, u32 at, u32 len)
{
    u8 all[64];

    ext_vector_get(c, n, all);
    memcpy(all + at, in, len);
    ext_vector_set(c, n, all);
}

static void xmm_get(struct vcpu *c, int n, u8 *out) { vector_part_get(c, n, out, 0, 16); }
static void xmm_set(struct vcpu *c, int n, const u8 *in) { vector_part_set(c, n, in, 0, 16); }
static void ymmh_get(struct vcpu *c, int n, u8 *out) { vector_part_get(c, n, out, 16, 16); }
static void ymmh_set(struct vcpu *c, int n, const u8 *in) { vector_part_set(c, n, in, 16, 16); }
static void zmmh_get(struct vcpu *c, int n, u8 *out) { vector_part_get(c, n, out, 32, 32); }
static void zmmh_set(struct vcpu *c, int n, const u8 *in) { vector_part_set(c, n, in, 32, 32); }

static u64 opmask_get(struct vcpu *c, int n)
{
    return ext_opmask_get(c, n);
}

static bool opmask_set(struct vcpu *c, int n, u64 val)
{
    ext_opmask_set(c, n, val);
    return true;
}

static const char *const mxcsr_name[] = {"mxcsr"};

static u64 mxcsr_get(struct vcpu *c, int n)
{
    u32 val;

    memcpy(&val, ext_area(c) + IMAGE_MXCSR, 4);
    return val;
}

static bool mxcsr_set(struct vcpu *c, int n, u64 val)
{
    u32 mxcsr = (u32)val;

    if (mxcsr & ~ext_mxcsr_mask())
        return false;
    memcpy(ext_area(c) + IMAGE_MXCSR, &mxcsr, 4);
    *ext_xstate_bv(c) |= BIT(XCOMP_SSE);
    return true;
}

static const char *const pkru_name[] = {"pkru"};

static u64 pkru_get(struct vcpu *c, int n)
{
    return c->s.pkru;
}

static void pkru_load(struct vcpu *c, int n, u64 val)
{
    mmu_load_pkru(c, (u32)val);
}

static bool pkru_set(struct vcpu *c, int n, u64 val)
{
    return try_load(c, pkru_load, n, val);
}

/* System registers. */

static const char *const crs[] = {"cr0", "cr2", "cr3", "cr4", "cr8"};
static const u8 cr_order[] = {0, 2, 3, 4, 8};

static u64 cr_get(struct vcpu *c, int n)
{
    return control_register_read(c, cr_order[n]);
}

static bool cr_set(struct vcpu *c, int n, u64 val)
{
    return val == cr_get(c, n) || try_load(c, control_register_write, cr_order[n], val);
}

static u64 cr0_get(struct vcpu *c, int n) { return cr_get(c, 0); }
static bool cr0_set(struct vcpu *c, int n, u64 val) { return cr_set(c, 0, val); }
static u64 cr2_get(struct vcpu *c, int n) { return cr_get(c, 1 + n); }
static bool cr2_set(struct vcpu *c, int n, u64 val) { return cr_set(c, 1 + n, val); }
static u64 cr4_get(struct vcpu *c, int n) { return cr_get(c, 3); }
static bool cr4_set(struct vcpu *c, int n, u64 val) { return cr_set(c, 3, val); }
static u64 cr8_get(struct vcpu *c, int n) { return cr_get(c, 4); }
static bool cr8_set(struct vcpu *c, int n, u64 val) { return cr_set(c, 4, val); }

#define MSR_EFER 0xc0000080u
#define MSR_KERNEL_GS_BASE 0xc0000102u

static const char *const efer_name[] = {"efer"};
static const char *const kernel_gs_base_name[] = {"k_gs_base"};
static const char *const xcr0_name[] = {"xcr0"};

static u64 efer_get(struct vcpu *c, int n) { return c->s.efer; }
static bool efer_set(struct vcpu *c, int n, u64 val) { return val == c->s.efer || msr_write(c, MSR_EFER, val); }
static u64 kernel_gs_base_get(struct vcpu *c, int n) { return c->s.msr_kernel_gs_base; }
static bool kernel_gs_base_set(struct vcpu *c, int n, u64 val) { return msr_write(c, MSR_KERNEL_GS_BASE, val); }
static u64 xcr0_get(struct vcpu *c, int n) { return c->s.xcr0; }

static const char *const drs[] = {"dr0", "dr1", "dr2", "dr3", "dr6", "dr7"};
static const u8 dr_order[] = {0, 1, 2, 3, 6, 7};

static u64 dr_get(struct vcpu *c, int n)
{
    return c->s.dr[dr_order[n]];
}

static bool dr_set(struct vcpu *c, int n, u64 val)
{
    return val == dr_get(c, n) || try_load(c, debug_register_load, dr_order[n], val);
}

static const char *const tables[] = {"gdtr_base", "gdtr_limit", "idtr_base", "idtr_limit", "ldtr", "tr", "cpl"};

static u64 table_get(struct vcpu *c, int n)
{
    const u64 values[] = {c->s.gdtr_base, c->s.gdtr_limit, c->s.idtr_base, c->s.idtr_limit, c->s.seg_sel[SEG_LDTR],
                          c->s.seg_sel[SEG_TR], c->s.cpl};

    return values[n];
}

#define ONLY32 BIT(DEBUG_I386)
#define ONLY64 BIT(DEBUG_X86_64)
static const char *const eip_name[] = {"eip"}, *const rip_name[] = {"rip"}, *const eflags_name[] = {"eflags"};

/* clang-format off: a table reads best one row a line */
static const struct register_row rows[] = {
    {.names = gpr32, .archs = ONLY32, .feature = DEBUG_CORE, .type = DEBUG_INT, .count = 8, .get = gpr32_get, .set = gpr32_set},
    {.names = eip_name, .archs = ONLY32, .feature = DEBUG_CORE, .type = DEBUG_CODE_PTR, .count = 1, .get = rip_get, .set = rip_set},
    {.names = gpr64, .archs = ONLY64, .feature = DEBUG_CORE, .type = DEBUG_INT, .count = 16, .get = gpr64_get, .set = gpr64_set},
    {.names = rip_name, .archs = ONLY64, .feature = DEBUG_CORE, .type = DEBUG_CODE_PTR, .count = 1, .get = rip_get, .set = rip_set},
    {.names = eflags_name, .feature = DEBUG_CORE, .type = DEBUG_EFLAGS, .bytes = 4, .count = 1, .get = flags_read, .set = flags_write},
    {.names = selectors, .feature = DEBUG_CORE, .bytes = 4, .count = 6, .get = selector_get, .set = selector_set},
    {.prefix = "st", .suffix = "", .feature = DEBUG_CORE, .type = DEBUG_FLOAT, .bytes = 10, .count = 8, .get_bytes = st_get, .set_bytes = st_set},
    {.names = x87_controls, .feature = DEBUG_CORE, .bytes = 4, .count = 8, .get = x87_control_get, .set = x87_control_set},
    {.prefix = "xmm", .suffix = "", .archs = ONLY32, .feature = DEBUG_SSE, .type = DEBUG_VEC128, .bytes = 16, .count = 8, .get_bytes = xmm_get, .set_bytes = xmm_set},
    {.prefix = "xmm", .suffix = "", .archs = ONLY64, .feature = DEBUG_SSE, .type = DEBUG_VEC128, .bytes = 16, .count = 16, .get_bytes = xmm_get, .set_bytes = xmm_set},
    {.names = mxcsr_name, .feature = DEBUG_SSE, .type = DEBUG_MXCSR, .bytes = 4, .count = 1, .get = mxcsr_get, .set = mxcsr_set},
    {.names = fs_gs_bases, .archs = ONLY64, .feature = DEBUG_SEGMENTS, .bytes = 8, .count = 2, .get = fs_gs_base_get, .set = fs_gs_base_set},
    {.prefix = "ymm", .suffix = "h", .archs = ONLY32, .feature = DEBUG_AVX, .type = DEBUG_INT, .bytes = 16, .count = 8, .get_bytes = ymmh_get, .set_bytes = ymmh_set},
    {.prefix = "ymm", .suffix = "h", .archs = ONLY64, .feature = DEBUG_AVX, .type = DEBUG_INT, .bytes = 16, .count = 16, .get_bytes = ymmh_get, .set_bytes = ymmh_set},
    {.prefix = "k", .suffix = "", .feature = DEBUG_AVX512, .type = DEBUG_INT, .bytes = 8, .count = 8, .get = opmask_get, .set = opmask_set},
    {.prefix = "zmm", .suffix = "h", .archs = ONLY32, .feature = DEBUG_AVX512, .type = DEBUG_VEC256, .bytes = 32, .count = 8, .get_bytes = zmmh_get, .set_bytes = zmmh_set},
    {.prefix = "zmm", .suffix = "h", .archs = ONLY64, .feature = DEBUG_AVX512, .type = DEBUG_VEC256, .bytes = 32, .count = 32, .get_bytes = zmmh_get, .set_bytes = zmmh_set},
    {.prefix = "xmm", .suffix = "", .archs = ONLY64, .feature = DEBUG_AVX512, .type = DEBUG_VEC128, .bytes = 16, .first = 16, .count = 16, .get_bytes = xmm_get, .set_bytes = xmm_set},
    {.prefix = "ymm", .suffix = "h", .archs = ONLY64, .feature = DEBUG_AVX512, .type = DEBUG_INT, .bytes = 16, .first = 16, .count = 16, .get_bytes = ymmh_get, .set_bytes = ymmh_set},
    {.names = pkru_name, .feature = DEBUG_PKEYS, .bytes = 4, .count = 1, .get = pkru_get, .set = pkru_set},
    {.names = crs, .feature = DEBUG_SYSTEM, .type = DEBUG_CR0, .count = 1, .get = cr0_get, .set = cr0_set},
    {.names = crs + 1, .feature = DEBUG_SYSTEM, .count = 2, .get = cr2_get, .set = cr2_set},
    {.names = crs + 3, .feature = DEBUG_SYSTEM, .type = DEBUG_CR4, .count = 1, .get = cr4_get, .set = cr4_set},
    {.names = crs + 4, .feature = DEBUG_SYSTEM, .count = 1, .get = cr8_get, .set = cr8_set},
    {.names = efer_name, .feature = DEBUG_SYSTEM, .type = DEBUG_EFER, .count = 1, .get = efer_get, .set = efer_set},
    {.names = xcr0_name, .feature = DEBUG_SYSTEM, .count = 1, .get = xcr0_get},
    {.names = kernel_gs_base_name, .archs = ONLY64, .feature = DEBUG_SYSTEM, .count = 1, .get = kernel_gs_base_get, .set = kernel_gs_base_set},
    {.names = drs, .feature = DEBUG_SYSTEM, .count = 6, .get = dr_get, .set = dr_set},
    {.names = bases, .feature = DEBUG_SYSTEM, .type = DEBUG_DATA_PTR, .count = 4, .get = base_get},
    {.names = fs_gs_bases, .archs = ONLY32, .feature = DEBUG_SYSTEM, .type = DEBUG_DATA_PTR, .count = 2, .get = fs_gs_base_get, .set = fs_gs_base_set},
    {.names = tables, .feature = DEBUG_SYSTEM, .count = 7, .get = table_get},
};
/* clang-format on */

static bool feature_shown(const struct cpu_model *m, u8 feature)
{
    switch (feature) {
    case DEBUG_SSE: return model_has(m, FEAT_SSE);
    case DEBUG_AVX: return m->xcr0_mask & BIT(XCOMP_AVX);
    case DEBUG_AVX512: return m->xcr0_mask & BIT(XCOMP_ZMM_HI256);
    case DEBUG_PKEYS: return model_has(m, FEAT_PKU);
    default: return true;
    }
}

static bool row_shown(const struct vcpu_group *g, enum debug_arch arch, const struct register_row *r)
{
    return (!r->archs || r->archs & BIT(arch)) && feature_shown(g->model, r->feature);
}

bool debug_register_get(const struct vcpu_group *g, enum debug_arch arch, int n, struct debug_register *ret)
{
    for (u8 row = 0; row < ARRAY_SIZE(rows); row++) {
        const struct register_row *r = &rows[row];

        if (!row_shown(g, arch, r))
            continue;
        if (n >= r->count) {
            n -= r->count;
            continue;
        }
        ret->bytes = r->bytes ? r->bytes : arch == DEBUG_X86_64 ? 8 : 4;
        ret->feature = r->feature;
        ret->type = r->type;
        ret->row = row;
        ret->index = (u8)(r->first + n);
        if (r->names)
            snprintf(ret->name, sizeof(ret->name), "%s", r->names[n]);
        else
            snprintf(ret->name, sizeof(ret->name), "%s%d%s", r->prefix, ret->index, r->suffix);
        return true;
    }
    return false;
}

enum debug_arch debug_model_arch(const struct vcpu_group *g)
{
    return model_has(g->model, FEAT_LM) ? DEBUG_X86_64 : DEBUG_I386;
}

void debug_register_read(struct vcpu *c, const struct debug_register *r, u8 out[DEBUG_REGISTER_BYTES_MAX])
{
    const struct register_row *row = &rows[r->row];
    u64 val;

    if (row->get_bytes) {
        row->get_bytes(c, r->index, out);
        return;
    }
    val = row->get(c, r->index);
    memcpy(out, &val, r->bytes);
}

bool debug_register_write(struct vcpu *c, const struct debug_register *r, const u8 *in)
{
    const struct register_row *row = &rows[r->row];
    u64 val = 0;

    if (row->set_bytes) {
        row->set_bytes(c, r->index, in);
        return true;
    }
    memcpy(&val, in, r->bytes);
    if (!row->set)
        return !memcmp(in, &(u64){row->get(c, r->index)}, r->bytes);
    return row->set(c, r->index, val);
}

u64 debug_next_linear(const struct vcpu *c)
{
    return (c->lin_base[SEG_CS] + c->s.gpr[RIP]) & c->lin_mask;
}
