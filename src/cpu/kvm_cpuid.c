/* CPUID under KVM: the model's answers, computed once and given to the kernel, which keeps the few bits up to date that
 * follow control registers (OSXSAVE, APIC, the XSAVE size). And what of the CPU models KVM can show. */
#include "cpu/kvm_vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu/cpuid.h"

#define ENTRIES_MAX 256

struct entries {
    struct kvm_cpuid2 head;
    struct kvm_cpuid_entry2 entry[ENTRIES_MAX];
};

static void entry_add(struct vcpu *c, struct entries *list, u32 leaf, u32 sub, bool indexed)
{
    struct kvm_cpuid_entry2 *to = &list->entry[list->head.nent];
    u32 out[4];

    assert(list->head.nent < ENTRIES_MAX);
    cpuid(c, leaf, sub, out);
    *to = (struct kvm_cpuid_entry2){
        .function = leaf,
        .index = sub,
        .flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
        .eax = out[0],
        .ebx = out[1],
        .ecx = out[2],
        .edx = out[3],
    };
    list->head.nent++;
}

static void leaves_add(struct vcpu *c, struct entries *list, u32 first, u32 last)
{
    static const struct {
        u32 leaf, subs;
    } indexed[] = {{4, 5}, {7, 3}, {0xb, 3}, {0xd, 10}};

    for (u32 leaf = first; leaf <= last; leaf++) {
        u32 subs = 0;

        for (size_t n = 0; n < ARRAY_SIZE(indexed); n++)
            if (indexed[n].leaf == leaf)
                subs = indexed[n].subs;
        for (u32 sub = 0; sub < MAX(subs, 1u); sub++)
            entry_add(c, list, leaf, sub, subs);
    }
}

/* Called before the first reset: what answers depend on is put as it is in a running 64-bit system. */
int kvm_cpuid_set(struct vcpu *c, struct err *e)
{
    struct entries *list = calloc(1, sizeof(*list));
    const struct cpu_model *m = c->group->model;
    int r;

    if (!list)
        return err_set(e, -ENOMEM, "/dev/kvm: out of memory");
    c->s.msr_apic_base = 0x800;
    c->s.xcr0 = 1;
    c->code_size = 8;
    leaves_add(c, list, 0, m->max_basic);
    if (model_has(m, FEAT_HYPERVISOR))
        leaves_add(c, list, 0x40000000, 0x40000010);
    if (m->max_extended)
        leaves_add(c, list, 0x80000000, m->max_extended);
    r = kvm_ioctl(c->kvm->fd, KVM_SET_CPUID2, list);
    free(list);
    return r ? err_set(e, r, "/dev/kvm: refuses the CPU model: %s", strerror(-r)) : 0;
}

/* Ours, whatever the kernel says: they come to us, or promise nothing of the hardware. */
static const u8 own_features[] = {FEAT_HYPERVISOR, FEAT_X2APIC, FEAT_TSC_DEADLINE, FEAT_TSC_ADJUST,
                                  FEAT_ARAT,       FEAT_MTRR,   FEAT_MCE,          FEAT_MCA};

static void limit_add(struct cpu_model_limit *limit, const struct kvm_cpuid_entry2 *entry)
{
    const u32 regs[4] = {entry->eax, entry->ebx, entry->ecx, entry->edx};

    for (int f = 0; f < FEAT_COUNT; f++) {
        const struct cpu_feature_place *p = &cpu_feature_places[f];

        if (p->leaf == entry->function && p->sub == entry->index && regs[p->reg] >> p->bit & 1)
            limit->features[f / 64] |= 1ull << f % 64;
    }
    if (entry->function == 0x80000008)
        limit->phys_bits = (int)(entry->eax & 0xff);
}

static int supported_read(int fd, struct entries *list)
{
    list->head.nent = ENTRIES_MAX;
    return kvm_ioctl(fd, KVM_GET_SUPPORTED_CPUID, list);
}

int kvm_model_limit(struct cpu_model_limit *limit, struct err *e)
{
    struct entries *list = calloc(1, sizeof(*list));
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), r;

    if (!list || fd < 0) {
        r = err_set(e, fd < 0 ? -errno : -ENOMEM, "cannot open /dev/kvm: %s; use --cpu-engine auto", strerror(errno));
        goto out;
    }
    r = supported_read(fd, list);
    if (r) {
        err_set(e, r, "/dev/kvm: cannot ask for its CPU features: %s", strerror(-r));
        goto out;
    }
    *limit = (struct cpu_model_limit){.phys_bits = 36};
    for (u32 n = 0; n < MIN(list->head.nent, (u32)ENTRIES_MAX); n++)
        limit_add(limit, &list->entry[n]);
    for (size_t n = 0; n < ARRAY_SIZE(own_features); n++)
        limit->features[own_features[n] / 64] |= 1ull << own_features[n] % 64;
out:
    if (fd >= 0)
        close(fd);
    free(list);
    return r;
}
