/* Stub and machine: see vm_debug.h. */
#include "vm/vm_debug.h"

#include <errno.h>
#include <stdlib.h>

#include "debug/gdb_stub.h"

struct vm_debug {
    struct machine *machine;
    struct gdb_host host;
    struct gdb_stub *stub;
};

static void debug_resume_machine(void *ctx)
{
    machine_continue(((struct vm_debug *)ctx)->machine);
}

static void debug_pause_machine(void *ctx)
{
    machine_pause(((struct vm_debug *)ctx)->machine);
}

static void debug_reset_machine(void *ctx)
{
    machine_restart(((struct vm_debug *)ctx)->machine);
}

static void debug_kill_machine(void *ctx)
{
    machine_stop(((struct vm_debug *)ctx)->machine, MACHINE_QUIT, 0, "the debugger");
}

static void machine_stands(void *ctx)
{
    gdb_stub_paused(((struct vm_debug *)ctx)->stub);
}

static int stub_create(struct vm_debug *d, const struct vm_config *config, int fd, struct event_loop *loop, struct err *e)
{
    struct gdb_wishes wishes = {.arch_given = config->gdb_arch != VM_GDB_AUTO,
                                .arch = config->gdb_arch == VM_GDB_I386 ? DEBUG_I386 : DEBUG_X86_64};

    return gdb_stub_create(d->machine->cpus, &d->host, &wishes, loop, fd, &d->stub, e);
}

int vm_debug_create(const struct vm_config *config, int listen_fd, struct event_loop *loop, struct machine *m,
                    struct vm_debug **ret, struct err *e)
{
    struct vm_debug *d = calloc(1, sizeof(*d));

    if (!d)
        return err_set(e, -ENOMEM, "debugger: out of memory");
    d->machine = m;
    d->host = (struct gdb_host){d, debug_resume_machine, debug_pause_machine, debug_reset_machine, debug_kill_machine};
    if (stub_create(d, config, listen_fd, loop, e)) {
        free(d);
        return e->code;
    }
    machine_on_pause(m, machine_stands, d);
    if (config->gdb_wait)
        machine_pause(m);
    *ret = d;
    return 0;
}

void vm_debug_free(struct vm_debug *d, int status)
{
    if (!d)
        return;
    gdb_stub_free(d->stub, status);
    free(d);
}
