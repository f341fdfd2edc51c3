/* The card's side of every network back end: see net.h and backend.h. */
#include "net/net.h"

#include "base/trace.h"
#include "net/backend.h"

enum { FRAMES_AT_ONCE = 256 }; /* then others on the loop get their turn */

/* Hands frames to the card while it has room. Loop thread. */
static void deliver(void *ctx)
{
    struct net *n = ctx;
    size_t before = frame_queue_used(&n->to_guest), len;
    const u8 *frame;
    int budget = FRAMES_AT_ONCE;

    if (!n->receive)
        return;
    while (budget-- && (frame = frame_queue_peek(&n->to_guest, &len)) && n->ready(n->ctx)) {
        n->receive(n->ctx, frame, len);
        frame_queue_drop(&n->to_guest);
    }
    if (budget < 0)
        event_loop_post(n->loop, &n->deliver);
    if (before > NET_QUEUE_HIGH && frame_queue_used(&n->to_guest) <= NET_QUEUE_HIGH)
        n->ops->wake(n);
}

int net_open(struct net *n, const struct net_ops *ops, struct event_loop *loop)
{
    int r;

    *n = (struct net){.ops = ops, .loop = loop, .deliver = {.fn = deliver, .ctx = n}};
    r = frame_queue_init(&n->to_host, NET_QUEUE_BYTES);
    return r ? r : frame_queue_init(&n->to_guest, NET_QUEUE_BYTES);
}

void net_close(struct net *n)
{
    event_loop_cancel(n->loop, &n->deliver);
    frame_queue_free(&n->to_host);
    frame_queue_free(&n->to_guest);
}

void net_deliver(struct net *n, const u8 *frame, size_t len)
{
    struct iovec v = {(void *)frame, len};
    bool was_empty;

    if (!frame_queue_push(&n->to_guest, &v, 1, &was_empty))
        trace(NET, "frame of %zu bytes for the guest lost, queue full", len);
    else if (was_empty)
        event_loop_post(n->loop, &n->deliver);
}

void net_attach(struct net *n, bool (*ready)(void *ctx), void (*receive)(void *ctx, const u8 *frame, size_t len),
                void *ctx)
{
    n->ready = ready;
    n->receive = receive;
    n->ctx = ctx;
    event_loop_post(n->loop, &n->deliver);
}

void net_receive_ready(struct net *n)
{
    event_loop_post(n->loop, &n->deliver);
}

void net_send(struct net *n, const struct iovec *iov, int iov_count)
{
    bool was_empty;

    if (!frame_queue_push(&n->to_host, iov, iov_count, &was_empty))
        trace(NET, "frame of the guest lost, queue full");
    else if (was_empty)
        n->ops->wake(n);
}

void net_free(struct net *n)
{
    if (n)
        n->ops->free(n);
}
