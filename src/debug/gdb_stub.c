/* The stub's connection: see gdb_stub.h.
 *
 * One packet is answered at a time: input behind it waits until its reply is on its way, so that a debugger that does not read
 * costs no memory. */
#include "debug/gdb_stub.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/trace.h"

#define INPUT_SIZE 4096
#define OUTPUT_SIZE (GDB_FRAME_MAX + 64) /* a frame, and acknowledgements */

struct gdb_stub {
    struct vcpu_group *cpus;
    const struct gdb_host *host;
    struct gdb_wishes wishes;
    struct event_loop *loop;
    int listen_fd, fd; /* fd -1: no debugger */
    struct watch *listen_watch, *watch;
    bool paused;       /* the machine stands still */
    bool leaving;      /* the session's debugger is gone; it ends when the machine stands still again */
    struct gdb_session *session; /* NULL while the machine is on its way to standing still */
    struct gdb_parser parser;
    u8 in[INPUT_SIZE];
    size_t in_at, in_len;
    char out[OUTPUT_SIZE];
    size_t out_at, out_len;
    size_t frame_len;  /* the last frame is out[0..frame_len), for those who want it again */
    char frame[GDB_FRAME_MAX];
};

/* What the watch waits for: a way out first, then more input. */
static void watch_update(struct gdb_stub *g)
{
    bool writing = g->out_at < g->out_len;

    if (g->fd >= 0)
        watch_set_events(g->watch, writing ? WATCH_WRITE : g->session && !g->leaving ? WATCH_READ : 0);
}

static void output_flush(struct gdb_stub *g)
{
    while (g->out_at < g->out_len) {
        ssize_t n = send(g->fd, g->out + g->out_at, g->out_len - g->out_at, MSG_NOSIGNAL);

        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0)
            break; /* nobody will read it: reading tells that, too */
        g->out_at += (size_t)n;
    }
    g->out_at = g->out_len = 0;
}

static void output_put(struct gdb_stub *g, const char *bytes, size_t len)
{
    if (len > OUTPUT_SIZE - g->out_len)
        return; /* acknowledgements that pile up: a debugger that reads gets them */
    memcpy(g->out + g->out_len, bytes, len);
    g->out_len += len;
}

static void reply_send(struct gdb_stub *g, const struct gdb_reply *r)
{
    trace(GDB, "reply %.*s", (int)MIN(r->len, 200), r->text);
    g->frame_len = gdb_frame(r, g->frame);
    output_put(g, g->frame, g->frame_len);
}

static void connection_close(struct gdb_stub *g)
{
    watch_remove(g->watch);
    close(g->fd);
    g->fd = -1;
    g->watch = NULL;
    watch_set_events(g->listen_watch, WATCH_READ);
}

static void machine_resume(struct gdb_stub *g)
{
    g->paused = false;
    g->host->resume(g->host->ctx);
}

static void session_end(struct gdb_stub *g)
{
    gdb_session_free(g->session);
    g->session = NULL;
}

/* The debugger is gone. Points can be removed only while the machine stands still. */
static void hang_up(struct gdb_stub *g)
{
    trace(GDB, "the debugger hung up");
    connection_close(g);
    if (!g->session)
        return;
    if (g->paused) {
        session_end(g);
        return;
    }
    g->leaving = true;
    g->host->pause(g->host->ctx);
}

static void detach(struct gdb_stub *g)
{
    output_flush(g);
    session_end(g);
    connection_close(g);
    machine_resume(g);
}

static void packet(struct gdb_stub *g)
{
    struct gdb_reply r = {0};
    enum gdb_answer answer;

    trace(GDB, "packet %.200s", g->parser.data);
    if (!g->session->no_ack)
        output_put(g, "+", 1);
    answer = gdb_session_packet(g->session, g->parser.data, g->parser.len, &r);
    if (answer == GDB_REPLY || answer == GDB_LEAVE)
        reply_send(g, &r);
    if (answer == GDB_RESUME)
        machine_resume(g);
    if (answer == GDB_LEAVE)
        detach(g);
}

static void event(struct gdb_stub *g, enum gdb_event e)
{
    switch (e) {
    case GDB_PACKET: packet(g); break;
    case GDB_BAD: output_put(g, "-", 1); break;
    case GDB_NACK: output_put(g, g->frame, g->frame_len); break;
    case GDB_INTERRUPT: gdb_session_interrupt(g->session); break;
    default: break;
    }
}

/* Works on input until something must be written, or the session is over. */
static void input_work(struct gdb_stub *g)
{
    while (g->session && !g->leaving && g->fd >= 0 && g->in_at < g->in_len && g->out_at == g->out_len) {
        event(g, gdb_parse(&g->parser, g->in[g->in_at++]));
        if (g->fd >= 0)
            output_flush(g);
    }
}

static void input_read(struct gdb_stub *g)
{
    ssize_t n = recv(g->fd, g->in, sizeof(g->in), 0);

    if (n > 0) {
        g->in_at = 0;
        g->in_len = (size_t)n;
    } else if (!n || errno != EAGAIN) {
        hang_up(g);
    }
}

static void connection_ready(void *ctx, int events)
{
    struct gdb_stub *g = ctx;

    output_flush(g);
    input_work(g);
    if (g->fd >= 0 && g->in_at == g->in_len && events & WATCH_READ) {
        input_read(g);
        input_work(g);
    }
    watch_update(g);
}

static void session_begin(struct gdb_stub *g)
{
    g->session = gdb_session_create(g->cpus, g->host, &g->wishes);
    if (!g->session)
        connection_close(g);
}

static void connected(void *ctx, int events)
{
    struct gdb_stub *g = ctx;
    int on = 1;
    struct err e;

    g->fd = accept4(g->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (g->fd < 0)
        return;
    trace(GDB, "a debugger connected");
    setsockopt(g->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* fails for UNIX sockets, which have no delay */
    if (event_loop_watch(g->loop, g->fd, 0, connection_ready, g, &g->watch, &e)) {
        close(g->fd);
        g->fd = -1;
        return;
    }
    watch_set_events(g->listen_watch, 0);
    g->parser = (struct gdb_parser){0};
    g->in_at = g->in_len = g->out_at = g->out_len = g->frame_len = 0;
    if (g->paused)
        session_begin(g);
    else if (!g->leaving)
        g->host->pause(g->host->ctx);
    watch_update(g);
}

/* The debugger of this session left while the machine ran; perhaps another one waits already. */
static void session_left(struct gdb_stub *g)
{
    session_end(g);
    if (g->fd < 0)
        machine_resume(g);
    else
        session_begin(g);
}

static void session_stopped(struct gdb_stub *g)
{
    struct gdb_reply r = {0};

    if (gdb_session_stopped(g->session, &r) == GDB_RESUME) {
        machine_resume(g);
        return;
    }
    reply_send(g, &r);
    output_flush(g);
    input_work(g);
}

void gdb_stub_paused(struct gdb_stub *g)
{
    g->paused = true;
    if (g->leaving) {
        g->leaving = false;
        session_left(g);
    } else if (g->session) {
        session_stopped(g);
    } else if (g->fd >= 0) {
        session_begin(g);
    }
    watch_update(g);
}

int gdb_stub_create(struct vcpu_group *cpus, const struct gdb_host *host, const struct gdb_wishes *wishes,
                    struct event_loop *loop, int fd, struct gdb_stub **ret, struct err *e)
{
    struct gdb_stub *g = calloc(1, sizeof(*g));

    if (!g)
        return err_set(e, -ENOMEM, "gdb stub: out of memory");
    g->cpus = cpus;
    g->host = host;
    g->wishes = *wishes;
    g->loop = loop;
    g->listen_fd = fd;
    g->fd = -1;
    if (event_loop_watch(loop, fd, WATCH_READ, connected, g, &g->listen_watch, e)) {
        free(g);
        return e->code;
    }
    *ret = g;
    return 0;
}

void gdb_stub_free(struct gdb_stub *g, int status)
{
    struct gdb_reply r = {0};

    if (!g)
        return;
    if (g->fd >= 0 && g->session) {
        reply_text(&r, "W%02x", status & 0xff);
        reply_send(g, &r);
        output_flush(g);
    }
    gdb_session_free(g->session);
    if (g->fd >= 0)
        connection_close(g);
    watch_remove(g->listen_watch);
    free(g);
}
