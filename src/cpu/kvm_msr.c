/* Which model-specific registers the kernel keeps, and which come to us (msr.c), as under every other engine.
 *
 * The kernel gets those that the hardware itself must have right while guest code runs, and those that guests use
 * often: segment bases, system call targets, EFER, PAT, speculation control, reading the TSC. The x2APIC range is never
 * filtered; without an APIC in the kernel it is unknown there, and comes to us for that reason. */
#include "cpu/kvm_vm.h"

#include <errno.h>
#include <string.h>

static const struct {
    u32 first, last;
    bool write;
} kernel_msrs[] = {
    {0x10, 0x10, false},            /* IA32_TIME_STAMP_COUNTER */
    {0x48, 0x49, true},             /* IA32_SPEC_CTRL, IA32_PRED_CMD */
    {0x10a, 0x10a, false},          /* IA32_ARCH_CAPABILITIES */
    {0x174, 0x176, true},           /* IA32_SYSENTER_CS, ESP, EIP */
    {0x277, 0x277, true},           /* IA32_PAT */
    {0xc0000080, 0xc0000084, true}, /* EFER, STAR, LSTAR, CSTAR, FMASK */
    {0xc0000100, 0xc0000103, true}, /* FS.base, GS.base, KERNEL_GS_BASE, TSC_AUX */
};

bool kvm_msr_in_kernel(u32 msr, bool write)
{
    for (size_t n = 0; n < ARRAY_SIZE(kernel_msrs); n++)
        if (msr >= kernel_msrs[n].first && msr <= kernel_msrs[n].last)
            return !write || kernel_msrs[n].write;
    return false;
}

#define WINDOW_MSRS 0x300 /* each bitmap covers so many */

static void window_fill(struct kvm_msr_filter_range *range, u8 *bitmap, u32 base, bool write)
{
    for (u32 n = 0; n < WINDOW_MSRS; n++)
        if (kvm_msr_in_kernel(base + n, write))
            bitmap[n / 8] |= (u8)(1 << n % 8);
    *range = (struct kvm_msr_filter_range){
        .flags = write ? KVM_MSR_FILTER_WRITE : KVM_MSR_FILTER_READ,
        .nmsrs = WINDOW_MSRS,
        .base = base,
        .bitmap = bitmap,
    };
}

int kvm_msr_filter_set(struct kvm_vm *vm, struct err *e)
{
    struct kvm_enable_cap to_user = {
        .cap = KVM_CAP_X86_USER_SPACE_MSR,
        .args = {KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER},
    };
    struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_DENY};
    _Alignas(8) u8 bitmap[4][WINDOW_MSRS / 8] = {{0}};
    int r = kvm_ioctl(vm->fd, KVM_ENABLE_CAP, &to_user);

    for (int n = 0; n < 4; n++)
        window_fill(&filter.ranges[n], bitmap[n], n & 2 ? 0xc0000000 : 0, n & 1);
    if (!r)
        r = kvm_ioctl(vm->fd, KVM_X86_SET_MSR_FILTER, &filter);
    return r ? err_set(e, r, "/dev/kvm: cannot filter MSRs: %s", strerror(-r)) : 0;
}
