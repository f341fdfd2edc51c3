/* Signal handlers that turn faults of generated code into guest exceptions: see host_fault.h. SDM vol. 3 §6.15.
 *
 * The handler only redirects: it lets the interrupted thread go on in stub_faulted(), as if the stub had called it.
 * Guest registers in the host's units are in the signal frame meanwhile and come back unchanged (with the exception
 * flags that the fault set, as on the hardware). */
#include "cpu/host_fault.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

#include "cpu/exception.h"
#include "cpu/insn.h"
#include "cpu/jit.h"
#include "cpu/vcpu_trace.h"

#define RANGES_MAX 64 /* a process has one machine; tests have more */

struct range {
    const u8 *start; /* NULL: free */
    u64 size;
    bool translated;
};

/* Read by signal handlers of any thread: entries are published by their start, which is written last. */
static struct range ranges[RANGES_MAX];

/* Where a stub that faulted goes on; `trap` is the host's exception vector. */
static _Noreturn void stub_faulted(struct vcpu *c, u64 trap)
{
    ext_settle(c);
    switch (trap) {
    case EXC_MF: raise_fault(c, EXC_MF);
    case EXC_XM:
        if (c->s.cr4 & CR4_OSXMMEXCPT)
            raise_fault(c, EXC_XM);
        raise_ud(c);
    case EXC_GP: raise_gp0(c);
    default:
        vcpu_trace(c, STUB, "the host does not know instruction %d", c->insn ? c->insn->mnemonic : 0);
        raise_ud(c);
    }
}

static const struct range *range_of(const u8 *pc)
{
    for (int n = 0; n < RANGES_MAX; n++) {
        const u8 *start = __atomic_load_n(&ranges[n].start, __ATOMIC_ACQUIRE);

        if (start && pc >= start && pc < start + ranges[n].size)
            return &ranges[n];
    }
    return NULL;
}

/* #SS: a window's address that is not canonical, with RBP as its base. */
static bool guest_trap(u64 trap)
{
    return trap == EXC_SS || trap == EXC_DE || trap == EXC_MF || trap == EXC_XM || trap == EXC_GP || trap == EXC_UD || trap == EXC_PF;
}

static bool redirect_translated(greg_t *gregs, const u8 *pc)
{
    struct jit_fault f = {.pc = pc, .frame = (u64)gregs[REG_RSP], .trap = (u64)gregs[REG_TRAPNO], .error = (u64)gregs[REG_ERR],
                          .address = (u64)gregs[REG_CR2]};
    const u8 *to = jit_fault(&f);

    if (to)
        gregs[REG_RIP] = (greg_t)(uintptr_t)to;
    return to;
}

/* Redirects a fault at `pc`; false: it is not the guest's. */
static bool redirect(greg_t *gregs, const u8 *pc)
{
    const struct range *r = range_of(pc);

    if (!r)
        return false;
    if (r->translated)
        return redirect_translated(gregs, pc);
    if (gregs[REG_TRAPNO] == EXC_PF)
        return false;
    gregs[REG_RDI] = gregs[REG_RSI];
    gregs[REG_RSI] = gregs[REG_TRAPNO];
    gregs[REG_RIP] = (greg_t)(uintptr_t)stub_faulted;
    return true;
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
    greg_t *gregs = ((ucontext_t *)context)->uc_mcontext.gregs;

    if (info->si_code > 0 && guest_trap((u64)gregs[REG_TRAPNO]) && redirect(gregs, (const u8 *)gregs[REG_RIP]))
        return;
    signal(sig, SIG_DFL); /* ours: it happens again on return, and ends the process with its core */
}

int host_fault_setup(struct err *e)
{
    static const int signals[] = {SIGFPE, SIGSEGV, SIGBUS, SIGILL};
    struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};

    sigemptyset(&sa.sa_mask);
    for (size_t n = 0; n < ARRAY_SIZE(signals); n++)
        if (sigaction(signals[n], &sa, NULL) < 0)
            return err_set(e, -errno, "cannot install a signal handler: %s", strerror(errno));
    return 0;
}

static int range_add(const u8 *start, u64 size, bool translated, struct err *e)
{
    for (int n = 0; n < RANGES_MAX; n++)
        if (!ranges[n].start) {
            ranges[n].size = size;
            ranges[n].translated = translated;
            __atomic_store_n(&ranges[n].start, start, __ATOMIC_RELEASE);
            return 0;
        }
    return err_set(e, -ENOSPC, "too many machines in one process");
}

int host_fault_guard(const u8 *start, u64 size, struct err *e)
{
    return range_add(start, size, false, e);
}

int host_fault_translator(const u8 *start, u64 size, struct err *e)
{
    return range_add(start, size, true, e);
}

void host_fault_unguard(const u8 *start)
{
    for (int n = 0; n < RANGES_MAX; n++)
        if (ranges[n].start == start)
            __atomic_store_n(&ranges[n].start, NULL, __ATOMIC_RELEASE);
}
