/* Comparing outcomes: see compare.h. Everything that this file leaves out, it says why: processors may differ there, or the host's
 * kernel stands between it and us. */
#include "compare.h"

#include <stdarg.h>
#include <string.h>

#include "cpu/xstate.h"

#define SYSTEM_VA 0xfff00000ull /* guest.c's, not there on the host */
#define USER_END 0x7ffffffff000ull
#define PF_PRESENT 1ull

static const char *const gpr_names[16] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                          "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};
static const char *const seg_names[6] = {"ES", "CS", "SS", "DS", "FS", "GS"};

__attribute__((format(printf, 2, 3))) static int differ(FILE *out, const char *format, ...)
{
    va_list args;

    if (!out)
        return 1;
    va_start(args, format);
    vfprintf(out, format, args);
    va_end(args);
    return 1;
}

static int value(FILE *out, const char *what, u64 host, u64 ours, u64 before)
{
    if (host == ours)
        return 0;
    return differ(out, "  %-7s host %016llx  ours %016llx  before %016llx\n", what, (unsigned long long)host,
                  (unsigned long long)ours, (unsigned long long)before);
}

/* ---- what an instruction is ---- */

static bool is(const struct comparison *k, ZydisMnemonic m)
{
    return k->d->valid && k->d->zi.mnemonic == m;
}

static bool faulted(const struct comparison *k, int vector)
{
    return k->host->vector == vector && k->ours->vector == vector;
}

static bool masked_move(const struct comparison *k)
{
    return k->d->valid && strstr(ZydisMnemonicGetString(k->d->zi.mnemonic), "maskmov");
}

/* Operands of many pieces: which of the pieces beyond a page's end is named in CR2 is the processor's choice. */
static bool touches_block(const struct comparison *k)
{
    if (!k->d->valid)
        return false;
    if (masked_move(k) || k->d->zi.avx.mask.reg > ZYDIS_REGISTER_K0)
        return true;
    for (int n = 0; n < k->d->zi.operand_count; n++)
        if (k->d->op[n].type == ZYDIS_OPERAND_TYPE_MEMORY && (k->d->op[n].size > 512 || k->d->op[n].size == 80))
            return true;
    switch (k->d->zi.mnemonic) {
    case ZYDIS_MNEMONIC_FLDENV: case ZYDIS_MNEMONIC_FNSTENV: case ZYDIS_MNEMONIC_FNSAVE: case ZYDIS_MNEMONIC_FRSTOR: return true;
    default: return false;
    }
}

static bool uses_mmx(const struct comparison *k)
{
    for (int n = 0; k->d->valid && n < k->d->zi.operand_count; n++)
        if (k->d->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(k->d->op[n].reg.value) == ZYDIS_REGCLASS_MMX)
            return true;
    return false;
}

/* ---- parts ---- */

static int compare_general(const struct comparison *k, FILE *out)
{
    u64 mask = k->c->code_size == 8 ? ~0ull : 0xffffffff; /* upper halves do not outlive 32-bit code */
    u64 stack = k->host->s.sel[SEG_CS] == SEL_CODE64 ? mask : 0xffffffff; /* the way to the host's kernel cuts it */
    u32 own = insn_own_values(k->d);
    int count = 0;

    for (int n = 0; n < (k->c->code_size == 8 ? 16 : 8); n++)
        if (!(own >> n & 1))
            count += value(out, gpr_names[n], k->host->s.gpr[n] & (n == RSP ? stack : mask),
                           k->ours->s.gpr[n] & (n == RSP ? stack : mask), k->c->s.gpr[n]);
    count += value(out, "RIP", k->host->s.rip, k->ours->s.rip, k->c->s.rip);
    return count;
}

/* RF is only in the image of the flags that a fault pushes: ours has pushed none. */
static int compare_flags(const struct comparison *k, FILE *out)
{
    u64 mask = ~(u64)FLAG_RF;

    if (is(k, ZYDIS_MNEMONIC_RDRAND) || is(k, ZYDIS_MNEMONIC_RDSEED))
        mask &= ~(u64)FLAG_CF;
    return value(out, "flags", k->host->s.flags & mask, k->ours->s.flags & mask, k->c->s.flags);
}

static int compare_segments(const struct comparison *k, FILE *out)
{
    int count = 0;

    for (int n = 0; n < 6; n++) /* on its way to the handler the host's kernel has turned null selectors of any RPL into 0 */
        if (k->host->s.sel[n] || k->ours->s.sel[n] > 3)
            count += value(out, seg_names[n], k->host->s.sel[n], k->ours->s.sel[n], k->c->s.sel[n]);
    count += value(out, "FSBASE", k->host->s.fs_base, k->ours->s.fs_base, k->c->s.fs_base);
    count += value(out, "GSBASE", k->host->s.gs_base, k->ours->s.gs_base, k->c->s.gs_base);
    return count;
}

static bool mapped_page(u64 address)
{
    return address - CODE_VA < CODE_SIZE || address - DATA_VA < DATA_SIZE;
}

static int compare_page_fault(const struct comparison *k, FILE *out)
{
    u64 error = ~0ull;
    int count = 0;

    if (masked_move(k) || touches_block(k)) /* for bytes that the mask leaves out; which of several pieces */
        return 0;

    if (k->host->address >= USER_END) /* Linux shows every fault behind it as a protection violation */
        error = ~PF_PRESENT;
    if (mapped_page(k->host->address)) /* its kernel may have taken the page away for a moment, to move it */
        error = ~PF_PRESENT;
    if (k->ours->address >= SYSTEM_VA && k->ours->address <= 0xffffffff)
        error = ~PF_PRESENT;
#ifdef __SANITIZE_ADDRESS__
    if (k->host->error & 0x10)
        error = ~PF_PRESENT; /* branches may hit the sanitizer's shadow memory */
#endif
    count += value(out, "CR2", k->host->address, k->ours->address, 0);
    count += value(out, "error", k->host->error & error, k->ours->error & error, 0);
    return count;
}

static int compare_fault(const struct comparison *k, FILE *out)
{
    if (k->host->vector != k->ours->vector)
        return differ(out, "  vector  host %d  ours %d\n", k->host->vector, k->ours->vector);
    switch (k->host->vector) {
    case EXC_PF: return compare_page_fault(k, out);
    case EXC_TS:
    case EXC_NP:
    case EXC_SS:
    case EXC_GP:
    case EXC_AC: return value(out, "error", k->host->error, k->ours->error, 0);
    default: return 0;
    }
}

/* A store that faults on its second page, or for its segment's limit, may have written what comes before. This host does for ten bytes of
 * the x87. */
static bool half_stored(const struct comparison *k)
{
    return (faulted(k, EXC_PF) || faulted(k, EXC_GP) || faulted(k, EXC_SS)) &&
           (is(k, ZYDIS_MNEMONIC_FBSTP) || is(k, ZYDIS_MNEMONIC_FSTP));
}

static int compare_memory(const struct comparison *k, FILE *out)
{
    if (half_stored(k) || !memcmp(k->host->data, k->ours->data, DATA_WRITABLE))
        return 0;
    for (u32 n = 0; n < DATA_WRITABLE; n += 8) {
        const u64_any *host = (const u64_any *)(k->host->data + n), *ours = (const u64_any *)(k->ours->data + n);

        if (*host == *ours)
            continue;
        value(out, "memory", *host, *ours, *(const u64_any *)(k->c->data + n));
        return differ(out, "          at %#llx\n", (unsigned long long)DATA_VA + n);
    }
    return 0;
}

static const struct {
    const char *name;
    int component, from, to;
} parts[] = {
    {"FCW", XCOMP_X87, 0, 2}, {"FSW", XCOMP_X87, 2, 4}, {"FTW", XCOMP_X87, 4, 5}, {"FOP", XCOMP_X87, 6, 8},
    {"FIP", XCOMP_X87, 8, 16}, {"FDP", XCOMP_X87, 16, 24}, {"MXCSR", XCOMP_SSE, 24, 28}, {"ST/MM", XCOMP_X87, 32, 160},
    {"XMM", XCOMP_SSE, 160, 416}, {"YMM", XCOMP_AVX, 576, 832}, {"K", XCOMP_OPMASK, 1088, 1152},
    {"ZMM", XCOMP_ZMM_HI256, 1152, 1664}, {"ZMM16+", XCOMP_HI16_ZMM, 1664, 2688},
};

/* A store of an MMX register that faults: processors have already entered MMX state by half, with TOP cleared. Here it depends on the fault. */
static bool store_of_mmx(const struct comparison *k)
{
    return uses_mmx(k) && k->host->vector >= 0 && k->host->vector == k->ours->vector &&
           (k->d->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY || is(k, ZYDIS_MNEMONIC_MASKMOVQ));
}

static int compare_part(const struct comparison *k, size_t n, FILE *out)
{
    if (parts[n].component == XCOMP_X87 && store_of_mmx(k))
        return 0;
    for (int at = parts[n].from; at < parts[n].to; at++) {
        if (k->host->s.xsave[at] == k->ours->s.xsave[at])
            continue;
        return differ(out, "  %-6s  byte %d: host %02x ours %02x before %02x\n", parts[n].name, at - parts[n].from,
                      k->host->s.xsave[at], k->ours->s.xsave[at], k->c->s.xsave[at]);
    }
    return 0;
}

static int compare_extended(const struct comparison *k, FILE *out)
{
    int count = 0;

    for (size_t n = 0; n < ARRAY_SIZE(parts); n++)
        if (k->components >> parts[n].component & 1)
            count += compare_part(k, n, out);
    return count;
}

/* ---- the whole ---- */

static bool memory_fault(int vector)
{
    return vector == EXC_GP || vector == EXC_SS || vector == EXC_PF;
}

/* Whether #AC or a fault of paging comes first for a far return's frame depends on the host. */
static bool far_return_misaligned(const struct comparison *k)
{
    return k->d->valid && k->d->zi.meta.category == ZYDIS_CATEGORY_RET && k->c->s.flags & FLAG_AC;
}

/* An operand that wraps around in a segment of 4 GiB whose base is not 0: processors raise #GP or #SS, the interpreter lets it wrap, so that
 * segments for thread-local storage need no check. See docs/CPU.md. */
static bool wraps_with_base(const struct comparison *k)
{
    for (int n = 0; k->d->valid && n < k->d->zi.operand_count; n++) {
        ZydisRegister seg = k->d->op[n].mem.segment;

        if (k->d->op[n].type == ZYDIS_OPERAND_TYPE_MEMORY && seg >= ZYDIS_REGISTER_ES && seg <= ZYDIS_REGISTER_GS &&
            k->c->s.sel[seg - ZYDIS_REGISTER_ES] == LDT_SELECTOR(LDT_DATA_BASE))
            return k->host->vector != k->ours->vector && (k->host->vector == EXC_GP || k->host->vector == EXC_SS);
    }
    return false;
}

/* A VEX or EVEX prefix that names no opcode map, over the end of a page or beyond 15 bytes: how much of it a processor fetches before #UD
 * follows no rule that could be found. */
static bool strange_map(const struct comparison *k)
{
    int n = 0;

    if (k->d->valid)
        return false;
    while (n < INSN_MAX - 1 && k->c->bytes[n] != 0xc4 && k->c->bytes[n] != 0x62)
        n++;
    return n < INSN_MAX - 1 && !(k->c->bytes[n + 1] & 3);
}

bool incomparable(const struct comparison *k)
{
    if (k->host->vector == INSN_ASTRAY || k->ours->vector == INSN_ASTRAY)
        return true;
    /* processors may fault for bytes that the mask leaves out */
    if (masked_move(k) && k->host->vector == EXC_PF && k->host->s.rip == k->c->s.rip && k->ours->s.rip != k->c->s.rip)
        return true;
    if (touches_block(k) && memory_fault(k->host->vector) && memory_fault(k->ours->vector) && k->host->vector != k->ours->vector)
        return true; /* which of the pieces is tried first */
    if (far_return_misaligned(k) && (k->host->vector == EXC_AC || k->ours->vector == EXC_AC))
        return true;
    if (wraps_with_base(k))
        return true;
    if (strange_map(k) && k->host->vector >= EXC_UD && k->ours->vector >= EXC_UD)
        return true;
    /* outside long mode the segment with L set is none of 64-bit code, and NT means a return to another task */
    if (k->legacy && k->d->valid && k->d->zi.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR && k->host->vector >= 0)
        return true;
    return k->legacy && (k->host->s.sel[SEG_CS] == SEL_CODE64 || k->ours->s.sel[SEG_CS] == SEL_CODE64 ||
                         (k->c->s.flags & FLAG_NT && k->d->valid && k->d->zi.meta.category == ZYDIS_CATEGORY_RET));
}

int compare(const struct comparison *k, FILE *out)
{
    if (incomparable(k))
        return 0;
    return compare_fault(k, out) + compare_general(k, out) + compare_flags(k, out) + compare_segments(k, out) +
           compare_extended(k, out) + compare_memory(k, out);
}

int compare_hidden(const struct comparison *k, enum insn_class class, FILE *out)
{
    int wanted = class == INSN_EMULATED ? EXC_GP : EXC_UD, got = k->ours->vector;

    /* prefetching its bytes, or reading its operand, may fault first */
    if (got == wanted || got == EXC_UD || got == EXC_PF || got == EXC_GP || (class == INSN_EMULATED && got == EXC_SS))
        return 0;
    return differ(out, "  vector  wanted %d  ours %d\n", wanted, got);
}
