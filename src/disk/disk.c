/* Disks of a VM: asynchronous requests on top of synchronous images.
 *
 * Every request can be run by a worker thread, through the image's own operations. The short cut: a transfer that lies
 * in one piece of the host file (all of a raw disk, allocated runs of qcow2) goes to io_uring at once. Whatever a short
 * cut does not finish, a short transfer or an error, is run again by a worker, whose result counts. */
#include "disk/disk.h"
#include "base/trace.h"
#include "disk/disk_ring.h"
#include "disk/image.h"
#include "disk/work_pool.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { DISK_THREADS = 4 };

struct disk {
    struct image *image;
    int event_fd; /* readable: something has ended */
    struct watch *watch;
    struct work_pool *pool;
    struct disk_ring *ring; /* NULL: threads only */
    unsigned in_flight;     /* loop thread only, like the ring */

    pthread_mutex_t mutex;
    struct work *done; /* ended, newest first; under mutex */
};

/* What a request's priv[] holds. `work` links it into the pool's queue, then into `done`. */
struct pending {
    struct work work;
    struct disk *disk;
    s64 result;
};
static_assert(sizeof(struct pending) <= sizeof(((struct disk_request *)0)->priv), "priv is too small");

static struct pending *pending_of(struct disk_request *r)
{
    return (struct pending *)r->priv;
}

static struct disk_request *request_of(struct work *w)
{
    return container_of((void *)w, struct disk_request, priv);
}

/* Any thread. */
static void finish(struct disk_request *r, int result)
{
    struct pending *p = pending_of(r);
    struct disk *d = p->disk;

    p->result = result;
    pthread_mutex_lock(&d->mutex);
    p->work.next = d->done;
    d->done = &p->work;
    eventfd_write(d->event_fd, 1); /* inside the mutex: once this request is taken, the disk may be closed */
    pthread_mutex_unlock(&d->mutex);
}

static int perform(struct image *img, const struct disk_request *r)
{
    switch (r->op) {
    case DISK_READ:
        return image_readv(img, r->iov, r->iov_count, r->offset, r->length);
    case DISK_WRITE:
        return image_writev(img, r->iov, r->iov_count, r->offset, r->length);
    case DISK_FLUSH:
        return image_flush(img);
    case DISK_DISCARD:
        return image_discard(img, r->offset, r->length);
    case DISK_WRITE_ZEROES:
        return image_write_zeroes(img, r->offset, r->length);
    }
    return -EINVAL;
}

static void run(struct work *w)
{
    struct disk_request *r = request_of(w);

    finish(r, perform(pending_of(r)->disk->image, r));
}

static void run_in_pool(struct disk *d, struct disk_request *r)
{
    pending_of(r)->work.fn = run;
    work_pool_add(d->pool, &pending_of(r)->work);
}

static bool transfers(const struct disk_request *r)
{
    return r->op == DISK_READ || r->op == DISK_WRITE;
}

static int check(const struct disk *d, const struct disk_request *r)
{
    if (r->op != DISK_READ && r->op != DISK_FLUSH && d->image->readonly)
        return -EROFS;
    if (r->op == DISK_FLUSH)
        return 0;
    if ((r->offset | r->length) % SECTOR_SIZE || r->offset > d->image->size || r->length > d->image->size - r->offset)
        return -EINVAL;
    return transfers(r) && iov_total(r->iov, r->iov_count) != r->length ? -EINVAL : 0;
}

/* The short cut. A flush is one only for raw disks: elsewhere tables must be written first. */
static bool run_in_ring(struct disk *d, struct disk_request *r)
{
    struct image *img = d->image;
    u64 host_offset = 0;

    if (!d->ring)
        return false;
    if (r->op == DISK_FLUSH)
        return img->ops == &raw_ops && disk_ring_submit(d->ring, img->fd, r, 0);
    if (!transfers(r) || !img->ops->direct_begin(img, r->op == DISK_WRITE, r->offset, r->length, &host_offset))
        return false;
    if (disk_ring_submit(d->ring, img->fd, r, host_offset))
        return true;
    img->ops->direct_end(img);
    return false;
}

void disk_submit(struct disk *d, struct disk_request *r)
{
    int result = check(d, r);
    bool nothing = transfers(r) && !r->length;

    pending_of(r)->disk = d;
    d->in_flight++;
    if (result < 0 || nothing)
        finish(r, result);
    else if (!run_in_ring(d, r))
        run_in_pool(d, r);
}

static void complete(struct disk *d, struct disk_request *r, int result)
{
    d->in_flight--;
    if (result < 0)
        trace(DISK, "%s: request %d at %llu+%llu: %s", d->image->path, r->op, (unsigned long long)r->offset,
              (unsigned long long)r->length, strerror(-result));
    r->done(r, result);
}

static void complete_ring(struct disk *d)
{
    struct disk_request *r;
    int result;

    while (d->ring && (r = disk_ring_reap(d->ring, &result))) {
        bool whole = transfers(r) ? result >= 0 && (u64)result == r->length : result == 0;

        if (transfers(r))
            d->image->ops->direct_end(d->image);
        if (whole)
            complete(d, r, 0);
        else if (r->op == DISK_FLUSH && result != -ECANCELED)
            complete(d, r, result); /* not again: the host tells once that it lost data */
        else
            run_in_pool(d, r);
    }
}

static struct work *take_done(struct disk *d)
{
    struct work *newest, *oldest = NULL;

    pthread_mutex_lock(&d->mutex);
    newest = d->done;
    d->done = NULL;
    pthread_mutex_unlock(&d->mutex);
    while (newest) { /* in the order of their ending */
        struct work *w = newest;

        newest = w->next;
        w->next = oldest;
        oldest = w;
    }
    return oldest;
}

static void on_event(void *ctx, int events)
{
    struct disk *d = ctx;
    eventfd_t count;
    struct work *w;

    eventfd_read(d->event_fd, &count);
    complete_ring(d);
    w = take_done(d);
    while (w) {
        struct work *next = w->next; /* done() may use the request again */
        struct disk_request *r = request_of(w);

        complete(d, r, (int)pending_of(r)->result);
        w = next;
    }
}

static int open_image(const char *path, const struct disk_options *o, struct image **ret, struct err *e)
{
    unsigned flags = o->readonly || o->snapshot ? 0 : IMAGE_WRITE;
    struct image *base;
    int r = image_open(path, o->format, flags, &base, e);

    if (r < 0 || !o->snapshot || o->readonly) {
        if (!r)
            *ret = base;
        return r;
    }
    r = qcow2_open_overlay(base, ret, e);
    if (r < 0)
        image_close(base);
    return r;
}

static int start_io(struct disk *d, const struct disk_options *o, struct event_loop *loop, struct err *e)
{
    int r;

    d->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (d->event_fd < 0)
        return err_set(e, -errno, "cannot make an event for disk I/O: %s", strerror(errno));
    r = work_pool_create(DISK_THREADS, &d->pool, e);
    if (r < 0)
        return r;
    if (o->io == DISK_IO_AUTO && (r = disk_ring_create(d->event_fd, &d->ring)) < 0)
        trace(DISK, "%s: no io_uring (%s), threads do all", d->image->path, strerror(-r));
    return event_loop_watch(loop, d->event_fd, WATCH_READ, on_event, d, &d->watch, e);
}

int disk_open(const char *path, const struct disk_options *options, struct event_loop *loop, struct disk **ret,
              struct err *e)
{
    struct disk *d = calloc(1, sizeof(*d));
    int r;

    if (!d)
        return err_set(e, -ENOMEM, "no memory to open disk '%s'", path);
    d->event_fd = -1;
    pthread_mutex_init(&d->mutex, NULL);
    r = open_image(path, options, &d->image, e);
    if (!r)
        r = start_io(d, options, loop, e);
    if (r < 0) {
        disk_close(d);
        return r;
    }
    *ret = d;
    return 0;
}

void disk_drain(struct disk *d)
{
    while (d->in_flight) {
        poll(&(struct pollfd){.fd = d->event_fd, .events = POLLIN}, 1, -1);
        on_event(d, WATCH_READ);
    }
}

void disk_close(struct disk *d)
{
    if (!d)
        return;
    disk_drain(d);
    watch_remove(d->watch);
    work_pool_free(d->pool);
    disk_ring_free(d->ring);
    if (d->image && image_flush(d->image) < 0)
        trace(DISK, "%s: not everything could be written at close", d->image->path);
    image_close(d->image);
    if (d->event_fd >= 0)
        close(d->event_fd);
    pthread_mutex_destroy(&d->mutex);
    free(d);
}

u64 disk_size(const struct disk *d)
{
    return d->image->size;
}

bool disk_readonly(const struct disk *d)
{
    return d->image->readonly;
}
