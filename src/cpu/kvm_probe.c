/* Times a guest on /dev/kvm: see kvm_probe.h.
 *
 * The guest is a few bytes in 32-bit protected mode without paging: a CPUID, then a loop that a timer's signal ends.
 * CPUID must show no feature, as it was told: a KVM that shows guests the host's own makes them use what it then cannot
 * do. */
#include "cpu/kvm_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "cpu/kvm_run.h"
#include "cpu/kvm_vm.h"
#include "mem/guest_memory.h"

#define PROBE_NS 10000000
#define CODE_AT 0x100

/* mov eax, 1; cpuid; mov ebx, ecx; xor ecx, ecx; 1: dec ecx; jmp 1b */
static const u8 code[] = {0xb8, 1, 0, 0, 0, 0x0f, 0xa2, 0x89, 0xcb, 0x31, 0xc9, 0x49, 0xeb, 0xfd};
#define INSNS_A_ROUND 2

struct probe {
    int dev_fd, vm_fd, vcpu_fd;
    size_t run_size;
    struct kvm_run *run;
    u8 *page;
    timer_t timer;
    bool timer_made;
};

static int probe_memory(struct probe *p)
{
    struct kvm_userspace_memory_region m = {.memory_size = PAGE_SIZE};

    p->page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p->page == MAP_FAILED) {
        p->page = NULL;
        return -ENOMEM;
    }
    memcpy(p->page + CODE_AT, code, sizeof(code));
    m.userspace_addr = (u64)(uintptr_t)p->page;
    return kvm_ioctl(p->vm_fd, KVM_SET_USER_MEMORY_REGION, &m);
}

static int probe_cpuid(struct probe *p)
{
    struct {
        struct kvm_cpuid2 head;
        struct kvm_cpuid_entry2 entry;
    } list = {.head.nent = 1, .entry.function = 1};

    return kvm_ioctl(p->vcpu_fd, KVM_SET_CPUID2, &list);
}

static int probe_registers(struct probe *p)
{
    static const struct kvm_segment data = {
        .limit = ~0u, .selector = 16, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
    struct kvm_regs regs = {.rip = CODE_AT, .rflags = 2};
    struct kvm_sregs s;
    int r = kvm_ioctl(p->vcpu_fd, KVM_GET_SREGS, &s);

    s.ds = s.es = s.ss = s.fs = s.gs = s.cs = data;
    s.cs.selector = 8;
    s.cs.type = 11;
    s.cr0 |= 1;
    if (!r)
        r = kvm_ioctl(p->vcpu_fd, KVM_SET_SREGS, &s);
    return r ? r : kvm_ioctl(p->vcpu_fd, KVM_SET_REGS, &regs);
}

static int probe_open(struct probe *p)
{
    int r = kvm_ioctl(p->dev_fd, KVM_GET_VCPU_MMAP_SIZE, NULL);

    if (r < (int)sizeof(struct kvm_run))
        return -ENOTSUP;
    p->run_size = (size_t)r;
    p->vm_fd = kvm_ioctl(p->dev_fd, KVM_CREATE_VM, NULL);
    if (p->vm_fd < 0)
        return p->vm_fd;
    kvm_ioctl(p->vm_fd, KVM_SET_TSS_ADDR, (void *)(long)KVM_TSS_ADDR);
    p->vcpu_fd = kvm_ioctl(p->vm_fd, KVM_CREATE_VCPU, NULL);
    if (p->vcpu_fd < 0)
        return p->vcpu_fd;
    p->run = mmap(NULL, p->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu_fd, 0);
    if (p->run == MAP_FAILED) {
        p->run = NULL;
        return -ENOMEM;
    }
    r = probe_memory(p);
    if (!r)
        r = probe_cpuid(p);
    return r ? r : probe_registers(p);
}

static void probe_close(struct probe *p)
{
    if (p->timer_made)
        timer_delete(p->timer);
    if (p->run)
        munmap(p->run, p->run_size);
    if (p->vcpu_fd >= 0)
        close(p->vcpu_fd);
    if (p->vm_fd >= 0)
        close(p->vm_fd);
    if (p->page)
        munmap(p->page, PAGE_SIZE);
}

static u64 monotonic(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec;
}

static int timer_start(struct probe *p)
{
    struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = KVM_KICK_SIGNAL};
    /* again and again: a signal before KVM_RUN begins is no use */
    const struct itimerspec at = {.it_value.tv_nsec = PROBE_NS, .it_interval.tv_nsec = PROBE_NS};

    ev._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    if (timer_create(CLOCK_MONOTONIC, &ev, &p->timer))
        return -errno;
    p->timer_made = true;
    return timer_settime(p->timer, 0, &at, NULL) ? -errno : 0;
}

/* Until the timer. */
static int probe_run(struct probe *p, u32 *ret_mips, struct err *e)
{
    struct kvm_regs regs;
    u64 start;
    int r = timer_start(p);

    if (r)
        return err_set(e, r, "timer: %s", strerror(-r));
    start = monotonic();
    r = ioctl(p->vcpu_fd, KVM_RUN, 0) < 0 ? -errno : 0;
    start = MAX(monotonic() - start, 1000u);
    if (!r)
        return err_set(e, -EIO, "/dev/kvm fails on plain code (exit %u)", p->run->exit_reason);
    if (r != -EINTR)
        return err_set(e, r, "/dev/kvm does not run: %s", strerror(-r));
    r = kvm_ioctl(p->vcpu_fd, KVM_GET_REGS, &regs);
    if (r)
        return err_set(e, r, "/dev/kvm: %s", strerror(-r));
    *ret_mips = (u32)((u64)(u32)(0 - regs.rcx) * INSNS_A_ROUND * 1000 / start);
    if (*ret_mips >= KVM_WORTH_MIPS && regs.rbx)
        return err_set(e, -ENOTSUP, "/dev/kvm shows guests the host's CPUID");
    return 0;
}

/* What an errno of open means here. */
static int open_error(int error, struct err *e)
{
    switch (error) {
    case ENOENT:
        return err_set(e, -error, "no /dev/kvm");
    case EACCES:
    case EPERM:
        return err_set(e, -error, "no permission for /dev/kvm");
    default:
        return err_set(e, -error, "/dev/kvm: %s", strerror(error));
    }
}

int kvm_probe(u32 *ret_mips, struct err *e)
{
    struct probe p = {.vm_fd = -1, .vcpu_fd = -1};
    int r;

    p.dev_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (p.dev_fd < 0)
        return open_error(errno, e);
    r = kvm_kick_set_up(e);
    if (!r) {
        r = probe_open(&p);
        r = r ? err_set(e, r, "/dev/kvm makes no VM: %s", strerror(-r)) : probe_run(&p, ret_mips, e);
    }
    probe_close(&p);
    close(p.dev_fd);
    return r;
}
