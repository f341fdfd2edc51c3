/* Starting and waiting for a VM process: see vm_child.h. The child is this same program, executed anew, so that
 * nothing of the command's memory is in the process that the guest lives in. */
#include "cli/vm_child.h"

#include "cli/child.h"
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* How much later than --timeout the VM process may end: it builds the machine before its time starts, and flushes disks
 * after. Then it hangs. */
#define TIMEOUT_PATIENCE_MS 30000

struct vm_child {
    pid_t pid;
    int channel;
    struct child_signals signals;
    bool is_tty;
    struct termios terminal;
};

static void vm_exec(const struct vm_child *child, int channel)
{
    char fd[16];

    snprintf(fd, sizeof(fd), "%d", channel);
    fcntl(channel, F_SETFD, 0);
    child_signals_reset(&child->signals);
    execl("/proc/self/exe", "skerry", "vm", "--channel-fd", fd, (char *)NULL);
    _exit(127);
}

static int vm_start(struct vm_child *child, struct err *e)
{
    int channel[2];

    if (child_signals_catch(&child->signals, e) || vm_channel_create(channel, e))
        return e->code;
    child->is_tty = !tcgetattr(STDIN_FILENO, &child->terminal);
    fflush(NULL);
    child->pid = fork();
    if (!child->pid)
        vm_exec(child, channel[1]);
    child->channel = channel[0];
    close(channel[1]);
    return child->pid < 0 ? err_set(e, -errno, "cannot start a process: %m") : 0;
}

static void terminal_restore(const struct vm_child *child)
{
    sigset_t ttou;

    sigemptyset(&ttou);
    sigaddset(&ttou, SIGTTOU); /* a background process would be stopped by tcsetattr */
    sigprocmask(SIG_BLOCK, &ttou, NULL);
    if (child->is_tty)
        tcsetattr(STDIN_FILENO, TCSANOW, &child->terminal);
    sigprocmask(SIG_UNBLOCK, &ttou, NULL);
}

static int vm_report(const struct vm_child *child, const struct child_end *end, struct vm_ended *ret, struct err *e)
{
    if (WIFSIGNALED(end->status))
        terminal_restore(child);
    if (!vm_channel_recv_ended(child->channel, ret, e))
        return 0;
    if (end->killed)
        return err_set(e, -ECHILD, "the VM process did not end when it should and was killed: a fault of skerry's");
    if (WIFSIGNALED(end->status))
        return err_set(e, -ECHILD, "the VM process died of SIG%s%s", sigabbrev_np(WTERMSIG(end->status)),
                       WTERMSIG(end->status) == SIGKILL ? "" : ": a fault of skerry's");
    return err_set(e, -ECHILD, "the VM process ended (status %d) without saying why", WEXITSTATUS(end->status));
}

int vm_child_run(const struct vm_config *config, struct vm_ended *ret, int *ret_signal, struct err *e)
{
    struct vm_child child = {.pid = -1, .channel = -1, .signals.fd = -1};
    struct child_end end;

    if (vm_start(&child, e))
        goto out;
    if (vm_channel_send_config(child.channel, config, e)) {
        shutdown(child.channel, SHUT_RDWR); /* the child ends for want of a configuration */
        child_wait(&child.signals, child.pid, child.pid, 0, &end);
        goto out;
    }
    child_wait(&child.signals, child.pid, child.pid, config->timeout_ms ? config->timeout_ms + TIMEOUT_PATIENCE_MS : 0,
               &end);
    *ret_signal = end.passed;
    e->code = vm_report(&child, &end, ret, e);
out:
    if (child.channel >= 0)
        close(child.channel);
    child_signals_release(&child.signals);
    return e->code;
}
