/* Runs one machine: see vm_run.h. The order of building is also the order of refusing: what needs no file comes first, then
 * everything that only reads, so that a VM that cannot start has written nothing. */
#include "vm/vm_run.h"

#include "base/log.h"
#include "board/pc.h"
#include "cpu/insn_trace.h"
#include "cpu/jit_profile.h"
#include "vm/vm_debug.h"
#include "vm/vm_resources.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct vm_run {
    pthread_mutex_t lock; /* the machine lock */
    struct event_loop *loop;
    struct vm_resources resources;
    struct vm_debug *debug;  /* NULL: none */
    struct insn_trace_config insn_trace;
    struct jit_profile_config profile;
    struct machine *machine; /* set before the loop runs, so before any callback */
    int signal_fd;
    struct watch *signal_watch, *channel_watch;
    int channel_fd;
};

static void quit_by_console(void *ctx)
{
    struct vm_run *r = ctx;

    machine_stop(r->machine, MACHINE_QUIT, 0, "Ctrl-a x");
}

static void quit_by_signal(void *ctx, int events)
{
    struct vm_run *r = ctx;
    struct signalfd_siginfo info;
    char text[64];

    if (read(r->signal_fd, &info, sizeof(info)) != sizeof(info))
        return;
    snprintf(text, sizeof(text), "SIG%s", sigabbrev_np((int)info.ssi_signo));
    machine_stop(r->machine, MACHINE_QUIT, 0, text);
}

/* No packet follows the configuration: whatever makes the channel ready is its end. */
static void quit_by_channel(void *ctx, int events)
{
    struct vm_run *r = ctx;

    watch_set_events(r->channel_watch, 0);
    machine_stop(r->machine, MACHINE_QUIT, 0, "the end of the process that started it");
}

/* Blocked here, before any thread starts, so that every thread inherits it and only the signalfd sees them. */
static int signals_catch(struct vm_run *r, struct err *e)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN); /* a console's reader may go away */
    r->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return r->signal_fd < 0 ? err_set(e, -errno, "signalfd: %m") : 0;
}

static void machine_lock_init(pthread_mutex_t *lock)
{
    pthread_mutexattr_t attr;

    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(lock, &attr);
    pthread_mutexattr_destroy(&attr);
}

static void pc_config_fill(struct pc_config *pc, const struct vm_config *c, const struct vm_run *r)
{
    static const enum cpu_engine engines[] = {
        [VM_ENGINE_AUTO] = CPU_ENGINE_AUTO,
        [VM_ENGINE_INTERP] = CPU_ENGINE_INTERP,
        [VM_ENGINE_JIT] = CPU_ENGINE_JIT,
        [VM_ENGINE_KVM] = CPU_ENGINE_KVM,
        [VM_ENGINE_LOCKSTEP] = CPU_ENGINE_LOCKSTEP,
    };
    static const enum cpu_windows windows[] = {
        [VM_WINDOWS_AUTO] = CPU_WINDOWS_AUTO,
        [VM_WINDOWS_OFF] = CPU_WINDOWS_OFF,
        [VM_WINDOWS_ALWAYS] = CPU_WINDOWS_ALWAYS,
    };

    static const u32 stresses[] = {
        [VM_STRESS_HOT] = STRESS_HOT, [VM_STRESS_FLUSH] = STRESS_FLUSH, [VM_STRESS_EVICT] = STRESS_EVICT, [VM_STRESS_SMC] = STRESS_SMC,
        [VM_STRESS_RENAME] = STRESS_RENAME};

    *pc = (struct pc_config){
        .machine = {.ram_size = c->memory,
                    .cpu_count = c->cpus,
                    .engine = engines[c->engine],
                    .windows = windows[c->windows],
                    .no_reboot = c->no_reboot,
                    .timeout_ns = c->timeout_ms * 1000000,
                    .slow_clock = (u32)c->slow_clock,
                    .loop = r->loop,
                    .lock = (pthread_mutex_t *)&r->lock},
        .boot = r->resources.boot,
        .disk_count = c->disk_count,
        .net = r->resources.net,
        .mac = {0x02, 's', 'k', 'e', 'r', 'y'}, /* locally administered; every VM is alone on its user network */
        .serial = r->resources.serial,
        .virtio_console = r->resources.virtio_console,
        .debugcon = r->resources.debugcon,
        .debug_exit = c->debug_exit,
        .pc_testdev = c->pc_testdev,
        .pci_testdev = c->pci_testdev,
        .rng = c->rng,
        .balloon = c->balloon,
    };
    for (int n = 0; n < VM_STRESS_COUNT; n++)
        pc->machine.stress |= c->stress >> n & 1 ? stresses[n] : 0;
    if (r->resources.trace_insns)
        pc->machine.insn_trace = &r->insn_trace;
    if (r->resources.profile)
        pc->machine.profile = &r->profile;
    if (c->cpu_model)
        snprintf(pc->machine.model.text, sizeof(pc->machine.model.text), "%s", c->cpu_model);
    for (int i = 0; i < c->disk_count; i++) {
        pc->disk[i] = r->resources.disk[i];
        pc->disk_serial[i] = c->disk[i].serial;
    }
}

static int run_build(struct vm_run *r, const struct vm_config *c, struct err *e)
{
    struct pc_config pc;

    pc_config_fill(&pc, c, r);
    if (pc_check(&pc, e) || signals_catch(r, e) || event_loop_create(&r->lock, &r->loop, e) ||
        event_loop_watch(r->loop, r->signal_fd, WATCH_READ, quit_by_signal, r, &r->signal_watch, e) ||
        event_loop_watch(r->loop, r->channel_fd, WATCH_READ, quit_by_channel, r, &r->channel_watch, e) ||
        vm_resources_open(c, r->loop, quit_by_console, r, &r->resources, e))
        return e->code;
    r->insn_trace = (struct insn_trace_config){
        r->resources.trace_insns, c->trace_insns_from, c->trace_insns_count, c->trace_insns_regs};
    r->profile = (struct jit_profile_config){r->resources.profile, r->resources.jitdump};
    pc_config_fill(&pc, c, r);
    if (pc_create(&pc, &r->machine, e))
        return e->code;
    if (c->gdb && vm_debug_create(c, r->resources.gdb_fd, r->loop, r->machine, &r->debug, e))
        return e->code;
    vm_resources_begin(&r->resources);
    return 0;
}

static void run_report(const struct machine *m, enum machine_end end, struct vm_ended *ret)
{
    static const enum vm_end ends[] = {
        [MACHINE_RUNNING] = VM_END_FAILED,
        [MACHINE_POWER_OFF] = VM_END_POWER_OFF,
        [MACHINE_RESET] = VM_END_RESET,
        [MACHINE_TRIPLE_FAULT] = VM_END_TRIPLE_FAULT,
        [MACHINE_DEBUG_EXIT] = VM_END_DEBUG_EXIT,
        [MACHINE_TIMEOUT] = VM_END_TIMEOUT,
        [MACHINE_QUIT] = VM_END_QUIT,
        [MACHINE_FAILED] = VM_END_FAILED,
    };

    *ret = (struct vm_ended){.why = ends[end], .value = m->end_value & 0xff};
    snprintf(ret->text, sizeof(ret->text), "%s", m->end_text);
}

static void run_free(struct vm_run *r)
{
    vm_debug_free(r->debug, r->machine ? r->machine->end_value : 0);
    machine_free(r->machine);
    vm_resources_close(&r->resources);
    watch_remove(r->signal_watch);
    watch_remove(r->channel_watch);
    if (r->loop)
        event_loop_free(r->loop);
    if (r->signal_fd >= 0)
        close(r->signal_fd);
    pthread_mutex_destroy(&r->lock);
}

/* Where the choice was ours. */
static void engine_tell(const struct vm_run *r)
{
    const char *why = vcpu_group_engine_reason(r->machine->cpus);

    if (why[0])
        log_info("engine: %s (%s)", vcpu_group_engine(r->machine->cpus), why);
}

/* Under KVM the TSC is the host's. */
static int slow_clock_check(const struct vm_run *r, const struct vm_config *c, struct err *e)
{
    if (c->slow_clock > 1 && !strcmp(vcpu_group_engine(r->machine->cpus), "kvm"))
        return err_set(e, -ENOTSUP, "--slow-clock: not under the KVM engine: choose another with --cpu-engine");
    return 0;
}

int vm_run(const struct vm_config *config, int channel_fd, struct vm_ended *ret, struct err *e)
{
    struct vm_run r = {.signal_fd = -1, .channel_fd = channel_fd, .resources.gdb_fd = -1};

    machine_lock_init(&r.lock);
    e->code = 0;
    if (!run_build(&r, config, e) && !slow_clock_check(&r, config, e)) {
        engine_tell(&r);
        run_report(r.machine, machine_run(r.machine), ret);
    }
    run_free(&r);
    return e->code;
}
