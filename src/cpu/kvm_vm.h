/* The inside of the KVM engine, shared by kvm_*.c. Not for other files.
 *
 * The kernel runs the guest's code and has the vCPU's registers while it does; local APICs, the meaning of most MSRs,
 * the sleeping and waking, and every device are ours, as under the other engines. What the kernel cannot do (its
 * instruction emulator is not complete) the interpreter does, one instruction at a time. docs/CPU.md says why. */
#ifndef CPU_KVM_VM_H
#define CPU_KVM_VM_H
#include "cpu/vcpu_state.h"
#include <linux/kvm.h>

/* Three pages for Intel CPUs that cannot run real mode, and their page table: between the local APICs and the flash
 * ROM, where no board has anything. */
#define KVM_TSS_ADDR 0xfeffd000u
#define KVM_IDENTITY_MAP_ADDR 0xfeffc000ull

struct cpu_model_limit;

/* One machine's. */
struct kvm_vm {
    int dev_fd, fd;
    size_t run_size; /* of struct kvm_run */
    pthread_mutex_t slot_lock;
    struct ram_region slot[RAM_REGIONS_MAX]; /* as the kernel has them; size 0: unused */
};

/* Parts of a vCPU's state that the kernel has while their bit is in kvm_vcpu.in_kernel; otherwise `s` is right. */
enum {
    KVM_PART_CORE = 1, /* general, segment and control registers, shadows, events under way */
    KVM_PART_REST = 2, /* extended and debug registers, MSRs */
    KVM_PART_TSC = 4,
};

struct kvm_vcpu {
    int fd;
    struct kvm_run *run;
    int thread;        /* id of the thread in KVM_RUN; atomic, 0: none */
    u32 in_kernel;     /* KVM_PART_* */
    s64 tsc_applied;   /* the tsc_offset that the kernel's TSC follows, while it has KVM_PART_TSC */
    bool io_under_way; /* the instruction of the last exit is not complete until the next KVM_RUN */
    bool broken;       /* KVM_RUN failed, and this was traced */
    struct vcpu_state
        seen; /* KVM_PART_REST as the kernel has or last had it: what did not change is not stored again */
    bool seen_valid;
};

/* ioctl, again while EINTR; 0 or more, or -errno. */
int kvm_ioctl(int fd, unsigned long request, void *arg);

/* kvm_vm.c: makes the kernel's memory slots follow the guest-physical map. Any vCPU thread, outside KVM_RUN. */
void kvm_slots_sync(struct vcpu_group *g);

/* kvm_cpuid.c */
int kvm_cpuid_set(struct vcpu *c, struct err *e);
int kvm_model_limit(struct cpu_model_limit *limit, struct err *e);

/* kvm_msr.c: which MSRs the kernel handles; all others come to msr.c. */
int kvm_msr_filter_set(struct kvm_vm *vm, struct err *e);
bool kvm_msr_in_kernel(u32 msr, bool write);

/* kvm_state.c. Own thread. Store gives the kernel every part that it does not have; true: it can run. False: the state
 * is one that only the interpreter can hold. */
bool kvm_state_store(struct vcpu *c);
void kvm_core_fetch(struct vcpu *c);  /* KVM_PART_CORE, and completes I/O under way; enough for halting */
void kvm_guest_fetch(struct vcpu *c); /* CORE and REST: all that instructions see, but for the TSC */
void kvm_state_fetch(struct vcpu *c); /* all */
u64 kvm_tsc_read(struct vcpu *c);

/* kvm_vcpu.c: one KVM_RUN; 0: an exit to look at, or -errno (-EINTR: kicked, or `complete_only`: just finish the
 * instruction under way). */
int kvm_enter(struct vcpu *c, bool complete_only);
void kvm_exit_handle(struct vcpu *c); /* I/O and MSR exits: those whose instruction is under way */

#endif
