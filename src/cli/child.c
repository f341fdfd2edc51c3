/* Child processes of a verb: see child.h. */
#include "cli/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
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

int child_wait(const struct child_signals *s, pid_t pid, pid_t target, int *ret_status)
{
    struct pollfd poll_fd = {.fd = s->fd, .events = POLLIN};
    struct signalfd_siginfo info;
    int passed = 0;

    while (waitpid(pid, ret_status, WNOHANG) != pid) {
        if (!poll(&poll_fd, 1, passed ? END_PATIENCE_MS : -1)) {
            kill(target, SIGKILL);
            continue;
        }
        if (read(s->fd, &info, sizeof(info)) != sizeof(info) || info.ssi_signo == SIGCHLD)
            continue;
        kill(target, (int)info.ssi_signo);
        passed = passed ? passed : (int)info.ssi_signo;
    }
    return passed;
}

static int status_explain(const char *program, int status, int passed, struct err *e)
{
    if (passed)
        return err_set(e, -EINTR, "ended by SIG%s", sigabbrev_np(passed));
    if (WIFSIGNALED(status))
        return err_set(e, -ECHILD, "%s died of SIG%s", program, sigabbrev_np(WTERMSIG(status)));
    if (WEXITSTATUS(status) == 127)
        return err_set(e, -ENOENT, "%s: no such program", program);
    if (WEXITSTATUS(status))
        return err_set(e, -ECHILD, "%s failed (status %d)", program, WEXITSTATUS(status));
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
    int status = 0, passed = 0;
    pid_t pid;

    if (child_signals_catch(&signals, e))
        return e->code;
    fflush(NULL);
    pid = fork();
    if (!pid)
        program_exec(&signals, argv);
    if (pid > 0) {
        setpgid(pid, pid); /* here as in the child: whichever comes first */
        passed = child_wait(&signals, pid, -pid, &status);
    }
    child_signals_release(&signals);
    return pid < 0 ? err_set(e, -errno, "cannot start a process: %m") : status_explain(argv[0], status, passed, e);
}
