/* The user network as a guest sees it: this test is the guest's card and speaks ARP, DHCP, TCP and UDP by hand. The far ends are
 * sockets on this host's loopback. */
#include "base/event_loop.h"
#include "net/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

enum { ETH = 14, IP = 20, TCP = 20, UDP = 8, TYPE_IP = 0x0800, TYPE_ARP = 0x0806, FRAMES = 64, FRAME_MAX = 2048 };
enum { SYN = 2, FIN = 1, RST = 4, PSH = 8, ACK = 16 };
#define GUEST 0x0a00020fu
#define GATEWAY 0x0a000202u

static const u8 guest_mac[6] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
static u8 host_mac[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

static pthread_mutex_t lock;
static struct event_loop *loop;
static struct net *net;
static u8 frame[FRAMES][FRAME_MAX]; /* what arrived */
static size_t frame_len[FRAMES];
static int frames, taken;
static bool ready = true;
static bool timed_out;

/* ---- the card ---- */

static bool card_ready(void *ctx)
{
    return ready && frames - taken < FRAMES;
}

static void card_receive(void *ctx, const u8 *data, size_t len)
{
    assert_true(len <= FRAME_MAX);
    memcpy(frame[frames % FRAMES], data, len);
    frame_len[frames++ % FRAMES] = len;
    event_loop_stop(loop);
}

static void *alarm_clock(void *seconds)
{
    usleep((useconds_t)(*(double *)seconds * 1e6));
    timed_out = true;
    event_loop_stop(loop);
    return NULL;
}

/* Runs the loop until a frame came or the time is over. */
static bool wait_frame(double seconds)
{
    pthread_t t;

    timed_out = false;
    if (taken < frames)
        return true;
    pthread_create(&t, NULL, alarm_clock, &seconds);
    while (taken == frames && !timed_out)
        event_loop_run(loop);
    pthread_cancel(t);
    pthread_join(t, NULL);
    return taken < frames;
}

static void send_bytes(const u8 *data, size_t len)
{
    struct iovec v[2] = {{(void *)data, len / 2}, {(void *)(data + len / 2), len - len / 2}};

    pthread_mutex_lock(&lock);
    net_send(net, v, 2);
    pthread_mutex_unlock(&lock);
}

/* ---- protocols ---- */

static void put16(u8 *p, u32 v)
{
    p[0] = (u8)(v >> 8);
    p[1] = (u8)v;
}

static void put32(u8 *p, u32 v)
{
    put16(p, v >> 16);
    put16(p + 2, v);
}

static u32 get16(const u8 *p)
{
    return (u32)p[0] << 8 | p[1];
}

static u32 get32(const u8 *p)
{
    return get16(p) << 16 | get16(p + 2);
}

static u32 sum(const u8 *p, size_t len, u32 start)
{
    for (size_t i = 0; i < len; i++)
        start += i & 1 ? p[i] : (u32)p[i] << 8;
    return start;
}

static u16 fold(u32 s)
{
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    return (u16)~s;
}

static void ethernet(u8 *f, const u8 *to, u32 type)
{
    memcpy(f, to, 6);
    memcpy(f + 6, guest_mac, 6);
    put16(f + 12, type);
}

/* Fills in the IP header and the checksum of the layer above, and sends. `check` is where that checksum stands. */
static void send_ip(u8 *f, u8 protocol, u32 from, u32 to, size_t payload, size_t check)
{
    u8 *ip = f + ETH, *above = ip + IP;

    ethernet(f, to == ~0u ? (const u8 *)"\xff\xff\xff\xff\xff\xff" : host_mac, TYPE_IP);
    memset(ip, 0, IP);
    ip[0] = 0x45;
    put16(ip + 2, (u32)(IP + payload));
    ip[8] = 64;
    ip[9] = protocol;
    put32(ip + 12, from);
    put32(ip + 16, to);
    put16(ip + 10, fold(sum(ip, IP, 0)));
    put16(above + check, 0);
    put16(above + check, fold(sum(above, payload, sum(ip + 12, 8, protocol + (u32)payload))));
    send_bytes(f, ETH + IP + payload);
}

static void send_udp(u32 from, u32 to, u32 sport, u32 dport, const void *data, size_t len)
{
    u8 f[FRAME_MAX] = {0}, *udp = f + ETH + IP;

    put16(udp, sport);
    put16(udp + 2, dport);
    put16(udp + 4, (u32)(UDP + len));
    memcpy(udp + UDP, data, len);
    send_ip(f, 17, from, to, UDP + len, 6);
}

static void answer_arp(const u8 *f)
{
    u8 reply[60] = {0};

    if (get16(f + ETH + 6) != 1 || get32(f + ETH + 24) != GUEST)
        return;
    memcpy(host_mac, f + 6, 6);
    ethernet(reply, f + 6, TYPE_ARP);
    memcpy(reply + ETH, "\0\1\x08\0\6\4\0\2", 8);
    memcpy(reply + ETH + 8, guest_mac, 6);
    put32(reply + ETH + 14, GUEST);
    memcpy(reply + ETH + 18, f + ETH + 8, 10);
    send_bytes(reply, sizeof(reply));
}

/* The next IPv4 packet of this protocol, or NULL in time; ARP is answered on the way, the rest passes by. */
static const u8 *expect_ip(u8 protocol, double seconds)
{
    while (wait_frame(seconds)) {
        const u8 *f = frame[taken++ % FRAMES];

        if (get16(f + 12) == TYPE_ARP)
            answer_arp(f);
        else if (get16(f + 12) == TYPE_IP && f[ETH + 9] == protocol)
            return f + ETH;
    }
    return NULL;
}

struct tcp {
    u32 peer, peer_port, port, seq, ack;
};

static void send_tcp(struct tcp *t, u8 flags, const void *data, size_t len)
{
    u8 f[FRAME_MAX] = {0}, *tcp = f + ETH + IP;

    put16(tcp, t->port);
    put16(tcp + 2, t->peer_port);
    put32(tcp + 4, t->seq);
    put32(tcp + 8, t->ack);
    tcp[12] = TCP / 4 << 4;
    tcp[13] = flags;
    put16(tcp + 14, 32000);
    if (len)
        memcpy(tcp + TCP, data, len);
    t->seq += (u32)len + (flags & (SYN | FIN) ? 1 : 0);
    send_ip(f, 6, GUEST, t->peer, TCP + len, 16);
}

/* The next segment of the connection; its data and length, the flags, and the acknowledgement noted. */
static const u8 *expect_tcp(struct tcp *t, u8 *flags, size_t *len)
{
    const u8 *ip = expect_ip(6, 5), *tcp;

    assert_non_null(ip);
    tcp = ip + IP;
    *flags = tcp[13];
    *len = get16(ip + 2) - IP - (size_t)(tcp[12] >> 4) * 4;
    if (*flags & SYN) {
        t->peer = get32(ip + 12);
        t->peer_port = get16(tcp);
        t->port = get16(tcp + 2);
    }
    t->ack = get32(tcp + 4) + (u32)*len + (*flags & (SYN | FIN) ? 1 : 0);
    return tcp + (tcp[12] >> 4) * 4;
}

/* ---- sockets of this host ---- */

static struct sockaddr_in loopback(u16 port)
{
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
}

static int bound_socket(int type, u16 *port)
{
    struct sockaddr_in sa = loopback(0);
    socklen_t len = sizeof(sa);
    int fd = socket(AF_INET, type, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    if (type == SOCK_STREAM)
        assert_int_equal(listen(fd, 4), 0);
    getsockname(fd, (struct sockaddr *)&sa, &len);
    *port = ntohs(sa.sin_port);
    return fd;
}

static u16 free_port(int type)
{
    u16 port;

    close(bound_socket(type, &port));
    return port;
}

static void create(const struct net_forward *f, int count)
{
    struct net_user_config config = {.forward = f, .forward_count = count, .hostname = "guest"};
    struct err e = {0};

    assert_int_equal(net_user_create(&config, loop, &net, &e), 0);
    net_attach(net, card_ready, card_receive, NULL);
}

static int setup(void **unused)
{
    pthread_mutexattr_t attr;
    struct err e;

    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&lock, &attr);
    assert_int_equal(event_loop_create(&lock, &loop, &e), 0);
    net = NULL;
    frames = taken = 0;
    ready = true;
    return 0;
}

static int teardown(void **unused)
{
    net_free(net);
    event_loop_free(loop);
    pthread_mutex_destroy(&lock);
    return 0;
}

/* ---- tests ---- */

static void ask_for_gateway(void)
{
    u8 f[60] = {0};
    const u8 *r = NULL;

    ethernet(f, (const u8 *)"\xff\xff\xff\xff\xff\xff", TYPE_ARP);
    memcpy(f + ETH, "\0\1\x08\0\6\4\0\1", 8);
    memcpy(f + ETH + 8, guest_mac, 6);
    put32(f + ETH + 14, GUEST);
    put32(f + ETH + 24, GATEWAY);
    send_bytes(f, sizeof(f));
    while (!r && wait_frame(5)) {
        const u8 *got = frame[taken++ % FRAMES];

        if (get16(got + 12) == TYPE_ARP && get16(got + ETH + 6) == 2)
            r = got;
    }
    assert_non_null(r);
    assert_int_equal(get32(r + ETH + 14), GATEWAY);
    memcpy(host_mac, r + ETH + 8, 6);
}

static void arp_finds_the_gateway(void **unused)
{
    create(NULL, 0);
    ask_for_gateway();
}

static void dhcp_offers_the_address(void **unused)
{
    u8 msg[300] = {1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef};
    static const u8 options[] = {0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255};
    const u8 *ip, *boot;

    create(NULL, 0);
    memcpy(msg + 28, guest_mac, 6);
    memcpy(msg + 236, options, sizeof(options));
    send_udp(0, ~0u, 68, 67, msg, sizeof(msg));
    ip = expect_ip(17, 5);
    assert_non_null(ip);
    boot = ip + IP + UDP;
    assert_int_equal(get16(ip + IP + 2), 68);
    assert_int_equal(boot[0], 2);
    assert_int_equal(get32(boot + 4), 0xdeadbeef);
    assert_int_equal(get32(boot + 16), GUEST);
    assert_memory_equal(boot + 236, "\x63\x82\x53\x63\x35\x01\x02", 7); /* an OFFER */
}

static void guest_reaches_a_server_on_the_host(void **unused)
{
    struct tcp t = {.peer = GATEWAY, .port = 40000, .seq = 1000};
    const u8 *data;
    char buf[16];
    size_t len;
    u8 flags;
    u16 port;
    int server = bound_socket(SOCK_STREAM, &port), fd;

    arp_finds_the_gateway(NULL);
    t.peer_port = port;
    send_tcp(&t, SYN, NULL, 0);
    expect_tcp(&t, &flags, &len);
    assert_int_equal(flags, SYN | ACK);
    t = (struct tcp){GATEWAY, port, 40000, t.seq, t.ack};
    send_tcp(&t, ACK, NULL, 0);
    fd = accept(server, NULL, NULL);
    send_tcp(&t, ACK | PSH, "question", 8);
    assert_int_equal(recv(fd, buf, 8, MSG_WAITALL), 8);
    assert_memory_equal(buf, "question", 8);
    assert_int_equal(send(fd, "answer", 6, 0), 6);
    do
        data = expect_tcp(&t, &flags, &len);
    while (!len);
    assert_int_equal(len, 6);
    assert_memory_equal(data, "answer", 6);
    close(fd);
    close(server);
}

static void tcp_forward(void **unused)
{
    struct net_forward f = {.host_port = free_port(SOCK_STREAM), .guest_port = 22};
    struct sockaddr_in sa = loopback(f.host_port);
    struct tcp t = {.seq = 5000};
    const u8 *data;
    char buf[16];
    size_t len;
    u8 flags;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    create(&f, 1);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    expect_tcp(&t, &flags, &len);
    assert_int_equal(flags, SYN);
    assert_int_equal(t.port, 22);
    send_tcp(&t, SYN | ACK, NULL, 0);
    do
        expect_tcp(&t, &flags, &len);
    while (!(flags & ACK));
    assert_int_equal(send(fd, "ping", 4, 0), 4);
    do
        data = expect_tcp(&t, &flags, &len);
    while (!len);
    assert_int_equal(len, 4);
    assert_memory_equal(data, "ping", 4);
    send_tcp(&t, ACK | PSH, "pong!", 5);
    assert_int_equal(recv(fd, buf, 5, MSG_WAITALL), 5);
    assert_memory_equal(buf, "pong!", 5);
    send_tcp(&t, FIN | ACK, NULL, 0);
    assert_int_equal(recv(fd, buf, 1, 0), 0);
    close(fd);
}

static void udp_forward(void **unused)
{
    struct net_forward f = {.udp = true, .host_port = free_port(SOCK_DGRAM), .guest_port = 53};
    struct sockaddr_in sa = loopback(f.host_port);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    const u8 *ip;
    char buf[16];

    create(&f, 1);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(send(fd, "hello", 5, 0), 5);
    ip = expect_ip(17, 5);
    assert_non_null(ip);
    assert_int_equal(get16(ip + IP + 2), 53);
    assert_memory_equal(ip + IP + UDP, "hello", 5);
    send_udp(GUEST, get32(ip + 12), 53, get16(ip + IP), "there", 5);
    assert_int_equal(recv(fd, buf, sizeof(buf), 0), 5);
    assert_memory_equal(buf, "there", 5);
    close(fd);
}

/* A guest that takes no frames: the server is slowed, nothing is lost, and all arrives when the guest goes on. */
static void bulk_waits_for_a_slow_guest(void **unused)
{
    enum { TOTAL = 1 << 20 };
    struct net_forward f = {.host_port = free_port(SOCK_STREAM), .guest_port = 80};
    struct sockaddr_in sa = loopback(f.host_port);
    struct tcp t = {.seq = 1};
    size_t sent = 0, received = 0, len;
    static u8 data[65536];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    u32 expected;
    u8 flags;

    create(&f, 1);
    connect(fd, (struct sockaddr *)&sa, sizeof(sa));
    expect_tcp(&t, &flags, &len);
    send_tcp(&t, SYN | ACK, NULL, 0);
    do
        expect_tcp(&t, &flags, &len);
    while (!(flags & ACK));
    expected = t.ack;
    for (int stall = 0; received < TOTAL;) {
        ssize_t n = sent < TOTAL ? send(fd, data, MIN(sizeof(data), TOTAL - sent), 0) : 0;
        const u8 *ip;

        sent += n > 0 ? (size_t)n : 0;
        if (stall++ % 50 == 10) {
            ready = false;
            usleep(20000);
            ready = true;
            net_receive_ready(net);
        }
        ip = expect_ip(6, 5);
        assert_non_null(ip);
        len = get16(ip + 2) - IP - (size_t)(ip[IP + 12] >> 4) * 4;
        if (get32(ip + IP + 4) == expected && len) {
            expected += (u32)len;
            received += len;
        }
        t.ack = expected;
        send_tcp(&t, ACK, NULL, 0);
    }
    assert_int_equal(received, TOTAL);
    close(fd);
}

static void taken_port_gives_a_sentence(void **unused)
{
    static const int type[] = {SOCK_STREAM, SOCK_DGRAM};

    for (int udp = 0; udp < 2; udp++) {
        struct net_forward f = {.udp = udp, .guest_port = 22};
        struct net_user_config config = {.forward = &f, .forward_count = 1};
        struct err e = {0};
        char text[128];
        int fd = bound_socket(type[udp], &f.host_port);

        snprintf(text, sizeof(text), "port %u on 127.0.0.1 is already in use; choose another with -p HOST:GUEST",
                 f.host_port);
        assert_int_equal(net_user_create(&config, loop, &net, &e), -EADDRINUSE);
        assert_string_equal(e.text, text);
        assert_null(net);
        close(fd);
    }
}

static void port_taken_twice_gives_a_sentence(void **unused)
{
    struct net_forward f[2] = {{.host_port = free_port(SOCK_STREAM), .guest_port = 22}};
    struct net_user_config config = {.forward = f, .forward_count = 2};
    struct err e = {0};

    f[1] = f[0];
    assert_int_equal(net_user_create(&config, loop, &net, &e), -EADDRINUSE);
    assert_null(net);
}

static void garbage_frames_do_no_harm(void **unused)
{
    u32 random = 12345;

    arp_finds_the_gateway(NULL);
    for (int i = 0; i < 3000; i++) {
        u8 f[200];
        size_t len = (random >> 16) % sizeof(f);

        for (size_t k = 0; k < sizeof(f); k++) {
            random = random * 1103515245 + 12345;
            f[k] = (u8)(random >> 16);
        }
        if (i & 1)
            put16(f + 12, TYPE_IP);
        if (i & 2)
            f[ETH] = 0x45;
        send_bytes(f, len);
    }
    taken = frames;
    ask_for_gateway();
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(arp_finds_the_gateway),
                                       TEST(dhcp_offers_the_address),
                                       TEST(guest_reaches_a_server_on_the_host),
                                       TEST(tcp_forward),
                                       TEST(udp_forward),
                                       TEST(bulk_waits_for_a_slow_guest),
                                       TEST(taken_port_gives_a_sentence),
                                       TEST(port_taken_twice_gives_a_sentence),
                                       TEST(garbage_frames_do_no_harm)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
