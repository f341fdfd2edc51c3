/* The clock that the TSC counts: the machine's, by the host's own TSC where the host's kernel keeps time by that and a straight line tells
 * what its clock shows.
 *
 *   ns = line.ns + ((host TSC - line.tsc) * line.slope >> 32)    while host TSC - line.tsc < line.length
 *
 * A line begins where the clock is, or where the line before it ended if that is later, and is a little less steep than the clock: so the
 * clock shows no less than a line does, and no vCPU reads less than another has read before. It is at most a millisecond long, and at most
 * about a microsecond behind at its end. Translated code looks at it too (jit_thunk.c). */
#ifndef CPU_TSC_H
#define CPU_TSC_H
#include "base/timer.h"
#include "base/types.h"
#include <pthread.h>

struct vcpu;

struct tsc_clock {
    u64 number; /* of the line; odd while it changes. What follows is good if this is even, and the same before and after */
    u64 tsc, ns, slope;
    u64 length; /* 0: there is no line */
    /* under the lock: */
    pthread_mutex_t lock;
    bool usable;               /* the host's TSC is */
    u64 offset;                /* of the clock, for which the line is */
    u64 first_tsc, first_ns;   /* where measuring its speed began; 0: nowhere yet */
};

void tsc_clock_init(struct tsc_clock *t);
void tsc_clock_free(struct tsc_clock *t);
/* Before a vCPU runs: the clock may have been stopped or set. */
void tsc_clock_check(struct tsc_clock *t, const struct clock *clock);
/* Nanoseconds; no less than anybody got before, and no more than the clock shows, but for an error of its measured speed. */
u64 tsc_clock_read(struct vcpu *c);
/* The same, of the line alone; false: it does not reach that far. */
bool tsc_clock_line(const struct tsc_clock *t, u64 *ret);

#endif
