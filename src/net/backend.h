/* What is common to network back ends: the card's side, and the two queues to and from the back end's thread. */
#ifndef NET_BACKEND_H
#define NET_BACKEND_H
#include "net/frame_queue.h"
#include "net/net.h"

#define NET_QUEUE_BYTES KIB(512)

/* A back end that sees more than this under way to the guest stops taking more in from the outside, where that is possible. */
#define NET_QUEUE_HIGH (NET_QUEUE_BYTES / 2)

struct net_ops {
    /* Wakes the back end's thread: there are frames in to_host, or to_guest fell below NET_QUEUE_HIGH. Any thread. */
    void (*wake)(struct net *n);
    /* Ends the thread and frees the back end, the struct net included after net_close. */
    void (*free)(struct net *n);
};

struct net {
    const struct net_ops *ops;
    struct event_loop *loop;
    struct frame_queue to_host, to_guest;
    struct loop_task deliver;
    bool (*ready)(void *ctx); /* the card's receiver; NULL: no card */
    void (*receive)(void *ctx, const u8 *frame, size_t len);
    void *ctx;
};

int net_open(struct net *n, const struct net_ops *ops, struct event_loop *loop); /* 0 or -ENOMEM */
void net_close(struct net *n);

/* A frame for the guest, from the back end's thread; dropped when the queue is full. */
void net_deliver(struct net *n, const u8 *frame, size_t len);

#endif
