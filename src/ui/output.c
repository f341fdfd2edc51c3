/* Console output that never waits: see output.h.
 *
 * The queue is bounded, for the guest may write forever. When it is full the reader has been away for a megabyte of text; the
 * newest bytes are dropped then, and a line in the output tells how many. */
#include "ui/output.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { QUEUE_BYTES = 1 << 20, NOTE_BYTES = 80, QUEUE_LIMIT = QUEUE_BYTES - NOTE_BYTES /* a note always fits */ };
enum { CLOSE_WAIT_MS = 1000 };

/* ---- descriptors ---- */

/* O_NONBLOCK belongs to the open file, which our terminal shares with the shell that started us: so terminals and pipes are
 * opened anew. */
int descriptor_own(int fd, int access, int *restore_flags)
{
    struct stat st;
    char path[32];
    int own, flags;

    if (fstat(fd, &st))
        return -errno;
    *restore_flags = -1;
    if (S_ISREG(st.st_mode)) {
        own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        return own < 0 ? -errno : own;
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    own = S_ISSOCK(st.st_mode) ? -1 : open(path, access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (own >= 0)
        return own;
    own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    flags = own < 0 ? -1 : fcntl(own, F_GETFL);
    if (flags < 0)
        return -errno;
    *restore_flags = flags;
    fcntl(own, F_SETFL, flags | O_NONBLOCK);
    return own;
}

void descriptor_close(int fd, int restore_flags)
{
    if (fd < 0)
        return;
    if (restore_flags >= 0)
        fcntl(fd, F_SETFL, restore_flags);
    close(fd);
}

/* ---- the queue ---- */

/* Bytes taken by the host, 0 when it takes none now. */
static size_t write_some(struct output *o, const u8 *data, size_t len)
{
    ssize_t n = write(o->fd, data, len);

    if (n >= 0)
        return (size_t)n;
    if (errno != EAGAIN && errno != EINTR && errno != ENOSPC)
        o->gone = true;               /* EPIPE, EIO of a terminal that hung up */
    return errno == ENOSPC ? len : 0; /* a full disk loses what is left */
}

static void enqueue(struct output *o, const u8 *data, size_t len)
{
    for (size_t n; len; data += n, len -= n) {
        size_t tail = (o->head + o->used) % QUEUE_BYTES;

        n = MIN(len, QUEUE_BYTES - tail);
        memcpy(o->queue + tail, data, n);
        o->used += n;
    }
}

static void note_lost(struct output *o)
{
    char note[NOTE_BYTES];
    int n = snprintf(note, sizeof(note), "\r\n[skerry: %llu bytes of console output lost]\r\n",
                     (unsigned long long)o->lost);

    o->lost = 0;
    enqueue(o, (u8 *)note, (size_t)n);
}

static void store(struct output *o, const u8 *data, size_t len)
{
    size_t taken;

    if (!o->queue)
        o->queue = malloc(QUEUE_BYTES);
    /* once bytes were lost, wait for a good stretch of room before going on: one note, not thousands */
    if (!o->queue || (o->lost && o->used > QUEUE_LIMIT / 2)) {
        o->lost += len;
        return;
    }
    if (o->lost)
        note_lost(o);
    taken = MIN(len, QUEUE_LIMIT - o->used);
    enqueue(o, data, taken);
    o->lost += len - taken;
}

static void flush(struct output *o)
{
    while (o->used && !o->gone) {
        size_t n = write_some(o, o->queue + o->head, MIN(o->used, QUEUE_BYTES - o->head));

        if (!n)
            break;
        o->head = (o->head + n) % QUEUE_BYTES;
        o->used -= n;
    }
    if (o->gone)
        o->used = 0;
    if (o->watch)
        watch_set_events(o->watch, o->used ? WATCH_WRITE : 0);
}

static void writable(void *ctx, int events)
{
    flush(ctx);
}

void output_write(struct output *o, const u8 *data, size_t len)
{
    if (o->used)
        flush(o);
    while (len && !o->used && !o->lost && !o->gone) {
        size_t n = write_some(o, data, len);

        if (!n)
            break;
        data += n;
        len -= n;
    }
    if (!len || o->gone)
        return;
    store(o, data, len);
    flush(o);
}

/* ---- lifecycle ---- */

void output_open(struct output *o, int fd, int restore_flags, struct event_loop *loop)
{
    struct err ignored; /* a regular file cannot be watched, nor need it be */

    *o = (struct output){.fd = fd, .restore_flags = restore_flags};
    if (loop && event_loop_watch(loop, fd, 0, writable, o, &o->watch, &ignored))
        o->watch = NULL;
}

static s64 now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000ll + ts.tv_nsec / 1000000;
}

void output_close(struct output *o)
{
    s64 deadline = now_ms() + CLOSE_WAIT_MS, left;

    if (o->lost && o->queue)
        note_lost(o);
    flush(o);
    while (o->used && (left = deadline - now_ms()) > 0) {
        struct pollfd p = {.fd = o->fd, .events = POLLOUT};

        poll(&p, 1, (int)left);
        flush(o);
    }
    watch_remove(o->watch);
    descriptor_close(o->fd, o->restore_flags);
    free(o->queue);
}
