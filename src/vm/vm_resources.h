/* What a VM holds of the host: its kernel, disks, network and consoles. Opened from the configuration in one place,
 * so that a jail can later be closed behind it. */
#ifndef VM_VM_RESOURCES_H
#define VM_VM_RESOURCES_H
#include "base/err.h"
#include "base/event_loop.h"
#include "proto/vm_config.h"
#include <stdio.h>

struct vm_resources {
    struct boot_image *boot;
    struct disk *disk[VM_DISKS_MAX];
    struct net *net;
    struct console *serial, *virtio_console, *debugcon; /* NULL: absent */
    FILE *trace_insns, *dump, *profile, *jitdump; /* NULL: none */
    int gdb_fd;     /* listens for a debugger; -1: none */
    char *gdb_path; /* a socket file to remove; NULL: none */
};

/* Opens everything; `quit(ctx)` is called when the user asks at the terminal to end the VM. On failure some are open:
 * close `r` in either case. `r` starts zeroed. */
int vm_resources_open(const struct vm_config *c, struct event_loop *loop, void (*quit)(void *ctx), void *ctx,
                      struct vm_resources *r, struct err *e);

/* The machine stands: files for output, untouched until now, are emptied. */
void vm_resources_begin(struct vm_resources *r);
void vm_resources_close(struct vm_resources *r);

#endif
