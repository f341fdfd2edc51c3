/* A VM process as seen by the command that starts it. */
#ifndef CLI_VM_CHILD_H
#define CLI_VM_CHILD_H
#include "base/err.h"
#include "proto/vm_channel.h"

/* Starts a VM process with this configuration, on the caller's stdin, stdout and stderr, and waits for its end.
 * SIGTERM, SIGINT and SIGHUP are passed on to it; one that does not end within ten seconds of that, or half a
 * minute after the configuration's timeout, is killed. A terminal is left as it was found, even if the VM process
 * crashes.
 *
 * 0 and *ret filled when it told how it ended; *ret_signal is the signal that was passed on, or 0. -Exxx with a
 * sentence when it could not be started or died without a word. */
int vm_child_run(const struct vm_config *config, struct vm_ended *ret, int *ret_signal, struct err *e);

#endif
