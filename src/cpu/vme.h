/* Virtual interrupts (CR4.VME, CR4.PVI): programs of CPL 3 that turn EFLAGS.VIF on and off in place of IF, and INT n of V86
 * code that goes through the 8086 program's own vectors. SDM vol. 3 §20.3.2, §20.3.3, §20.4. */
#ifndef CPU_VME_H
#define CPU_VME_H
#include "cpu/exception.h"

/* V86 code below IOPL 3 whose IF is VIF. */
static inline bool vme_virtual_if(const struct vcpu *c)
{
    return v86_mode(c) && c->s.cr4 & CR4_VME && iopl(c) < 3;
}

/* CLI (`on` false) and STI without the right to IF: changes VIF, or raises #GP(0). */
void vme_set_vif(struct vcpu *c, bool on);

/* For PUSHF, POPF, IRET and INT n while vme_virtual_if(): the 16 flags that the program sees, and those that it loads, which
 * raises #GP(0) for TF, and for IF with an interrupt pending (VIP). */
u16 vme_flags_seen(const struct vcpu *c);
void vme_flags_check(struct vcpu *c, u16 flags);
void vme_flags_load(struct vcpu *c, u16 flags);

/* INT n (the two-byte form) in V86 mode with CR4.VME: true when the TSS's redirection map sends it to the 8086 program's
 * vector table, which has then been done. */
bool vme_redirect(struct vcpu *c, int vector);

#endif
