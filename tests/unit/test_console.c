/* Consoles: a child process has one on its descriptors 0 and 1, and this test is the person at the other end of the terminal or
 * pipe. The device in the child answers what it receives, so that all can be seen from outside. */
#include "base/event_loop.h"
#include "ui/console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <utmp.h>
#include <cmocka.h>

enum { QUIT_STATUS = 42 };

enum device_kind {
    ANSWERS, /* writes back what it gets, three bytes at a time, breaks as <break> */
    DEAF,    /* never has room */
    FLOOD,   /* writes 3 MiB at once, then 'done', then waits for input */
};

/* ---- the child ---- */

struct device {
    enum device_kind kind;
    struct event_loop *loop;
    struct console *console;
};

static int device_room(void *ctx)
{
    return ((struct device *)ctx)->kind == DEAF ? 0 : 3;
}

static void device_receive(void *ctx, const u8 *data, int len)
{
    struct device *d = ctx;

    if (len > 3)
        _exit(99); /* more than room() said */
    console_write(d->console, (const u8 *)"<", 1);
    console_write(d->console, data, len);
    console_write(d->console, (const u8 *)">", 1);
    if (memchr(data, 'Q', (size_t)len))
        event_loop_stop(d->loop);
    console_room(d->console); /* as a device does that has room again at once */
}

static void device_break(void *ctx)
{
    console_write(((struct device *)ctx)->console, (const u8 *)"<break>", 7);
}

static void quit(void *loop)
{
    event_loop_stop(loop);
}

static void flood(struct device *d)
{
    static u8 text[1 << 16];

    memset(text, 'x', sizeof(text));
    for (int i = 0; i < 48; i++)
        console_write(d->console, text, sizeof(text));
    fprintf(stderr, "done\n");
}

/* Runs in the child: descriptors are in place. Ends by Ctrl-a x or a Q in the input. */
static void child(enum device_kind kind)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct device d = {.kind = kind};
    struct err e;

    for (int sig = 1; sig < SIGRTMIN; sig++)
        signal(sig, SIG_DFL); /* cmocka has handlers of its own */
    if (event_loop_create(&lock, &d.loop, &e))
        _exit(98);
    if (console_stdio_create(d.loop, quit, d.loop, &d.console, &e)) {
        fprintf(stderr, "%s\n", e.text);
        _exit(97);
    }
    console_attach(d.console, device_room, device_receive, device_break, &d);
    console_write(d.console, (const u8 *)"ready", 5);
    if (kind == FLOOD)
        flood(&d);
    event_loop_run(d.loop);
    console_free(d.console);
    event_loop_free(d.loop);
    _exit(QUIT_STATUS);
}

/* ---- this side ---- */

static pid_t pid;
static int to, from, err_pipe; /* the child's input, output, standard error */
static struct termios before;

static void start_on_terminal(enum device_kind kind)
{
    int e[2];

    assert_int_equal(pipe(e), 0);
    pid = forkpty(&to, NULL, NULL, NULL);
    assert_true(pid >= 0);
    if (!pid) {
        dup2(e[1], 2);
        child(kind);
    }
    close(e[1]);
    err_pipe = e[0];
    from = to;
}

static void start_on_pipes(enum device_kind kind)
{
    int i[2], o[2], e[2];

    assert_int_equal(pipe(i) | pipe(o) | pipe(e), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        dup2(i[0], 0);
        dup2(o[1], 1);
        dup2(e[1], 2);
        close(i[1]);
        close(o[0]);
        child(kind);
    }
    close(i[0]);
    close(o[1]);
    close(e[1]);
    to = i[1];
    from = o[0];
    err_pipe = e[0];
}

static void finish(int expected_status)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), expected_status);
    close(to);
    if (from != to)
        close(from);
    close(err_pipe);
}

static void type(const char *keys, size_t len)
{
    assert_int_equal(write(to, keys, len), len);
}

/* Reads until `text` has come; fails after five seconds without anything. */
static void expect(const char *text)
{
    static char got[1 << 16];
    size_t len = 0;

    while (!memmem(got, len, text, strlen(text))) {
        struct pollfd p = {.fd = from, .events = POLLIN};
        ssize_t n;

        if (len > sizeof(got) / 2) { /* the end is enough to find it in */
            memmove(got, got + len - 4096, 4096);
            len = 4096;
        }
        if (poll(&p, 1, 5000) <= 0 || (n = read(from, got + len, sizeof(got) / 2)) <= 0) {
            fail_msg("no '%s' came, but at the end '%.*s'", text, (int)MIN(len, 200u), got + len - MIN(len, 200u));
            return;
        }
        len += (size_t)n;
    }
}

static bool is_raw(void)
{
    struct termios t;

    tcgetattr(to, &t);
    return !(t.c_lflag & (ICANON | ECHO | ISIG));
}

/* ---- on a terminal ---- */

static void keys_reach_the_device_raw(void **unused)
{
    start_on_terminal(ANSWERS);
    expect("ready");
    assert_true(is_raw());
    type("a", 1);
    expect("<a>");
    type("\3", 1); /* Ctrl-C is the guest's */
    expect("<\3>");
    type("\r", 1);
    expect("<\r>");
    type("\1x", 2);
    finish(QUIT_STATUS);
}

static void ctrl_a_keys(void **unused)
{
    start_on_terminal(ANSWERS);
    expect("ready");
    type("\1c", 2);
    expect("<break>");
    type("\1h", 2);
    expect("Ctrl-a x");
    type("\1", 1);
    type("\1", 1); /* in two pieces */
    expect("<\1>");
    type("\1zb", 3); /* no such key: neither reaches the guest */
    expect("<b>");
    type("\1x", 2);
    finish(QUIT_STATUS);
}

static void quits_although_the_guest_does_not_listen(void **unused)
{
    start_on_terminal(DEAF);
    expect("ready");
    for (int i = 0; i < 40; i++) {
        type("these keys go nowhere, as many as they are; ", 44);
        usleep(1000);
    }
    type("\1x", 2);
    finish(QUIT_STATUS);
}

/* The slave's side stays open here, so that the terminal lives on and its mode can be looked at. */
static void mode_is_put_back(int deadly)
{
    struct termios after;
    int master, slave, status;

    assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
    tcgetattr(slave, &before);
    pid = fork();
    if (!pid) {
        setsid();
        login_tty(slave);
        child(ANSWERS);
    }
    to = from = master;
    expect("ready");
    assert_true(is_raw());
    if (deadly)
        kill(pid, deadly);
    else
        type("\1x", 2);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (deadly)
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == deadly);
    else
        assert_int_equal(WEXITSTATUS(status), QUIT_STATUS);
    tcgetattr(slave, &after);
    assert_int_equal(after.c_lflag, before.c_lflag);
    assert_int_equal(after.c_iflag, before.c_iflag);
    assert_int_equal(after.c_oflag, before.c_oflag);
    assert_false(fcntl(slave, F_GETFL) & O_NONBLOCK); /* nor is the shell's open file changed */
    close(master);
    close(slave);
}

static void mode_is_put_back_at_quit(void **unused)
{
    mode_is_put_back(0);
}

static void mode_is_put_back_by_signals(void **unused)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGABRT, SIGSEGV};

    for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
        mode_is_put_back(signals[i]);
}

/* ---- off a terminal ---- */

static void pipe_is_copied_whole(void **unused)
{
    char data[3000], expected[3000 / 3 * 5 + 1];
    size_t at = 0;

    start_on_pipes(ANSWERS);
    expect("ready");
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (char)("\1x\1c0123456789"[i % 14]);
    for (size_t i = 0; i < sizeof(data); i += 3)
        at += (size_t)snprintf(expected + at, sizeof(expected) - at, "<%.3s>", data + i);
    type(data, sizeof(data));
    expect(expected); /* Ctrl-a has no meaning here */
    type("Q", 1);
    finish(QUIT_STATUS);
}

static void end_of_input_ends_nothing(void **unused)
{
    int status;

    start_on_pipes(ANSWERS);
    expect("ready");
    type("last", 4);
    expect("<las><t>");
    close(to);
    usleep(50000);
    assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    close(from);
    close(err_pipe);
}

static void input_from_a_file(void **unused)
{
    char path[] = "/tmp/test_console_XXXXXX";
    int file = mkstemp(path), o[2];

    assert_int_equal(pipe(o), 0);
    assert_int_equal(write(file, "from a file Q", 13), 13);
    lseek(file, 0, SEEK_SET);
    pid = fork();
    if (!pid) {
        dup2(file, 0);
        dup2(o[1], 1);
        child(ANSWERS);
    }
    close(o[1]);
    close(file);
    unlink(path);
    to = from = o[0];
    err_pipe = dup(o[0]);
    expect("<fro><m a>< fi><le >");
    finish(QUIT_STATUS);
}

/* ---- output ---- */

static size_t drain(size_t limit)
{
    static char buf[1 << 16];
    size_t total = 0;

    while (total < limit) {
        struct pollfd p = {.fd = from, .events = POLLIN};
        ssize_t n;

        if (poll(&p, 1, 300) <= 0 || (n = read(from, buf, MIN(sizeof(buf), limit - total))) <= 0)
            break;
        total += (size_t)n;
    }
    return total;
}

static void slow_reader_never_blocks_the_guest(void **unused)
{
    char done[5];

    start_on_pipes(FLOOD);
    assert_int_equal(read(err_pipe, done, 5), 5); /* all was written although nobody reads */
    assert_true(drain(800 << 10) == 800 << 10);   /* a good part is kept */
    type("Q", 1);
    expect("bytes of console output lost]");
    drain(SIZE_MAX);
    finish(QUIT_STATUS);
}

static void reader_that_left_is_no_reason_to_die(void **unused)
{
    char done[5];

    start_on_pipes(FLOOD);
    close(from);
    from = to;
    assert_int_equal(read(err_pipe, done, 5), 5);
    type("Q", 1);
    finish(QUIT_STATUS);
}

static void file_console(void **unused)
{
    char path[] = "/tmp/test_console_XXXXXX", got[64] = {0};
    struct console *c;
    struct err e;
    int fd = mkstemp(path);

    assert_int_equal(write(fd, "old content that is much longer", 31), 31);
    assert_int_equal(console_file_create(path, &c, &e), 0);
    assert_int_equal(pread(fd, got, sizeof(got), 0), 31);
    console_begin(c);
    memset(got, 0, sizeof(got));
    console_attach(c, device_room, device_receive, device_break, NULL);
    console_room(c);
    console_write(c, (const u8 *)"new ", 4);
    console_write(c, (const u8 *)"text", 4);
    console_free(c);
    assert_int_equal(pread(fd, got, sizeof(got), 0), 8);
    assert_string_equal(got, "new text");
    close(fd);
    unlink(path);
}

static void file_console_that_never_began(void **unused)
{
    char path[] = "/tmp/test_console_XXXXXX";
    struct console *c;
    struct err e;

    close(mkstemp(path));
    unlink(path);
    assert_int_equal(console_file_create(path, &c, &e), 0);
    assert_int_equal(access(path, F_OK), 0);
    console_free(c);
    assert_int_equal(access(path, F_OK), -1);
}

static void file_console_that_cannot_be(void **unused)
{
    struct console *c = NULL;
    struct err e;

    assert_int_equal(console_file_create("/nonexistent/log", &c, &e), -ENOENT);
    assert_string_equal(e.text, "console '/nonexistent/log': No such file or directory");
    assert_null(c);
}

static void pipe_without_reader_is_refused(void **unused)
{
    char path[64];
    struct console *c;
    struct err e;

    snprintf(path, sizeof(path), "/tmp/test_console_fifo_%d", getpid());
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(console_file_create(path, &c, &e), -ENXIO);
    unlink(path);
}

static void null_console(void **unused)
{
    struct console *c = console_null_create();

    console_attach(c, device_room, device_receive, device_break, NULL);
    console_write(c, (const u8 *)"x", 1);
    console_room(c);
    console_free(c);
    console_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(keys_reach_the_device_raw),
                                       cmocka_unit_test(ctrl_a_keys),
                                       cmocka_unit_test(quits_although_the_guest_does_not_listen),
                                       cmocka_unit_test(mode_is_put_back_at_quit),
                                       cmocka_unit_test(mode_is_put_back_by_signals),
                                       cmocka_unit_test(pipe_is_copied_whole),
                                       cmocka_unit_test(end_of_input_ends_nothing),
                                       cmocka_unit_test(input_from_a_file),
                                       cmocka_unit_test(slow_reader_never_blocks_the_guest),
                                       cmocka_unit_test(reader_that_left_is_no_reason_to_die),
                                       cmocka_unit_test(file_console),
                                       cmocka_unit_test(file_console_that_never_began),
        cmocka_unit_test(file_console_that_cannot_be),
                                       cmocka_unit_test(pipe_without_reader_is_refused),
                                       cmocka_unit_test(null_console)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
