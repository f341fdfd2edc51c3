/* Stopping the world: one thread works while every vCPU stands between two instructions.
 *
 * Needed when a page first holds decoded code (no vCPU may keep a fast write path to it), for locked operations that cross a
 * page, and when the guest-physical map changes. */
#ifndef CPU_WORLD_H
#define CPU_WORLD_H
#include "cpu/vcpu_state.h"

void world_init(struct vcpu_group *g);
void world_destroy(struct vcpu_group *g);

/* Around guest execution, by the vCPU's thread. Enter waits while somebody has the world to himself. */
void world_enter(struct vcpu *c);
void world_leave(struct vcpu *c);

/* Begins and ends an exclusive section. `self` is the calling vCPU if it is inside guest execution, else NULL. Nothing may
 * raise in between. */
void world_stop(struct vcpu_group *g, struct vcpu *self);
void world_go(struct vcpu_group *g, struct vcpu *self);

#endif
