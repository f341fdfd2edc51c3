/* A machine on /dev/kvm: what its vCPUs share, and the engine's table. Kernel documentation: virt/kvm/api.rst.
 *
 * Left out: dirty page logging (slots are made without KVM_MEM_LOG_DIRTY_PAGES; it goes into slot_set). */
#include "cpu/kvm_vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cpu/engine.h"
#include "cpu/kvm_run.h"
#include "cpu/vcpu_trace.h"

int kvm_ioctl(int fd, unsigned long request, void *arg)
{
    int r;

    do
        r = ioctl(fd, request, arg);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : r;
}

/* Everything here is older than Debian 12's kernel. */
static int capabilities_check(const struct kvm_vm *vm, struct err *e)
{
    static const struct {
        int cap;
        const char *name;
    } needed[] = {
        {KVM_CAP_USER_MEMORY, "user memory"},
        {KVM_CAP_READONLY_MEM, "read-only memory"},
        {KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
        {KVM_CAP_SYNC_REGS, "register synchronisation"},
        {KVM_CAP_SREGS2, "SREGS2"},
        {KVM_CAP_VCPU_EVENTS, "vCPU events"},
        {KVM_CAP_DEBUGREGS, "debug registers"},
        {KVM_CAP_XSAVE, "XSAVE"},
        {KVM_CAP_XCRS, "XCR0"},
        {KVM_CAP_USER_NMI, "NMI"},
        {KVM_CAP_X86_USER_SPACE_MSR, "user-space MSRs"},
        {KVM_CAP_X86_MSR_FILTER, "MSR filters"},
        {KVM_CAP_GET_TSC_KHZ, "the TSC's frequency"},
        {KVM_CAP_VCPU_ATTRIBUTES, "the TSC's offset"},
    };

    for (size_t n = 0; n < ARRAY_SIZE(needed); n++)
        if (kvm_ioctl(vm->dev_fd, KVM_CHECK_EXTENSION, (void *)(long)needed[n].cap) <= 0)
            return err_set(e, -ENOTSUP, "this host's /dev/kvm is too old: it lacks %s; use --cpu-engine auto",
                           needed[n].name);
    return 0;
}

static int cap_enable(const struct kvm_vm *vm, u32 cap, u64 arg)
{
    struct kvm_enable_cap c = {.cap = cap, .args = {arg}};

    return kvm_ioctl(vm->fd, KVM_ENABLE_CAP, &c);
}

static int vm_set_up(struct kvm_vm *vm, struct err *e)
{
    u64 identity_map = KVM_IDENTITY_MAP_ADDR;
    int r;

    vm->fd = kvm_ioctl(vm->dev_fd, KVM_CREATE_VM, NULL);
    if (vm->fd < 0)
        return err_set(e, vm->fd, "/dev/kvm: cannot create a VM: %s", strerror(-vm->fd));
    r = kvm_ioctl(vm->dev_fd, KVM_GET_VCPU_MMAP_SIZE, NULL);
    if (r < (int)sizeof(struct kvm_run))
        return err_set(e, -ENOTSUP, "/dev/kvm: cannot size its vCPUs");
    vm->run_size = (size_t)r;
    /* only some Intel CPUs need these two */
    kvm_ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map);
    kvm_ioctl(vm->fd, KVM_SET_TSS_ADDR, (void *)(long)KVM_TSS_ADDR);
    /* without it user code that the kernel cannot emulate gets #UD instead of our interpreter */
    cap_enable(vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1);
    return kvm_msr_filter_set(vm, e);
}

static int kvm_group_create(struct vcpu_group *g, struct err *e)
{
    struct kvm_vm *vm = calloc(1, sizeof(*vm));
    int r;

    if (!vm)
        return err_set(e, -ENOMEM, "/dev/kvm: out of memory");
    vm->fd = -1;
    pthread_mutex_init(&vm->slot_lock, NULL);
    g->kvm = vm;
    vm->dev_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (vm->dev_fd < 0)
        return err_set(e, -errno, "cannot open /dev/kvm: %s", strerror(errno));
    r = capabilities_check(vm, e);
    if (!r)
        r = kvm_kick_set_up(e);
    return r ? r : vm_set_up(vm, e);
}

static void kvm_group_free(struct vcpu_group *g)
{
    struct kvm_vm *vm = g->kvm;

    if (!vm)
        return;
    if (vm->fd >= 0)
        close(vm->fd);
    if (vm->dev_fd >= 0)
        close(vm->dev_fd);
    pthread_mutex_destroy(&vm->slot_lock);
    free(vm);
    g->kvm = NULL;
}

/* Size 0 removes it. */
static int slot_set(struct kvm_vm *vm, int slot, const struct ram_region *r, u64 size)
{
    struct kvm_userspace_memory_region m = {
        .slot = (u32)slot,
        .flags = r->readonly ? KVM_MEM_READONLY : 0,
        .guest_phys_addr = r->gpa,
        .memory_size = size,
        .userspace_addr = (u64)(uintptr_t)r->hva,
    };

    return kvm_ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &m);
}

static bool region_same(const struct ram_region *a, const struct ram_region *b)
{
    return a->gpa == b->gpa && a->size == b->size && a->hva == b->hva && a->readonly == b->readonly;
}

static void slots_remove_old(struct kvm_vm *vm, const struct guest_memory *m)
{
    for (int n = 0; n < RAM_REGIONS_MAX; n++) {
        const struct ram_region *now = vm->slot[n].size ? guest_memory_find(m, vm->slot[n].gpa) : NULL;

        if (!vm->slot[n].size || (now && region_same(now, &vm->slot[n])))
            continue;
        slot_set(vm, n, &vm->slot[n], 0);
        vm->slot[n].size = 0;
    }
}

/* The slot that shows region r, else a free one: as many as regions. */
static int slot_for(const struct kvm_vm *vm, const struct ram_region *r)
{
    int unused = -1;

    for (int n = 0; n < RAM_REGIONS_MAX; n++) {
        if (region_same(&vm->slot[n], r))
            return n;
        if (!vm->slot[n].size && unused < 0)
            unused = n;
    }
    return unused;
}

/* A slot that the kernel refuses is left out: accesses then come to us as memory-mapped I/O, which is slow, but right.
 */
static void slots_add_new(struct kvm_vm *vm, const struct guest_memory *m)
{
    for (int i = 0; i < m->region_count; i++) {
        const struct ram_region *r = &m->region[i];
        int n = slot_for(vm, r);

        if (region_same(&vm->slot[n], r))
            continue;
        if (slot_set(vm, n, r, r->size))
            trace(STUB, "kvm: memory at %#llx is refused", (unsigned long long)r->gpa);
        else
            vm->slot[n] = *r;
    }
}

void kvm_slots_sync(struct vcpu_group *g)
{
    pthread_mutex_lock(&g->kvm->slot_lock);
    slots_remove_old(g->kvm, g->config.mem);
    slots_add_new(g->kvm, g->config.mem);
    pthread_mutex_unlock(&g->kvm->slot_lock);
}

const struct engine kvm_engine = {
    .name = "kvm",
    .model_limit = kvm_model_limit,
    .group_create = kvm_group_create,
    .group_free = kvm_group_free,
    .vcpu_create = kvm_vcpu_create,
    .vcpu_free = kvm_vcpu_free,
    .run = kvm_run_guest,
    .kick = kvm_kick,
    .state_fetch = kvm_state_fetch,
    .tsc_read = kvm_tsc_read,
    .flush = kvm_flush,
};
