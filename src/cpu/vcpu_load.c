/* A vCPU's state from a stream, which is read as hostile: see vcpu_load.h.
 *
 * Refused is what no sequence of instructions can make: control bits that exclude each other or that the model lacks, modes that
 * contradict each other, values of our own fields out of range. Registers that the guest may load with anything are taken as
 * they are; the extended registers are made fit for the host where they are loaded into it (xstate.c). SDM vol. 3 §2.5, §3.4.5. */
#include "cpu/vcpu_load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/descriptor.h"
#include "cpu/exec_system.h"
#include "cpu/lapic.h"

#define CR0_KNOWN (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
#define FLAGS_KNOWN 0x3f7fd7ull
#define ATTR_KNOWN 0xf0ffu

static bool control_valid(const struct vcpu *c, const struct vcpu_state *s)
{
    const struct cpu_model *m = c->group->model;
    bool lma = s->efer & EFER_LMA;

    if (s->cr0 & ~(u64)CR0_KNOWN || (s->cr0 & CR0_PG && !(s->cr0 & CR0_PE)) || (s->cr0 & CR0_NW && !(s->cr0 & CR0_CD)))
        return false;
    if (s->cr4 & ~m->cr4_mask || s->efer & ~(m->efer_mask | EFER_LMA))
        return false;
    if (lma != (s->efer & EFER_LME && s->cr0 & CR0_PG) || (lma && !(s->cr4 & CR4_PAE)))
        return false;
    if (s->cr3 >> m->phys_bits || (s->cr4 & CR4_PCIDE && !lma) || s->xss)
        return false;
    return s->xcr0 == 1 || xcr0_valid(c, s->xcr0);
}

static bool paging_registers_valid(const struct vcpu *c, const struct vcpu_state *s)
{
    u64 reserved = 0x1e6 | ~((1ull << c->group->model->phys_bits) - 1);

    for (int n = 0; n < 4; n++)
        if (s->pdpte[n] & 1 && s->pdpte[n] & reserved)
            return false;
    return true;
}

static bool mode_valid(const struct vcpu_state *s)
{
    bool lma = s->efer & EFER_LMA, v86 = s->rflags & FLAG_VM, protect = s->cr0 & CR0_PE;
    u16 cs = s->seg_attr[SEG_CS];

    if (s->rflags & ~FLAGS_KNOWN || s->cpl > 3 || (!protect && (v86 || s->cpl)) || (v86 && (lma || s->cpl != 3)))
        return false;
    return !(lma && cs & SEG_L && cs & SEG_DB);
}

static bool segments_valid(const struct vcpu_state *s)
{
    for (int seg = 0; seg < SEG_COUNT; seg++)
        if (s->seg_attr[seg] & ~ATTR_KNOWN || (s->efer & EFER_LMA ? !canonical(s->seg_base[seg]) : s->seg_base[seg] >> 32))
            return false;
    return canonical(s->gdtr_base) && canonical(s->idtr_base);
}

/* Fields that are ours rather than the manual's. */
static bool own_valid(const struct vcpu_state *s)
{
    return !s->gpr[RZERO] && s->activity <= VCPU_SHUTDOWN && !(s->pending_db & ~0xf00full);
}

static bool state_valid(const struct vcpu *c, const struct vcpu_state *s)
{
    return control_valid(c, s) && paging_registers_valid(c, s) && mode_valid(s) && segments_valid(s) && own_valid(s);
}

int vcpu_state_load(struct vcpu *c, const u8 *in, size_t len)
{
    struct vcpu_state *s;
    int r;

    vcpu_state_sync(c);
    s = malloc(sizeof(*s));
    if (!s)
        return -ENOMEM;
    *s = c->s;
    r = state_load(&vcpu_state_table, s, in, len);
    if (!r && !state_valid(c, s))
        r = -EINVAL;
    if (!r) {
        s->rflags |= FLAG_1;
        c->s = *s;
        vcpu_state_changed(c);
    }
    free(s);
    return r;
}
