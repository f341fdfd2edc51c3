/* Where a debugger connects: "HOST:PORT", ":PORT" (127.0.0.1), "[V6]:PORT", or the path of a UNIX socket (it has a slash). */
#ifndef DEBUG_GDB_LISTEN_H
#define DEBUG_GDB_LISTEN_H
#include "base/err.h"

/* Listens there; *ret is a non-blocking descriptor, the caller's. `shown` gets the address as a debugger would name it, with
 * the port that the host chose for port 0. A socket file of that name that nobody listens at is replaced. -Exxx and a
 * sentence. */
int gdb_listen(const char *address, int *ret, char shown[128], struct err *e);

/* Checks the address's form alone; -EINVAL and a sentence. */
int gdb_address_check(const char *address, struct err *e);

#endif
