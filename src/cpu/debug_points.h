/* Breakpoints and watchpoints as engines ask for them: see debug.h for what an engine owes. */
#ifndef CPU_DEBUG_POINTS_H
#define CPU_DEBUG_POINTS_H
#include "cpu/debug.h"
#include "cpu/vcpu_state.h"

struct debug_data_point {
    u64 gva, last; /* both inclusive */
    u8 kind;       /* of DEBUG_READ, DEBUG_WRITE */
};

/* A group's points; the group has none (NULL) while there are none. They change only while no vCPU runs, and every change
 * is followed by a flush of translations and decoded code. */
struct debug_points {
    int code_count, data_count;
    u64 code[DEBUG_CODE_POINTS_MAX];
    struct debug_data_point data[DEBUG_DATA_POINTS_MAX];
    u64 offsets[PAGE_SIZE / 64]; /* bit n: some code point is at offset n of its page */
};

/* Whether some breakpoint's address has the in-page offset of `lin`: an instruction there must begin a block, as its page
 * may be mapped at the breakpoint's address. */
static inline bool debug_may_break(const struct vcpu *c, u64 lin)
{
    const struct debug_points *p = c->group->points;
    u64 at = lin & ~PAGE_MASK;

    return unlikely(p) && p->offsets[at / 64] >> (at & 63) & 1;
}

bool debug_code_point(const struct vcpu *c, u64 lin); /* there is one at lin, due or not */

/* Whether the vCPU must stop before the instruction at lin. Not while it steps, nor at the breakpoint that it was resumed
 * from. */
bool debug_breaks_at(const struct vcpu *c, u64 lin);

/* Whether a watchpoint is in gva's page: accesses to it must go through debug_watch_check. */
bool debug_page_watched(const struct vcpu *c, u64 gva);

/* Notes the stop if an access (DEBUG_READ, DEBUG_WRITE, or both) of [gva, gva+size) meets a watchpoint; the vCPU then stops
 * after the instruction under way. */
void debug_watch_check(struct vcpu *c, u64 gva, u32 size, u8 access);

/* The instruction under way did not complete after all: what it touched will be touched again. */
void debug_watch_forget(struct vcpu *c);

/* Notes why the vCPU stops, unless it stops already, and makes it leave its engine before the next instruction. */
void debug_stopped(struct vcpu *c, enum debug_reason reason, u64 address, u8 access);

/* Whether the interpreter must run this vCPU, whatever the engine: for a debugger or the instruction trace. */
static inline bool debug_active(const struct vcpu *c)
{
    return c->group->points || c->debug.resume != DEBUG_RUN || c->group->insn_trace;
}

#endif
