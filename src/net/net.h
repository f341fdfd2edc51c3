/* Network back ends: where a virtual network card's frames go.
 *
 * The back end works in a thread of its own; frames cross over in queues. The card's side is the loop thread. */
#ifndef NET_NET_H
#define NET_NET_H
#include "base/err.h"
#include "base/event_loop.h"
#include "base/types.h"
#include <sys/uio.h>

#define NET_FRAME_MAX 65550 /* bytes of an Ethernet frame with the largest segment */

struct net_forward {
    bool udp;
    u32 host_addr; /* network order; 0: 127.0.0.1 */
    u16 host_port, guest_port;
};

struct net_user_config {
    const struct net_forward *forward;
    int forward_count;
    const char *hostname; /* for DHCP; may be NULL */
};

struct net;

/* User-mode NAT by libslirp: network 10.0.2.0/24, gateway and host 10.0.2.2, DNS 10.0.2.3, guest 10.0.2.15 by DHCP; IPv6
 * fec0::/64. A forward whose port is taken fails with a sentence that names it. */
int net_user_create(const struct net_user_config *config, struct event_loop *loop, struct net **ret, struct err *e);
void net_free(struct net *n); /* NULL is fine */

/* The card's receiver: ready() says whether it has room for one more frame, receive() takes one. Called in the loop thread. */
void net_attach(struct net *n, bool (*ready)(void *ctx), void (*receive)(void *ctx, const u8 *frame, size_t len), void *ctx);

/* The card has room again after ready() said no. Loop thread or vCPU thread, machine lock held. */
void net_receive_ready(struct net *n);

/* A frame from the guest; copied; dropped when the queue is full, as a wire would. Machine lock held. */
void net_send(struct net *n, const struct iovec *iov, int iov_count);

#endif
