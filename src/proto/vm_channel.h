/* The line between whoever starts a VM and the VM process: one SOCK_SEQPACKET socket pair, one JSON object a packet.
 *
 *   to the VM, the first packet:   the configuration, see vm_config.h
 *   from the VM, the last packet:  {"type": "ended", "why": "power-off", "value": 0, "text": "…"}
 *
 * A VM process whose starter goes away (the socket hangs up) ends its machine. Both sides read the other's packets as
 * hostile. */
#ifndef PROTO_VM_CHANNEL_H
#define PROTO_VM_CHANNEL_H
#include "base/err.h"
#include "proto/vm_config.h"

enum vm_end {
    VM_END_POWER_OFF,
    VM_END_RESET,        /* with no_reboot */
    VM_END_TRIPLE_FAULT, /* with no_reboot */
    VM_END_DEBUG_EXIT,   /* `value` is what the guest asked for as exit status */
    VM_END_TIMEOUT,
    VM_END_QUIT,         /* asked for from outside; `text` says by what */
    VM_END_FAILED,       /* the machine broke down or could not be built; `text` says what */
    VM_END_COUNT
};

struct vm_ended {
    enum vm_end why;
    int value;      /* 0 to 255 */
    char text[512]; /* one sentence, may be empty */
};

/* Two connected ends, both close-on-exec. */
int vm_channel_create(int fd[2], struct err *e);

int vm_channel_send_config(int fd, const struct vm_config *c, struct err *e);
int vm_channel_recv_config(int fd, struct vm_config *ret, struct err *e); /* waits; the caller frees *ret */

int vm_channel_send_ended(int fd, const struct vm_ended *ended, struct err *e);
int vm_channel_recv_ended(int fd, struct vm_ended *ret, struct err *e); /* -EPIPE: the VM went without a word */

#endif
