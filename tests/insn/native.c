/* The host's side of a test case: see native.h.
 *
 * A signal frame made by hand and given to rt_sigreturn(2) puts every register, CS and SS among them, at once; so a
 * program can enter 32-bit and 16-bit segments. INT3 behind the instruction, or its fault, brings a signal with a frame that
 * holds everything again. The handler copies it and jumps back into native_run. DS, ES, FS and GS and the bases of the
 * latter two are not in the frames: native_run loads them before, the handler reads them first of all.
 *
 * The handler may find the alignment flag set, and FS, where this process has its thread-local storage, wherever the
 * case has put it. */
#include "native.h"

#include <asm/ldt.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "cpu/xstate.h"

#define SIGNAL_STACK_SIZE 262144
#define FRAME_AREA_SIZE 16384
#define SOFTWARE_BYTES 464 /* of the legacy region: Linux' notes in a signal frame's XSAVE image */
#define HWCAP2_FSGSBASE_BIT 2
#define CODE_FILL 0xcc
#define HANG_SECONDS 1

static const int signals[] = {SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

/* What a process may find in a signal frame, and gives to rt_sigreturn: kernel and C library agree on the start. */
static struct {
    ucontext_t context;
    _Alignas(64) u8 xsave[FRAME_AREA_SIZE];
} frame;

static u8 *code_alias, *data_alias; /* writable views of the pages */
static u8 signal_stack[SIGNAL_STACK_SIZE];
static struct sigaction next_handler[65];
static u64 host_fs_base, host_gs_base;
static u32 component_offset[XCOMP_COUNT]; /* in the host's XSAVE format; 0: not there */

static void *jump_back[5];
static bool running;
static u64 runs, runs_at_tick;
static struct insn_outcome *outcome;

/* ---- images ---- */

static void host_cpuid(u32 leaf, u32 sub, u32 out[4])
{
    __asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(sub));
}

static void find_components(void)
{
    u32 leaf[4];

    for (u32 n = XCOMP_AVX; n < XCOMP_PKRU; n++)
        if (ext_host_components() & BIT(n)) {
            host_cpuid(0xd, n, leaf);
            component_offset[n] = leaf[1];
        }
}

static void image_copy(u8 *to, const u8 *from, bool to_host)
{
    memcpy(to, from, SOFTWARE_BYTES);
    memcpy(to + XSAVE_HEADER, from + XSAVE_HEADER, 8);
    for (u32 n = XCOMP_AVX; n < XCOMP_PKRU; n++) {
        u32 theirs = component_offset[n], ours = ext_components[n].offset;

        if (theirs)
            memcpy(to + (to_host ? theirs : ours), from + (to_host ? ours : theirs), ext_components[n].size);
    }
}

/* ---- the way back ---- */

void native_signal_entry(int sig, siginfo_t *info, void *context);
void native_signal(int sig, siginfo_t *info, void *context);

/* Clears RFLAGS.AC before the compiler's code uses the stack. */
__asm__(".text\n"
        ".globl native_signal_entry\n"
        "native_signal_entry:\n"
        "  pushfq\n"
        "  andl $~0x40000, (%rsp)\n"
        "  popfq\n"
        "  jmp native_signal\n");

#define SELECTOR_READ(seg, to) __asm__ volatile("mov %%" #seg ", %0" : "=r"(to))

static inline __attribute__((always_inline)) void segments_swap(struct insn_state *s)
{
    SELECTOR_READ(es, s->sel[SEG_ES]);
    SELECTOR_READ(ds, s->sel[SEG_DS]);
    SELECTOR_READ(fs, s->sel[SEG_FS]);
    SELECTOR_READ(gs, s->sel[SEG_GS]);
    __asm__ volatile("rdfsbase %0" : "=r"(s->fs_base));
    __asm__ volatile("rdgsbase %0" : "=r"(s->gs_base));
    __asm__ volatile("mov %0, %%es; mov %0, %%ds; mov %0, %%fs; mov %0, %%gs" : : "r"(0));
    __asm__ volatile("wrfsbase %0" : : "r"(host_fs_base));
    __asm__ volatile("wrgsbase %0" : : "r"(host_gs_base));
}

static void frame_read(const ucontext_t *uc, struct insn_outcome *o)
{
    const greg_t *g = uc->uc_mcontext.gregs;

    for (int n = 0; n < 16; n++)
        o->s.gpr[n] = (u64)g[greg_of[n]];
    o->s.rip = (u64)g[REG_RIP];
    o->s.flags = (u64)g[REG_EFL];
    o->s.sel[SEG_CS] = (u16)g[REG_CSGSFS];
    o->s.sel[SEG_SS] = (u16)((u64)g[REG_CSGSFS] >> 48);
    o->vector = (int)g[REG_TRAPNO];
    o->error = (u64)g[REG_ERR];
    o->address = (u64)g[REG_CR2];
    image_copy(o->s.xsave, (const u8 *)uc->uc_mcontext.fpregs, false);
}

__attribute__((no_sanitize("address"), no_stack_protector)) void native_signal(int sig, siginfo_t *info, void *context)
{
    if (!running) { /* a vector stub of the interpreter, or a bug */
        next_handler[sig].sa_sigaction(sig, info, context);
        return;
    }
    segments_swap(&outcome->s);
    running = false;
    frame_read(context, outcome);
    if (sig == SIGALRM)
        outcome->vector = INSN_ASTRAY;
    __builtin_longjmp(jump_back, 1);
}

/* An instruction that would not end is given up at the second tick. */
static void on_tick(int sig, siginfo_t *info, void *context)
{
    if (running && runs == runs_at_tick)
        native_signal(sig, info, context);
    runs_at_tick = runs;
}

/* ---- the way in ---- */

static void frame_write(const struct insn_case *c)
{
    greg_t *g = frame.context.uc_mcontext.gregs;

    for (int n = 0; n < 16; n++)
        g[greg_of[n]] = (greg_t)c->s.gpr[n];
    g[REG_RIP] = (greg_t)c->s.rip;
    g[REG_EFL] = (greg_t)c->s.flags;
    g[REG_CSGSFS] = (greg_t)(c->s.sel[SEG_CS] | (u64)c->s.sel[SEG_SS] << 48);
    image_copy(frame.xsave, c->s.xsave, true);
}

/* Does not come back: the next signal does. Nothing may use thread-local storage from here. */
static _Noreturn void enter(const struct insn_case *c)
{
    void *to = &frame.context;

    running = true;
    __asm__ volatile("mov %0, %%es; mov %1, %%ds; mov %2, %%fs; mov %3, %%gs"
                     :
                     : "r"(c->s.sel[SEG_ES]), "r"(c->s.sel[SEG_DS]), "r"(c->s.sel[SEG_FS]), "r"(c->s.sel[SEG_GS]));
    if (c->code_size == 8)
        __asm__ volatile("wrfsbase %0; wrgsbase %1" : : "r"(c->s.fs_base), "r"(c->s.gs_base));
    /* rt_sigreturn leaves NT and ID as they are */
    __asm__ volatile("push %2; popfq; mov %0, %%rsp; mov %1, %%eax; syscall"
                     :
                     : "r"(to), "i"(SYS_rt_sigreturn), "r"((c->s.flags & (FLAG_NT | FLAG_ID)) | 2)
                     : "memory");
    __builtin_unreachable();
}

static void code_write(const struct insn_case *c)
{
    u64 at = case_code_at(c);

    memcpy(code_alias + at, c->bytes, MIN(c->len, CODE_SIZE - at));
}

static void code_clear(const struct insn_case *c)
{
    u64 at = case_code_at(c);

    memset(code_alias + at, CODE_FILL, MIN(c->len, CODE_SIZE - at));
}

/* INT3 of the fill is the end; one of the case is a trap of its own. */
static void find_end(const struct insn_case *c, struct insn_outcome *o)
{
    u64 at = layout_base(o->s.sel[SEG_CS]) + o->s.rip - 1 - CODE_VA;

    if (o->vector != EXC_BP || at >= CODE_SIZE || at - case_code_at(c) < c->len)
        return;
    o->vector = INSN_DONE;
    o->s.rip--;
}

void native_run(const struct insn_case *c, struct insn_outcome *ret)
{
    outcome = ret;
    runs++;
    memcpy(data_alias, c->data, DATA_WRITABLE);
    code_write(c);
    frame_write(c);
    if (!__builtin_setjmp(jump_back))
        enter(c);
    find_end(c, ret);
    code_clear(c);
    memcpy(ret->data, data_alias, DATA_WRITABLE);
    memset(ret->s.xsave + SOFTWARE_BYTES, 0, XSAVE_HEADER - SOFTWARE_BYTES);
}

void native_run_code(const struct insn_case *c, const u8 *code, struct insn_outcome *ret, u8 *ret_code)
{
    outcome = ret;
    runs++;
    memcpy(data_alias, c->data, DATA_WRITABLE);
    if (memcmp(code_alias, code, CODE_SIZE))
        memcpy(code_alias, code, CODE_SIZE);
    frame_write(c);
    if (!__builtin_setjmp(jump_back))
        enter(c);
    memcpy(ret->data, data_alias, DATA_WRITABLE);
    memcpy(ret_code, code_alias, CODE_SIZE);
    memset(ret->s.xsave + SOFTWARE_BYTES, 0, XSAVE_HEADER - SOFTWARE_BYTES);
}

int native_code_writable(struct err *e)
{
    if (mprotect((void *)CODE_VA, CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC) < 0)
        return err_set(e, -ENOTSUP, "this host lets programs have no code that is writable");
    return 0;
}

u32 native_segment_limit(u16 sel)
{
    u64 limit = 0;

    __asm__("lsl %1, %0" : "+r"(limit) : "r"((u64)sel) : "cc");
    return (u32)limit;
}

/* ---- setup ---- */

/* Maps `size` bytes at `at` with `prot`, and again somewhere to be written. */
static u8 *map_twice(u64 at, u64 size, int prot, struct err *e)
{
    int fd = memfd_create("insn", 0);
    u8 *alias = MAP_FAILED;

    if (fd >= 0 && !ftruncate(fd, (off_t)size) &&
        mmap((void *)at, size, prot, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0) == (void *)at)
        alias = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (alias == MAP_FAILED) {
        err_set(e, -errno, "cannot map the pages of test cases: %s", strerror(errno));
        alias = NULL;
    }
    if (fd >= 0)
        close(fd);
    return alias;
}

static int pages_setup(struct err *e)
{
    code_alias = map_twice(CODE_VA, CODE_SIZE, PROT_READ | PROT_EXEC, e);
    data_alias = map_twice(DATA_VA, DATA_SIZE, PROT_READ | PROT_WRITE, e);
    if (!code_alias || !data_alias)
        return -ENOTSUP;
    if (mprotect((void *)(DATA_VA + DATA_WRITABLE), DATA_SIZE - DATA_WRITABLE, PROT_READ) < 0)
        return err_set(e, -errno, "mprotect: %s", strerror(errno));
    /* a page that has not been touched yet is absent, not read-only, to the first access */
    if (mlock((void *)DATA_VA, DATA_SIZE) < 0 || mlock((void *)CODE_VA, CODE_SIZE) < 0)
        return err_set(e, -errno, "mlock: %s", strerror(errno));
    memset(code_alias, CODE_FILL, CODE_SIZE);
    return 0;
}

static int ldt_setup(struct err *e)
{
    for (u32 n = 0; n < LDT_COUNT; n++) {
        const struct layout_segment *s = &layout_ldt[n];
        struct user_desc d = {.entry_number = n, .base_addr = s->base, .limit = s->limit, .seg_32bit = s->big,
                              .contents = s->contents, .read_exec_only = s->no_write, .limit_in_pages = s->pages,
                              .seg_not_present = s->absent};

        if (syscall(SYS_modify_ldt, 0x11, &d, sizeof(d)))
            return err_set(e, -ENOTSUP, "this host's kernel gives programs no local descriptor table");
    }
    return 0;
}

/* The frame of a first signal is the pattern for those made by hand. */
static void on_first_signal(int sig, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;
    const u8 *xsave = (const u8 *)uc->uc_mcontext.fpregs;
    u32 size;

    memcpy(&size, xsave + SOFTWARE_BYTES + 4, 4); /* with the mark at its end */
    assert(size <= FRAME_AREA_SIZE);
    frame.context = *uc;
    memcpy(frame.xsave, xsave, size);
    frame.context.uc_mcontext.fpregs = (fpregset_t)frame.xsave;
}

static void frame_setup(void)
{
    struct sigaction sa = {.sa_sigaction = on_first_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK}, old;
    stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof(signal_stack)};

    sigaltstack(&stack, NULL);
    sigaction(SIGTRAP, &sa, &old);
    __asm__ volatile("int3");
    sigaction(SIGTRAP, &old, NULL);
}

static void signals_setup(void)
{
    struct sigaction sa = {.sa_sigaction = native_signal_entry, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    struct itimerval tick = {{HANG_SECONDS, 0}, {HANG_SECONDS, 0}};

    for (size_t n = 0; n < ARRAY_SIZE(signals); n++)
        sigaction(signals[n], &sa, &next_handler[signals[n]]);
    sa.sa_sigaction = on_tick;
    sa.sa_flags |= SA_RESTART;
    sigaction(SIGALRM, &sa, NULL);
    setitimer(ITIMER_REAL, &tick, NULL);
}

int native_setup(struct err *e)
{
    int r;

    if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_BIT))
        return err_set(e, -ENOTSUP, "this host's kernel gives programs no RDFSBASE");
    __asm__ volatile("rdfsbase %0; rdgsbase %1" : "=r"(host_fs_base), "=r"(host_gs_base));
    find_components();
    r = ldt_setup(e);
    if (!r)
        r = pages_setup(e);
    if (r)
        return r;
    frame_setup();
    signals_setup();
    return 0;
}
