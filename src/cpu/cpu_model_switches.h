/* What --cpu-model says: a model's name and, after commas, changes to it.
 *
 * "x86-64-v3,-x2apic,+avx512f,vendor=GenuineIntel,phys-bits=40"; without a name ("-pcid") it is the best model that the
 * host can back. Features are called as in features.def, in upper or lower case, with - or _. */
#ifndef CPU_CPU_MODEL_SWITCHES_H
#define CPU_CPU_MODEL_SWITCHES_H
#include "cpu/cpuid.h"

struct cpu_model_switches {
    char name[32];           /* empty: the best model */
    u64 add[FEATURE_WORDS];  /* features that the model must have too */
    u64 drop[FEATURE_WORDS]; /* and those that it must not */
    char vendor[13];         /* empty: the model's own */
    int phys_bits;           /* 0: the model's own */
};

/* Fills *ret; -EINVAL with a sentence, *ret then undefined. Whether the model exists and the host can back it is not
 * looked at. */
int cpu_model_switches_parse(const char *text, struct cpu_model_switches *ret, struct err *e);

#endif
