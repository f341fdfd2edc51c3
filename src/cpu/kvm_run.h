/* The KVM engine's functions for one vCPU, as engine.h has them; kvm_vcpu.c. */
#ifndef CPU_KVM_RUN_H
#define CPU_KVM_RUN_H
#include "cpu/vcpu_state.h"

int kvm_vcpu_create(struct vcpu *c, struct err *e);
void kvm_vcpu_free(struct vcpu *c);
void kvm_run_guest(struct vcpu *c);
void kvm_kick(struct vcpu *c);
void kvm_flush(struct vcpu *c);

/* Once per process at least, before any vCPU runs: the signal that ends a KVM_RUN. */
#define KVM_KICK_SIGNAL SIGUSR1
int kvm_kick_set_up(struct err *e);

#endif
