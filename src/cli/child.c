/* Child processes of a verb: see child.h. */
#include "cli/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define END_PATIENCE_MS 10000

int child_signals_catch(struct child_signals *s, struct err *e)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    s->fd = signalfd(-1, &set, SFD_CLOEXEC);
    if (s->fd < 0)
        return err_set(e, -errno, "signalfd: %m");
    sigprocmask(SIG_BLOCK, &set, &s->mask_before);
    return 0;
}

void child_signals_release(struct child_signals *s)
{
    if (s->fd < 0)
        return;
    close(s->fd);
    s->fd = -1;
    child_signals_reset(s);
}

void child_signals_reset(const struct child_signals *s)
{
    sigprocmask(SIG_SETMASK, &s->mask_before, NULL);
}

static u64 now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (u64)t.tv_sec * 1000 + (u64)t.tv_nsec / 1000000;
}

/* Waits for a caught signal, at most until `deadline`. Returns it, or 0. */
static int signal_next(const struct child_signals *s, u64 deadline)
{
    struct pollfd poll_fd = {.fd = s->fd, .events = POLLIN};
    struct signalfd_siginfo info;
    u64 now = now_ms(), left = deadline > now ? MIN(deadline - now, INT32_MAX) : 0;

    if (poll(&poll_fd, 1, deadline == UINT64_MAX ? -1 : (int)left) != 1 ||
        read(s->fd, &info, sizeof(info)) != sizeof(info))
        return 0;
    return (int)info.ssi_signo;
}

void child_wait(const struct child_signals *s, pid_t pid, pid_t target, u64 limit_ms, struct child_end *ret)
{
    u64 deadline = limit_ms ? now_ms() + limit_ms : UINT64_MAX;

    *ret = (struct child_end){0};
    while (waitpid(pid, &ret->status, WNOHANG) != pid) {
        int sig = signal_next(s, deadline);

        if (now_ms() >= deadline) {
            kill(target, SIGKILL);
            ret->killed = true;
            deadline = UINT64_MAX;
        }
        if (!sig || sig == SIGCHLD)
            continue;
        kill(target, sig);
        ret->passed = ret->passed ? ret->passed : sig;
        deadline = MIN(deadline, now_ms() + END_PATIENCE_MS);
    }
}

static int end_explain(const char *program, const struct child_end *end, struct err *e)
{
    if (end->passed)
        return err_set(e, -EINTR, "ended by SIG%s", sigabbrev_np(end->passed));
    if (WIFSIGNALED(end->status))
        return err_set(e, -ECHILD, "%s died of SIG%s", program, sigabbrev_np(WTERMSIG(end->status)));
    if (WEXITSTATUS(end->status) == 127)
        return err_set(e, -ENOENT, "%s: no such program", program);
    if (WEXITSTATUS(end->status))
        return err_set(e, -ECHILD, "%s failed (status %d)", program, WEXITSTATUS(end->status));
    return 0;
}

static void program_exec(const struct child_signals *signals, char *const argv[])
{
    int null = open("/dev/null", O_RDONLY);

    dup2(null, STDIN_FILENO);
    setpgid(0, 0);
    child_signals_reset(signals);
    execvp(argv[0], argv);
    _exit(127);
}

int child_run(char *const argv[], struct err *e)
{
    struct child_signals signals = {.fd = -1};
    struct child_end end;
    pid_t pid;

    if (child_signals_catch(&signals, e))
        return e->code;
    fflush(NULL);
    pid = fork();
    if (!pid)
        program_exec(&signals, argv);
    e->code = pid < 0 ? err_set(e, -errno, "cannot start a process: %m") : 0;
    if (pid > 0) {
        setpgid(pid, pid); /* here as in the child: whichever comes first */
        child_wait(&signals, pid, -pid, 0, &end);
        e->code = end_explain(argv[0], &end, e);
    }
    child_signals_release(&signals);
    return e->code;
}
