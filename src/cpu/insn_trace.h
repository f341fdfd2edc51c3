/* One line for each instruction that retires, for comparing two runs (tools/compare-traces): the interpreter's, which steps
 * while it traces.
 *
 *   VCPU COUNT CS:RIP BYTES TEXT [; REGISTER=VALUE …]     an instruction; one iteration of a repeated string instruction
 *   VCPU COUNT event KIND VECTOR [ERROR]                  an exception or interrupt is delivered
 *   VCPU COUNT event entered CS:RIP [; REGISTER=VALUE …]  what that changed, if registers are wanted
 *
 * COUNT is how many instructions the vCPU had retired before; numbers but VCPU and COUNT are hexadecimal. Registers are those
 * that the instruction changed, in the order and under the names of cpu/debug_regs.h. */
#ifndef CPU_INSN_TRACE_H
#define CPU_INSN_TRACE_H
#include "cpu/vcpu.h"
#include <stdio.h>

struct insn_trace_config {
    FILE *out;
    u64 from, count; /* instructions of each vCPU; count 0: all that follow */
    bool regs;       /* changed registers too */
};

/* For files of cpu/. A group's, or NULL for config NULL; -ENOMEM and a sentence. */
struct insn_trace;
int insn_trace_create(struct vcpu_group *g, const struct insn_trace_config *config, struct insn_trace **ret, struct err *e);
void insn_trace_free(struct insn_trace *t); /* the stream stays open */

/* Whether this vCPU's next instruction is traced, or one after it will be: it must be stepped. */
bool insn_trace_steps(const struct vcpu *c);

/* Before an instruction, and after it completed. Save live extended registers. */
void insn_trace_begin(struct vcpu *c);
void insn_trace_end(struct vcpu *c);

/* Before an event is delivered. Saves. */
void insn_trace_event(struct vcpu *c, const char *kind, int vector, bool has_error, u32 error);

#endif
