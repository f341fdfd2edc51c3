/* Waiting for a child process while signals that mean "end" are passed on to it. */
#ifndef CLI_CHILD_H
#define CLI_CHILD_H
#include "base/err.h"
#include "base/types.h"
#include <signal.h>
#include <sys/types.h>

struct child_signals {
    int fd; /* -1: not caught */
    sigset_t mask_before;
};

/* From now on SIGTERM, SIGINT, SIGHUP and SIGCHLD wait for child_wait(). Call it before fork(). */
int child_signals_catch(struct child_signals *s, struct err *e);
void child_signals_release(struct child_signals *s);

/* In the child, before exec: signals act as they did before. */
void child_signals_reset(const struct child_signals *s);

/* How a child went. */
struct child_end {
    int status;  /* waitpid's */
    int passed;  /* the first signal passed on, or 0 */
    bool killed; /* it did not end by itself in time */
};

/* Waits until the child is gone, passing every signal caught on to `target` (the child, or minus its process group).
 * SIGKILL follows ten seconds after the first of them, or after `limit_ms` (0: no limit). */
void child_wait(const struct child_signals *s, pid_t pid, pid_t target, u64 limit_ms, struct child_end *ret);

/* Runs argv[0], found in PATH, to its end, with nothing on stdin and this process's stdout and stderr. It gets a
 * process group of its own, so that its own children hear the signals too. -EINTR when a signal was passed on,
 * other -Exxx with a sentence when it could not be started or failed. */
int child_run(char *const argv[], struct err *e);

#endif
