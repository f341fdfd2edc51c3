/* A machine for tests of devices and buses: fake vCPUs (fake_vcpu.h), its own loop and lock, RAM at 0. */
#ifndef TESTS_MACHINE_FIXTURE_H
#define TESTS_MACHINE_FIXTURE_H
#include "fake_vcpu.h"
#include "machine/machine.h"

#define FIXTURE_RAM MIB(2)

/* With `cpus` vCPUs and FIXTURE_RAM bytes of RAM; its clock stands at 0 and moves with fixture_time. The caller may
 * change m->config before machine_run. */
struct machine *fixture_machine(int cpus);

/* A loop and a recursive lock to put into a machine_config, for tests that create the machine otherwise. */
void fixture_config(struct machine_config *config, int cpus);

/* Frees a machine made with either, and its loop and lock; or only those two. */
void fixture_free(struct machine *m);
void fixture_host_free(struct event_loop *loop, pthread_mutex_t *lock);

/* Moves the (stopped) clock to `now` and runs the timers that came due on the way, each at its own moment. */
void fixture_time(struct machine *m, u64 now);

/* An input that remembers: irq.set is called with ctx = the probe. */
struct irq_probe {
    bool level;
    int rises, changes;
};
struct irq irq_probe(struct irq_probe *p);

#endif
