/* Hostile frames into the user network, as far as our code goes: the guest's frames and the host's answers through the queues
 * between card and back end, and the poll set and timers that libslirp is given. libslirp itself is a stand-in here, which
 * reads every byte, answers, and plays with timers and sockets as the input says.
 *
 * The back end's own thread works them off meanwhile, so that an input is not always the same course of events. */
#include "base/event_loop.h"
#include "fuzz_input.h"
#include "net/net.h"

#include <poll.h>
#include <pthread.h>
#include <slirp/libslirp.h>
#include <stdlib.h>
#include <string.h>

enum { TIMERS = 8 };

struct Slirp {
    const SlirpCb *cb;
    void *opaque;
    void *timer[TIMERS];
    u32 sum;
    int sockets, polled; /* wanted; in the poll set */
};

static struct Slirp slirp;

Slirp *slirp_new(const SlirpConfig *cfg, const SlirpCb *callbacks, void *opaque)
{
    slirp = (struct Slirp){.cb = callbacks, .opaque = opaque};
    return &slirp;
}

void slirp_cleanup(Slirp *s)
{
    for (int i = 0; i < TIMERS; i++)
        if (s->timer[i])
            s->cb->timer_free(s->timer[i], s->opaque);
}

const char *slirp_version_string(void)
{
    return "stand-in";
}

int slirp_add_hostfwd(Slirp *s, int is_udp, struct in_addr host_addr, int host_port, struct in_addr guest_addr, int guest_port)
{
    return 0;
}

void slirp_handle_timer(Slirp *s, SlirpTimerId id, void *cb_opaque)
{
    s->cb->timer_mod(*(void **)cb_opaque, s->cb->clock_get_ns(s->opaque) / 1000000 + 1, s->opaque);
}

/* Frames are orders to it. */
void slirp_input(Slirp *s, const u8 *pkt, int pkt_len)
{
    struct fuzz_input in = {pkt, (size_t)pkt_len};
    u8 how = (u8)take(&in, 1);
    void **t = &s->timer[how % TIMERS];

    for (int i = 0; i < pkt_len; i++)
        s->sum += pkt[i];
    if (how & 8)
        s->cb->send_packet(pkt, (size_t)pkt_len, s->opaque);
    if (how & 16 && !*t)
        *t = s->cb->timer_new_opaque(SLIRP_TIMER_RA, t, s->opaque);
    else if (how & 32)
        s->cb->timer_mod(*t, (s64)take(&in, 8), s->opaque);
    else if (how & 64 && *t) {
        s->cb->timer_free(*t, s->opaque);
        *t = NULL;
    }
    s->sockets = (int)take(&in, 1);
    if (how & 128)
        s->cb->notify(s->opaque);
}

void slirp_pollfds_fill(Slirp *s, u32 *timeout, SlirpAddPollCb add_poll, void *opaque)
{
    s->polled = s->sockets;
    for (int i = 0; i < s->polled; i++)
        add_poll(-1, SLIRP_POLL_IN | SLIRP_POLL_HUP, opaque);
}

void slirp_pollfds_poll(Slirp *s, int select_error, SlirpGetREventsCb get_revents, void *opaque)
{
    for (int i = 0; i < s->polled; i++)
        s->sum += (u32)get_revents(i, opaque);
}

/* ---- the card's side ---- */

static u32 received;

static bool ready(void *ctx)
{
    return true;
}

static void receive(void *ctx, const u8 *frame, size_t len)
{
    for (size_t i = 0; i < len; i++)
        received += frame[i];
}

static void stop(void *loop)
{
    event_loop_stop(loop);
}

static void turn(struct event_loop *loop)
{
    struct loop_task t = {.fn = stop, .ctx = loop};

    event_loop_post(loop, &t);
    event_loop_run(loop);
}

static void send_frame(struct net *n, struct fuzz_input *in)
{
    size_t wanted = take(in, 2), first = take(in, 1), len = MIN(wanted, in->left);
    struct iovec v[2];

    first = MIN(first, len);
    v[0] = (struct iovec){(void *)in->at, first};
    v[1] = (struct iovec){(void *)(in->at + first), len - first};
    net_send(n, v, 2);
    in->at += len;
    in->left -= len;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct event_loop *loop;
    struct fuzz_input in = {data, size};
    struct net_user_config config = {0};
    struct net *net;
    struct err e;

    if (!loop && event_loop_create(&lock, &loop, &e))
        abort();
    if (net_user_create(&config, loop, &net, &e))
        abort();
    net_attach(net, ready, receive, NULL);
    while (in.left) {
        send_frame(net, &in);
        if (take(&in, 1) & 1)
            turn(loop);
    }
    turn(loop);
    net_free(net);
    return 0;
}
