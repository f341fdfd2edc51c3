/* Random 64-bit user-mode instructions, on the host CPU and on the interpreter: general registers, defined flags, vector and x87
 * registers, memory, RIP, and the fault with its error code and address must agree.
 *
 * The native side runs inside a signal loop: code ends in INT3, the handler reads the whole machine state out of the signal
 * frame, runs the same instruction from the same state on the interpreter, compares, and writes the next case's state into
 * the frame. Guest page tables show code and data at the same addresses as the host process, so pointers need no translation.
 *
 * usage: test_insn_host [count [seed]]     environment: INSN_ONLY=MNEMONIC[,…] to try just those */
#include "cpu/cpuid.h"
#include "cpu/decode.h"
#include "cpu/interp.h"
#include "cpu/tlb.h"
#include "cpu/vcpu_state.h"
#include "cpu/xstate.h"

#include <Zydis/Zydis.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define CODE_VA 0x20000000ull
#define DATA_VA 0x10000000ull
#define DATA_PAGES 3
#define DATA_SIZE (DATA_PAGES * 4096)
#define GUEST_CODE 0x10000 /* gpa */
#define GUEST_DATA 0x20000
#define GUEST_TABLES 0x1000
#define FP_SIZE 2752

struct regs {
    u64 gpr[16], rip, flags;
};

struct outcome {
    struct regs r;
    int vector; /* -1: none */
    u64 error, address;
    u8 fp[FP_SIZE];
};

static u64 rng;
static struct vcpu_group *group;
static struct vcpu *cpu;
static u8 *native_code, *native_data, *guest_code, *guest_data;
static u8 data_before[DATA_SIZE];
static u8 bytes[15];
static int length;
static ZydisDecoder decoder;
static ZydisDecodedInstruction zi;
static ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
static struct outcome before;
static u64 cases_wanted, cases_done, failures, seed;
static u32 tried[ZYDIS_MNEMONIC_MAX_VALUE + 1];
static const char *only;
static volatile bool in_guest;
static struct sigaction previous[65];

static u64 rnd(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng * 0x2545f4914f6cdd1d;
}

static u64 below(u64 n)
{
    return (rnd() >> 11) % n;
}

/* --- the guest ------------------------------------------------------------------------------------------------ */

static u64 bus_read(void *ctx, u64 addr, int size)
{
    return ~0ull;
}
static u64 bus_pio_read(void *ctx, u16 port, int size)
{
    return ~0ull;
}
static void bus_write(void *ctx, u64 addr, int size, u64 val)
{
}
static void bus_pio_write(void *ctx, u16 port, int size, u64 val)
{
}
static int bus_ack(void *ctx)
{
    return -1;
}
static void bus_eoi(void *ctx, u8 vector)
{
}
static void bus_shutdown(void *ctx)
{
}

static void map_page(u8 *ram, u64 va, u64 gpa)
{
    u64 *pml4 = (u64 *)(ram + GUEST_TABLES), *pdpt = (u64 *)(ram + GUEST_TABLES + 0x1000),
        *pd = (u64 *)(ram + GUEST_TABLES + 0x2000);
    u64 table = GUEST_TABLES + 0x3000 + (va >> 21 & 0x1ff ? (va == CODE_VA ? 0x1000 : 0) : 0);

    pml4[0] = (GUEST_TABLES + 0x1000) | 7;
    pdpt[0] = (GUEST_TABLES + 0x2000) | 7;
    pd[va >> 21 & 0x1ff] = table | 7;
    ((u64 *)(ram + table))[va >> 12 & 0x1ff] = gpa | 0x67 | (va == CODE_VA ? 0 : 1ull << 63);
}

static void guest_create(void)
{
    static struct clock clock;
    static struct timer_queue timers;
    struct vcpu_group_config config = {.count = 1, .engine = CPU_ENGINE_INTERP, .clock = &clock, .timers = &timers};
    struct guest_memory *mem;
    struct err e;

    strcpy(config.model.text, "host");
    config.bus = (struct vcpu_bus){NULL, bus_pio_read, bus_pio_write, bus_read, bus_write, bus_ack, bus_eoi, bus_shutdown, NULL};
    clock_init(&clock);
    timer_queue_init(&timers, &clock, NULL, NULL);
    if (guest_memory_create(MIB(1), &mem, &e) || guest_memory_map(mem, 0, MIB(1), 0, false)) {
        fprintf(stderr, "%s\n", e.text);
        exit(1);
    }
    config.mem = mem;
    if (vcpu_group_create(&config, &group, &e)) {
        fprintf(stderr, "%s\n", e.text);
        exit(1);
    }
    cpu = vcpu_get(group, 0);
    guest_code = mem->backing + GUEST_CODE;
    guest_data = mem->backing + GUEST_DATA;
    for (u64 n = 0; n < DATA_PAGES; n++)
        map_page(mem->backing, DATA_VA + n * 4096, GUEST_DATA + n * 4096);
    map_page(mem->backing, CODE_VA, GUEST_CODE);
}

static void guest_mode(void)
{
    struct vcpu_state *s = &cpu->s;

    s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
    s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE;
    s->efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
    s->cr3 = GUEST_TABLES;
    s->xcr0 = cpu->group->model->xcr0_mask;
    s->cpl = 3;
    s->activity = VCPU_ACTIVE;
    for (int seg = 0; seg < 6; seg++) {
        s->seg_sel[seg] = seg == SEG_CS ? 0x33 : 0x2b;
        s->seg_base[seg] = 0;
        s->seg_limit[seg] = 0xffffffff;
        s->seg_attr[seg] = seg == SEG_CS ? SEG_P | SEG_S | SEG_CODE | SEG_R | SEG_A | SEG_L | SEG_DPL | SEG_G
                                         : SEG_P | SEG_S | SEG_W | SEG_A | SEG_DPL | SEG_DB | SEG_G;
    }
    vcpu_mode_update(cpu);
}

/* --- cases ----------------------------------------------------------------------------------------------------- */

static u64 interesting(void)
{
    static const u64 edges[] = {0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff,
                                0x100000000, 0x7fffffffffffffff, 0x8000000000000000, ~0ull, ~1ull, 63, 64, 32, 31};

    switch (below(4)) {
    case 0: return edges[below(ARRAY_SIZE(edges))];
    case 1: return rnd() & 0xff;
    case 2: return (u64)(s64)(s32)rnd();
    default: return rnd();
    }
}

static u64 data_address(void)
{
    /* near the middle; sometimes across a page, sometimes off the end */
    switch (below(16)) {
    case 0: return DATA_VA + 4096 - below(64);
    case 1: return DATA_VA + DATA_SIZE - below(64);
    default: return DATA_VA + 4096 + 512 + (below(3072) & ~(below(4) ? 63ull : 0));
    }
}

static int generate_bytes(void)
{
    int n = 0, kind = (int)below(10);

    if (kind < 6) { /* legacy */
        if (!below(4))
            bytes[n++] = (u8[]){0x66, 0xf2, 0xf3, 0x66}[below(4)];
        if (!below(24))
            bytes[n++] = 0xf0;
        if (!below(24))
            bytes[n++] = 0x67;
        if (below(2))
            bytes[n++] = (u8)(0x40 | below(16));
        if (kind >= 2)
            bytes[n++] = 0x0f;
        if (kind >= 4)
            bytes[n++] = below(2) ? 0x38 : 0x3a;
    } else if (kind < 8) { /* VEX */
        if (below(3) == 0) {
            bytes[n++] = 0xc5;
            bytes[n++] = (u8)rnd();
        } else {
            bytes[n++] = 0xc4;
            bytes[n++] = (u8)((rnd() & 0xe0) | (1 + below(3)));
            bytes[n++] = (u8)rnd();
        }
    } else { /* EVEX */
        bytes[n++] = 0x62;
        bytes[n++] = (u8)((rnd() & 0xf0) | (below(6) ? 1 + below(3) : 4 + below(3)));
        bytes[n++] = (u8)(rnd() | 4);
        bytes[n++] = (u8)rnd();
    }
    while (n < 15)
        bytes[n++] = (u8)rnd();
    return n;
}

static bool excluded(void)
{
    static const ZydisMnemonic never[] = {
        ZYDIS_MNEMONIC_RDTSC, ZYDIS_MNEMONIC_RDTSCP, ZYDIS_MNEMONIC_CPUID, ZYDIS_MNEMONIC_RDRAND, ZYDIS_MNEMONIC_RDSEED,
        ZYDIS_MNEMONIC_RDPID, ZYDIS_MNEMONIC_XGETBV, ZYDIS_MNEMONIC_SYSCALL, ZYDIS_MNEMONIC_SYSENTER, ZYDIS_MNEMONIC_INT,
        ZYDIS_MNEMONIC_INT1, ZYDIS_MNEMONIC_INT3, ZYDIS_MNEMONIC_XBEGIN, ZYDIS_MNEMONIC_XABORT, ZYDIS_MNEMONIC_XTEST,
        ZYDIS_MNEMONIC_XEND, ZYDIS_MNEMONIC_RDPKRU, ZYDIS_MNEMONIC_WRPKRU, ZYDIS_MNEMONIC_UMONITOR, ZYDIS_MNEMONIC_UMWAIT,
        ZYDIS_MNEMONIC_TPAUSE, ZYDIS_MNEMONIC_SGDT, ZYDIS_MNEMONIC_SIDT, ZYDIS_MNEMONIC_SLDT, ZYDIS_MNEMONIC_STR,
        ZYDIS_MNEMONIC_SMSW, ZYDIS_MNEMONIC_LAR, ZYDIS_MNEMONIC_LSL, ZYDIS_MNEMONIC_VERR, ZYDIS_MNEMONIC_VERW,
        ZYDIS_MNEMONIC_IRET, ZYDIS_MNEMONIC_IRETD, ZYDIS_MNEMONIC_IRETQ, ZYDIS_MNEMONIC_PTWRITE, ZYDIS_MNEMONIC_SERIALIZE,
        ZYDIS_MNEMONIC_MOVDIR64B, ZYDIS_MNEMONIC_MOVDIRI, ZYDIS_MNEMONIC_ENQCMD, ZYDIS_MNEMONIC_ENQCMDS, ZYDIS_MNEMONIC_RDFSBASE,
        ZYDIS_MNEMONIC_RDGSBASE, ZYDIS_MNEMONIC_WRFSBASE, ZYDIS_MNEMONIC_WRGSBASE, ZYDIS_MNEMONIC_LFS,
        ZYDIS_MNEMONIC_LGS, ZYDIS_MNEMONIC_LSS, ZYDIS_MNEMONIC_SENDUIPI, ZYDIS_MNEMONIC_UIRET, ZYDIS_MNEMONIC_CLUI,
        ZYDIS_MNEMONIC_STUI, ZYDIS_MNEMONIC_TESTUI, ZYDIS_MNEMONIC_RDPMC, ZYDIS_MNEMONIC_HLT,
        ZYDIS_MNEMONIC_XSUSLDTRK, ZYDIS_MNEMONIC_XRESLDTRK, ZYDIS_MNEMONIC_POPF, ZYDIS_MNEMONIC_POPFQ}; /* POPF may set TF, which ends in a trap of its own */

    for (size_t n = 0; n < ARRAY_SIZE(never); n++)
        if (zi.mnemonic == never[n])
            return true;
    switch (zi.meta.category) {
    case ZYDIS_CATEGORY_IO: case ZYDIS_CATEGORY_IOSTRINGOP: case ZYDIS_CATEGORY_SYSTEM: case ZYDIS_CATEGORY_AMX_TILE:
    case ZYDIS_CATEGORY_XSAVE: case ZYDIS_CATEGORY_XSAVEOPT: case ZYDIS_CATEGORY_CET: case ZYDIS_CATEGORY_SGX:
    case ZYDIS_CATEGORY_VTX: case ZYDIS_CATEGORY_MPX: case ZYDIS_CATEGORY_INTERRUPT: case ZYDIS_CATEGORY_KEYLOCKER:
    case ZYDIS_CATEGORY_KEYLOCKER_WIDE: return true;
    default: break;
    }
    if (zi.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || zi.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED)
        return true;
    if (zi.attributes & (ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS))
        return true;
    for (int n = 0; n < zi.operand_count; n++)
        if (op[n].type == ZYDIS_OPERAND_TYPE_REGISTER && op[n].visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
            (ZydisRegisterGetClass(op[n].reg.value) == ZYDIS_REGCLASS_SEGMENT ||
             ZydisRegisterGetClass(op[n].reg.value) == ZYDIS_REGCLASS_TMM))
            return true;
    return false;
}

static bool wanted(void)
{
    const char *name = ZydisMnemonicGetString(zi.mnemonic);
    size_t len = strlen(name);

    if (!only || !*only)
        return true;
    for (const char *p = only; *p; p += strcspn(p, ",") + (p[strcspn(p, ",")] == ','))
        if (strcspn(p, ",") == len && !strncasecmp(p, name, len))
            return true;
    return false;
}

static void set_gpr(ZydisRegister r, u64 val)
{
    u8 off = register_offset(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r));

    if (off < 16 * 8)
        before.r.gpr[off / 8] = val;
}

/* Makes the memory operand point into the data pages by choosing registers and displacement. */
static void aim(const ZydisDecodedOperand *m)
{
    u64 target = data_address(), index = below(8);
    s64 disp = 0;

    if (zi.raw.disp.size) {
        disp = zi.raw.disp.size == 8 ? (s8)rnd() : (s64)below(256) - 128;
        if (m->mem.base == ZYDIS_REGISTER_RIP || m->mem.base == ZYDIS_REGISTER_EIP)
            disp = (s64)(target - (CODE_VA + (u64)length));
        else if (m->mem.base == ZYDIS_REGISTER_NONE)
            disp = (s64)(target - (m->mem.index ? index * m->mem.scale : 0));
        memcpy(bytes + zi.raw.disp.offset, &disp, zi.raw.disp.size / 8);
    }
    ZydisDecoderDecodeFull(&decoder, bytes, 15, &zi, op);
    disp = m->mem.disp.value; /* EVEX scales it */
    if (m->mem.index != ZYDIS_REGISTER_NONE && ZydisRegisterGetClass(m->mem.index) >= ZYDIS_REGCLASS_XMM)
        index = 0; /* a gather: lanes were set small */
    else if (m->mem.index != ZYDIS_REGISTER_NONE)
        set_gpr(m->mem.index, index);
    if (m->mem.base != ZYDIS_REGISTER_NONE && m->mem.base != ZYDIS_REGISTER_RIP && m->mem.base != ZYDIS_REGISTER_EIP) {
        if (m->mem.base == m->mem.index)
            set_gpr(m->mem.base, (target - (u64)disp) / (1u + m->mem.scale));
        else
            set_gpr(m->mem.base, target - (u64)disp - index * m->mem.scale);
    }
}

static void random_fp(u8 *fp)
{
    u64 *p = (u64 *)fp;

    for (int n = 0; n < FP_SIZE / 8; n++)
        p[n] = below(3) ? rnd() : interesting();
    /* floats of ordinary size now and then */
    for (int n = 160 / 4; n < 416 / 4; n++)
        if (below(2))
            ((u32 *)fp)[n] = (u32)(0x3f800000 + (rnd() & 0x80ffffff));
    *(u16 *)(fp + 0) = (u16)(0x37f | (rnd() & 0xc00));     /* FCW: all masked */
    *(u16 *)(fp + 2) = (u16)(rnd() & 0x7f00 & ~0x8080);    /* FSW: no pending exception */
    fp[4] = (u8)rnd();                                     /* FTW */
    fp[5] = 0;
    memset(fp + 6, 0, 18);                                 /* FOP, FIP, FDP */
    *(u32 *)(fp + 24) = (u32)(0x1f80 | (rnd() & 0xe03f));  /* MXCSR: all masked, any rounding */
    *(u32 *)(fp + 28) = 0xffff;
    for (int n = 0; n < 8; n++) {
        memset(fp + 32 + n * 16 + 10, 0, 6);
        if (below(2)) { /* an ordinary extended value */
            *(u64 *)(fp + 32 + n * 16) |= 1ull << 63;
            *(u16 *)(fp + 32 + n * 16 + 8) = (u16)(0x3fff + (s64)below(64) - 32) | (u16)(rnd() & 0x8000);
        }
    }
    memset(fp + 416, 0, 160);
    *(u64 *)(fp + 512) = cpu->group->model->xcr0_mask & 0xe7;
}

static void small_lanes(u8 *fp)
{
    /* indices of gathers and scatters */
    for (int n = 160; n < 416; n += 8)
        *(u64 *)(fp + n) = below(512) << 32 | below(512);
    memset(fp + 576, 0, FP_SIZE - 576);
}

/* A relative branch into its own bytes would run for ever, or run who knows what. */
static bool loops_on_itself(void)
{
    for (int n = 0; n < zi.operand_count; n++)
        if (op[n].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && op[n].imm.is_relative &&
            (u64)(op[n].imm.value.s + length) < (u64)length)
            return true;
    return false;
}

static void next_case(void)
{
    for (;;) {
        generate_bytes();
        if (ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, bytes, 15, &zi, op)) || excluded() || !wanted())
            continue;
        length = zi.length;
        if (!loops_on_itself())
            break;
    }
    for (int n = 0; n < 16; n++)
        before.r.gpr[n] = interesting();
    before.r.gpr[RSP] = DATA_VA + 6144 + (below(64) << 3);
    if (zi.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
        before.r.gpr[RCX] = below(40);
    if (zi.mnemonic == ZYDIS_MNEMONIC_ENTER || zi.mnemonic == ZYDIS_MNEMONIC_LEAVE)
        before.r.gpr[RBP] = data_address();
    random_fp(before.fp);
    for (int n = 0; n < zi.operand_count; n++) {
        if (op[n].type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        if (op[n].mem.type == ZYDIS_MEMOP_TYPE_VSIB)
            small_lanes(before.fp);
        if (op[n].encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64) {
            u64 a = data_address();
            memcpy(bytes + zi.raw.disp.offset, &a, zi.raw.disp.size / 8);
            ZydisDecoderDecodeFull(&decoder, bytes, 15, &zi, op);
        } else if (op[n].encoding == ZYDIS_OPERAND_ENCODING_NONE && op[n].mem.base != ZYDIS_REGISTER_RSP) {
            set_gpr(op[n].mem.base, data_address()); /* string and XLAT forms */
        } else if (op[n].mem.base != ZYDIS_REGISTER_RSP || op[n].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT) {
            aim(&op[n]);
        }
    }
    before.r.rip = CODE_VA;
    before.r.flags = 0x202 | (rnd() & (FLAGS_ARITH | (below(4) ? 0 : FLAG_DF)));
    for (int n = 0; n < DATA_SIZE / 8; n++)
        ((u64 *)data_before)[n] = rnd();
    memcpy(native_data, data_before, DATA_SIZE);
    memcpy(guest_data, data_before, DATA_SIZE);
    memset(native_code, 0xcc, 16);
    memcpy(native_code, bytes, (size_t)length);
    memset(guest_code, 0xcc, 16);
    memcpy(guest_code, bytes, (size_t)length);
    tried[zi.mnemonic]++;
}

/* --- the interpreter's side ------------------------------------------------------------------------------------ */

static void run_guest(struct outcome *o)
{
    tlb_flush(cpu);
    interp_flush(cpu);
    guest_memory_written(cpu->group->config.mem, guest_code, 64);
    guest_mode();
    memcpy(cpu->s.gpr, before.r.gpr, sizeof(before.r.gpr));
    cpu->s.gpr[RIP] = before.r.rip;
    flags_set(cpu, before.r.flags);
    ext_save(cpu);
    memcpy(cpu->s.xsave, before.fp, FP_SIZE);
    cpu->s.fip = cpu->s.fdp = 0;
    cpu->s.fcs = cpu->s.fds = cpu->s.fop = 0;
    cpu->attention = 0;
    for (int repeat = 0; repeat < 64; repeat++) {
        o->vector = interp_try(cpu);
        if (o->vector >= 0 || cpu->s.gpr[RIP] != before.r.rip)
            break;
    }
    /* a branch that left the code page: the host has gone on to the fault at its target */
    if (o->vector < 0 && cpu->s.gpr[RIP] - CODE_VA >= 4096)
        o->vector = interp_try(cpu);
    vcpu_state_sync(cpu);
    o->error = cpu->fault_error;
    o->address = cpu->s.cr2;
    memcpy(o->r.gpr, cpu->s.gpr, sizeof(o->r.gpr));
    o->r.rip = cpu->s.gpr[RIP];
    o->r.flags = flags_get(cpu);
    memcpy(o->fp, cpu->s.xsave, FP_SIZE);
}

/* --- the native side ------------------------------------------------------------------------------------------- */

static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static void frame_read(ucontext_t *uc, int sig, struct outcome *o)
{
    greg_t *g = uc->uc_mcontext.gregs;
    u64 bv;

    for (int n = 0; n < 16; n++)
        o->r.gpr[n] = (u64)g[greg_of[n]];
    o->r.rip = (u64)g[REG_RIP] - (sig == SIGTRAP);
    o->r.flags = (u64)g[REG_EFL];
    o->vector = sig == SIGTRAP ? -1 : (int)g[REG_TRAPNO];
    o->error = (u64)g[REG_ERR];
    o->address = (u64)g[REG_CR2];
    memcpy(o->fp, uc->uc_mcontext.fpregs, FP_SIZE);
    memset(o->fp + 464, 0, 48); /* software bytes of the signal frame */
    bv = *(u64 *)(o->fp + 512);
    if (!(bv & 4))
        memset(o->fp + 576, 0, 256);
    if (!(bv & 2))
        memset(o->fp + 160, 0, 256);
}

static void frame_write(ucontext_t *uc)
{
    greg_t *g = uc->uc_mcontext.gregs;
    u8 *fp = (u8 *)uc->uc_mcontext.fpregs;
    u8 software[48];

    for (int n = 0; n < 16; n++)
        g[greg_of[n]] = (greg_t)before.r.gpr[n];
    g[REG_RIP] = (greg_t)before.r.rip;
    g[REG_EFL] = (greg_t)before.r.flags;
    memcpy(software, fp + 464, 48);
    memcpy(fp, before.fp, FP_SIZE);
    memcpy(fp + 464, software, 48);
}

static void print_insn(void)
{
    char text[128];
    ZydisFormatter f;

    ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterFormatInstruction(&f, &zi, op, zi.operand_count_visible, text, sizeof(text), CODE_VA, NULL);
    printf("%s   [", text);
    for (int n = 0; n < length; n++)
        printf("%02x%s", bytes[n], n + 1 < length ? " " : "]\n");
}

static bool differ(const char *what, u64 host, u64 ours, u64 input)
{
    if (host == ours)
        return false;
    printf("  %-8s host %016llx  ours %016llx  before %016llx\n", what, (unsigned long long)host, (unsigned long long)ours,
           (unsigned long long)input);
    return true;
}

static bool differ_fp(const struct outcome *host, const struct outcome *ours)
{
    static const struct {
        const char *name;
        int from, to;
    } parts[] = {{"FCW", 0, 2}, {"FSW", 2, 4}, {"FTW", 4, 5}, {"MXCSR", 24, 28}, {"ST/MM", 32, 160}, {"XMM", 160, 416},
                 {"YMM", 576, 832}, {"K", 1088, 1152}, {"ZMM hi", 1152, 1664}, {"ZMM16", 1664, 2688}};
    bool bad = false;

    for (size_t n = 0; n < ARRAY_SIZE(parts); n++) {
        if (parts[n].from >= 1088 && !(cpu->group->model->xcr0_mask & 0xe0))
            break;
        for (int at = parts[n].from; at < parts[n].to; at++) {
            if (parts[n].from == 32 && (at & 15) >= 10)
                continue;
            if (host->fp[at] == ours->fp[at])
                continue;
            printf("  %s byte %d: host %02x ours %02x before %02x\n", parts[n].name, at - parts[n].from, host->fp[at],
                   ours->fp[at], before.fp[at]);
            bad = true;
            break;
        }
    }
    return bad;
}

static u64 defined_flags(void)
{
    u64 mask = FLAGS_ARITH | FLAG_DF;

    if (zi.cpu_flags)
        mask &= ~(u64)zi.cpu_flags->undefined;
    /* undefined only for some counts, which the tables cannot say */
    return mask;
}

static bool maskmov(void)
{
    return strstr(ZydisMnemonicGetString(zi.mnemonic), "maskmov");
}

/* Operands of many pieces: which of the pieces beyond the page is named in CR2 is the processor's choice. */
static bool touches_block(void)
{
    if (maskmov() || zi.avx.mask.reg > ZYDIS_REGISTER_K0)
        return true;
    for (int n = 0; n < zi.operand_count; n++)
        if (op[n].type == ZYDIS_OPERAND_TYPE_MEMORY && op[n].size > 512)
            return true;
    return zi.meta.isa_set == ZYDIS_ISA_SET_X87 && (zi.mnemonic == ZYDIS_MNEMONIC_FLDENV ||
        zi.mnemonic == ZYDIS_MNEMONIC_FNSTENV || zi.mnemonic == ZYDIS_MNEMONIC_FNSAVE || zi.mnemonic == ZYDIS_MNEMONIC_FRSTOR);
}

static bool uses_mmx(void)
{
    for (int n = 0; n < zi.operand_count; n++)
        if (op[n].type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(op[n].reg.value) == ZYDIS_REGCLASS_MMX)
            return true;
    return false;
}

/* A store of ten bytes that faults on the second page: this host has written the first eight. */
static bool half_stored(const struct outcome *host)
{
    return host->vector == EXC_PF && (zi.mnemonic == ZYDIS_MNEMONIC_FBSTP || zi.mnemonic == ZYDIS_MNEMONIC_FSTP);
}

static void compare(const struct outcome *host, const struct outcome *ours)
{
    static const char *const names[16] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                          "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};
    bool bad = false, same_fault = host->vector == ours->vector;

    if (maskmov() && host->vector == EXC_PF && ours->vector < 0)
        return; /* processors may fault for bytes that the mask leaves out */

    if (!same_fault) {
        printf("  fault    host %d ours %d\n", host->vector, ours->vector);
        bad = true;
    }
    for (int n = 0; n < 16; n++)
        bad |= differ(names[n], host->r.gpr[n], ours->r.gpr[n], before.r.gpr[n]);
    bad |= differ("RIP", host->r.rip, ours->r.rip, before.r.rip);
    bad |= differ("flags", host->r.flags & defined_flags(), ours->r.flags & defined_flags(), before.r.flags);
    if (same_fault && host->vector == EXC_PF) {
        u64 mask = touches_block() ? PAGE_MASK : ~0ull;

        bad |= differ("CR2", host->address & mask, ours->address & mask, 0);
        /* Linux shows every fault at a kernel address as a protection violation */
#ifdef __SANITIZE_ADDRESS__
        mask = host->error & 0x10 ? ~1ull : ~0ull; /* branches may hit the sanitizer's shadow memory */
#else
        mask = ~0ull;
#endif
        bad |= differ("error", mask & host->error & ~(s64)(host->address >> 63), mask & ours->error & ~(s64)(host->address >> 63), 0);
    }
    if (same_fault && (host->vector == EXC_GP || host->vector == EXC_SS))
        bad |= differ("error", host->error, ours->error, 0);
    /* this host has entered MMX state when a store of an MMX register faults; here a fault changes nothing */
    if (!(host->vector == EXC_PF && zi.meta.category == ZYDIS_CATEGORY_DATAXFER && uses_mmx()))
        bad |= differ_fp(host, ours);
    /* a CALL refused for its target: this host has stored the return address, the manual's pseudocode has not */
    for (int n = 0; n < DATA_SIZE && !(host->vector == EXC_GP && zi.mnemonic == ZYDIS_MNEMONIC_CALL) && !half_stored(host);
         n += 8)
        if (differ("memory", *(u64 *)(native_data + n), *(u64 *)(guest_data + n), *(u64 *)(data_before + n))) {
            printf("           at %#llx\n", (unsigned long long)DATA_VA + (unsigned)n);
            bad = true;
            break;
        }
    if (!bad)
        return;
    failures++;
    printf("case %llu of seed %llu: ", (unsigned long long)cases_done, (unsigned long long)seed);
    print_insn();
    fflush(stdout);
}

static _Noreturn void report(void)
{
    int mnemonics = 0;

    for (size_t n = 0; n < ARRAY_SIZE(tried); n++)
        mnemonics += tried[n] > 0;
    printf("%llu instructions of %d mnemonics tried on the host and on the interpreter, %llu differ (seed %llu)\n",
           (unsigned long long)cases_done, mnemonics, (unsigned long long)failures, (unsigned long long)seed);
    fflush(stdout);
    _exit(failures ? 1 : 0);
}

static void on_signal(int sig, siginfo_t *si, void *context)
{
    static bool started;
    ucontext_t *uc = context;
    static struct outcome host, ours;

    if (in_guest) { /* a fault in a vector stub of the interpreter */
        previous[sig].sa_sigaction(sig, si, context);
        return;
    }
    if (started) {
        frame_read(uc, sig, &host);
        in_guest = true;
        run_guest(&ours);
        in_guest = false;
        compare(&host, &ours);
        cases_done++;
        if (cases_done >= cases_wanted || failures >= 20)
            report();
    }
    started = true;
    next_case();
    frame_write(uc);
}

int main(int argc, char **argv)
{
    static u8 stack[1 << 20];
    struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    static const int signals[] = {SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    stack_t ss = {.ss_sp = stack, .ss_size = sizeof(stack)};

    cases_wanted = argc > 1 ? strtoull(argv[1], NULL, 0) : 200000;
    seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (u64)time(NULL) * 1000003 ^ (u64)getpid();
    rng = seed * 0x9e3779b97f4a7c15 | 1;
    only = getenv("INSN_ONLY");
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    guest_create();
    native_code = mmap((void *)CODE_VA, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    native_data = mmap((void *)DATA_VA, DATA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    memset(native_code, 0xcc, 4096);
    memset(guest_code, 0xcc, 4096);
    sigaltstack(&ss, NULL);
    for (size_t n = 0; n < ARRAY_SIZE(signals); n++)
        sigaction(signals[n], &sa, &previous[signals[n]]);
    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    asm volatile("int3");
    return 1;
}
