/* One machine from its configuration to its end, in the calling thread and the threads of its vCPUs. */
#ifndef VM_VM_RUN_H
#define VM_VM_RUN_H
#include "base/err.h"
#include "proto/vm_channel.h"

/* Builds and runs the machine. SIGTERM, SIGINT and SIGHUP, and a hang-up of `channel_fd`, end it in good order:
 * consoles restored, disks flushed. 0 and *ret filled once the machine ran; -Exxx with a sentence when it could not
 * be built. */
int vm_run(const struct vm_config *config, int channel_fd, struct vm_ended *ret, struct err *e);

#endif
