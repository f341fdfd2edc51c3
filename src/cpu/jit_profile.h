/* Which blocks of guest code the translator made and how often they ran, for --profile: a table at the end, and a jitdump (the
 * format of perf's tools/perf/Documentation/jitdump-specification.txt) that names guest code to perf while it runs.
 *
 * A block's name is "guest ADDRESS [BITS MODE]", with the linear address that it was translated for; its slow paths and exits
 * have "slow" behind that. A block that is left by a side exit counts as entered, with the instructions up to there. */
#ifndef CPU_JIT_PROFILE_H
#define CPU_JIT_PROFILE_H
#include "cpu/vcpu.h"
#include <stdio.h>

struct jit_profile_config {
    FILE *table;
    FILE *jitdump; /* its file is called jit-PID.dump; open for reading too, and empty */
};

/* For files of cpu/. A group's, or NULL for config NULL; -Exxx and a sentence. Freeing writes the table; the streams stay
 * open. */
struct jit_profile;
int jit_profile_create(const struct jit_profile_config *config, struct jit_profile **ret, struct err *e);
void jit_profile_free(struct jit_profile *p);

struct jit_emit;

/* A block for linear address `lin` is about to be emitted: where its code shall count. Only with a profile. */
u64 *jit_profile_begin(const struct jit_emit *e, u64 lin);

/* It was emitted. Saves live extended registers. */
void jit_profile_end(const struct jit_emit *e, u64 lin);

#endif
