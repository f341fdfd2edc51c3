/* Raw mode, and back: see terminal.h. termios(3).
 *
 * The terminal is the process's, not a guest's, so its saved mode is a static. Signals that end the process by default put it
 * back and then do what they always do; those that the program handles itself are left alone, for it will free the console. */
#include "ui/terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

static const int deadly[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGXCPU};
static struct termios saved, raw;
static volatile sig_atomic_t active;
static int terminal_fd;

bool terminal_interactive(int fd)
{
    return isatty(fd) && tcgetpgrp(fd) == getpgrp();
}

static void put_back(void)
{
    if (!active)
        return;
    active = 0;
    tcsetattr(terminal_fd, TCSANOW, &saved);
}

/* SA_RESETHAND has put the default action back; raising it again takes effect on return. */
static void on_deadly(int sig)
{
    put_back();
    raise(sig);
}

/* After a stop and `fg` the shell has set its own mode. */
static void on_continue(int sig)
{
    int keep = errno;

    if (active && tcgetpgrp(terminal_fd) == getpgrp())
        tcsetattr(terminal_fd, TCSANOW, &raw);
    errno = keep;
}

static void hook(int sig, void (*fn)(int), int flags)
{
    struct sigaction now, ours = {.sa_handler = fn, .sa_flags = flags};

    if (sigaction(sig, NULL, &now) || now.sa_flags & SA_SIGINFO || now.sa_handler != SIG_DFL)
        return;
    sigaction(sig, &ours, NULL);
}

static void unhook(int sig, void (*fn)(int))
{
    struct sigaction now;

    if (!sigaction(sig, NULL, &now) && !(now.sa_flags & SA_SIGINFO) && now.sa_handler == fn)
        signal(sig, SIG_DFL);
}

int terminal_raw(int fd)
{
    static bool at_exit;

    assert(!active);
    if (tcgetattr(fd, &saved))
        return -errno;
    raw = saved;
    cfmakeraw(&raw);
    raw.c_oflag |= saved.c_oflag & OPOST;
    terminal_fd = fd;
    if (!at_exit)
        at_exit = !atexit(put_back);
    for (size_t i = 0; i < ARRAY_SIZE(deadly); i++)
        hook(deadly[i], on_deadly, (int)SA_RESETHAND);
    hook(SIGCONT, on_continue, SA_RESTART);
    active = 1;
    return tcsetattr(fd, TCSANOW, &raw) ? -errno : 0;
}

void terminal_restore(void)
{
    put_back();
    for (size_t i = 0; i < ARRAY_SIZE(deadly); i++)
        unhook(deadly[i], on_deadly);
    unhook(SIGCONT, on_continue);
}
