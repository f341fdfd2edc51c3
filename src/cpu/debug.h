/* Debugging a guest from outside: breakpoints, watchpoints, steps, stops. The boundary between a debugger (src/debug) and
 * the engines; nothing here shows in the guest, whose own debug registers stay its own. cpu/debug_regs.h has the registers.
 *
 * All functions are for while no vCPU runs. A debugger says for each vCPU how it goes on, lets the group run, and when
 * the function of debug_attach is called (or it asked itself), stops the group and reads each vCPU's stop. A vCPU that has
 * stopped so, or is held, returns from vcpu_run.
 *
 * Engines owe nothing but what cpu/engine.h asks of all: while there are points, and for steps, vcpu.c has the interpreter run
 * the vCPU in the engine's place. One that wants to be faster then would have to
 * - leave before the instruction at a linear address that debug_breaks_at() names, after debug_stopped(), RIP at it;
 * - call debug_watch_check() for each access to a page that debug_page_watched(), and leave after the instruction under way
 *   if that stopped it (both in cpu/debug_points.h).
 * A step is one instruction, one iteration of a repeated string instruction, or the delivery of the fault that an
 * instruction raised. */
#ifndef CPU_DEBUG_H
#define CPU_DEBUG_H
#include "cpu/vcpu.h"

/* Points: where instructions start, and which accesses to stop after; bits, so that READ | WRITE is any access. */
enum { DEBUG_EXECUTE = 1, DEBUG_WRITE = 2, DEBUG_READ = 4 };

#define DEBUG_CODE_POINTS_MAX 1024
#define DEBUG_DATA_POINTS_MAX 64

enum debug_resume {
    DEBUG_RUN,
    DEBUG_STEP, /* one instruction, whatever breakpoint is at it */
    DEBUG_HOLD, /* nothing */
};

enum debug_reason { DEBUG_NONE, DEBUG_BREAK, DEBUG_STEPPED, DEBUG_WATCH };

struct debug_stop {
    u8 reason;   /* enum debug_reason */
    u8 access;   /* DEBUG_WATCH: kind of the point */
    u64 address; /* linear: of the breakpoint; of the watchpoint */
};

/* stopped(ctx) is called in a vCPU's thread, outside guest code, when that vCPU has stopped: it is to have the group stopped
 * (vcpu_group_stop) and must not wait for that. NULL detaches: no points, every vCPU runs. */
void debug_attach(struct vcpu_group *g, void (*stopped)(void *ctx), void *ctx);

/* Adds a point at linear addresses [gva, gva+len); `kind` is DEBUG_EXECUTE (len does not matter) or of DEBUG_READ and
 * DEBUG_WRITE. One that is there already is counted once. -ENOSPC when there is no room; -EINVAL for len 0 or a range
 * that wraps. */
int debug_point_add(struct vcpu_group *g, u8 kind, u64 gva, u64 len);
int debug_point_remove(struct vcpu_group *g, u8 kind, u64 gva, u64 len); /* -ENOENT */
void debug_points_clear(struct vcpu_group *g);

/* How the vCPU goes on at the next vcpu_run; it has no stop afterwards. A breakpoint that it stopped at is passed once. */
void debug_resume(struct vcpu *c, enum debug_resume how);

/* Whether steps deliver interrupts, NMIs and INITs that wait (false at first: a step stays in the program). */
void debug_step_events(struct vcpu_group *g, bool deliver);

/* Why the vCPU stopped; DEBUG_NONE if it did not for itself. */
struct debug_stop debug_stop_get(const struct vcpu *c);

/* Memory as the vCPU sees it at CPL 0, whatever the pages' permissions: no fault, no accessed or dirty bit; RAM and ROM
 * only, never a device. Returns how many bytes could be copied before the first that cannot be reached. Writes go to ROM
 * too. The _physical twins take guest-physical addresses. */
u64 debug_read(struct vcpu *c, u64 gva, void *buf, u64 len);
u64 debug_write(struct vcpu *c, u64 gva, const void *buf, u64 len);
u64 debug_read_physical(struct vcpu_group *g, u64 gpa, void *buf, u64 len);
u64 debug_write_physical(struct vcpu_group *g, u64 gpa, const void *buf, u64 len);

/* Whether the vCPU runs, halts, waits for SIPI or has shut down: a word for people. */
const char *debug_activity(const struct vcpu *c);

#endif
