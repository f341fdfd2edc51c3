/* User-mode network: NAT, DHCP, DNS and port forwards by libslirp, without any privilege. See net.h.
 *
 * libslirp is not thread-safe; its instance belongs to one thread, which polls the host's sockets. Frames cross in the queues
 * of backend.h. While much is under way to the guest, the sockets are left alone: the host's TCP then slows the sender,
 * where a dropped frame would cost a second of retransmission timer. */
#include "base/trace.h"
#include "net/backend.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <slirp/libslirp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

struct slirp_timer {
    SlirpTimerId id;
    void *ctx;
    s64 expires; /* ms; -1: not armed */
    struct slirp_timer *next;
};

struct net_user {
    struct net net;
    Slirp *slirp;
    pthread_t thread;
    bool running, stop; /* stop: atomic */
    int wake_fd;
    struct pollfd *poll;
    int poll_count, poll_room;
    struct slirp_timer *timers;
};

static struct net_user *user_of(struct net *n)
{
    return container_of(n, struct net_user, net);
}

/* ---- what libslirp calls ---- */

static ssize_t send_packet(const void *buf, size_t len, void *opaque)
{
    struct net_user *u = opaque;

    net_deliver(&u->net, buf, len);
    return (ssize_t)len;
}

static void guest_error(const char *msg, void *opaque)
{
    trace(GUEST, "network: %s", msg);
}

static int64_t clock_get_ns(void *opaque)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

static void *timer_new_opaque(SlirpTimerId id, void *ctx, void *opaque)
{
    struct net_user *u = opaque;
    struct slirp_timer *t = malloc(sizeof(*t));

    if (!t)
        return NULL;
    *t = (struct slirp_timer){.id = id, .ctx = ctx, .expires = -1, .next = u->timers};
    u->timers = t;
    return t;
}

static void timer_free(void *timer, void *opaque)
{
    struct net_user *u = opaque;

    for (struct slirp_timer **t = &u->timers; *t; t = &(*t)->next)
        if (*t == timer) {
            *t = (*t)->next;
            free(timer);
            return;
        }
}

static void timer_mod(void *timer, int64_t expires, void *opaque)
{
    if (timer)
        ((struct slirp_timer *)timer)->expires = expires;
}

static void poll_fd_ignore(int fd, void *opaque)
{
    /* the set is built anew before each poll */
}

static void wake(struct net *n)
{
    u64 one = 1;

    if (write(user_of(n)->wake_fd, &one, sizeof(one)) < 0)
        return; /* the counter is full: it is awake */
}

static void notify(void *opaque)
{
    wake(&((struct net_user *)opaque)->net);
}

static void init_completed(Slirp *slirp, void *opaque)
{
    ((struct net_user *)opaque)->slirp = slirp;
}

static const SlirpCb callbacks = {
    .send_packet = send_packet,
    .guest_error = guest_error,
    .clock_get_ns = clock_get_ns,
    .timer_free = timer_free,
    .timer_mod = timer_mod,
    .register_poll_fd = poll_fd_ignore,
    .unregister_poll_fd = poll_fd_ignore,
    .notify = notify,
    .init_completed = init_completed,
    .timer_new_opaque = timer_new_opaque,
};

/* ---- the thread ---- */

static const struct {
    int slirp;
    short host;
} poll_bits[] = {{SLIRP_POLL_IN, POLLIN},
                 {SLIRP_POLL_OUT, POLLOUT},
                 {SLIRP_POLL_PRI, POLLPRI},
                 {SLIRP_POLL_ERR, POLLERR},
                 {SLIRP_POLL_HUP, POLLHUP}};

static int add_poll(int fd, int events, void *opaque)
{
    struct net_user *u = opaque;
    struct pollfd p = {.fd = fd};

    if (u->poll_count == u->poll_room) {
        int room = u->poll_room * 2;
        struct pollfd *bigger = realloc(u->poll, (size_t)room * sizeof(*bigger));

        if (!bigger)
            return -1;
        u->poll = bigger;
        u->poll_room = room;
    }
    for (size_t i = 0; i < ARRAY_SIZE(poll_bits); i++)
        if (events & poll_bits[i].slirp)
            p.events |= poll_bits[i].host;
    u->poll[u->poll_count] = p;
    return u->poll_count++;
}

static int get_revents(int index, void *opaque)
{
    struct net_user *u = opaque;
    int events = 0;

    if (index < 0)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(poll_bits); i++)
        if (u->poll[index].revents & poll_bits[i].host)
            events |= poll_bits[i].slirp;
    return events;
}

static s64 now_ms(void)
{
    return clock_get_ns(NULL) / 1000000;
}

/* Milliseconds until the first timer, at most `limit`. */
static u32 timers_next(const struct net_user *u, u32 limit)
{
    for (const struct slirp_timer *t = u->timers; t; t = t->next)
        if (t->expires >= 0)
            limit = (u32)MIN((s64)limit, MAX(t->expires - now_ms(), 0));
    return limit;
}

static void timers_run(struct net_user *u)
{
    s64 now = now_ms();

    for (struct slirp_timer *t = u->timers; t; t = t->next)
        if (t->expires >= 0 && t->expires <= now) {
            t->expires = -1;
            slirp_handle_timer(u->slirp, t->id, t->ctx);
        }
}

static void wake_clear(struct net_user *u)
{
    u64 count;

    if (u->poll[0].revents & POLLIN && read(u->wake_fd, &count, sizeof(count)) < 0)
        return; /* nothing to clear */
}

/* All that the guest has sent so far; as much as fits the queue, so that sockets get their turn. */
static void frames_input(struct net_user *u)
{
    size_t taken = 0, len;
    const u8 *frame;

    while (taken < NET_QUEUE_BYTES && (frame = frame_queue_peek(&u->net.to_host, &len))) {
        slirp_input(u->slirp, frame, (int)len);
        frame_queue_drop(&u->net.to_host);
        taken += len;
    }
    if (taken >= NET_QUEUE_BYTES)
        wake(&u->net);
}

static void poll_once(struct net_user *u)
{
    bool sockets = frame_queue_used(&u->net.to_guest) <= NET_QUEUE_HIGH;
    u32 timeout = 60000;
    int ready;

    u->poll[0] = (struct pollfd){.fd = u->wake_fd, .events = POLLIN};
    u->poll_count = 1;
    if (sockets)
        slirp_pollfds_fill(u->slirp, &timeout, add_poll, u);
    ready = poll(u->poll, (nfds_t)u->poll_count, (int)timers_next(u, MIN(timeout, 60000u)));
    wake_clear(u);
    frames_input(u);
    /* behind the guest's frames, because it also sends on what waited for one of them, such as an ARP reply */
    if (sockets)
        slirp_pollfds_poll(u->slirp, ready < 0, get_revents, u);
}

static void *user_thread(void *arg)
{
    struct net_user *u = arg;

    while (!__atomic_load_n(&u->stop, __ATOMIC_ACQUIRE)) {
        poll_once(u);
        timers_run(u);
    }
    return NULL;
}

/* ---- lifecycle ---- */

static void user_free(struct net *n)
{
    struct net_user *u = user_of(n);

    if (u->running) {
        __atomic_store_n(&u->stop, true, __ATOMIC_RELEASE);
        wake(n);
        pthread_join(u->thread, NULL);
    }
    if (u->slirp)
        slirp_cleanup(u->slirp);
    while (u->timers)
        timer_free(u->timers, u);
    if (u->wake_fd >= 0)
        close(u->wake_fd);
    net_close(n);
    free(u->poll);
    free(u);
}

static const struct net_ops user_ops = {.wake = wake, .free = user_free};

/* Whether the host lets us listen there. libslirp itself would share a UDP port with another program, without a word. */
static int port_probe(const struct net_forward *f, struct in_addr addr)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = addr, .sin_port = htons(f->host_port)};
    int fd = socket(AF_INET, (f->udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0), one = 1, r = 0;

    if (fd < 0)
        return -errno;
    if (!f->udp) /* connections that linger after their end do not count */
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) || (!f->udp && listen(fd, 1)))
        r = -errno;
    close(fd);
    return r;
}

static int forward_refused(const struct net_forward *f, const char *addr, int r, struct err *e)
{
    if (r == -EADDRINUSE)
        return err_set(e, r, "port %u on %s is already in use; choose another with -p HOST:GUEST", f->host_port, addr);
    if (r == -EACCES)
        return err_set(e, r, "no permission to listen on port %u of %s; choose one from 1024 up with -p HOST:GUEST",
                       f->host_port, addr);
    return err_set(e, r, "cannot listen on port %u of %s: %s", f->host_port, addr, strerror(-r));
}

static int forward_add(struct net_user *u, const struct net_forward *f, struct err *e)
{
    struct in_addr host = {f->host_addr ? f->host_addr : htonl(INADDR_LOOPBACK)}, guest = {0};
    char addr[INET_ADDRSTRLEN];
    int r = port_probe(f, host);

    inet_ntop(AF_INET, &host, addr, sizeof(addr));
    if (r)
        return forward_refused(f, addr, r, e);
    if (slirp_add_hostfwd(u->slirp, f->udp, host, f->host_port, guest, f->guest_port))
        return forward_refused(f, addr, errno ? -errno : -EIO, e);
    trace(NET, "%s port %u of %s goes to port %u of the guest", f->udp ? "UDP" : "TCP", f->host_port, addr,
          f->guest_port);
    return 0;
}

static void slirp_configure(SlirpConfig *c, const struct net_user_config *config)
{
    *c = (SlirpConfig){
        .version = 4, .in_enabled = true, .in6_enabled = true, .vprefix_len = 64, .vhostname = config->hostname};
    inet_pton(AF_INET, "10.0.2.0", &c->vnetwork);
    inet_pton(AF_INET, "255.255.255.0", &c->vnetmask);
    inet_pton(AF_INET, "10.0.2.2", &c->vhost);
    inet_pton(AF_INET, "10.0.2.3", &c->vnameserver);
    inet_pton(AF_INET, "10.0.2.15", &c->vdhcp_start);
    inet_pton(AF_INET6, "fec0::", &c->vprefix_addr6);
    inet_pton(AF_INET6, "fec0::2", &c->vhost6);
    inet_pton(AF_INET6, "fec0::3", &c->vnameserver6);
}

/* Signals are for the other threads; a SIGPIPE of libslirp's sockets stays pending here, and it sees EPIPE. */
static int thread_start(struct net_user *u)
{
    sigset_t all, old;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_create(&u->thread, NULL, user_thread, u);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    u->running = !r;
    return -r;
}

static int user_open(struct net_user *u, const struct net_user_config *config, struct event_loop *loop, struct err *e)
{
    SlirpConfig sc;
    int r = net_open(&u->net, &user_ops, loop);

    u->poll_room = 64;
    u->poll = calloc((size_t)u->poll_room, sizeof(*u->poll));
    u->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r || !u->poll || u->wake_fd < 0)
        return err_set(e, r ? r : -ENOMEM, "user network: out of memory or file descriptors");
    slirp_configure(&sc, config);
    u->slirp = slirp_new(&sc, &callbacks, u);
    if (!u->slirp)
        return err_set(e, -EINVAL, "user network: libslirp %s refuses its configuration", slirp_version_string());
    for (int i = 0; i < config->forward_count; i++) {
        r = forward_add(u, &config->forward[i], e);
        if (r)
            return r;
    }
    r = thread_start(u);
    return r ? err_set(e, r, "user network: cannot start a thread: %s", strerror(-r)) : 0;
}

int net_user_create(const struct net_user_config *config, struct event_loop *loop, struct net **ret, struct err *e)
{
    struct net_user *u = calloc(1, sizeof(*u));
    int r;

    if (!u)
        return err_set(e, -ENOMEM, "user network: out of memory");
    r = user_open(u, config, loop, e);
    if (r) {
        user_free(&u->net);
        return r;
    }
    *ret = &u->net;
    return 0;
}
