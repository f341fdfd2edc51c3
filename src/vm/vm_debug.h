/* The machine's debugger: joins the stub of debug/ with the machine. */
#ifndef VM_VM_DEBUG_H
#define VM_VM_DEBUG_H
#include "base/event_loop.h"
#include "machine/machine.h"
#include "proto/vm_config.h"

struct vm_debug;

/* Lets debuggers connect at listen_fd, which stays the caller's; with config->gdb_wait the machine stops before its first
 * instruction. Before machine_run. */
int vm_debug_create(const struct vm_config *config, int listen_fd, struct event_loop *loop, struct machine *m,
                    struct vm_debug **ret, struct err *e);

/* The machine has ended with this exit status. NULL is fine. */
void vm_debug_free(struct vm_debug *d, int status);

#endif
