/* A vCPU's registers between `s` and the kernel.
 *
 * General, segment and control registers and events travel inside struct kvm_run with the next KVM_RUN, which costs no
 * call of their own; fetching them is a KVM_RUN that is told to return at once, and that also completes an I/O
 * instruction under way. The rest is fetched rarely, and stored only where it changed. What the kernel was about to
 * inject when it was stopped has no place in `s`: the interpreter delivers it there and then. */
#include "cpu/kvm_vm.h"

#include <errno.h>
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/exception.h"
#include "cpu/interp.h"
#include "cpu/lapic.h"
#include "cpu/msr.h"
#include "cpu/tlb.h"
#include "cpu/xstate.h"

#define SYNC_ALL (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS)
#define MSR_TSC 0x10

/* Our numbers in the order of struct kvm_regs. */
static const u8 gpr_order[] = {RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP, R8, R9, R10, R11, R12, R13, R14, R15, RIP};
static_assert(offsetof(struct kvm_regs, rip) == 16 * sizeof(u64), "order of the general registers");

static void gprs_put(struct vcpu *c, struct kvm_regs *r)
{
    u64 *to = (u64 *)r;

    for (size_t n = 0; n < ARRAY_SIZE(gpr_order); n++)
        to[n] = c->s.gpr[gpr_order[n]];
    r->rflags = flags_get(c);
}

static void gprs_get(struct vcpu *c, const struct kvm_regs *r)
{
    const u64 *from = (const u64 *)r;

    for (size_t n = 0; n < ARRAY_SIZE(gpr_order); n++)
        c->s.gpr[gpr_order[n]] = from[n];
    flags_set(c, r->rflags);
}

/* Hardware demands that the granularity bit fits the limit. */
static bool granular(const struct vcpu *c, int seg)
{
    u32 limit = c->s.seg_limit[seg];

    if ((limit & 0xfff) != 0xfff)
        return false;
    return limit >> 20 || c->s.seg_attr[seg] & SEG_G;
}

static void segment_put(const struct vcpu *c, int seg, struct kvm_segment *to)
{
    u16 attr = c->s.seg_attr[seg];

    *to = (struct kvm_segment){
        .base = c->s.seg_base[seg],
        .limit = c->s.seg_limit[seg],
        .selector = c->s.seg_sel[seg],
        .type = attr & SEG_TYPE,
        .s = !!(attr & SEG_S),
        .dpl = (attr & SEG_DPL) >> SEG_DPL_SHIFT,
        .present = !!(attr & SEG_P),
        .avl = !!(attr & SEG_AVL),
        .l = !!(attr & SEG_L),
        .db = !!(attr & SEG_DB),
        .g = granular(c, seg),
        .unusable = !(attr & SEG_P),
    };
    if (seg == SEG_SS) /* where hardware keeps the CPL */
        to->dpl = c->s.cpl;
}

static void segment_get(struct vcpu *c, int seg, const struct kvm_segment *from)
{
    c->s.seg_base[seg] = from->base;
    c->s.seg_limit[seg] = from->limit;
    c->s.seg_sel[seg] = from->selector;
    c->s.seg_attr[seg] = seg == SEG_SS ? (u16)(from->dpl << SEG_DPL_SHIFT) : 0;
    if (!from->unusable && from->present)
        c->s.seg_attr[seg] =
            (u16)((from->type & SEG_TYPE) | (from->s ? SEG_S : 0) | from->dpl << SEG_DPL_SHIFT | SEG_P |
                  (from->avl ? SEG_AVL : 0) | (from->l ? SEG_L : 0) | (from->db ? SEG_DB : 0) | (from->g ? SEG_G : 0));
}

/* struct kvm_sregs and struct kvm_sregs2 begin alike, with the segments in this order. */
static const u8 segment_order[] = {SEG_CS, SEG_DS, SEG_ES, SEG_FS, SEG_GS, SEG_SS, SEG_TR, SEG_LDTR};
static_assert(offsetof(struct kvm_sregs, gdt) == 8 * sizeof(struct kvm_segment), "order of the segments");
static_assert(offsetof(struct kvm_sregs2, apic_base) == offsetof(struct kvm_sregs, apic_base), "the two begin alike");

static void sregs_put(struct vcpu *c, struct kvm_sregs *to)
{
    struct kvm_segment *segments = &to->cs;

    memset(to, 0, sizeof(*to));
    for (size_t n = 0; n < ARRAY_SIZE(segment_order); n++)
        segment_put(c, segment_order[n], &segments[n]);
    to->gdt.base = c->s.gdtr_base;
    to->gdt.limit = c->s.gdtr_limit;
    to->idt.base = c->s.idtr_base;
    to->idt.limit = c->s.idtr_limit;
    to->cr0 = c->s.cr0;
    to->cr2 = c->s.cr2;
    to->cr3 = c->s.cr3;
    to->cr4 = c->s.cr4;
    to->cr8 = lapic_cr8_read(c);
    to->efer = c->s.efer;
    to->apic_base = c->s.msr_apic_base;
}

static void sregs_get(struct vcpu *c, const struct kvm_sregs *from)
{
    const struct kvm_segment *segments = &from->cs;

    for (size_t n = 0; n < ARRAY_SIZE(segment_order); n++)
        segment_get(c, segment_order[n], &segments[n]);
    c->s.gdtr_base = from->gdt.base;
    c->s.gdtr_limit = from->gdt.limit;
    c->s.idtr_base = from->idt.base;
    c->s.idtr_limit = from->idt.limit;
    c->s.cr0 = from->cr0;
    c->s.cr2 = from->cr2;
    c->s.cr3 = from->cr3;
    c->s.cr4 = from->cr4;
    c->s.efer = from->efer;
    c->s.cpl = !protected_mode(c) ? 0 : v86_mode(c) ? 3 : from->ss.dpl & 3;
}

static void shadows_put(const struct vcpu *c, struct kvm_vcpu_events *to)
{
    memset(to, 0, sizeof(*to));
    to->flags = KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_NMI_PENDING;
    to->nmi.masked = c->s.nmi_blocked;
    if (c->s.int_shadow)
        to->interrupt.shadow = c->s.debug_shadow ? KVM_X86_SHADOW_INT_MOV_SS : KVM_X86_SHADOW_INT_STI;
}

static void shadows_get(struct vcpu *c, const struct kvm_vcpu_events *from)
{
    c->s.nmi_blocked = from->nmi.masked;
    c->s.int_shadow = from->interrupt.shadow;
    c->s.debug_shadow = from->interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS;
    if (from->nmi.pending)
        __atomic_add_fetch(&c->s.nmi_pending, 1, __ATOMIC_SEQ_CST);
}

/* In this mode the page-directory-pointer registers are state of their own, for which struct kvm_run has no room. */
static bool pae_paging(const struct vcpu *c)
{
    return c->s.cr0 & CR0_PG && c->s.cr4 & CR4_PAE && !(c->s.efer & EFER_LMA);
}

static int pdptes_store(struct vcpu *c, const struct kvm_sregs *sregs)
{
    struct kvm_sregs2 s2 = {.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID};

    memcpy(&s2, sregs, offsetof(struct kvm_sregs, apic_base) + sizeof(sregs->apic_base));
    memcpy(s2.pdptrs, c->s.pdpte, sizeof(s2.pdptrs));
    return kvm_ioctl(c->kvm->fd, KVM_SET_SREGS2, &s2);
}

static void pdptes_fetch(struct vcpu *c)
{
    struct kvm_sregs2 s2 = {0};

    if (!kvm_ioctl(c->kvm->fd, KVM_GET_SREGS2, &s2) && s2.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID)
        memcpy(c->s.pdpte, s2.pdptrs, sizeof(s2.pdptrs));
}

/* Goes with the next KVM_RUN. */
static void core_store(struct vcpu *c)
{
    struct kvm_run *run = c->kvm->run;

    gprs_put(c, &run->s.regs.regs);
    sregs_put(c, &run->s.regs.sregs);
    shadows_put(c, &run->s.regs.events);
    run->kvm_dirty_regs = SYNC_ALL;
    if (pae_paging(c) && !pdptes_store(c, &run->s.regs.sregs))
        run->kvm_dirty_regs &= ~(u64)KVM_SYNC_X86_SREGS;
    c->kvm->in_kernel |= KVM_PART_CORE;
}

/* Int n, INT3 and INTO are left out: RIP is still at the instruction, which then is executed again. */
static void event_under_way_deliver(struct vcpu *c, const struct kvm_vcpu_events *ev)
{
    bool soft = ev->exception.nr == EXC_BP || ev->exception.nr == EXC_OF;

    if ((ev->exception.injected || ev->exception.pending) && !soft)
        interp_deliver(c, ev->exception.nr == EXC_DB ? EVENT_TRAP : EVENT_FAULT, ev->exception.nr,
                       ev->exception.has_error_code, ev->exception.error_code);
    else if (ev->nmi.injected)
        interp_deliver(c, EVENT_EXTERNAL, EXC_NMI, false, 0);
    else if (ev->interrupt.injected && !ev->interrupt.soft)
        interp_deliver(c, EVENT_EXTERNAL, ev->interrupt.nr, false, 0);
}

static bool event_under_way(const struct kvm_vcpu_events *ev)
{
    return ev->exception.injected || ev->exception.pending || ev->nmi.injected || ev->interrupt.injected;
}

/* All three by calls of their own, where KVM_RUN fails. */
static void core_read(struct vcpu *c, struct kvm_sync_regs *to)
{
    kvm_ioctl(c->kvm->fd, KVM_GET_VCPU_EVENTS, &to->events);
    kvm_ioctl(c->kvm->fd, KVM_GET_REGS, &to->regs);
    kvm_ioctl(c->kvm->fd, KVM_GET_SREGS, &to->sregs);
}

/* Finishes the instruction under way, and has the kernel put the registers into struct kvm_run. */
static void core_complete(struct vcpu *c)
{
    struct kvm_run *run = c->kvm->run;
    int r;

    run->kvm_valid_regs = SYNC_ALL;
    while (!(r = kvm_enter(c, true)) && c->kvm->io_under_way)
        kvm_exit_handle(c);
    run->kvm_valid_regs = 0;
    if (r && r != -EINTR)
        core_read(c, &run->s.regs);
}

/* Whoever is `running` under KVM has nothing in the interpreter's TLB that is still true. */
static void derived_update(struct vcpu *c)
{
    tlb_flush(c);
    vcpu_mode_update(c);
}

void kvm_core_fetch(struct vcpu *c)
{
    struct kvm_vcpu_events ev;

    if (!(c->kvm->in_kernel & KVM_PART_CORE))
        return;
    core_complete(c);
    c->kvm->in_kernel &= ~(u32)KVM_PART_CORE;
    ev = c->kvm->run->s.regs.events;
    gprs_get(c, &c->kvm->run->s.regs.regs);
    sregs_get(c, &c->kvm->run->s.regs.sregs);
    shadows_get(c, &ev);
    if (pae_paging(c))
        pdptes_fetch(c);
    derived_update(c);
    if (!event_under_way(&ev))
        return;
    kvm_guest_fetch(c);
    event_under_way_deliver(c, &ev);
}

/* MSRs that the kernel keeps and that are not in struct kvm_sregs. */
static const struct {
    u32 msr;
    u8 feature;
    u32 offset;
} kept_msrs[] = {
#define AT(field) offsetof(struct vcpu_state, field)
    {0x48, FEAT_SPEC_CTRL, AT(msr_spec_ctrl)},
    {0x174, FEAT_SEP, AT(msr_sysenter_cs)},
    {0x175, FEAT_SEP, AT(msr_sysenter_esp)},
    {0x176, FEAT_SEP, AT(msr_sysenter_eip)},
    {0x277, FEAT_PAT, AT(msr_pat)},
    {0xc0000081, FEAT_SYSCALL, AT(msr_star)},
    {0xc0000082, FEAT_LM, AT(msr_lstar)},
    {0xc0000083, FEAT_LM, AT(msr_cstar)},
    {0xc0000084, FEAT_SYSCALL, AT(msr_sfmask)},
    {0xc0000102, FEAT_LM, AT(msr_kernel_gs_base)},
    {0xc0000103, FEAT_RDTSCP, AT(msr_tsc_aux)},
#undef AT
};

struct msr_list {
    struct kvm_msrs head;
    struct kvm_msr_entry entry[ARRAY_SIZE(kept_msrs)];
};

static u64 *kept_place(struct vcpu_state *s, size_t n)
{
    return (u64 *)((char *)s + kept_msrs[n].offset);
}

static bool kept(const struct vcpu *c, size_t n)
{
    return has(c, (enum cpu_feature)kept_msrs[n].feature);
}

/* Whether it goes to the kernel: always the first time. */
static bool changed(const struct vcpu *c, const void *now, const void *seen, size_t len)
{
    return !c->kvm->seen_valid || memcmp(now, seen, len);
}

static void msrs_store(struct vcpu *c)
{
    struct msr_list list = {.head.nmsrs = 0};

    for (size_t n = 0; n < ARRAY_SIZE(kept_msrs); n++)
        if (kept(c, n) && changed(c, kept_place(&c->s, n), kept_place(&c->kvm->seen, n), sizeof(u64)))
            list.entry[list.head.nmsrs++] =
                (struct kvm_msr_entry){.index = kept_msrs[n].msr, .data = *kept_place(&c->s, n)};
    if (list.head.nmsrs)
        kvm_ioctl(c->kvm->fd, KVM_SET_MSRS, &list);
}

static void msrs_fetch(struct vcpu *c)
{
    struct msr_list list = {.head.nmsrs = 0};
    int got;
    u32 at = 0;

    for (size_t n = 0; n < ARRAY_SIZE(kept_msrs); n++)
        if (kept(c, n))
            list.entry[list.head.nmsrs++].index = kept_msrs[n].msr;
    got = list.head.nmsrs ? kvm_ioctl(c->kvm->fd, KVM_GET_MSRS, &list) : 0;
    for (size_t n = 0; n < ARRAY_SIZE(kept_msrs) && (int)at < got; n++)
        if (kept(c, n))
            *kept_place(&c->s, n) = list.entry[at++].data;
}

static void xcr0_store(struct vcpu *c)
{
    struct kvm_xcrs x = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = c->s.xcr0}}};

    if (has(c, FEAT_XSAVE) && changed(c, &c->s.xcr0, &c->kvm->seen.xcr0, sizeof(u64)))
        kvm_ioctl(c->kvm->fd, KVM_SET_XCRS, &x);
}

static void xcr0_fetch(struct vcpu *c)
{
    struct kvm_xcrs x = {0};

    if (!has(c, FEAT_XSAVE) || kvm_ioctl(c->kvm->fd, KVM_GET_XCRS, &x))
        return;
    for (u32 n = 0; n < MIN(x.nr_xcrs, (u32)KVM_MAX_XCRS); n++)
        if (x.xcrs[n].xcr == 0)
            c->s.xcr0 = x.xcrs[n].value;
}

/* The x87 pointers and the extended registers, in one piece from s.fip on. */
static bool extended_changed(const struct vcpu *c)
{
    size_t from = offsetof(struct vcpu_state, fip);

    return changed(c, &c->s.fip, &c->kvm->seen.fip, sizeof(struct vcpu_state) - from);
}

static void extended_store(struct vcpu *c)
{
    struct kvm_xsave x;

    ext_save(c);
    if (!extended_changed(c))
        return;
    memset(&x, 0, sizeof(x));
    ext_image_to_host(c, (u8 *)&x);
    kvm_ioctl(c->kvm->fd, KVM_SET_XSAVE, &x);
}

static void extended_fetch(struct vcpu *c)
{
    struct kvm_xsave x;

    memset(&x, 0, sizeof(x));
    if (!kvm_ioctl(c->kvm->fd, KVM_GET_XSAVE, &x))
        ext_image_from_host(c, (const u8 *)&x);
}

static void debug_store(struct vcpu *c)
{
    struct kvm_debugregs d = {.dr6 = c->s.dr[6], .dr7 = c->s.dr[7]};

    if (!changed(c, c->s.dr, c->kvm->seen.dr, sizeof(c->s.dr)))
        return;
    memcpy(d.db, c->s.dr, sizeof(d.db));
    kvm_ioctl(c->kvm->fd, KVM_SET_DEBUGREGS, &d);
}

static void debug_fetch(struct vcpu *c)
{
    struct kvm_debugregs d = {0};

    if (kvm_ioctl(c->kvm->fd, KVM_GET_DEBUGREGS, &d))
        return;
    memcpy(c->s.dr, d.db, sizeof(d.db));
    c->s.dr[6] = d.dr6;
    c->s.dr[7] = d.dr7;
}

static void rest_store(struct vcpu *c)
{
    msrs_store(c);
    xcr0_store(c);
    extended_store(c);
    debug_store(c);
    c->kvm->in_kernel |= KVM_PART_REST;
}

static void rest_fetch(struct vcpu *c)
{
    if (!(c->kvm->in_kernel & KVM_PART_REST))
        return;
    msrs_fetch(c);
    xcr0_fetch(c);
    extended_fetch(c);
    debug_fetch(c);
    c->kvm->in_kernel &= ~(u32)KVM_PART_REST;
    c->kvm->seen = c->s;
    c->kvm->seen_valid = true;
}

void kvm_guest_fetch(struct vcpu *c)
{
    kvm_core_fetch(c);
    rest_fetch(c);
}

static u64 kernel_tsc(struct vcpu *c)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } list = {.head.nmsrs = 1, .entry.index = MSR_TSC};

    return kvm_ioctl(c->kvm->fd, KVM_GET_MSRS, &list) == 1 ? list.entry.data : 0;
}

static void kernel_tsc_move(struct vcpu *c, u64 by)
{
    u64 offset = 0;
    struct kvm_device_attr attr = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (u64)(uintptr_t)&offset};

    if (kvm_ioctl(c->kvm->fd, KVM_GET_DEVICE_ATTR, &attr))
        return;
    offset += by;
    kvm_ioctl(c->kvm->fd, KVM_SET_DEVICE_ATTR, &attr);
}

/* How far the kernel's TSC is ahead of the machine's clock, in ticks. */
static s64 kernel_tsc_lead(struct vcpu *c)
{
    u64 before = clock_now(c->group->config.clock), tsc = kernel_tsc(c), after = clock_now(c->group->config.clock);

    return (s64)(tsc - tsc_ticks(c->group, before + (after - before) / 2));
}

static void tsc_store(struct vcpu *c)
{
    if (!(c->kvm->in_kernel & KVM_PART_TSC))
        kernel_tsc_move(c, (u64)(c->s.tsc_offset - kernel_tsc_lead(c)));
    else if (c->s.tsc_offset != c->kvm->tsc_applied) /* the guest wrote its TSC */
        kernel_tsc_move(c, (u64)(c->s.tsc_offset - c->kvm->tsc_applied));
    c->kvm->tsc_applied = c->s.tsc_offset;
    c->kvm->in_kernel |= KVM_PART_TSC;
}

u64 kvm_tsc_read(struct vcpu *c)
{
    if (c->kvm->in_kernel & KVM_PART_TSC)
        return kernel_tsc(c) + (u64)(c->s.tsc_offset - c->kvm->tsc_applied);
    return tsc_ticks(c->group, clock_now(c->group->config.clock)) + (u64)c->s.tsc_offset;
}

/* The two clocks drift apart while the kernel counts. */
static void tsc_fetch(struct vcpu *c)
{
    if (!(c->kvm->in_kernel & KVM_PART_TSC))
        return;
    c->s.tsc_offset += kernel_tsc_lead(c) - c->kvm->tsc_applied;
    c->kvm->in_kernel &= ~(u32)KVM_PART_TSC;
}

void kvm_state_fetch(struct vcpu *c)
{
    kvm_guest_fetch(c);
    tsc_fetch(c);
}

bool kvm_state_store(struct vcpu *c)
{
    u32 in_kernel = c->kvm->in_kernel;

    if (in_kernel == (KVM_PART_CORE | KVM_PART_REST | KVM_PART_TSC) && c->s.tsc_offset == c->kvm->tsc_applied)
        return true;
    if (!(in_kernel & KVM_PART_CORE) && c->s.pending_db)
        return false;
    if (!(in_kernel & KVM_PART_REST))
        rest_store(c);
    tsc_store(c);
    if (!(in_kernel & KVM_PART_CORE))
        core_store(c);
    return true;
}
