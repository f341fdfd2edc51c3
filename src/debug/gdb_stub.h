/* gdb's remote stub of one machine: a listening socket, at most one debugger at a time, on the machine's event loop.
 *
 * A debugger that connects stops the machine; when it detaches the machine goes on. One that vanishes leaves the machine as it
 * was, stopped or running, without its breakpoints. */
#ifndef DEBUG_GDB_STUB_H
#define DEBUG_GDB_STUB_H
#include "base/event_loop.h"
#include "debug/gdb_session.h"

struct gdb_stub;

/* The functions of `host` are called in the loop thread, but for pause. `fd` listens; it stays the caller's, as does `host`. */
int gdb_stub_create(struct vcpu_group *cpus, const struct gdb_host *host, const struct gdb_wishes *wishes,
                    struct event_loop *loop, int fd, struct gdb_stub **ret, struct err *e);

/* The machine stands still: after the host's pause, or because it starts so. Loop thread. */
void gdb_stub_paused(struct gdb_stub *g);

/* The machine has ended, with this exit status: a debugger is told. The loop does not run. NULL is fine. */
void gdb_stub_free(struct gdb_stub *g, int status);

#endif
