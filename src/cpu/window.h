/* Windows: user pages of an address space shown in this process at their guest addresses plus a constant, so that translated code
 * reaches them without looking into the TLB. docs/CPU.md, "Windows".
 *
 * The lower half of the address space, where code at CPL 3 lives, is 256 slots of 512 GiB. For each of them vcpu.window_table
 * has what is added to a guest address to come to the host's: the start of a reservation of that size without any rights, into
 * which pages of guest RAM are mapped, minus the slot's first address. Slots that the space does not use lead into a reservation
 * that stays empty. The sums are exact for 64 bits: an address with other upper bits, looked up by bits 39 to 46, leads outside
 * of what a process can map, and a displacement of 32 bits leads no further than to the reservation's guards. So translated code
 * reaches guest RAM, or faults; then its instruction's slow path is taken, and what that touched is mapped.
 *
 * Pages are mapped for writing only if no write needs to be noticed: their dirty bits are set, they hold no decoded code, no
 * breakpoint watches them. Whatever drops a translation from the TLB because somebody asked for it drops the page from the
 * windows, at the latest before code that uses them goes on.
 *
 * Windows are a vCPU's own, and changed by its thread, or by another while the world is stopped. */
#ifndef CPU_WINDOW_H
#define CPU_WINDOW_H
#include "cpu/tlb.h"

#define WINDOW_SHIFT 39 /* log of a slot's size */
#define WINDOW_STEP (s64)(KIB(64) + 16) /* by how much one instruction moves RSP at most without a check: see cpu/jit_stack.c … */
#define WINDOW_WALK GIB(2) /* … and all of them until control is in C again */

int window_create(struct vcpu *c, struct err *e); /* c->windows; NULL where they are off or the host has no room for them */
void window_free(struct vcpu *c);

/* Makes the window table that of the current address space, and drops what is to be dropped. False: the space has no windows;
 * accesses go through the TLB. May not be called from translated code. */
bool window_enter(struct vcpu *c);

/* Whether code at the current privilege is translated for windows. */
static inline bool window_ready(struct vcpu *c)
{
    if (c->window_state == WINDOW_UNKNOWN && c->mmu_index == MMU_USER)
        window_enter(c);
    return c->window_state == WINDOW_ON && c->mmu_index == MMU_USER;
}

/* Before translated code is entered, or gone on with: if it is for windows, the host's GS base becomes what is added to addresses
 * in the slot that the stack is in. The second after the first in the same thread, with nothing else between that loads GS. */
void window_stack_load(struct vcpu *c);
void window_stack_settle(struct vcpu *c);
/* Whether RSP is where code for windows may have it: in that slot, or in the guards. */
bool window_stack_holds(const struct vcpu *c);

/* A signal took an instruction to its slow path: that costs. */
void window_signalled(struct vcpu *c);

/* Maps the page at gva, and neighbours, as the page tables allow without a slow path. False: `write` (reading) does need one. */
bool window_fill(struct vcpu *c, u64 gva, bool write);

/* The guest is told that user code misses a page, and has come back to user code: mostly it has mapped the page, and so do windows, which
 * saves them a signal. The second not while translated code counts on the extended registers. */
void window_miss(struct vcpu *c, u64 gva, bool write);
void window_answer_slow(struct vcpu *c);
static inline void window_answer(struct vcpu *c)
{
    if (unlikely(c->window_missed))
        window_answer_slow(c);
}

/* So many instructions ran in user mode of the current address space, about. */
void window_heat(struct vcpu *c, u64 instructions);

/* What was dropped from the TLB. `pcid` is 0 without CR4.PCIDE. */
void window_drop_all(struct vcpu *c);
void window_drop_pcid(struct vcpu *c, u32 pcid);
void window_drop_page(struct vcpu *c, u32 pcid, u64 gva);
/* CR3 was loaded; `keep`: and nothing dropped. */
void window_cr3_loaded(struct vcpu *c, bool keep);

/* Takes every right to write the page of RAM at hva from the windows of `c`. `self` is the vCPU that asks, with the world stopped
 * if it is another. */
void window_protect_code(struct vcpu *c, struct vcpu *self, const u8 *hva);

/* Whether a fault of translated code at a host address is one of the windows'. From a signal handler. */
bool window_covers(const struct vcpu *c, u64 host);

#endif
